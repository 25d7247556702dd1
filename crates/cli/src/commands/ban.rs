//! `ban`: bans addresses and prefixes.

use std::collections::BTreeMap;
use std::path::Path;
use std::slice;

use nfguard_ban::{Admitted, Ban, BanOutcome, NeverBan, Port};
use nfguard_control::context::Context;
use nfguard_control::input::STANDARD;
use nfguard_control::persistence;
use serde_json::{Value, json};

use crate::args::{BanDuration, BanRequest};
use crate::input;
use crate::input::ban_list::{self, Details, ReadEntry};
use crate::output::bans::{
    outcome_text, print_counts, print_spared_peer, spared_peer_to_json, target_text,
};
use crate::output::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{self, Answer, Done};

/// The targets, and the details of those that have some. Most lists have none, and a long list
/// should not take much memory.
#[derive(Default)]
struct Targets {
    admitted: Vec<Admitted>,
    details: BTreeMap<usize, Box<Details>>,
}

pub(crate) fn ban(request: &BanRequest, context: &Context, as_json: bool) -> Done {
    let mut bans = persistence::open(context)?;
    let (targets, bad) = targets(request, bans.never_ban())?;
    // Without `--skip-bad-lines` a bad line stops everything: the operator has to check the list.
    if !bad.is_empty() && !request.skip_bad_lines {
        return Err(Failure::Usage(format!("no address was banned:\n{}", output::some_of(&bad))));
    }
    for problem in &bad {
        output::warning(problem);
    }
    let ports = request.extent.ports();
    let all = || {
        targets.admitted.iter().enumerate().flat_map(|(at, target)| {
            let details = targets.details.get(&at).map(Box::as_ref);
            let own = details.map(|details| &details.port).filter(|port| port.is_some());
            let ports = own.map_or(ports.as_slice(), slice::from_ref);
            ports.iter().map(move |port| to_ban(*target, *port, details, request))
        })
    };
    if request.targets == [STANDARD] {
        let count = targets.admitted.len() * ports.len();
        let mut progress = Progress::default();
        let counts = bans.ban_all(all().inspect(|_| progress.next(count)))?;
        print_counts(&counts, &bad, as_json);
    } else {
        let mut outcomes = Vec::new();
        for ban in all() {
            let target = target_text(&ban.target.target().to_string(), ban.port);
            outcomes.push((target, bans.ban(&ban)?));
        }
        print(&outcomes, &bad, context, as_json);
    }
    context.write_down("these bans", |kept| {
        kept.ban_log().map_or(Ok(false), |log| log.banned(all()).map(|()| true))
    });
    if !as_json {
        print_spared_peer(context);
    }
    if request.cut {
        let all: Vec<_> = all().map(|ban| (ban.target.target(), ban.port)).collect();
        let cut = bans.forget_connections(&all)?;
        if !as_json {
            output::line(&format!("{cut} open connections removed"));
        }
    }
    Ok(Answer::from(bad.is_empty()))
}

fn to_ban<'a>(
    target: Admitted,
    port: Option<Port>,
    details: Option<&'a Details>,
    request: &'a BanRequest,
) -> Ban<'a> {
    let or = |own: Option<&'a String>, general: &'a str| own.map_or(general, String::as_str);
    Ban {
        target,
        port,
        duration: details
            .and_then(|details| details.duration)
            .unwrap_or_else(|| request.duration.and_then(|BanDuration(duration)| duration)),
        source: or(details.and_then(|details| details.source.as_ref()), &request.source),
        reason: or(details.and_then(|details| details.reason.as_ref()), &request.reason),
        created_at: details.and_then(|details| details.created_at),
    }
}

/// Returns the targets, and the problem of each bad entry with its place.
fn targets(request: &BanRequest, never: &NeverBan) -> Result<(Targets, Vec<String>), Failure> {
    let (mut targets, mut bad) = (Targets::default(), Vec::new());
    let mut take = |place: &dyn Fn() -> String, entry: ReadEntry| {
        let admitted = entry.and_then(|entry| {
            let target = entry.who.admit(never, request.extent.v6_prefix);
            Ok((target.map_err(|refused| refused.to_string())?, entry.details))
        });
        match admitted {
            Ok((target, details)) => {
                targets.details.extend(details.map(|details| (targets.admitted.len(), details)));
                targets.admitted.push(target);
            }
            Err(problem) => bad.push(format!("{}{problem}", place())),
        }
    };
    if request.targets == [STANDARD] {
        let text = input::read_list(Path::new(STANDARD))?;
        ban_list::parse(&text).for_each(|(at, entry)| take(&|| format!("{at}: "), entry));
    } else {
        for target in &request.targets {
            let mut entries = ban_list::parse(target).peekable();
            // An empty variable of a script gives an empty argument.
            if entries.peek().is_none() {
                take(&String::new, Err(format!("{target:?} has no address")));
            }
            entries.for_each(|(_, entry)| take(&String::new, entry));
        }
    }
    Ok((targets, bad))
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
