//! What policies mean after they are read.

use crate::policy::{
    Action, Addresses, Builtin, Direction, Limit, LogTo, Policy, Ports, Traffic, Verdict,
};

/// Returns the policy of these rules and of other keys.
fn policy(rules: &str, rest: &str) -> Policy {
    let text = format!("{{ \"version\": 1, {rest} \"rules\": [{rules}] }}");
    Policy::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

fn traffic(keys: &str) -> Traffic {
    let mut policy = policy(&format!("{{ \"action\": \"allow\", {keys} }}"), "");
    policy.rules.remove(0).traffic
}

fn ports(tcp: Option<&[(u16, u16)]>, udp: Option<&[(u16, u16)]>) -> Traffic {
    let list = |ranges: &[(u16, u16)]| Ports(ranges.to_vec());
    Traffic::Ports { tcp: tcp.map(list), udp: udp.map(list), source: Ports::default() }
}

#[test]
fn an_empty_policy_denies_everything_and_pings_nobody() {
    let policy = policy("", "");
    assert_eq!(policy.default.input, Verdict::Drop);
    assert_eq!(policy.default.output, Verdict::Drop);
    assert_eq!(policy.default.forward, Verdict::Drop);
    let off: Vec<_> = Builtin::ALL.into_iter().filter(|it| !policy.builtin.contains(it)).collect();
    assert_eq!(off, [Builtin::ReturnPath, Builtin::PingOut]);
    assert!(policy.containers.follow_out);
    assert_eq!(policy.log.defaults.prefix, "[NFGUARD] ");
}

#[test]
fn a_number_means_tcp_and_udp_and_a_service_what_it_is_listed_for() {
    assert_eq!(traffic("\"port\": 53"), ports(Some(&[(53, 53)]), Some(&[(53, 53)])));
    assert_eq!(traffic("\"port\": \"ssh\""), ports(Some(&[(22, 22)]), None));
    assert_eq!(traffic("\"port\": \"ntp\""), ports(None, Some(&[(123, 123)])));
    assert_eq!(
        traffic("\"port\": [\"ssh\", \"ntp\"]"),
        ports(Some(&[(22, 22)]), Some(&[(123, 123)]))
    );
    assert_eq!(
        traffic("\"port\": \"https\", \"proto\": \"tcp\""),
        ports(Some(&[(443, 443)]), None)
    );
}

#[test]
fn ports_are_sorted_and_merged() {
    assert_eq!(
        traffic(
            "\"port\": [443, \"8000-8100\", 80, 81, \"8050-8200\", \"65535\"], \"proto\": \"tcp\""
        ),
        ports(Some(&[(80, 81), (443, 443), (8000, 8200), (65_535, 65_535)]), None)
    );
}

#[test]
fn source_ports_narrow_the_protocols_of_a_number() {
    let expected = Traffic::Ports {
        tcp: None,
        udp: Some(Ports(vec![(1000, 1000)])),
        source: Ports(vec![(123, 123)]),
    };
    assert_eq!(traffic("\"port\": 1000, \"from_port\": \"ntp\""), expected);
}

#[test]
fn a_protocol_without_ports_means_all_ports() {
    assert_eq!(traffic("\"proto\": \"udp\""), ports(None, Some(&[])));
    assert_eq!(traffic("\"proto\": [\"gre\", 4, 47]"), Traffic::Protocols(vec![4, 47]));
    assert_eq!(traffic("\"proto\": 6"), ports(Some(&[]), None));
    assert_eq!(traffic("\"proto\": \"any\""), Traffic::Any);
}

#[test]
fn icmp_types_are_looked_up_in_each_family_and_follow_the_addresses() {
    let both = "\"proto\": [\"icmp\", \"icmpv6\"], \"icmp_type\":";
    assert_eq!(
        traffic(&format!("{both} [\"echo-request\", \"packet-too-big\"]")),
        Traffic::Icmp { v4: Some(vec![8]), v6: Some(vec![2, 128]) }
    );
    assert_eq!(
        traffic(&format!("{both} \"packet-too-big\"")),
        Traffic::Icmp { v4: None, v6: Some(vec![2]) }
    );
    assert_eq!(
        traffic("\"proto\": [\"icmp\", \"icmpv6\"], \"from\": \"192.0.2.0/24\""),
        Traffic::Icmp { v4: Some(vec![]), v6: None }
    );
}

#[test]
fn prefixes_are_merged_and_a_lone_group_stays_a_group() {
    let groups = "\"groups\": { \"a\": [\"192.0.2.128/25\", \"192.0.2.0/25\", \"192.0.2.7\"] },";
    let rule = |from: &str| format!("{{ \"action\": \"allow\", \"from\": {from} }}");
    let policy = policy(
        &[rule("\"a\""), rule("[\"a\"]"), rule("[\"a\", \"192.0.3.0/24\", \"2001:db8::1\"]")]
            .join(","),
        groups,
    );
    assert_eq!(policy.groups[0].prefixes.v4, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(policy.rules[0].from, Addresses::Group(0));
    assert_eq!(policy.rules[1].from, Addresses::Group(0));
    let Addresses::Prefixes(prefixes) = &policy.rules[2].from else { panic!("not merged") };
    assert_eq!(prefixes.v4, ["192.0.2.0/23".parse().unwrap()]);
    assert_eq!(prefixes.v6, ["2001:db8::1/128".parse().unwrap()]);
}

#[test]
fn rules_without_names_get_names_that_tell_them_apart() {
    let rules = [
        "{ \"action\": \"limit\", \"port\": \"ssh\" }",
        "{ \"action\": \"allow\", \"port\": [\"http\", \"https\"] }",
        "{ \"action\": \"allow\", \"port\": 53, \"direction\": \"out\" }",
        "{ \"action\": \"allow\", \"port\": 53, \"direction\": \"out\", \"to\": \"192.0.2.1\" }",
        "{ \"action\": \"allow\", \"port\": \"8000-8100\", \"proto\": \"tcp\", \"name\": \"deny-any\" }",
        "{ \"action\": \"allow\", \"port\": \"8000-8100\", \"proto\": \"tcp\" }",
        "{ \"action\": \"deny\", \"direction\": \"forward\" }",
        "{ \"action\": \"deny\" }",
        "{ \"action\": \"deny\", \"from_port\": \"gds_db\" }",
        "{ \"action\": \"reject\", \"proto\": \"icmp\", \"icmp_type\": [\"redirect\", 40] }",
    ];
    let policy = policy(&rules.join(","), "");
    let names: Vec<_> = policy.rules().map(|rule| rule.name).collect();
    assert_eq!(
        names,
        [
            "limit-ssh",
            "allow-http-https",
            "allow-out-53",
            "allow-out-53-2",
            "deny-any",
            "allow-8000-8100-tcp",
            "deny-forward-any",
            "deny-any-2",
            "deny-from-gds_db",
            "reject-redirect-icmp-40",
        ]
    );
}

#[test]
fn a_limit_is_that_of_ufw_unless_it_says_otherwise() {
    let rules = "{ \"action\": \"limit\", \"port\": 22 }, \
                 { \"action\": \"limit\", \"port\": 23, \"limit\": { \"v6_prefix\": 128, \"over\": \"drop\" } }";
    let policy = policy(rules, "");
    let ufw = Limit {
        connections: 6,
        seconds: 30,
        v6_prefix: 64,
        over: Verdict::Reject,
        sources: 65_536,
    };
    assert_eq!(policy.rules[0].action, Action::Limit(ufw));
    let other = Limit { v6_prefix: 128, over: Verdict::Drop, ..ufw };
    assert_eq!(policy.rules[1].action, Action::Limit(other));
}

#[test]
fn the_log_of_a_rule_differs_from_the_common_one_only_where_it_says_so() {
    let rules = "{ \"action\": \"deny\", \"port\": 1, \"log\": true }, \
                 { \"action\": \"deny\", \"port\": 2, \"log\": { \"to\": { \"group\": 5 }, \"rate\": \"unlimited\" } }, \
                 { \"action\": \"deny\", \"port\": 3, \"log\": false }";
    let log = "\"log\": { \"prefix\": \"[IPTABLES] \", \"unmatched\": [\"in\", \"in\"] },";
    let policy = policy(rules, log);
    assert_eq!(policy.log.unmatched.iter().copied().collect::<Vec<_>>(), [Direction::In]);
    assert_eq!(policy.rules[0].log.as_ref(), Some(&policy.log.defaults));
    let other = policy.rules[1].log.as_ref().unwrap();
    assert_eq!(
        (other.to, other.rate, other.prefix.as_str()),
        (LogTo::Group(5), None, "[IPTABLES] ")
    );
    assert_eq!(policy.rules[2].log, None);
}

#[test]
fn an_interface_within_another_is_left_out() {
    let rules = "{ \"action\": \"allow\", \"in_interface\": [\"eth1\", \"wg0\", \"eth*\", \"wg0\", \"eth0*\"] }";
    let policy = policy(rules, "");
    let names: Vec<_> =
        policy.rules[0].in_interface.iter().map(|it| (it.name.as_str(), it.wildcard)).collect();
    assert_eq!(names, [("eth", true), ("wg0", false)]);
}

#[test]
fn traefik_json_is_the_nine_commands_and_a_ban_of_scans() {
    let text = include_str!("../../../../policies/traefik.json");
    let (traefik, _) = Policy::parse(text).unwrap();
    let commands = policy(
        "{ \"action\": \"limit\", \"port\": 22, \"proto\": \"tcp\" },
         { \"action\": \"allow\", \"port\": 80, \"proto\": \"tcp\" },
         { \"action\": \"allow\", \"port\": 443, \"proto\": \"tcp\" },
         { \"action\": \"allow\", \"direction\": \"out\", \"port\": 53 },
         { \"action\": \"allow\", \"direction\": \"out\", \"port\": 123, \"proto\": \"udp\" },
         { \"action\": \"allow\", \"direction\": \"out\", \"port\": 80, \"proto\": \"tcp\" },
         { \"action\": \"allow\", \"direction\": \"out\", \"port\": 443, \"proto\": \"tcp\" }",
        "\"default\": { \"in\": \"drop\", \"out\": \"drop\" },
         \"scan\": { \"seconds\": 300 }, \"log\": { \"prefix\": \"[IPTABLES] \", \"unmatched\": [\"in\"] },",
    );
    let bare = |policy: &Policy| {
        let mut policy = policy.clone();
        policy.comment = None;
        for rule in &mut policy.rules {
            rule.name.clear();
            rule.comment = None;
        }
        policy
    };
    assert_eq!(bare(&traefik), bare(&commands));
}

#[test]
fn what_a_policy_leaves_out_of_scan_is_as_it_says() {
    let scan = |text: &str| policy("", &format!("\"scan\": {text},")).scan.expect("is on");
    assert_eq!(policy("", "").scan, None, "without the key, no source is banned");
    let usual = scan("{}");
    let expected = (6, 60, 600, 86_400, 3600, 100);
    let found = (
        usual.ports,
        usual.window_seconds,
        usual.ban_seconds,
        usual.repeat_ban_seconds,
        usual.known_peer_seconds,
        usual.bans_per_minute,
    );
    assert_eq!(found, expected);
    assert!(usual.illegal_flags && usual.interfaces.is_empty());
    let other = scan(r#"{ "ports": 3, "in_interface": ["eth1", "eth*"], "known_seconds": 0 }"#);
    assert_eq!((other.ports, other.known_peer_seconds, other.interfaces.len()), (3, 0, 1));
}

#[test]
fn a_rule_for_out_may_be_for_one_bridge_of_containers_and_no_other_interface() {
    let parse = |interface: &str, rest: &str| {
        let rule = r#""action": "allow", "direction": "out", "port": 53, "in_interface""#;
        Policy::parse(&format!(
            "{{ \"version\": 1, {rest} \"rules\": [{{ {rule}: {interface} }}] }}"
        ))
    };
    for bridge in [r#""docker0""#, r#""br-backend""#, r#"["br-a", "docker*"]"#] {
        assert!(parse(bridge, "").is_ok(), "{bridge}");
    }
    assert!(parse(r#""eth0""#, "").is_err());
    assert!(parse(r#""podman0""#, "").is_err());
    assert!(parse(r#""podman0""#, r#""containers": { "interfaces": ["podman*"] },"#).is_ok());
    let open = r#""containers": { "egress": "open" },"#;
    let problems = parse(r#""docker0""#, open).expect_err("it can never match");
    assert_eq!(problems[0].pointer, "/rules/0/in_interface");
}
