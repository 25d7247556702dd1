//! A user namespace, in which a plain user has the rights of root over its own namespaces.

use std::{fs, io, path::Path};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

/// Moves the whole process into a new user and network namespace, in which it
/// is root. A call by root drops the rights over the machine.
///
/// Call this function before the first thread starts. An earlier
/// [`Netns`](crate::Netns) is unusable afterwards.
///
/// ```standalone_crate
/// use nfguard_lab::{Probe, World, enter_user_namespace};
///
/// enter_user_namespace()?;
/// let world = World::new()?;
/// assert!(Probe::ping(&world.internet, World::HOST_V6).run().passed());
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// The kernel's refusal, with the setting that causes it, if it is known.
pub fn enter_user_namespace() -> io::Result<()> {
    // The IDs outside differ from those inside, so they are read before the call.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(refused)?;
    map_to_root(uid.as_raw(), gid.as_raw()).map_err(refused)
}

fn map_to_root(uid: u32, gid: u32) -> io::Result<()> {
    // An unprivileged process may map its group only after it gives up
    // setgroups(2).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn refused(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let hint = if setting("user/max_user_namespaces").as_deref() == Some("0") {
        "user namespaces are switched off; `sysctl user.max_user_namespaces=10000` allows them"
    } else if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        "user namespaces are reserved to root; `sysctl kernel.unprivileged_userns_clone=1` allows them"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "AppArmor restricts user namespaces; \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0` or a profile for this program allows them"
    } else if error.raw_os_error() == Some(nix::libc::EINVAL) && threads() != Some(1) {
        "the process already has several threads"
    } else if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        "this container's seccomp profile probably forbids it"
    } else {
        "a seccomp filter, a chroot or a limit on namespaces may be the cause"
    };
    io::Error::new(error.kind(), format!("cannot make a user namespace: {error} ({hint})"))
}

fn setting(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
