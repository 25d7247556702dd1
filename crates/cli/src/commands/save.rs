//! `save` and `restore`: the bans in a file, from one boot to the next.

use std::path::Path;

use nfguard_control::input::STANDARD;
use nfguard_control::saved_bans::{self, Restored, Saved};
use serde_json::{Value, json};

use crate::commands::ban::{Progress, describe_tally, print_tally};
use crate::output::failure::Failure;
use crate::{Answer, Done, output};

pub(crate) fn save(path: &Path, as_json: bool) -> Done {
    let Saved { text, bans: count } = saved_bans::collect(output::warning)?;
    if path == Path::new(STANDARD) {
        output::line(text.trim_end());
        return Ok(Answer::Yes);
    }
    saved_bans::replace(path, text.as_bytes()).map_err(Failure::file(path))?;
    if as_json {
        output::json(&json!({ "file": path.display().to_string(), "bans": count }));
    } else {
        output::line(&format!("{}: {count} bans", path.display()));
    }
    Ok(Answer::Yes)
}

pub(crate) fn restore(path: &Path, as_json: bool) -> Done {
    let mut progress = Progress::default();
    let restored = saved_bans::restore(path, output::warning, |count| progress.next(count))?;
    print(&restored, as_json);
    Ok(Answer::Yes)
}

pub(crate) fn print(restored: &Restored, as_json: bool) {
    if !as_json && restored.over > 0 {
        output::line(&format!("{} were over meanwhile", restored.over));
    }
    print_tally(&restored.tally, &restored.refused, as_json);
}

pub(crate) fn describe(restored: &Restored) -> Value {
    describe_tally(&restored.tally, &restored.refused)
}
