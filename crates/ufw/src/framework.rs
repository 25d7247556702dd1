//! `before.rules`, `after.rules` and their IPv6 twins: the differences from what UFW ships.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nfguard_netlink::{IpVersion, PerIpVersion};

use crate::config::SourceFile;
use crate::diagnostic::Diagnostics;
use crate::shipped::{BUILTINS, Purpose, ShippedRule, shipped_rules};

/// What has become of a rule that UFW ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleState {
    /// The rule is as UFW ships it.
    Shipped,
    /// The rule does not exist any more.
    Removed,
    /// The rule drops what UFW's rule accepts.
    Drops,
    /// The rule rejects what UFW's rule accepts.
    Rejects,
}

/// What the four files do.
#[derive(Debug)]
pub(crate) struct Framework {
    /// Built-ins that UFW ships rules for, and the files do not have.
    pub(crate) disabled_builtins: BTreeSet<&'static str>,
    /// Echo requests to this host.
    pub(crate) ping_in: PerIpVersion<RuleState>,
    /// Echo requests through this host.
    pub(crate) ping_through: PerIpVersion<RuleState>,
    /// IPv6 echo requests from this host.
    pub(crate) ping6_out: RuleState,
    /// Protocols and ports to which unmatched packets are not logged.
    pub(crate) quiet_ports: BTreeMap<&'static str, BTreeSet<u16>>,
}

/// The four files, and what the settings say about them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameworkFiles<'c> {
    pub(crate) before: &'c PerIpVersion<SourceFile>,
    pub(crate) after: &'c PerIpVersion<SourceFile>,
    /// UFW reads the IPv6 files.
    pub(crate) ipv6: bool,
    /// The default accepts what no rule matches.
    pub(crate) accepts_unmatched: bool,
}

/// Reads the files of each IP version that UFW filters.
pub(crate) fn read(files: FrameworkFiles<'_>, diagnostics: &mut Diagnostics) -> Framework {
    let removed = PerIpVersion::from_fn(|_| RuleState::Removed);
    let mut framework = Framework {
        disabled_builtins: BTreeSet::new(),
        ping_in: removed,
        ping_through: removed,
        ping6_out: RuleState::Removed,
        quiet_ports: BTreeMap::new(),
    };
    let mut builtin_rules: HashMap<&str, Vec<(String, RuleState)>> = HashMap::new();
    let versions: &[IpVersion] = if files.ipv6 { &IpVersion::ALL } else { &[IpVersion::V4] };
    for version in versions.iter().copied() {
        let shipped = shipped_rules(version);
        let [before, after] = [files.before, files.after]
            .map(|file| states(&file[version], version, &shipped, diagnostics));
        for ShippedRule { text, purpose } in shipped {
            let states = if text.starts_with("after-") { &after } else { &before };
            let state = states.get(&text).copied().unwrap_or(RuleState::Removed);
            match purpose {
                Purpose::Builtin(name) => {
                    builtin_rules.entry(name).or_default().push((text, state));
                }
                Purpose::PingIn => framework.ping_in[version] = state,
                Purpose::PingThrough => framework.ping_through[version] = state,
                Purpose::PingOut => framework.ping6_out = state,
                Purpose::Quiet(protocol, port) if state == RuleState::Shipped => {
                    framework.quiet_ports.entry(protocol).or_default().insert(port);
                }
                Purpose::Quiet(..) | Purpose::Unneeded => {}
            }
        }
    }
    let file = &files.before.v4.name;
    for name in BUILTINS {
        // Without the IPv6 files, a built-in for IPv6 alone has no rules.
        let rules = builtin_rules.remove(name).unwrap_or_default();
        let changed: Vec<_> =
            rules.iter().filter(|(_, state)| *state != RuleState::Shipped).collect();
        if changed.len() == rules.len() {
            framework.disabled_builtins.insert(name);
            let is_denied = changed.iter().any(|(_, state)| *state != RuleState::Removed);
            if is_denied && files.accepts_unmatched {
                let message = format!(
                    "UFW drops what the built-in `{name}` accepts; the built-in is off, but the \
                     default accepts the same packets: add a rule that denies them"
                );
                diagnostics.not_carried_over(file, None, message);
            }
        } else if let Some((first, _)) = changed.first() {
            let message = format!(
                "{} of the {} rules that UFW ships for what the built-in `{name}` does are gone \
                 or changed (first: -A ufw-{first}); the built-in is on as a whole",
                changed.len(),
                rules.len()
            );
            diagnostics.not_carried_over(file, None, message);
        }
    }
    framework
}

/// Returns the state of each shipped rule of a file. Every other rule is reported.
fn states(
    file: &SourceFile,
    version: IpVersion,
    shipped: &[ShippedRule],
    diagnostics: &mut Diagnostics,
) -> HashMap<String, RuleState> {
    let mut states = HashMap::new();
    let mut table = "";
    for (text, line) in file.text.lines().zip(1..) {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('*') {
            table = name;
        }
        if !text.starts_with('-') {
            continue;
        }
        let rule = normalize(text, version);
        let state = (table == "filter").then(|| state(&rule, shipped)).flatten();
        match state {
            // The first rule that matches decides.
            Some((rule, state)) => drop(states.entry(rule).or_insert(state)),
            None if table == "filter" => diagnostics.not_carried_over(&file.name, line, text),
            None => {
                let message = format!("table {table}: {text}");
                diagnostics.not_carried_over(&file.name, line, message);
            }
        }
    }
    states
}

/// Returns the shipped rule that a normalized rule is or was, and its state.
fn state(rule: &str, shipped: &[ShippedRule]) -> Option<(String, RuleState)> {
    let is_shipped = |rule: &str| shipped.iter().any(|shipped| shipped.text == rule);
    if is_shipped(rule) {
        return Some((rule.to_owned(), RuleState::Shipped));
    }
    let (matches, target) = rule.split_once(" -j ")?;
    let state = match target.split(' ').next() {
        Some("DROP") => RuleState::Drops,
        Some("REJECT") => RuleState::Rejects,
        _ => return None,
    };
    let original = format!("{matches} -j ACCEPT");
    is_shipped(&original).then_some((original, state))
}

/// Returns a rule in the form of [`ShippedRule::text`]: `-A ufw6-before-input -m state --state …`
/// becomes `before-input -m conntrack --ctstate …`.
fn normalize(text: &str, version: IpVersion) -> String {
    let text = text.strip_prefix("-A").unwrap_or(text);
    let prefix = match version {
        IpVersion::V4 => "ufw-",
        IpVersion::V6 => "ufw6-",
    };
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
