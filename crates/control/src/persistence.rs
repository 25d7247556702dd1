//! Brings back what is written down: at a boot, and where there is no table for bans any more.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nfguard_ban::{ActiveBan, Addresses, Ban, Bans, NeverBanEntry, NeverBanKind, Port, Target};

use crate::Error;
use crate::clock::now;
use crate::context::Context;
use crate::guard::ban_record;
use crate::lists::review::objections_to;
use crate::saved_bans::{self, BanLog, Restored, RestoredBans};
use crate::voided_bans::{spare, voided_text};

/// Opens the bans. If there was no table for them, because another program has flushed the ruleset or
/// because no boot has restored what was written down, that is restored first.
///
/// # Errors
/// If the bans cannot be opened.
pub fn open(context: &Context) -> Result<Bans, Error> {
    let mut bans = Bans::open(context.never_ban()?)?;
    if bans.is_new() && !context.restores_later {
        let report = |error: &Error| (context.warn)(&error.to_string());
        let restored = restore_all(&mut bans, None, context, &report, |_| ());
        if let Some(text) = restored.text() {
            (context.warn)(&format!("there was no table for bans, and it was made again: {text}"));
        }
    }
    Ok(bans)
}

/// What was restored besides bans.
#[derive(Debug)]
pub struct RestoredState {
    /// What came of the bans; `None` if there were none, or the kernel refused them.
    pub bans: Option<Restored>,
    /// How many never-ban entries.
    pub never_ban: usize,
    /// The names of the feeds.
    pub feeds: Vec<String>,
    /// Whether something was written down that is not in force.
    pub is_incomplete: bool,
}

impl RestoredState {
    pub(crate) fn nothing() -> RestoredState {
        RestoredState { bans: None, never_ban: 0, feeds: Vec::new(), is_incomplete: false }
    }

    /// Returns in words what was restored; `None` if there was nothing.
    pub fn text(&self) -> Option<String> {
        let bans = self.bans.as_ref().map_or(0, |restored| restored.tally.all());
        let RestoredState { never_ban, feeds, .. } = self;
        let is_any = bans > 0 || *never_ban > 0 || !feeds.is_empty();
        let feeds = feeds.len();
        let text =
            format!("{bans} bans, {feeds} feeds and {never_ban} never-ban entries are restored");
        is_any.then_some(text)
    }
}

/// Restores what is written down: the never-ban entries, then the bans of this file and of the log,
/// and the feeds. What cannot be restored is reported, and keeps nothing else from being restored.
pub fn restore_all(
    bans: &mut Bans,
    file: Option<&Path>,
    context: &Context,
    report: &dyn Fn(&Error),
    next: impl FnMut(usize),
) -> RestoredState {
    let files = &context.files;
    let mut is_incomplete = false;
    let mut failed = |error: Error| {
        report(&error);
        is_incomplete = true;
    };
    let (entries, problems) = files.never_ban();
    problems.into_iter().for_each(|why| failed(Error::Usage(why)));
    let count = entries.len();
    let by_hand = entries
        .into_iter()
        .map(|(network, reason)| NeverBanEntry::from((network, NeverBanKind::by_hand(&reason))));
    // Before the bans: what is never banned is not to be banned for a moment.
    let added = spare(bans, |bans| bans.add_never_ban(by_hand)).map(|voided| {
        voided_text(&voided).iter().for_each(|text| (context.warn)(text));
        count
    });
    let never_ban = added.unwrap_or_else(|error| {
        failed(error.into());
        0
    });
    let path = file.map(Path::to_owned).or_else(|| context.history.bans());
    let restored = path.map_or_else(RestoredBans::default, |path| {
        let log = files.ban_log();
        // No save is to end between the reading of the file and that of the log.
        let _save = log.and_then(|log| log.lock_save().ok());
        saved_bans::restore_written(bans, &path, log, context.warn, report, next)
    });
    let mut feeds = Vec::new();
    for feed in files.feeds() {
        let put_in = feed.and_then(|(name, feed)| {
            bans.set_feed(&name, &feed.clean(bans.never_ban()))?;
            Ok(name)
        });
        match put_in {
            Ok(name) => feeds.push(name),
            Err(error) => failed(error),
        }
    }
    is_incomplete |= restored.is_incomplete;
    RestoredState { bans: restored.restored, never_ban, feeds, is_incomplete }
}

/// Writes down for the next boot what was asked for: all of it, or, if not `all_done`, what of it is in
/// force.
pub fn write_down<'a>(
    bans: &mut Bans,
    asked: impl Iterator<Item = Ban<'a>>,
    all_done: bool,
    context: &Context,
) {
    let mut is_done = |ban: &Ban<'_>| {
        all_done
            || bans
                .look_up_of(ban.source, ban.target.target(), ban.port)
                .is_ok_and(|held| held.is_some())
    };
    context.write_down("these bans", |files| {
        let Some(log) = files.ban_log() else { return Ok(false) };
        log.banned(asked.filter(|ban| is_done(ban))).map(|()| true)
    });
}

/// Bans up to this number are read from the kernel as they are: that takes some ten milliseconds.
const MANY_BANS: u64 = 20_000;
/// How often what is known of many bans is compared with what the kernel has.
const MAX_COMPARISONS: usize = 3;
/// Time in which the guard has recorded a ban.
const RECORD_DELAY: Duration = Duration::from_millis(200);

/// Returns all bans. Of very many, the kernel is asked for those that are written down or that a guard has
/// recorded; only if it has more, all are read, which takes a minute for a million.
///
/// # Errors
/// The kernel's refusal.
pub fn list(bans: &mut Bans, context: &Context) -> Result<Vec<ActiveBan>, nfguard_ban::Error> {
    for number in 0..MAX_COMPARISONS {
        // First, so that what is banned from now on makes no difference.
        let Some(reported) = bans.reported_count()?.filter(|count| *count > MANY_BANS) else {
            break;
        };
        thread::sleep(RECORD_DELAY);
        // The saved bans are slower to read, and with a guard they are not needed.
        let known = known(context, number > 0);
        if u64::try_from(known.len()).is_ok_and(|known| known < reported) {
            continue;
        }
        if let Some(all) = bans.list_known(reported, known)? {
            return Ok(all);
        }
    }
    bans.list()
}

/// Returns what a guard has recorded as banned or the log has, and with `saved` what the saved file has, and
/// in what time each ban ends. Some of it may be over.
fn known(context: &Context, saved: bool) -> Vec<(Target, Option<Port>, Option<Duration>)> {
    let mut all = context.files.folder().map(ban_record::recorded).unwrap_or_default();
    let path = context.history.bans().filter(|path| saved && path.exists());
    // A file that cannot be used knows nothing; `boot` says why.
    let saved = path.and_then(|path| saved_bans::read_lines(&path)).unwrap_or_default();
    let saved = context.files.ban_log().map_or_else(Vec::new, |log| log.applied_to(saved).0);
    let now = now();
    all.extend(saved.iter().filter_map(|line| {
        let ((target, port), left) = (line.key(), line.duration(now)?);
        Some((target, port, left))
    }));
    all
}

/// All bans as a file has them.
#[derive(Debug)]
pub struct Saved {
    /// The file's text.
    pub text: String,
    /// How many bans it has.
    pub bans: usize,
    /// Whether there is a table for bans. If there is none, another program has removed it.
    pub has_table: bool,
}

/// Reads all bans from the kernel.
///
/// # Errors
/// If they cannot be read.
pub fn collect(context: &Context) -> Result<Saved, Error> {
    let mut bans = Bans::open_existing(context.never_ban()?)?;
    // A save is done every few minutes. Addresses of this host, gateways and name servers change, and
    // without a guard no other program tells the rules that ban scans.
    let told = bans.as_mut().map_or(Ok(()), Bans::refresh_never_ban);
    if let Err(error) = told {
        (context.warn)(&format!(
            "the never-ban entries of this host could not be updated: {error}"
        ));
    }
    let has_table = bans.is_some();
    let bans = bans.map_or(Ok(Vec::new()), |mut bans| list(&mut bans, context))?;
    let count = bans.len();
    let text = saved_bans::text_of(bans).map_err(Error::file(Path::new("bans")))?;
    Ok(Saved { text, bans: count, has_table })
}

/// What became of a file of saved bans.
#[derive(Debug)]
pub enum SavedFile {
    /// It has this many bans.
    Written(usize),
    /// There is no table for bans, because another program removed it or because nothing was banned;
    /// or the kernel refuses what is written down. The file stays as it was.
    Left,
}

/// Saves all bans to this file. If it is the one that `boot` reads, the log of bans ends in it.
///
/// # Errors
/// If the bans cannot be read, or the file cannot be written.
pub fn save(path: &Path, context: &Context) -> Result<SavedFile, Error> {
    let log = context.files.ban_log().filter(|_| is_own(path, context));
    let _save = log.map(BanLog::lock_save).transpose().map_err(Error::file(path))?;
    if saved_bans::marker(path).exists() && !finish_restore(path, log, context)? {
        return Ok(SavedFile::Left);
    }
    if let Some(log) = log {
        log.begin_save().map_err(Error::file(path))?;
    }
    let Saved { text, bans, has_table } = collect(context)?;
    if !has_table && (saved_bans::is_saved(path) || log.is_some_and(BanLog::exists)) {
        return Ok(SavedFile::Left);
    }
    saved_bans::replace(path, text.as_bytes()).map_err(Error::file(path))?;
    if let Some(log) = log {
        log.end_save().map_err(Error::file(path))?;
    }
    Ok(SavedFile::Written(bans))
}

/// Restores what a boot could not, or not to its end. Returns whether all is in force now.
fn finish_restore(path: &Path, log: Option<BanLog<'_>>, context: &Context) -> Result<bool, Error> {
    let Some(mut bans) = Bans::open_existing(context.never_ban()?)? else { return Ok(false) };
    let warn = context.warn;
    let report = |error: &Error| warn(&error.to_string());
    saved_bans::restore_written(&mut bans, path, log, warn, &report, |_| ());
    let is_left = saved_bans::marker(path).exists();
    if is_left {
        warn(&format!(
            "{}: left as it is, because not all of its bans could be restored",
            path.display()
        ));
    }
    Ok(!is_left)
}

/// Tells whether this is the file that `boot` reads.
fn is_own(path: &Path, context: &Context) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    };
    let own = context.history.bans();
    own.is_some_and(|own| path == own || real(path).is_some_and(|path| real(&own) == Some(path)))
}

/// Restores the bans of the file, or none if it is damaged or, unless with `force`, if they would shut
/// out what no list should. Before each ban, `next` is told how many there are. They are written down
/// for the next boot.
///
/// # Errors
/// If the file cannot be used, or the kernel refuses the bans.
pub fn restore_file(
    path: &Path,
    force: bool,
    context: &Context,
    next: impl FnMut(usize),
) -> Result<Restored, Error> {
    let warn = context.warn;
    let log = context.files.ban_log().filter(|_| is_own(path, context));
    let save = log.and_then(|log| log.lock_save().ok());
    let (saved_at, saved) = saved_bans::read_file(path)?;
    let (saved, problems) = match log {
        Some(log) => log.applied_to(saved),
        None => (saved, Vec::new()),
    };
    drop(save);
    let mut bans = open(context)?;
    problems.iter().for_each(|problem| warn(problem));
    let all = saved.iter().map(|line| Addresses::Prefix(line.target().network()));
    let objections = objections_to(all, bans.never_ban()).map_err(Error::file(path))?;
    if !force && !objections.is_empty() {
        let (path, reasons) = (path.display(), objections.join("\n  "));
        return Err(Error::Usage(format!(
            "{path}: no address was banned:\n  {reasons}\n--force bans all of it anyway"
        )));
    }
    objections.iter().for_each(|objection| warn(objection));
    if log.is_some() {
        return saved_bans::ban_lines(&mut bans, &saved, saved_at, warn, next);
    }
    let restored = saved_bans::ban_lines(&mut bans, &saved, saved_at, warn, next);
    let clock = now().max(saved_at);
    // The file may be anywhere, or a pipe: the next boot does not read it.
    let never_ban = bans.never_ban().clone();
    let again = saved.iter().filter_map(|line| line.ban(&never_ban, line.duration(clock)?).ok());
    write_down(&mut bans, again, restored.is_ok(), context);
    restored
}
