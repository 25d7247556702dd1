//! The netlink socket: the only file of this crate that does I/O.

#![allow(unsafe_code, reason = "socket calls")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::wire::batch;

/// Larger than any single message that the kernel sends (dumps come in parts of at most 32 KiB,
/// one message with an attribute is at most 64 KiB).
const RECEIVE_BYTES: usize = 256 * 1024;
/// The part of the send buffer that netlink itself needs (`netlink_sendmsg`).
const SEND_OVERHEAD_BYTES: usize = 32;

pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// Most bytes of one send, as far as was asked.
    limit: usize,
}

impl Socket {
    /// Opens a socket. `protocol` is the subsystem (`NETLINK_*`).
    pub(crate) fn open(protocol: i32) -> Result<Socket, Error> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                // Without the subsystem there is no nf_tables either.
                Some(libc::EPROTONOSUPPORT) => Error::NoNftables(error),
                _ => error.into(),
            });
        }
        // SAFETY: the call succeeded, so the descriptor is open and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Socket { fd, buffer: vec![0; RECEIVE_BYTES], limit: 0 };
        // Errors name the place, and do not repeat the request.
        socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        // One error for each operation of a large table has to fit.
        socket.set_receive_buffer(4 << 20);
        Ok(socket)
    }

    /// Sends a request, and hands the answer over part by part. The kernel queues its answer, or
    /// the next part of a dump, before a call returns. A part holds whole messages.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        part: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.send(request)?;
        let mut is_first = true;
        loop {
            match self.receive() {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    part(received);
                    if std::mem::take(&mut is_first) && batch::is_done(request, received) {
                        return Ok(());
                    }
                }
                Err(error) => match error.raw_os_error() {
                    _ if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    // The last answers did not fit the receive buffer. The reader of the answers
                    // sees that they have no end.
                    Some(libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Sends a request. The kernel queues its answer, or the first part of a dump, before this returns,
    /// and each further part when one is received.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(), Error> {
        self.grow_send_buffer(request.len())?;
        // SAFETY: the pointer and length are of one slice.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::EPERM) => Error::Permission,
                _ => Error::Io(error),
            });
        }
        Ok(())
    }

    /// Sets the size of the receive buffer. Without privilege the system's own limit holds
    /// (`net.core.rmem_max`).
    pub(crate) fn set_receive_buffer(&self, bytes: i32) {
        if self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
        }
    }

    /// Subscribes to the events of the ruleset.
    pub(crate) fn subscribe_to_ruleset(&self, buffer_bytes: i32) -> io::Result<()> {
        self.set_receive_buffer(buffer_bytes);
        // SAFETY: all of its fields are numbers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or(0);
        // Joining the group alone is not enough: a socket that is not bound receives no event.
        address.nl_groups = 1 << (libc::NFNLGRP_NFTABLES - 1);
        let (fd, len) = (self.fd.as_raw_fd(), socklen::<libc::sockaddr_nl>());
        // SAFETY: the pointer is to a sockaddr_nl, and the length says so.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns the next messages that came together, if there are any. Never blocks.
    pub(crate) fn receive_messages(&mut self) -> io::Result<&[u8]> {
        let len = self.receive()?;
        Ok(self.buffer.get(..len).unwrap_or_default())
    }

    fn receive(&mut self) -> io::Result<usize> {
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: the pointer and length are of one buffer, which outlives the call.
        let len =
            unsafe { libc::recv(fd, self.buffer.as_mut_ptr().cast(), self.buffer.len(), flags) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// Makes the send buffer large enough for one send of this number of bytes.
    fn grow_send_buffer(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.limit {
            return Ok(());
        }
        self.limit = self.send_limit()?;
        if bytes > self.limit {
            // The kernel doubles the number. Forcing needs privilege outside of a user namespace;
            // otherwise the limit is net.core.wmem_max.
            let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2);
            if self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted).is_err() {
                self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, wanted)?;
            }
            self.limit = self.send_limit()?;
        }
        let limit = self.limit;
        if bytes > limit { Err(Error::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    fn send_limit(&self) -> io::Result<usize> {
        let (mut value, mut len) = (0i32, socklen::<i32>());
        let pointer = (&raw mut value).cast();
        // SAFETY: the pointer is to an i32, and `len` says so.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                pointer,
                &raw mut len,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(usize::try_from(value).unwrap_or(0).saturating_sub(SEND_OVERHEAD_BYTES))
    }

    fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        let pointer = (&raw const value).cast();
        // SAFETY: the pointer is to an i32, and the length says so.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, option, pointer, socklen::<i32>())
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}
