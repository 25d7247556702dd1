//! Where clients come in, and what each may do.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::client::Right;
use super::{Options, Scraped};

use crate::Error;
use nfguard_api::local_socket::is_trusted;

/// A place where clients come in.
pub(super) enum Listener {
    /// Of this network namespace, for other runs of nfguard.
    Inner(UnixListener),
    /// A file, for whoever may write it.
    Outer {
        socket: UnixListener,
        group: Option<u32>,
        mode: u32,
    },
    /// For Prometheus.
    Tcp(TcpListener),
    Unix(UnixListener),
}

pub(super) fn open(options: &Options, inner: UnixListener) -> Result<Vec<Listener>, Error> {
    let mut all = vec![Listener::Inner(inner)];
    let path = &options.socket;
    let outer = file(path).and_then(|socket| {
        chown(path, None, options.group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(options.mode))?;
        Ok(socket)
    });
    let socket = outer.map_err(Error::file(path))?;
    all.push(Listener::Outer { socket, group: options.group, mode: options.mode });
    match &options.metrics {
        None => {}
        Some(Scraped::Tcp(address)) => {
            let socket = TcpListener::bind(address)
                .map_err(|error| Error::File(address.to_string(), error))?;
            all.push(Listener::Tcp(socket));
        }
        Some(Scraped::File(path)) => {
            all.push(Listener::Unix(file(path).map_err(Error::file(path))?));
        }
    }
    for listener in &all {
        listener.do_not_block().map_err(|error| Error::Guard(error.to_string()))?;
    }
    Ok(all)
}

/// In place of a socket that nobody listens at any more.
fn file(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

impl Listener {
    fn do_not_block(&self) -> io::Result<()> {
        match self {
            Listener::Inner(socket) | Listener::Outer { socket, .. } | Listener::Unix(socket) => {
                socket.set_nonblocking(true)
            }
            Listener::Tcp(socket) => socket.set_nonblocking(true),
        }
    }

    /// The next client, and what it may do; `None` for one that may do nothing.
    pub(super) fn accept(&self) -> io::Result<Option<(OwnedFd, Right)>> {
        let (stream, right) = match self {
            Listener::Tcp(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                return Ok(Some((stream.into(), Right::Scrape)));
            }
            Listener::Unix(socket) => (socket.accept()?.0, Some(Right::Scrape)),
            Listener::Inner(socket) => {
                let (stream, _) = socket.accept()?;
                let user = getsockopt(&stream, PeerCredentials)?.uid();
                (stream, is_trusted(user).then_some(Right::Load))
            }
            Listener::Outer { socket, group, mode } => {
                let (stream, _) = socket.accept()?;
                let peer = getsockopt(&stream, PeerCredentials)?;
                // The kernel tells a client's first group alone. Where strangers cannot connect at
                // all, whoever has connected is in the socket's group.
                let is_member = mode & 0o006 == 0 || Some(peer.gid()) == *group;
                let right = match (is_trusted(peer.uid()), is_member) {
                    (true, _) => Right::Load,
                    (false, true) => Right::Write,
                    (false, false) => Right::Read,
                };
                (stream, Some(right))
            }
        };
        stream.set_nonblocking(true)?;
        Ok(right.map(|right| (stream.into(), right)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Inner(socket) | Listener::Outer { socket, .. } | Listener::Unix(socket) => {
                socket.as_fd()
            }
            Listener::Tcp(socket) => socket.as_fd(),
        }
    }
}
