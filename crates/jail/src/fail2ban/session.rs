//! What a filter remembers between lines.

use super::matcher::{Field, Found};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most sessions that are remembered. The oldest goes first.
const MAX_SESSIONS: usize = 4096;
/// A session without a line for this long is over, in microseconds: five minutes.
const SESSION_MICROS: i64 = 5 * 60 * 1_000_000;
/// Longest key of a session, in bytes. A longer one is no session.
const MAX_KEY_BYTES: usize = 512;
/// Longest name that is remembered, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Most users of a session that are told apart.
const MAX_USERS: usize = 8;

/// What a filter remembers between lines. It can be saved and put back.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    sessions: BTreeMap<String, Session>,
    /// Numbers that grow, with the session that began then.
    order: BTreeMap<u64, String>,
    turn: u64,
    pub(super) last_time: Option<Time>,
    /// The lines that an expression of several lines may still match.
    pub(super) window: VecDeque<String>,
    /// Lines on which an expression reached the limit of its steps.
    pub limits_reached: u64,
}

/// Who may have failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Client {
    text: String,
    is_name: bool,
}

/// What is known of one connection.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
struct Session {
    client: Option<Client>,
    user: Option<String>,
    users: BTreeSet<String>,
    /// A failure waits for the line that has the address.
    is_pending: bool,
    /// Lines since the last failure.
    lines: u32,
    time: Option<Time>,
    turn: u64,
}

/// What a line has added up to.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) client: String,
    pub(super) user: Option<String>,
    pub(super) users: Vec<String>,
    pub(super) lines: u32,
}

impl State {
    /// Returns the time of the line before.
    pub(crate) fn last_time(&self) -> Option<Time> {
        self.last_time
    }

    /// Adds what was found in a line, and returns the failure that is complete with it.
    pub(super) fn add(&mut self, found: &Found<'_>, time: Time) -> Option<Complete> {
        let is_key = |key: &&str| key.len() <= MAX_KEY_BYTES && !key.trim().is_empty();
        let Some(key) = found.get(Field::Session).filter(is_key) else {
            return Session::default().add(found);
        };
        let is_forgotten = found.get(Field::Forget).is_some();
        if let Some(session) = self.sessions.get_mut(key) {
            let last = session.time.replace(time);
            if last.is_some_and(|last| time.micros().saturating_sub(last.micros()) > SESSION_MICROS)
            {
                *session = Session { time: Some(time), turn: session.turn, ..Session::default() };
            }
            let complete = session.add(found);
            if is_forgotten && let Some(session) = self.sessions.remove(key) {
                self.order.remove(&session.turn);
            }
            return complete;
        }
        self.turn += 1;
        let mut session = Session { time: Some(time), turn: self.turn, ..Session::default() };
        let complete = session.add(found);
        if !is_forgotten {
            self.order.insert(self.turn, key.to_owned());
            self.sessions.insert(key.to_owned(), session);
            if self.sessions.len() > MAX_SESSIONS
                && let Some((_, oldest)) = self.order.pop_first()
            {
                self.sessions.remove(&oldest);
            }
        }
        complete
    }
}

impl Session {
    fn add(&mut self, found: &Found<'_>) -> Option<Complete> {
        let is_failure = found.get(Field::NoFailure).or(found.get(Field::Gained)).is_none();
        self.lines = self.lines.saturating_add(1);
        // The name of a host does not take the place of an address.
        let has_address = self.client.as_ref().is_some_and(|known| !known.is_name);
        if let Some(client) = client(found).filter(|client| !(client.is_name && has_address)) {
            self.client = Some(client);
        }
        let is_text = |user: &&str| !user.is_empty();
        let user =
            found.get(Field::User).filter(is_text).or(found.get(Field::OtherUser)).filter(is_text);
        if let Some(user) = user.map(shortened) {
            if self.users.len() < MAX_USERS && !self.users.contains(&user) {
                self.users.insert(user.clone());
            }
            self.user = Some(user);
        } else if self.user.is_none() {
            self.user = found.get(Field::User).map(str::to_owned);
        }
        if found.get(Field::Gained).is_some() && self.is_pending {
            self.is_pending = false;
            self.lines = 1;
        }
        let is_counted = is_failure || self.is_pending || self.users.len() > 1;
        let client = self.client.as_ref().filter(|_| is_counted);
        let complete = client.map(|client| Complete {
            client: client.text.clone(),
            user: self.user.clone(),
            users: self.users.iter().cloned().collect(),
            lines: std::mem::take(&mut self.lines),
        });
        self.is_pending = is_counted && complete.is_none();
        complete
    }
}

/// Returns the ID, the address with the length of its prefix, or the name of a host.
fn client(found: &Found<'_>) -> Option<Client> {
    let get = |field| found.get(field).filter(|text| !text.is_empty());
    let known = |text| Some(Client { text, is_name: false });
    if let Some(id) = get(Field::Id) {
        return known(shortened(id));
    }
    match (get(Field::Ip4).or(get(Field::Ip6)), found.get(Field::Cidr)) {
        (Some(address), Some(bits)) => known(shortened(&format!("{address}/{bits}"))),
        (Some(address), None) => known(shortened(address)),
        (None, _) => get(Field::Dns).map(|name| Client { text: shortened(name), is_name: true }),
    }
}

/// Returns the text, or as much of it as is remembered.
fn shortened(text: &str) -> String {
    let most = text.len().min(MAX_NAME_BYTES);
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}
