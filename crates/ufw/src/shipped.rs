//! The rules that UFW ships in its `before` and `after` files, each with its purpose.

use nfguard_netlink::IpVersion;

/// What a shipped rule corresponds to in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Part of the built-in of this name.
    Builtin(&'static str),
    /// Echo requests to this host.
    PingIn,
    /// Echo requests through this host.
    PingThrough,
    /// IPv6 echo requests from this host.
    PingOut,
    /// Unmatched packets of this protocol to this port are not logged.
    Quiet(&'static str, u16),
    /// A policy does this without a built-in, or the protocol is obsolete: secured neighbour
    /// discovery, multicast router discovery, mobile IPv6.
    Unneeded,
}

/// A rule that UFW ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShippedRule {
    /// Arguments of `iptables -A`, where the name of the chain has no `ufw-` or `ufw6-`.
    pub(crate) text: String,
    pub(crate) purpose: Purpose,
}

/// The built-ins that UFW ships rules for.
pub(crate) const BUILTINS: [&str; 11] = [
    "loopback",
    "established",
    "invalid",
    "rh0",
    "icmp-errors",
    "neighbour-discovery",
    "multicast-listener",
    "dhcpv4-client",
    "dhcpv6-client",
    "mdns",
    "upnp",
];

/// Returns the rules of both files of an IP version.
pub(crate) fn shipped_rules(version: IpVersion) -> Vec<ShippedRule> {
    let mut rules = Vec::new();
    let mut add = |text: String, purpose| rules.push(ShippedRule { text, purpose });
    add("before-input -i lo -j ACCEPT".to_owned(), Purpose::Builtin("loopback"));
    add("before-output -o lo -j ACCEPT".to_owned(), Purpose::Builtin("loopback"));
    for chain in ["input", "output", "forward"] {
        let rule = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
        add(format!("before-{chain} {rule}"), Purpose::Builtin("established"));
    }
    let invalid = "before-input -m conntrack --ctstate INVALID -j";
    add(format!("{invalid} logging-deny"), Purpose::Unneeded);
    add(format!("{invalid} DROP"), Purpose::Builtin("invalid"));
    match version {
        IpVersion::V4 => add_v4(&mut add),
        IpVersion::V6 => add_v6(&mut add),
    }
    let quiet: &[(&str, u16)] = match version {
        IpVersion::V4 => {
            &[("udp", 137), ("udp", 138), ("tcp", 139), ("tcp", 445), ("udp", 67), ("udp", 68)]
        }
        IpVersion::V6 => {
            &[("udp", 137), ("udp", 138), ("tcp", 139), ("tcp", 445), ("udp", 546), ("udp", 547)]
        }
    };
    for (protocol, port) in quiet {
        let rule = format!("after-input -p {protocol} --dport {port} -j skip-to-policy-input");
        add(rule, Purpose::Quiet(protocol, *port));
    }
    rules
}

fn add_v4(add: &mut impl FnMut(String, Purpose)) {
    let icmp = |chain, name| format!("before-{chain} -p icmp --icmp-type {name} -j ACCEPT");
    for chain in ["input", "forward"] {
        for name in ["destination-unreachable", "time-exceeded", "parameter-problem"] {
            add(icmp(chain, name), Purpose::Builtin("icmp-errors"));
        }
        // UFW shipped this rule before version 0.34.
        add(icmp(chain, "source-quench"), Purpose::Unneeded);
    }
    add(icmp("input", "echo-request"), Purpose::PingIn);
    add(icmp("forward", "echo-request"), Purpose::PingThrough);
    let dhcp = "before-input -p udp --sport 67 --dport 68 -j ACCEPT";
    add(dhcp.to_owned(), Purpose::Builtin("dhcpv4-client"));
    add("before-input -j not-local".to_owned(), Purpose::Unneeded);
    for kind in ["LOCAL", "MULTICAST", "BROADCAST"] {
        add(format!("not-local -m addrtype --dst-type {kind} -j RETURN"), Purpose::Unneeded);
    }
    let log = "not-local -m limit --limit 3/min --limit-burst 10 -j logging-deny";
    add(log.to_owned(), Purpose::Unneeded);
    add("not-local -j DROP".to_owned(), Purpose::Unneeded);
    for (group, port, name) in [("224.0.0.251", 5353, "mdns"), ("239.255.255.250", 1900, "upnp")] {
        let rule = format!("before-input -p udp -d {group} --dport {port} -j ACCEPT");
        add(rule, Purpose::Builtin(name));
    }
    let broadcast = "after-input -m addrtype --dst-type BROADCAST -j skip-to-policy-input";
    add(broadcast.to_owned(), Purpose::Unneeded);
}

fn add_v6(add: &mut impl FnMut(String, Purpose)) {
    let icmp = |chain, kind: &str, more: &str| {
        format!("before-{chain} -p icmpv6 --icmpv6-type {kind}{more} -j ACCEPT")
    };
    for chain in ["input", "output", "forward"] {
        add(format!("before-{chain} -m rt --rt-type 0 -j DROP"), Purpose::Builtin("rh0"));
        for name in
            ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"]
        {
            add(icmp(chain, name, ""), Purpose::Builtin("icmp-errors"));
        }
        add(icmp(chain, "echo-reply", ""), Purpose::Unneeded);
    }
    add(icmp("input", "echo-request", ""), Purpose::PingIn);
    add(icmp("output", "echo-request", ""), Purpose::PingOut);
    add(icmp("forward", "echo-request", ""), Purpose::PingThrough);
    let discovery = [
        "router-solicitation",
        "router-advertisement",
        "neighbor-solicitation",
        "neighbor-advertisement",
        "141",
        "142",
    ];
    for chain in ["input", "output"] {
        for kind in discovery {
            let rule = icmp(chain, kind, " -m hl --hl-eq 255");
            add(rule, Purpose::Builtin("neighbour-discovery"));
        }
        for kind in ["130", "131", "132", "143"] {
            add(icmp(chain, kind, " -s fe80::/10"), Purpose::Builtin("multicast-listener"));
        }
        for kind in ["148", "149"] {
            add(icmp(chain, kind, " -m hl --hl-eq 255"), Purpose::Unneeded);
        }
        for kind in ["151", "152", "153"] {
            add(icmp(chain, kind, " -s fe80::/10 -m hl --hl-eq 1"), Purpose::Unneeded);
        }
    }
    for kind in ["144", "145", "146", "147"] {
        add(icmp("input", kind, ""), Purpose::Unneeded);
    }
    let dhcp = "before-input -p udp -s fe80::/10 --sport 547 -d fe80::/10 --dport 546 -j ACCEPT";
    add(dhcp.to_owned(), Purpose::Builtin("dhcpv6-client"));
    for (group, port, name) in [("ff02::fb", 5353, "mdns"), ("ff02::f", 1900, "upnp")] {
        let rule = format!("before-input -p udp -d {group} --dport {port} -j ACCEPT");
        add(rule, Purpose::Builtin(name));
    }
}
