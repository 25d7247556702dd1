//! The difference of two tables, in lines.

use std::collections::{BTreeMap, BTreeSet};

use nfguard_netlink::{Error, LoadPlan, Nft, Table, text};
use similar::{ChangeTag, TextDiff};

/// Returns what differs between two tables: each line with its mark, under the counter, set or chain that
/// it stands in.
pub fn changes(before: Option<&Table>, after: Option<&Table>) -> Vec<String> {
    let (before, after) = (blocks(before), blocks(after));
    let headings: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut lines = Vec::new();
    for heading in headings {
        match (before.get(heading), after.get(heading)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => {
                lines.push(format!(" {heading}"));
                let changes = TextDiff::from_lines(old, new);
                lines.extend(changes.iter_all_changes().filter_map(|change| {
                    let mark = match change.tag() {
                        ChangeTag::Equal => return None,
                        ChangeTag::Delete => '-',
                        ChangeTag::Insert => '+',
                    };
                    Some(format!("{mark}{}", change.value().trim_end()))
                }));
            }
            (old, new) => {
                let mark = if new.is_some() { '+' } else { '-' };
                lines.push(format!("{mark}{heading}"));
                let body = old.or(new).map(String::as_str).unwrap_or_default();
                lines.extend(body.lines().map(|line| format!("{mark}{line}")));
            }
        }
    }
    lines
}

/// Returns what a load of the table would change in the kernel; `None`: nothing.
///
/// # Errors
/// If the kernel's table cannot be read.
pub fn changes_by_load(table: &Table) -> Result<Option<Vec<String>>, Error> {
    let LoadPlan { snapshot, transaction } = nfguard_netlink::plan_load(&mut Nft::open()?, table)?;
    let before = snapshot.loaded.map(|loaded| loaded.table);
    let differs = !transaction.is_empty();
    Ok(differs.then(|| changes(before.as_ref(), Some(table))))
}

/// A table's counters, sets and chains: heading to body.
fn blocks(table: Option<&Table>) -> BTreeMap<String, String> {
    let text = table.map(|table| text::table(&table.clone().normalized())).unwrap_or_default();
    let mut blocks = BTreeMap::new();
    let mut heading = "table".to_owned();
    for line in text.lines() {
        if let Some(start) = line.strip_suffix(" {").filter(|start| start.starts_with('\t')) {
            heading = start.trim().to_owned();
            blocks.insert(heading.clone(), String::new());
        } else if line == "\t}" {
            heading = "table".to_owned();
        } else if line.starts_with('\t') {
            let body = blocks.entry(heading.clone()).or_default();
            body.push_str(&format!("    {}\n", line.trim()));
        }
    }
    blocks
}
