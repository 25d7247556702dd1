//! `save`: saves the active bans to a file.

use std::path::Path;

use nfguard_control::input::STANDARD;
use nfguard_control::saved_bans::{self, Saved};
use serde_json::json;

use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

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
