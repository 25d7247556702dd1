//! Builders of the expressions that rules consist of: those of the netlink crate, and those that take
//! values of a policy.

use nfguard_netlink::build::{self, InterfaceName};
use nfguard_netlink::{CmpOp, Expr};

pub(super) use nfguard_netlink::build::{
    End, accept, address, ct_status, discard, equals, established, fib_type, goto, hop_limit_255,
    icmp, icmp_type, in_prefix, in_range, in_set, invalid, ip_version, keep_prefix, not_in_set,
    original_port, port, protocol, routing_header_0, tcp_flags, untracked,
};

use crate::policy::Interface;

pub(super) fn iifname(interface: &Interface) -> Vec<Expr> {
    build::iifname(CmpOp::Eq, name(interface))
}

pub(super) fn oifname(interface: &Interface) -> Vec<Expr> {
    build::oifname(CmpOp::Eq, name(interface))
}

fn name(interface: &Interface) -> InterfaceName<'_> {
    if interface.wildcard {
        InterfaceName::Prefix(&interface.name)
    } else {
        InterfaceName::Exact(&interface.name)
    }
}
