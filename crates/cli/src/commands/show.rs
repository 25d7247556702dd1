//! `show`: prints a policy, or the loaded policy, as nft text.

use std::path::Path;

use nfguard_netlink::{Nft, Table, text};
use serde_json::{Value, json};

use crate::output::{self, Answer, Done};
use nfguard_control::table::ours;

pub(crate) fn show(path: Option<&Path>, as_json: bool) -> Done {
    let table = match path {
        Some(path) => output::read_policy(path, as_json)?.policy.compile(),
        None => {
            let mut kernel = Nft::open()?;
            match nfguard_netlink::read_own_table(&mut kernel, &ours())?.loaded {
                Some(loaded) => loaded.table,
                None => {
                    if as_json {
                        output::json(&json!({ "table": null }));
                    } else {
                        output::line("no policy is loaded");
                    }
                    return Ok(Answer::No);
                }
            }
        }
    };
    if as_json {
        output::json(&json!({ "table": describe(&table), "nft": text::table(&table) }));
    } else {
        output::lines(text::table(&table).trim_end());
    }
    Ok(Answer::Yes)
}

fn describe(table: &Table) -> Value {
    let chains: Vec<Value> = table
        .chains
        .iter()
        .map(|chain| {
            let rules: Vec<Value> = chain
                .rules
                .iter()
                .map(|rule| json!({ "nft": text::rule(rule), "comment": rule.comment }))
                .collect();
            json!({ "name": chain.name, "head": text::chain_head(chain), "rules": rules })
        })
        .collect();
    let sets: Vec<Value> = table
        .sets
        .iter()
        .map(|set| json!({ "name": set.name, "nft": text::set_head(set), "elements": set.elements.len() }))
        .collect();
    let counters: Vec<&str> = table.counters.iter().map(|counter| counter.name.as_str()).collect();
    json!({
        "family": "inet",
        "name": table.name,
        "comment": table.comment,
        "chains": chains,
        "sets": sets,
        "counters": counters,
    })
}
