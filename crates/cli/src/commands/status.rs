//! `status`: whether the policy is loaded and intact, its counters, and the ports that the world
//! reaches.

use std::collections::BTreeMap;

use nfguard_control::{digest, drift};
use nfguard_netlink::{Counts, Error, Expr, Nft, Ownership, Table};
use serde_json::{Value, json};

use crate::args::StatusRequest;
use crate::inspect::finding::Finding;
use crate::inspect::guests;
use crate::inspect::ports::{self, Port};
use crate::inspect::system::Host;
use crate::output::{self, Answer, BAD, Done, GOOD, NOTE};
use crate::output::{loads, ports as port_table};

use nfguard_control::history::History;
use nfguard_control::table::ours;

pub(crate) fn status(request: &StatusRequest, history: &History, as_json: bool) -> Done {
    let mut kernel = Nft::open()?;
    let found = match nfguard_netlink::read_own_table(&mut kernel, &ours()) {
        Err(Error::Decode(error)) => return Ok(strange(&error.to_string(), as_json)),
        found => found?,
    };
    let host = Host::read(&mut kernel, &request.sources.docker_socket)?;
    let table = found.loaded.as_ref().map(|loaded| &loaded.table);
    let ports = ports::summed_up(&ports::list(&host, table));
    let guests = guests::findings(&host, table);
    let recall = || drift::Loaded::recall(table, request.policy.as_deref(), history);
    let Some(loaded) = &found.loaded else {
        let last_load = recall()?;
        if as_json {
            let ports = port_table::to_json(&ports);
            let last_load = last_load
                .map(|load| json!({ "file": load.file, "time": load.time.map(output::time) }));
            output::json(&json!({
                "loaded": false, "ports": ports, "findings": guests, "notes": host.notes,
                "last_load": last_load,
            }));
        } else {
            output::styled(BAD, "no policy is loaded");
            if let Some(load) = last_load {
                output::styled(NOTE, &format!("{}, and is gone", described(&load)));
            }
            print_ports(&ports, &guests, &host);
        }
        return Ok(Answer::No);
    };
    let owned = matches!(kernel.ownership(&loaded.table.name)?, Some(Ownership::Owned(_)));
    let (file, intact) = digest::verify(&loaded.table);
    // The given policy takes precedence over the history.
    let known = if intact && request.policy.is_none() { None } else { recall()? };
    let drift = known.as_ref().map(|known| known.drift(table)).unwrap_or_default();
    let as_given = known.is_none() || drift.is_empty();
    let intact = intact && as_given;
    if as_json {
        let counters: BTreeMap<&String, Value> = loaded
            .counts
            .iter()
            .map(|(name, counts)| {
                (name, json!({ "packets": counts.packets, "bytes": counts.bytes }))
            })
            .collect();
        output::json(&json!({
            "loaded": true, "file": file, "intact": intact, "drift": drift, "owned": owned,
            "counters": counters,
            "ports": port_table::to_json(&ports), "findings": guests, "notes": host.notes,
            "confirm_within_seconds": loads::time_left().map(|left| left.as_secs_f64()),
        }));
    } else {
        if intact {
            output::styled(GOOD, &format!("{} is loaded, and intact", file));
        } else {
            print_drift(&file, known.as_ref(), &drift);
        }
        if owned {
            output::line("`nfguard guard` owns the table: no other program can change it");
        }
        if let Some(left) = loads::time_left() {
            output::styled(
                NOTE,
                &format!(
                    "the load waits for `nfguard confirm`: without it, the previous rules come back \
                     in {} s",
                    left.as_secs(),
                ),
            );
        }
        print_counters(&loaded.table, &loaded.counts);
        print_ports(&ports, &guests, &host);
    }
    Ok(Answer::from(intact))
}

/// Returns "FILE was loaded at TIME".
fn described(known: &drift::Loaded) -> String {
    match known.time {
        Some(time) => format!("{} was loaded at {}", known.file, output::time(time)),
        None => format!("{} was loaded", known.file),
    }
}

/// Prints what was changed, as far as it is known.
fn print_drift(file: &str, known: Option<&drift::Loaded>, drift: &[String]) {
    let line = |text: &str| output::styled(BAD, text);
    match known {
        None => line(&format!(
            "{file} was loaded, and the table was changed since then; the history of loads lacks this \
             load: `nfguard status --policy` with the policy file shows what was changed"
        )),
        Some(known) if drift.is_empty() => line(&format!(
            "{}, and the table was changed since then in parts that nft cannot print; `nfguard load` \
             restores it",
            described(known)
        )),
        Some(known) => {
            line(&format!(
                "{}, and the table was changed since then: - is missing, + was added",
                described(known)
            ));
            output::print_changes(drift);
        }
    }
}

/// Reports a table with parts that nfguard does not know.
fn strange(what: &str, as_json: bool) -> Answer {
    if as_json {
        output::json(&json!({ "loaded": true, "intact": false, "reason": what }));
    } else {
        output::styled(
            BAD,
            &format!(
                "the table was changed since it was loaded: it holds {}; `nfguard load` replaces it",
                what
            ),
        );
    }
    Answer::No
}

fn print_ports(ports: &[Port], guests: &[Finding], host: &Host) {
    port_table::print(ports, &host.network);
    for finding in guests {
        output::styled(BAD, &format!("! {}", finding.what));
    }
    if !guests.is_empty() {
        output::styled(NOTE, "`nfguard doctor` says what helps");
    }
    for note in &host.notes {
        output::styled(NOTE, note);
    }
}

fn print_counters(table: &Table, counts: &BTreeMap<String, Counts>) {
    output::line("");
    output::line(&format!("{:>12} {:>14}  {:<24} {}", "packets", "bytes", "counter", "rule"));
    let comments = comments(table);
    for counter in &table.counters {
        let name = counter.name.as_str();
        let Counts { packets, bytes } = counts.get(name).copied().unwrap_or_default();
        let comment = comments.get(name).copied().unwrap_or_default();
        output::line(&format!("{packets:>12} {bytes:>14}  {:<24} {}", name, comment));
    }
}

/// Returns, for each counter, the comment of the first rule that uses it.
fn comments(table: &Table) -> BTreeMap<&str, &str> {
    let mut comments = BTreeMap::new();
    for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
        for expr in &rule.exprs {
            if let Expr::Counter(name) = expr {
                comments
                    .entry(name.as_str())
                    .or_insert(rule.comment.as_deref().unwrap_or_default());
            }
        }
    }
    comments
}
