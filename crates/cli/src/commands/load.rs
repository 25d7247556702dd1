//! `load`: loads a policy into the kernel.

use std::path::Path;

use nfguard_control::change::{self, Caution};
use nfguard_control::context::Context;
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::table_diff;

use crate::output::{self, Answer, Done};

pub(crate) fn load(
    path: &Path,
    dry_run: bool,
    caution: &Caution,
    context: &Context,
    as_json: bool,
) -> Done {
    let file = output::warned(PolicyFile::read_trusted(path)?, as_json);
    if dry_run {
        let table = file.seal().table;
        let lockout = change::obstacle(&table, caution, context);
        let changes = table_diff::changes_by_load(&table)?;
        output::loads::print_plan(&file, changes.as_deref(), lockout.as_ref(), as_json);
    } else {
        let loaded = change::load(&file, None, caution, context)?;
        output::loads::print(&file, &loaded, context, as_json);
    }
    Ok(Answer::Yes)
}
