//! From a configuration to a policy file, and what it does not do.

use std::collections::HashSet;

use nfguard_policy::{Policy, Problem};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::framework::{self, Framework};
use super::merge::{Families, Merged, merge};
use super::ping::pings;
use super::profile::Profiles;
use super::rule::{Rule, clean, log_prefix, rule};
use super::settings::{Default, LogLevel, Settings, value};
use super::tuple::{self, Action, Way, What};
use super::{Config, Findings, Import};

/// The bridges of containers that a policy knows without being told.
const BRIDGES: [&str; 3] = ["docker0", "docker_gwbridge", "br-*"];

/// Why there is no policy.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is no configuration of UFW.
    Input(String),
    /// What came out is no policy, apart from its rules.
    Policy(Vec<Problem>),
}

#[derive(Serialize)]
struct File {
    version: u8,
    comment: String,
    default: Defaults,
    #[serde(skip_serializing_if = "Map::is_empty")]
    builtin: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Value>,
    containers: Value,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Defaults {
    r#in: &'static str,
    out: &'static str,
    forward: &'static str,
}

/// A rule, and the line of `user.rules` or `user6.rules` that it is from.
type Placed = (Option<(bool, usize)>, Rule);

/// Makes a policy of a configuration. `with_containers`: this host may have Docker's bridges.
pub(crate) fn ufw(config: &Config, with_containers: bool) -> Result<Import, Refusal> {
    let settings = Settings::read(&config.defaults, &config.conf).map_err(Refusal::Input)?;
    for file in [&config.user, &config.before, &config.after].into_iter().flatten() {
        let is_read = settings.ipv6 || !file.name.ends_with("6.rules");
        if is_read && !file.text.lines().any(|line| line.trim() == "*filter") {
            let message = format!("{}: no `*filter`; not a file of UFW", file.name);
            return Err(Refusal::Input(message));
        }
    }
    let mut findings = Findings::default();
    about_settings(config, &settings, &mut findings);
    let accepts = settings.input == Default::Accept;
    let framework =
        framework::read(&config.before, &config.after, settings.ipv6, accepts, &mut findings);
    let v4 = tuple::read(&config.user[0], false, &mut findings);
    let v6 =
        if settings.ipv6 { tuple::read(&config.user[1], true, &mut findings) } else { Vec::new() };
    let merged = merge(v4, v6);
    let profiles = Profiles::read(&config.profiles);
    profiles.compare(&merged, &config.user[0].name, &mut findings);
    about_rules(&merged, config, with_containers, &mut findings);
    let draft = Draft { config, settings: &settings, framework: &framework, with_containers };
    let (builtin, rules) = draft.rules(&merged, &profiles, &mut findings);
    let mut file = File {
        version: 1,
        comment: String::new(),
        default: Defaults {
            r#in: settings.input.word(),
            out: settings.output.word(),
            forward: settings.forward.word(),
        },
        builtin,
        log: log(&settings),
        containers: json!({ "interfaces": if with_containers { &BRIDGES[..] } else { &[] } }),
        rules: Vec::new(),
    };
    draft.valid(&mut file, rules, findings)
}

struct Draft<'c> {
    config: &'c Config,
    settings: &'c Settings,
    framework: &'c Framework,
    with_containers: bool,
}

impl Draft<'_> {
    /// The built-ins that are not as a policy has them anyway, and all rules.
    fn rules(
        &self,
        merged: &[Merged],
        profiles: &Profiles,
        findings: &mut Findings,
    ) -> (Map<String, Value>, Vec<Placed>) {
        let settings = self.settings;
        let may_accept = settings.input == Default::Accept
            || merged.iter().any(|one| {
                let what = &one.tuple.what;
                let accepts = matches!(what.action, Action::Allow | Action::Limit);
                what.way == Way::In && accepts && what.proto == "any" && what.to.ports.is_empty()
            });
        let closed = settings.output != Default::Accept;
        let pings = pings(self.framework, settings.ipv6, may_accept, closed);
        let mut builtin: Map<String, Value> =
            self.framework.off.iter().map(|name| ((*name).to_owned(), json!(false))).collect();
        if pings.in_off {
            builtin.insert("ping-in".to_owned(), json!(false));
        }
        let mut rules: Vec<Placed> = Vec::new();
        if !settings.ipv6 {
            rules.extend(no_ipv6().map(|rule| (None, rule)));
        }
        rules.extend(pings.first.into_iter().map(|rule| (None, rule)));
        for one in merged {
            rules.push((Some(self.place(one)), self.rule(one, profiles, findings)));
        }
        rules.extend(pings.last.into_iter().map(|rule| (None, rule)));
        rules.extend(self.quiet().into_iter().map(|rule| (None, rule)));
        let mut taken = HashSet::new();
        for (_, rule) in &mut rules {
            let Some(name) = &mut rule.name else { continue };
            let base = name.clone();
            let mut number = 1;
            while !taken.insert(name.clone()) {
                number += 1;
                *name = format!("{base}-{number}");
            }
        }
        (builtin, rules)
    }

    fn place(&self, one: &Merged) -> (bool, usize) {
        (one.families == Families::V6, one.tuple.line)
    }

    fn file(&self, is_v6: bool) -> &str {
        &self.config.user[usize::from(is_v6)].name
    }

    fn rule(&self, one: &Merged, profiles: &Profiles, findings: &mut Findings) -> Rule {
        let (is_v6, line) = self.place(one);
        let (file, what) = (self.file(is_v6), &one.tuple.what);
        let mut rule = rule(one, profiles, self.settings.ipv6);
        if let Some(comment) = &one.tuple.comment
            && rule.comment.as_ref() != Some(comment)
        {
            findings.note(file, line, "the comment is cut, or without its quotes");
        }
        let bridge = what.in_interface.as_deref().is_some_and(is_bridge);
        if what.way == Way::Route && bridge && self.with_containers {
            rule.direction = Some("out");
            let message = "what containers send is judged by the rules for `out`, so this is one; \
                           the rules for `out` before it hold for containers too";
            findings.note(file, line, message);
        }
        let has_log = self.settings.log > LogLevel::Off;
        if has_log && (what.log || what.action == Action::Limit) {
            let mut log = json!({ "prefix": log_prefix(what.action) });
            if what.action == Action::Limit {
                log["rate"] = json!({ "packets": 3, "per": "minute", "burst": 5 });
            } else if self.settings.log >= LogLevel::High {
                log["rate"] = json!({ "packets": 3, "per": "minute", "burst": 10 });
            }
            rule.log = Some(log);
        }
        if has_log && what.log && what.action == Action::Limit {
            let message = "only what the limit refuses is logged, not every connection";
            findings.lost(file, line, message);
        }
        rule
    }

    /// UFW logs neither NetBIOS nor DHCP that no rule wants.
    fn quiet(&self) -> Vec<Rule> {
        let settings = self.settings;
        if settings.input == Default::Accept || settings.log == LogLevel::Off {
            return Vec::new();
        }
        let rule = |(proto, ports): (&&'static str, _)| Rule {
            name: Some(format!("quiet-{proto}")),
            comment: Some(
                "UFW's after.rules: refused as by default, without a log line".to_owned(),
            ),
            action: settings.input.action(),
            proto: Some(json!(proto)),
            port: Some(json!(ports)),
            ..Rule::default()
        };
        self.framework.quiet.iter().map(rule).collect()
    }

    /// The file with all rules that nfguard takes; the others are lost.
    fn valid(
        &self,
        file: &mut File,
        mut rules: Vec<Placed>,
        mut findings: Findings,
    ) -> Result<Import, Refusal> {
        loop {
            file.rules = rules.iter().map(|(_, rule)| rule.clone()).collect();
            file.comment = self.comment(&findings);
            let text = serde_json::to_string_pretty(&file).unwrap_or_default() + "\n";
            let problems = match Policy::parse(&text) {
                Ok(_) => return Ok(Import { text, rules: rules.len(), findings }),
                Err(problems) => problems,
            };
            let mut refused = HashSet::new();
            for problem in &problems {
                let index = problem
                    .pointer
                    .strip_prefix("/rules/")
                    .and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
                let Some((index, (place, rule))) =
                    index.and_then(|index| Some((index, rules.get(index)?)))
                else {
                    continue;
                };
                if problem.severity == nfguard_policy::Severity::Error && refused.insert(index) {
                    let (is_v6, line) = place.map_or((false, None), |(v6, line)| (v6, Some(line)));
                    let denies = matches!(rule.action, "deny" | "reject");
                    let open = if denies { "; what it refuses may get through" } else { "" };
                    let message = format!("{}{open}", problem.message);
                    findings.lost(self.file(is_v6), line, message);
                }
            }
            if refused.is_empty() {
                return Err(Refusal::Policy(problems));
            }
            let mut index = 0..;
            rules.retain(|_| index.next().is_none_or(|index| !refused.contains(&index)));
        }
    }

    /// What people read who open the file.
    fn comment(&self, findings: &Findings) -> String {
        let mut text =
            format!("Made of UFW's rules in {} by `nfguard import ufw`.", self.config.user[0].name);
        if !findings.lost.is_empty() {
            let lost: Vec<String> =
                findings.lost.iter().map(|finding| clean(&finding.to_string())).collect();
            text.push_str(&format!(" Not carried over: {}.", lost.join("; ")));
        }
        text
    }
}

/// Where rules that are carried over mean a little else than they did.
fn about_rules(merged: &[Merged], config: &Config, with_containers: bool, findings: &mut Findings) {
    let first = |is_it: &dyn Fn(&What) -> bool| {
        let one = merged.iter().find(|one| is_it(&one.tuple.what))?;
        Some((&*config.user[usize::from(one.families == Families::V6)].name, one.tuple.line))
    };
    if let Some((file, line)) = first(&|what| what.action == Action::Limit) {
        let message = "each limit counts for itself, and an IPv6 /64 is one source (`v6_prefix`); \
                       UFW counts each address, for all its limits together";
        findings.note(file, line, message);
    }
    let denies_all = |what: &What| {
        let denies = matches!(what.action, Action::Deny | Action::Reject);
        what.way == Way::In && denies && what.proto == "any" && what.to.ports.is_empty()
    };
    if let Some((file, line)) = first(&denies_all) {
        let message = "it holds for echo requests and discovery (mDNS, UPnP) too, which UFW \
                       accepts before all rules";
        findings.note(file, line, message);
    }
    if with_containers && merged.iter().any(|one| one.tuple.what.way == Way::Route) {
        let message = "the rules for `in` hold for published ports, those for `out` for what \
                       containers send; --no-containers leaves both to the rules for `route`";
        findings.note(&config.user[0].name, None, message);
    }
}

/// What UFW says without a rule of its own.
fn about_settings(config: &Config, settings: &Settings, findings: &mut Findings) {
    let (defaults, conf) = (&config.defaults, &config.conf);
    let line = |file, key| value(file, key).map(|(line, _)| line);
    if !settings.enabled {
        let message = "UFW is disabled (ENABLED=no): the policy does what it would do if enabled";
        findings.note(&conf.name, line(conf, "ENABLED"), message);
    }
    if !settings.ipv6 {
        let message = "IPV6=no: three rules deny all IPv6; only what belongs to a connection or \
                       is an ICMPv6 error of one still passes";
        findings.note(&defaults.name, line(defaults, "IPV6"), message);
    }
    let at = line(conf, "LOGLEVEL");
    match settings.log {
        LogLevel::Off | LogLevel::Low => {}
        level => {
            let message = "the log of new connections, of invalid packets and of what the default \
                           accepts; refused packets are logged";
            findings.lost(&conf.name, at, message);
            if level == LogLevel::Full {
                findings.lost(&conf.name, at, "the log of every packet");
            }
        }
    }
    if let Some((line, modules)) = value(defaults, "IPT_MODULES").filter(|(_, it)| !it.is_empty()) {
        let message = format!("kernel modules that UFW loads: {modules}");
        findings.lost(&defaults.name, line, message);
    }
    if let Some(sysctl) = &config.sysctl {
        for (text, line) in sysctl.text.lines().zip(1..) {
            let text = text.trim();
            if text.contains("forward") && !text.starts_with('#') && text.ends_with('1') {
                let message = format!(
                    "{text}: UFW switches forwarding on; without UFW something else has to"
                );
                findings.note(&sysctl.name, line, message);
            }
        }
    }
    for script in &config.scripts {
        findings.lost(script, None, "a script that UFW runs when it starts and stops");
    }
}

fn log(settings: &Settings) -> Option<Value> {
    let closed = [("in", settings.input), ("out", settings.output), ("forward", settings.forward)];
    let closed = closed.into_iter().filter(|(_, default)| *default != Default::Accept);
    let unmatched: Vec<&str> = closed.map(|(word, _)| word).collect();
    if settings.log == LogLevel::Off || unmatched.is_empty() {
        return None;
    }
    let mut log = json!({ "prefix": "[UFW BLOCK] ", "unmatched": unmatched });
    if settings.log >= LogLevel::High {
        log["rate"] = json!("unlimited");
    }
    Some(log)
}

fn is_bridge(name: &str) -> bool {
    let start = |name: &str| name.trim_end_matches('*').to_owned();
    BRIDGES.iter().any(|bridge| match bridge.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *bridge == name || (name.ends_with('*') && bridge.starts_with(&start(name))),
    })
}

fn no_ipv6() -> [Rule; 3] {
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
