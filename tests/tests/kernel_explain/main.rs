//! The prediction of `explain`, compared with the kernel: random policies, random packets.

mod shots;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, World, veth};
use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{Expr, Nft, Table, load, protocol, text, unload};
use nfguard_policy::{Flow, FlowPath, Payload, Policy, TABLE, Treatment, explain_treated};
use nfguard_tests::nft::nft;
use nfguard_tests::place::{ip, netns};
use nfguard_tests::program::time_box;
use nfguard_tests::wait::TIMEOUT;
use nfguard_tests::{processor, property};
use proptest::test_runner::{TestCaseError, TestError};

use shots::{Place, Shot, Text, address, bytes, policies, shots};

/// Counts the packets of the test before and after all rules, and then drops them. So no packet is
/// answered or tracked, and the next one is new.
const WATCH: &str = "table inet watch {
    counter came {}; counter got {}; counter others {};
    chain before { ip ttl 77 counter name came return; ip6 hoplimit 77 counter name came return;
        counter name others; }
    chain after { ip ttl { 76, 77 } counter name got; ip6 hoplimit { 76, 77 } counter name got;
        drop; }
    chain a { type filter hook prerouting priority -400; jump before; }
    chain b { type filter hook output priority -400; jump before; }
    chain c { type filter hook input priority 400; jump after; }
    chain d { type filter hook postrouting priority 400; jump after; }
}
table inet treat {
    chain raw_in { type filter hook prerouting priority raw; jump untracked; }
    chain raw_out { type filter hook output priority raw; jump untracked; }
    chain marks { type route hook output priority -150;
        ip ttl 77 meta l4proto { tcp, udp } th sport 62000 meta mark set 5
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62000 meta mark set 5
    }
    chain out { type nat hook output priority -100;
        ip ttl 77 meta l4proto { tcp, udp } th sport 62001 dnat ip to 10.7.0.1:8080
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62001 dnat ip6 to [2001:db8:77::1]:8080
        ip ttl 77 meta l4proto { tcp, udp } th sport 62002 redirect to :8080
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62002 redirect to :8080
    }
    chain untracked {
        ip ttl 77 meta l4proto { tcp, udp } th sport 62003 notrack
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62003 notrack
    }
}
table inet publish {
    chain pre { type nat hook prerouting priority dstnat;
        ip ttl 77 meta l4proto { tcp, udp } th sport 62002 redirect to :8080
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62002 redirect to :8080
        ip ttl 77 meta l4proto { tcp, udp } th sport 62004 dnat ip to 172.17.0.3:8080
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 62004 dnat ip6 to [2001:db8:d0c::3]:8080
        ip ttl 77 meta l4proto { tcp, udp } th sport 61000 dnat ip to 172.17.0.2:8080
        ip ttl 77 meta l4proto { tcp, udp } th sport 61001 dnat ip to 172.17.0.2:22
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 61000 dnat ip6 to [2001:db8:d0c::2]:8080
        ip6 hoplimit 77 meta l4proto { tcp, udp } th sport 61001 dnat ip6 to [2001:db8:d0c::2]:22
    }
}
";

/// A host between the internet and a container, with counters for all packets.
struct Ground {
    world: World,
    /// Another neighbour of the host, and a second container.
    _neighbours: [Netns; 2],
    kernel: Nft,
    /// The sockets that keep the host a member of the multicast groups.
    _members: Vec<UdpSocket>,
}

impl Ground {
    fn new() -> Ground {
        let world = World::with_container()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        let container = world.container.as_ref().expect("it was made with one");
        let (second, neighbour) = (netns(), netns());
        veth(&world.host, "veth2", &second, "eth0").expect("a link");
        world.host.enslave("veth2", "docker0").expect("a port");
        veth(&world.host, "eth1", &neighbour, "eth0").expect("a link");
        for (netns, link, v4, v6) in [
            (&second, "eth0", "172.17.0.3", "2001:db8:d0c::3"),
            (&world.host, "eth1", "10.7.0.2", "2001:db8:77::2"),
            (&neighbour, "eth0", "10.7.0.1", "2001:db8:77::1"),
        ] {
            netns.address(link, address(v4), 24).expect("an address");
            netns.address(link, address(v6), 64).expect("an address");
        }
        add_routes(&world);
        for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            world.host.sysctl(&format!("bridge/{setting}"), "1").expect("br_netfilter is there");
        }
        for interface in ["all", "eth0", "eth1", "docker0"] {
            let setting = format!("ipv4/conf/{interface}/rp_filter");
            world.host.sysctl(&setting, "0").expect("can be set");
        }
        // Neighbours are resolved once. Later the policy may drop neighbour discovery.
        let seconds = [address("172.17.0.3"), address("2001:db8:d0c::3")];
        let neighbours = [address("10.7.0.1"), address("2001:db8:77::1")];
        for (netns, peers) in [
            (&world.internet, [World::HOST_V4, World::HOST_V6]),
            (container, [World::INTERNET_V4, World::INTERNET_V6]),
            (container, seconds),
            (&second, [World::CONTAINER_V4, World::CONTAINER_V6]),
            (&world.host, seconds),
            (&world.host, neighbours),
        ] {
            for family in ["ipv4", "ipv6"] {
                for link in ["eth0", "eth1", "docker0"] {
                    let setting = format!("{family}/neigh/{link}/base_reachable_time_ms");
                    let set = netns.sysctl(&setting, "86400000");
                    assert!(set.is_ok() || link != "eth0", "{set:?}");
                }
            }
            for peer in peers {
                let probe = Probe::ping(netns, peer).timeout(TIMEOUT);
                assert!(probe.run().passed(), "{peer} is out of reach");
            }
        }
        let members = members(&world.host);
        nft(&world.host, WATCH);
        let kernel = world.host.run(|| Nft::open().expect("netlink is there"));
        Ground { world, _neighbours: [second, neighbour], kernel, _members: members }
    }

    fn load(&mut self, table: &Table) {
        unload(&mut self.kernel, table).expect("unloads");
        let change = load(&mut self.kernel, table).expect("loads");
        assert!(change.verified);
    }

    fn counts(&mut self, table: &str) -> BTreeMap<String, u64> {
        let loaded = self.kernel.table(table).expect("reads").loaded.expect("is there");
        loaded.counts.into_iter().map(|(name, counts)| (name, counts.packets)).collect()
    }

    /// Sends a packet, and returns its effect once it is gone.
    fn send_shot(&mut self, shot: &Shot) -> Effect {
        // The watch table is read before the policy table and again after it, so that it reveals
        // other packets in between.
        let watch = self.counts("watch");
        let rules = self.counts(TABLE);
        let netns = match shot.from {
            Place::Host => &self.world.host,
            Place::Internet => &self.world.internet,
            Place::Container => self.world.container.as_ref().expect("the world has a container"),
        };
        let group = match shot.flow.destination {
            IpAddr::V4(to) => to.is_broadcast() || to.is_multicast(),
            IpAddr::V6(to) => to.is_multicast(),
        };
        let sent = netns.send_raw(group.then_some("eth0"), &bytes(&shot.flow));
        // The policy of the host may drop the packet.
        assert!(sent.is_ok() || shot.from == Place::Host, "{sent:?} {shot:?}");
        let deadline = Instant::now() + TIMEOUT;
        while self.counts("watch")["came"] == watch["came"] {
            assert!(Instant::now() < deadline, "has not come: {shot:?} {sent:?}");
            thread::sleep(Duration::from_millis(1));
        }
        let mut total = self.counts(TABLE);
        let mut counted = total.clone();
        counted.retain(|name, count| {
            *count -= rules[name];
            *count > 0
        });
        total.retain(|_, count| *count > 0);
        let now = self.counts("watch");
        Effect {
            passed: now["got"] > watch["got"],
            alone: now["others"] == watch["others"] && now["came"] == watch["came"] + 1,
            counted,
            total,
        }
    }
}

/// The effect of a packet.
#[derive(Debug)]
struct Effect {
    passed: bool,
    /// Whether no other packet came by, such as an answer of the firewall or a neighbour
    /// solicitation.
    alone: bool,
    /// The increments of the counters of the policy.
    counted: BTreeMap<String, u64>,
    /// The counters of the policy now.
    total: BTreeMap<String, u64>,
}

/// Adds routes by rules: for marks, to addresses that are delivered here, and through the host.
fn add_routes(world: &World) {
    for arguments in [
        "route add default via 10.7.0.1 table 100",
        "-6 route add default via 2001:db8:77::1 table 100",
        "rule add fwmark 5 lookup 100",
        "-6 rule add fwmark 5 lookup 100",
        "rule add to 198.51.100.60 lookup 101",
        "-6 rule add to 2001:db8:60::1 lookup 101",
        "route add local 198.51.100.60 dev lo table 101",
        "-6 route add local 2001:db8:60::1 dev lo table 101",
        "rule add iif eth0 to 198.18.0.0/15 lookup 100",
        "-6 rule add iif eth0 to 2001:db9::/32 lookup 100",
        "route add unreachable 198.18.0.0/15",
        "-6 route add unreachable 2001:db9::/32",
    ] {
        ip(&world.host, arguments);
    }
    for arguments in [
        "route add 198.51.100.60/32 via 198.51.100.2",
        "-6 route add 2001:db8:60::/64 via 2001:db8:1::2",
        "route add 198.18.0.0/15 via 198.51.100.2",
        "-6 route add 2001:db9::/32 via 2001:db8:1::2",
    ] {
        ip(&world.internet, arguments);
    }
}

fn members(host: &Netns) -> Vec<UdpSocket> {
    host.run(|| {
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").expect("reads");
        let line = addresses.lines().find(|line| line.ends_with(" eth0")).expect("eth0 has one");
        let index = line.split_whitespace().nth(1).expect("a column");
        let index = u32::from_str_radix(index, 16).expect("a number");
        let v4 = UdpSocket::bind("0.0.0.0:0").expect("binds");
        let v6 = UdpSocket::bind("[::]:0").expect("binds");
        let own: Ipv4Addr = match World::HOST_V4 {
            IpAddr::V4(own) => own,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        for group in ["224.0.0.251", "239.255.255.250"] {
            v4.join_multicast_v4(&group.parse().expect("an address"), &own).expect("joins");
        }
        for group in ["ff02::fb", "ff02::f", "ff02::1:2"] {
            v6.join_multicast_v6(&group.parse().expect("an address"), index).expect("joins");
        }
        vec![v4, v6]
    })
}

/// The count of each event.
type Seen = BTreeMap<&'static str, u32>;

fn assert_agreement(
    ground: &mut Ground,
    policy: &Text,
    shots: &[Shot],
    seen: &mut Seen,
) -> Result<(), String> {
    let (policy, _) =
        Policy::parse(&policy.0).map_err(|problems| format!("not valid: {problems:#?}"))?;
    let table = policy.compile();
    ground.load(&table);
    let start = Instant::now();
    let mut memory = Memory::default();
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let each = shots.iter().flat_map(|shot| std::iter::repeat_n(shot, shot.times));
    for (number, shot) in each.take(40).enumerate() {
        memory.now = start.elapsed();
        let foretold = explain_treated(&table, &shot.flow, &shot.treatment, &mut memory);
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        let matched = foretold.hooks.iter().flat_map(|(_, decision)| &decision.matched);
        for expr in matched.flat_map(|(.., rule)| &rule.exprs) {
            if let Expr::Counter(name) = expr {
                *counted.entry(name.clone()).or_default() += 1;
            }
        }
        let effect = ground.send_shot(shot);
        let at_least = |name: &String| effect.counted.get(name) >= counted.get(name);
        let right = effect.passed == (foretold.fate == Fate::Accept)
            && counted.keys().all(at_least)
            && (!effect.alone || effect.counted == counted);
        if !right {
            let rules: Vec<String> = foretold
                .hooks
                .iter()
                .filter_map(|(_, decision)| decision.rule)
                .map(|(_, rule)| text::rule(rule))
                .collect();
            return Err(format!(
                "packet {number}, {shot:?}:\nforetold {:?} by {rules:#?}, counting {counted:?};\n\
                 the kernel: {effect:?}",
                foretold.fate
            ));
        }
        let mut see = |what| *seen.entry(what).or_default() += 1;
        see(match foretold.fate {
            Fate::Accept => "accept",
            Fate::Drop => "drop",
            Fate::Reject(_) => "reject",
        });
        see(match shot.flow.path {
            FlowPath::In => "in",
            FlowPath::Out => "out",
            FlowPath::Forward => "forward",
            FlowPath::Published(_) if foretold.hooks.len() > 1 => "published",
            FlowPath::Published(_) => "published and stopped before",
        });
        let Treatment { mark, is_untracked, has_foreign_source, has_no_return_path, .. } =
            shot.treatment;
        for (is_so, what) in [
            (mark != 0, "marked"),
            (is_untracked, "untracked"),
            (has_foreign_source, "of a foreign source"),
            (has_no_return_path, "without a way back"),
            (shot.treatment.translated_to.is_some(), "translated"),
            (shot.treatment.destination_type.is_some(), "routed by a rule"),
            (
                shot.flow.in_interface == "docker0" && shot.flow.out_interface == "docker0",
                "bridged",
            ),
        ] {
            if is_so {
                see(what);
            }
        }
        if effect.alone {
            see("counters compared exactly");
        }
        if effect.counted.keys().any(|name| name.ends_with("/over")) {
            see("over a limit");
        }
        if effect.counted.contains_key("scan/dropped") {
            see("banned for a scan");
        }
        counted.into_iter().for_each(|(name, count)| *told.entry(name).or_default() += count);
        if effect.total != told {
            // A neighbour solicitation or an answer of the firewall was counted, and a limit may
            // have its source.
            break;
        }
    }
    Ok(())
}

#[test]
fn the_kernel_does_what_explain_predicts() {
    processor::stay_on_one(0);
    let mut ground = Ground::new();
    let mut seen = Seen::new();
    let start = Instant::now();
    let mut runner = property::runner(150, 300);
    let ground = std::cell::RefCell::new(&mut ground);
    let counts = std::cell::RefCell::new((&mut seen, 0_u32));
    let outcome = runner.run(&(policies(), shots()), |(policy, shots)| {
        let (seen, policies) = &mut *counts.borrow_mut();
        if *policies >= 20 && start.elapsed() > time_box() && find_missing_event(seen).is_none() {
            return Ok(());
        }
        *policies += 1;
        assert_agreement(&mut ground.borrow_mut(), &policy, &shots, seen)
            .map_err(TestCaseError::fail)
    });
    let (seen, policies) = counts.into_inner();
    eprintln!("{policies} policies: {seen:?}");
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (policy, _))) => panic!("{policy:?}\n{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    assert_eq!(find_missing_event(seen), None, "too few of it: {seen:?}");
}

/// Returns an event that the comparison must meet at least five times, and has not yet.
fn find_missing_event(seen: &Seen) -> Option<&'static str> {
    let all = ["accept", "drop", "reject", "in", "out", "forward", "published", "over a limit"];
    let treated =
        ["marked", "untracked", "of a foreign source", "without a way back", "translated"];
    let led = ["routed by a rule", "bridged", "counters compared exactly"];
    let mut all = all.into_iter().chain(treated).chain(led);
    all.find(|what| seen.get(what).is_none_or(|times| *times < 5))
}

/// The comparison above can fail: the kernel accepts a packet that `explain` drops.
#[test]
fn a_kernel_that_differs_from_explain_is_detected() {
    processor::stay_on_one(0);
    let mut ground = Ground::new();
    let (policy, _) =
        Policy::parse(r#"{ "version": 1, "rules": [ { "action": "allow", "port": 443 } ] }"#)
            .expect("a valid policy");
    let table = policy.compile();
    ground.load(&table);
    let flow = Flow {
        path: FlowPath::In,
        source: address("192.0.2.7"),
        destination: World::HOST_V4,
        payload: Payload::Ports { protocol: protocol::TCP, source: 40_000, destination: 22 },
        in_interface: "eth0".to_owned(),
        out_interface: String::new(),
    };
    let shot = Shot { from: Place::Internet, flow, treatment: Treatment::default(), times: 1 };
    let stopped = ground.send_shot(&shot);
    assert!(!stopped.passed && stopped.counted.contains_key("default/in"), "{stopped:?}");
    nft(&ground.world.host, "insert rule inet nfguard input tcp dport 22 accept\n");
    let passed = ground.send_shot(&shot);
    // Other packets may have been counted at the same time.
    assert!(passed.passed && !passed.counted.contains_key("default/in"), "{passed:?}");
}
