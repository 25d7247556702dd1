//! The table in the README.

use std::fs;

use crate::Outcome;
use crate::cases::{Banned, CASES, Case, PATIENT};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
const BEGIN: &str = "| Scan | nfguard bans after | it learns | \
                     UFW with PSAD blocks after | it learns | PSAD at level 3 after |\n";

/// Compares what is said of nfguard, which is the same each time.
pub(crate) fn check(
    ours: &[Outcome],
    patient: &Outcome,
    write_up: &[Outcome],
    level_3: &[Outcome],
) {
    let mut rows = String::from(BEGIN) + "|---|---|---|---|---|---|\n";
    for (at, case) in CASES.iter().enumerate() {
        let theirs = [psad(&write_up[at]), write_up[at].learned.clone(), psad(&level_3[at])];
        rows += &row(case, &ours[at], &theirs);
    }
    rows += &row(&PATIENT, patient, &["", "", ""].map(str::to_owned));

    let readme = fs::read_to_string(README).expect("the README");
    let begin = readme.find(BEGIN).expect("the README has the table");
    let length = readme[begin..].find("\n\n").map_or(readme.len() - begin, |end| end + 1);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let new = [&readme[..begin], &rows, &readme[begin + length..]].concat();
        fs::write(README, new).expect("can be written");
        return;
    }
    let stable = |table: &str| -> Vec<String> {
        let first = |row: &str| row.split(" | ").take(3).collect::<Vec<_>>().join(" | ");
        table.lines().map(first).collect()
    };
    let said = stable(&readme[begin..begin + length]);
    assert_eq!(said, stable(&rows), "UPDATE_GOLDEN=1 writes the README's table anew");
}

fn row(case: &Case, ours: &Outcome, theirs: &[String; 3]) -> String {
    let note = if case.note.is_empty() { String::new() } else { format!(", {}", case.note) };
    // Chance decides which open ports come before the sixth closed one.
    let (after, learned) = match case.banned {
        Banned::AtSixthClosed => {
            ("6 closed ports".to_owned(), "what is open among the first".to_owned())
        }
        _ if ours.seen.is_banned => (ours.seen.packets.to_string(), ours.learned.clone()),
        _ => ("never".to_owned(), ours.learned.clone()),
    };
    let ours = [format!("`{}`{note}", case.name), after, learned];
    let cells = ours.iter().chain(theirs);
    // What separates cells must not stand in one.
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
}

/// How many packets of the scan had passed by the time of the block.
fn psad(outcome: &Outcome) -> String {
    let seen = outcome.seen;
    match (seen.is_banned, seen.after) {
        (false, _) => "never".to_owned(),
        (true, 0) => format!("all {}", seen.packets),
        (true, after) => format!("{} of {}", seen.packets, seen.packets + after),
    }
}
