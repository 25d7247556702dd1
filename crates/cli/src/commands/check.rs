//! `check`: whether a policy is valid.

use std::path::Path;

use nfguard_control::policy_file::PolicyFile;

use crate::{Answer, Done, output};

pub(crate) fn check(path: &Path, json: bool) -> Done {
    let file = PolicyFile::read(path)?;
    output::problems(&file.name, &file.warnings, json);
    if !json {
        let rules = file.policy.rules().len();
        output::line(&format!("{}: valid, {rules} rules", file.name));
    }
    Ok(Answer::Yes)
}
