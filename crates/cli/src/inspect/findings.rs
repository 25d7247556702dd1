//! What will bite on this host, worked out of what was seen. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nfguard_netlink::eval::{Fate, Memory, Packet, evaluate};
use nfguard_netlink::{
    ChainPolicy, Expr, Foreign, ForeignChain, ForeignVerdict, Hook, Table, Verdict, fib_type, text,
};
use nfguard_policy::{Flow, FlowPath, Payload, explain};
use serde::Serialize;

use crate::commands::explain::{SOMEBODY_V4, SOMEBODY_V6, SOURCE_PORT};
use crate::inspect::system::Host;
use crate::inspect::iptables_legacy;
use crate::inspect::ports::{self, Answer, Port};

/// Something that will bite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Stable, for programs.
    pub(crate) code: &'static str,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) fix: String,
}

/// What was seen.
pub(crate) struct Seen<'a> {
    pub(crate) host: &'a Host,
    /// The loaded policy.
    pub(crate) table: Option<&'a Table>,
    pub(crate) ports: &'a [Port],
    /// The address that the world knows this host by, IPv4 and IPv6.
    pub(crate) own: [IpAddr; 2],
    /// Whether it forwards, IPv4 and IPv6.
    pub(crate) forwards: [bool; 2],
    /// What nftables loads at boot: the file's name and text.
    pub(crate) boot: Option<(String, String)>,
    /// For the receiver of a published port: as whom this host relays to it, and why the never-ban
    /// list refuses to ban that address.
    pub(crate) refused: BTreeMap<IpAddr, (IpAddr, String)>,
}

/// At most so many ports are named in one finding.
const SOME: usize = 8;

/// What Docker puts its rules into; more than one where it was changed and the old ones stayed.
pub(crate) fn docker_backends(host: &Host) -> Vec<&'static str> {
    let has = |tables: &[Foreign], is: &dyn Fn(&Foreign) -> bool| tables.iter().any(is);
    let of_iptables = |table: &Foreign| {
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

/// Everything that was found, the worst first.
pub(crate) fn all(seen: &Seen<'_>) -> Vec<Finding> {
    let mut found = dropped_by_others(seen);
    found.extend(flush_at_boot(seen));
    found.extend(uplink_taken_for_dockers(seen));
    found.extend(not_forwarding(seen));
    found.extend(hidden_clients(seen));
    found.extend(other_firewalls(seen));
    found.extend(legacy_rules(seen));
    found
}

fn somebody(is_v6: bool) -> IpAddr {
    if is_v6 { SOMEBODY_V6 } else { SOMEBODY_V4 }
}

/// The first packet of a connection that the policy allows, at each hook that it passes, and what to
/// call it.
type Way = (String, Vec<(Hook, Packet)>);

fn dropped_by_others(seen: &Seen<'_>) -> Vec<Finding> {
    let ways: Vec<Way> =
        seen.ports.iter().flat_map(|port| ways_in(seen, port)).chain(ways_out(seen)).collect();
    let mut found = Vec::new();
    for table in seen.host.tables() {
        for chain in &table.chains {
            let Some((base, gate)) = chain.base.zip(table.gate(chain)) else { continue };
            let (mut names, mut certain) = (Vec::new(), true);
            for (name, packets) in &ways {
                for (hook, packet) in packets {
                    if *hook != base.hook {
                        continue;
                    }
                    if let Some(ForeignVerdict::Drops { certain: is }) = gate.outcome(packet) {
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
    table: &Foreign,
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
    let more = match names.len().saturating_sub(SOME) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let some = names.iter().take(SOME).copied().collect::<Vec<_>>().join(", ");
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
        why: "a packet has to pass every table: an accept of nfguard's ends only its own"
            .to_owned(),
        fix: "let that firewall accept the same, or take its rules away and leave it to nfguard"
            .to_owned(),
    }
}

fn ways_in(seen: &Seen<'_>, port: &Port) -> Vec<Way> {
    if !port.world.as_ref().is_some_and(|(allowed, _)| *allowed) {
        return Vec::new();
    }
    let way = |is_v6: &bool| {
        let from = somebody(*is_v6);
        let own = port.on.unwrap_or(seen.own[usize::from(*is_v6)]);
        let uplink = seen.host.uplink().to_owned();
        let packet = |to, number| Packet {
            in_interface: uplink.clone(),
            ..Packet::new(from, to, port.protocol, (SOURCE_PORT, number))
        };
        let first = packet(own, port.ports.0);
        let second = match &port.answer {
            Answer::Sent { to, bridge, .. } => {
                (Hook::Forward, sent_on(packet(to.ip(), to.port()), port, bridge.as_deref()))
            }
            _ => (Hook::Input, first.clone()),
        };
        (format!("in {}", port.name()), vec![(Hook::Prerouting, first), second])
    };
    port.families.iter().map(way).collect()
}

fn sent_on(packet: Packet, port: &Port, bridge: Option<&str>) -> Packet {
    Packet {
        out_interface: bridge.unwrap_or("docker0").to_owned(),
        dnat_from: Some(port.ports.0),
        fib_daddr_type: fib_type::UNICAST,
        ..packet
    }
}

fn ways_out(seen: &Seen<'_>) -> Vec<Way> {
    let Some(table) = seen.table else { return Vec::new() };
    let mut ways = Vec::new();
    for (first, last) in ports::intervals(table) {
        for protocol in ports::PROTOCOLS {
            for own in seen.own {
                let flow = Flow {
                    path: FlowPath::Out,
                    source: own,
                    destination: somebody(own.is_ipv6()),
                    payload: Payload::Ports { protocol, source: SOURCE_PORT, destination: first },
                    in_interface: String::new(),
                    out_interface: seen.host.uplink().to_owned(),
                };
                if explain(table, &flow, &mut Memory::default()).fate != Fate::Accept {
                    continue;
                }
                let packet = Packet {
                    out_interface: flow.out_interface,
                    fib_daddr_type: fib_type::UNICAST,
                    ..Packet::new(own, flow.destination, protocol, (SOURCE_PORT, first))
                };
                let name = ports::name((first, last), protocol);
                ways.push((format!("out {name}"), vec![(Hook::Output, packet)]));
            }
        }
    }
    ways
}

fn flush_at_boot(seen: &Seen<'_>) -> Option<Finding> {
    let (name, text) = seen.boot.as_ref()?;
    flushes(text).then(|| Finding {
        code: "flush-ruleset",
        what: format!("{name} has `flush ruleset`"),
        why: "whenever nftables.service starts or reloads, it takes away every table, the policy, \
              the bans and Docker's own too"
            .to_owned(),
        fix: "let the file name its own tables (`table …` and `delete table …`) in place of that \
              line, or disable nftables.service"
            .to_owned(),
    })
}

/// Whether a script for nft takes tables of the family `inet` away.
fn flushes(text: &str) -> bool {
    let statements = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split([';', '{', '}']));
    statements.map(|statement| statement.split_whitespace().collect::<Vec<_>>()).any(|words| {
        matches!(words.as_slice(), ["flush", "ruleset"] | ["flush", "ruleset", "inet"])
    })
}

/// By the loaded rules themselves: who comes in by the uplink is led to where containers go.
fn uplink_taken_for_dockers(seen: &Seen<'_>) -> Vec<Finding> {
    let Some(table) = seen.table else { return Vec::new() };
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
            "the default route leads out by {uplink}, which the policy takes for a bridge of Docker's"
        ),
        why:
            "what comes in by it is judged as if a container had sent it, and what this host sends \
              by it is not held back by the rules' silence"
                .to_owned(),
        fix: "list the container bridges under `containers` in the policy".to_owned(),
    };
    seen.host.uplinks.iter().filter(is_taken).map(finding).collect()
}

fn not_forwarding(seen: &Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (is_v6, setting) in [(false, "net.ipv4.ip_forward"), (true, "net.ipv6.conf.all.forwarding")]
    {
        let sent = |port: &&Port| {
            port.families.contains(&is_v6) && matches!(port.answer, Answer::Sent { .. })
        };
        let ports: Vec<String> = seen.ports.iter().filter(sent).map(Port::name).collect();
        if ports.is_empty() || seen.forwards[usize::from(is_v6)] {
            continue;
        }
        found.push(Finding {
            code: "ip-forward-off",
            what: format!("{setting} is 0, and containers publish {}", ports.join(", ")),
            why: "the kernel passes nothing on to them: their clients get no answer".to_owned(),
            fix: format!("sysctl -w {setting}=1, and in /etc/sysctl.d what keeps it so"),
        });
    }
    found
}

fn hidden_clients(seen: &Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for port in seen.ports.iter().filter(|port| port.world.as_ref().is_none_or(|(is, _)| *is)) {
        let families = port.families.iter().map(|is_v6| if *is_v6 { "IPv6" } else { "IPv4" });
        let clients = format!(
            "clients of {} over {}",
            port.name(),
            families.collect::<Vec<_>>().join(" and ")
        );
        let (how, to) = match &port.answer {
            _ if port.on.is_some_and(|on| on.is_loopback()) => continue,
            Answer::Relayed { to: Some(to), .. } => ("docker-proxy relays them", to.ip()),
            Answer::Sent { to, bridge, .. } => {
                let packet = Packet::new(
                    somebody(to.is_ipv6()),
                    to.ip(),
                    port.protocol,
                    (SOURCE_PORT, to.port()),
                );
                // No interface that it came in by is known after routing, to nft neither.
                let packet = sent_on(packet, port, bridge.as_deref());
                if !seen.host.tables().any(|table| table.hides_source(&packet)) {
                    continue;
                }
                ("a masquerade rule rewrites them", to.ip())
            }
            _ => continue,
        };
        let refused = match seen.refused.get(&to) {
            Some((_, why)) => format!("; nfguard refuses that ban: {why}"),
            None => String::new(),
        };
        let as_whom = match seen.refused.get(&to) {
            Some((gateway, _)) => gateway.to_string(),
            None => "the gateway".to_owned(),
        };
        found.push(Finding {
            code: "client-hidden",
            what: format!("{clients} are all {as_whom} to the container {to}: {how}"),
            why: format!(
                "its logs do not say who asks, and a ban by them would hit the gateway, and with it \
                 everybody{refused}"
            ),
            fix: "give the container's network IPv6 where clients have it (Docker: `--ipv6`), and \
                  set `\"userland-proxy\": false`; for rules of your own, masquerade only what \
                  containers send out"
                .to_owned(),
        });
    }
    found
}

fn other_firewalls(seen: &Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (code, name, off, is_its) in [
        ("ufw-active", "UFW", "ufw disable", &is_ufws as &dyn Fn(&Foreign) -> bool),
        ("firewalld-active", "firewalld", "systemctl disable --now firewalld", &is_firewallds),
    ] {
        let tables = seen.host.tables().filter(|table| is_its(table));
        let tables: Vec<String> =
            tables.map(|table| format!("{} {}", table.family.word(), table.name)).collect();
        if tables.is_empty() {
            continue;
        }
        found.push(Finding {
            code,
            what: format!("{name} is active: its rules are in the table {}", tables.join(", ")),
            why: "two firewalls decide, and only what both accept passes: what nfguard allows may \
                  not arrive, and what you change in one is not in the other"
                .to_owned(),
            fix: format!("once the nfguard policy says all that you want: `{off}`"),
        });
    }
    found
}

/// Whether a packet that comes in gets to rules of UFW's. Its chains stay when it is disabled.
fn is_ufws(table: &Foreign) -> bool {
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

fn is_firewallds(table: &Foreign) -> bool {
    let own = table.name == "firewalld" && !table.chains.is_empty();
    own || ["INPUT_ZONES", "FORWARD_IN_ZONES"].iter().any(|name| table.chain(name).is_some())
}

fn legacy_rules(seen: &Seen<'_>) -> Option<Finding> {
    let tables: Vec<&Foreign> = seen
        .host
        .legacy
        .iter()
        .filter(|table| iptables_legacy::holds_rules(std::slice::from_ref(table)))
        .collect();
    if tables.is_empty() && !seen.host.legacy_unread {
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
        why: "they are run beside those of nf_tables, and neither `nft` nor the usual `iptables` \
              lists them: a drop among them is found by nobody"
            .to_owned(),
        fix:
            "`update-alternatives --set iptables /usr/sbin/iptables-nft` (and ip6tables), restart \
              Docker and what else uses it, and reboot or flush with `iptables-legacy`"
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
