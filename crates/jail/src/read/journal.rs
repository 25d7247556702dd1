//! The journal, in the forms `journalctl -o json` and `-o export`.
//!
//! Each process can send any field to the journal, but for those that begin with `_`: these are the
//! journal's own. So only they say which unit wrote a message, and as which user.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::MAX_LINE_BYTES;
use crate::json::{self, Value};
use crate::record::Text;
use crate::time::Time;

/// Whose messages count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// Names of units. `ssh.service` stands for `ssh@….service` too. Empty: any unit.
    pub units: Vec<String>,
    /// The user that the process ran as.
    pub uid: Option<u32>,
}

impl Vouched {
    fn admits(&self, unit: &[u8], uid: &[u8]) -> bool {
        let is_unit = |name: &String| {
            unit == name.as_bytes()
                || name.strip_suffix(".service").is_some_and(|stem| {
                    let instance = unit.strip_prefix(stem.as_bytes());
                    instance.is_some_and(|it| it.starts_with(b"@") && it.ends_with(b".service"))
                })
        };
        (self.units.is_empty() || self.units.iter().any(is_unit))
            && self.uid.is_none_or(|known| uid == known.to_string().as_bytes())
    }
}

/// The fields of an entry that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    time: Option<Vec<u8>>,
    unit: Option<Vec<u8>>,
    uid: Option<Vec<u8>>,
    message: Option<Vec<u8>>,
    /// The name that the process gives itself, and that of its program.
    identifier: Option<Vec<u8>>,
    program: Option<Vec<u8>>,
    process: Option<Vec<u8>>,
    /// A field that counts came twice, or was too long.
    is_spoilt: bool,
}

impl Entry {
    fn set(&mut self, key: &[u8], value: Vec<u8>) {
        let slot = match key {
            b"__REALTIME_TIMESTAMP" => &mut self.time,
            b"_SYSTEMD_UNIT" => &mut self.unit,
            b"_UID" => &mut self.uid,
            b"MESSAGE" => &mut self.message,
            b"SYSLOG_IDENTIFIER" => return self.identifier = Some(value),
            b"_COMM" => return self.program = Some(value),
            b"_PID" => return self.process = Some(value),
            _ => return,
        };
        self.is_spoilt |= slot.replace(value).is_some();
    }

    /// Returns the message, if the journal vouches for its writer.
    pub(crate) fn record(self, vouched: &Vouched) -> Option<Outcome> {
        if self.is_spoilt {
            return None;
        }
        let micros: u64 = std::str::from_utf8(&self.time?).ok()?.parse().ok()?;
        let time = Time::from_micros(i64::try_from(micros).ok()?)?;
        let text = self.message?;
        let is_vouched =
            vouched.admits(&self.unit.unwrap_or_default(), &self.uid.unwrap_or_default());
        // The name is the process's own word. It is asked for only after the journal's.
        let name = self.identifier.or(self.program);
        let sender = name.zip(self.process).map(|(name, pid)| [&*name, b"[", &*pid, b"]"].concat());
        Some(match is_vouched {
            true => Outcome::Vouched(Text { time, text: Cow::Owned(text), sender }),
            false => Outcome::Other,
        })
    }
}

/// What an entry is.
pub(crate) enum Outcome {
    /// A message of a unit that counts.
    Vouched(Text<'static>),
    /// A message of another.
    Other,
}

/// Reads an entry in JSON.
pub(crate) fn read_json(line: &[u8]) -> Option<Entry> {
    let mut entry = Entry::default();
    json::object(line, |key, value| {
        let value = match value {
            Value::Text(text) => text.decode().into_owned(),
            // A field that is no UTF-8, or of which the entry has several.
            Value::Array(array) => match json::bytes(array) {
                Some(bytes) => bytes,
                None => {
                    entry.set(key, Vec::new());
                    entry.set(key, Vec::new());
                    return Some(());
                }
            },
            Value::Number(_) | Value::Object(_) | Value::Other => return Some(()),
        };
        entry.set(key, value);
        Some(())
    })?;
    Some(entry)
}

/// Reads entries in the export form from bytes in pieces of any size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Export {
    entry: Entry,
    /// The part of a line that has come, or the key of a field in binary form.
    text: Vec<u8>,
    /// The line is longer than what is kept.
    is_cut: bool,
    binary: Option<Binary>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Binary {
    /// The bytes of the size that have come.
    size: Vec<u8>,
    /// How many bytes of the value are to come, once the size is known.
    left: Option<u64>,
    value: Vec<u8>,
}

impl Export {
    /// Takes the first line of the first entry.
    pub(crate) fn begin(&mut self, line: &[u8]) {
        if let Some((key, value)) = memchr::memchr(b'=', line).map(|at| line.split_at(at)) {
            self.entry.set(key, value.get(1..).unwrap_or_default().to_vec());
        }
    }

    /// Reads on. Returns the rest of the bytes, and the entry if it is whole.
    pub(crate) fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        lines: &mut u64,
    ) -> (&'a [u8], Option<Entry>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.binary.is_some() {
                rest = self.read_binary(rest, lines);
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.keep(rest);
                return (b"", None);
            };
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            *lines += 1;
            self.keep(line);
            if self.text.is_empty() {
                let entry = std::mem::take(&mut self.entry);
                if entry != Entry::default() {
                    return (rest, Some(entry));
                }
                continue;
            }
            match memchr::memchr(b'=', &self.text) {
                Some(at) => {
                    let text = std::mem::take(&mut self.text);
                    let (key, value) = text.split_at(at);
                    self.entry.set(key, value.get(1..).unwrap_or_default().to_vec());
                    self.entry.is_spoilt |= std::mem::take(&mut self.is_cut) && key == b"MESSAGE";
                }
                None => self.binary = Some(Binary::default()),
            }
        }
        (b"", None)
    }

    fn keep(&mut self, part: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.text.len());
        self.is_cut |= part.len() > room;
        self.text.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    /// Reads the size of a value, eight bytes from the lowest, then the value and a line break.
    fn read_binary<'a>(&mut self, bytes: &'a [u8], lines: &mut u64) -> &'a [u8] {
        let Some(binary) = &mut self.binary else { return bytes };
        let Some(left) = binary.left else {
            let count = (8 - binary.size.len()).min(bytes.len());
            let (part, rest) = bytes.split_at(count);
            binary.size.extend_from_slice(part);
            if let Ok(size) = <[u8; 8]>::try_from(binary.size.as_slice()) {
                binary.left = Some(u64::from_le_bytes(size));
            }
            return rest;
        };
        if left == 0 {
            // The line break after the value.
            let (_, rest) = bytes.split_at(1);
            *lines += 1;
            let value = self.binary.take().unwrap_or_default().value;
            let key = std::mem::take(&mut self.text);
            self.is_cut = false;
            self.entry.set(&key, value);
            return rest;
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at(count);
        *lines += memchr::memchr_iter(b'\n', part).count() as u64;
        let room = MAX_LINE_BYTES.saturating_sub(binary.value.len());
        binary.value.extend_from_slice(part.get(..room).unwrap_or(part));
        if part.len() > room {
            self.entry.is_spoilt |= self.text == b"MESSAGE";
        }
        binary.left = Some(left - count as u64);
        rest
    }
}
