//! The network namespaces of this machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ssh::ancestors;

/// A network namespace other than that of the thread that found it.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
    place: PathBuf,
    is_of_this_user: bool,
}

impl NetworkNamespace {
    /// Returns each network namespace but this thread's, once, as far as this process may open it:
    /// those that processes are in, those that `ip netns` or Docker keeps at a file, and those of the
    /// files `more`. The kernel has no list of them.
    #[must_use]
    pub fn others(more: Vec<PathBuf>) -> Vec<NetworkNamespace> {
        let own = identity(Path::new("/proc/thread-self/ns/net"));
        let user = identity(Path::new("/proc/thread-self/ns/user"));
        let mut others = BTreeMap::new();
        for place in of_processes().into_iter().chain(mounted()).chain(more) {
            // The namespace is opened before its process's user namespace is asked: no process comes
            // back from one of its own.
            let Ok(file) = File::open(&place) else { continue };
            let Ok(number) = file.metadata().map(|file| (file.dev(), file.ino())) else { continue };
            let is_of_this_user = user.is_some() && identity(&place.with_file_name("user")) == user;
            let is_known = |known: &NetworkNamespace| known.is_of_this_user || !is_of_this_user;
            if Some(number) != own && !others.get(&number).is_some_and(is_known) {
                others.insert(number, NetworkNamespace { file, place, is_of_this_user });
            }
        }
        others.into_values().collect()
    }

    /// Tells whether a process that has the user namespace of the finding thread is in it. An
    /// unprivileged user can make no such network namespace.
    #[must_use]
    pub fn is_of_this_user(&self) -> bool {
        self.is_of_this_user
    }

    /// Runs a function in a thread that has entered the namespace, which needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// This process may not enter.
    pub fn run<T: Send>(&self, read: impl FnOnce() -> T + Send) -> io::Result<T> {
        let enter_and_read = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(read())
        };
        // The thread stays in the namespace, and ends.
        let outcome = thread::scope(|scope| scope.spawn(enter_and_read).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Returns what keeps the namespace: `process 812 (nginx)`, `/run/netns/blue`.
    #[must_use]
    pub fn holder(&self) -> String {
        let process = self.place.strip_prefix("/proc").ok().and_then(|path| path.iter().next());
        let Some(id) = process.and_then(|id| id.to_str()) else {
            return self.place.display().to_string();
        };
        // A process chooses its own name, and a terminal shows it.
        let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        format!("process {id} ({})", name.trim_end().replace(char::is_control, ""))
    }
}

/// Tells whether this thread is in another network namespace than an ancestor of this process, as
/// after `ip netns exec`. An ancestor that this process may not look at does not count.
#[must_use]
pub fn is_in_other_namespace_than_ancestors() -> bool {
    let own = identity(Path::new("/proc/thread-self/ns/net"));
    let theirs = ancestors().map(|process| identity(Path::new(&format!("/proc/{process}/ns/net"))));
    theirs.into_iter().any(|theirs| theirs.is_some() && theirs != own)
}

fn identity(namespace: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(namespace).ok()?;
    Some((file.dev(), file.ino()))
}

fn of_processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &[u8]| name.first().is_some_and(u8::is_ascii_digit);
    let processes = entries.filter(|entry| is_process(entry.file_name().as_encoded_bytes()));
    processes.map(|entry| entry.path().join("ns/net")).collect()
}

/// Returns the files at which `ip netns` or Docker keeps a network namespace.
fn mounted() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let namespace = |line: &str| {
        let mut words = line.split(' ').skip(3);
        let (root, place) = (words.next()?, words.next()?);
        root.starts_with("net:[").then(|| PathBuf::from(place))
    };
    mounts.lines().filter_map(namespace).collect()
}
