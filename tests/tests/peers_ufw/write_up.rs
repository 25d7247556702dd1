//! The nine commands of the write-up, and `policies/traefik.json`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::thread;
use std::time::Duration;

use nfguard_lab::{Probe, World};
use nfguard_tests::ufw::{WRITE_UP, ufw};
use nfguard_tests::wait::TIMEOUT;

use crate::packets::all;
use crate::shots::{self, Range};
use crate::{nfguard_load, traefik};

/// The intended differences of nfguard, with their reasons.
const DIFFERENCES: &[Difference] = &[
    Difference {
        packets: &["in v6 icmpv6 129 "],
        passes: Peer::Ufw,
        why: "an unsolicited echo reply is invalid; only a ping to a whole group misses it",
    },
    Difference {
        packets: &["in v6 icmpv6 151 link-local 1", "in v6 icmpv6 152 link-local 1"],
        passes: Peer::Ufw,
        why: "multicast router discovery is for switches",
    },
    Difference {
        packets: &["in v4 IGMP query"],
        passes: Peer::Nfguard,
        why: "a host that does not answer is left out by switches: mDNS, which ufw allows, then ends",
    },
    Difference {
        packets: &[
            "in v6 udp 40000 to 546, global to link-local",
            "in v6 udp 40000 to 546, link-local to link-local",
            "in v6 udp 547 to 546, global to link-local",
        ],
        passes: Peer::Nfguard,
        why: "DHCPv6 servers answer from global addresses and other ports, to a link-local address",
    },
    Difference {
        packets: &["in v4 udp 68 DHCP to [198, "],
        passes: Peer::Ufw,
        why: "a router passes on none of what goes to 255.255.255.255, and answers to renewals are established",
    },
    Difference {
        packets: &[
            "out v4 udp 1900 to 239.255.255.250",
            "out v4 udp 5353 to 224.0.0.251",
            "out v6 udp 1900 to ff02::f",
            "out v6 udp 5353 to ff02::fb",
        ],
        passes: Peer::Nfguard,
        why: "what may be asked may be answered, also where the default denies what leaves",
    },
    Difference {
        packets: &["out v4 icmp 3/", "out v4 icmp 11/", "out v4 icmp 12/"],
        passes: Peer::Nfguard,
        why: "a host that may not send errors leaves its peers waiting, and ufw allows it for IPv6",
    },
    Difference {
        packets: &["out v4 udp 67 DHCP to ", "out v6 udp 546 to 547 of all servers"],
        passes: Peer::Nfguard,
        why: "a host that denies what leaves must still get an address",
    },
    Difference {
        packets: &["out v6 icmpv6 128 "],
        passes: Peer::Ufw,
        why: "pings leave by the policy's word, for IPv6 as for IPv4",
    },
    Difference {
        packets: &["out v6 icmpv6 129 "],
        passes: Peer::Ufw,
        why: "an answer to a ping belongs to its connection; any other is no answer",
    },
    Difference {
        packets: &[
            "out v6 icmpv6 130 global ",
            "out v6 icmpv6 131 global ",
            "out v6 icmpv6 132 global ",
            "out v6 icmpv6 143 global ",
        ],
        passes: Peer::Nfguard,
        why: "the first reports of a host leave before it has a link-local address, from none",
    },
    Difference {
        packets: &[
            "out v6 icmpv6 148 link-local 255",
            "out v6 icmpv6 148 global 255",
            "out v6 icmpv6 149 link-local 255",
            "out v6 icmpv6 149 global 255",
        ],
        passes: Peer::Ufw,
        why: "SEND, secured neighbour discovery, is not in use",
    },
    Difference {
        packets: &[
            "out v6 icmpv6 151 link-local 1",
            "out v6 icmpv6 152 link-local 1",
            "out v6 icmpv6 153 link-local 1",
        ],
        passes: Peer::Ufw,
        why: "multicast router discovery is for routers and switches",
    },
];

struct Difference {
    /// The start of the names of the packets. Each of these packets must differ.
    packets: &'static [&'static str],
    /// The firewall that accepts these packets. The other one drops them.
    passes: Peer,
    why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Ufw,
    Nfguard,
}

#[test]
fn traefik_json_passes_and_stops_what_the_nine_commands_do() {
    let ranges = thread::scope(|scope| {
        [0, 1, 2].map(|_| scope.spawn(Range::new)).map(|made| made.join().unwrap())
    });
    let [bare, judge, ours] = ranges;
    thread::scope(|scope| {
        scope.spawn(|| ufw(&judge.world.host, &WRITE_UP));
        scope.spawn(|| nfguard_load(&ours.world.host, traefik()));
    });
    let shots = [&bare, &judge, &ours].map(|range| all(shots::link(&range.world.host).1));
    let [every, by_ufw, by_us] =
        [(&bare, 0), (&judge, 1), (&ours, 2)].map(|(range, at)| range.passed(&shots[at]));
    let names = || shots[0].iter().map(|shot| shot.name.as_str());
    let stuck: Vec<_> = names().filter(|name| !every.contains(name)).collect();
    assert!(stuck.is_empty(), "stopped without any firewall, so they prove nothing: {stuck:#?}");
    let mut unexplained: BTreeMap<&str, Peer> = names()
        .filter_map(|name| match (by_ufw.contains(name), by_us.contains(name)) {
            (true, false) => Some((name, Peer::Ufw)),
            (false, true) => Some((name, Peer::Nfguard)),
            _ => None,
        })
        .collect();
    for Difference { packets, passes, why } in DIFFERENCES {
        for packet in *packets {
            let meant: Vec<_> = names().filter(|name| name.starts_with(packet)).collect();
            assert!(!meant.is_empty(), "no packet is called {packet}");
            for name in meant {
                assert_eq!(unexplained.remove(name), Some(*passes), "{name}: {why}");
            }
        }
    }
    assert!(unexplained.is_empty(), "lets pass what the other does not: {unexplained:#?}");
    let (passed, all) = (by_ufw.len(), every.len());
    assert!(passed > 50 && all - passed > 50, "ufw lets {passed} of {all} pass");
}

#[test]
fn open_connections_continue_at_the_first_load_where_ufw_cuts_those_that_it_denies() {
    let [judge, ours] = [crate::world(), crate::world()];
    for (who, world) in [("ufw", &judge), ("nfguard", &ours)] {
        let host = &world.host;
        let _servers = [80, 8080]
            .map(|port| host.serve_tcp((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free"));
        let connect = |port| {
            [World::HOST_V4, World::HOST_V6].map(|address| {
                let probe = Probe::tcp(&world.internet, (address, port));
                let connection = probe.timeout(TIMEOUT).connect();
                let mut connection = connection.expect("no firewall is there yet");
                read_line(&mut connection).expect("the server speaks first");
                connection
            })
        };
        let (mut allowed, mut denied) = (connect(80), connect(8080));
        if who == "ufw" {
            ufw(host, &WRITE_UP);
        } else {
            nfguard_load(host, traefik());
        }
        for connection in denied.iter_mut().chain(&mut allowed) {
            connection.write_all(b"?\n").expect("it is open at this end");
        }
        for connection in &mut allowed {
            assert_eq!(read_line(connection).expect("it goes on"), "?\n", "{who}");
        }
        for connection in &mut denied {
            if who == "nfguard" {
                assert_eq!(read_line(connection).expect("it goes on"), "?\n", "{who}");
                continue;
            }
            let patience = Some(Duration::from_millis(500));
            connection.set_read_timeout(patience).expect("half a second is a time");
            assert!(read_line(connection).is_err(), "{who}");
        }
    }
}

fn read_line(connection: &mut TcpStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line)
}
