//! The folder in which the processes of a network namespace find each other. Only their user can make
//! it, and no other user can look into it.
//!
//! Abstract sockets belong to the network namespace by themselves, but every user can take such a name,
//! or fill its queue. So the sockets lie in the file system, and their names have the number of the
//! namespace. A number that is used again finds at most a socket of a process that has ended.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

/// The environment variable that names another folder.
pub const VARIABLE: &str = "NFGUARD_RUN_DIR";

/// The name of the folder beside other programs' folders.
const FOLDER: &str = "nfguard";
/// The folder within, for its user alone.
const PRIVATE: &str = "private";

/// Returns the path of this socket in this network namespace.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no folder of this user; [`ErrorKind::PermissionDenied`] if
/// other users may write there.
pub(crate) fn find(name: &str) -> io::Result<PathBuf> {
    let mut found = Err(ErrorKind::NotFound.into());
    for folder in folders() {
        found = check(&folder);
        match &found {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => break,
        }
    }
    Ok(found?.join(in_namespace(name)?))
}

/// Makes the folder in which this user's processes listen, if it is absent, and returns it.
///
/// # Errors
/// It cannot be made, or other users may write there.
pub fn prepare() -> io::Result<PathBuf> {
    let mut made = Err(ErrorKind::NotFound.into());
    for folder in folders() {
        made = make(&folder).and_then(|()| check(&folder)).map_err(|error| {
            let why = format!("{}: {error}; {VARIABLE} names another folder", folder.display());
            io::Error::new(error.kind(), why)
        });
        if made.is_ok() {
            break;
        }
    }
    made
}

/// As [`find`], in the folder that [`prepare`] makes. The claim to the name ends with the file that is
/// returned.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] if another process has the name.
pub(crate) fn claim(name: &str) -> io::Result<(PathBuf, File)> {
    let path = prepare()?.join(in_namespace(name)?);
    let lock = path.with_extension("lock");
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock)?;
    match lock.try_lock() {
        Ok(()) => Ok((path, lock)),
        Err(TryLockError::WouldBlock) => Err(ErrorKind::AddrInUse.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The folders that come into question, the best first. Below `/run` only root makes one. In a user
/// namespace of another user, that user's own follows.
fn folders() -> Vec<PathBuf> {
    if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return vec![folder.into()];
    }
    let of_user = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let all = [Some(PathBuf::from("/run")), of_user].into_iter().flatten();
    all.map(|folder| folder.join(FOLDER)).collect()
}

fn in_namespace(name: &str) -> io::Result<String> {
    Ok(format!("{name}-{}", fs::metadata("/proc/thread-self/ns/net")?.ino()))
}

fn make(folder: &Path) -> io::Result<()> {
    // The guard's own socket lies in the first one, for other users too, whatever the umask.
    for (folder, mode) in [(folder.to_owned(), 0o755), (folder.join(PRIVATE), 0o700)] {
        match DirBuilder::new().mode(mode).create(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => fs::set_permissions(&folder, Permissions::from_mode(mode))?,
        }
    }
    Ok(())
}

/// Returns the private folder if it is this user's, and no other user can change or look into it.
fn check(folder: &Path) -> io::Result<PathBuf> {
    let private = folder.join(PRIVATE);
    for (folder, others) in [(folder, 0o022), (&private, 0o077)] {
        let metadata = fs::symlink_metadata(folder)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(ErrorKind::NotFound, "it is no folder of this user"));
        }
        if metadata.mode() & others != 0 {
            let why = format!("{}: other users may enter or write there", folder.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
    }
    Ok(private)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_folder_of_this_user_that_no_other_may_change_is_one() {
        let place = tempfile::tempdir().expect("a folder");
        let kind = |folder: &Path| check(folder).map_err(|error| error.kind());
        let folder = place.path().join("run");
        assert_eq!(kind(&folder), Err(ErrorKind::NotFound));
        make(&folder).expect("made");
        make(&folder).expect("there");
        assert_eq!(kind(&folder), Ok(folder.join(PRIVATE)));
        let link = place.path().join("link");
        symlink(&folder, &link).expect("made");
        assert_eq!(kind(&link), Err(ErrorKind::NotFound));
        for (which, mode) in [("", 0o775), ("", 0o757), (PRIVATE, 0o750), (PRIVATE, 0o701)] {
            let which = folder.join(which);
            let before = fs::metadata(&which).expect("there").permissions();
            fs::set_permissions(&which, Permissions::from_mode(mode)).expect("ours");
            assert_eq!(kind(&folder), Err(ErrorKind::PermissionDenied), "{mode:o}");
            fs::set_permissions(&which, before).expect("ours");
        }
        fs::remove_dir(folder.join(PRIVATE)).expect("empty");
        fs::write(folder.join(PRIVATE), "").expect("written");
        assert_eq!(kind(&folder), Err(ErrorKind::NotFound));
    }
}
