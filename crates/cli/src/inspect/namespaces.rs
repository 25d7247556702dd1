//! Interfaces in other network namespaces that are built on those of this one. Of these, the kernel tells
//! only who looks from the other side. They are only read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nfguard_netlink::{Link, Rtnetlink};
use nix::sched::{CloneFlags, setns};

/// The kinds of interfaces that share the hardware of another one.
pub(crate) const SHARING_KINDS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Returns the interfaces of other network namespaces that share one elsewhere, with who holds the
/// namespace. `open` has further files that are network namespaces. A namespace that this process may
/// not enter is left out.
pub(crate) fn sharing_links(open: Vec<PathBuf>) -> Vec<(Link, String)> {
    let own = fs::metadata("/proc/thread-self/ns/net").map(|file| (file.dev(), file.ino())).ok();
    let mut others = BTreeMap::new();
    for path in of_processes().into_iter().chain(mounted()).chain(open) {
        if let Ok(file) = fs::metadata(&path)
            && Some((file.dev(), file.ino())) != own
        {
            others.entry(file.ino()).or_insert(path);
        }
    }
    // The thread is left in the last namespace, and ends.
    let links = thread::spawn(move || {
        let found = others.into_values().filter_map(|path| Some((links(&path)?, holder(&path))));
        found
            .flat_map(|(links, holder)| links.into_iter().map(move |link| (link, holder.clone())))
            .collect::<Vec<_>>()
    });
    links.join().unwrap_or_default()
}

/// Returns the interfaces of a network namespace that share one of another. Enters the namespace.
fn links(path: &Path) -> Option<Vec<Link>> {
    setns(File::open(path).ok()?, CloneFlags::CLONE_NEWNET).ok()?;
    let links = Rtnetlink::open().and_then(|mut rtnetlink| rtnetlink.links()).ok()?;
    let sharing = links
        .into_values()
        .filter(|link| link.is_linked_elsewhere && SHARING_KINDS.contains(&link.kind.as_str()));
    Some(sharing.collect())
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

/// `process 812 (nginx)`, `/run/netns/blue`
fn holder(path: &Path) -> String {
    let process = path.strip_prefix("/proc").ok().and_then(|path| path.iter().next());
    let Some(id) = process.and_then(|id| id.to_str()) else { return path.display().to_string() };
    // A process chooses its own name, and a terminal shows it.
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    format!("process {id} ({})", name.trim_end().replace(char::is_control, ""))
}
