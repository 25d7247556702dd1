//! Waiting for a condition, with one generous timeout.

use std::thread;
use std::time::{Duration, Instant};

/// The longest time that anything may take on a slow and busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(180);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `is_so` returns true.
///
/// # Panics
/// If it does not within [`TIMEOUT`]. The message has `what` and the text that `describe` returns.
#[track_caller]
pub fn wait_until_with(what: &str, describe: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within three minutes: {what}\n{}", describe());
        thread::sleep(PAUSE);
    }
}

/// Waits until `is_so` returns true.
///
/// # Panics
/// As [`wait_until_with`].
#[track_caller]
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    wait_until_with(what, String::new, is_so);
}
