//! `ban`: bans addresses and prefixes.

use std::path::Path;
use std::time::Instant;

use nfguard_ban::{Ban, BanOutcome};
use nfguard_control::context::Context;
use nfguard_control::input::{STANDARD, read_bytes};
use nfguard_control::lists::review::ListUse;
use nfguard_control::persistence;
use nfguard_control::timed_bans::ban_until;
use serde_json::{Value, json};

use crate::args::{BanDuration, BanRequest};
use crate::input::ban_list::{BanList, Defaults};
use crate::input::judged::judge;
use crate::output::bans::{
    outcome_text, print_counts, print_spared_peer, spared_peer_to_json, target_text,
};
use crate::output::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{self, Answer, Done};

pub(crate) fn ban(request: &BanRequest, context: &Context, as_json: bool) -> Done {
    let asked_at = Instant::now();
    let is_list = request.targets == [STANDARD];
    if let (false, Some(option)) = (is_list, request.list.of_lists_alone()) {
        return Err(Failure::Usage(format!(
            "{option} is about a list, and these are targets; `-` reads a list"
        )));
    }
    let mut bans = persistence::open(context)?;
    let (never_ban, v6_prefix) = (bans.never_ban(), request.extent.v6_prefix);
    let list = match is_list {
        true => {
            let bytes = read_bytes(Path::new(STANDARD))?;
            BanList::read(&bytes, &request.list.options(), never_ban, v6_prefix)?
        }
        false => BanList::of_arguments(&request.targets, never_ban, v6_prefix),
    };
    list.check(request.list.skip_bad_lines)?;
    if is_list && list.count(1) > 0 || list.is_judged() {
        let clean = list.feed.clean(never_ban);
        judge(&clean, &list.summary, ListUse::Bans, request.list.force, "no address was banned")?;
    }
    let ports = request.extent.ports();
    let defaults = Defaults {
        ports: &ports,
        duration: request.duration.and_then(|BanDuration(duration)| duration),
        source: &request.source,
        reason: &request.reason,
        only_source: None,
    };
    if is_list {
        let count = list.count(ports.len());
        let mut progress = Progress::default();
        let all = list.bans(defaults).inspect(|_| progress.next(count));
        let counts = ban_until(&mut bans, all, asked_at);
        persistence::write_down(&mut bans, list.bans(defaults), counts.is_ok(), context);
        print_counts(&counts?, list.summary.over, &list.bad, as_json);
    } else {
        let make = |ban: Ban<'_>| {
            let target = target_text(&ban.target.target().to_string(), ban.port);
            bans.ban(&ban).map(|outcome| (target, outcome))
        };
        let outcomes: Result<Vec<_>, _> = list.bans(defaults).map(make).collect();
        persistence::write_down(&mut bans, list.bans(defaults), outcomes.is_ok(), context);
        print(&outcomes?, &list.bad, context, as_json);
    }
    if !as_json {
        print_spared_peer(context);
    }
    if request.cut {
        let all: Vec<_> = list.bans(defaults).map(|ban| (ban.target.target(), ban.port)).collect();
        let cut = bans.forget_connections(&all)?;
        if !as_json {
            output::line(&format!("{cut} open connections removed"));
        }
    }
    Ok(Answer::from(list.bad.is_empty()))
}

fn print(outcomes: &[(String, BanOutcome)], bad: &[String], context: &Context, as_json: bool) {
    if as_json {
        let bans: Vec<Value> = outcomes
            .iter()
            .map(|(target, outcome)| json!({ "target": target, "did": outcome_text(*outcome) }))
            .collect();
        let ssh_peer = spared_peer_to_json(context);
        output::json(&json!({ "bans": bans, "refused": bad, "ssh_peer": ssh_peer }));
    } else {
        for (target, outcome) in outcomes {
            output::line(&format!("{target}: {}", outcome_text(*outcome)));
        }
    }
}
