//! Log rules: the messages that an NFLOG group receives.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::place::{keep_neighbours, send_syn_once};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

/// A listener of an NFLOG group, which returns the prefixes of packets.
struct Nflog(OwnedFd);

/// `NFNL_SUBSYS_ULOG`, `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`; `NFULA_CFG_CMD` with
/// `NFULNL_CFG_CMD_BIND`; `NFULA_PREFIX` (`linux/netfilter/nfnetlink_log.h`).
const PACKET: [u8; 2] = [0, 4];
const CONFIG: [u8; 2] = [1, 4];
const BIND: [u8; 8] = [5, 0, 1, 0, 1, 0, 0, 0];
const PREFIX: u16 = 10;
/// The length of the netlink header and of the netfilter header after it.
const HEADERS: usize = 20;

impl Nflog {
    fn listen(netns: &Netns, group: u16) -> Nflog {
        netns.run(|| {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )
            .expect("a netlink socket");
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("an address");
            let mut message = Vec::new();
            message.extend(u32::try_from(HEADERS + BIND.len()).expect("short").to_ne_bytes());
            message.extend(CONFIG);
            // NLM_F_REQUEST | NLM_F_ACK
            message.extend(5u16.to_ne_bytes());
            message.extend([0; 8]);
            message.extend([0, 0]);
            message.extend(group.to_be_bytes());
            message.extend(BIND);
            send(fd.as_raw_fd(), &message, MsgFlags::empty()).expect("sent");
            let mut answer = [0; 256];
            recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
            let errno = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
            assert_eq!(errno, 0, "{}", io::Error::from_raw_os_error(-errno));
            Nflog(fd)
        })
    }

    /// Waits until `wanted` packets were reported, or none for a while.
    fn prefixes(&self, wanted: usize) -> Vec<String> {
        let mut prefixes = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut buffer = vec![0; 65536];
        while prefixes.len() < wanted && Instant::now() < deadline {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => prefixes.extend(messages(&buffer[..len])),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
        prefixes
    }
}

/// Returns the prefix of each packet message. Netlink aligns attributes to four bytes.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut prefixes = Vec::new();
    while bytes.len() >= HEADERS {
        let len = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        let message = &bytes[..len];
        if message[4..6] == PACKET {
            let mut attributes = &message[HEADERS..];
            while attributes.len() >= 4 {
                let len = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
                if u16::from_ne_bytes([attributes[2], attributes[3]]) == PREFIX {
                    let text = String::from_utf8_lossy(&attributes[4..len]);
                    prefixes.push(text.trim_end_matches('\0').to_owned());
                }
                attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    prefixes
}

const POLICY: &str = r#"{
  "version": 1,
  "log": {
    "to": { "group": 7 }, "prefix": "[IPTABLES] ", "unmatched": ["in"],
    "rate": { "packets": 1, "per": "hour", "burst": 3 }
  },
  "rules": [
    { "name": "dns", "action": "allow", "proto": "udp", "port": 53, "log": { "prefix": "dns ", "rate": "unlimited" } },
    { "action": "deny", "proto": "udp", "port": 69 },
    { "name": "ssh", "action": "limit", "proto": "tcp", "port": 22, "limit": { "connections": 2 },
      "log": { "prefix": "ssh ", "rate": "unlimited" } }
  ]
}"#;

fn send_udp(world: &World, port: u16, times: usize) {
    let to = SocketAddr::new(World::HOST_V4, port);
    for _ in 0..times {
        let probe = Probe::udp(&world.internet, to).timeout(Duration::from_millis(30));
        assert!(!probe.run().passed(), "nothing listens at {to}");
    }
}

#[test]
fn rules_and_defaults_log_to_an_nflog_group_with_their_prefix_and_no_more_than_they_may() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let policy = TempFile::new("log.json", POLICY);
    let answer = nfguard(&world.host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let log = Nflog::listen(&world.host, 7);

    send_udp(&world, 69, 2); // a rule without `log`: no line
    send_udp(&world, 53, 4); // a rule with `log`: each packet
    send_udp(&world, 9, 6); // the default: three packets
    let _server = world.host.serve_tcp(SocketAddr::new(World::HOST_V6, 22)).expect("a server");
    keep_neighbours(&world);
    send_syn_once(&world.internet);
    let ssh = Probe::tcp(&world.internet, SocketAddr::new(World::HOST_V6, 22));
    assert!(ssh.timeout(TIMEOUT).run().passed());
    assert!(!Probe::tcp(&world.internet, SocketAddr::new(World::HOST_V6, 22)).run().passed());

    let mut prefixes = log.prefixes(8);
    // The packet of the limit is the last one, so all other lines have arrived.
    assert_eq!(prefixes.pop().as_deref(), Some("ssh reject in/ssh"), "{prefixes:?}");
    let count = |wanted: &str| prefixes.iter().filter(|prefix| *prefix == wanted).count();
    let counted = [count("dns accept in/dns"), count("[IPTABLES] drop default/in"), prefixes.len()];
    assert_eq!(counted, [4, 3, 7], "{prefixes:?}");
}
