//! Progress of a long list, on a terminal.

use std::io::{self, IsTerminal as _};

use indicatif::{ProgressBar, ProgressStyle};

/// A list of this length gets a progress bar.
const MIN_LENGTH: usize = 20_000;
/// Bans between two steps of the bar: each step reads the clock.
const BANS_PER_STEP: u64 = 1_000;

/// Shows how far a long list of bans is.
#[derive(Default)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    done: u64,
}

impl Progress {
    /// Counts the next ban of `count`.
    pub(crate) fn next(&mut self, count: usize) {
        if self.done == 0 && count >= MIN_LENGTH && io::stderr().is_terminal() {
            self.bar = Some(bar(count));
        }
        self.done += 1;
        if let Some(bar) = &self.bar
            && self.done.is_multiple_of(BANS_PER_STEP)
        {
            bar.set_position(self.done);
        }
    }
}

fn bar(count: usize) -> ProgressBar {
    let style = "{wide_bar} {human_pos} of {human_len} banned, {eta} left";
    let style = ProgressStyle::with_template(style);
    let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
