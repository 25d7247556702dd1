//! Policy files.

use std::env;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nfguard_netlink::Table;
use nfguard_policy::{Policy, Problem};
use nix::unistd::Uid;

use crate::Error;
use crate::digest::{digest, stamp};
use crate::history::LoadRecord;
use crate::input::{self, STANDARD};
use nfguard_host::TcpConnection;

/// A policy, and the file that it was read from.
pub struct PolicyFile {
    /// The name of the file, as it was given.
    pub name: String,
    /// All of the file.
    pub text: String,
    /// What it says.
    pub policy: Policy,
    /// What is allowed and may be a mistake.
    pub warnings: Vec<Problem>,
}

impl PolicyFile {
    /// Reads and validates a file; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be read, or is no policy.
    pub fn read(path: &Path) -> Result<PolicyFile, Error> {
        let text = input::read(path)?;
        PolicyFile::parse(&path.display().to_string(), text)
    }

    /// As [`PolicyFile::read`]. As root it refuses a file that another user may write: at the next load
    /// that user would be as good as root.
    ///
    /// # Errors
    /// As [`PolicyFile::read`], and if another user may write the file.
    pub fn read_trusted(path: &Path) -> Result<PolicyFile, Error> {
        if path == Path::new(STANDARD) || !Uid::effective().is_root() {
            return PolicyFile::read(path);
        }
        let read = || -> io::Result<String> {
            // The file that is looked at is the one that is read, even if files are renamed meanwhile.
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_file() {
                let real = fs::canonicalize(path)?;
                let folder = real.parent().map_or(Ok(None), |it| fs::metadata(it).map(Some))?;
                if let Some(who) = other_writer(&metadata, folder.as_ref()) {
                    let why = format!(
                        "nothing was loaded: {who} may write this file, and may not change the firewall"
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        };
        PolicyFile::parse(&path.display().to_string(), read().map_err(Error::file(path))?)
    }

    /// Validates the text of a file.
    ///
    /// # Errors
    /// If it is no policy.
    pub fn parse(name: &str, text: String) -> Result<PolicyFile, Error> {
        let name = name.to_owned();
        match Policy::parse(&text) {
            Ok((policy, warnings)) => Ok(PolicyFile { name, text, policy, warnings }),
            Err(problems) => Err(Error::Policy(name, problems)),
        }
    }

    /// Compiles the policy, and stamps the table with its digest: once for each load.
    pub fn seal(&self) -> Sealed {
        let bare = self.policy.compile();
        let digest = digest(&bare);
        Sealed { table: stamp(bare, &digest, Path::new(&self.name)), digest }
    }

    /// Returns what the history says of a load of this file.
    pub(crate) fn record(&self, digest: String, session: Option<TcpConnection>) -> LoadRecord {
        LoadRecord::new(&self.name, Some(&self.text), digest, session)
    }
}

/// A policy as the kernel is to hold it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The table, with the digest and the file's name in it.
    pub table: Table,
    /// The digest of the table without these.
    pub digest: String,
}

/// Returns the user who may write a file, besides root and the user behind `sudo`.
fn other_writer(file: &Metadata, folder: Option<&Metadata>) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let behind = |variable| env::var(variable).ok()?.parse::<u32>().ok();
    let (user, group) = (behind("SUDO_UID"), behind("SUDO_GID"));
    let writer = |it: &Metadata, mode: u32| {
        if it.uid() != 0 && Some(it.uid()) != user && !is_unmapped(it.uid()) {
            Some(format!("user {}", it.uid()))
        } else if mode & 0o002 != 0 {
            Some("everybody".to_owned())
        } else if mode & 0o020 != 0 && it.gid() != 0 && Some(it.gid()) != group {
            Some(format!("group {}", it.gid()))
        } else {
            None
        }
    };
    let in_folder = |folder: &Metadata| match folder.mode() {
        // There a user may rename only the own files; the folder's owner all files.
        mode if mode & STICKY != 0 => writer(folder, 0),
        mode => writer(folder, mode),
    };
    writer(file, file.mode()).or_else(|| folder.and_then(in_folder))
}

/// Whether the owner is a user outside of this user namespace, who is more than its root.
fn is_unmapped(user: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    const EVERYBODY: &str = "4294967295";
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    user == OVERFLOW && map.split_whitespace().last() != Some(EVERYBODY)
}
