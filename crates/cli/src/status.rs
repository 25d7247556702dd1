//! `status`: is it loaded, is it intact, what has it counted, and which ports the world reaches.

use std::collections::BTreeMap;

use nfguard_netlink::{Counts, Error, Expr, Kernel, Table};
use serde_json::{Value, json};

use crate::args::Seeing;
use crate::host::{self, Host};
use crate::load::ours;
use crate::output::{self, BAD, GOOD, NOTE};
use crate::published::{self, Port};
use crate::{Answer, Done, stamp, way_back};

pub(crate) fn status(seeing: &Seeing, as_json: bool) -> Done {
    let mut kernel = Kernel::open()?;
    let found = match nfguard_netlink::own_table(&mut kernel, &ours()) {
        Err(Error::Decode(error)) => return Ok(strange(&error.to_string(), as_json)),
        found => found?,
    };
    let host = Host::look(&mut kernel, &seeing.docker_socket)?;
    let table = found.loaded.as_ref().map(|loaded| &loaded.table);
    let ports = published::list(&host, table, [false, true].map(host::own_address));
    let Some(loaded) = found.loaded else {
        if as_json {
            let ports = published::to_json(&ports);
            output::json(&json!({ "loaded": false, "ports": ports, "notes": host.notes }));
        } else {
            output::line(&format!("{BAD}no policy is loaded{BAD:#}"));
            print_ports(&ports, &host);
        }
        return Ok(Answer::No);
    };
    let (file, intact) = stamp::verify(&loaded.table);
    if as_json {
        let counters: BTreeMap<&String, Value> = loaded
            .counts
            .iter()
            .map(|(name, counts)| {
                (name, json!({ "packets": counts.packets, "bytes": counts.bytes }))
            })
            .collect();
        output::json(&json!({
            "loaded": true, "file": file, "intact": intact, "counters": counters,
            "ports": published::to_json(&ports), "notes": host.notes,
            "confirm_within_seconds": way_back::time_left().map(|left| left.as_secs_f64()),
        }));
    } else {
        if intact {
            output::line(&format!("{GOOD}{file} is loaded, and intact{GOOD:#}"));
        } else {
            output::line(&format!(
                "{BAD}{file} was loaded, but the table was changed since then; `nfguard diff` \
                 with the file shows where{BAD:#}"
            ));
        }
        if let Some(left) = way_back::time_left() {
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
    published::print(ports);
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
