//! `check`: validates a policy.

use std::path::Path;

use nfguard_control::policy_file::PolicyFile;

use crate::output::{self, Answer, Done};

pub(crate) fn check(path: &Path, as_json: bool) -> Done {
    let file = PolicyFile::read(path)?;
    output::problems(&file.name, &file.warnings, as_json);
    if !as_json {
        let rules = file.policy.rules().len();
        output::line(&format!("{}: valid, {rules} rules", file.name));
    }
    Ok(Answer::Yes)
}
