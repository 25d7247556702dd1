//! Packet capture, and raw senders.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Netns, context, packet};

/// A capture of all IP packets that cross the interfaces of a namespace. It
/// sees incoming packets before the firewall of the namespace, and outgoing
/// packets after it.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
}

impl Netns {
    /// Starts a capture. Start it before the packet is sent.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn capture(&self) -> io::Result<Capture> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let socket = self
            .run(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(all)))))
            .map_err(context("cannot capture"))?;
        Ok(Capture { socket })
    }

    /// Sends a whole IP packet, headers included, from any source address.
    /// Link-local and multicast destinations need `interface`. The module
    /// [`packet`] makes such packets.
    ///
    /// # Errors
    /// The bytes are no IP packet, the packet cannot be routed, or the firewall
    /// of the namespace drops it (`PermissionDenied`).
    pub fn send_raw(&self, interface: Option<&str>, bytes: &[u8]) -> io::Result<()> {
        let destination = packet::destination(bytes).ok_or_else(not_ip)?;
        let socket = self.raw_socket(destination, interface)?;
        send(&socket, destination, bytes)
    }

    /// Returns a sender for many packets, see [`send_raw`](Self::send_raw).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn raw_sender(&self) -> io::Result<RawSender> {
        Ok(RawSender {
            v4: self.raw_socket(Ipv4Addr::UNSPECIFIED.into(), None)?,
            v6: self.raw_socket(Ipv6Addr::UNSPECIFIED.into(), None)?,
        })
    }

    fn raw_socket(&self, destination: IpAddr, interface: Option<&str>) -> io::Result<Socket> {
        let socket = self.run(|| {
            // This protocol number means that the packet includes its header.
            let raw = Protocol::from(libc::IPPROTO_RAW);
            let to = SocketAddr::new(destination, 0);
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(raw))?;
            socket.bind_device(interface.map(str::as_bytes))?;
            Ok::<_, io::Error>(socket)
        })?;
        if destination.is_ipv4() {
            socket.set_broadcast(true)?;
        }
        Ok(socket)
    }
}

/// Sends whole IP packets from a namespace.
#[derive(Debug)]
pub struct RawSender {
    v4: Socket,
    v6: Socket,
}

impl RawSender {
    /// Sends a whole IP packet, see [`Netns::send_raw`].
    ///
    /// # Errors
    /// As [`Netns::send_raw`].
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let destination = packet::destination(bytes).ok_or_else(not_ip)?;
        send(if destination.is_ipv4() { &self.v4 } else { &self.v6 }, destination, bytes)
    }
}

fn send(socket: &Socket, destination: IpAddr, bytes: &[u8]) -> io::Result<()> {
    socket.send_to(bytes, &SocketAddr::new(destination, 0).into()).map(drop)
}

fn not_ip() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not an IP packet")
}

impl Capture {
    /// Waits for an IP packet that satisfies `accept` and returns it, from the
    /// IP header on. Returns `None` after `timeout`. Discards other packets.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut accept: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(remaining))?;
            let length = match self.socket.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let received = buffer.get(..length).unwrap_or_default();
            if packet::destination(received).is_some() && accept(received) {
                return Ok(Some(received.to_vec()));
            }
        }
    }
}
