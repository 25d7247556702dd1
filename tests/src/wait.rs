//! Waiting without a clock in an assertion.

use std::thread;
use std::time::{Duration, Instant};

/// The longest time that anything may take on a slow and busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `is_so` returns true.
///
/// # Panics
/// If it does not within [`TIMEOUT`]. The message has `what` and the text that `told` returns.
#[track_caller]
pub fn until_with(what: &str, told: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}\n{}", told());
        thread::sleep(PAUSE);
    }
}

/// Waits until `is_so` returns true.
///
/// # Panics
/// As [`until_with`].
#[track_caller]
pub fn until(what: &str, is_so: impl FnMut() -> bool) {
    until_with(what, String::new, is_so);
}
