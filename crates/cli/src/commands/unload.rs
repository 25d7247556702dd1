//! `unload`: removes the policy from the kernel.

use nfguard_control::change;
use nfguard_control::history::History;
use serde_json::json;

use crate::output::{self, Answer, Done};

pub(crate) fn unload(all: bool, history: &History, as_json: bool) -> Done {
    let removed = change::unload(all, history)?;
    if as_json {
        output::json(&json!({ "removed": !removed.is_empty(), "tables": removed }));
        return Ok(Answer::Yes);
    }
    if removed.is_empty() {
        output::line("no policy was loaded");
    }
    output::loads::warn_of_waiting_load();
    removed.iter().for_each(|table| output::line(&format!("removed table inet {table}")));
    Ok(Answer::Yes)
}
