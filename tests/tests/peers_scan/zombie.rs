//! A zombie for idle scans: it numbers its packets one by one, as Linux no longer does.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nfguard_lab::{Netns, packet};
use nfguard_netlink::protocol;
use nfguard_tests::nft::nft;

/// Resets every TCP segment to this address, until `over` is set.
pub(crate) fn answer(zombie: &Netns, own: IpAddr, over: &AtomicBool) {
    // The kernel must not answer, too.
    nft(
        zombie,
        "table ip dead { chain in { type filter hook input priority 0; policy drop; }\n}\n",
    );
    let mut capture = zombie.capture().expect("raw sockets");
    let sender = zombie.raw_sender().expect("raw sockets");
    let mut number: u16 = 1000;
    while !over.load(Ordering::Relaxed) {
        let is_tcp = |bytes: &[u8]| {
            packet::destination(bytes) == Some(own) && bytes.get(9) == Some(&protocol::TCP)
        };
        let came = capture.wait(Duration::from_millis(200), is_tcp).expect("captures");
        let Some(bytes) = came else { continue };
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if bytes[33] & packet::RST != 0 {
            continue;
        }
        let from = packet::source(&bytes).expect("an IP packet");
        let mut reset = packet::tcp(own, from, port(22), port(20), packet::RST);
        expected(&mut reset, port(28), port(30));
        let mut reset = packet::ip(own, from, protocol::TCP, 64, &reset);
        reset[4..6].copy_from_slice(&number.to_be_bytes());
        number += 1;
        // An unreachable sender gets no answer.
        let _ = sender.send(&reset);
    }
}

/// Sets the acknowledged sequence number, in two halves. A reset with another number would be
/// invalid.
fn expected(segment: &mut [u8], high: u16, low: u16) {
    segment[4..8].copy_from_slice(&[high.to_be_bytes(), low.to_be_bytes()].concat());
    // The old value was one. Its complement removes it from the checksum.
    let sum = !u16::from_be_bytes([segment[16], segment[17]]);
    let mut sum: u32 = [sum, !1, high, low].map(u32::from).into_iter().sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("it was folded");
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}
