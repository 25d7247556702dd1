//! A warning that may repeat: it is logged once, and then counted.

use std::fmt::Display;

/// What went wrong at the last attempts.
#[derive(Default)]
pub(super) struct RepeatedWarning {
    text: String,
    /// How often it was the same.
    count: u64,
}

impl RepeatedWarning {
    /// Logs the warning if it is not the one before. The end of a row of failures is logged too, with
    /// their number.
    pub(super) fn log<E: Display>(&mut self, what: &str, outcome: Result<(), E>) {
        let text = outcome.map_or_else(|error| format!("{what}: {error}"), |()| String::new());
        if text == self.text {
            self.count += 1;
            return;
        }
        if self.count > 1 && !self.text.is_empty() {
            log::warn!(times = self.count; "{}", self.text);
        }
        if text.is_empty() {
            log::info!("no longer: {what}");
        } else {
            log::warn!("{text}");
        }
        *self = RepeatedWarning { text, count: 1 };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Lines(Mutex<Vec<String>>);

    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().expect("no panic").push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    static LINES: Lines = Lines(Mutex::new(Vec::new()));

    #[test]
    fn a_warning_is_told_once_and_again_only_when_it_changes_or_ends() {
        log::set_logger(&LINES).expect("no other test logs");
        log::set_max_level(log::LevelFilter::Info);
        let mut warning = RepeatedWarning::default();
        for outcome in
            [Ok(()), Ok(()), Err("a"), Err("a"), Err("a"), Err("b"), Ok(()), Ok(()), Err("a")]
        {
            warning.log("it fails", outcome);
        }
        let lines = LINES.0.lock().expect("no panic");
        let ours: Vec<&str> =
            lines.iter().filter(|line| line.contains("it fails")).map(String::as_str).collect();
        let wanted =
            ["it fails: a", "it fails: a", "it fails: b", "no longer: it fails", "it fails: a"];
        assert_eq!(ours, wanted);
    }
}
