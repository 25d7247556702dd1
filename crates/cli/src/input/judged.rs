//! Lists that are judged as a whole before they are put in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nfguard_ban::CleanFeed;
use nfguard_ban::nfguard_netlink::IpVersion;
use nfguard_control::lists::Summary;
use nfguard_control::lists::review::{Facts, ListUse, connected_peers};
use serde_json::{Value, json};

use crate::output;
use crate::output::failure::Failure;

/// What a list would shut out, for the answer of a verb.
pub(crate) struct Judgement {
    v4_percent: f64,
    v6_percent: f64,
    peers_shut_out: Vec<IpAddr>,
}

/// Judges a list. With `force`, what speaks against it is only told.
pub(crate) fn judge(
    list: &CleanFeed,
    summary: &Summary,
    list_use: ListUse<'_>,
    force: bool,
    unchanged: &str,
) -> Result<Judgement, Failure> {
    let peers = connected_peers().unwrap_or_else(|error| {
        output::warning(&format!("which peers it shuts out is not known: {error}"));
        BTreeSet::new()
    });
    let facts = Facts { list, summary, list_use, peers: &peers };
    let objections = facts.objections();
    if !objections.is_empty() && !force {
        let reasons = output::some_of(&objections);
        let what = match list_use {
            ListUse::Feed { .. } => "puts the list in",
            ListUse::Bans => "bans all of it",
        };
        return Err(Failure::Usage(format!("{unchanged}:\n{reasons}\n--force {what} anyway")));
    }
    for objection in &objections {
        output::warning(objection);
    }
    Ok(Judgement {
        v4_percent: facts.percent(IpVersion::V4),
        v6_percent: facts.percent(IpVersion::V6),
        peers_shut_out: facts.peers_shut_out(),
    })
}

impl Judgement {
    /// Prints what was read and what it shuts out.
    pub(crate) fn print(&self, summary: &Summary) {
        let Judgement { v4_percent, v6_percent, peers_shut_out } = self;
        output::line(&format!(
            "read as {}; shuts out {v4_percent:.3} percent of IPv4 and {v6_percent:.3} percent of IPv6",
            summary.form
        ));
        for (what, count) in &summary.left_out {
            output::line(&format!("{count} left out: {what}"));
        }
        if let Some(first) = peers_shut_out.first() {
            let count = peers_shut_out.len();
            output::warning(&format!(
                "{count} peers that are connected now are shut out, {first} among them"
            ));
        }
    }

    /// Adds the same to an answer in JSON.
    pub(crate) fn add_to(&self, answer: &mut Value, summary: &Summary) {
        answer["form"] = json!(summary.form);
        answer["left_out"] = json!(summary.left_out);
        answer["v4_percent"] = json!(self.v4_percent);
        answer["v6_percent"] = json!(self.v6_percent);
        answer["peers_shut_out"] = json!(self.peers_shut_out);
    }
}
