//! `unban`: removes bans.

use nfguard_ban::{Addresses, Bans, Error};
use nfguard_control::ban_text::may_be_banned_as;
use nfguard_control::context::Context;
use nfguard_control::lease::{self, Release};
use nfguard_control::saved_bans::BanLog;
use serde_json::{Value, json};

use crate::args::UnbanRequest;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn unban(request: &UnbanRequest, context: &Context, as_json: bool) -> Done {
    let mut bans = Bans::open_existing(context.never_ban()?)?;
    if let (Some(source), true) = (&request.source, request.targets.is_empty()) {
        let count = match &mut bans {
            Some(bans) => with_lease(|| bans.flush(source))?,
            None => 0,
        };
        write_down(context, |log| log.ended(source));
        if as_json {
            output::json(&json!({ "source": source, "unbanned": count }));
        } else {
            output::line(&format!("{source}: {count} unbanned"));
        }
        return Ok(Answer::Yes);
    }
    let parse = |text: &String| {
        text.parse::<Addresses>().map_err(|error| Failure::Usage(error.to_string()))
    };
    let targets: Vec<Addresses> = request.targets.iter().map(parse).collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    let mut end = |target, port| -> Result<bool, Failure> {
        let was_banned = match &mut bans {
            Some(bans) => with_lease(|| match &request.source {
                Some(source) => bans.unban_of(source, target, port),
                None => bans.unban(target, port),
            })?,
            None => false,
        };
        ended.push((target, port));
        Ok(was_banned)
    };
    let unban_each = |(text, who)| {
        let mut was_banned = false;
        for port in request.extent.ports() {
            for target in may_be_banned_as(who, request.extent.v6_prefix) {
                was_banned |= end(target, port)?;
            }
        }
        Ok((text, was_banned))
    };
    let unbans: Result<Vec<_>, Failure> =
        request.targets.iter().zip(targets).map(unban_each).collect();
    write_down(context, |log| log.unbanned(ended, request.source.as_deref()));
    let unbans = unbans?;
    if as_json {
        let unbans: Vec<Value> = unbans
            .iter()
            .map(|(target, was_banned)| json!({ "target": target, "was_banned": was_banned }))
            .collect();
        output::json(&json!({ "unbans": unbans }));
    } else {
        for (target, was_banned) in &unbans {
            let word = if *was_banned { "unbanned" } else { "was not banned" };
            output::line(&format!("{target}: {word}"));
        }
    }
    Ok(Answer::from(unbans.iter().all(|(_, was_banned)| *was_banned)))
}

/// Writes down what has ended, or the next boot brings it back.
fn write_down(
    context: &Context,
    write: impl FnOnce(BanLog<'_>) -> Result<(), nfguard_control::Error>,
) {
    context.write_down("these bans", |files| {
        files.ban_log().map_or(Ok(false), |log| write(log).map(|()| true))
    });
}

/// Removes bans, with a lease of the policy's table if a guard owns it: bans of scanners lie in that
/// table.
fn with_lease<T>(mut remove: impl FnMut() -> Result<T, Error>) -> Result<T, Failure> {
    match remove() {
        Err(Error::Kernel(error)) if nfguard_ban::scan::is_owned(&error) => {
            let lease = lease::acquire()?;
            let removed = remove()?;
            lease.release(Release::Loaded)?;
            Ok(removed)
        }
        removed => Ok(removed?),
    }
}
