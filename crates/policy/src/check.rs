//! Makes a policy of a file, and reports every problem.

mod rule;
mod traffic;

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnetwork::IpNetwork;

use self::rule::Draft;
use crate::json::address::Peer;
use crate::json::document::{Pointer, Problems, parse_json};
use crate::json::file::{ContainersFile, DefaultsFile, File, RuleFile, ScanFile};
use crate::json::log::{LogFile, LogRateSetting};
use crate::json::reader::{Field, FromJson, List, Node, OneOrMany};
use crate::json::values::{Egress, KnownSeconds, LogPrefix, Positive, Seconds, SourceCount};
use crate::lint;
use crate::policy::{
    Addresses, Builtin, Containers, Defaults, Direction, Group, Interface, LogRate, LogSettings,
    LogTarget, LogTo, Policy, Prefixes, RateUnit, Rule, Scan, Verdict,
};
use nfguard_json::Problem;

impl Policy {
    /// Reads a policy file: JSON in the language that [`schema`](crate::schema) describes, with
    /// comments (`//`, `/* */`) and trailing commas. Returns the policy and its warnings in the order
    /// of the text.
    ///
    /// # Errors
    /// Returns every problem of the file, errors and warnings, in the order of the text. A syntax
    /// error is the only problem, because nothing after it can be read.
    pub fn parse(text: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let root = parse_json(text).map_err(|problem| vec![*problem])?;
        let mut problems = Problems::default();
        let node = Node { value: &root, pointer: Pointer::Root };
        let file = File::from_json(node, &mut problems);
        let policy = file.map(|file| check(file, &mut problems));
        match policy {
            Some(policy) if !problems.has_errors() => {
                lint::policy(&policy, &mut problems);
                Ok((policy, problems.into_problems(text, &root)))
            }
            _ => Err(problems.into_problems(text, &root)),
        }
    }
}

/// Returns the policy of a file. The policy is valid only if `problems` has no error.
fn check(file: File, problems: &mut Problems) -> Policy {
    let defaults = log_defaults(&file.log);
    let groups = groups(file.groups.or_none().map_or(Vec::new(), |groups| groups.0));
    let rules = file.rules.or_none().map_or(Vec::new(), |rules| rules.0);
    let containers = containers(file.containers);
    let used = used_groups(&rules, [&file.never_ban, &file.may_ban]);
    let drafts: Vec<(usize, Draft)> = rules
        .into_iter()
        .enumerate()
        .filter_map(|(index, rule)| {
            let pointer = format!("/rules/{index}");
            let draft = rule::rule(rule?, &pointer, &groups, &containers, &defaults, problems);
            Some((index, draft))
        })
        .collect();
    let effect = "would exempt every address from bans";
    let never_ban = networks("never_ban", &file.never_ban, effect, &groups, problems);
    let effect = "would spare nothing behind this host";
    let may_ban = networks("may_ban", &file.may_ban, effect, &groups, problems);
    check_may_ban(&never_ban, &may_ban, problems);
    // A rule with an error may use a group, so errors suppress this warning.
    if !problems.has_errors() {
        for group in groups.iter().filter(|group| !used.contains(&group.name)) {
            let message = format!("no rule uses the group \"{}\"", group.name);
            problems.warn(format!("/groups/{}", group.name), message);
        }
    }
    Policy {
        comment: file.comment.or_none().map(|comment| comment.0),
        default: default_verdicts(file.default),
        builtin: builtins(file.builtin.or_none().map_or(Vec::new(), |builtins| builtins.0)),
        log: LogSettings { defaults, unmatched: unmatched(file.log) },
        containers,
        groups,
        never_ban,
        may_ban,
        ban_outgoing: file.ban_outgoing.unwrap_or(false),
        scan: file.scan.or_none().map(|file| scan(file, problems)),
        rules: name_rules(drafts, problems),
    }
}

fn default_verdicts(field: Field<DefaultsFile>) -> Defaults {
    let Field::Given(file) = field else {
        return Defaults { input: Verdict::Drop, output: Verdict::Drop, forward: Verdict::Drop };
    };
    Defaults {
        input: file.input.unwrap_or(Verdict::Drop),
        output: file.output.unwrap_or(Verdict::Drop),
        forward: file.forward.unwrap_or(Verdict::Drop),
    }
}

fn builtins(switched: Vec<(Builtin, bool)>) -> BTreeSet<Builtin> {
    let mut on: BTreeSet<_> = Builtin::ALL.into_iter().filter(|b| b.is_on_by_default()).collect();
    for (builtin, is_on) in switched {
        if is_on {
            on.insert(builtin);
        } else {
            on.remove(&builtin);
        }
    }
    on
}

fn log_defaults(field: &Field<LogFile>) -> LogTarget {
    let file = field.given();
    LogTarget {
        to: file.and_then(|log| log.to.given().copied()).unwrap_or(LogTo::Kernel),
        prefix: match file.and_then(|log| log.prefix.given()) {
            Some(LogPrefix(prefix)) => prefix.clone(),
            None => "[NFGUARD] ".to_owned(),
        },
        rate: match file.and_then(|log| log.rate.given()) {
            Some(LogRateSetting(rate)) => *rate,
            None => Some(LogRate { packets: 3, per: RateUnit::Minute, burst: 10 }),
        },
    }
}

fn unmatched(field: Field<LogFile>) -> BTreeSet<Direction> {
    let list = field.or_none().and_then(|log| log.unmatched.or_none());
    list.map_or(BTreeSet::new(), |list| list.0.into_iter().flatten().collect())
}

fn containers(field: Field<ContainersFile>) -> Containers {
    let (interfaces, egress) = match field.or_none() {
        Some(file) => (file.interfaces.or_none(), file.egress.unwrap_or(Egress::Policy)),
        None => (None, Egress::Policy),
    };
    let interfaces = match interfaces {
        Some(List(interfaces)) => interfaces.into_iter().flatten().collect(),
        None => [("docker0", false), ("docker_gwbridge", false), ("br-", true)]
            .map(|(name, wildcard)| Interface { name: name.to_owned(), wildcard })
            .to_vec(),
    };
    Containers { interfaces: distinct(interfaces), follow_out: egress == Egress::Policy }
}

/// Sorts interfaces, and removes each one that another one includes.
pub(crate) fn distinct(mut interfaces: Vec<Interface>) -> Vec<Interface> {
    interfaces.sort();
    interfaces.dedup();
    let all = interfaces.clone();
    interfaces.retain(|one| !all.iter().any(|other| other != one && other.contains(one)));
    interfaces
}

fn groups(written: Vec<(String, Option<List<crate::json::address::Net>>)>) -> Vec<Group> {
    let group = |(name, nets): (String, Option<List<crate::json::address::Net>>)| {
        let nets = nets.into_iter().flat_map(|nets| nets.0).flatten().map(|net| net.0);
        Group { name, prefixes: Prefixes::from_nets(nets) }
    };
    written.into_iter().map(group).collect()
}

/// Returns the networks of a key about bans. All addresses of an IP version are refused: `effect` says
/// what they would do.
fn networks(
    key: &str,
    field: &Field<OneOrMany<Peer>>,
    effect: &str,
    groups: &[Group],
    problems: &mut Problems,
) -> Vec<IpNetwork> {
    if matches!(field, Field::Absent) {
        return Vec::new();
    }
    let context = rule::RuleContext { pointer: "", groups };
    let expected = "expected addresses, prefixes or groups";
    let networks: Vec<IpNetwork> = match context.addresses(key, field, problems) {
        Some(Addresses::Any) => {
            context.error(problems, key, format!("\"any\" {effect}; {expected}"));
            Vec::new()
        }
        Some(Addresses::Group(index)) => {
            groups.get(index).map_or(Vec::new(), |group| group.prefixes.nets().collect())
        }
        Some(Addresses::Prefixes(prefixes)) => prefixes.nets().collect(),
        None => Vec::new(),
    };
    if let Some(all) = networks.iter().find(|network| network.prefix() == 0) {
        context.error(problems, key, format!("{all} {effect}; {expected}"));
    }
    networks
}

fn check_may_ban(never_ban: &[IpNetwork], may_ban: &[IpNetwork], problems: &mut Problems) {
    // Of two prefixes with a common address, one contains the other.
    let overlaps = |a: &IpNetwork, b: &IpNetwork| a.contains(b.ip()) || b.contains(a.ip());
    for may in may_ban {
        if let Some(never) = never_ban.iter().find(|never| overlaps(never, may)) {
            let message = format!("{may} may be banned here, and \"never_ban\" has {never}");
            problems.error("/may_ban".to_owned(), message, None);
        }
    }
}

fn scan(file: ScanFile, problems: &mut Problems) -> Scan {
    let ban = file.ban_seconds.given().map_or(600, |ban| ban.0);
    let again = file.again_seconds.given().map_or(86_400, |again| again.0);
    if again < ban {
        let message =
            format!("found {again}, but the first ban lasts {ban}; expected at least as much");
        let key =
            if file.again_seconds.given().is_some() { "again_seconds" } else { "ban_seconds" };
        problems.error(format!("/scan/{key}"), message, None);
    }
    let interfaces = file.in_interface.or_none().map_or(Vec::new(), |list| list.values);
    Scan {
        ports: file.ports.or_none().and_then(|it| u8::try_from(it.0).ok()).unwrap_or(6),
        window_seconds: file.seconds.unwrap_or(Seconds(60)).0,
        ban_seconds: ban,
        repeat_ban_seconds: again,
        illegal_flags: file.illegal_flags.unwrap_or(true),
        known_peer_seconds: file.known_seconds.unwrap_or(KnownSeconds(3600)).0,
        bans_per_minute: file.bans_per_minute.unwrap_or(Positive(100)).0,
        sources: file.sources.unwrap_or(SourceCount(65_536)).0,
        interfaces: distinct(interfaces.into_iter().flatten().collect()),
    }
}

fn used_groups(
    rules: &[Option<RuleFile>],
    of_bans: [&Field<OneOrMany<Peer>>; 2],
) -> HashSet<String> {
    let sides = rules.iter().flatten().flat_map(|rule| [&rule.from, &rule.to]).chain(of_bans);
    let peers = sides.filter_map(Field::given).flat_map(|list| list.values.iter().flatten());
    peers
        .filter_map(|peer| match peer {
            Peer::Group(name) => Some(name.clone()),
            Peer::Any | Peer::Net(_) => None,
        })
        .collect()
}

/// Gives each rule its name. A rule without a name gets the name that is made from its keys, and a
/// number if another rule has that name.
fn name_rules(drafts: Vec<(usize, Draft)>, problems: &mut Problems) -> Vec<Rule> {
    let mut taken = HashSet::new();
    for (index, draft) in &drafts {
        if let Some(name) = &draft.given_name
            && !taken.insert(name.clone())
        {
            let message = format!("another rule has the name \"{name}\"; expected a unique name");
            problems.error(format!("/rules/{index}/name"), message, None);
        }
    }
    let mut last_number = HashMap::new();
    let mut unique_name = |draft: &Draft, taken: &mut HashSet<String>| {
        let base = &draft.derived_name;
        let number = last_number.entry(base.clone()).or_insert(0_u32);
        loop {
            *number += 1;
            let name = if *number == 1 { base.clone() } else { format!("{base}-{number}") };
            if taken.insert(name.clone()) {
                return name;
            }
        }
    };
    drafts
        .into_iter()
        .map(|(_, mut draft)| {
            let name = draft.given_name.take();
            let name = name.unwrap_or_else(|| unique_name(&draft, &mut taken));
            Rule { name, ..draft.rule }
        })
        .collect()
}

#[cfg(test)]
mod tests;
