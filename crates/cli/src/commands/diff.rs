//! `diff`: shows what a load would change.

use std::path::Path;

use nfguard_control::policy_file::PolicyFile;
use nfguard_control::table_diff;

use crate::output::{self, Answer, Done};

/// Compares with the kernel or, with `offline`, with the table of that policy.
pub(crate) fn diff(path: &Path, offline: Option<&Path>, as_json: bool) -> Done {
    let file = output::read_policy(path, as_json)?;
    let changes = match offline {
        Some(offline) => {
            let [before, after] =
                [&PolicyFile::read(offline)?, &file].map(|file| file.policy.compile());
            (before != after).then(|| table_diff::changes(Some(&before), Some(&after)))
        }
        None => table_diff::changes_by_load(&file.seal().table)?,
    };
    output::loads::print_plan(&file, changes.as_deref(), None, as_json);
    Ok(Answer::from(changes.is_none()))
}
