//! `watchdog`: holds the rules from before a load.

use nfguard_control::context::Context;
use nfguard_control::rollback;

use crate::output::{Answer, Done};

/// Waits for the end of the time or, with `new_session`, starts this program again in a session of
/// its own.
pub(crate) fn watchdog(new_session: bool, context: &Context) -> Done {
    if new_session {
        rollback::start_in_new_session()?;
        return Ok(Answer::Yes);
    }
    Ok(Answer::from(rollback::run(context)?))
}
