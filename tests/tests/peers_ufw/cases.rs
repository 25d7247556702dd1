//! Pairs of ufw commands and nfguard policies with the same meaning.

use nfguard_tests::fate::Fate;

/// ufw commands and a policy with the same meaning, and the fate of packets.
pub(crate) struct Pair {
    pub(crate) ufw: &'static [&'static str],
    /// The members of the policy object. Without `default`, the defaults of ufw apply.
    pub(crate) policy: &'static str,
    /// The packets: direction, protocol and port, such as `in tcp 80` or `route v6 udp 53`.
    /// Optional: `from` and `to` with an address or a prefix, `sport` with a port, `via container`.
    /// Without an address, the packets go over IPv4 and IPv6.
    pub(crate) packets: &'static [(Fate, &'static str)],
}

use Fate::{Drop, Pass, Reject};

macro_rules! pairs {
    ($({ $($ufw:literal),+ } => $policy:literal { $($fate:ident $packet:literal),+ $(,)? })+) => {
        pub(crate) const PAIRS: &[Pair] = &[$(Pair {
            ufw: &[$($ufw),+],
            policy: $policy,
            packets: &[$(($fate, $packet)),+],
        }),+];
    };
}

pairs! {
    // Ports.
    { "allow 80/tcp" } => r#""rules": [{"action": "allow", "proto": "tcp", "port": 80}]"# {
        Pass "in tcp 80", Drop "in udp 80", Drop "in tcp 79", Drop "in tcp 81",
    }
    { "allow 53" } => r#""rules": [{"action": "allow", "port": 53}]"# {
        Pass "in tcp 53", Pass "in udp 53", Drop "in tcp 54", Drop "in udp 54",
    }
    { "allow ssh" } => r#""rules": [{"action": "allow", "port": "ssh"}]"# {
        Pass "in tcp 22", Drop "in udp 22", Drop "in tcp 23",
    }
    { "allow domain" } => r#""rules": [{"action": "allow", "port": "domain"}]"# {
        Pass "in tcp 53", Pass "in udp 53", Drop "in udp 54",
    }
    { "allow smtp", "allow ntp", "allow https" }
    => r#""rules": [{"action": "allow", "port": ["smtp", "ntp", "https"]}]"# {
        Pass "in tcp 25", Drop "in udp 25", Pass "in udp 123", Drop "in tcp 123", Pass "in tcp 443",
    }
    { "allow 6000:6007/tcp" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "port": "6000-6007"}]"# {
        Pass "in tcp 6000", Pass "in tcp 6003", Pass "in tcp 6007",
        Drop "in tcp 5999", Drop "in tcp 6008", Drop "in udp 6000",
    }
    { "allow proto tcp from any to any port 80,443,8080:8090" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "port": [80, 443, "8080-8090"]}]"# {
        Pass "in tcp 80", Pass "in tcp 443", Pass "in tcp 8080", Pass "in tcp 8090",
        Drop "in tcp 8079", Drop "in tcp 8091", Drop "in tcp 442", Drop "in udp 443",
    }
    { "allow proto udp from any to any port 60000:61000" }
    => r#""rules": [{"action": "allow", "proto": "udp", "port": "60000-61000"}]"# {
        Pass "in udp 60500", Drop "in tcp 60500", Drop "in udp 61001",
    }
    { "allow 'WWW Full'" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "port": ["http", "https"]}]"# {
        Pass "in tcp 80", Pass "in tcp 443", Drop "in tcp 8080", Drop "in udp 443",
    }
    { "allow proto udp from any port 4000 to any port 4001" }
    => r#""rules": [{"action": "allow", "proto": "udp", "from_port": 4000, "port": 4001}]"# {
        Pass "in udp 4001 sport 4000", Drop "in udp 4001 sport 4002", Drop "in udp 4000 sport 4000",
    }
    { "allow proto tcp from any port 20 to any" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "from_port": 20}]"# {
        Pass "in tcp 5000 sport 20", Drop "in tcp 5000 sport 21", Drop "in udp 5000 sport 20",
    }
    // Addresses.
    { "allow from 192.0.2.0/24" } => r#""rules": [{"action": "allow", "from": "192.0.2.0/24"}]"# {
        Pass "in tcp 1234 from 192.0.2.0/24", Pass "in udp 4321 from 192.0.2.0/24",
        Pass "in esp from 192.0.2.0/24", Drop "in tcp 1234 from 203.0.113.0/24",
        Drop "in v6 tcp 1234",
    }
    { "allow proto tcp from 192.0.2.0/25 to any port 22" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "from": "192.0.2.0/25", "port": 22}]"# {
        Pass "in tcp 22 from 192.0.2.0/25", Drop "in tcp 23 from 192.0.2.0/25",
        Drop "in tcp 22 from 192.0.2.128/25", Drop "in udp 22 from 192.0.2.0/25",
        Drop "in v6 tcp 22",
    }
    { "allow proto tcp from 192.0.2.7 to any port 5432" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "from": "192.0.2.7", "port": 5432}]"# {
        Pass "in tcp 5432 from 192.0.2.7", Drop "in tcp 5432 from 192.0.2.6",
        Drop "in tcp 5432 from 192.0.2.8",
    }
    { "allow proto tcp from 2001:db8:a::/48 to any port 443" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "from": "2001:db8:a::/48", "port": 443}]"# {
        Pass "in tcp 443 from 2001:db8:a:5::/64", Drop "in tcp 443 from 2001:db8:b::/48",
        Drop "in v4 tcp 443", Drop "in udp 443 from 2001:db8:a:5::/64",
    }
    { "allow proto tcp from any to 198.51.100.2 port 25" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "to": "198.51.100.2", "port": 25}]"# {
        Pass "in v4 tcp 25", Drop "in v6 tcp 25", Drop "in v4 tcp 26",
    }
    { "allow proto tcp from any to 2001:db8:1::2 port 25" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "to": "2001:db8:1::2", "port": 25}]"# {
        Pass "in v6 tcp 25", Drop "in v4 tcp 25",
    }
    { "allow from 192.0.2.0/24 to 198.51.100.0/24", "allow from 2001:db8:a::/48 to 2001:db8:1::/64" }
    => r#""rules": [{
        "action": "allow", "from": ["192.0.2.0/24", "2001:db8:a::/48"],
        "to": ["198.51.100.0/24", "2001:db8:1::/64"]
    }]"# {
        Pass "in tcp 1 from 192.0.2.0/24", Pass "in udp 1 from 2001:db8:a::/48",
        Drop "in tcp 1 from 203.0.113.0/24", Drop "in udp 1 from 2001:db8:b::/48",
    }
    // The first rule that matches decides.
    { "deny from 192.0.2.0/25", "allow 80/tcp" } => r#""rules": [
        {"action": "deny", "from": "192.0.2.0/25"}, {"action": "allow", "proto": "tcp", "port": 80}
    ]"# {
        Drop "in tcp 80 from 192.0.2.0/25", Pass "in tcp 80 from 192.0.2.128/25",
        Pass "in v6 tcp 80", Drop "in tcp 81 from 192.0.2.128/25",
    }
    { "allow 80/tcp", "deny from 192.0.2.0/25" } => r#""rules": [
        {"action": "allow", "proto": "tcp", "port": 80}, {"action": "deny", "from": "192.0.2.0/25"}
    ]"# {
        Pass "in tcp 80 from 192.0.2.0/25", Drop "in tcp 81 from 192.0.2.0/25",
    }
    { "allow 80/tcp", "insert 1 deny from 192.0.2.0/24" } => r#""rules": [
        {"action": "deny", "from": "192.0.2.0/24"}, {"action": "allow", "proto": "tcp", "port": 80}
    ]"# {
        Drop "in tcp 80 from 192.0.2.0/24", Pass "in tcp 80 from 203.0.113.0/24", Pass "in v6 tcp 80",
    }
    { "allow 80/tcp", "prepend reject from 2001:db8:a::/48" } => r#""rules": [
        {"action": "reject", "from": "2001:db8:a::/48"}, {"action": "allow", "proto": "tcp", "port": 80}
    ]"# {
        Reject "in tcp 80 from 2001:db8:a::/48", Reject "in udp 80 from 2001:db8:a::/48",
        Pass "in tcp 80 from 2001:db8:b::/48", Drop "in v4 tcp 81",
    }
    { "allow proto udp from 192.0.2.0/28 to any port 514", "deny 514/udp", "allow 514" }
    => r#""rules": [
        {"action": "allow", "proto": "udp", "from": "192.0.2.0/28", "port": 514},
        {"action": "deny", "proto": "udp", "port": 514},
        {"action": "allow", "port": 514}
    ]"# {
        Pass "in udp 514 from 192.0.2.0/28", Drop "in udp 514 from 192.0.2.128/28",
        Pass "in tcp 514", Drop "in v6 udp 514",
    }
    { "allow 80/tcp", "allow 81/tcp", "delete allow 80/tcp" }
    => r#""rules": [{"action": "allow", "proto": "tcp", "port": 81}]"# {
        Drop "in tcp 80", Pass "in tcp 81",
    }
    // Actions and defaults.
    { "reject 113/tcp", "reject 500/udp", "allow 80/tcp" } => r#""rules": [
        {"action": "reject", "proto": "tcp", "port": 113},
        {"action": "reject", "proto": "udp", "port": 500},
        {"action": "allow", "proto": "tcp", "port": 80}
    ]"# {
        Reject "in tcp 113", Drop "in udp 113", Reject "in udp 500", Drop "in tcp 500",
        Pass "in tcp 80",
    }
    { "default reject incoming", "allow 80/tcp", "deny 81/tcp" } => r#"
        "default": {"in": "reject", "out": "accept", "forward": "drop"},
        "rules": [
            {"action": "allow", "proto": "tcp", "port": 80},
            {"action": "deny", "proto": "tcp", "port": 81}
    ]"# {
        Pass "in tcp 80", Drop "in tcp 81", Reject "in tcp 82", Reject "in udp 82", Reject "in gre",
    }
    { "default allow incoming", "deny 23/tcp", "reject 25/tcp" } => r#"
        "default": {"in": "accept", "out": "accept", "forward": "drop"},
        "rules": [
            {"action": "deny", "proto": "tcp", "port": 23},
            {"action": "reject", "proto": "tcp", "port": 25}
    ]"# {
        Drop "in tcp 23", Reject "in tcp 25", Pass "in tcp 24", Pass "in udp 23", Pass "in gre",
    }
    { "limit proto tcp from 192.0.2.0/24 to any port 2222", "limit from 2001:db8:a::/48 to any port 2222" }
    => r#""rules": [
        {"action": "limit", "proto": "tcp", "from": "192.0.2.0/24", "port": 2222},
        {"action": "limit", "from": "2001:db8:a::/48", "port": 2222, "limit": {"v6_prefix": 128}}
    ]"# {
        Pass "in tcp 2222 from 192.0.2.0/24", Drop "in udp 2222 from 192.0.2.0/24",
        Drop "in tcp 2222 from 203.0.113.0/24", Pass "in udp 2222 from 2001:db8:a::/48",
        Drop "in tcp 2222 from 2001:db8:b::/48",
    }
    // What leaves.
    { "default deny outgoing", "allow out 53" } => r#"
        "default": {"in": "drop", "out": "drop", "forward": "drop"},
        "rules": [{"action": "allow", "direction": "out", "port": 53}]"# {
        Pass "out tcp 53", Pass "out udp 53", Drop "out udp 54", Drop "in udp 53", Drop "out gre",
    }
    { "default deny outgoing", "allow out proto tcp from any to 192.0.2.0/25 port 25" } => r#"
        "default": {"in": "drop", "out": "drop", "forward": "drop"},
        "rules": [{
            "action": "allow", "direction": "out", "proto": "tcp", "to": "192.0.2.0/25", "port": 25
    }]"# {
        Pass "out tcp 25 to 192.0.2.9", Drop "out tcp 25 to 192.0.2.200",
        Drop "out tcp 26 to 192.0.2.9", Drop "out v6 tcp 25",
    }
    { "default reject outgoing", "allow out 443/tcp", "deny out 444/tcp" } => r#"
        "default": {"in": "drop", "out": "reject", "forward": "drop"},
        "rules": [
            {"action": "allow", "direction": "out", "proto": "tcp", "port": 443},
            {"action": "deny", "direction": "out", "proto": "tcp", "port": 444}
    ]"# {
        Pass "out tcp 443", Drop "out tcp 444", Reject "out tcp 445", Reject "out udp 443",
    }
    { "deny out 25/tcp", "reject out 26/tcp", "reject out 26/udp" } => r#""rules": [
        {"action": "deny", "direction": "out", "proto": "tcp", "port": 25},
        {"action": "reject", "direction": "out", "proto": ["tcp", "udp"], "port": 26}
    ]"# {
        Drop "out tcp 25", Reject "out tcp 26", Reject "out udp 26", Pass "out tcp 27", Pass "out esp",
    }
    { "default deny outgoing", "allow out to 2001:db8:a::/48" } => r#"
        "default": {"in": "drop", "out": "drop", "forward": "drop"},
        "rules": [{"action": "allow", "direction": "out", "to": "2001:db8:a::/48"}]"# {
        Pass "out tcp 9 to 2001:db8:a::9", Pass "out udp 9 to 2001:db8:a::9",
        Drop "out tcp 9 to 2001:db8:b::9", Drop "out v4 tcp 9",
    }
    // Interfaces.
    { "allow in on eth0 to any port 3306 proto tcp" }
    => r#""rules": [{"action": "allow", "in_interface": "eth0", "proto": "tcp", "port": 3306}]"# {
        Pass "in tcp 3306", Drop "in tcp 3306 via container", Drop "in udp 3306",
    }
    { "allow in on docker+ to any port 3306 proto tcp", "allow in on docker0 from any to any port 53" }
    => r#""rules": [
        {"action": "allow", "in_interface": "docker*", "proto": "tcp", "port": 3306},
        {"action": "allow", "in_interface": "docker0", "port": 53}
    ]"# {
        Drop "in tcp 3306", Pass "in tcp 3306 via container", Drop "in udp 3306 via container",
        Pass "in udp 53 via container", Drop "in udp 53",
    }
    { "default deny outgoing", "allow out on docker0", "allow out on eth0 to any port 80 proto tcp" }
    => r#"
        "default": {"in": "drop", "out": "drop", "forward": "drop"},
        "rules": [
            {"action": "allow", "direction": "out", "out_interface": "docker0"},
            {
                "action": "allow", "direction": "out", "out_interface": "eth0", "proto": "tcp",
                "port": 80
            }
    ]"# {
        Pass "out tcp 25 to 172.17.0.2", Pass "out udp 25 to 2001:db8:d0c::2", Pass "out tcp 80",
        Drop "out tcp 81", Drop "out udp 80",
    }
    // What passes through.
    { "route allow in on eth0 out on docker0 to 172.17.0.2 port 80 proto tcp" } => r#""rules": [{
        "action": "allow", "direction": "forward", "in_interface": "eth0",
        "out_interface": "docker0", "to": "172.17.0.2", "proto": "tcp", "port": 80
    }]"# {
        Pass "route v4 tcp 80", Drop "route v6 tcp 80", Drop "route v4 tcp 81",
        Drop "route v4 tcp 80 via container", Drop "in tcp 80",
    }
    { "route allow in on docker0 out on eth0" } => r#""rules": [{
        "action": "allow", "direction": "forward", "in_interface": "docker0",
        "out_interface": "eth0"
    }]"# {
        Pass "route tcp 443 via container", Pass "route udp 53 via container", Drop "route tcp 443",
        Drop "in tcp 443 via container",
    }
    { "route allow proto tcp from 192.0.2.0/25 to any port 5432", "route reject 25/tcp" }
    => r#""rules": [
        {
            "action": "allow", "direction": "forward", "proto": "tcp", "from": "192.0.2.0/25",
            "port": 5432
        },
        {"action": "reject", "direction": "forward", "proto": "tcp", "port": 25}
    ]"# {
        Pass "route tcp 5432 from 192.0.2.0/25", Drop "route tcp 5432 from 192.0.2.128/25",
        Drop "route v6 tcp 5432", Reject "route tcp 25", Drop "route udp 25",
    }
    { "default allow routed", "route deny 25/tcp" } => r#"
        "default": {"in": "drop", "out": "accept", "forward": "accept"},
        "rules": [{"action": "deny", "direction": "forward", "proto": "tcp", "port": 25}]"# {
        Pass "route tcp 80", Pass "route udp 25 via container", Drop "route tcp 25", Drop "in tcp 80",
    }
    { "default reject routed", "route allow 53/udp" } => r#"
        "default": {"in": "drop", "out": "accept", "forward": "reject"},
        "rules": [{"action": "allow", "direction": "forward", "proto": "udp", "port": 53}]"# {
        Pass "route udp 53", Reject "route udp 54", Reject "route tcp 53", Drop "in udp 53",
    }
    // Other protocols.
    { "allow proto esp from 192.0.2.0/24", "allow proto ah from any" } => r#""rules": [
        {"action": "allow", "proto": "esp", "from": "192.0.2.0/24"},
        {"action": "allow", "proto": "ah"}
    ]"# {
        Pass "in esp from 192.0.2.0/24", Drop "in esp from 203.0.113.0/24", Pass "in v4 ah",
        Drop "in v4 gre", Drop "in v6 esp",
    }
    { "allow proto esp from any" } => r#""rules": [{"action": "allow", "proto": "esp"}]"# {
        Pass "in esp", Drop "in gre", Drop "in udp 500",
    }
    { "allow proto gre from any", "allow out proto gre from any" } => r#""rules": [
        {"action": "allow", "proto": "gre"}, {"action": "allow", "direction": "out", "proto": "gre"}
    ]"# {
        Pass "in gre", Pass "out gre", Drop "in esp",
    }
    { "allow proto ipv6 from 192.0.2.0/25", "allow proto igmp from 192.0.2.128/25" }
    => r#""rules": [
        {"action": "allow", "proto": "ipv6", "from": "192.0.2.0/25"},
        {"action": "allow", "proto": "igmp", "from": "192.0.2.128/25"}
    ]"# {
        Pass "in ipv6 from 192.0.2.0/25", Pass "in igmp from 192.0.2.128/25",
        Drop "in igmp from 192.0.2.0/25", Drop "in ipv6 from 192.0.2.128/25",
    }
}
