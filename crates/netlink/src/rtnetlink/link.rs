//! Links: interfaces, what they are, and how they hang together.

use std::collections::BTreeMap;

use super::{IFINFOMSG_BYTES, Rtnetlink, native_u32, split};
use crate::error::{DecodeError, Error};
use crate::ip_version::PerIpVersion;
use crate::wire::attr::{Attr, Attrs};
use crate::wire::uapi::*;

/// `AF_BRIDGE`, by which the kernel lists the hardware addresses of links.
const AF_BRIDGE: u8 = 7;
/// Length of `struct ndmsg`, in bytes.
const NDMSG_BYTES: usize = 12;
/// `NTF_SELF`: the entry is the link's own, not its bridge's.
const NTF_SELF: u8 = 2;
/// `NUD_PERMANENT`: the entry was not learned.
const NUD_PERMANENT: u8 = 0x80;
/// `IFF_UP` and `IFF_LOOPBACK` of `linux/if.h`.
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// `IFF_TAP` of `linux/if_tun.h`.
const IFF_TAP: u8 = 2;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface's index.
    pub index: u32,
    /// The interface's name.
    pub name: String,
    /// The kernel's word for its kind, such as `bridge`, `veth` or `macvlan`; empty for hardware.
    pub kind: String,
    /// The interface is up.
    pub is_up: bool,
    /// The interface leads to this host itself.
    pub is_loopback: bool,
    /// The interface carries Ethernet frames, although its kind is `tun`.
    pub is_tap: bool,
    /// The hardware address.
    pub address: Vec<u8>,
    /// The index of the bridge or bond that the interface is a port of.
    pub master: Option<u32>,
    /// The index of the interface that this one is built on, or of its other end. The index is of
    /// another namespace if `is_linked_elsewhere` says so.
    pub parent: Option<u32>,
    /// What `parent` names is in another network namespace.
    pub is_linked_elsewhere: bool,
    /// Of a bridge: the hooks of this IP version see what passes over it, whatever the setting for
    /// all bridges says.
    pub calls_hooks: PerIpVersion<bool>,
}

impl Rtnetlink {
    /// Returns all interfaces, by index.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if interfaces kept changing; [`Error::Decode`], or the socket's.
    pub fn links(&mut self) -> Result<BTreeMap<u32, Link>, Error> {
        self.dump_whole(RTM_GETLINK, IFINFOMSG_BYTES, |links: &mut BTreeMap<_, _>, reply| {
            if let Some((head, attrs)) = split(reply, RTM_NEWLINK, IFINFOMSG_BYTES)? {
                let link = Link::decode(head, attrs)?;
                links.insert(link.index, link);
            }
            Ok(())
        })
    }

    /// Returns the unicast hardware addresses that each interface takes frames for besides its own,
    /// with the interface's index. An interface that is built on another one, such as a macvlan, has
    /// its address put there, also when it is in another network namespace.
    ///
    /// # Errors
    /// [`Error::Decode`], or the socket's.
    pub fn further_addresses(&mut self) -> Result<Vec<(u32, Vec<u8>)>, Error> {
        let mut found = Vec::new();
        let head = [AF_BRIDGE, 0, 0, 0];
        self.dump_with(RTM_GETNEIGH, head, NDMSG_BYTES, |reply| {
            let Some((head, attrs)) = split(reply, RTM_NEWNEIGH, NDMSG_BYTES)? else {
                return Ok(());
            };
            let [state, flags] = [8, 10].map(|at| head.get(at).copied().unwrap_or_default());
            let (mut address, mut is_remote) = (Vec::new(), false);
            for attr in attrs {
                let attr = attr?;
                match attr.kind {
                    NDA_LLADDR => address = attr.value.to_vec(),
                    // An entry of a tunnel: the far end that has the address.
                    NDA_DST => is_remote = true,
                    _ => {}
                }
            }
            let is_own = flags & NTF_SELF != 0 && state & NUD_PERMANENT != 0 && !is_remote;
            let is_unicast = address.first().is_some_and(|first| first & 1 == 0);
            if is_own && is_unicast && address.iter().any(|byte| *byte != 0) {
                found.push((native_u32(head, 4), address));
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl Link {
    fn decode(head: &[u8], attrs: Attrs<'_>) -> Result<Link, DecodeError> {
        let flags = native_u32(head, 8);
        let mut link = Link {
            index: native_u32(head, 4),
            is_up: flags & IFF_UP != 0,
            is_loopback: flags & IFF_LOOPBACK != 0,
            ..Link::default()
        };
        let mut data = None;
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                IFLA_IFNAME => link.name = attr.string(),
                IFLA_ADDRESS => link.address = attr.value.to_vec(),
                IFLA_MASTER => link.master = Some(attr.u32_native()?),
                IFLA_LINK => link.parent = Some(attr.u32_native()?).filter(|index| *index != 0),
                IFLA_LINK_NETNSID => link.is_linked_elsewhere = true,
                IFLA_LINKINFO => {
                    for attr in attr.nested() {
                        let attr = attr?;
                        match attr.kind {
                            IFLA_INFO_KIND => link.kind = attr.string(),
                            IFLA_INFO_DATA => data = Some(attr),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(data) = data {
            link.decode_data(&data)?;
        }
        Ok(link)
    }

    /// Reads what only links of this kind have.
    fn decode_data(&mut self, data: &Attr<'_>) -> Result<(), DecodeError> {
        if !matches!(&*self.kind, "bridge" | "tun") {
            return Ok(());
        }
        for attr in data.nested() {
            let attr = attr?;
            match (&*self.kind, attr.kind) {
                ("bridge", IFLA_BR_NF_CALL_IPTABLES) => self.calls_hooks.v4 = attr.u8()? != 0,
                ("bridge", IFLA_BR_NF_CALL_IP6TABLES) => self.calls_hooks.v6 = attr.u8()? != 0,
                ("tun", IFLA_TUN_TYPE) => self.is_tap = attr.u8()? == IFF_TAP,
                _ => {}
            }
        }
        Ok(())
    }
}
