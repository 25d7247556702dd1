//! Namespaces in which a benchmark cannot reach the machine.

use std::{env, fs, os::unix::fs::MetadataExt};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::Result;

/// Enters a mount namespace that no other process sees. Call it before the first thread starts.
///
/// # Errors
/// The process is still in the first network namespace, or the kernel makes no mount namespace.
pub fn enter() -> Result<()> {
    let outside: Option<u64> =
        env::var("NFGUARD_NETNS_TEST").ok().and_then(|inode| inode.parse().ok());
    let here = fs::metadata("/proc/self/ns/net")?.ino();
    if outside.is_none_or(|outside| outside == here) {
        return Err("run me with `cargo xtask bench`: I only run in a namespace made for me".into());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // A higher priority, if it is permitted. Child processes inherit it.
    let _ = rustix::process::nice(-19);
    Ok(())
}
