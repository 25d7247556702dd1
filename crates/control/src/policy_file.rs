//! Reading a policy file, and `check`.

use std::env;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nfguard_netlink::Table;
use nfguard_policy::{Policy, Problem};
use nix::unistd::Uid;

use crate::failure::Failure;
use crate::stamp::stamp;
use crate::{Answer, Done, output};

/// A policy and what it was read from.
pub(crate) struct PolicyFile {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<Problem>,
}

impl PolicyFile {
    /// Reads and validates; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<PolicyFile, Failure> {
        let text = output::read(path)?;
        PolicyFile::parse(&path.display().to_string(), text)
    }

    /// As [`PolicyFile::read`], but not what a user could have written who may not load it: whoever
    /// may write the file is root at the next load.
    pub(crate) fn read_trusted(path: &Path) -> Result<PolicyFile, Failure> {
        if path == Path::new(output::STANDARD) || !Uid::effective().is_root() {
            return PolicyFile::read(path);
        }
        let read = || -> io::Result<String> {
            // What is looked at is what is read, whoever renames files meanwhile.
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_file() {
                let real = fs::canonicalize(path)?;
                let folder = real.parent().map_or(Ok(None), |it| fs::metadata(it).map(Some))?;
                if let Some(who) = other_writer(&metadata, folder.as_ref()) {
                    let why = format!(
                        "{who} may write it, who may not change the firewall; nothing was loaded"
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        };
        PolicyFile::parse(&path.display().to_string(), read().map_err(Failure::file(path))?)
    }

    pub(crate) fn parse(name: &str, text: String) -> Result<PolicyFile, Failure> {
        let name = name.to_owned();
        match Policy::parse(&text) {
            Ok((policy, warnings)) => Ok(PolicyFile { name, text, policy, warnings }),
            Err(problems) => Err(Failure::Policy(name, problems)),
        }
    }

    /// As [`PolicyFile::read`], with the warnings printed to standard error. A JSON answer has
    /// them in itself.
    pub(crate) fn read_and_warn(path: &Path, as_json: bool) -> Result<PolicyFile, Failure> {
        Ok(PolicyFile::read(path)?.warned(as_json))
    }

    pub(crate) fn warned(self, as_json: bool) -> PolicyFile {
        if !as_json {
            output::problems(&self.name, &self.warnings, false);
        }
        self
    }

    /// The table that `load` puts into the kernel.
    pub(crate) fn table(&self) -> Table {
        stamp(self.policy.compile(), Path::new(&self.name))
    }
}

/// Who besides root, and the user behind `sudo`, may write a file.
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
        // Each may rename only his own there; the folder's owner all.
        mode if mode & STICKY != 0 => writer(folder, 0),
        mode => writer(folder, mode),
    };
    writer(file, file.mode()).or_else(|| folder.and_then(in_folder))
}

/// Whether the owner is somebody outside of the user namespace that this runs in, who is more than
/// its root.
fn is_unmapped(user: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    const EVERYBODY: &str = "4294967295";
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    user == OVERFLOW && map.split_whitespace().last() != Some(EVERYBODY)
}

pub(crate) fn check(path: &Path, json: bool) -> Done {
    let file = PolicyFile::read(path)?;
    output::problems(&file.name, &file.warnings, json);
    if !json {
        let rules = file.policy.rules().len();
        output::line(&format!("{}: valid, {rules} rules", file.name));
    }
    Ok(Answer::Yes)
}
