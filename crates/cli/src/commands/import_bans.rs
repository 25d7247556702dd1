//! `import bans`: takes over the bans of other tools.

use std::path::Path;
use std::time::Instant;

use nfguard_control::context::Context;
use nfguard_control::fail2ban;
use nfguard_control::input::{STANDARD, read_bytes};
use nfguard_control::lists::is_sqlite;
use nfguard_control::lists::review::ListUse;
use nfguard_control::persistence;
use nfguard_control::timed_bans::ban_until;

use crate::args::{BanDuration, BansImport};
use crate::input::ban_list::{BanList, Defaults};
use crate::input::judged::judge;
use crate::output::bans::print_counts;
use crate::output::failure::Failure;
use crate::output::progress::Progress;
use crate::output::{Answer, Done};

/// Source of the bans of which nothing says whose they are.
const DEFAULT_SOURCE: &str = "import";

pub(crate) fn import(request: &BansImport, context: &Context, as_json: bool) -> Done {
    let asked_at = Instant::now();
    let mut bytes = read_bytes(&request.file)?;
    if is_sqlite(&bytes) {
        if request.file == Path::new(STANDARD) {
            return Err(Failure::Usage(
                "a database is read by its path, not from standard input".to_owned(),
            ));
        }
        bytes = fail2ban::dump(&request.file)?;
    }
    let mut bans = persistence::open(context)?;
    let (never_ban, v6_prefix) = (bans.never_ban(), request.extent.v6_prefix);
    let list = BanList::read(&bytes, &request.list.options(), never_ban, v6_prefix)?;
    list.check(request.list.skip_bad_lines)?;
    // That no ban is left of what was banned is no error.
    let judgement = match list.count(1) {
        0 => None,
        _ => {
            let clean = list.feed.clean(never_ban);
            Some(judge(
                &clean,
                &list.summary,
                ListUse::Bans,
                request.list.force,
                "no address was banned",
            )?)
        }
    };
    let ports = request.extent.ports();
    let defaults = Defaults {
        ports: &ports,
        duration: request.duration.and_then(|BanDuration(duration)| duration),
        source: DEFAULT_SOURCE,
        reason: &request.reason,
        only_source: request.source.as_deref(),
    };
    let (count, mut progress) = (list.count(ports.len()), Progress::default());
    let all = list.bans(defaults).inspect(|_| progress.next(count));
    let counts = ban_until(&mut bans, all, asked_at);
    persistence::write_down(&mut bans, list.bans(defaults), counts.is_ok(), context);
    print_counts(&counts?, list.summary.over, &list.bad, as_json);
    if let (Some(judgement), false) = (judgement, as_json) {
        judgement.print(&list.summary);
    }
    Ok(Answer::from(list.bad.is_empty()))
}
