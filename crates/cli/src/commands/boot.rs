//! `boot`: loads the policy, and restores bans, feeds and never-ban entries.

use std::path::{Path, PathBuf};

use nfguard_control::Error;
use nfguard_control::boot::{self, Booted, RESCUE_NAME, Source};
use nfguard_control::context::Context;
use nfguard_control::persistence::RestoredState;
use nfguard_control::systemd::ExtendedTimeout;
use serde_json::json;

use crate::output::bans::{print_restored, restored_to_json};
use crate::output::failure;
use crate::output::progress::Progress;
use crate::output::{self, Answer, Done};

pub(crate) fn boot(path: &Path, bans: Option<PathBuf>, context: &Context, as_json: bool) -> Done {
    let _extended = ExtendedTimeout::start();
    let report = |error: &Error| failure::print_error(error, false);
    let mut progress = Progress::default();
    let Booted { source, kept } =
        boot::boot(path, bans, context, report, |count| progress.next(count))?;
    let restored = kept.as_ref().ok().and_then(|kept| kept.bans.as_ref());
    let text = match source {
        Source::File => format!("{} is in force", path.display()),
        Source::LastGood(number) => {
            format!("load {number} of the history is in force: it is the last good policy")
        }
        Source::Kept => "the policy that was loaded before stays in force".to_owned(),
        Source::Rescue => {
            format!("{RESCUE_NAME} is in force: it admits SSH at port 22, and nothing else")
        }
    };
    let is_file = matches!(source, Source::File);
    if !is_file {
        output::warning(&text);
    }
    if as_json {
        let (name, load) = match source {
            Source::File => ("file", None),
            Source::LastGood(number) => ("last_good", Some(number)),
            Source::Kept => ("kept", None),
            Source::Rescue => ("rescue", None),
        };
        let bans = restored.as_ref().map(|bans| restored_to_json(bans));
        let feeds = kept.as_ref().map(|kept| kept.feeds.as_slice()).unwrap_or_default();
        let never_ban = kept.as_ref().map_or(0, |kept| kept.never_ban);
        output::json(&json!({
            "policy": name, "load": load, "bans": bans, "feeds": feeds, "never_ban": never_ban,
        }));
    } else {
        if is_file {
            output::line(&text);
        }
        if let Some(restored) = restored {
            print_restored(restored, false);
        }
        if let Ok(RestoredState { never_ban, feeds, .. }) = &kept
            && (*never_ban > 0 || !feeds.is_empty())
        {
            let feeds = feeds.len();
            output::line(&format!("{feeds} feeds and {never_ban} never-ban entries restored"));
        }
    }
    let is_whole = kept.as_ref().is_ok_and(|kept| !kept.is_incomplete);
    Ok(Answer::from(is_file && is_whole))
}
