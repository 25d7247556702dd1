//! Puts a policy file together from the parts of a configuration.

use std::collections::HashSet;
use std::fmt;

use nfguard_netlink::IpVersion;
use nfguard_policy::{Policy, Problem, Severity};
use serde_json::{Map, Value, json};

use crate::config::UfwConfig;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{DefaultWords, PolicyDocument, log};
use crate::framework::{self, Framework, FrameworkFiles};
use crate::merge::{MergedRule, RuleVersions, merge};
use crate::nat::{self, PortForward};
use crate::notes::{about_rules, about_settings};
use crate::ping::{PingContext, ping_rules};
use crate::profile::Profiles;
use crate::rule::{Rule, clean, in_one_line, log_prefix, rule};
use crate::settings::{DefaultPolicy, LogLevel, Settings};
use crate::tuple::{self, Action, Direction, Endpoint, RuleSpec, Tuple};

/// Docker's bridges, which a policy knows without being told.
const DOCKER_BRIDGES: [&str; 3] = ["docker0", "docker_gwbridge", "br-*"];

/// The bridges of containers that the host of the policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerBridges {
    /// The host may have Docker's bridges. Rules for `in` and `out` then apply to containers.
    Docker,
    /// The host has no containers. Rules for `route` apply to everything that is forwarded.
    Absent,
}

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import {
    /// The text of the policy file.
    pub policy: String,
    /// Number of rules in the policy.
    pub rules: usize,
    /// What UFW does and the policy does not. Empty if the import is complete.
    pub not_carried_over: Vec<Diagnostic>,
    /// What is different in a detail, or good to know.
    pub notes: Vec<Diagnostic>,
}

/// The reason why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// A file is not a configuration of UFW. The text names the file.
    NotUfw(String),
    /// nfguard refuses the policy for a reason outside its rules.
    Policy(Vec<Problem>),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUfw(message) => f.write_str(message),
            Self::Policy(problems) => {
                f.write_str("nfguard refuses the imported policy")?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
        }
    }
}

impl std::error::Error for ImportError {}

/// Makes a policy of a UFW configuration.
///
/// # Errors
/// Fails if a file is not one of UFW, or has a value that UFW refuses too. A rule that nfguard
/// cannot express is no error; [`Import::not_carried_over`] names it.
pub fn import(config: &UfwConfig, bridges: ContainerBridges) -> Result<Import, ImportError> {
    let settings = Settings::read(&config.defaults, &config.conf).map_err(ImportError::NotUfw)?;
    check_files(config, &settings)?;
    let mut diagnostics = Diagnostics::default();
    about_settings(config, &settings, &mut diagnostics);
    let files = FrameworkFiles {
        before: &config.before_rules,
        after: &config.after_rules,
        ipv6: settings.ipv6,
        accepts_unmatched: settings.input == DefaultPolicy::Accept,
    };
    let framework = framework::read(files, &mut diagnostics);
    let user = &config.user_rules;
    let v4 = tuple::read(&user.v4, IpVersion::V4, &mut diagnostics);
    let v6 = if settings.ipv6 {
        tuple::read(&user.v6, IpVersion::V6, &mut diagnostics)
    } else {
        Vec::new()
    };
    let merged = merge(v4, v6);
    let profiles = Profiles::read(&config.profiles);
    profiles.compare(&merged, &user.v4.name, &mut diagnostics);
    let has_bridges = bridges == ContainerBridges::Docker;
    about_rules(&merged, config, has_bridges, &mut diagnostics);
    let published = config.published.iter().filter_map(PortForward::of_kernel);
    let published = published.filter(|it| settings.ipv6 || it.version == IpVersion::V4);
    let of_files = nat::read(&config.before_rules, settings.ipv6, &mut diagnostics);
    let forwards: Vec<PortForward> = of_files.into_iter().chain(published).collect();
    let draft = Draft {
        config,
        settings: &settings,
        framework: &framework,
        forwards: &forwards,
        has_bridges,
    };
    let (builtin, rules) = draft.rules(&merged, &profiles, &mut diagnostics);
    let document = PolicyDocument {
        version: 1,
        comment: String::new(),
        default: DefaultWords::of(&settings),
        builtin,
        log: log(&settings),
        containers: json!({ "interfaces": if has_bridges { &DOCKER_BRIDGES[..] } else { &[] } }),
        rules: Vec::new(),
    };
    draft.validate(document, rules, diagnostics)
}

/// Checks that each file with rules is one of UFW.
fn check_files(config: &UfwConfig, settings: &Settings) -> Result<(), ImportError> {
    for files in [&config.user_rules, &config.before_rules, &config.after_rules] {
        for (version, file) in files.iter() {
            let is_read = settings.ipv6 || version == IpVersion::V4;
            // UFW starts without this file.
            let is_absent = *file == config.user_rules.v6 && file.text.trim().is_empty();
            if is_read && !is_absent && !file.text.lines().any(|line| line.trim() == "*filter") {
                let message = format!("{}: no `*filter`; not a file of UFW", file.name);
                return Err(ImportError::NotUfw(message));
            }
        }
    }
    Ok(())
}

/// A line of `user.rules` or `user6.rules`.
#[derive(Clone, Copy)]
struct Place {
    version: IpVersion,
    line: usize,
}

/// A rule and the place that it is from; `None` for a rule that no tuple has.
struct PlacedRule {
    place: Option<Place>,
    rule: Rule,
}

struct Draft<'c> {
    config: &'c UfwConfig,
    settings: &'c Settings,
    framework: &'c Framework,
    forwards: &'c [PortForward],
    has_bridges: bool,
}

impl Draft<'_> {
    /// Returns the built-ins that differ from a policy's own defaults, and all rules.
    fn rules(
        &self,
        merged: &[MergedRule],
        profiles: &Profiles,
        diagnostics: &mut Diagnostics,
    ) -> (Map<String, Value>, Vec<PlacedRule>) {
        let settings = self.settings;
        let accepts_any_service = merged.iter().map(|rule| &rule.tuple.spec).any(|spec| {
            let is_in = spec.direction == Direction::In;
            is_in && !spec.action.refuses() && spec.is_for_any_service()
        });
        let pings = ping_rules(
            self.framework,
            PingContext {
                ipv6: settings.ipv6,
                input_may_accept: settings.input == DefaultPolicy::Accept || accepts_any_service,
                output_is_closed: settings.output != DefaultPolicy::Accept,
            },
        );
        let disabled = self.framework.disabled_builtins.iter();
        let mut builtin: Map<String, Value> =
            disabled.map(|name| ((*name).to_owned(), json!(false))).collect();
        if pings.builtin_is_off {
            builtin.insert("ping-in".to_owned(), json!(false));
        }
        let without_place = |rule| PlacedRule { place: None, rule };
        let mut rules: Vec<PlacedRule> = Vec::new();
        if !settings.ipv6 {
            rules.extend(rules_against_ipv6().map(without_place));
        }
        rules.extend(pings.first.into_iter().map(without_place));
        for one in merged {
            let place = Place { version: one.file_version(), line: one.tuple.line };
            let rule = self.rule(one, place, profiles, diagnostics);
            rules.push(PlacedRule { place: Some(place), rule });
            let comment = rules.last().and_then(|placed| placed.rule.comment.clone());
            let before_nat = self.before_nat(one, comment, place, profiles, diagnostics);
            rules
                .extend(before_nat.into_iter().map(|rule| PlacedRule { place: Some(place), rule }));
        }
        rules.extend(self.forwarded_by_default().into_iter().map(without_place));
        rules.extend(pings.last.into_iter().map(without_place));
        rules.extend(self.quiet_rules().into_iter().map(without_place));
        make_names_unique(&mut rules);
        (builtin, rules)
    }

    fn rule(
        &self,
        merged: &MergedRule,
        place: Place,
        profiles: &Profiles,
        diagnostics: &mut Diagnostics,
    ) -> Rule {
        let (file, line) = (self.file(place.version), place.line);
        let spec = &merged.tuple.spec;
        let mut rule = rule(merged, profiles, self.settings.ipv6);
        if let Some(comment) = &merged.tuple.comment
            && rule.comment.as_ref() != Some(comment)
        {
            diagnostics.note(file, line, "the comment is cut, or without its quotes");
        }
        let from_bridge = spec.in_interface.as_deref().is_some_and(is_docker_bridge);
        if spec.direction == Direction::Route && from_bridge && self.has_bridges {
            rule.direction = Some("out");
            let message = "the rules for `out` judge what containers send, so this rule is one of \
                           them; the rules for `out` before it apply to containers too";
            diagnostics.note(file, line, message);
        }
        let has_log = self.settings.log > LogLevel::Off;
        let is_limit = spec.action == Action::Limit;
        if has_log && (spec.logs || is_limit) {
            let mut log = json!({ "prefix": log_prefix(spec.action) });
            if is_limit {
                log["rate"] = json!({ "packets": 3, "per": "minute", "burst": 5 });
            } else if self.settings.log >= LogLevel::High {
                log["rate"] = json!({ "packets": 3, "per": "minute", "burst": 10 });
            }
            rule.log = Some(log);
        }
        if has_log && spec.logs && is_limit {
            let message = "the log of accepted connections; the policy logs only what the limit \
                           refuses";
            diagnostics.not_carried_over(file, line, message);
        }
        rule
    }

    /// Returns the rules that a rule about the receiver's port needs for the ports before NAT. Names
    /// what is missing where they are not known.
    fn before_nat(
        &self,
        merged: &MergedRule,
        comment: Option<String>,
        place: Place,
        profiles: &Profiles,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Rule> {
        let (file, line) = (self.file(place.version), place.line);
        let spec = &merged.tuple.spec;
        let mut rules: Vec<Rule> = Vec::new();
        for forward in self.forwards.iter().filter(|it| merged.versions.include(it.version)) {
            let Some(outer) = forward.before_nat(spec) else { continue };
            let comment = comment.as_ref().map(|comment| format!("before NAT: {comment}"));
            let tuple = Tuple { spec: outer, comment, line: place.line };
            let versions = RuleVersions::Only(forward.version);
            let rule = rule(&MergedRule { tuple, versions }, profiles, self.settings.ipv6);
            if rules.contains(&rule) {
                continue;
            }
            let message = format!(
                "UFW judges after NAT, and a policy before it: so the policy has {} too",
                in_one_line(&rule)
            );
            diagnostics.note(file, line, message);
            rules.push(rule);
        }
        let is_about_containers = self.has_bridges
            && spec.direction == Direction::Route
            && spec.in_interface.as_deref().is_none_or(|name| !is_docker_bridge(name))
            && spec.out_interface.as_deref().is_none_or(is_docker_bridge)
            && (spec.out_interface.is_some() || !spec.destination.ports.is_empty());
        if is_about_containers && rules.is_empty() {
            let needed =
                Rule { port: Some(json!("PUBLISHED")), ..self.published_rule(merged, profiles) };
            let message = format!(
                "for a port that Docker publishes: UFW judges by the container's port, and a policy by \
                 the published one; it needs {}",
                in_one_line(&needed)
            );
            diagnostics.not_carried_over(file, line, message);
        }
        rules
    }

    /// Returns the rule for `in` that does for published ports what a rule for `route` does.
    fn published_rule(&self, merged: &MergedRule, profiles: &Profiles) -> Rule {
        let spec = &merged.tuple.spec;
        let outer = RuleSpec {
            direction: Direction::In,
            destination: Endpoint::ANY,
            out_interface: None,
            ..spec.clone()
        };
        let tuple = Tuple { spec: outer, ..merged.tuple.clone() };
        rule(&MergedRule { tuple, versions: merged.versions }, profiles, false)
    }

    /// Returns the rules for ports that UFW forwards because its default says so.
    fn forwarded_by_default(&self) -> Vec<Rule> {
        let Settings { forward, input, .. } = self.settings;
        if *forward != DefaultPolicy::Accept || *input == DefaultPolicy::Accept {
            return Vec::new();
        }
        let everything = |version: IpVersion| Tuple {
            line: 0,
            spec: RuleSpec {
                action: Action::Allow,
                logs: false,
                direction: Direction::Route,
                protocol: "any".to_owned(),
                destination: Endpoint::ANY,
                source: Endpoint::ANY,
                in_interface: None,
                out_interface: None,
            },
            comment: Some(format!("before NAT: UFW forwards {} by default", version.suffix())),
        };
        let mut rules: Vec<Rule> = Vec::new();
        for forward in self.forwards {
            let tuple = everything(forward.version);
            let Some(outer) = forward.before_nat(&tuple.spec) else { continue };
            let merged = MergedRule {
                tuple: Tuple { spec: outer, ..tuple },
                versions: RuleVersions::Only(forward.version),
            };
            let rule = rule(&merged, &Profiles::default(), self.settings.ipv6);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    fn file(&self, version: IpVersion) -> &str {
        &self.config.user_rules[version].name
    }

    /// Returns the rules that refuse unmatched NetBIOS and DHCP packets without a log line, as UFW
    /// does.
    fn quiet_rules(&self) -> Vec<Rule> {
        let settings = self.settings;
        if settings.input == DefaultPolicy::Accept || settings.log == LogLevel::Off {
            return Vec::new();
        }
        let rule = |(protocol, ports): (&&'static str, _)| Rule {
            name: Some(format!("quiet-{protocol}")),
            comment: Some(
                "UFW's after.rules: refused as by default, without a log line".to_owned(),
            ),
            action: settings.input.action(),
            proto: Some(json!(protocol)),
            port: Some(json!(ports)),
            ..Rule::default()
        };
        self.framework.quiet_ports.iter().map(rule).collect()
    }

    /// Returns the policy with every rule that nfguard accepts, and reports the other rules.
    fn validate(
        &self,
        mut document: PolicyDocument,
        mut rules: Vec<PlacedRule>,
        mut diagnostics: Diagnostics,
    ) -> Result<Import, ImportError> {
        loop {
            document.rules = rules.iter().map(|placed| placed.rule.clone()).collect();
            document.comment = self.comment(&diagnostics);
            let policy = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
            let problems = match Policy::parse(&policy) {
                Ok(_) => {
                    let Diagnostics { not_carried_over, notes } = diagnostics;
                    return Ok(Import { policy, rules: rules.len(), not_carried_over, notes });
                }
                Err(problems) => problems,
            };
            let mut refused = HashSet::new();
            for problem in problems.iter().filter(|it| it.severity == Severity::Error) {
                let Some(index) = rule_index(problem) else { continue };
                let Some(PlacedRule { place, rule }) = rules.get(index) else { continue };
                if refused.insert(index) {
                    let file = self.file(place.map_or(IpVersion::V4, |place| place.version));
                    let line = place.map(|place| place.line);
                    let refuses = matches!(rule.action, "deny" | "reject");
                    let open = if refuses { "; what it refuses may get through" } else { "" };
                    let message = format!("{}{open}", problem.message);
                    diagnostics.not_carried_over(file, line, message);
                }
            }
            if refused.is_empty() {
                return Err(ImportError::Policy(problems));
            }
            let mut index = 0..;
            rules.retain(|_| index.next().is_none_or(|index| !refused.contains(&index)));
        }
    }

    /// Returns the comment of the policy, which says what is missing.
    fn comment(&self, diagnostics: &Diagnostics) -> String {
        let file = self.file(IpVersion::V4);
        let mut text = format!("Made from UFW's rules in {file} by `nfguard import ufw`.");
        if !diagnostics.not_carried_over.is_empty() {
            let all = diagnostics.not_carried_over.iter();
            let all: Vec<String> = all.map(|diagnostic| clean(&diagnostic.to_string())).collect();
            text.push_str(&format!(" Not carried over: {}.", all.join("; ")));
        }
        text
    }
}

/// Returns the index of the rule that a problem is about.
fn rule_index(problem: &Problem) -> Option<usize> {
    problem.pointer.strip_prefix("/rules/")?.split('/').next()?.parse().ok()
}

/// Adds a number to each name that an earlier rule has.
fn make_names_unique(rules: &mut [PlacedRule]) {
    let mut taken = HashSet::new();
    for PlacedRule { rule, .. } in rules {
        let Some(name) = &mut rule.name else { continue };
        let base = name.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            *name = format!("{base}-{number}");
        }
    }
}

/// Returns whether an interface, or a pattern with `*`, may be one of Docker's bridges.
fn is_docker_bridge(name: &str) -> bool {
    let start = name.trim_end_matches('*');
    DOCKER_BRIDGES.iter().any(|bridge| match bridge.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *bridge == name || (name.ends_with('*') && bridge.starts_with(start)),
    })
}

fn rules_against_ipv6() -> [Rule; 3] {
    [("in", None), ("out", Some("out")), ("forward", Some("forward"))].map(|(word, direction)| {
        Rule {
            name: Some(format!("no-ipv6-{word}")),
            comment: Some("IPV6=no in /etc/default/ufw".to_owned()),
            action: "deny",
            direction,
            from: Some("::/0".to_owned()),
            ..Rule::default()
        }
    })
}
