//! `ban`, `unban` and `bans`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::slice;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nfguard_ban::{ActiveBan, Admitted, Ban, BanCounts, BanOutcome, Bans, Error, NeverBan};
use nfguard_control::ban_table::never;
use nfguard_control::ban_text::Who;
use nfguard_control::input::STANDARD;
use nfguard_control::lease;
use serde_json::{Value, json};

use crate::args::{BanRequest, BansRequest, Lasts, UnbanRequest};
use crate::input::ban_list::{self, Details, Read};
use crate::output::failure::Failure;
use crate::{Answer, Done, output};

/// A list of so many is worth a progress bar.
const LONG: usize = 20_000;
/// After so many bans it moves on: it looks at the clock each time.
const STEP: u64 = 1_000;

/// Who is to be banned, and what the list says besides of some of them: most lists say nothing, and
/// long ones should not take much memory.
#[derive(Default)]
struct Wanted {
    targets: Vec<Admitted>,
    details: BTreeMap<usize, Box<Details>>,
}

pub(crate) fn ban(request: &BanRequest, as_json: bool) -> Done {
    let mut bans = Bans::open(never()?)?;
    let (wanted, bad) = wanted(request, bans.never_ban())?;
    // Nobody is banned unless it is said what to do: the operator has to look at the list again.
    if !bad.is_empty() && !request.skip_bad_lines {
        return Err(Failure::Usage(format!("nobody was banned:\n{}", output::some_of(&bad))));
    }
    for problem in &bad {
        output::warning(problem);
    }
    let ports = request.extent.ports();
    let all = || {
        wanted.targets.iter().enumerate().flat_map(|(at, target)| {
            let details = wanted.details.get(&at).map(Box::as_ref);
            let own = details.map(|details| &details.port).filter(|port| port.is_some());
            let ports = own.map_or(ports.as_slice(), slice::from_ref);
            ports.iter().map(move |port| to_ban(*target, *port, details, request))
        })
    };
    if request.targets == [STANDARD] {
        let count = wanted.targets.len() * ports.len();
        let mut progress = Progress::default();
        let tally = bans.ban_all(all().inspect(|_| progress.next(count)))?;
        print_tally(&tally, &bad, as_json);
    } else {
        let mut made = Vec::new();
        for ban in all() {
            made.push((describe_ban(&ban), bans.ban(&ban)?));
        }
        print_made(&made, &bad, as_json);
    }
    if request.cut {
        let all: Vec<_> = all().map(|ban| (ban.target.target(), ban.port)).collect();
        let cut = bans.forget_connections(&all)?;
        if !as_json {
            output::line(&format!("{cut} open connections forgotten"));
        }
    }
    Ok(Answer::from(bad.is_empty()))
}

fn to_ban<'a>(
    target: Admitted,
    port: Option<nfguard_ban::Port>,
    details: Option<&'a Details>,
    request: &'a BanRequest,
) -> Ban<'a> {
    let or = |own: Option<&'a String>, general: &'a str| own.map_or(general, String::as_str);
    Ban {
        target,
        port,
        duration: details
            .and_then(|details| details.lasts)
            .unwrap_or_else(|| request.lasts.and_then(|Lasts(lasts)| lasts)),
        source: or(details.and_then(|details| details.source.as_ref()), &request.source),
        reason: or(details.and_then(|details| details.reason.as_ref()), &request.reason),
        created_at: details.and_then(|details| details.created_at),
    }
}

/// Who is to be banned, and what is wrong with the rest, and where that stands.
fn wanted(request: &BanRequest, never: &NeverBan) -> Result<(Wanted, Vec<String>), Failure> {
    let (mut wanted, mut bad) = (Wanted::default(), Vec::new());
    let mut take = |place: &dyn Fn() -> String, entry: Read| {
        let admitted = entry.and_then(|entry| {
            let target = entry.who.admit(never, request.extent.v6_prefix);
            Ok((target.map_err(|refused| refused.to_string())?, entry.details))
        });
        match admitted {
            Ok((target, details)) => {
                wanted.details.extend(details.map(|details| (wanted.targets.len(), details)));
                wanted.targets.push(target);
            }
            Err(problem) => bad.push(format!("{}{problem}", place())),
        }
    };
    if request.targets == [STANDARD] {
        let text = output::read_list(Path::new(STANDARD))?;
        ban_list::parse(&text).for_each(|(at, entry)| take(&|| format!("{at}: "), entry));
    } else {
        for target in &request.targets {
            let mut entries = ban_list::parse(target).peekable();
            // As a script has it whose variable is empty.
            if entries.peek().is_none() {
                take(&String::new, Err(format!("{target:?} names nobody")));
            }
            entries.for_each(|(_, entry)| take(&String::new, entry));
        }
    }
    Ok((wanted, bad))
}

/// Shows how far a long list has got, on a terminal.
#[derive(Default)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    done: u64,
}

impl Progress {
    /// Before each ban; `count`: how many there are.
    pub(crate) fn next(&mut self, count: usize) {
        let bar = self.bar.get_or_insert_with(|| {
            if count < LONG || !io::stderr().is_terminal() {
                return ProgressBar::hidden();
            }
            let style = "{wide_bar} {human_pos} of {human_len} banned, {eta} left";
            let style = ProgressStyle::with_template(style);
            let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        self.done += 1;
        if self.done % STEP == 0 {
            bar.set_position(self.done);
        }
    }
}

pub(crate) fn unban(request: &UnbanRequest, as_json: bool) -> Done {
    let mut bans = Bans::open_existing(never()?)?;
    if let Some(source) = &request.source {
        let ended = match &mut bans {
            Some(bans) => even_if_owned(|| bans.flush(source))?,
            None => 0,
        };
        if as_json {
            output::json(&json!({ "source": source, "unbanned": ended }));
        } else {
            output::line(&format!("{source}: {ended} unbanned"));
        }
        return Ok(Answer::Yes);
    }
    let parse =
        |text: &String| text.parse::<Who>().map_err(|error| Failure::Usage(error.to_string()));
    let targets: Vec<Who> = request.targets.iter().map(parse).collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for (text, who) in request.targets.iter().zip(targets) {
        let mut was_banned = false;
        for port in request.extent.ports() {
            for target in who.may_be_banned_as(request.extent.v6_prefix) {
                let Some(bans) = &mut bans else { continue };
                was_banned |= even_if_owned(|| bans.unban(target, port))?;
            }
        }
        ended.push((text, was_banned));
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

/// A scan's ban lies in the policy's table: where a guard owns that, it is asked to let go of it.
fn even_if_owned<T>(mut end: impl FnMut() -> Result<T, Error>) -> Result<T, Failure> {
    match end() {
        Err(Error::Kernel(error)) if nfguard_ban::scan::is_owned(&error) => {
            let lent = lease::borrow(output::warning)?;
            let ended = end()?;
            lent.give_back(&[], false)?;
            Ok(ended)
        }
        ended => Ok(ended?),
    }
}

pub(crate) fn bans(request: &BansRequest, as_json: bool) -> Done {
    if request.prepare {
        return Ok(Bans::open(never()?).map(|_| Answer::Yes)?);
    }
    let bans = Bans::open_existing(never()?)?;
    if request.ready {
        let ready = bans.is_some();
        if as_json {
            output::json(&json!({ "ready": ready }));
        }
        return Ok(Answer::from(ready));
    }
    if request.count {
        return count(bans, as_json);
    }
    list(bans, request.source.as_deref(), as_json)
}

fn list(bans: Option<Bans>, source: Option<&str>, as_json: bool) -> Done {
    let all = match (bans, source) {
        (None, _) => Vec::new(),
        (Some(mut bans), None) => bans.list()?,
        (Some(mut bans), Some(source)) => bans.list_of(source)?,
    };
    if as_json {
        output::json(&json!({ "bans": all.iter().map(describe).collect::<Vec<_>>() }));
    } else {
        for ban in &all {
            let left = ban.expires_in.map_or("for ever".to_owned(), |left| {
                format!("{} left", humantime::format_duration(Duration::from_secs(left.as_secs())))
            });
            let target = describe_target(&ban.target.to_string(), ban.port);
            let ActiveBan { source, reason, .. } = ban;
            output::line(&format!("{target:<42} {left:<20} {source:<20} {reason}"));
        }
        if all.is_empty() {
            output::line("nobody is banned");
        }
    }
    Ok(Answer::Yes)
}

fn count(bans: Option<Bans>, as_json: bool) -> Done {
    let count = bans.map_or(Ok(0), |mut bans| bans.count())?;
    if as_json {
        output::json(&json!({ "count": count }));
    } else {
        output::line(&count.to_string());
    }
    Ok(Answer::Yes)
}

fn print_made(made: &[(String, BanOutcome)], bad: &[String], as_json: bool) {
    let word = |made| match made {
        BanOutcome::Added => "banned",
        BanOutcome::Extended => "was banned, now for longer",
        BanOutcome::Kept => "was banned already, for at least as long",
    };
    if as_json {
        let made: Vec<Value> = made
            .iter()
            .map(|(target, made)| json!({ "target": target, "did": word(*made) }))
            .collect();
        output::json(&json!({ "bans": made, "refused": bad }));
    } else {
        for (target, made) in made {
            output::line(&format!("{target}: {}", word(*made)));
        }
    }
}

pub(crate) fn print_tally(tally: &BanCounts, bad: &[String], as_json: bool) {
    if as_json {
        output::json(&describe_tally(tally, bad));
    } else {
        let BanCounts { added, extended, kept } = tally;
        output::line(&format!(
            "{added} banned, {extended} were banned and are now for longer, {kept} were banned \
             already for at least as long"
        ));
    }
}

pub(crate) fn describe_tally(tally: &BanCounts, bad: &[String]) -> Value {
    let BanCounts { added, extended, kept } = tally;
    json!({ "added": added, "extended": extended, "kept": kept, "refused": bad })
}

fn describe_ban(ban: &Ban<'_>) -> String {
    describe_target(&ban.target.target().to_string(), ban.port)
}

fn describe_target(target: &str, port: Option<nfguard_ban::Port>) -> String {
    port.map_or_else(|| target.to_owned(), |port| format!("{target} to {port}"))
}

/// As [`ban_list`] reads it.
fn describe(ban: &ActiveBan) -> Value {
    json!({
        "target": ban.target.to_string(),
        "port": ban.port.map(|port| port.to_string()),
        "expires_in_seconds": ban.expires_in.map(|left| left.as_secs_f64()),
        "source": ban.source,
        "reason": ban.reason,
        "created_at": ban.created_at,
    })
}
