//! Any text is a file of jails, or a list of problems that point into it. Any text is a filter of
//! Fail2Ban, and a file of its jails, or a list of mistakes.

use std::collections::BTreeMap;

use nfguard_jail::Config;
use nfguard_jail::fail2ban::{Filter, Machine, import};

/// Reads one text. It must not panic.
pub(crate) fn run(text: &str) {
    if let Err(problems) = Config::parse(text) {
        assert!(!problems.is_empty());
    }
    let read = Filter::read("a.conf", &BTreeMap::new(), &mut |name| {
        (name == "a.conf").then(|| text.to_owned())
    });
    if let Err(mistakes) = read {
        assert!(!mistakes.is_empty());
    }
    // What is imported is a file of jails.
    let filter = "[Definition]\nfailregex = x <HOST>\n";
    let mut read_file = |name: &str| match name {
        "jail.conf" => Some(text.to_owned()),
        name => name.ends_with("a.conf").then(|| filter.to_owned()),
    };
    let mut machine =
        Machine { read_file: &mut read_file, find_files: &mut |_| Vec::new(), timezone: None };
    match import("", &["jail.conf".to_owned()], &mut machine) {
        Ok(import) => assert!(Config::parse_with(&import.jails, &mut read_file).is_ok()),
        Err(mistakes) => assert!(mistakes.iter().all(|it| !it.message.contains("what was made"))),
    }
}
