//! `before.rules`, `after.rules` and their IPv6 twins: what differs from what UFW ships.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::known::{BUILTINS, For, shipped};
use super::{Findings, Text};

/// What a shipped rule has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// As it was shipped.
    Kept,
    /// It is not there any more.
    Gone,
    /// It drops, or rejects, what it accepted.
    Drops,
    Rejects,
}

/// What the four files do.
#[derive(Debug)]
pub(super) struct Framework {
    /// Built-ins that UFW would have, and has not.
    pub(super) off: BTreeSet<&'static str>,
    /// For IPv4 and IPv6.
    pub(super) ping_in: [Fate; 2],
    pub(super) ping_through: [Fate; 2],
    pub(super) ping_out: Fate,
    /// Ports to which unmatched packets are not logged.
    pub(super) quiet: BTreeMap<&'static str, BTreeSet<u16>>,
}

/// Reads the files of IPv4, and of IPv6 where UFW does.
pub(super) fn read(
    before: &[Text; 2],
    after: &[Text; 2],
    with_v6: bool,
    accepts_unmatched: bool,
    findings: &mut Findings,
) -> Framework {
    let mut framework = Framework {
        off: BTreeSet::new(),
        ping_in: [Fate::Gone; 2],
        ping_through: [Fate::Gone; 2],
        ping_out: Fate::Gone,
        quiet: BTreeMap::new(),
    };
    let mut of_builtin: HashMap<&str, Vec<(String, Fate)>> = HashMap::new();
    let families = if with_v6 { &[false, true][..] } else { &[false][..] };
    for is_v6 in families {
        let family = usize::from(*is_v6);
        let known = shipped(*is_v6);
        let fates =
            [&before[family], &after[family]].map(|file| fates(file, *is_v6, &known, findings));
        for (rule, what) in known {
            let of_file = if rule.starts_with("after-") { &fates[1] } else { &fates[0] };
            let fate = of_file.get(&rule).copied().unwrap_or(Fate::Gone);
            match what {
                For::Builtin(name) => of_builtin.entry(name).or_default().push((rule, fate)),
                For::PingIn => framework.ping_in[family] = fate,
                For::PingThrough => framework.ping_through[family] = fate,
                For::PingOut => framework.ping_out = fate,
                For::Quiet(proto, port) if fate == Fate::Kept => {
                    framework.quiet.entry(proto).or_default().insert(port);
                }
                For::Quiet(..) | For::Nothing => {}
            }
        }
    }
    for name in BUILTINS {
        // Without IPv6 files there is none of what is for IPv6 alone.
        let rules = of_builtin.remove(name).unwrap_or_default();
        let lost: Vec<_> = rules.iter().filter(|(_, fate)| *fate != Fate::Kept).collect();
        if lost.len() == rules.len() {
            framework.off.insert(name);
            let is_denied = lost.iter().any(|(_, fate)| *fate != Fate::Gone);
            if is_denied && accepts_unmatched {
                let message = format!(
                    "UFW drops what the built-in `{name}` accepts; it is off, but the default \
                     accepts the same: a rule has to deny it"
                );
                findings.lost(&before[0].name, None, message);
            }
        } else if let Some((first, _)) = lost.first() {
            let message = format!(
                "{} of the {} rules that UFW ships for what the built-in `{name}` does are gone \
                 or changed (first: -A ufw-{first}); the built-in is on as a whole",
                lost.len(),
                rules.len()
            );
            findings.lost(&before[0].name, None, message);
        }
    }
    framework
}

/// The fate of each shipped rule of a file; every other rule is lost.
fn fates(
    file: &Text,
    is_v6: bool,
    known: &[(String, For)],
    findings: &mut Findings,
) -> HashMap<String, Fate> {
    let mut fates = HashMap::new();
    let mut table = "";
    for (text, line) in file.text.lines().zip(1..) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('*') {
            table = name;
        }
        if !text.starts_with('-') {
            continue;
        }
        let rule = normal(text, is_v6);
        let fate = (table == "filter").then(|| fate(&rule, known)).flatten();
        match fate {
            // The first that matches decides.
            Some((rule, fate)) => drop(fates.entry(rule).or_insert(fate)),
            None if table == "filter" => findings.lost(&file.name, line, text),
            None => findings.lost(&file.name, line, format!("table {table}: {text}")),
        }
    }
    fates
}

fn fate(rule: &str, known: &[(String, For)]) -> Option<(String, Fate)> {
    let is_known = |rule: &str| known.iter().any(|(shipped, _)| shipped == rule);
    if is_known(rule) {
        return Some((rule.to_owned(), Fate::Kept));
    }
    let (matches, target) = rule.split_once(" -j ")?;
    let fate = match target.split(' ').next() {
        Some("DROP") => Fate::Drops,
        Some("REJECT") => Fate::Rejects,
        _ => return None,
    };
    let shipped = format!("{matches} -j ACCEPT");
    is_known(&shipped).then_some((shipped, fate))
}

/// `-A ufw6-before-input -m state --state …` as `before-input -m conntrack --ctstate …`.
fn normal(text: &str, is_v6: bool) -> String {
    let text = text.strip_prefix("-A").unwrap_or(text);
    let prefix = if is_v6 { "ufw6-" } else { "ufw-" };
    let mut words: Vec<String> = text
        .split_whitespace()
        .map(|word| match word {
            "state" => "conntrack".to_owned(),
            "--state" => "--ctstate".to_owned(),
            "ipv6-icmp" => "icmpv6".to_owned(),
            "3/minute" => "3/min".to_owned(),
            word => word.strip_prefix(prefix).unwrap_or(word).to_owned(),
        })
        .collect();
    for word in &mut words {
        if word.contains("ESTABLISHED") {
            let mut states: Vec<&str> = word.split(',').collect();
            states.sort_unstable();
            *word = states.join(",");
        }
    }
    words.join(" ")
}
