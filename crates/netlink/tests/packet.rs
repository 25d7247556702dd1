//! Packets, whole, cut off and wrong.

use nfguard_netlink::ParsedPacket;

/// From `::1` to `::2`: destination options, a first fragment, and a TCP header that claims to be
/// longer than all there is.
const ODD: [u8; 76] = {
    let mut bytes = [0; 76];
    (bytes[0], bytes[5], bytes[6]) = (0x60, 36, 60);
    (bytes[23], bytes[39]) = (1, 2);
    bytes[40] = 44;
    (bytes[48], bytes[51]) = (6, 1);
    (bytes[57], bytes[59], bytes[68], bytes[69]) = (80, 23, 0xf0, 0x29);
    bytes
};

#[test]
fn ports_and_flags_are_read_whatever_else_is_wrong() {
    let packet = ParsedPacket {
        source: "::1".parse().expect("an address"),
        destination: "::2".parse().expect("an address"),
        protocol: 6,
        length: 76,
        fragment: Some(0),
        ports: Some((80, 23)),
        tcp_flags: Some(0x29),
        icmp: None,
        payload: &ODD[56..],
    };
    assert_eq!(ParsedPacket::read(&ODD), Some(packet));
}

#[test]
fn a_later_fragment_has_no_ports_and_its_data_is_no_header() {
    let mut bytes = ODD;
    // Eights; the data looks like destination options.
    (bytes[48], bytes[51]) = (60, 3 << 3);
    let packet = ParsedPacket::read(&bytes).expect("a packet");
    assert_eq!((packet.protocol, packet.fragment, packet.ports), (60, Some(24), None));
}

#[test]
fn authentication_and_options_of_ipv4_are_passed_over() {
    let mut bytes = [0; 60];
    (bytes[0], bytes[3], bytes[9]) = (0x46, 60, 17);
    (bytes[25], bytes[27]) = (53, 54);
    let packet = ParsedPacket::read(&bytes).expect("a packet");
    assert_eq!((packet.length, packet.fragment, packet.ports), (60, None, Some((53, 54))));
    let mut bytes = ODD;
    (bytes[40], bytes[49]) = (51, 0);
    assert_eq!(ParsedPacket::read(&bytes).and_then(|packet| packet.ports), Some((80, 23)));
}

#[test]
fn options_of_tcp_are_read_in_their_order() {
    let mut bytes = vec![0; 40];
    (bytes[0], bytes[9], bytes[32], bytes[33]) = (0x45, 6, 0xa0, 2);
    // What Linux sends.
    bytes.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    let options = |bytes: &[u8]| ParsedPacket::read(bytes).and_then(|packet| packet.tcp_options());
    let expected = "maxseg 1460, sack-perm, timestamp, nop, window 7";
    assert_eq!(options(&bytes).as_deref(), Some(expected));
    bytes[44] = 99;
    bytes[45] = 0;
    assert!(options(&bytes).is_some_and(|options| options.starts_with("maxseg 1460, option 99")));
    bytes[32] = 0x50;
    assert_eq!(options(&bytes).as_deref(), Some(""));
}

#[test]
fn no_bytes_are_too_few_or_too_odd() {
    for end in 0..ODD.len() {
        assert_eq!(ParsedPacket::read(&ODD[..end]).is_some(), end >= 40, "{end} bytes");
    }
    for at in 0..ODD.len() {
        for byte in 0..=255 {
            let mut bytes = ODD;
            bytes[at] = byte;
            for end in 0..ODD.len() {
                let _ = ParsedPacket::read(&bytes[..end]).and_then(|packet| packet.tcp_options());
            }
        }
    }
}
