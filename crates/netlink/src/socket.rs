//! The netlink socket: the one file of this crate that talks to the kernel.

#![allow(unsafe_code, reason = "socket calls")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::wire::batch;

/// Larger than any single message that the kernel sends (dumps come in parts of at most 32 KiB,
/// one message with an attribute is at most 64 KiB).
const RECEIVE: usize = 256 * 1024;
/// What netlink itself takes from the send buffer (`netlink_sendmsg`).
const OVERHEAD: usize = 32;

pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    /// Most bytes of one send, as far as is known.
    limit: usize,
}

impl Socket {
    /// `protocol`: which subsystem is spoken to (`NETLINK_*`).
    pub(crate) fn open(protocol: i32) -> Result<Socket, Error> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                // Not even what nf_tables is spoken to through.
                Some(libc::EPROTONOSUPPORT) => Error::NoNftables(error),
                _ => error.into(),
            });
        }
        // SAFETY: the call succeeded, so the descriptor is open and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Socket { fd, buffer: vec![0; RECEIVE], limit: 0 };
        // Errors say where, and do not repeat what was sent.
        socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        // A table's worth of errors must fit.
        socket.let_wait(4 << 20);
        Ok(socket)
    }

    /// Sends once, then hands over all that has come back, part by part: the kernel has queued its
    /// answers, or the next part of a dump, before a call returns. A part holds whole messages.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        part: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.make_room(request.len())?;
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
                    // The last answers did not fit the receive buffer. The reader of the first ones
                    // sees from them that something is missing.
                    Some(libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Makes room for so many bytes of what comes and was not received yet. Without privilege it is
    /// less: what the system lets everybody have.
    pub(crate) fn let_wait(&self, bytes: i32) {
        if self.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            let _ = self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
        }
    }

    /// Hears of each change to the ruleset from now on.
    pub(crate) fn hear_of_nftables(&self, waiting: i32) -> io::Result<()> {
        self.let_wait(waiting);
        // SAFETY: all of its fields are numbers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or(0);
        // Joining alone is not enough: a socket without a number of its own is told nothing.
        address.nl_groups = 1 << (libc::NFNLGRP_NFTABLES - 1);
        let (fd, len) = (self.fd.as_raw_fd(), socklen::<libc::sockaddr_nl>());
        // SAFETY: the pointer is to a sockaddr_nl, and the length says so.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// One message, or several that came together, if there is one.
    pub(crate) fn receive_message(&mut self) -> io::Result<&[u8]> {
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

    /// Makes the send buffer large enough for one send of `bytes`.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes <= self.limit {
            return Ok(());
        }
        self.limit = self.send_limit()?;
        if bytes > self.limit {
            // The kernel doubles what it is given. Forcing needs privilege outside of a user
            // namespace; asking gets at most net.core.wmem_max.
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
        Ok(usize::try_from(value).unwrap_or(0).saturating_sub(OVERHEAD))
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
