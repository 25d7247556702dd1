//! The sandbox, which the guard enters once it runs.
//!
//! Inside it can change the firewall of its network namespace, read what tells of this host, append to the
//! log of bans, which it has open, and answer on its sockets. It cannot open a file to write or make one,
//! start a program, connect to anything, listen, or change its user.
//!
//! Landlock says which files it can read, and seccomp which calls it can make. What neither forbids: a
//! message to a datagram socket in the file system, by which the journal is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::denied_call;

/// The folders that tell of this host: its addresses, logins, name servers and SSH settings.
const READABLE: [&str; 4] = ["/etc", "/proc", "/run", "/sys"];
/// Files there that may be links to another place.
const LINKS: [&str; 2] = ["/etc/resolv.conf", "/etc/ssh/sshd_config"];

/// Puts the calling thread into the sandbox for good. Call it before there is a second thread.
pub(super) fn enter() -> io::Result<()> {
    let keep = capabilities(None)?.permitted & CapabilitySet::NET_ADMIN;
    clear_ambient_capability_set()?;
    for capability in CapabilitySet::all().iter() {
        // Without the privilege to do it, the set is of no use either.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let sets =
        CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    if !restrict_files().map_err(io::Error::other)? {
        log::info!("this kernel has no Landlock: the guard can read every file that root can");
    }
    denied_call::install()?;
    for filter in [new_processes(), filter()] {
        let filter = filter.map_err(io::Error::other)?;
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Leaves files to read in some folders alone, and no network. What the kernel is too old for is left out.
/// Returns whether files are restricted.
fn restrict_files() -> Result<bool, RulesetError> {
    let behind = |link: &&str| Some(fs::canonicalize(link).ok()?.parent()?.to_owned());
    let behind: Vec<PathBuf> = LINKS.iter().filter_map(behind).collect();
    let readable = READABLE.iter().map(Path::new).chain(behind.iter().map(PathBuf::as_path));
    let rules = path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(rules)?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Returns the filter of the calls that make threads and processes. They fail without a signal: the C
/// libraries block all signals around them, and a blocked `SIGSYS` ends the process.
fn new_processes() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = NEW_PROCESSES.iter().map(|call| (*call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let eperm = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch)?.try_into()
}

/// Returns the filter of system calls. Any other call fails with `EPERM`, and its number is noted: a
/// call that was forgotten here is a warning in the log and does not end the guard.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(NEW_PROCESSES).map(|call| (*call, Vec::new())).collect();
    let only_reads = |argument| {
        let bits = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
        only(argument, SeccompCmpOp::MaskedEq(bits), libc::O_RDONLY)
    };
    rules.insert(libc::SYS_openat, vec![only_reads(2)?]);
    // musl opens by this one, glibc by the one above.
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![only_reads(1)?]);
    let is_netlink = only(0, SeccompCmpOp::Eq, libc::AF_NETLINK)?;
    rules.insert(libc::SYS_socket, vec![is_netlink]);
    let set_nonblocking = only(1, SeccompCmpOp::Eq, libc::FIONBIO as libc::c_int)?;
    rules.insert(libc::SYS_ioctl, vec![set_nonblocking]);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch)?.try_into()
}

fn only(
    argument: u8,
    compare: SeccompCmpOp,
    value: i32,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        compare,
        value,
    )?])
}

/// The calls that make threads and processes, or replace this one.
const NEW_PROCESSES: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// The calls that the standard library, the sockets and the memory need.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fdatasync,
    libc::SYS_ppoll,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    // What musl asks where glibc asks `newfstatat` or `statx`.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
];

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::TcpStream;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::process::Command;
    use std::thread;

    use super::*;

    /// The calls by which the C libraries make and remove a file.
    #[cfg(target_arch = "x86_64")]
    const CREATES: &[i64] = &[libc::SYS_openat, libc::SYS_open];
    #[cfg(not(target_arch = "x86_64"))]
    const CREATES: &[i64] = &[libc::SYS_openat];
    #[cfg(target_arch = "x86_64")]
    const REMOVES: &[i64] = &[libc::SYS_unlinkat, libc::SYS_unlink];
    #[cfg(not(target_arch = "x86_64"))]
    const REMOVES: &[i64] = &[libc::SYS_unlinkat];

    #[test]
    fn in_the_sandbox_files_are_read_and_nothing_is_written_started_or_connected() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "text").expect("it can be written before");
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("it can listen before");
        let datagram = UnixDatagram::unbound().expect("it can be made before");
        let is_restricted = thread::scope(|scope| scope.spawn(restrict_files).join());
        let is_restricted = is_restricted.expect("no panic").expect("restricts");
        let outcome = thread::scope(|scope| {
            let sandboxed = scope.spawn(|| {
                enter().expect("enters");
                fs::read_to_string("/proc/self/stat").expect("it can be read");
                fs::read_dir("/etc").expect("it can be listed");
                assert_eq!(fs::read_to_string(&path).is_err(), is_restricted);
                let refused = [
                    File::create(&path).err(),
                    fs::remove_file(&path).err(),
                    Command::new("/bin/true").spawn().err(),
                    TcpStream::connect(("127.0.0.1", 9)).err(),
                    UnixStream::connect(&socket).err(),
                    UnixListener::bind(folder.path().join("other")).err(),
                    datagram.connect(&socket).err(),
                ];
                refused.map(|error| error.map(|error| error.kind()))
            });
            sandboxed.join()
        });
        let refused = Some(io::ErrorKind::PermissionDenied);
        assert_eq!(outcome.expect("no panic"), [refused; 7]);
        let denied = denied_call::take_new();
        for calls in [CREATES, REMOVES, &[libc::SYS_connect], &[libc::SYS_socket]] {
            let is_denied = |call: &u32| calls.contains(&i64::from(*call));
            assert!(denied.iter().any(is_denied), "{calls:?} {denied:?}");
        }
        assert_eq!(denied_call::take_new(), [0; 0], "each is told once");
        assert!(Command::new("/bin/true").status().expect("it starts").success(), "the control");
        UnixStream::connect(&socket).expect("the control");
        drop(listener);
    }
}
