//! Policy files.

use std::path::Path;

use nfguard_netlink::Table;
use nfguard_policy::{Policy, Problem};
use nix::unistd::Uid;

use crate::Error;
use crate::digest::{digest, stamp};
use crate::history::LoadRecord;
use crate::input::{self, STANDARD};
use crate::trusted_file;
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

    /// As [`PolicyFile::read`]. As root it refuses a file that another user may write, or put in its
    /// place: at the next load that user would be as good as root.
    ///
    /// # Errors
    /// As [`PolicyFile::read`], and if another user may write the file.
    pub fn read_trusted(path: &Path) -> Result<PolicyFile, Error> {
        if path == Path::new(STANDARD) || !Uid::effective().is_root() {
            return PolicyFile::read(path);
        }
        let bytes = trusted_file::read_policy(path).map_err(Error::file(path))?;
        PolicyFile::parse(&path.display().to_string(), input::text(path, bytes)?)
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
