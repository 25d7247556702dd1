//! `restore`: restores saved bans.

use std::path::Path;

use nfguard_control::saved_bans;

use crate::output::bans::print_restored;
use crate::output::progress::Progress;
use crate::output::{self, Answer, Done};

pub(crate) fn restore(path: &Path, as_json: bool) -> Done {
    let mut progress = Progress::default();
    let restored = saved_bans::restore(path, output::warning, |count| progress.next(count))?;
    print_restored(&restored, as_json);
    Ok(Answer::Yes)
}
