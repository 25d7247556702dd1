//! Saved bans: a file that keeps the bans from one boot to the next.
//!
//! Each line is a JSON object: a head with the version, each ban with the time of its end, and a foot
//! with the number of bans and the SHA-256 of all lines before it. What commands have changed since the
//! last save stands in a log beside the file.

mod log;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nfguard_ban::{ActiveBan, Ban, BanCounts, Bans, NeverBan, Port, Refused, Target};
use rustix::fs::{CWD, OFlags};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::now;
use crate::digest::sha256;
use crate::input::{self, STANDARD};
use crate::timed_bans::ban_until;
use crate::trusted_file::{self, not_regular};
use crate::{Error, Warn, atomic_file};

pub use log::BanLog;
pub(crate) use log::OpenBanLog;

const VERSION: u32 = 1;
/// How a file of any version begins.
const START: &[u8] = b"{\"nfguard_bans\":";

/// Other versions may have other keys besides the number.
#[derive(Serialize, Deserialize)]
struct Head {
    nfguard_bans: u32,
    /// Seconds since 1970.
    saved_at: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    target: Text<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<Text<Port>>,
    /// Seconds since 1970; `None`: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(alias = "since", skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    bans: usize,
    sha256: String,
}

/// What became of the bans of a file.
#[derive(Debug)]
pub struct Restored {
    /// How many were banned, or were already.
    pub tally: BanCounts,
    /// Why some were not.
    pub refused: Vec<String>,
    /// How many had ended meanwhile.
    pub over: u64,
}

/// Tells whether this is a file of saved bans, of whatever version.
pub(crate) fn is_saved(path: &Path) -> bool {
    path.is_file() && trusted_file::read_input(path).is_ok_and(|bytes| bytes.starts_with(START))
}

/// Reads a file of saved bans: when it was saved, and its bans. A damaged one is renamed.
pub(crate) fn read_file(path: &Path) -> Result<(f64, Vec<Line>), Error> {
    let text = input::read_bytes(path)?;
    match read(&text) {
        Ok(read) => Ok(read),
        Err(Unreadable::OtherVersion(version)) => Err(Error::Usage(format!(
            "{}: written by another version of nfguard (format {version}, this one reads {VERSION}); no \
             address was banned",
            path.display()
        ))),
        Err(Unreadable::Damaged(why)) => {
            let mut message = format!("{}: {why}; no address was banned", path.display());
            // Not a file of another program, or a device, that was given by mistake.
            if path != Path::new(STANDARD)
                && text.starts_with(START)
                && let Ok(own) = trusted_file::to_replace(path)
            {
                let aside = keep_aside(&own).map_err(Error::file(path))?;
                message.push_str(&format!(", and the file is now {}", aside.display()));
            }
            Err(Error::Usage(message))
        }
    }
}

/// Reads the bans of a file; `None` if it cannot be used.
pub(crate) fn read_lines(path: &Path) -> Option<Vec<Line>> {
    Some(read(&input::read_bytes(path).ok()?).ok()?.1)
}

/// What came of the bans that are written down.
#[derive(Debug, Default)]
pub(crate) struct RestoredBans {
    /// `None`: there were none, or the kernel refused them.
    pub(crate) restored: Option<Restored>,
    /// Whether something that is written down is not in force.
    pub(crate) is_incomplete: bool,
}

/// Restores the bans of this file with the changes of the log. A file that cannot be used is renamed,
/// because the next `save` would write over it, and the log counts alone. If the kernel refuses, `save`
/// leaves the files until it does not.
pub(crate) fn restore_written(
    bans: &mut Bans,
    path: &Path,
    log: Option<BanLog<'_>>,
    warn: Warn,
    report: &dyn Fn(&Error),
    next: impl FnMut(usize),
) -> RestoredBans {
    let mut all = RestoredBans::default();
    let mut failed = |failure: Error| {
        report(&failure);
        all.is_incomplete = true;
    };
    let (mut saved_at, mut saved) = (0.0, Vec::new());
    let is_any = path.exists() || log.is_some_and(BanLog::exists);
    if is_any {
        begin_restore(path);
    }
    if path.exists() {
        let regular = if path.is_file() { Ok(()) } else { Err(not_regular()) };
        match regular.map_err(Error::file(path)).and_then(|()| read_file(path)) {
            Ok(read) => (saved_at, saved) = read,
            Err(failure) => {
                failed(failure);
                if path.exists() {
                    match keep_aside(path) {
                        Ok(aside) => warn(&format!("the bans are now in {}", aside.display())),
                        Err(error) => warn(&format!("{}: {error}", path.display())),
                    }
                }
            }
        }
    }
    if let Some(log) = log {
        let problems;
        (saved, problems) = log.applied_to(saved);
        problems.into_iter().for_each(|problem| failed(Error::Usage(problem)));
    }
    if is_any {
        match ban_lines(bans, &saved, saved_at, warn, next) {
            Ok(restored) => all.restored = Some(restored),
            Err(failure) => {
                failed(failure);
                return all;
            }
        }
    }
    end_restore(path);
    all
}

/// Returns the file that says that the bans of this file are not all in force yet.
pub(crate) fn marker(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unrestored");
    name.into()
}

/// Notes that `save` must not write over this file, and what the log has, until they are restored.
pub(crate) fn begin_restore(path: &Path) {
    // Where no file can be made, `save` makes none either.
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let _ = trusted_file::open_regular(CWD, &marker(path), flags);
}

fn end_restore(path: &Path) {
    let _ = fs::remove_file(marker(path));
}

/// Makes these bans, as far as they are not over.
pub(crate) fn ban_lines(
    bans: &mut Bans,
    saved: &[Line],
    saved_at: f64,
    warn: Warn,
    mut next: impl FnMut(usize),
) -> Result<Restored, Error> {
    let asked_at = Instant::now();
    let mut clock = now();
    if clock < saved_at {
        warn(
            "the clock is behind the time at which the bans were saved: each ban lasts as long as it \
             had left then",
        );
        clock = saved_at;
    }
    let (mut refused, mut over) = (Vec::new(), 0_u64);
    let mut wanted = Vec::new();
    for saved in saved {
        match saved.duration(clock).map(|duration| saved.ban(bans.never_ban(), duration)) {
            Some(Ok(ban)) => wanted.push(ban),
            Some(Err(refusal)) => refused.push(refusal.to_string()),
            None => over += 1,
        }
    }
    for problem in &refused {
        warn(problem);
    }
    let count = wanted.len();
    let tally = ban_until(bans, wanted.into_iter().inspect(|_| next(count)), asked_at)?;
    Ok(Restored { tally, refused, over })
}

impl Line {
    fn new(ban: ActiveBan, now: f64) -> Line {
        Line {
            target: Text(ban.target),
            port: ban.port.map(Text),
            until: ban.expires_in.map(|left| now + left.as_secs_f64()),
            source: ban.source,
            reason: ban.reason,
            created_at: ban.created_at,
        }
    }

    /// Returns what is banned.
    pub(crate) fn target(&self) -> Target {
        self.target.0
    }

    pub(crate) fn key(&self) -> (Target, Option<Port>) {
        (self.target.0, self.port.as_ref().map(|Text(port)| *port))
    }

    /// Returns the ban to make, unless it would hit a never-ban entry.
    pub(crate) fn ban(
        &self,
        never_ban: &NeverBan,
        duration: Option<Duration>,
    ) -> Result<Ban<'_>, Refused> {
        let (target, port) = self.key();
        Ok(Ban {
            target: never_ban.admit(target)?,
            port,
            duration,
            source: &self.source,
            reason: &self.reason,
            created_at: self.created_at,
        })
    }

    /// Returns how long the ban still lasts; `Some(None)`: without end; `None`: it is over.
    pub(crate) fn duration(&self, now: f64) -> Option<Option<Duration>> {
        let Some(until) = self.until else { return Some(None) };
        let left = Duration::try_from_secs_f64(until - now).ok()?;
        (left >= Duration::from_millis(1)).then_some(Some(left))
    }
}

/// A value that is written as the text that it prints.
#[derive(Debug)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Text<T>, D::Error> {
        String::deserialize(input)?.parse().map(Text).map_err(de::Error::custom)
    }
}

/// Replaces the file, or leaves it as it was, whatever happens in between. Only its owner may read it.
///
/// # Errors
/// If it cannot be written, is no regular file, or a link that another user made.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    atomic_file::replace(&trusted_file::to_replace(path)?, text)
}

/// Returns the text of a file with these bans.
pub(crate) fn text_of(bans: Vec<ActiveBan>) -> io::Result<String> {
    let now = now();
    let lines: Vec<Line> = bans.into_iter().map(|ban| Line::new(ban, now)).collect();
    text(&lines, now)
}

fn text(lines: &[Line], now: f64) -> io::Result<String> {
    let mut text = serde_json::to_string(&Head { nfguard_bans: VERSION, saved_at: now })?;
    text.push('\n');
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    let foot = Foot { bans: lines.len(), sha256: sha256(text.as_bytes()) };
    text.push_str(&serde_json::to_string(&foot)?);
    text.push('\n');
    Ok(text)
}

/// Why a file of saved bans cannot be used.
#[derive(Debug, PartialEq, Eq)]
enum Unreadable {
    OtherVersion(u32),
    Damaged(String),
}

/// Returns when the file was saved, and its bans.
fn read(bytes: &[u8]) -> Result<(f64, Vec<Line>), Unreadable> {
    let damaged = |why: &str| Unreadable::Damaged(why.to_owned());
    let text = str::from_utf8(bytes).map_err(|_| damaged("damaged: it is no UTF-8 text"))?;
    let (head, _) =
        text.split_once('\n').ok_or_else(|| damaged("damaged: it has no first line"))?;
    let head: Head = serde_json::from_str(head).map_err(|_| {
        damaged("not a file that `nfguard save` wrote, or damaged in its first line")
    })?;
    if head.nfguard_bans != VERSION {
        return Err(Unreadable::OtherVersion(head.nfguard_bans));
    }
    let whole = text.strip_suffix('\n').ok_or_else(|| damaged("truncated"))?;
    let start = whole.rfind('\n').map_or(0, |newline| newline + 1);
    let (body, foot) = whole.split_at_checked(start).ok_or_else(|| damaged("truncated"))?;
    let foot: Foot = serde_json::from_str(foot).map_err(|_| damaged("truncated: no last line"))?;
    if foot.sha256 != sha256(body.as_bytes()) {
        return Err(damaged("damaged: its checksum does not match its contents"));
    }
    let saved: Result<Vec<Line>, _> = body.lines().skip(1).map(serde_json::from_str).collect();
    let saved = saved.map_err(|error| Unreadable::Damaged(format!("damaged: {error}")))?;
    if saved.len() != foot.bans {
        return Err(damaged("damaged: its number of bans does not match its last line"));
    }
    Ok((head.saved_at, saved))
}

/// Renames the file to a name that is free.
pub(crate) fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Returns a free name for a damaged file.
fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> String {
        let ban = |target: &str, expires_in| ActiveBan {
            target: target.parse().expect("a target"),
            port: None,
            expires_in,
            source: "me".to_owned(),
            reason: "why".to_owned(),
            created_at: Some(1),
        };
        let hour = Some(Duration::from_secs(3600));
        let bans = [ban("192.0.2.1", hour), ban("2001:db8::/32", None)];
        text(&bans.map(|ban| Line::new(ban, 1000.0)), 1000.0).expect("a text")
    }

    #[test]
    fn what_is_saved_is_read_with_the_time_that_is_left() {
        let (saved_at, bans) = read(saved().as_bytes()).expect("readable");
        assert_eq!(saved_at, 1000.0);
        let left = |now| bans.iter().map(|ban| ban.duration(now)).collect::<Vec<_>>();
        let rest = Some(Some(Duration::from_secs(3500)));
        assert_eq!(left(1100.0), [rest, Some(None)]);
        assert_eq!(left(4600.0), [None, Some(None)]);
    }

    #[test]
    fn no_byte_can_be_lost_or_changed_unnoticed() {
        let whole = saved().into_bytes();
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn another_version_is_not_taken_for_damage() {
        let newer = saved().replacen("\"nfguard_bans\":1", "\"nfguard_bans\":2", 1);
        assert_eq!(read(newer.as_bytes()).err(), Some(Unreadable::OtherVersion(2)));
    }
}
