//! What a task says: at once, or kept together where steps run side by side.

use std::cell::RefCell;
use std::fmt::Display;

thread_local! {
    /// What this thread has said since it began to keep its output.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Prints a line, or keeps it.
pub(crate) fn say(line: impl Display) {
    let kept = KEPT
        .with_borrow_mut(|kept| kept.as_mut().map(|text| *text += &format!("{line}\n")).is_some());
    if !kept {
        println!("{line}");
    }
}

/// Has this thread keep what it says.
pub(crate) fn keep() {
    KEPT.set(Some(String::new()));
}

/// Whether this thread keeps what it says.
pub(crate) fn is_kept() -> bool {
    KEPT.with_borrow(Option::is_some)
}

/// Returns what was kept, and goes on keeping.
pub(crate) fn take() -> String {
    KEPT.with_borrow_mut(|kept| kept.as_mut().map(std::mem::take)).unwrap_or_default()
}
