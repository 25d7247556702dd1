//! A prefix of whole bytes is compared without a mask, and still reads as a prefix.

use nfguard_netlink::{CmpOp, Expr, Header, MetaKey, Reg, Rule, text};

const REG: Reg = Reg::FIRST;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// The text of a rule that loads `len` bytes of a network header, then does `more`.
fn words(family: u8, offset: u32, len: u32, more: Expr) -> String {
    let exprs = vec![
        Expr::Meta { key: MetaKey::Nfproto, reg: REG },
        Expr::Cmp { reg: REG, op: CmpOp::Eq, data: vec![family] },
        Expr::Payload { header: Header::Network, offset, len, reg: REG },
        more,
    ];
    text::rule(&Rule { exprs, comment: None })
}

fn equals(data: &[u8]) -> Expr {
    Expr::Cmp { reg: REG, op: CmpOp::Eq, data: data.to_vec() }
}

#[test]
fn the_start_of_an_address_reads_as_a_prefix() {
    assert_eq!(words(IPV4, 12, 3, equals(&[192, 0, 2])), "ip saddr 192.0.2.0/24");
    assert_eq!(words(IPV4, 16, 1, equals(&[10])), "ip daddr 10.0.0.0/8");
    let network = [0x20, 1, 0xd, 0xb8];
    assert_eq!(words(IPV6, 8, 4, equals(&network)), "ip6 saddr 2001:db8::/32");
    assert_eq!(words(IPV4, 12, 4, equals(&[192, 0, 2, 7])), "ip saddr 192.0.2.7");
}

#[test]
fn the_start_of_an_address_that_is_looked_up_is_no_address() {
    let lookup = Expr::Lookup { reg: REG, set: "s".to_owned(), inverted: false };
    assert_eq!(words(IPV4, 12, 2, lookup), "meta nfproto ipv4 @nh,96,16 @s");
}
