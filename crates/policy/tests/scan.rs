//! What `explain` says of packets that could be a scan.

use std::net::IpAddr;
use std::time::Duration;

use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{Table, protocol};
use nfguard_policy::{Flow, FlowPath, Payload, Policy, explain};

const POLICY: &str = r#"{ "version": 1, "scan": {}, "rules": [
    { "action": "allow", "proto": "tcp", "port": 443 },
    { "action": "deny", "proto": "tcp", "port": 23 } ] }"#;

fn table() -> Table {
    let (policy, _) = Policy::parse(POLICY).expect("a valid policy");
    assert!(policy.bans_scans());
    policy.compile()
}

fn ask(
    table: &Table,
    from: &str,
    protocol: u8,
    (source, destination): (u16, u16),
    memory: &mut Memory,
) -> (Fate, Option<(bool, String)>) {
    let source_address: IpAddr = from.parse().expect("an address");
    let host = if source_address.is_ipv4() { "198.51.100.2" } else { "2001:db8:1::2" };
    let flow = Flow {
        path: FlowPath::In,
        source: source_address,
        destination: host.parse().expect("an address"),
        payload: Payload::Ports { protocol, source, destination },
        in_interface: "eth0".to_owned(),
        out_interface: String::new(),
    };
    let explanation = explain(table, &flow, memory);
    (explanation.fate, explanation.scan().map(|(counts, why)| (counts, why.to_owned())))
}

#[test]
fn each_closed_port_counts_once_and_after_the_sixth_even_open_ones_are_closed() {
    let table = table();
    for from in ["203.0.113.7", "2001:db8:7::7"] {
        let mut memory = Memory::default();
        let mut to = |port| ask(&table, from, protocol::TCP, (40_000, port), &mut memory);
        let counts = |why: &str| (Fate::Drop, Some((true, why.to_owned())));
        for number in 1..6 {
            let why = format!("closed port {number} of 6 in 60 s");
            assert_eq!(to(1000 + number), counts(&why), "{from}");
        }
        let not = Some((false, "counted already".to_owned()));
        assert_eq!(to(1001), (Fate::Drop, not));
        assert_eq!(to(443), (Fate::Accept, None));
        assert_eq!(to(23), (Fate::Drop, None));
        assert_eq!(to(1006), counts("banned for 600 s"));
        assert_eq!(to(443), (Fate::Drop, None), "banned");
        memory.now = Duration::from_secs(601);
        let mut to = |port| ask(&table, from, protocol::TCP, (40_000, port), &mut memory);
        assert_eq!(to(443), (Fate::Accept, None));
        (2001..2006).for_each(|port| drop(to(port)));
        assert_eq!(to(2006), counts("banned again for 86400 s"));
    }
}

#[test]
fn why_something_does_not_count_is_said() {
    let table = table();
    let mut memory = Memory::default();
    for (from, protocol, ports, why) in [
        ("203.0.113.7", protocol::UDP, (1900, 33_440), "perhaps an answer, or a traceroute"),
        ("203.0.113.7", protocol::UDP, (53, 5000), "perhaps a late answer"),
        ("fe80::7", protocol::TCP, (40_000, 9), "of this link"),
    ] {
        let (fate, scan) = ask(&table, from, protocol, ports, &mut memory);
        assert_eq!((fate, scan), (Fate::Drop, Some((false, why.to_owned()))));
    }
}
