//! `boot`: loads the policy and restores the saved bans.

use std::path::{Path, PathBuf};

use nfguard_control::Error;
use nfguard_control::boot::{self, Booted, RESCUE_NAME, Source};
use nfguard_control::context::Context;
use serde_json::json;

use crate::output::bans::{print_restored, restored_to_json};
use crate::output::failure;
use crate::output::progress::Progress;
use crate::output::{self, Answer, Done};

pub(crate) fn boot(path: &Path, bans: Option<PathBuf>, context: &Context, as_json: bool) -> Done {
    let report = |error: &Error| failure::print_error(error, false);
    let mut progress = Progress::default();
    let Booted { source, bans: restored } =
        boot::boot(path, bans, context, report, |count| progress.next(count))?;
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
        let bans = restored.as_ref().ok().and_then(Option::as_ref).map(restored_to_json);
        output::json(&json!({ "policy": name, "load": load, "bans": bans }));
    } else {
        if is_file {
            output::line(&text);
        }
        if let Ok(Some(restored)) = &restored {
            print_restored(restored, false);
        }
    }
    Ok(Answer::from(is_file && restored.is_ok()))
}
