//! Packets that were logged, as the kernel tells of them.

use std::time::Duration;

use nfguard_netlink::{Hook, LoggedPacket};

/// What Linux 6.18 tells a reader of group 5, which wants 64 bytes of each packet and numbers, of a
/// datagram from 127.0.0.1:40000 and one from `[::1]:40000` to port 9, where
/// `log prefix "drop in/discard" group 5` is in the chain `input`: both at once, and an end.
const TOLD: &str = "
    ac000000 0004 0000 00000000 00000000 02000005
    0800010008000100 14000a0064726f7020696e2f6469736361726400 0800040000000001 1000080000060000
    000000000000000006000f0003040000 06001100000e0000 120010000000000000000000000000000800 0000
    14000300000000006b084eac000000000006cfd0 08000c0000000000
    210009004500001db1ef400040118ade7f0000017f0000019c4000090009fe1c78 000000
    cc000000 0004 0000 00000000 00000000 0a000005
    08000100 86dd0100 14000a0064726f7020696e2f6469736361726400 0800040000000001 1000080000060000
    000000000000000006000f0003040000 06001100000e0000 1200100000000000000000000000000086dd 0000
    14000300000000006b084eac000000000006cff2 08000c0000000001
    44000900600603a3006c1140000000000000000000000000000000010000000000000000
    00000000000000019c400009006c007f7979797979797979797979797979 7979
    14000000 0300 0000 00000000 00000000 00000005";

fn bytes() -> Vec<u8> {
    let digits: Vec<char> = TOLD.chars().filter(|char| !char.is_whitespace()).collect();
    let byte = |pair: &[char]| {
        u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal")
    };
    digits.chunks(2).map(byte).collect()
}

#[test]
fn packets_are_read_with_all_that_the_kernel_says_of_them() {
    let [v4, v6] = LoggedPacket::read(&bytes()).expect("readable").try_into().expect("two packets");
    let time = Duration::new(0x6b08_4eac, 0x6cfd0 * 1000);
    assert_eq!((v4.time, v4.number, v6.number), (Some(time), Some(0), Some(1)));
    for logged in [&v4, &v6] {
        assert_eq!((logged.group, logged.hook), (5, Some(Hook::Input)));
        assert_eq!((logged.in_interface, logged.out_interface), (Some(1), None));
        assert_eq!(logged.prefix, "drop in/discard");
    }
    assert_eq!((v4.packet.len(), v4.packet.first()), (29, Some(&0x45)));
    assert_eq!((v6.packet.len(), v6.packet.first()), (64, Some(&0x60)));
}

#[test]
fn what_is_cut_off_is_an_error_or_fewer_packets() {
    let whole = bytes();
    for end in 0..whole.len() {
        let packets = LoggedPacket::read(&whole[..end]).map_or(0, |packets| packets.len());
        assert!(packets < 2 || end >= 0xac + 0xcc, "{end} bytes");
    }
}
