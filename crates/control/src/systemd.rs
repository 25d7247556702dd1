//! What systemd is told, if it started this process.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How much longer systemd waits each time that it is told.
const EXTENSION: Duration = Duration::from_secs(60);
/// Time between two extensions.
const INTERVAL: Duration = Duration::from_secs(10);
/// Most extensions: what takes longer than an hour has not long to live.
const MAX_EXTENSIONS: u32 = 360;

/// Tells systemd something, if it wants to know.
pub(crate) fn notify(text: &str) {
    if let Err(error) = send(text) {
        log::warn!("systemd cannot be told {:?}: {error}", text.trim_end());
    }
}

fn send(text: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let name = name.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*name),
    };
    let socket = UnixDatagram::unbound()?;
    // To wait for systemd is worse than that it does not hear.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address?)?;
    Ok(())
}

/// Has systemd wait until the value is dropped, whatever the time limits of the unit: there may be millions
/// of bans.
#[derive(Debug)]
pub struct ExtendedTimeout(Option<(Sender<()>, JoinHandle<()>)>);

impl ExtendedTimeout {
    /// Tells systemd from now on, on a thread of its own. Without systemd it does nothing.
    pub fn start() -> ExtendedTimeout {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return ExtendedTimeout(None);
        }
        let text = format!("EXTEND_TIMEOUT_USEC={}\n", EXTENSION.as_micros());
        notify(&text);
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            for _ in 0..MAX_EXTENSIONS {
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                notify(&text);
            }
        });
        ExtendedTimeout(Some((stop, thread)))
    }
}

impl Drop for ExtendedTimeout {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}
