//! Addresses, links and routes of a network namespace (rtnetlink).
//!
//! `/proc/net/route` has one table, and one next hop of each route. This has all of them. Attributes
//! that this crate does not know are skipped.

mod link;
mod lookup;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::error::{DecodeError, Error};
use crate::ip_version::{IpVersion, address_from_bytes};
use crate::wire::attr::{Attr, Attrs, Writer};
use crate::wire::channel::Channel;
use crate::wire::message::Request;
use crate::wire::reply::Reply;
use crate::wire::uapi::*;

pub use link::Link;
pub use lookup::{RouteAnswer, RouteQuestion};

/// Lengths of the fixed part of each message (`linux/rtnetlink.h`, `linux/if_addr.h`,
/// `linux/nexthop.h`), in bytes.
const IFINFOMSG_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;
const RTMSG_BYTES: usize = 12;
const NHMSG_BYTES: usize = 8;
/// Length of `struct rtnexthop`, which begins with the length of the whole next hop.
const RTNEXTHOP_BYTES: usize = 8;

/// AF_INET, AF_INET6 and AF_MPLS.
const ROUTE_FAMILIES: [u8; 3] = [2, 10, 28];

/// Number of reads while others change what is read.
const MAX_READS: usize = 10;

/// rtnetlink of one network namespace. Needs no privilege.
pub struct Rtnetlink {
    channel: Channel,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name; of an IPv4 address its label, such as `eth0:1`.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix that is on the link.
    pub prefix_len: u8,
}

/// A route of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The version of the destination.
    pub version: IpVersion,
    /// The destination; `None` for a default route.
    pub destination: Option<IpAddr>,
    /// The length of the destination's prefix.
    pub prefix_len: u8,
    /// The number of the routing table; 254 is `main`.
    pub table: u32,
    /// The type of the route, see [`fib_type`](crate::fib_type).
    pub kind: u8,
    /// The next hops; empty for one that only names a next hop object.
    pub next_hops: Vec<NextHop>,
}

/// Where a route sends packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// The gateway, which may be of another version than the route; `None` if the destination is on
    /// the link.
    pub gateway: Option<IpAddr>,
    /// The index of the interface.
    pub interface: Option<u32>,
}

impl Rtnetlink {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netlink.
    #[cfg(feature = "socket")]
    pub fn open() -> Result<Rtnetlink, Error> {
        Ok(Rtnetlink { channel: Channel::open(libc::NETLINK_ROUTE)? })
    }

    /// Talks to the kernel, or to a test, through a function. The function sends one request and
    /// returns all bytes of the answer.
    pub fn from_exchange(
        exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Rtnetlink {
        Rtnetlink { channel: Channel::from_exchange(exchange) }
    }

    /// Returns the name of each interface by its index.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if interfaces kept changing; [`Error::Decode`], or the socket's.
    pub fn interfaces(&mut self) -> Result<BTreeMap<u32, String>, Error> {
        let links = self.links()?.into_iter();
        Ok(links.map(|(index, link)| (index, link.name)).collect())
    }

    /// Returns the alternative names of all interfaces, each with the name of its interface. Rules
    /// match the name alone.
    ///
    /// # Errors
    /// As [`Rtnetlink::interfaces`].
    pub fn alternative_names(&mut self) -> Result<BTreeMap<String, String>, Error> {
        self.dump_whole(RTM_GETLINK, IFINFOMSG_BYTES, |names: &mut BTreeMap<_, _>, reply| {
            if let Some((_, attrs)) = split(reply, RTM_NEWLINK, IFINFOMSG_BYTES)? {
                let name = attrs.first_string(IFLA_IFNAME);
                for attr in attrs {
                    let attr = attr?;
                    if attr.kind == IFLA_PROP_LIST {
                        for property in attr.nested() {
                            let property = property?;
                            if property.kind == IFLA_ALT_IFNAME {
                                names.insert(property.string(), name.clone());
                            }
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Returns the addresses of all interfaces, IPv4 and IPv6.
    ///
    /// # Errors
    /// As [`Rtnetlink::interfaces`].
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>, Error> {
        let interfaces = self.interfaces()?;
        self.dump_whole(RTM_GETADDR, IFADDRMSG_BYTES, |addresses: &mut Vec<_>, reply| {
            if let Some((head, attrs)) = split(reply, RTM_NEWADDR, IFADDRMSG_BYTES)? {
                addresses.extend(InterfaceAddress::decode(head, attrs, &interfaces)?);
            }
            Ok(())
        })
    }

    /// Returns the routes of all tables that `wanted` is true of.
    ///
    /// The kernel lists all of them, wanted or not. A route that changes meanwhile may be missing.
    ///
    /// # Errors
    /// [`Error::Decode`], or the socket's.
    pub fn routes(&mut self, mut wanted: impl FnMut(&Route) -> bool) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        self.dump(RTM_GETROUTE, RTMSG_BYTES, |reply| {
            if let Some((head, attrs)) = split(reply, RTM_NEWROUTE, RTMSG_BYTES)? {
                routes.extend(Route::decode(head, attrs)?.filter(&mut wanted));
            }
            Ok(())
        })?;
        Ok(routes)
    }

    /// Returns the gateways of all routes of all tables, and of all next hop objects.
    ///
    /// Holds no more than the gateways in memory, however many routes there are. A route that
    /// changes meanwhile may be missed.
    ///
    /// # Errors
    /// As [`Rtnetlink::routes`].
    pub fn gateways(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        let mut gateways = BTreeSet::new();
        self.dump(RTM_GETROUTE, RTMSG_BYTES, |reply| {
            let route = split(reply, RTM_NEWROUTE, RTMSG_BYTES)?;
            // Others than these answer too, with attributes of their own: gateways of CAN buses.
            let of_ip = route.filter(|(head, _)| {
                head.first().is_some_and(|family| ROUTE_FAMILIES.contains(family))
            });
            if let Some((_, attrs)) = of_ip {
                next_hops(attrs, &mut |hop| gateways.extend(hop.gateway))?;
            }
            Ok(())
        })?;
        // With net.ipv4.nexthop_compat_mode = 0 a route names its next hop by number only.
        self.dump(RTM_GETNEXTHOP, NHMSG_BYTES, |reply| {
            if let Some((_, attrs)) = split(reply, RTM_NEWNEXTHOP, NHMSG_BYTES)? {
                for attr in attrs {
                    let attr = attr?;
                    if attr.kind == NHA_GATEWAY {
                        gateways.extend(gateway(attr.value));
                    }
                }
            }
            Ok(())
        })?;
        Ok(gateways)
    }

    /// Asks for all objects of a kind. The fixed part of the request is zero: objects of any family.
    fn dump(
        &mut self,
        ask: u16,
        fixed: usize,
        each: impl FnMut(&Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.dump_with(ask, [0; 4], fixed, each)
    }

    /// Asks for all objects of a kind. The fixed part of the request begins with `head`, and is zero
    /// behind it.
    fn dump_with(
        &mut self,
        ask: u16,
        head: [u8; 4],
        fixed: usize,
        mut each: impl FnMut(&Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut body = Writer::default();
        body.raw([0; IFINFOMSG_BYTES].get(4..fixed).unwrap_or_default());
        self.channel.ask(Request::dump(ask, head, body), |reply| {
            match reply.outcome()?.map_or(0, |outcome| outcome.errno) {
                0 => each(&reply),
                errno => Err(std::io::Error::from_raw_os_error(errno).into()),
            }
        })
    }

    /// Asks as [`Rtnetlink::dump`] does, until nothing changes meanwhile.
    fn dump_whole<T: Default>(
        &mut self,
        ask: u16,
        fixed: usize,
        mut each: impl FnMut(&mut T, &Reply<'_>) -> Result<(), Error>,
    ) -> Result<T, Error> {
        for _ in 0..MAX_READS {
            let (mut all, mut is_whole) = (T::default(), true);
            self.dump(ask, fixed, |reply| {
                is_whole &= !reply.interrupted();
                each(&mut all, reply)
            })?;
            if is_whole {
                return Ok(all);
            }
        }
        Err(Error::Interrupted)
    }
}

/// Splits a message of this type into its fixed part and its attributes.
fn split<'a>(
    reply: &Reply<'a>,
    kind: u16,
    fixed: usize,
) -> Result<Option<(&'a [u8], Attrs<'a>)>, DecodeError> {
    if reply.kind != kind {
        return Ok(None);
    }
    let truncated = DecodeError::Truncated { rest: reply.body.len() };
    let (head, attrs) = reply.body.split_at_checked(fixed).ok_or(truncated)?;
    Ok(Some((head, Attrs(attrs))))
}

impl InterfaceAddress {
    /// `None` for an address that is neither IPv4 nor IPv6.
    fn decode(
        head: &[u8],
        attrs: Attrs<'_>,
        interfaces: &BTreeMap<u32, String>,
    ) -> Result<Option<InterfaceAddress>, DecodeError> {
        let [family, prefix_len] = [0, 1].map(|at| head.get(at).copied().unwrap_or_default());
        if IpVersion::from_family(family).is_none() {
            return Ok(None);
        }
        let index = native_u32(head, 4);
        let (mut address, mut local, mut label) = (None, None, None);
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                // Of a point-to-point link the address at the other end.
                IFA_ADDRESS => address = address_from_bytes(attr.value),
                IFA_LOCAL => local = address_from_bytes(attr.value),
                IFA_LABEL => label = Some(attr.string()),
                _ => {}
            }
        }
        let name = label.or_else(|| interfaces.get(&index).cloned());
        let interface = name.unwrap_or_else(|| index.to_string());
        Ok(local.or(address).map(|address| InterfaceAddress {
            interface,
            index,
            address,
            prefix_len,
        }))
    }
}

impl Route {
    /// `None` for a route that is neither IPv4 nor IPv6.
    fn decode(head: &[u8], attrs: Attrs<'_>) -> Result<Option<Route>, DecodeError> {
        let [family, prefix_len, table, kind] =
            [0, 1, 4, 7].map(|at| head.get(at).copied().unwrap_or_default());
        let Some(version) = IpVersion::from_family(family) else { return Ok(None) };
        let mut route = Route {
            version,
            destination: None,
            prefix_len,
            table: u32::from(table),
            kind,
            next_hops: Vec::new(),
        };
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                RTA_DST => route.destination = address_from_bytes(attr.value),
                // A number above 255 does not fit the fixed part.
                RTA_TABLE => route.table = attr.u32_native()?,
                _ => {}
            }
        }
        next_hops(attrs, &mut |hop| route.next_hops.push(hop))?;
        Ok(Some(route))
    }
}

/// Hands each next hop of a route to `each`.
fn next_hops(attrs: Attrs<'_>, each: &mut dyn FnMut(NextHop)) -> Result<(), DecodeError> {
    let mut single = NextHop::default();
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            RTA_OIF => single.interface = Some(attr.u32_native()?),
            RTA_MULTIPATH => multipath(attr.value, each)?,
            _ => single.gateway = single.gateway.or(gateway_of(&attr)),
        }
    }
    if single != NextHop::default() {
        each(single);
    }
    Ok(())
}

/// Reads each `struct rtnexthop` with the attributes behind it.
fn multipath(mut bytes: &[u8], each: &mut dyn FnMut(NextHop)) -> Result<(), DecodeError> {
    while let Some(len) = bytes.first_chunk().copied().map(u16::from_ne_bytes) {
        let len = usize::from(len);
        let truncated = DecodeError::Truncated { rest: bytes.len() };
        let attrs = bytes.get(RTNEXTHOP_BYTES..len).ok_or(truncated)?;
        let mut hop = NextHop { gateway: None, interface: Some(native_u32(bytes, 4)) };
        for attr in Attrs(attrs) {
            hop.gateway = hop.gateway.or(gateway_of(&attr?));
        }
        each(hop);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

fn gateway_of(attr: &Attr<'_>) -> Option<IpAddr> {
    match attr.kind {
        RTA_GATEWAY => gateway(attr.value),
        // Of another version than the route; its family stands before it.
        RTA_VIA => gateway(attr.value.get(2..)?),
        _ => None,
    }
}

fn gateway(bytes: &[u8]) -> Option<IpAddr> {
    address_from_bytes(bytes).filter(|address| !address.is_unspecified())
}

/// Returns a number in the machine's byte order; 0 if there are too few bytes.
fn native_u32(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.copied().map(u32::from_ne_bytes).unwrap_or_default()
}
