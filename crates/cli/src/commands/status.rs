//! `status`: is it loaded, is it intact, what has it counted, and which ports the world reaches.

use std::collections::BTreeMap;

use nfguard_control::{digest, drift, rollback};
use nfguard_netlink::{Counts, Error, Expr, Nft, Ownership, Table};
use serde_json::{Value, json};

use crate::args::StatusRequest;
use crate::inspect::system::{self, Host};
use crate::output::{self, BAD, GOOD, NOTE};
use crate::inspect::ports::{self, Port};
use crate::{Answer, Done};
use nfguard_control::history::History;
use nfguard_control::table::ours;

pub(crate) fn status(request: &StatusRequest, history: &History, as_json: bool) -> Done {
    let mut kernel = Nft::open()?;
    let found = match nfguard_netlink::own_table(&mut kernel, &ours()) {
        Err(Error::Decode(error)) => return Ok(strange(&error.to_string(), as_json)),
        found => found?,
    };
    let host = Host::look(&mut kernel, &request.seeing.docker_socket)?;
    let table = found.loaded.as_ref().map(|loaded| &loaded.table);
    let ports = ports::list(&host, table, [false, true].map(system::own_address));
    let recall = || drift::Loaded::recall(table, request.policy.as_deref(), history);
    let Some(loaded) = &found.loaded else {
        let gone = recall()?;
        if as_json {
            let ports = ports::to_json(&ports);
            let gone =
                gone.map(|gone| json!({ "file": gone.file, "time": gone.time.map(output::time) }));
            output::json(&json!({
                "loaded": false, "ports": ports, "notes": host.notes, "gone": gone,
            }));
        } else {
            output::line(&format!("{BAD}no policy is loaded{BAD:#}"));
            if let Some(gone) = gone {
                output::line(&format!("{NOTE}{}, and is gone{NOTE:#}", described(&gone)));
            }
            print_ports(&ports, &host);
        }
        return Ok(Answer::No);
    };
    let owned = matches!(kernel.holding(&loaded.table.name)?, Some(Ownership::Owned(_)));
    let (file, intact) = digest::verify(&loaded.table);
    // With a policy given it is that one, whatever was loaded.
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
            "ports": ports::to_json(&ports), "notes": host.notes,
            "confirm_within_seconds": rollback::time_left().map(|left| left.as_secs_f64()),
        }));
    } else {
        if intact {
            output::line(&format!("{GOOD}{file} is loaded, and intact{GOOD:#}"));
        } else {
            print_drift(&file, known.as_ref(), &drift);
        }
        if owned {
            output::line("`nfguard guard` owns it: nobody else can change it");
        }
        if let Some(left) = rollback::time_left() {
            output::line(&format!(
                "{NOTE}it waits for `nfguard confirm`: in {} s what was there before comes \
                 back{NOTE:#}",
                left.as_secs(),
            ));
        }
        print_counters(&loaded.table, &loaded.counts);
        print_ports(&ports, &host);
    }
    Ok(Answer::from(intact))
}

/// "FILE was loaded at such a time".
fn described(known: &drift::Loaded) -> String {
    match known.time {
        Some(time) => format!("{} was loaded at {}", known.file, output::time(time)),
        None => format!("{} was loaded", known.file),
    }
}

/// What was changed, as far as that can be said.
fn print_drift(file: &str, known: Option<&drift::Loaded>, drift: &[String]) {
    let line = |text: &str| output::line(&format!("{BAD}{text}{BAD:#}"));
    match known {
        None => line(&format!(
            "{file} was loaded, but the table was changed since then; the history of loads does not \
             know it, but `nfguard status --policy` with the file shows what was changed"
        )),
        Some(known) if drift.is_empty() => line(&format!(
            "{}, and the table was changed since then in what nft has no words for; `nfguard load` \
             puts it right",
            described(known)
        )),
        Some(known) => {
            line(&format!(
                "{}, but this was changed since then: - is missing, + was added",
                described(known)
            ));
            output::print_changes(drift);
        }
    }
}

/// Somebody put something into our table that nfguard has no words for.
fn strange(what: &str, as_json: bool) -> Answer {
    if as_json {
        output::json(&json!({ "loaded": true, "intact": false, "reason": what }));
    } else {
        output::line(&format!(
            "{BAD}the table was changed since it was loaded: it holds {what}; `nfguard load` makes \
             it anew{BAD:#}"
        ));
    }
    Answer::No
}

fn print_ports(ports: &[Port], host: &Host) {
    ports::print(ports);
    for note in &host.notes {
        output::line(&format!("{NOTE}{note}{NOTE:#}"));
    }
}

fn print_counters(table: &Table, counts: &BTreeMap<String, Counts>) {
    output::line(&format!("\n{:>12} {:>14}  {:<24} {}", "packets", "bytes", "counter", "rule"));
    let comments = comments(table);
    for counter in &table.counters {
        let name = counter.name.as_str();
        let Counts { packets, bytes } = counts.get(name).copied().unwrap_or_default();
        let comment = comments.get(name).copied().unwrap_or_default();
        output::line(&format!("{packets:>12} {bytes:>14}  {name:<24} {comment}"));
    }
}

/// For each counter, what the first rule that uses it says of itself.
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
