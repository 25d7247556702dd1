//! The table in `docs/scans.md`.

use std::fs;

use crate::cases::{Banned, CASES, Case, FORGED, MANY};
use crate::side::Seen;
use crate::{Attack, ScanOutcome};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/scans.md");
const BEGIN: &str = "| Scan | nfguard bans after | it learns | \
                     UFW with PSAD blocks after | it learns | PSAD at level 3 after |";

/// Compares the columns of nfguard with the document. They are the same in each run.
pub(crate) fn check(ours: &Attack, psad: [&Attack; 2]) {
    let mut rows = vec![BEGIN.to_owned(), "|---|---|---|---|---|---|".to_owned()];
    for (at, case) in CASES.iter().enumerate() {
        let [write_up, level_3] = psad.map(|psad| &psad.outcomes[at]);
        let theirs = [blocked(write_up), write_up.learned.clone(), blocked(level_3)];
        rows.push(row(case, &ours.outcomes[at], theirs));
    }
    for (at, name) in FORGED.iter().enumerate() {
        let [write_up, level_3] = psad.map(|psad| of_all(psad.forged[at]));
        let ours = of_all(ours.forged[at]);
        rows.push(format!("| `{name}` | {ours} | – | {write_up} | – | {level_3} |"));
    }

    let page = fs::read_to_string(PAGE).expect("the page");
    let rows = rows.join("\n") + "\n";
    let begin = page.find(BEGIN).expect("the page has the table");
    let length = page[begin..].find("\n\n").map_or(page.len() - begin, |end| end + 1);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let new = [&page[..begin], &rows, &page[begin + length..]].concat();
        fs::write(PAGE, new).expect("can be written");
        return;
    }
    let stable = |table: &str| -> Vec<String> {
        let first = |row: &str| row.split(" | ").take(3).collect::<Vec<_>>().join(" | ");
        table.lines().map(first).collect()
    };
    let said = stable(&page[begin..begin + length]);
    assert_eq!(said, stable(&rows), "UPDATE_GOLDEN=1 writes the table again");
}

fn row(case: &Case, ours: &ScanOutcome, theirs: [String; 3]) -> String {
    let note = if case.note.is_empty() { String::new() } else { format!(", {}", case.note) };
    let (after, learned) = match case.banned {
        // The open ports before the ban are random.
        Banned::AtSixthClosed => ("6 closed ports".to_owned(), "open ports among them".to_owned()),
        _ if ours.seen.is_banned => (ours.seen.packets.to_string(), ours.learned.clone()),
        _ => ("never".to_owned(), ours.learned.clone()),
    };
    let ours = [format!("`{}`{note}", case.name), after, learned];
    // A cell must not have the separator of cells.
    let cells = ours.into_iter().chain(theirs).map(|cell| cell.replace('|', "\\|"));
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

/// Returns the number of packets that passed before the ban.
fn blocked(outcome: &ScanOutcome) -> String {
    let Seen { packets, is_banned, after } = outcome.seen;
    match (is_banned, after) {
        (false, _) => "never".to_owned(),
        (true, 0) => format!("all {packets}"),
        (true, after) => format!("{packets} of {}", packets + after),
    }
}

/// Describes the number of banned forged senders, independent of the speed of the machine.
fn of_all(banned: usize) -> String {
    let banned = if banned >= 90 { "the first 100".to_owned() } else { banned.to_string() };
    format!("bans {banned} of {MANY}")
}
