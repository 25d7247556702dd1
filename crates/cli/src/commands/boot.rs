//! `boot`: a policy and the bans of the last time.

use std::path::{Path, PathBuf};

use nfguard_control::Error;
use nfguard_control::boot::{self, Booted, RESCUE_NAME, Source};
use nfguard_control::history::History;
use serde_json::json;

use crate::commands::ban::Progress;
use crate::{Answer, Done, failure, output, save};

pub(crate) fn boot(path: &Path, bans: Option<PathBuf>, history: &History, as_json: bool) -> Done {
    let report = |error: &Error| failure::print_error(error, false);
    let mut progress = Progress::default();
    let Booted { source, bans: restored } =
        boot::boot(path, bans, history, report, |count| progress.next(count))?;
    let words = match source {
        Source::File => format!("{} is in force", path.display()),
        Source::LastGood(number) => {
            format!("load {number} of the history is in force, the last that was good")
        }
        Source::Kept => "the policy that was loaded before stays in force".to_owned(),
        Source::Rescue => {
            format!("{RESCUE_NAME} is in force: SSH gets in at port 22, and nothing else")
        }
    };
    let is_file = matches!(source, Source::File);
    if !is_file {
        output::warning(&words);
    }
    if as_json {
        let (name, load) = match source {
            Source::File => ("file", None),
            Source::LastGood(number) => ("last_good", Some(number)),
            Source::Kept => ("kept", None),
            Source::Rescue => ("rescue", None),
        };
        let bans = restored.as_ref().ok().and_then(Option::as_ref).map(save::describe);
        output::json(&json!({ "policy": name, "load": load, "bans": bans }));
    } else {
        if is_file {
            output::line(&words);
        }
        if let Ok(Some(restored)) = &restored {
            save::print(restored, false);
        }
    }
    Ok(Answer::from(is_file && restored.is_ok()))
}
