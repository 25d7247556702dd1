//! The one way to open what root reads and writes.
//!
//! | What | By | Refused |
//! |---|---|---|
//! | a policy that root loads | [`read_policy`] | another user may write it, or a folder on the way to it |
//! | what an operator names | [`read_input`] | a pipe or device of another user |
//! | a file of the state's folder | [`read_own`], [`open_own`] | the folder is another user's or others may write there; the file is a link, or no regular file |
//! | a file that is replaced | [`to_replace`] | a link that another user made, or no regular file |
//!
//! The other end of a pipe is waited for with a time limit, and what is read has a limit of bytes.

use std::env;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, IsTerminal as _, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags, fgetxattr, getxattr, makedev, open, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Most bytes of a policy.
const MAX_POLICY_BYTES: u64 = 16 << 20;
/// Most bytes of a list, a feed, saved bans, or a record of the history: some millions of lines.
const MAX_INPUT_BYTES: u64 = 1 << 30;

/// Longest wait for the next bytes of a pipe.
const PIPE_TIMEOUT_MS: u16 = 60_000;

/// The permissions of a folder: each user may rename the own files alone.
const STICKY: u32 = 0o1000;
/// The permission of the group, or of all others, to write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// No wait for the other end of a pipe, and no terminal becomes this process's.
const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Reads a policy that root loads. It refuses one that another user may write, or put another one in
/// its place: at the next load that user would be as good as root.
pub(crate) fn read_policy(path: &Path) -> io::Result<Vec<u8>> {
    // The file that is looked at is the one that is read, even if files are renamed meanwhile.
    let file = File::from(open(path, OFlags::RDONLY | FLAGS, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() {
        let real = fs::canonicalize(path)?;
        if let Some(who) = writer_of_way(&real)? {
            return Err(denied(&format!(
                "nothing was loaded: {who}, and may not change the firewall"
            )));
        }
        let who = other_writer(&metadata, acl(|buffer| fgetxattr(&file, ACL, buffer))?);
        if let Some(who) = who {
            let why = format!("{who} may write this file, and may not change the firewall");
            return Err(denied(&format!("nothing was loaded: {why}")));
        }
        // From here on no other user can change what is at this path.
        let found = fs::symlink_metadata(&real)?;
        if (found.dev(), found.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(denied("nothing was loaded: the file was replaced meanwhile"));
        }
    }
    read_at_most(file, &metadata, MAX_POLICY_BYTES)
}

/// Reads a file that an operator names, for what it says and not for whose it is.
pub(crate) fn read_input(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::from(open(path, OFlags::RDONLY | FLAGS, Mode::empty())?);
    let metadata = file.metadata()?;
    read_at_most(file, &metadata, MAX_INPUT_BYTES)
}

/// Reads standard input, which its operator waits for.
pub(crate) fn read_standard_input() -> io::Result<Vec<u8>> {
    read_whole(io::stdin(), MAX_INPUT_BYTES)
}

/// Reads a file of this user's own folder.
pub(crate) fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(open_own(path, OFlags::RDONLY)?, MAX_INPUT_BYTES)
}

/// Opens a file of this user's own folder, or makes it with these flags, for its owner alone.
pub(crate) fn open_own(path: &Path, flags: OFlags) -> io::Result<File> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidFilename.into());
    };
    let folder = open_own_folder(folder)?;
    let file = open_regular(&folder, Path::new(name), flags)?;
    let metadata = file.metadata()?;
    if let Some(who) = owner(&metadata) {
        return Err(denied(&format!("it is a file of {who}")));
    }
    // There, another user may have given another file of root's this name.
    if folder.metadata()?.mode() & STICKY != 0 && metadata.nlink() > 1 {
        return Err(denied("it has another name as well"));
    }
    Ok(file)
}

/// Opens a regular file, or makes it with these flags, for its owner alone.
pub(crate) fn open_regular(folder: impl AsFd, name: &Path, flags: OFlags) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat(folder, name, flags | FLAGS | OFlags::NOFOLLOW, mode);
    let file = File::from(file.map_err(|errno| match errno {
        Errno::LOOP => io::Error::new(ErrorKind::InvalidInput, "it is a link"),
        // A pipe that nothing reads.
        Errno::NXIO => not_regular(),
        errno => errno.into(),
    })?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Opens a folder that is this user's own, in which no other user may rename files.
pub(crate) fn open_own_folder(folder: &Path) -> io::Result<File> {
    let named = fs::symlink_metadata(folder)?;
    if named.is_symlink() && !is_trusted(named.uid()) {
        return Err(link_of(&named));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = File::from(open(folder, flags, Mode::empty())?);
    let acl = acl(|buffer| fgetxattr(&opened, ACL, buffer))?;
    match writer_in(&opened.metadata()?, acl) {
        None => Ok(opened),
        Some(who) => Err(denied(&format!("{who} may write in the folder {}", folder.display()))),
    }
}

/// Returns the path, behind a link, of a file that may be replaced or renamed.
pub(crate) fn to_replace(path: &Path) -> io::Result<PathBuf> {
    let mut metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path.to_owned()),
        metadata => metadata?,
    };
    let mut path = path.to_owned();
    if metadata.is_symlink() {
        if !is_trusted(metadata.uid()) {
            return Err(link_of(&metadata));
        }
        path = fs::canonicalize(path)?;
        metadata = fs::symlink_metadata(&path)?;
    }
    if metadata.is_file() { Ok(path) } else { Err(not_regular()) }
}

/// Says which user may change what is at this path: the owner of a folder on the way to it, or who may
/// write in one.
fn writer_of_way(real: &Path) -> io::Result<Option<String>> {
    let mut folders: Vec<&Path> = real.ancestors().skip(1).collect();
    // From the root on, each folder that is looked at can be exchanged no more.
    folders.reverse();
    for folder in folders {
        let metadata = fs::symlink_metadata(folder)?;
        let acl = acl(|buffer| getxattr(folder, ACL, buffer))?;
        if let Some(who) = writer_in(&metadata, acl) {
            return Ok(Some(format!("{who} may write this file through {}", folder.display())));
        }
    }
    Ok(None)
}

/// Returns the user who may rename the files of others in a folder, besides root and the operator.
fn writer_in(folder: &Metadata, acl: Option<Vec<u8>>) -> Option<String> {
    match folder.mode() & STICKY {
        0 => other_writer(folder, acl),
        _ => owner(folder),
    }
}

/// Returns the user who may write a file or folder, besides root and the operator.
fn other_writer(metadata: &Metadata, acl: Option<Vec<u8>>) -> Option<String> {
    let group = |group| {
        let is_trusted = group == 0 || Some(group) == behind("SUDO_GID");
        (!is_trusted).then(|| format!("group {group}"))
    };
    owner(metadata).or_else(|| match acl {
        _ if metadata.mode() & OTHERS_WRITE != 0 => Some("everybody".to_owned()),
        _ if metadata.mode() & GROUP_WRITES == 0 => None,
        None => group(metadata.gid()),
        // Where there is a list, the group's permissions are the most that it gives.
        Some(acl) => named_writers(&acl).into_iter().find_map(|writer| match writer {
            Writer::User(user) => (!is_trusted(user)).then(|| format!("user {user}")),
            Writer::Group(named) => group(named),
            Writer::OwnGroup => group(metadata.gid()),
        }),
    })
}

fn owner(metadata: &Metadata) -> Option<String> {
    let owner = metadata.uid();
    (!is_trusted(owner)).then(|| format!("user {owner}"))
}

/// The attribute with the access control list of a file.
const ACL: &str = "system.posix_acl_access";

/// Reads the access control list of a file; `None` if it has none.
fn acl(read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 64 * 1024];
    match read(&mut buffer) {
        Ok(len) => {
            buffer.truncate(len);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// One that a list lets write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    User(u32),
    Group(u32),
    OwnGroup,
}

/// Returns those besides the owner and all others that the list and its mask let write.
fn named_writers(acl: &[u8]) -> Vec<Writer> {
    /// The version of the format, 4 bytes.
    const HEAD: usize = 4;
    const MAY_WRITE: u16 = 2;
    // Tag, permissions and number, in the byte order of all machines.
    let entries = acl.get(HEAD..).unwrap_or_default().as_chunks::<8>().0;
    let entries = entries.iter().filter_map(|[a, b, c, d, number @ ..]| {
        let writer = match u16::from_le_bytes([*a, *b]) {
            0x02 => Writer::User(u32::from_le_bytes(*number)),
            0x04 => Writer::OwnGroup,
            0x08 => Writer::Group(u32::from_le_bytes(*number)),
            _ => return None,
        };
        (u16::from_le_bytes([*c, *d]) & MAY_WRITE != 0).then_some(writer)
    });
    entries.collect()
}

/// Whether a user may change what root reads: root, the user of this process, and the one behind
/// `sudo`.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw() || Some(user) == behind("SUDO_UID") || is_unmapped(user)
}

fn behind(variable: &str) -> Option<u32> {
    env::var(variable).ok()?.parse().ok()
}

/// Whether the owner is a user outside of this user namespace, who is more than its root.
fn is_unmapped(user: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    const EVERYBODY: &str = "4294967295";
    let map = || fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    user == OVERFLOW && map().split_whitespace().last() != Some(EVERYBODY)
}

fn read_at_most(file: File, metadata: &Metadata, limit: u64) -> io::Result<Vec<u8>> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_dir() {
        return read_whole(file, limit);
    }
    if !is_trusted(metadata.uid()) {
        let user = metadata.uid();
        return Err(denied(&format!("it is no file, but a pipe or device of user {user}")));
    }
    // `/dev/null` is an empty list.
    if !kind.is_fifo() && !file.is_terminal() && metadata.rdev() != makedev(1, 3) {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    loop {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(PIPE_TIMEOUT_MS))? == 0 {
            let why = "nothing was written to this pipe for a minute";
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        let room = (limit + 1).saturating_sub(bytes.len() as u64);
        match (&file).take(room).read_to_end(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read.and_then(|_| within(bytes, limit)),
        }
    }
}

fn read_whole(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    within(bytes, limit)
}

fn within(bytes: Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
    if bytes.len() as u64 > limit {
        let why = format!("it has more than {} MiB", limit >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

fn denied(why: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, why)
}

pub(crate) fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "not a regular file")
}

fn link_of(metadata: &Metadata) -> io::Error {
    denied(&format!("it is a link that user {} made", metadata.uid()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    /// A list as the kernel gives it: tag, permissions, number.
    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, number) in entries {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(number.to_le_bytes());
        }
        list
    }

    #[test]
    fn the_list_of_a_file_names_each_who_may_write() {
        let all =
            list(&[(1, 6, 0), (2, 6, 7), (2, 4, 8), (4, 6, 0), (8, 7, 9), (16, 6, 0), (32, 4, 0)]);
        let writers = [Writer::User(7), Writer::OwnGroup, Writer::Group(9)];
        assert_eq!(named_writers(&all), writers);
        for cut in 0..all.len() {
            assert!(named_writers(&all[..cut]).len() <= writers.len());
        }
    }

    #[test]
    fn only_regular_files_of_the_own_folder_are_opened_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").expect("written");
        symlink(at("file"), at("link")).expect("made");
        mkfifoat(CWD, at("pipe"), Mode::from_raw_mode(0o600)).expect("made");
        fs::create_dir(at("folder")).expect("made");
        assert_eq!(read_own(&at("file")).expect("read"), b"text");
        assert_eq!(read_own(&at("absent")).expect_err("absent").kind(), ErrorKind::NotFound);
        for name in ["link", "pipe", "folder"] {
            for flags in [OFlags::RDONLY, OFlags::WRONLY | OFlags::CREATE] {
                assert!(open_own(&at(name), flags).is_err(), "{name}");
            }
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o757)).expect("ours");
        let error = read_own(&at("file")).expect_err("others may write there");
        assert!(error.to_string().contains("everybody may write in the folder"), "{error}");
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        assert_eq!(read_whole(&b"four"[..], 4).expect("fits"), b"four");
        let error = read_whole(io::repeat(0), 4 << 20).expect_err("no end");
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::FileTooLarge, "it has more than 4 MiB")
        );
    }
}
