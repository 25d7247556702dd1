//! `restore`: restores saved bans.

use std::path::Path;

use nfguard_control::context::Context;
use nfguard_control::persistence;

use crate::output::bans::print_restored;
use crate::output::progress::Progress;
use crate::output::{Answer, Done};

pub(crate) fn restore(path: &Path, force: bool, context: &Context, as_json: bool) -> Done {
    let mut progress = Progress::default();
    let restored = persistence::restore_file(path, force, context, |count| progress.next(count))?;
    print_restored(&restored, as_json);
    Ok(Answer::Yes)
}
