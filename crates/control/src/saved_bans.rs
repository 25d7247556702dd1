//! Saved bans: a file that keeps the bans from one boot to the next.
//!
//! Each line is a JSON object: a head with the version, each ban with the time of its end, and a foot
//! with the number of bans and the SHA-256 of all lines before it.

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nfguard_ban::{ActiveBan, Ban, BanCounts, Bans, Port, Target};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ban_table::never;
use crate::clock::now;
use crate::digest::sha256;
use crate::input::{self, STANDARD};
use crate::{Error, Warn, atomic_file};

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
struct Line {
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

/// All bans as a file has them.
#[derive(Debug)]
pub struct Saved {
    /// The file's text.
    pub text: String,
    /// How many bans it has.
    pub bans: usize,
}

/// Reads all bans from the kernel.
///
/// # Errors
/// If they cannot be read.
pub fn collect(warn: Warn) -> Result<Saved, Error> {
    let mut bans = Bans::open_existing(never()?)?;
    // A save is done every few minutes. Addresses of this host, gateways and name servers change, and
    // without a guard no other program tells the rules that ban scans.
    let told = bans.as_mut().map_or(Ok(()), Bans::refresh_never_ban);
    if let Err(error) = told {
        warn(&format!("the never-ban entries of this host could not be updated: {error}"));
    }
    let bans = bans.map_or(Ok(Vec::new()), |mut bans| bans.list())?;
    let count = bans.len();
    let text = text(bans, now()).map_err(Error::file(Path::new("bans")))?;
    Ok(Saved { text, bans: count })
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

/// Restores the bans of the file, or none if it is damaged. Before each ban, `next` is told how many
/// there are.
///
/// # Errors
/// If the file cannot be used, or the kernel refuses the bans.
pub fn restore(path: &Path, warn: Warn, mut next: impl FnMut(usize)) -> Result<Restored, Error> {
    let text = input::read_bytes(path)?;
    let (saved_at, saved) = match read(&text) {
        Ok(read) => read,
        Err(Unreadable::OtherVersion(version)) => {
            return Err(Error::Usage(format!(
                "{}: written by another version of nfguard (format {version}, this one reads \
                 {VERSION}); no address was banned",
                path.display()
            )));
        }
        Err(Unreadable::Damaged(why)) => {
            let mut message = format!("{}: {why}; no address was banned", path.display());
            // Not a file of another program, or a device, that was given by mistake.
            if path != Path::new(STANDARD)
                && text.starts_with(START)
                && let Ok(own) = regular(path)
            {
                let aside = keep_aside(&own).map_err(Error::file(path))?;
                message.push_str(&format!(", and the file is now {}", aside.display()));
            }
            return Err(Error::Usage(message));
        }
    };
    let mut clock = now();
    if clock < saved_at {
        warn(
            "the clock is behind the time at which the bans were saved: each ban lasts as long as it \
             had left then",
        );
        clock = saved_at;
    }
    let mut bans = Bans::open(never()?)?;
    let (mut refused, mut over) = (Vec::new(), 0_u64);
    let mut wanted = Vec::new();
    for saved in &saved {
        match (saved.duration(clock), bans.admit(saved.target.0)) {
            (Some(duration), Ok(target)) => wanted.push(Ban {
                target,
                port: saved.port.as_ref().map(|Text(port)| *port),
                duration,
                source: &saved.source,
                reason: &saved.reason,
                created_at: saved.created_at,
            }),
            (None, _) => over += 1,
            (_, Err(error)) => refused.push(error.to_string()),
        }
    }
    for problem in &refused {
        warn(problem);
    }
    let count = wanted.len();
    let tally = bans.ban_all(wanted.into_iter().inspect(|_| next(count)))?;
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

    /// Returns how long the ban still lasts; `Some(None)`: without end; `None`: it is over.
    fn duration(&self, now: f64) -> Option<Option<Duration>> {
        let Some(until) = self.until else { return Some(None) };
        let left = Duration::try_from_secs_f64(until - now).ok()?;
        (left >= Duration::from_millis(1)).then_some(Some(left))
    }
}

/// A value that is written as the text that it prints.
#[derive(Debug)]
struct Text<T>(T);

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

/// Returns the path, behind all links, of a file that may be replaced or renamed: no device, no pipe.
fn regular(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    if !path.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(path)
}

/// Replaces the file, or leaves it as it was, whatever happens in between. Only its owner may read it.
///
/// # Errors
/// If it cannot be written, or is no regular file.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = match regular(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        path => path?,
    };
    atomic_file::replace(&path, text)
}

fn text(bans: Vec<ActiveBan>, now: f64) -> io::Result<String> {
    let count = bans.len();
    let mut text = serde_json::to_string(&Head { nfguard_bans: VERSION, saved_at: now })?;
    text.push('\n');
    for ban in bans {
        text.push_str(&serde_json::to_string(&Line::new(ban, now))?);
        text.push('\n');
    }
    let foot = Foot { bans: count, sha256: sha256(text.as_bytes()) };
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
    let name = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0));
    fs::rename(path, &aside)?;
    Ok(aside)
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
        text(vec![ban("192.0.2.1", hour), ban("2001:db8::/32", None)], 1000.0).expect("a text")
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
