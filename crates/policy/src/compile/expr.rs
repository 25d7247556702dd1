//! Builders of the expressions that rules consist of: those of the netlink crate, and those that take
//! values of a policy.

use nfguard_netlink::build::{self, InterfaceName};
use nfguard_netlink::{CmpOp, Expr, IpVersion, KeyType, MetaKey};

pub(super) use nfguard_netlink::build::{
    End, accept, address, ct_status, destination_type, discard, equals, established, fib_type,
    goto, has_link_header, hop_limit_255, icmp, icmp_type, in_prefix, in_range, in_set, invalid,
    ip_version, jump, keep_prefix, mark, no_iif, no_return_path, not_in_set, of_a_program,
    original_address, original_in_prefix, original_port, port, protocol, routing_header_0,
    source_type, tcp_flags, untracked,
};

use crate::policy::Interface;

pub(super) fn iifname(interface: &Interface) -> Vec<Expr> {
    build::iifname(CmpOp::Eq, name(interface))
}

pub(super) fn oifname(interface: &Interface) -> Vec<Expr> {
    build::oifname(CmpOp::Eq, name(interface))
}

/// Returns the interface of packets within this host.
pub(super) fn lo() -> Interface {
    Interface { name: "lo".to_owned(), wildcard: false }
}

/// Matches packets that did not come in by `lo`, or do not leave by it.
pub(super) fn is_not_loopback(key: MetaKey) -> Vec<Expr> {
    build::compare(build::meta(key), CmpOp::Neq, InterfaceName::Exact("lo").bytes())
}

/// Matches packets of a VRF. A packet passes the hooks once with the VRF as its interface, and once
/// with an interface of the VRF.
pub(super) fn is_vrf(key: MetaKey) -> Vec<Expr> {
    equals(build::meta(key), InterfaceName::Exact("vrf").bytes())
}

/// Matches packets that came in by a bridge, or leave by one.
pub(super) fn is_bridge(key: MetaKey) -> Vec<Expr> {
    equals(build::meta(key), InterfaceName::Exact("bridge").bytes())
}

fn name(interface: &Interface) -> InterfaceName<'_> {
    if interface.wildcard {
        InterfaceName::Prefix(&interface.name)
    } else {
        InterfaceName::Exact(&interface.name)
    }
}

/// Returns the key type of a set of addresses.
pub(super) fn address_key(version: IpVersion) -> KeyType {
    match version {
        IpVersion::V4 => KeyType::Ipv4Addr,
        IpVersion::V6 => KeyType::Ipv6Addr,
    }
}
