//! The rules that UFW ships in its `before` and `after` files, by what they are for.

/// What a shipped rule is to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Part of the built-in of this name.
    Builtin(&'static str),
    /// Echo requests to this host, through it, and over IPv6 from it.
    PingIn,
    PingThrough,
    PingOut,
    /// Unmatched packets to this port are not logged.
    Quiet(&'static str, u16),
    /// What a policy does without being asked, or what nobody uses: secured neighbour discovery,
    /// multicast router discovery, mobile IPv6.
    Nothing,
}

/// A rule without the beginning of its chain's name, and what it is for.
pub(super) type Shipped = (String, For);

/// The built-ins of which UFW ships rules.
pub(super) const BUILTINS: [&str; 11] = [
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

/// The rules of both files of a family.
pub(super) fn shipped(is_v6: bool) -> Vec<Shipped> {
    let mut rules = Vec::new();
    let mut add = |rule: String, what| rules.push((rule, what));
    add("before-input -i lo -j ACCEPT".to_owned(), For::Builtin("loopback"));
    add("before-output -o lo -j ACCEPT".to_owned(), For::Builtin("loopback"));
    for chain in ["input", "output", "forward"] {
        let rule = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
        add(format!("before-{chain} {rule}"), For::Builtin("established"));
    }
    let invalid = "before-input -m conntrack --ctstate INVALID -j";
    add(format!("{invalid} logging-deny"), For::Nothing);
    add(format!("{invalid} DROP"), For::Builtin("invalid"));
    if is_v6 {
        v6(&mut add);
    } else {
        v4(&mut add);
    }
    let quiet: &[(&str, u16)] = if is_v6 {
        &[("udp", 137), ("udp", 138), ("tcp", 139), ("tcp", 445), ("udp", 546), ("udp", 547)]
    } else {
        &[("udp", 137), ("udp", 138), ("tcp", 139), ("tcp", 445), ("udp", 67), ("udp", 68)]
    };
    for (proto, port) in quiet {
        let rule = format!("after-input -p {proto} --dport {port} -j skip-to-policy-input");
        add(rule, For::Quiet(proto, *port));
    }
    rules
}

fn v4(add: &mut impl FnMut(String, For)) {
    let icmp = |chain, name| format!("before-{chain} -p icmp --icmp-type {name} -j ACCEPT");
    for chain in ["input", "forward"] {
        for name in ["destination-unreachable", "time-exceeded", "parameter-problem"] {
            add(icmp(chain, name), For::Builtin("icmp-errors"));
        }
        // Shipped before version 0.34.
        add(icmp(chain, "source-quench"), For::Nothing);
    }
    add(icmp("input", "echo-request"), For::PingIn);
    add(icmp("forward", "echo-request"), For::PingThrough);
    let dhcp = "before-input -p udp --sport 67 --dport 68 -j ACCEPT";
    add(dhcp.to_owned(), For::Builtin("dhcpv4-client"));
    add("before-input -j not-local".to_owned(), For::Nothing);
    for kind in ["LOCAL", "MULTICAST", "BROADCAST"] {
        add(format!("not-local -m addrtype --dst-type {kind} -j RETURN"), For::Nothing);
    }
    let log = "not-local -m limit --limit 3/min --limit-burst 10 -j logging-deny";
    add(log.to_owned(), For::Nothing);
    add("not-local -j DROP".to_owned(), For::Nothing);
    for (group, port, name) in [("224.0.0.251", 5353, "mdns"), ("239.255.255.250", 1900, "upnp")] {
        let rule = format!("before-input -p udp -d {group} --dport {port} -j ACCEPT");
        add(rule, For::Builtin(name));
    }
    let broadcast = "after-input -m addrtype --dst-type BROADCAST -j skip-to-policy-input";
    add(broadcast.to_owned(), For::Nothing);
}

fn v6(add: &mut impl FnMut(String, For)) {
    let icmp = |chain, kind: &str, more: &str| {
        format!("before-{chain} -p icmpv6 --icmpv6-type {kind}{more} -j ACCEPT")
    };
    for chain in ["input", "output", "forward"] {
        add(format!("before-{chain} -m rt --rt-type 0 -j DROP"), For::Builtin("rh0"));
        for name in
            ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"]
        {
            add(icmp(chain, name, ""), For::Builtin("icmp-errors"));
        }
        add(icmp(chain, "echo-reply", ""), For::Nothing);
    }
    add(icmp("input", "echo-request", ""), For::PingIn);
    add(icmp("output", "echo-request", ""), For::PingOut);
    add(icmp("forward", "echo-request", ""), For::PingThrough);
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
            add(rule, For::Builtin("neighbour-discovery"));
        }
        for kind in ["130", "131", "132", "143"] {
            add(icmp(chain, kind, " -s fe80::/10"), For::Builtin("multicast-listener"));
        }
        for kind in ["148", "149"] {
            add(icmp(chain, kind, " -m hl --hl-eq 255"), For::Nothing);
        }
        for kind in ["151", "152", "153"] {
            add(icmp(chain, kind, " -s fe80::/10 -m hl --hl-eq 1"), For::Nothing);
        }
    }
    for kind in ["144", "145", "146", "147"] {
        add(icmp("input", kind, ""), For::Nothing);
    }
    let dhcp = "before-input -p udp -s fe80::/10 --sport 547 -d fe80::/10 --dport 546 -j ACCEPT";
    add(dhcp.to_owned(), For::Builtin("dhcpv6-client"));
    for (group, port, name) in [("ff02::fb", 5353, "mdns"), ("ff02::f", 1900, "upnp")] {
        let rule = format!("before-input -p udp -d {group} --dport {port} -j ACCEPT");
        add(rule, For::Builtin(name));
    }
}
