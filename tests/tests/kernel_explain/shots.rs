//! Random policies and packets.

use std::fmt;
use std::net::IpAddr;

use nfguard_lab::{World, packet};
use nfguard_netlink::{fib_type, protocol};
use nfguard_policy::arbitrary::{Pool, policy_text};
use nfguard_policy::{Flow, FlowPath, Payload, Treatment};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// The hop limit that marks the packets of the test.
const HOP_LIMIT: u8 = 77;
/// Source ports by which the rules of the test treat packets.
pub(crate) mod treated {
    /// Marked with [`MARK`](super::MARK), and so sent by another interface.
    pub(crate) const MARKED: u16 = 62_000;
    /// Sent on to a neighbour behind another interface.
    pub(crate) const LED_ASIDE: u16 = 62_001;
    /// Sent on to this host.
    pub(crate) const REDIRECTED: u16 = 62_002;
    /// Not tracked.
    pub(crate) const UNTRACKED: u16 = 62_003;
    /// Of containers: sent on to the second container.
    pub(crate) const TO_A_SERVICE: u16 = 62_004;
}
pub(crate) const MARK: u32 = 5;
/// The port that treated packets are sent on to.
const INNER: u16 = 8080;
/// Source ports whose packets are forwarded to the container, and the port there.
const PUBLISHED: [(u16, u16); 2] = [(61_000, 8080), (61_001, 22)];

/// A policy, which a failed test prints.
#[derive(Clone)]
pub(crate) struct Text(pub(crate) String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns policies about the properties of the packets.
pub(crate) fn policies() -> impl Strategy<Value = Text> {
    let addresses = [
        "192.0.2.7",
        "203.0.113.200",
        "198.51.100.2",
        "172.17.0.2",
        "224.0.0.251",
        "2001:db8:7::1",
        "2001:db8:1::2",
        "2001:db8:d0c::2",
        "ff02::fb",
    ];
    let pool = Pool {
        addresses: addresses.map(address).to_vec(),
        ports: vec![22, 53, 80, 443, 8080, 5353, 9990],
        interfaces: ["eth0", "docker0", "eth1", "lo"].map(str::to_owned).to_vec(),
    };
    (vec(any::<u16>(), 0..400), 2..5_u8, option_of_two()).prop_map(
        move |(choices, connections, sources)| {
            let mut policy: Value =
                serde_json::from_str(&policy_text(&choices, &pool)).expect("JSON");
            let rules = policy.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
            for rule in rules.filter(|rule| rule["action"] == "limit") {
                // A low limit, which packets exceed, over a time that does not end during the test.
                rule["limit"]["connections"] = json!(connections);
                rule["limit"]["seconds"] = json!(3600);
                if let Some(sources) = sources {
                    rule["limit"]["sources"] = json!(sources);
                }
            }
            // A low limit, so that some sources are banned on every path.
            if let Some(scan) = policy.get_mut("scan").and_then(Value::as_object_mut) {
                scan.insert("ports".to_owned(), json!(2));
                scan.remove("in_interface");
            }
            Text(format!("{policy:#}"))
        },
    )
}

fn option_of_two() -> impl Strategy<Value = Option<u8>> {
    select(vec![None, Some(1), Some(2)])
}

/// The origin of a packet, and its flow.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    pub(crate) from: Place,
    pub(crate) flow: Flow,
    pub(crate) treatment: Treatment,
    pub(crate) times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Host,
    Internet,
    Container,
}

pub(crate) fn shots() -> impl Strategy<Value = Vec<Shot>> {
    let one = any::<bool>().prop_flat_map(
        |is_v6| prop_oneof![3 => shot(is_v6).boxed(), 2 => treated_shot(is_v6).boxed()],
    );
    vec(one, 1..14)
}

/// Returns a packet that routing rules or the rules of other programs treat.
fn treated_shot(is_v6: bool) -> impl Strategy<Value = Shot> {
    let pick = move |v4: &str, v6: &str| address(if is_v6 { v6 } else { v4 });
    let host = pick("198.51.100.2", "2001:db8:1::2");
    let container = pick("172.17.0.2", "2001:db8:d0c::2");
    let second = pick("172.17.0.3", "2001:db8:d0c::3");
    let stranger = pick("192.0.2.7", "2001:db8:7::1");
    let far = pick("203.0.113.200", "2001:db8:9::1");
    let service = pick("10.43.0.1", "2001:db8:43::1");
    let plain = Treatment::default();
    let way = |from, path, ends: (IpAddr, IpAddr), interfaces: (&str, &str), port, treatment| {
        let interfaces = (interfaces.0.to_owned(), interfaces.1.to_owned());
        (from, path, ends, interfaces, port, treatment)
    };
    let led = |to: IpAddr, first: Option<&str>| Treatment {
        translated_to: Some((to, INNER)),
        first_out_interface: first.map(str::to_owned),
        ..Treatment::default()
    };
    let untracked = Treatment { is_untracked: true, ..Treatment::default() };
    let marked = Treatment {
        mark: MARK,
        first_out_interface: Some("eth0".to_owned()),
        ..Treatment::default()
    };
    // The look-up of an IPv6 address follows the rules of routing, that of an IPv4 address does not.
    let by_rule = Treatment {
        destination_type: Some(if is_v6 { fib_type::LOCAL } else { fib_type::UNICAST }),
        ..plain.clone()
    };
    let beyond = Treatment {
        destination_type: Some(if is_v6 { UNREACHABLE } else { fib_type::UNICAST }),
        ..plain.clone()
    };
    let to_service = Treatment { destination_type: Some(fib_type::UNICAST), ..plain.clone() };
    let foreign = Treatment { has_foreign_source: true, ..plain.clone() };
    let forged = Treatment { has_no_return_path: true, ..plain.clone() };
    let (out, forward) = (FlowPath::Out, FlowPath::Forward);
    let hairpin = FlowPath::Published(INNER);
    let here = pick("127.0.0.1", "::1");
    let aside = pick("10.7.0.1", "2001:db8:77::1");
    let ways = vec![
        way(Place::Host, out, (host, far), ("", "eth1"), treated::MARKED, marked),
        way(
            Place::Host,
            out,
            (host, far),
            ("", "eth1"),
            treated::LED_ASIDE,
            led(aside, Some("eth0")),
        ),
        way(
            Place::Host,
            out,
            (host, far),
            ("", "lo"),
            treated::REDIRECTED,
            led(here, Some("eth0")),
        ),
        way(Place::Host, out, (stranger, far), ("", "eth0"), 40_000, foreign),
        way(Place::Host, out, (host, far), ("", "eth0"), treated::UNTRACKED, untracked.clone()),
        way(
            Place::Internet,
            FlowPath::In,
            (stranger, host),
            ("eth0", ""),
            treated::UNTRACKED,
            untracked.clone(),
        ),
        way(
            Place::Internet,
            FlowPath::In,
            (stranger, host),
            ("eth0", ""),
            treated::REDIRECTED,
            led(host, None),
        ),
        way(
            Place::Internet,
            FlowPath::In,
            (stranger, pick("198.51.100.60", "2001:db8:60::1")),
            ("eth0", ""),
            40_000,
            by_rule,
        ),
        way(
            Place::Internet,
            forward,
            (stranger, container),
            ("eth0", "docker0"),
            treated::UNTRACKED,
            untracked.clone(),
        ),
        way(
            Place::Internet,
            forward,
            (stranger, pick("198.18.0.9", "2001:db9::9")),
            ("eth0", "eth1"),
            40_000,
            beyond,
        ),
        way(
            Place::Container,
            forward,
            (container, far),
            ("docker0", "eth0"),
            treated::UNTRACKED,
            untracked,
        ),
        way(
            Place::Container,
            forward,
            (container, second),
            ("docker0", "docker0"),
            40_000,
            plain.clone(),
        ),
        way(
            Place::Container,
            FlowPath::In,
            (stranger, host),
            ("docker0", ""),
            40_000,
            forged.clone(),
        ),
        way(
            Place::Container,
            forward,
            (stranger, far),
            ("docker0", "eth0"),
            40_000,
            forged.clone(),
        ),
        way(
            Place::Container,
            forward,
            (stranger, second),
            ("docker0", "docker0"),
            40_000,
            forged.clone(),
        ),
        way(
            Place::Container,
            hairpin,
            (stranger, host),
            ("docker0", "docker0"),
            treated::TO_A_SERVICE,
            forged,
        ),
        way(
            Place::Container,
            hairpin,
            (container, host),
            ("docker0", "docker0"),
            treated::TO_A_SERVICE,
            plain,
        ),
        way(
            Place::Container,
            hairpin,
            (container, service),
            ("docker0", "docker0"),
            treated::TO_A_SERVICE,
            to_service,
        ),
    ];
    let ports = select(vec![22_u16, 53, 80, 443, 8080, 5353, 9999]);
    let protocols = select(vec![protocol::TCP, protocol::UDP]);
    (select(ways), protocols, ports, 1..6_usize).prop_map(
        |((from, path, ends, interfaces, source, treatment), protocol, destination, times)| {
            let ((source_address, destination_address), (in_interface, out_interface)) =
                (ends, interfaces);
            let flow = Flow {
                path,
                source: source_address,
                destination: destination_address,
                payload: Payload::Ports { protocol, source, destination },
                in_interface,
                out_interface,
            };
            Shot { from, flow, treatment, times }
        },
    )
}

/// `RTN_UNREACHABLE`.
const UNREACHABLE: u32 = 7;

fn shot(is_v6: bool) -> impl Strategy<Value = Shot> {
    let one_of = move |v4: &[&str], v6: &[&str]| {
        select((if is_v6 { v6 } else { v4 }).iter().map(|it| address(it)).collect::<Vec<_>>())
    };
    let anyone = || {
        one_of(
            &["192.0.2.7", "192.0.2.9", "203.0.113.200", "198.51.100.1"],
            &["2001:db8:7::1", "2001:db8:7::2", "2001:db8:9::1", "2001:db8:1::1"],
        )
    };
    let (host, container) = match is_v6 {
        true => (World::HOST_V6, World::CONTAINER_V6),
        false => (World::HOST_V4, World::CONTAINER_V4),
    };
    let groups = || {
        one_of(
            &["224.0.0.1", "224.0.0.251", "239.255.255.250", "255.255.255.255"],
            &["ff02::1", "ff02::fb", "ff02::f", "ff02::1:2"],
        )
    };
    let way = |from, path, input: &'static str, output: &'static str| {
        (Just(from), Just(path), Just((input, output)))
    };
    let published = select(PUBLISHED.to_vec());
    prop_oneof![
        4 => (way(Place::Internet, FlowPath::In, "eth0", ""), anyone(), Just(host)),
        2 => (way(Place::Internet, FlowPath::In, "eth0", ""), anyone(), groups()),
        3 => (way(Place::Host, FlowPath::Out, "", "eth0"), Just(host), anyone()),
        1 => (way(Place::Host, FlowPath::Out, "", "eth0"), Just(host), groups()),
        1 => (way(Place::Host, FlowPath::Out, "", "docker0"), Just(host), Just(container)),
        1 => (way(Place::Host, FlowPath::Out, "", "lo"), Just(host), Just(host)),
        2 => (way(Place::Internet, FlowPath::Forward, "eth0", "docker0"), anyone(), Just(container)),
        2 => (way(Place::Container, FlowPath::Forward, "docker0", "eth0"), Just(container), anyone()),
        3 => (
            published.prop_map(|(_, inner)| (Place::Internet, FlowPath::Published(inner), ("eth0", "docker0"))),
            anyone(),
            Just(host),
        ),
    ]
    .prop_flat_map(move |((from, path, (input, output)), source, destination)| {
        let (input, output) = (input.to_owned(), output.to_owned());
        (payload(path, is_v6), 1..6_usize).prop_map(move |(payload, times)| {
            let (in_interface, out_interface) = (input.clone(), output.clone());
            let flow = Flow { path, source, destination, payload, in_interface, out_interface };
            let treatment = Treatment { hop_limit: Some(HOP_LIMIT), ..Treatment::default() };
            Shot { from, flow, treatment, times }
        })
    })
}

/// Returns payloads, among them unsolicited answers and errors of ICMP.
fn payload(path: FlowPath, is_v6: bool) -> BoxedStrategy<Payload> {
    let sources = match path {
        FlowPath::Published(inner) => {
            PUBLISHED.iter().filter(|(_, to)| *to == inner).map(|(from, _)| *from).collect()
        }
        _ => vec![40_000, 40_000, 53, 67, 68, 546, 547, 443],
    };
    let ports = || {
        let destinations =
            vec![22, 22, 53, 80, 443, 443, 8080, 8085, 67, 68, 546, 547, 5353, 1900, 9999];
        let protocols = select(vec![protocol::TCP, protocol::UDP]);
        (protocols, select(sources.clone()), select(destinations)).prop_map(
            |(protocol, source, destination)| Payload::Ports { protocol, source, destination },
        )
    };
    if let FlowPath::Published(_) = path {
        return ports().boxed();
    }
    let kinds = if is_v6 {
        vec![128, 128, 129, 1, 2, 3, 4, 130, 133, 135, 136, 137, 139, 143, 144, 148]
    } else {
        vec![8, 8, 13, 0, 3, 5, 11, 12, 14, 17]
    };
    let others = if is_v6 { vec![41, 47, 50, 89] } else { vec![2, 4, 47, 50, 89] };
    prop_oneof![
        5 => ports(),
        2 => select(kinds).prop_map(|kind| Payload::Icmp { kind }),
        1 => select(others).prop_map(Payload::Protocol),
    ]
    .boxed()
}

/// Returns the bytes of the packet.
pub(crate) fn bytes(flow: &Flow) -> Vec<u8> {
    let (from, to) = (flow.source, flow.destination);
    let (protocol, body) = match flow.payload {
        Payload::Ports { protocol, source, destination } if protocol == protocol::TCP => {
            (protocol, packet::tcp(from, to, source, destination, packet::SYN))
        }
        Payload::Ports { protocol, source, destination } => {
            (protocol, packet::udp(from, to, source, destination, b"nfguard"))
        }
        Payload::Icmp { kind } if from.is_ipv4() => {
            (protocol::ICMP, packet::icmp(kind, 0, &[0; 20]))
        }
        Payload::Icmp { kind } => (protocol::ICMPV6, packet::icmpv6(from, to, kind, 0, &[0; 20])),
        Payload::Protocol(number) => (number, vec![0; 24]),
    };
    packet::ip(from, to, protocol, HOP_LIMIT, &body)
}
