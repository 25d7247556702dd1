//! Servers that answer the probes.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{Netns, context};

/// A server on a thread of its own. Its port and its connections close on
/// drop.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    socket: Arc<Socket>,
    stop: Arc<AtomicBool>,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

type Connections = Mutex<HashMap<u64, TcpStream>>;

impl Netns {
    /// Serves TCP at `address`. Each connection gets the address of its peer
    /// and a newline, and then an echo of all its data, until the peer closes.
    ///
    /// The address may be a wildcard, and port 0 lets the kernel choose.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve_tcp(&self, address: impl Into<SocketAddr>) -> io::Result<Server> {
        let socket = Arc::new(self.bound(Type::STREAM, address.into())?);
        socket.listen(1024)?;
        let listener: TcpListener = socket.try_clone()?.into();
        Server::start(socket, move |stop, connections| {
            accept_all(&listener, stop, connections);
        })
    }

    /// Serves UDP at `address`: each datagram returns to its sender.
    ///
    /// The address must be the destination of the probes. With a wildcard, the
    /// answer would leave with the address of the interface, and the probe would
    /// not accept it. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// The port is taken, or the address is a wildcard.
    pub fn serve_udp(&self, address: impl Into<SocketAddr>) -> io::Result<Server> {
        let address = address.into();
        if address.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a UDP server needs one address to answer from, not {address}"),
            ));
        }
        let socket = Arc::new(self.bound(Type::DGRAM, address)?);
        let udp = Arc::clone(&socket);
        Server::start(socket, move |stop, _| echo_datagrams(&udp, stop))
    }

    fn bound(&self, kind: Type, address: SocketAddr) -> io::Result<Socket> {
        self.run(|| {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            socket.set_reuse_address(true)?;
            allow_routed_source(&socket, address)?;
            socket.bind(&address.into())?;
            Ok(socket)
        })
        .map_err(context(format_args!("cannot serve {address}")))
    }
}

impl Server {
    /// Returns the address of the server, with the port that the kernel chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(
        socket: Arc<Socket>,
        serve: impl FnOnce(&AtomicBool, &Arc<Connections>) + Send + 'static,
    ) -> io::Result<Self> {
        let address =
            socket.local_addr()?.as_socket().expect("a socket bound to an IP address has one");
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Connections::default());
        let thread = {
            let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
            thread::spawn(move || serve(&stop, &connections))
        };
        Ok(Self { address, socket, stop, connections, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The shutdown wakes the thread although neither socket is connected:
        // TCP by an error from accept(2), UDP by an empty read. The error of the
        // shutdown itself means nothing.
        let _ = self.socket.shutdown(Shutdown::Both);
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        // A panic of the thread is reported, unless another panic came first.
        assert!(!panicked || thread::panicking(), "the server at {} panicked", self.address);
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Lets an IPv6 socket use an address that is routed to the namespace but not
/// configured on an interface. IPv4 allows that by default.
pub(crate) fn allow_routed_source(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => Ok(()),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

fn accept_all(listener: &TcpListener, stop: &AtomicBool, connections: &Arc<Connections>) {
    for number in 0.. {
        let accepted = listener.accept();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let accepted = accepted.and_then(|(stream, peer)| Ok((stream.try_clone()?, stream, peer)));
        let Ok((held, stream, peer)) = accepted else {
            // The peer has closed, or descriptors are short for a moment.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        connections.lock().unwrap_or_else(PoisonError::into_inner).insert(number, held);
        let connections = Arc::clone(connections);
        thread::spawn(move || {
            // A peer may close at any time.
            let _ = converse(&stream, peer);
            connections.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        });
    }
}

fn converse(mut stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    SockRef::from(stream).set_tcp_nodelay(true)?;
    stream.write_all(format!("{peer}\n").as_bytes())?;
    let mut reader = stream;
    io::copy(&mut reader, &mut stream)?;
    Ok(())
}

fn echo_datagrams(mut socket: &Socket, stop: &AtomicBool) {
    let mut datagram = vec![0; 64 * 1024];
    loop {
        // A read that a shutdown ends has no sender, and `recv_from` of std panics then.
        let sender = socket.peek_sender();
        if stop.load(Ordering::SeqCst) {
            return;
        }
        if let (Ok(sender), Ok(length)) = (sender, socket.read(&mut datagram))
            && let Some(datagram) = datagram.get(..length)
        {
            // A firewall may drop the answer. The probe reports it.
            let _ = socket.send_to(datagram, &sender);
        }
    }
}
