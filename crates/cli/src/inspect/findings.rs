//! The problems of this host, derived from facts. Pure.

use std::net::IpAddr;

use nfguard_netlink::eval::{Memory, Packet, evaluate};
use nfguard_netlink::{Expr, ForeignTable, Hook, IpVersion, Verdict, fib_type};

use crate::inspect::example::{self, SOURCE_PORT};
use crate::inspect::finding::{Facts, Finding};
use crate::inspect::network::Way;
use crate::inspect::port_ranges::Target;
use crate::inspect::ports::{self, Port, Responder};
use crate::inspect::system::Host;
use crate::inspect::{foreign_drops, guests, iptables_legacy};

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
    let mut found = foreign_drops::findings(facts);
    found.extend(guests::findings(facts.host, facts.table));
    found.extend(flush_at_boot(facts));
    found.extend(uplink_taken_for_dockers(facts));
    found.extend(not_forwarding(facts));
    found.extend(deaf_uplinks(facts));
    found.extend(alternative_names(facts));
    found.extend(hidden_clients(facts));
    found.extend(other_firewalls(facts));
    found.extend(legacy_rules(facts));
    found
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
    let is_taken = |uplink: &&str| {
        let [source, destination] = [[203, 0, 113, 7], [203, 0, 113, 8]].map(IpAddr::from);
        let packet = Packet {
            in_interface: (*uplink).to_owned(),
            out_interface: (*uplink).to_owned(),
            fib_daddr_type: fib_type::UNICAST,
            ..Packet::new(source, destination, nfguard_netlink::protocol::TCP, (SOURCE_PORT, 9))
        };
        let decision = evaluate(table, Hook::Forward, &packet, &mut Memory::default());
        let leads = |expr: &Expr| matches!(expr, Expr::Verdict(Verdict::Goto(chain)) if chain == nfguard_policy::CONTAINERS_CHAIN);
        decision.is_some_and(|decision| {
            decision.matched.iter().any(|(_, _, rule)| rule.exprs.iter().any(leads))
        })
    };
    let finding = |uplink: &str| Finding {
        code: "uplink-bridge",
        what: format!(
            "the default route uses {uplink}, and the policy takes {uplink} for a bridge of Docker"
        ),
        why: "the policy judges packets that arrive there as if a container had sent them, and \
             its default deny does not hold for packets that this host sends there"
            .to_owned(),
        fix: "list the container bridges under `containers` in the policy".to_owned(),
    };
    facts.host.network.uplinks().into_iter().filter(is_taken).map(finding).collect()
}

/// Finds uplinks whose packets the kernel drops before any rule could let them pass. IPv6 has no such
/// setting.
fn deaf_uplinks(facts: &Facts<'_>) -> impl Iterator<Item = Finding> {
    facts.host.network.deaf_uplinks.iter().map(|name| Finding {
        code: "uplink-deaf",
        what: format!("the kernel drops what comes from the internet by {name}"),
        why: format!(
            "net.ipv4.conf.{name}.rp_filter (or that of `all`) is 1, and this host would answer by \
             another interface; no rule can let such a packet of IPv4 pass, to this host or through it"
        ),
        fix: format!(
            "answer by the interface that was asked: `ip rule add from ADDRESS table N` with the \
             address of {name}, and a default route by {name} in table N; or \
             `sysctl -w net.ipv4.conf.{name}.rp_filter=2`, and that of `all` too"
        ),
    })
}

/// Names the interfaces that the loaded rules have under a name that no rule sees.
fn alternative_names(facts: &Facts<'_>) -> impl Iterator<Item = Finding> {
    facts.alternative_names.iter().map(|what| Finding {
        code: "alternative-name",
        what: what.clone(),
        why:
            "a rule that names it matches no packet: what it should allow is refused, and what it \
              should deny may pass"
                .to_owned(),
        fix: "write the interface's own name in the policy".to_owned(),
    })
}

fn not_forwarding(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let network = &facts.host.network;
    let is_forwarded = |to: IpAddr| network.way(to).is_some_and(|way| !way.is_local());
    for (version, setting) in
        [(IpVersion::V4, "net.ipv4.ip_forward"), (IpVersion::V6, "net.ipv6.conf.all.forwarding")]
    {
        let translated = |port: &&Port| {
            let to = match &port.responder {
                Responder::Translated { to, .. } => to.address,
                _ => return false,
            };
            port.ip_versions.contains(&version) && is_forwarded(to)
        };
        let ports = ports::summed_up(facts.ports);
        let ports: Vec<String> = ports.iter().filter(translated).map(Port::name).collect();
        if ports.is_empty() || network.forwards[version] {
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
    let nat: Vec<_> = facts.host.tables().map(ForeignTable::source_nat).collect();
    let is_hidden = |port: &&Port| {
        let allowed = port.admission.as_ref().is_none_or(|admission| admission.allowed);
        allowed
            && match &port.responder {
                _ if port.on.is_some_and(|on| on.is_loopback()) => false,
                Responder::Relayed { to, .. } => to.is_some(),
                Responder::Translated { to, .. } => {
                    facts.host.network.way(to.address).is_some_and(|way| {
                        let packet = translated(port, to, way);
                        nat.iter().any(|nat| nat.hides_source(&packet))
                    })
                }
                _ => false,
            }
    };
    let hidden: Vec<Port> = facts.ports.iter().filter(is_hidden).cloned().collect();
    for port in ports::summed_up(&hidden) {
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
            Responder::Relayed { to: Some(to), .. } => ("docker-proxy relays them", to.address),
            Responder::Translated { to, .. } => ("a masquerade rule rewrites them", to.address),
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

/// Returns the first packet of a connection when it leaves for what receives the port. After routing,
/// the input interface is unknown, also to nft.
fn translated(port: &Port, to: &Target, way: &Way) -> Packet {
    let from = example::remote(IpVersion::of(to.address));
    Packet {
        out_interface: way.interface.clone(),
        dnat_from: Some((port.on.unwrap_or(to.address), port.ports.0)),
        fib_daddr_type: fib_type::UNICAST,
        ..Packet::new(from, to.address, port.protocol, (SOURCE_PORT, to.ports.0))
    }
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
