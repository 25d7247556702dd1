//! `rollback`: returns to a previous load.

use nfguard_control::change::{self, Caution};
use nfguard_control::context::Context;
use nfguard_control::digest;
use nfguard_control::history::previous;
use nfguard_control::policy_file::PolicyFile;
use nfguard_control::rollback;
use nfguard_control::table::ours;
use nfguard_netlink::Nft;
use serde_json::json;

use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn rollback(
    number: Option<u64>,
    caution: &Caution,
    context: &Context,
    as_json: bool,
) -> Done {
    if number.is_none() && rollback::go_back()? {
        if as_json {
            output::json(&json!({ "rolled_back": true }));
        } else {
            output::line("the load was not confirmed yet: the rules from before it are back");
        }
        return Ok(Answer::Yes);
    }
    let loads = context.history.entries();
    let found = match number {
        Some(number) => loads.iter().find(|load| load.number == number),
        None => previous(&loads, digest_in_force()?.as_deref()),
    };
    let Some((load, text)) = found.and_then(|it| Some((it, it.policy.clone()?))) else {
        let why = match number {
            Some(number) => format!("the history has no policy of load {number}"),
            None => "the history has no load before the current one; `nfguard unload` removes a \
                     policy"
                .to_owned(),
        };
        if as_json {
            output::json(&json!({ "rolled_back": false, "reason": why }));
        } else {
            output::warning(&why);
        }
        return Ok(Answer::No);
    };
    let file = PolicyFile::parse(&load.file, text)?;
    if digest::digest(&file.policy.compile()) != load.table {
        output::warning(&format!(
            "another version of nfguard did load {}; this version makes other rules of the same \
             policy",
            load.number
        ));
    }
    let loaded = change::load(&file, Some(load.of.unwrap_or(load.number)), caution, context)?;
    output::loads::print(&file, &loaded, context, as_json);
    Ok(Answer::Yes)
}

/// Returns the digest in the table that the kernel holds; `None` if it holds none.
fn digest_in_force() -> Result<Option<String>, Failure> {
    let held = nfguard_netlink::read_own_table(&mut Nft::open()?, &ours())?.loaded;
    let digest = held.as_ref().and_then(|held| digest::digest_when_loaded(&held.table));
    Ok(digest.map(str::to_owned))
}
