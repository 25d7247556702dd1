//! `unload`: removes the policy from the kernel.

use nfguard_control::change::{self, Unloaded};
use nfguard_control::context::Context;
use serde_json::json;

use crate::output::{self, Answer, Done};

pub(crate) fn unload(all: bool, context: &Context, as_json: bool) -> Done {
    let Unloaded { tables: removed, was_written_down } = change::unload(all, context)?;
    if as_json {
        output::json(&json!({
            "removed": !removed.is_empty(), "tables": removed, "was_written_down": was_written_down,
        }));
        return Ok(Answer::Yes);
    }
    if removed.is_empty() {
        output::line("no policy was loaded");
    }
    output::loads::warn_of_waiting_load();
    removed.iter().for_each(|table| output::line(&format!("removed table inet {table}")));
    if was_written_down {
        output::line(
            "removed the bans, feeds and never-ban entries that the next boot would restore",
        );
    }
    Ok(Answer::Yes)
}
