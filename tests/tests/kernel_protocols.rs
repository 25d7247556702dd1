//! Protocols that are more than one connection: what the built-ins, `untracked` and `helper` do about
//! them.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use nfguard_lab::{DEFAULT_TIMEOUT, Netns, Probe, World, packet};
use nfguard_netlink::{CtHelper, Nft, Op, Transaction};
use nfguard_tests::judge::{self, Place};
use nfguard_tests::nft::nft;
use nfguard_tests::place::{keep_neighbours, netns, send_syn_once, world, world_with_container};
use nfguard_tests::program::{Answer, TempFile, nfguard};
use nfguard_tests::wait::{TIMEOUT, wait_until};

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn load(host: &Netns, keys: &str) -> Answer {
    let policy = TempFile::new("protocols.json", &format!("{{ \"version\": 1, {keys} }}"));
    let answer = nfguard(host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    answer
}

/// Returns whether a packet from the internet is let in. A datagram to an allowed port follows it, so
/// that its fate is known.
fn is_let_in(world: &World, bytes: &[u8], number: u8) -> bool {
    let source = packet::source(bytes).expect("an IP packet");
    world.internet.send_raw(Some("eth0"), bytes).expect("sent");
    wait_until("the packet has arrived", || {
        judge::seen(&world.host, Place::Arrived).contains(&source)
    });
    let mark = IpAddr::from([192, 0, 2, number]);
    let datagram = packet::udp(mark, HOST.into(), 40_000, 9999, b"next");
    let next = packet::ip(mark, HOST.into(), 17, 64, &datagram);
    wait_until("the next packet is let in", || {
        world.internet.send_raw(None, &next).expect("sent");
        judge::seen(&world.host, Place::LetIn).contains(&mark)
    });
    judge::seen(&world.host, Place::LetIn).contains(&source)
}

fn may_leave(host: &Netns, bytes: &[u8]) -> bool {
    match host.send_raw(Some("eth0"), bytes) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => false,
        Err(error) => panic!("{error}"),
    }
}

fn igmp(from: [u8; 4], to: [u8; 4], kind: u8) -> Vec<u8> {
    packet::ip(from.into(), to.into(), 2, 1, &packet::icmp(kind, 0, &[224, 0, 0, 251]))
}

const MARKS: &str = r#""rules": [{ "action": "allow", "proto": "udp", "port": 9999 }]"#;

#[test]
fn igmp_passes_both_ways_as_multicast_listener_discovery_does() {
    let world = world();
    judge::install(&world.host);
    load(&world.host, MARKS);
    // Queries of a router and of a switch, and the reports and farewells of this host.
    assert!(is_let_in(&world, &igmp([198, 51, 100, 1], [224, 0, 0, 1], 0x11), 1));
    assert!(is_let_in(&world, &igmp([198, 51, 100, 7], [224, 0, 0, 1], 0x11), 2));
    assert!(may_leave(&world.host, &igmp(HOST.octets(), [224, 0, 0, 251], 0x16)));
    assert!(may_leave(&world.host, &igmp(HOST.octets(), [224, 0, 0, 22], 0x22)));
    assert!(may_leave(&world.host, &igmp(HOST.octets(), [224, 0, 0, 2], 0x17)));
    // Only to groups.
    assert!(!is_let_in(&world, &igmp([198, 51, 100, 8], HOST.octets(), 0x11), 3));
    assert!(!may_leave(&world.host, &igmp(HOST.octets(), ROUTER.octets(), 0x16)));
    load(&world.host, &format!(r#""builtin": {{ "igmp": false }}, {MARKS}"#));
    assert!(!is_let_in(&world, &igmp([198, 51, 100, 9], [224, 0, 0, 1], 0x11), 4));
    assert!(!may_leave(&world.host, &igmp(HOST.octets(), [224, 0, 0, 22], 0x22)));
}

#[test]
fn answers_of_dhcpv6_servers_are_told_by_their_destination() {
    let world = world();
    let link_local: IpAddr = "fe80::a:2".parse().expect("an address");
    world.host.address("eth0", link_local, 64).expect("added");
    judge::install(&world.host);
    load(&world.host, MARKS);
    let answer = |from: &str, port: u16, to: IpAddr, to_port| {
        let from = from.parse().expect("an address");
        packet::ip(from, to, 17, 64, &packet::udp(from, to, port, to_port, b"advertise"))
    };
    assert!(is_let_in(&world, &answer("2001:db8:1::1", 547, link_local, 546), 1), "global");
    assert!(
        is_let_in(&world, &answer("2001:db8:9::1", 40_000, link_local, 546), 2),
        "another port"
    );
    assert!(is_let_in(&world, &answer("fe80::9", 547, link_local, 546), 3), "of the link");
    assert!(!is_let_in(&world, &answer("2001:db8:9::2", 547, World::HOST_V6, 546), 4), "to global");
    assert!(!is_let_in(&world, &answer("2001:db8:9::3", 547, link_local, 547), 5), "of a server");
    let ask = |to: &str, port| {
        let to = to.parse().expect("an address");
        packet::ip(link_local, to, 17, 1, &packet::udp(link_local, to, port, 547, b"solicit"))
    };
    assert!(may_leave(&world.host, &ask("ff02::1:2", 546)));
    assert!(may_leave(&world.host, &ask("ff02::1:2", 40_001)));
    assert!(!may_leave(&world.host, &ask("ff02::1:3", 546)));
    load(&world.host, &format!(r#""builtin": {{ "dhcpv6-client": false }}, {MARKS}"#));
    assert!(!is_let_in(&world, &answer("2001:db8:9::4", 547, link_local, 546), 6));
    assert!(!may_leave(&world.host, &ask("ff02::1:2", 546)));
}

#[test]
fn answers_of_dhcpv4_servers_come_from_the_link() {
    let world = world();
    judge::install(&world.host);
    load(&world.host, MARKS);
    let answer = |from: [u8; 4], to: IpAddr, ports: (u16, u16)| {
        let from = IpAddr::from(from);
        packet::ip(from, to, 17, 64, &packet::udp(from, to, ports.0, ports.1, b"offer"))
    };
    let all = Ipv4Addr::BROADCAST.into();
    assert!(is_let_in(&world, &answer([198, 51, 100, 1], all, (67, 68)), 1));
    assert!(is_let_in(&world, &answer([172, 31, 1, 1], all, (67, 68)), 2), "of another network");
    // What a router could have passed on.
    for (number, from) in [(3, [198, 51, 100, 3]), (4, [203, 0, 113, 4])] {
        assert!(!is_let_in(&world, &answer(from, HOST.into(), (67, 68)), number), "{from:?}");
    }
    assert!(!is_let_in(&world, &answer([198, 51, 100, 5], all, (68, 67)), 5), "of a client");
    // A renewal is asked of the server, and its answer belongs to the question.
    let ask = |from: IpAddr, to: IpAddr, ports: (u16, u16)| {
        packet::ip(from, to, 17, 64, &packet::udp(from, to, ports.0, ports.1, b"request"))
    };
    assert!(may_leave(&world.host, &ask(HOST.into(), [198, 51, 100, 6].into(), (68, 67))));
    assert!(is_let_in(&world, &answer([198, 51, 100, 6], HOST.into(), (67, 68)), 6));
    load(&world.host, &format!(r#""builtin": {{ "dhcpv4-client": false }}, {MARKS}"#));
    assert!(!is_let_in(&world, &answer([198, 51, 100, 7], all, (67, 68)), 7));
}

#[test]
fn discovery_by_multicast_passes_both_ways() {
    let world = world();
    load(&world.host, MARKS);
    let ask = |from: IpAddr, to: &str, port| {
        let to: IpAddr = to.parse().expect("an address");
        packet::ip(from, to, 17, 1, &packet::udp(from, to, 5353, port, b"who"))
    };
    let packets = |number: u16| {
        [
            ("mdns", ask(HOST.into(), "224.0.0.251", 5353)),
            ("mdns", ask(World::HOST_V6, "ff02::fb", 5353)),
            ("upnp", ask(HOST.into(), "239.255.255.250", 1900)),
            ("upnp", ask(World::HOST_V6, "ff02::f", 1900)),
            ("", ask(HOST.into(), "224.0.0.252", 5353 + number)),
        ]
    };
    for (name, bytes) in packets(0) {
        assert_eq!(may_leave(&world.host, &bytes), !name.is_empty(), "{name}");
    }
    for off in ["mdns", "upnp"] {
        load(&world.host, &format!(r#""builtin": {{ "{off}": false }}, {MARKS}"#));
        for (name, bytes) in packets(0) {
            assert_eq!(may_leave(&world.host, &bytes), !name.is_empty() && name != off, "{name}");
        }
    }
}

#[test]
fn icmp_that_begins_nothing_reaches_no_rule_as_the_warning_says() {
    let world = world();
    judge::install(&world.host);
    load(
        &world.host,
        r#""rules": [{ "action": "allow", "proto": "udp", "port": 9999 },
            { "action": "allow", "proto": ["icmp", "icmpv6"] }]"#,
    );
    // Types with which a connection may begin, and those that the warning is about.
    for (number, kind) in (10..).zip([8, 13, 0, 9, 10, 14, 16, 18]) {
        let from = IpAddr::from([203, 0, 113, kind]);
        let bytes = packet::ip(from, HOST.into(), 1, 64, &packet::icmp(kind, 0, &[0; 16]));
        assert_eq!(is_let_in(&world, &bytes, number), [8, 13].contains(&kind), "ICMP {kind}");
    }
    for (number, kind) in (30..).zip([128, 129, 140]) {
        let from = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, kind.into()));
        let message = packet::icmpv6(from, World::HOST_V6, kind, 0, &[0; 16]);
        let bytes = packet::ip(from, World::HOST_V6, 58, 64, &message);
        assert_eq!(is_let_in(&world, &bytes, number), kind == 128, "ICMPv6 {kind}");
    }
}

/// Tells a host not to track packets to and from port 53.
fn do_not_track(host: &Netns, only_incoming: bool) {
    let out = if only_incoming { "" } else { "meta l4proto { tcp, udp } th sport 53 notrack" };
    nft(
        host,
        &format!(
            "table inet quick {{
                chain in {{ type filter hook prerouting priority raw;
                    meta l4proto {{ tcp, udp }} th dport 53 notrack;
                }}
                chain out {{ type filter hook output priority raw; {out}
                }}
            }}\n"
        ),
    );
}

#[test]
fn a_server_that_is_not_tracked_answers_where_its_rule_says_so() {
    for only_incoming in [false, true] {
        for address in [World::HOST_V4, World::HOST_V6] {
            let world = world();
            do_not_track(&world.host, only_incoming);
            let to = SocketAddr::new(address, 53);
            let _udp = world.host.serve_udp(to).expect("serves");
            let _tcp = world.host.serve_tcp(to).expect("serves");
            let udp = || Probe::udp(&world.internet, to);
            let tcp = || Probe::tcp(&world.internet, to);
            load(&world.host, r#""rules": [{ "action": "allow", "port": 53 }]"#);
            assert!(!udp().run().passed(), "without the key");
            let rule = r#"{ "action": "allow", "port": [53, 5300], "untracked": true,
                "to": ["198.51.100.2", "2001:db8:1::2", "198.51.100.77"] }"#;
            load(&world.host, &format!(r#""rules": [{rule}]"#));
            let (over_udp, over_tcp) = (udp().timeout(TIMEOUT).run(), tcp().timeout(TIMEOUT).run());
            assert!(over_udp.passed() && over_tcp.passed(), "{to}: {over_udp}, {over_tcp}");
            // Answers alone: by the port, and to where the rule lets come from.
            let other = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 9);
            let leaves = |from_port| {
                let (from, to) = (World::HOST_V4, other.ip());
                let datagram = packet::udp(from, to, from_port, 9, b"?");
                may_leave(&world.host, &packet::ip(from, to, 17, 64, &datagram))
            };
            assert!(leaves(53) && !leaves(54));
            load(
                &world.host,
                &format!(
                    r#""rules": [{}]"#,
                    rule.replace("true", "true, \"from\": \"203.0.113.0/24\"")
                ),
            );
            assert!(!leaves(53));
        }
    }
}

#[test]
fn answers_to_an_untracked_client_must_be_untracked_too() {
    let world = world();
    judge::install(&world.host);
    nft(
        &world.host,
        "table ip quick {
            chain out { type filter hook output priority raw; udp dport 53 notrack; }
            chain in { type filter hook prerouting priority raw;
                ip saddr 198.51.100.1 udp sport 53 notrack; }
        }\n",
    );
    let to = SocketAddr::new(ROUTER.into(), 53);
    let _server = world.internet.serve_udp(to).expect("serves");
    let rules = |untracked: bool| {
        let rule = format!(
            r#"{{ "action": "allow", "direction": "out", "proto": "udp", "port": 53,
                "untracked": {untracked} }}"#
        );
        format!(r#""rules": [{{ "action": "allow", "proto": "udp", "port": 9999 }}, {rule}]"#)
    };
    load(&world.host, &rules(false));
    assert!(!Probe::udp(&world.host, to).run().passed());
    load(&world.host, &rules(true));
    let outcome = Probe::udp(&world.host, to).timeout(TIMEOUT).run();
    assert!(outcome.passed(), "{outcome}");
    // A stranger who sends from port 53 is tracked, and new.
    let from = IpAddr::from([203, 0, 113, 53]);
    let datagram = packet::udp(from, HOST.into(), 53, 40_000, b"answer");
    assert!(!is_let_in(&world, &packet::ip(from, HOST.into(), 17, 64, &datagram), 1));
}

/// A connection to a server that greets with a line, and then repeats what it hears: so the client
/// says what a real server would answer.
struct Control(BufReader<TcpStream>);

impl Control {
    fn open(from: &Netns, to: SocketAddr) -> Control {
        let stream = Probe::tcp(from, to).timeout(TIMEOUT).connect().expect("port 21 is allowed");
        let mut control = Control(BufReader::new(stream));
        control.0.read_line(&mut String::new()).expect("a greeting");
        control
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("sent");
        let mut echo = String::new();
        self.0.read_line(&mut echo).expect("an answer");
        assert_eq!(echo.trim_end(), line);
    }
}

const DATA: u16 = 50_007;

#[test]
fn data_connections_of_ftp_pass_with_the_helper_alone() {
    for address in [World::HOST_V4, World::HOST_V6] {
        let world = world();
        let [port, data] = [21, DATA].map(|port| SocketAddr::new(address, port));
        let _control = world.host.serve_tcp(port).expect("serves");
        let _data = world.host.serve_tcp(data).expect("serves");
        let passive = match address {
            IpAddr::V4(_) => {
                format!("227 Entering Passive Mode (198,51,100,2,{},{})", DATA >> 8, DATA & 0xff)
            }
            IpAddr::V6(_) => format!("229 Entering Extended Passive Mode (|||{DATA}|)"),
        };
        let fetch = |keys: &str, patience| {
            let rule = format!(r#"{{ "action": "allow", "proto": "tcp", "port": 21 {keys} }}"#);
            let loaded = load(&world.host, &format!(r#""rules": [{rule}]"#));
            let mut control = Control::open(&world.internet, port);
            control.say("200 hello");
            control.say(&passive);
            (Probe::tcp(&world.internet, data).timeout(patience).run().passed(), loaded)
        };
        let (passed, loaded) = fetch("", DEFAULT_TIMEOUT);
        assert!(!passed && loaded.stderr.contains("\"helper\" of \"ftp\""), "{loaded:?}");
        let (passed, loaded) = fetch(r#", "helper": "ftp""#, TIMEOUT);
        assert!(passed && !loaded.stderr.contains("helper"), "{loaded:?}");
        // What was not announced is as closed as before.
        assert!(!Probe::tcp(&world.internet, data).run().passed());
        let shown = nfguard(&world.host, &["show"]).stdout;
        assert!(shown.contains("ct helper ftp/tcp {"), "{shown}");
        assert!(shown.contains("ct helper set \"ftp/tcp\""), "{shown}");
        assert_eq!(nfguard(&world.host, &["status"]).status, Some(0));
        let (passed, _) = fetch("", DEFAULT_TIMEOUT);
        assert!(!passed, "the helper goes with its rule");
        assert!(!nft(&world.host, "list table inet nfguard\n").contains("ct helper"));
    }
}

#[test]
fn a_client_with_the_helper_is_called_back() {
    let world = world();
    keep_neighbours(&world);
    send_syn_once(&world.host);
    let server = SocketAddr::new(ROUTER.into(), 21);
    let _control = world.internet.serve_tcp(server).expect("serves");
    let data = SocketAddr::new(HOST.into(), DATA);
    let _data = world.host.serve_tcp(data).expect("serves");
    for (helper, is_called) in [("none", false), ("ftp", true)] {
        let rule = format!(
            r#"{{ "action": "limit", "direction": "out", "proto": "tcp", "port": "ftp",
                "helper": "{helper}" }}"#
        );
        load(&world.host, &format!(r#""rules": [{rule}]"#));
        let mut control = Control::open(&world.host, server);
        control.say("USER anonymous");
        control.say(&format!("PORT 198,51,100,2,{},{}", DATA >> 8, DATA & 0xff));
        let call = Probe::tcp(&world.internet, data).from(IpAddr::from(ROUTER));
        let patience = if is_called { TIMEOUT } else { DEFAULT_TIMEOUT };
        assert_eq!(call.timeout(patience).run().passed(), is_called, "{helper}");
    }
}

/// A server that a container asks, or a program in the container, could open ports with it.
#[test]
fn the_helper_of_a_rule_for_in_reads_no_forwarded_connection() {
    let world = world_with_container();
    let container = world.container.as_ref().expect("a container");
    let server = SocketAddr::new(ROUTER.into(), 21);
    let _control = world.internet.serve_tcp(server).expect("serves");
    let data = SocketAddr::new(World::CONTAINER_V4, DATA);
    let _data = container.serve_tcp(data).expect("serves");
    load(
        &world.host,
        r#""rules": [{ "action": "allow", "proto": "tcp", "port": 21, "helper": "ftp" },
            { "action": "allow", "direction": "out", "proto": "tcp", "port": 21, "helper": "none" }]"#,
    );
    let mut control = Control::open(container, server);
    control.say("USER anonymous");
    control.say(&format!("PORT 172,17,0,2,{},{}", DATA >> 8, DATA & 0xff));
    let call = Probe::tcp(&world.internet, data).from(IpAddr::from(ROUTER));
    assert!(!call.run().passed());
}

#[test]
fn a_kernel_without_a_helper_is_told_by_its_name() {
    let netns = netns();
    let mut kernel = netns.run(|| Nft::open().expect("netlink is there"));
    let helper = CtHelper {
        name: "gopher/tcp".to_owned(),
        kind: "go-pher".to_owned(),
        protocol: 6,
        version: None,
    };
    let mut transaction = Transaction::new("nfguard");
    transaction.ops.push(Op::AddTable { comment: None, awake: false });
    transaction.ops.push(Op::AddHelper(helper));
    let error = kernel.commit(&transaction, None).expect_err("no such helper").to_string();
    assert!(error.contains("add ct helper inet nfguard gopher/tcp"), "{error}");
    assert!(error.contains("no connection tracking helper \"go-pher\""), "{error}");
    assert!(error.contains("nf_conntrack_go_pher"), "{error}");
    assert_eq!(nft(&netns, "list ruleset\n"), "");
}

#[test]
fn an_alternative_name_of_an_interface_is_told_at_the_load_and_by_doctor() {
    let world = world();
    let arguments = ["link", "property", "add", "dev", "eth0", "altname", "enp0s3"];
    let output = world.host.run(|| Command::new("ip").args(arguments).output());
    let output = output.expect("ip starts");
    assert!(output.status.success(), "{output:?}");
    let load = |name: &str| {
        let rule = format!(r#"{{ "action": "allow", "port": 22, "in_interface": "{name}" }}"#);
        load(&world.host, &format!(r#""rules": [{rule}]"#)).stderr
    };
    let doctor = || {
        let nowhere = ["--docker-socket", "/nowhere", "--nftables-conf", "/nowhere"];
        nfguard(&world.host, &[&["doctor"], &nowhere[..]].concat()).stdout
    };
    for name in ["enp0s3", "enp*"] {
        for warned in [load(name), doctor()] {
            assert!(warned.contains("alternative name") && warned.contains("\"eth0\""), "{warned}");
        }
    }
    for name in ["eth0", "e*", "wg0"] {
        assert!(!load(name).contains("alternative name"), "{name}");
        assert!(doctor().contains("nothing found"), "{name}");
    }
}
