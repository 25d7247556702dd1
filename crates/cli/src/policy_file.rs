//! Reading a policy file, and `check`.

use std::path::Path;

use nfguard_netlink::Table;
use nfguard_policy::{Policy, Problem};

use crate::failure::Failure;
use crate::stamp::stamp;
use crate::{Answer, Done, output};

/// A policy and what it was read from.
pub(crate) struct PolicyFile {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<Problem>,
}

impl PolicyFile {
    /// Reads and validates; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<PolicyFile, Failure> {
        let text = output::read(path)?;
        let name = path.display().to_string();
        match Policy::parse(&text) {
            Ok((policy, warnings)) => Ok(PolicyFile { name, policy, warnings }),
            Err(problems) => Err(Failure::Policy(name, problems)),
        }
    }

    /// As [`PolicyFile::read`], with the warnings printed to standard error. A JSON answer has
    /// them in itself.
    pub(crate) fn read_and_warn(path: &Path, as_json: bool) -> Result<PolicyFile, Failure> {
        let file = PolicyFile::read(path)?;
        if !as_json {
            output::problems(&file.name, &file.warnings, false);
        }
        Ok(file)
    }

    /// The table that `load` puts into the kernel.
    pub(crate) fn table(&self) -> Table {
        stamp(self.policy.compile(), Path::new(&self.name))
    }
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
