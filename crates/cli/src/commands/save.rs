//! `save`: saves the active bans to a file.

use std::path::Path;

use nfguard_control::context::Context;
use nfguard_control::input::STANDARD;
use nfguard_control::persistence::{self, SavedFile};
use nfguard_control::systemd::ExtendedTimeout;
use serde_json::json;

use crate::output::{self, Answer, Done};

pub(crate) fn save(path: &Path, context: &Context, as_json: bool) -> Done {
    let _extended = ExtendedTimeout::start();
    if path == Path::new(STANDARD) {
        output::file(persistence::collect(context)?.text.trim_end());
        return Ok(Answer::Yes);
    }
    let bans = match persistence::save(path, context)? {
        SavedFile::Written(bans) => Some(bans),
        SavedFile::Left => None,
    };
    let name = path.display();
    if as_json {
        output::json(&json!({ "file": name.to_string(), "bans": bans }));
    } else if let Some(bans) = bans {
        output::line(&format!("{name}: {bans} bans"));
    } else {
        output::line(&format!("{name}: left as it is, because there is no table for bans"));
    }
    Ok(Answer::Yes)
}
