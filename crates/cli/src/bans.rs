//! `ban`, `unban` and `bans`.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nfguard_ban::{Active, Ban, Bans, Made, NeverBan, Target};
use serde_json::{Value, json};

use crate::args::BanRequest;
use crate::ban_list::{self, Read};
use crate::failure::Failure;
use crate::{Answer, Done, output};

pub(crate) fn ban(request: &BanRequest, as_json: bool) -> Done {
    let mut bans = open()?;
    let mut wanted = Vec::new();
    let mut bad = Vec::new();
    for (place, entry) in entries(request)? {
        let admitted = entry.and_then(|entry| {
            let target = bans.admit(entry.target).map_err(|refused| refused.to_string())?;
            Ok((target, entry))
        });
        match admitted {
            Ok((target, entry)) => wanted.push(Ban {
                target,
                lasts: entry.lasts.unwrap_or(request.lasts),
                source: entry.source.unwrap_or_else(|| request.source.clone()),
                reason: entry.reason.unwrap_or_else(|| request.reason.clone()),
                since: entry.since,
            }),
            Err(problem) => bad.push(format!("{place}{problem}")),
        }
    }
    // Nobody is banned unless it is said what to do: the operator has to look at the list again.
    if !bad.is_empty() && !request.skip_bad_lines {
        return Err(Failure::Usage(format!("nobody was banned:\n  {}", bad.join("\n  "))));
    }
    for problem in &bad {
        output::warning(problem);
    }
    let made = bans.ban_all(wanted)?;
    if as_json {
        let made: Vec<Value> = made
            .iter()
            .map(|(target, made)| json!({ "target": target.to_string(), "did": word(*made) }))
            .collect();
        output::json(&json!({ "bans": made, "refused": bad }));
    } else {
        for (target, made) in made {
            output::line(&format!("{target}: {}", word(made)));
        }
    }
    Ok(Answer::from(bad.is_empty()))
}

/// What is to be banned, or what is wrong with it, and where that stands.
fn entries(request: &BanRequest) -> Result<Vec<(String, Read)>, Failure> {
    if request.targets != ["-"] {
        let lists = request.targets.iter().flat_map(|target| ban_list::parse(target));
        return Ok(lists.map(|(_, entry)| (String::new(), entry)).collect());
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(Failure::file(Path::new("-")))?;
    let list = ban_list::parse(&text).into_iter();
    Ok(list.map(|(number, entry)| (format!("line {number}: "), entry)).collect())
}

pub(crate) fn unban(targets: &[Target], as_json: bool) -> Done {
    let mut bans = open()?;
    let mut ended = Vec::new();
    for target in targets {
        ended.push((target.to_string(), bans.unban(*target)?));
    }
    if as_json {
        let ended: Vec<Value> = ended
            .iter()
            .map(|(target, ended)| json!({ "target": target, "was_banned": ended }))
            .collect();
        output::json(&json!({ "unbans": ended }));
    } else {
        for (target, ended) in &ended {
            let word = if *ended { "unbanned" } else { "was not banned" };
            output::line(&format!("{target}: {word}"));
        }
    }
    Ok(Answer::from(ended.iter().all(|(_, ended)| *ended)))
}

pub(crate) fn list(as_json: bool) -> Done {
    let all = open()?.list()?;
    if as_json {
        output::json(&json!({ "bans": all.iter().map(describe).collect::<Vec<_>>() }));
    } else {
        for Active { target, expires_in, source, reason, .. } in &all {
            let left = expires_in.map_or("for ever".to_owned(), |left| {
                format!("{} left", humantime::format_duration(Duration::from_secs(left.as_secs())))
            });
            output::line(&format!("{:<42} {left:<20} {source:<20} {reason}", target.to_string()));
        }
        if all.is_empty() {
            output::line("nobody is banned");
        }
    }
    Ok(Answer::Yes)
}

fn open() -> Result<Bans, Failure> {
    let mut never = NeverBan::default();
    if let Some(peer) = ssh_peer() {
        never = never.and(peer.into(), "your SSH connection");
    }
    Ok(Bans::open(never)?)
}

/// Where the operator's session comes from (`SSH_CONNECTION`: address, port, address, port).
fn ssh_peer() -> Option<IpAddr> {
    let connection = std::env::var("SSH_CONNECTION").ok()?;
    connection.split_whitespace().next()?.parse().ok()
}

fn word(made: Made) -> &'static str {
    match made {
        Made::Added => "banned",
        Made::Extended => "was banned, now for longer",
        Made::Kept => "was banned already, for at least as long",
    }
}

fn describe(ban: &Active) -> Value {
    json!({
        "target": ban.target.to_string(),
        "expires_in_seconds": ban.expires_in.map(|left| left.as_secs_f64()),
        "source": ban.source,
        "reason": ban.reason,
        "since": ban.since,
    })
}
