//! The sockets where clients connect, and what each client may do.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use nfguard_api::local_socket::{LocalAddress, LocalListener, is_trusted, peer_credentials};

use super::client::{ConnectionKind, Right};
use super::{MetricsAddress, Options};
use crate::{Error, trusted_file};

/// The permission of others to write to a socket, and so to connect.
const OTHERS: u32 = 0o006;

/// A socket where clients connect.
pub(super) enum Listener {
    /// The name of this network namespace, for other runs of nfguard.
    Namespace(LocalListener),
    /// The socket in the file system, for the users that its mode allows.
    File { socket: LocalListener, group: Option<u32>, mode: u32 },
    /// Metrics over TCP.
    MetricsTcp(TcpListener),
    /// Metrics over a socket in the file system.
    MetricsFile(LocalListener),
}

/// Opens all sockets but that of the namespace.
pub(super) fn open(options: &Options, namespace: LocalListener) -> Result<Vec<Listener>, Error> {
    let mut all = vec![Listener::Namespace(namespace)];
    let path = &options.socket;
    let socket = listen(path).and_then(|socket| {
        // Another user could have put another file in its place.
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        trusted_file::open_own_folder(folder.unwrap_or(Path::new(".")))?;
        chown(path, None, options.group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(options.mode))?;
        Ok(socket)
    });
    let socket = socket.map_err(Error::file(path))?;
    all.push(Listener::File { socket, group: options.group, mode: options.mode });
    match &options.metrics {
        None => {}
        Some(MetricsAddress::Tcp(address)) => {
            let socket = TcpListener::bind(address)
                .map_err(|error| Error::File(address.to_string(), error))?;
            all.push(Listener::MetricsTcp(socket));
        }
        Some(MetricsAddress::File(path)) => {
            all.push(Listener::MetricsFile(listen(path).map_err(Error::file(path))?));
        }
    }
    for listener in &all {
        listener.set_nonblocking().map_err(|error| Error::Guard(error.to_string()))?;
    }
    Ok(all)
}

fn listen(path: &Path) -> io::Result<LocalListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    LocalAddress::File(path.to_owned()).listen()
}

impl Listener {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Namespace(socket)
            | Listener::File { socket, .. }
            | Listener::MetricsFile(socket) => socket.set_nonblocking(true),
            Listener::MetricsTcp(socket) => socket.set_nonblocking(true),
        }
    }

    /// Accepts the next connection; `None` for one whose client may do nothing.
    pub(super) fn accept(&self) -> io::Result<Option<(OwnedFd, ConnectionKind)>> {
        let (stream, kind) = match self {
            Listener::MetricsTcp(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                return Ok(Some((stream.into(), ConnectionKind::Metrics)));
            }
            Listener::MetricsFile(socket) => (socket.accept()?.0, Some(ConnectionKind::Metrics)),
            Listener::Namespace(socket) => {
                let (stream, _) = socket.accept()?;
                let is_root = is_trusted(peer_credentials(&stream)?.user);
                (stream, is_root.then_some(ConnectionKind::Api(Right::Load)))
            }
            Listener::File { socket, group, mode } => {
                let (stream, _) = socket.accept()?;
                let peer = peer_credentials(&stream)?;
                // The kernel names only the first group of a client. Where the mode keeps others
                // out, each client that could connect is in the socket's group.
                let is_member = mode & OTHERS == 0 || Some(peer.group) == *group;
                let right = match (is_trusted(peer.user), is_member) {
                    (true, _) => Right::Load,
                    (false, true) => Right::Write,
                    (false, false) => Right::Read,
                };
                (stream, Some(ConnectionKind::Api(right)))
            }
        };
        stream.set_nonblocking(true)?;
        Ok(kind.map(|kind| (stream.into(), kind)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Namespace(socket)
            | Listener::File { socket, .. }
            | Listener::MetricsFile(socket) => socket.as_fd(),
            Listener::MetricsTcp(socket) => socket.as_fd(),
        }
    }
}
