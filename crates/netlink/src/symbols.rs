//! nft's symbols for numbers of packets and of the kernel.

/// Bits that `ct state` can have (`NF_CT_STATE_BIT` of `nf_conntrack_common.h`).
pub mod ct_state {
    /// The packet belongs to no connection and cannot begin one.
    pub const INVALID: u32 = 1;
    /// The packet belongs to a connection that has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// The packet begins a connection that belongs to another one, or reports an error of one.
    pub const RELATED: u32 = 4;
    /// The packet begins a connection, or belongs to one without an answer yet.
    pub const NEW: u32 = 8;
    /// The packet is not tracked. Neighbour discovery never is.
    pub const UNTRACKED: u32 = 64;

    pub(crate) const WORDS: [(&str, u32); 5] = [
        ("invalid", INVALID),
        ("established", ESTABLISHED),
        ("related", RELATED),
        ("new", NEW),
        ("untracked", UNTRACKED),
    ];
}

/// Bits that `ct status` can have (`IPS_*` of `nf_conntrack_common.h`).
pub mod ct_status {
    /// Both ends have sent packets. Of TCP: the handshake is complete.
    pub const ASSURED: u32 = 4;
    /// The connection's destination was rewritten.
    pub const DNAT: u32 = 32;

    pub(crate) const WORDS: [(&str, u32); 6] = [
        ("expected", 1),
        ("seen-reply", 2),
        ("assured", ASSURED),
        ("confirmed", 8),
        ("snat", 16),
        ("dnat", DNAT),
    ];
}

/// Types of addresses in the routing tables (`RTN_*` of `rtnetlink.h`).
pub mod fib_type {
    /// An address of another host: routed.
    pub const UNICAST: u32 = 1;
    /// An address of this host.
    pub const LOCAL: u32 = 2;
    /// A subnet's broadcast address.
    pub const BROADCAST: u32 = 3;
    /// IPv6 anycast.
    pub const ANYCAST: u32 = 4;
    /// A multicast group.
    pub const MULTICAST: u32 = 5;

    pub(crate) const WORDS: [(&str, u32); 5] = [
        ("unicast", UNICAST),
        ("local", LOCAL),
        ("broadcast", BROADCAST),
        ("anycast", ANYCAST),
        ("multicast", MULTICAST),
    ];
}

/// Flags of TCP (RFC 9293) without the two of ECN (RFC 3168).
pub mod tcp_flag {
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// The segment begins a connection.
    pub const SYN: u8 = 2;
    /// The connection ends at once.
    pub const RST: u8 = 4;
    /// The receiver passes the data on at once.
    pub const PSH: u8 = 8;
    /// The segment acknowledges data. Only the first segment does not.
    pub const ACK: u8 = 16;
    /// A part of the data is urgent.
    pub const URG: u8 = 32;

    pub(crate) const WORDS: [(&str, u8); 6] =
        [("fin", FIN), ("syn", SYN), ("rst", RST), ("psh", PSH), ("ack", ACK), ("urg", URG)];
}

/// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// The protocol by which hosts tell who listens to which IPv4 multicast group.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// ICMP types by nft's names (IANA "ICMP Type Numbers").
pub const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

/// ICMPv6 types by nft's names (IANA "ICMPv6 'type' Numbers").
pub const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

/// Protocols that nft prints by name.
pub(crate) const PROTOCOLS: [(&str, u8); 4] = [
    ("icmp", protocol::ICMP),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("icmpv6", protocol::ICMPV6),
];

/// `AF_INET` and `AF_INET6`, which `meta nfproto` gives.
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;
