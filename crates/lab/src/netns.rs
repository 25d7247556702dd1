//! A network namespace that lives as long as its value.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic, thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::context;

/// A network namespace. It is empty except for a loopback interface that is up.
///
/// The namespace ends with the value and with the last socket or child process
/// in it.
#[derive(Debug)]
pub struct Netns {
    handle: File,
    id: u64,
}

/// The settings that make packets in a new namespace pass without delay or
/// chance.
const SETTINGS: [(&str, &str); 9] = [
    // The namespace may have inherited defaults of the operator.
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/addr_gen_mode", "0"),
    // An address under duplicate detection cannot be used for a second or more.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    // By default the kernel limits its ICMP errors, about one a second for a
    // destination and fifty at once for all, and a rejected probe would look
    // like a dropped one. With no type in the mask, neither limit applies.
    ("ipv4/icmp_ratemask", "0"),
    ("ipv6/icmp/ratemask", "\n"),
];

impl Netns {
    /// Makes a new namespace. It needs `CAP_SYS_ADMIN` over the user namespace
    /// of the process.
    ///
    /// # Errors
    /// The kernel's refusal. Without the capability, the error says what to do.
    pub fn new() -> io::Result<Self> {
        let handle = in_new_thread(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map_err(context(
                "cannot make a network namespace (a user namespace must be entered first, or root)",
            ))?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let id = handle.metadata()?.ino();
        let netns = Self { handle, id };
        for (name, value) in SETTINGS {
            netns.sysctl(name, value)?;
        }
        netns.up("lo")?;
        Ok(netns)
    }

    /// Returns the inode that identifies the network namespace, as
    /// `/proc/PID/ns/net` shows it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Runs `f` on a new thread inside the namespace and waits for its result.
    ///
    /// Sockets made by `f` stay in the namespace and may be used anywhere
    /// afterwards; child processes that `f` starts are in it as well. Calls
    /// from several threads run in parallel. A panic of `f` continues in the
    /// caller.
    ///
    /// # Panics
    /// When `f` does, or when the process has lost the right to enter.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_new_thread(|| {
            setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)
                .expect("the namespace can be entered by the process that made it");
            f()
        })
    }

    /// Writes `value` to the setting `name`, a path below `/proc/sys/net` such
    /// as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// The setting does not exist, does not belong to a namespace, or refuses
    /// the value.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        if name.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no path below /proc/sys/net"),
            ));
        }
        // /proc/sys/net shows each thread the namespace that the thread is in.
        self.run(|| fs::write(format!("/proc/sys/net/{name}"), value))
            .map_err(context(format_args!("cannot set net/{name} to {value}")))
    }
}

fn in_new_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope.spawn(f).join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}
