//! Links, addresses and routes, over rtnetlink.

use std::{
    fs,
    io::{self, Read},
    net::IpAddr,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{libc, net::if_::if_nametoindex};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Netns, context};

/// Joins two namespaces by a veth pair: `a_name` in `a`, `b_name` in `b`, both
/// up. `a` and `b` may be the same.
///
/// # Errors
/// The kernel's refusal, such as a name that is taken.
pub fn veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> io::Result<()> {
    // The request names the namespace of the peer by a descriptor that is open in
    // this process.
    let other = b.run(|| fs::File::open("/proc/thread-self/ns/net"))?;
    let mut peer = named(b_name);
    peer.attributes.push(LinkAttribute::NetNsFd(other.as_raw_fd()));
    let mut link = named(a_name);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    a.create(RouteNetlinkMessage::NewLink(link))
        .map_err(context(format_args!("cannot make the link {a_name} to {b_name}")))?;
    // The first end cannot be up before its other end exists.
    a.up(a_name)?;
    b.up(b_name)?;
    a.wait_until_running(a_name)?;
    b.wait_until_running(b_name)
}

impl Netns {
    /// Makes a bridge that is up. It accepts addresses also without ports.
    ///
    /// # Errors
    /// The kernel's refusal, such as a name that is taken.
    pub fn bridge(&self, name: &str) -> io::Result<()> {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.create(RouteNetlinkMessage::NewLink(link))
            .map_err(context(format_args!("cannot make the bridge {name}")))?;
        self.up(name)
    }

    /// Makes `link`, one end of a [`veth`], a port of `bridge`.
    ///
    /// # Errors
    /// One of the two does not exist, or `link` cannot be a port of `bridge`.
    pub fn enslave(&self, link: &str, bridge: &str) -> io::Result<()> {
        self.change(link, |link| {
            let bridge = if_nametoindex(bridge)?;
            link.attributes.push(LinkAttribute::Controller(bridge));
            Ok(())
        })
        .and_then(|()| self.wait_until_running(bridge))
        .map_err(context(format_args!("cannot make {link} a port of {bridge}")))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The interface does not exist.
    pub fn up(&self, link: &str) -> io::Result<()> {
        self.change(link, |link| {
            link.header.flags = LinkFlags::Up;
            link.header.change_mask = LinkFlags::Up;
            Ok(())
        })
        .map_err(context(format_args!("cannot bring {link} up")))
    }

    /// Gives `link` an address in a network of `prefix` bits. It can be used
    /// at once, without duplicate address detection.
    ///
    /// # Errors
    /// The interface does not exist or has the address already.
    pub fn address(&self, link: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.attributes = vec![AddressAttribute::Address(address)];
        if address.is_ipv4() {
            message.attributes.push(AddressAttribute::Local(address));
        } else {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        self.run(|| {
            message.header.index = if_nametoindex(link)?;
            request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)?;
            // The kernel accepts the address at once, but packets to an IPv6
            // address only after some work in the background.
            wait_until("address", || is_local(address))
        })
        .map_err(context(format_args!("cannot give {link} the address {address}/{prefix}")))
    }

    /// Adds a route to `destination/prefix` over the router `via`. A prefix
    /// of 0 makes it the default route.
    ///
    /// # Errors
    /// The router cannot be reached, or the route exists.
    pub fn route(&self, destination: IpAddr, prefix: u8, via: IpAddr) -> io::Result<()> {
        let mut route = to_prefix(destination, prefix);
        route.header.kind = RouteType::Unicast;
        route.attributes.push(RouteAttribute::Gateway(via.into()));
        self.create(RouteNetlinkMessage::NewRoute(route))
            .map_err(context(format_args!("cannot route {destination}/{prefix} by way of {via}")))
    }

    /// Makes every address of `destination/prefix` a local address. The
    /// namespace answers to all of them, and probes and servers may use any.
    ///
    /// A network that the namespace is connected to, or has a route for, stays
    /// an exception within a wider IPv6 prefix; within an IPv4 prefix it does
    /// not.
    ///
    /// # Errors
    /// The kernel's refusal, such as a route that exists.
    pub fn own_prefix(&self, destination: IpAddr, prefix: u8) -> io::Result<()> {
        let mut route = to_prefix(destination, prefix);
        route.header.kind = RouteType::Local;
        if destination.is_ipv4() {
            // In IPv4, only an address in the local table may be a source address.
            route.header.table = libc::RT_TABLE_LOCAL;
            route.header.scope = RouteScope::Host;
        }
        self.run(|| {
            route.attributes.push(RouteAttribute::Oif(if_nametoindex("lo")?));
            request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
        })
        .map_err(context(format_args!("cannot own {destination}/{prefix}")))
    }

    /// Waits until a link forwards packets. After a link comes up, the kernel
    /// does some work in the background. Until then the link drops packets, and
    /// resolves no IPv6 neighbour for forwarded packets, because that needs its
    /// link-local address.
    fn wait_until_running(&self, link: &str) -> io::Result<()> {
        self.run(|| wait_until("carrier", || Ok(has_link_local(link)? && has_carrier(link)?)))
    }

    fn create(&self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.run(|| request(message, NLM_F_CREATE | NLM_F_EXCL))
    }

    fn change(
        &self,
        link: &str,
        edit: impl FnOnce(&mut LinkMessage) -> io::Result<()> + Send,
    ) -> io::Result<()> {
        self.run(|| {
            let mut message = LinkMessage::default();
            message.header.index = if_nametoindex(link)?;
            edit(&mut message)?;
            request(RouteNetlinkMessage::SetLink(message), 0)
        })
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    link
}

fn to_prefix(destination: IpAddr, prefix: u8) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(destination);
    route.header.destination_prefix_length = prefix;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    if prefix > 0 {
        route.attributes = vec![RouteAttribute::Destination(destination.into())];
    }
    route
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn wait_until(what: &str, condition: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition()? {
        if Instant::now() > deadline {
            let message = format!("the {what} does not become ready");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn is_local(address: IpAddr) -> io::Result<bool> {
    let mut question = to_prefix(address, if address.is_ipv4() { 32 } else { 128 });
    question.header.table = RouteHeader::RT_TABLE_UNSPEC;
    let answer = exchange(RouteNetlinkMessage::GetRoute(question), 0)?;
    Ok(matches!(
        answer,
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route))
            if route.header.kind == RouteType::Local
    ))
}

fn has_carrier(link: &str) -> io::Result<bool> {
    let mut message = LinkMessage::default();
    message.header.index = if_nametoindex(link)?;
    let answer = exchange(RouteNetlinkMessage::GetLink(message), 0)?;
    Ok(matches!(
        answer,
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(answer))
            if answer.attributes.contains(&LinkAttribute::OperState(State::Up))
    ))
}

fn has_link_local(link: &str) -> io::Result<bool> {
    const TENTATIVE: u32 = 0x40;
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
    // Address, interface index, prefix length, scope, flags, interface name.
    Ok(addresses.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        matches!(
            fields[..],
            [address, _, _, _, flags, name]
                if name == link
                    && address.starts_with("fe80")
                    && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE == 0)
        )
    }))
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    exchange(message, NLM_F_ACK | flags).map(drop)
}

/// Sends one request to the calling thread's namespace and reads its answer.
/// Private to this file, so that only the methods above choose the namespace.
fn exchange(
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<NetlinkPayload<RouteNetlinkMessage>> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    socket.send(&bytes)?;
    let mut answer = vec![0; 16 * 1024];
    let length = socket.read(&mut answer)?;
    answer.truncate(length);
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        payload => Ok(payload),
    }
}
