//! Diagnostics about the configuration as a whole.

use crate::config::UfwConfig;
use crate::diagnostic::Diagnostics;
use crate::merge::MergedRule;
use crate::settings::{LogLevel, Setting, Settings, setting};
use crate::tuple::{Action, Direction, RuleSpec};

/// Adds a note for each kind of rule that means something slightly different in a policy.
pub(crate) fn about_rules(
    merged: &[MergedRule],
    config: &UfwConfig,
    has_bridges: bool,
    diagnostics: &mut Diagnostics,
) {
    let first = |is_kind: &dyn Fn(&RuleSpec) -> bool| {
        let rule = merged.iter().find(|rule| is_kind(&rule.tuple.spec))?;
        Some((&*config.user_rules[rule.file_version()].name, rule.tuple.line))
    };
    if let Some((file, line)) = first(&|spec| spec.action == Action::Limit) {
        let message = "each limit counts for itself, and an IPv6 /64 is one source (`v6_prefix`); \
                       UFW counts each address, for all its limits together";
        diagnostics.note(file, line, message);
    }
    let denies_all = |spec: &RuleSpec| {
        spec.direction == Direction::In && spec.action.refuses() && spec.is_for_any_service()
    };
    if let Some((file, line)) = first(&denies_all) {
        let message = "the rule also denies echo requests and discovery (mDNS, UPnP), which UFW \
                       accepts before all rules";
        diagnostics.note(file, line, message);
    }
    let has_routes = merged.iter().any(|rule| rule.tuple.spec.direction == Direction::Route);
    if has_bridges && has_routes {
        let message = "rules for `in` apply to published ports, and rules for `out` to what \
                       containers send; with --no-containers, rules for `route` apply to what \
                       containers send";
        diagnostics.note(&config.user_rules.v4.name, None, message);
    }
}

/// Adds diagnostics for settings that a policy does not have.
pub(crate) fn about_settings(
    config: &UfwConfig,
    settings: &Settings,
    diagnostics: &mut Diagnostics,
) {
    let (defaults, conf) = (&config.defaults, &config.conf);
    let line = |file, key| setting(file, key).map(|setting| setting.line);
    let words = |file, key| {
        setting(file, key).map_or(format!("no {key}"), |setting| format!("{key}={}", setting.value))
    };
    if !settings.enabled {
        let message = format!(
            "UFW is disabled ({}); the policy does what UFW would do if it were enabled",
            words(conf, "ENABLED")
        );
        diagnostics.note(&conf.name, line(conf, "ENABLED"), message);
    }
    let user6 = &config.user_rules.v6;
    if !settings.ipv6 {
        let message = format!(
            "{}: three rules deny all IPv6; only packets of established connections and their \
             ICMPv6 errors still pass",
            words(defaults, "IPV6")
        );
        diagnostics.note(&defaults.name, line(defaults, "IPV6"), message);
    } else if user6.text.trim().is_empty() {
        diagnostics.note(&user6.name, None, "no rules: UFW starts without rules for IPv6");
    }
    let manages = setting(defaults, "MANAGE_BUILTINS").filter(|setting| setting.value == "yes");
    if let Some(Setting { line, .. }) = manages {
        let message = "UFW empties the rules of other programs when it starts and stops; nfguard \
                       leaves them as they are";
        diagnostics.note(&defaults.name, line, message);
    }
    let log_line = line(conf, "LOGLEVEL");
    if settings.log >= LogLevel::Medium {
        let message = "the log of new connections, of invalid packets and of what the default \
                       accepts; refused packets are logged";
        diagnostics.not_carried_over(&conf.name, log_line, message);
    }
    if settings.log == LogLevel::Full {
        diagnostics.not_carried_over(&conf.name, log_line, "the log of every packet");
    }
    if let Some(modules) = setting(defaults, "IPT_MODULES").filter(|it| !it.value.is_empty()) {
        let message = format!(
            "kernel modules that UFW loads: {}; in a policy, the rule about FTP or the like names \
             its `helper`",
            modules.value
        );
        diagnostics.not_carried_over(&defaults.name, modules.line, message);
    }
    if let Some(sysctl) = &config.sysctl {
        for (text, line) in sysctl.text.lines().zip(1..) {
            let text = text.trim();
            if text.contains("forward") && !text.starts_with('#') && text.ends_with('1') {
                let message = format!(
                    "{text}: UFW switches forwarding on; without UFW something else has to"
                );
                diagnostics.note(&sysctl.name, line, message);
            }
        }
    }
    for script in &config.scripts {
        let message = "a script that UFW runs when it starts and stops";
        diagnostics.not_carried_over(script, None, message);
    }
}
