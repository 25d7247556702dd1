//! The problems of this host, derived from facts. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nfguard_netlink::eval::{Fate, Memory, Packet, evaluate};
use nfguard_netlink::{
    ChainPolicy, Expr, ForeignChain, ForeignTable, ForeignVerdict, Hook, IpVersion, PerIpVersion,
    Table, Verdict, fib_type, text,
};
use nfguard_policy::{Flow, FlowPath, Payload, explain};
use serde::Serialize;

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::iptables_legacy;
use crate::inspect::ports::{self, Port, Responder};
use crate::inspect::system::Host;

/// A problem with its cause and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// A stable name for programs.
    pub(crate) code: &'static str,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) fix: String,
}

/// The facts to judge.
pub(crate) struct Facts<'a> {
    pub(crate) host: &'a Host,
    /// The loaded policy.
    pub(crate) table: Option<&'a Table>,
    pub(crate) ports: &'a [Port],
    /// The addresses of this host in the internet.
    pub(crate) own: PerIpVersion<IpAddr>,
    /// Whether this host forwards packets.
    pub(crate) forwards: PerIpVersion<bool>,
    /// The name and the text of the file that nftables.service loads at boot.
    pub(crate) boot: Option<(String, String)>,
    /// By the address of a container: the address from which this host relays to it, and why the
    /// never-ban list refuses a ban of that address.
    pub(crate) refused: BTreeMap<IpAddr, (IpAddr, String)>,
}

/// The most ports that one finding names.
const MAX_NAMED_PORTS: usize = 8;

/// Returns the firewall backends that hold rules of Docker; several if the backend was changed and
/// the old rules stayed.
pub(crate) fn docker_backends(host: &Host) -> Vec<&'static str> {
    let has = |tables: &[ForeignTable], is: &dyn Fn(&ForeignTable) -> bool| tables.iter().any(is);
    let of_iptables = |table: &ForeignTable| {
        table.name.split(' ').next() == Some("nat") && table.chain("DOCKER").is_some()
    };
    let mut backends = Vec::new();
    if has(&host.nft, &of_iptables) {
        backends.push("iptables-nft");
    }
    if has(&host.legacy, &of_iptables) {
        backends.push("iptables-legacy");
    }
    if has(&host.nft, &|table| table.name == "docker-bridges") {
        backends.push("nftables");
    }
    backends
}

/// Returns all problems, the worst first.
pub(crate) fn all(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = dropped_by_others(facts);
    found.extend(flush_at_boot(facts));
    found.extend(uplink_taken_for_dockers(facts));
    found.extend(not_forwarding(facts));
    found.extend(hidden_clients(facts));
    found.extend(other_firewalls(facts));
    found.extend(legacy_rules(facts));
    found
}

/// The name of a connection that the policy allows, and its first packet at each hook on its path.
type Way = (String, Vec<(Hook, Packet)>);

fn dropped_by_others(facts: &Facts<'_>) -> Vec<Finding> {
    let ways: Vec<Way> =
        facts.ports.iter().flat_map(|port| ways_in(facts, port)).chain(ways_out(facts)).collect();
    let mut found = Vec::new();
    for table in facts.host.tables() {
        for chain in &table.chains {
            let Some((base, filter)) = chain.base.zip(table.filter_of(chain)) else { continue };
            let (mut names, mut certain) = (Vec::new(), true);
            for (name, packets) in &ways {
                for (hook, packet) in packets {
                    if *hook != base.hook {
                        continue;
                    }
                    if let Some(ForeignVerdict::Drops { certain: is }) = filter.verdict(packet) {
                        certain &= is;
                        names.push(name.as_str());
                    }
                }
            }
            names.dedup();
            if !names.is_empty() {
                found.push(drop_finding(table, chain, base.policy, base.hook, &names, certain));
            }
        }
    }
    found
}

fn drop_finding(
    table: &ForeignTable,
    chain: &ForeignChain,
    policy: ChainPolicy,
    hook: Hook,
    names: &[&str],
    certain: bool,
) -> Finding {
    let policy = if policy == ChainPolicy::Drop { "drop" } else { "accept" };
    let (verb, but) = match certain {
        true => ("drops", ""),
        false => ("may drop", ", unless one of its rules that nfguard cannot read lets it pass"),
    };
    let more = match names.len().saturating_sub(MAX_NAMED_PORTS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let some = names.iter().take(MAX_NAMED_PORTS).copied().collect::<Vec<_>>().join(", ");
    Finding {
        code: "foreign-drop",
        what: format!(
            "table {} {}, chain {} (hook {}, policy {policy}) {verb} what the policy allows: \
             {some}{more}{but}",
            table.family.word(),
            table.name,
            chain.name,
            text::hook_word(hook),
        ),
        why: "a packet has to pass every table: an accept in nfguard's table ends only that table"
            .to_owned(),
        fix: "let that firewall accept the same traffic, or remove its rules and leave the filtering to \
              nfguard"
            .to_owned(),
    }
}

fn ways_in(facts: &Facts<'_>, port: &Port) -> Vec<Way> {
    if !port.admission.as_ref().is_some_and(|admission| admission.allowed) {
        return Vec::new();
    }
    let way = |version: &IpVersion| {
        let from = example::remote(*version);
        let own = port.on.unwrap_or(facts.own[*version]);
        let uplink = facts.host.uplink().to_owned();
        let packet = |to, number| Packet {
            in_interface: uplink.clone(),
            ..Packet::new(from, to, port.protocol, (SOURCE_PORT, number))
        };
        let first = packet(own, port.ports.0);
        let second = match &port.responder {
            Responder::Translated { to, bridge, .. } => {
                (Hook::Forward, translated(packet(to.ip(), to.port()), port, bridge.as_deref()))
            }
            _ => (Hook::Input, first.clone()),
        };
        (format!("in {}", port.name()), vec![(Hook::Prerouting, first), second])
    };
    port.ip_versions.iter().map(way).collect()
}

fn translated(packet: Packet, port: &Port, bridge: Option<&str>) -> Packet {
    Packet {
        out_interface: bridge.unwrap_or("docker0").to_owned(),
        dnat_from: Some(port.ports.0),
        fib_daddr_type: fib_type::UNICAST,
        ..packet
    }
}

fn ways_out(facts: &Facts<'_>) -> Vec<Way> {
    let Some(table) = facts.table else { return Vec::new() };
    let mut ways = Vec::new();
    for (first, last) in ports::intervals(table) {
        for protocol in ports::PROTOCOLS {
            for (version, own) in facts.own.iter() {
                let flow = Flow {
                    path: FlowPath::Out,
                    source: *own,
                    destination: example::remote(version),
                    payload: Payload::Ports { protocol, source: SOURCE_PORT, destination: first },
                    in_interface: String::new(),
                    out_interface: facts.host.uplink().to_owned(),
                };
                if explain(table, &flow, &mut Memory::default()).fate != Fate::Accept {
                    continue;
                }
                let packet = Packet {
                    out_interface: flow.out_interface,
                    fib_daddr_type: fib_type::UNICAST,
                    ..Packet::new(*own, flow.destination, protocol, (SOURCE_PORT, first))
                };
                let name = ports::name((first, last), protocol);
                ways.push((format!("out {name}"), vec![(Hook::Output, packet)]));
            }
        }
    }
    ways
}

fn flush_at_boot(facts: &Facts<'_>) -> Option<Finding> {
    let (name, text) = facts.boot.as_ref()?;
    flushes(text).then(|| Finding {
        code: "flush-ruleset",
        what: format!("{name} has `flush ruleset`"),
        why: "each start and each reload of nftables.service removes all tables: the policy, the \
              bans and Docker's rules too"
            .to_owned(),
        fix: "replace that line by the file's own tables (`table …` and `delete table …`), or \
              disable nftables.service"
            .to_owned(),
    })
}

/// Tells whether a script for nft removes tables of the family `inet`.
fn flushes(text: &str) -> bool {
    let statements = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split([';', '{', '}']));
    statements.map(|statement| statement.split_whitespace().collect::<Vec<_>>()).any(|words| {
        matches!(words.as_slice(), ["flush", "ruleset"] | ["flush", "ruleset", "inet"])
    })
}

/// Finds an uplink whose packets the loaded rules send to the chain for containers.
fn uplink_taken_for_dockers(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(table) = facts.table else { return Vec::new() };
    let is_taken = |uplink: &&String| {
        let [source, destination] = [[203, 0, 113, 7], [203, 0, 113, 8]].map(IpAddr::from);
        let packet = Packet {
            in_interface: (*uplink).clone(),
            out_interface: (*uplink).clone(),
            fib_daddr_type: fib_type::UNICAST,
            ..Packet::new(source, destination, nfguard_netlink::protocol::TCP, (SOURCE_PORT, 9))
        };
        let decision = evaluate(table, Hook::Forward, &packet, &mut Memory::default());
        let leads = |expr: &Expr| matches!(expr, Expr::Verdict(Verdict::Goto(chain)) if chain == nfguard_policy::CONTAINERS_CHAIN);
        decision.is_some_and(|decision| {
            decision.matched.iter().any(|(_, _, rule)| rule.exprs.iter().any(leads))
        })
    };
    let finding = |uplink: &String| Finding {
        code: "uplink-bridge",
        what: format!(
            "the default route uses {uplink}, and the policy takes {uplink} for a bridge of Docker"
        ),
        why: "the policy judges packets that arrive there as if a container had sent them, and \
             its default deny does not hold for packets that this host sends there"
            .to_owned(),
        fix: "list the container bridges under `containers` in the policy".to_owned(),
    };
    facts.host.uplinks.iter().filter(is_taken).map(finding).collect()
}

fn not_forwarding(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (version, setting) in
        [(IpVersion::V4, "net.ipv4.ip_forward"), (IpVersion::V6, "net.ipv6.conf.all.forwarding")]
    {
        let translated = |port: &&Port| {
            port.ip_versions.contains(&version)
                && matches!(port.responder, Responder::Translated { .. })
        };
        let ports: Vec<String> = facts.ports.iter().filter(translated).map(Port::name).collect();
        if ports.is_empty() || facts.forwards[version] {
            continue;
        }
        found.push(Finding {
            code: "ip-forward-off",
            what: format!("{setting} is 0, and containers publish {}", ports.join(", ")),
            why: "the kernel forwards nothing to the containers: clients get no answer".to_owned(),
            fix: format!(
                "`sysctl -w {setting}=1`, and the same setting in a file of /etc/sysctl.d"
            ),
        });
    }
    found
}

fn hidden_clients(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for port in facts
        .ports
        .iter()
        .filter(|port| port.admission.as_ref().is_none_or(|admission| admission.allowed))
    {
        let versions = port.ip_versions.iter().map(|version| match version {
            IpVersion::V4 => "IPv4",
            IpVersion::V6 => "IPv6",
        });
        let clients = format!(
            "clients of {} over {}",
            port.name(),
            versions.collect::<Vec<_>>().join(" and ")
        );
        let (how, to) = match &port.responder {
            _ if port.on.is_some_and(|on| on.is_loopback()) => continue,
            Responder::Relayed { to: Some(to), .. } => ("docker-proxy relays them", to.ip()),
            Responder::Translated { to, bridge, .. } => {
                let packet = Packet::new(
                    example::remote(IpVersion::of(to.ip())),
                    to.ip(),
                    port.protocol,
                    (SOURCE_PORT, to.port()),
                );
                // After routing, the input interface is unknown, also to nft.
                let packet = translated(packet, port, bridge.as_deref());
                if !facts.host.tables().any(|table| table.hides_source(&packet)) {
                    continue;
                }
                ("a masquerade rule rewrites them", to.ip())
            }
            _ => continue,
        };
        let refused = match facts.refused.get(&to) {
            Some((_, why)) => format!("; nfguard refuses such a ban: {why}"),
            None => String::new(),
        };
        let seen_as = match facts.refused.get(&to) {
            Some((gateway, _)) => gateway.to_string(),
            None => "the gateway".to_owned(),
        };
        found.push(Finding {
            code: "client-hidden",
            what: format!("the container {to} sees {clients} as {seen_as}: {how}"),
            why: format!(
                "its logs do not have the addresses of the clients; a ban by these logs would hit the \
                 gateway, and with the gateway all clients{refused}"
            ),
            fix: "enable IPv6 in the container's network if clients use it (Docker: `--ipv6`), and \
                  set `\"userland-proxy\": false`; with rules of your own, masquerade only the packets \
                  that containers send out"
                .to_owned(),
        });
    }
    found
}

fn other_firewalls(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (code, name, off, is_its) in [
        ("ufw-active", "UFW", "ufw disable", &is_ufws as &dyn Fn(&ForeignTable) -> bool),
        ("firewalld-active", "firewalld", "systemctl disable --now firewalld", &is_firewallds),
    ] {
        let tables = facts.host.tables().filter(|table| is_its(table));
        let tables: Vec<String> =
            tables.map(|table| format!("{} {}", table.family.word(), table.name)).collect();
        if tables.is_empty() {
            continue;
        }
        found.push(Finding {
            code,
            what: format!("{name} is active: its rules are in the table {}", tables.join(", ")),
            why: "two firewalls decide, and a packet passes only if both accept it: traffic that \
                  nfguard allows may not arrive, and a change of one does not change the other"
                .to_owned(),
            fix: format!("complete the nfguard policy, then run `{off}`"),
        });
    }
    found
}

/// Tells whether packets reach rules of UFW. The chains of UFW stay when it is disabled.
fn is_ufws(table: &ForeignTable) -> bool {
    let is_its = |name: &&str| name.starts_with("ufw-before-") || name.starts_with("ufw6-before-");
    let entered = table
        .chains
        .iter()
        .filter(|chain| chain.base.is_some())
        .flat_map(|chain| table.reached_from([chain.name.as_str()]));
    entered
        .filter(is_its)
        .any(|name| table.chain(name).is_some_and(|chain| !chain.rules.is_empty()))
}

fn is_firewallds(table: &ForeignTable) -> bool {
    let own = table.name == "firewalld" && !table.chains.is_empty();
    own || ["INPUT_ZONES", "FORWARD_IN_ZONES"].iter().any(|name| table.chain(name).is_some())
}

fn legacy_rules(facts: &Facts<'_>) -> Option<Finding> {
    let tables: Vec<&ForeignTable> = facts
        .host
        .legacy
        .iter()
        .filter(|table| iptables_legacy::holds_rules(std::slice::from_ref(table)))
        .collect();
    if tables.is_empty() && !facts.host.legacy_unread {
        return None;
    }
    let names = tables.iter().map(|table| format!("{} {}", table.family.word(), table.name));
    let what = match names.collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "the kernel holds rules of the legacy iptables".to_owned(),
        names => format!("the kernel holds rules of the legacy iptables: {names}"),
    };
    Some(Finding {
        code: "legacy-iptables",
        what,
        why:
            "the kernel runs them besides the rules of nf_tables, and neither `nft` nor the usual \
              `iptables` lists them: a drop among them stays hidden"
                .to_owned(),
        fix:
            "`update-alternatives --set iptables /usr/sbin/iptables-nft` (and ip6tables), restart \
              Docker and other programs that use iptables, and reboot or flush with \
              `iptables-legacy`"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flush_that_reaches_our_tables_is_one() {
        for yes in [
            "#!/usr/sbin/nft -f\n\nflush ruleset\n",
            "  flush  ruleset # all\n",
            "table ip a;flush ruleset inet",
        ] {
            assert!(flushes(yes), "{yes:?}");
        }
        for no in ["", "# flush ruleset\n", "flush ruleset ip\n", "flush table inet filter\n"] {
            assert!(!flushes(no), "{no:?}");
        }
    }
}
