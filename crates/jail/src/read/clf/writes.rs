//! Which lines are one record.
//!
//! A line break in a user name makes one write of Traefik many lines, and all but the end of the last
//! one are what the client says: whole records of others among them. Two things hold. The first line of a
//! write begins with the client's address, and the last one ends with the number of the request, which no
//! client is told. So this is the rule:
//!
//! - A line that begins as a record and ends with a number that may come next (see [`Counter`]) is a
//!   record.
//! - Any other line that begins as a record opens a doubt: it may be the first line of a write, and its
//!   client the suspect. What follows is held back. If a number comes that goes on from those before the
//!   doubt, the lines from the first one to this one are one record, and the suspect's. If none comes
//!   until all of the write must have come, because it would be longer than Traefik takes or the log is
//!   read to its end, no client has written the lines: each is a record of a new process.
//! - Who writes wrong numbers may guess. After several of them, a number that fits ends no doubt at once,
//!   and another wrong one shows that it was a guess.
//!
//! Doubts nest: within the lines of a new process of Traefik, another client may break lines.

use serde::{Deserialize, Serialize};

use crate::read::clf::counter::Counter;
use crate::record::Client;

/// More bytes than the lines have that a client can write at once. Traefik takes 1 MiB of headers.
const MAX_WRITE_BYTES: u64 = (1 << 20) + 4096;

/// Most doubts within doubts.
const MAX_DOUBTS: usize = 8;

/// Wrong numbers after which one that fits is believed at once, and after which one that is near.
const MAX_WRONG: u32 = 1;
const MAX_WRONG_BEFORE_NEAR: u32 = 8;

/// What is remembered of lines and numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Writes {
    bytes: u64,
    /// The numbers of lines that are in no doubt.
    counter: Option<Counter>,
    doubts: Vec<Doubt>,
    held: Vec<Held>,
    /// The last line ended as a record.
    is_whole: bool,
}

/// A line that may be the first of a write, and those after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Doubt {
    /// `None` if the line may name several clients.
    suspect: Option<Client>,
    line: u64,
    /// Bytes of the log before the line.
    begin: u64,
    /// How many lines were held back before.
    held: usize,
    /// Whole lines whose numbers do not fit.
    wrong: u32,
    /// The line is no record for sure.
    is_torn: bool,
    /// A number has come that goes on from those before the doubt.
    has_returned: bool,
    /// The numbers that the lines have.
    counter: Option<Counter>,
}

/// A line that is held back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) text: Vec<u8>,
    pub(super) line: u64,
    pub(super) owner: Owner,
}

/// Whose record a line is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// `None` if the line may name several clients.
    pub(super) client: Option<Client>,
    /// The line where the record begins.
    pub(super) begin: u64,
    /// The record begins with another line.
    pub(super) is_rest: bool,
}

/// A line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) bytes: usize,
    /// The client of a line that begins as a record.
    pub(super) client: Option<Option<Client>>,
    /// The number of the request of a line that ends as a record, if it has one.
    pub(super) request: Option<Option<u64>>,
}

impl Writes {
    /// Takes a line, and returns whose record it ends, if it does.
    pub(super) fn take(&mut self, line: Line) -> Option<Owner> {
        while self.doubts.first().is_some_and(|it| self.bytes - it.begin > MAX_WRITE_BYTES) {
            let doubt = self.doubts.remove(0);
            self.follow(doubt.counter);
        }
        let begin = self.bytes;
        self.bytes += line.bytes as u64 + 1;
        self.is_whole = line.request.is_some();
        let own = |client| Owner { client, begin: line.number, is_rest: false };
        let doubt = |suspect, request: Option<u64>| Doubt {
            suspect,
            line: line.number,
            begin,
            held: 0,
            wrong: 1,
            is_torn: false,
            has_returned: false,
            counter: request.map(Counter::begin),
        };
        let Some(request) = line.request else {
            let awaits_end = self.doubts.last().is_some_and(Doubt::awaits_end);
            if let Some(suspect) = line.client.filter(|_| !awaits_end) {
                self.open(Doubt { wrong: 0, is_torn: true, ..doubt(suspect, None) });
            }
            return None;
        };
        if self.doubts.is_empty() {
            let client = line.client?;
            match (&mut self.counter, request) {
                (Some(counter), Some(number)) if counter.fits(number) => counter.add(number),
                (None, number) => self.counter = number.map(Counter::begin),
                (Some(_), _) => self.open(doubt(client, request)),
            }
            return Some(own(client));
        }
        if let Some(client) = line.client
            && self.goes_on(request)
        {
            return Some(own(client));
        }
        let level = self.level(request);
        let is_full = self.doubts.len() == MAX_DOUBTS;
        if let Some(level) = level.filter(|level| *level < self.doubts.len()) {
            return self.close(level, request);
        }
        let top = self.doubts.last_mut()?;
        match line.client {
            // It goes on from afar.
            Some(_) if level.is_some() => {
                if let Some((counter, number)) = top.counter.as_mut().zip(request) {
                    counter.add(number);
                }
            }
            Some(client) if !top.is_torn && !is_full => self.open(doubt(client, request)),
            Some(_) if !top.is_torn => {
                top.wrong += 1;
                top.counter = request.map(Counter::begin);
            }
            _ => return self.tear(request),
        }
        line.client.map(own)
    }

    /// Returns whether a record is told at once: no other client is in question.
    pub(super) fn is_certain(&self, owner: &Owner) -> bool {
        self.doubts.is_empty()
            || self.held.is_empty()
                && !owner.is_rest
                && self.doubts.iter().all(|doubt| doubt.suspect == owner.client)
    }

    /// Returns whether lines are in doubt.
    pub(super) fn has_doubts(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// Holds a line back.
    pub(super) fn hold(&mut self, text: &[u8], line: u64, owner: Owner) {
        self.held.push(Held { text: text.to_vec(), line, owner });
    }

    /// Returns the lines that are held back no longer.
    pub(super) fn released(&mut self) -> Vec<Held> {
        let count = self.doubts.first().map_or(self.held.len(), |doubt| doubt.held);
        if count == 0 {
            return Vec::new();
        }
        self.doubts.iter_mut().for_each(|doubt| doubt.held -= count);
        let rest = self.held.split_off(count);
        std::mem::replace(&mut self.held, rest)
    }

    /// Ends all doubts, unless the last line is a part of a write and this is not the log's end.
    pub(super) fn settle(&mut self, is_end: bool) {
        if is_end || self.is_whole {
            for doubt in std::mem::take(&mut self.doubts) {
                self.follow(doubt.counter);
            }
        }
    }

    /// Forgets the numbers: what follows has any.
    pub(super) fn forget_numbers(&mut self) {
        self.counter = None;
    }

    fn open(&mut self, doubt: Doubt) {
        self.doubts.truncate(MAX_DOUBTS - 1);
        self.doubts.push(Doubt { held: self.held.len(), ..doubt });
    }

    /// Notes a number that goes on from the lines in doubt, and returns whether it does.
    fn goes_on(&mut self, request: Option<u64>) -> bool {
        let Some(Doubt { counter: Some(counter), has_returned, .. }) = self.doubts.last_mut()
        else {
            return false;
        };
        let goes_on = |number: &u64| match has_returned {
            true => counter.fits(*number),
            false => counter.is_near(*number),
        };
        let number = request.filter(goes_on);
        number.map(|number| counter.add(number)).is_some()
    }

    /// Returns how many of the doubts are older than the numbers that a number goes on from.
    fn level(&self, request: Option<u64>) -> Option<usize> {
        let Some(number) = request else {
            // A log without numbers.
            return self.counter.is_none().then_some(0);
        };
        let returned = self.doubts.iter().rposition(|doubt| doubt.has_returned);
        let counters =
            std::iter::once(&self.counter).chain(self.doubts.iter().map(|it| &it.counter));
        // What a line said that is no record says nothing of the next one.
        let is_torn = self.doubts.last().is_some_and(|doubt| doubt.is_torn);
        let mut counters = counters
            .enumerate()
            .take(self.doubts.len() + usize::from(!is_torn))
            .skip(returned.map_or(0, |it| it + 1));
        let fits = |counter: &Option<Counter>| counter.as_ref().is_some_and(|it| it.fits(number));
        counters.find(|(_, counter)| fits(counter)).map(|(level, _)| level)
    }

    /// Ends the doubts above a level: their lines are one record.
    fn close(&mut self, level: usize, request: Option<u64>) -> Option<Owner> {
        let below = match level.checked_sub(1) {
            None => &mut self.counter,
            Some(below) => &mut self.doubts.get_mut(below)?.counter,
        };
        let mut is_near = true;
        if let (Some(counter), Some(number)) = (&mut *below, request) {
            is_near = counter.is_near(number);
            counter.add(number);
        }
        let counter = below.clone();
        let wrong = self.doubts.iter().skip(level).map(|doubt| doubt.wrong).sum();
        self.doubts.truncate(level + 1);
        let doubt = self.doubts.get_mut(level)?;
        let owner = doubt.owner();
        self.held.truncate(doubt.held);
        if wrong <= MAX_WRONG || is_near && wrong <= MAX_WRONG_BEFORE_NEAR {
            self.doubts.pop();
        } else {
            *doubt = Doubt { wrong, is_torn: true, has_returned: true, counter, ..doubt.clone() };
        }
        Some(owner)
    }

    /// Takes a wrong number of a write that goes on for sure.
    fn tear(&mut self, request: Option<u64>) -> Option<Owner> {
        let doubt = self.doubts.last_mut()?;
        let owner = doubt.owner();
        let mut rest = self.held.split_off(doubt.held.min(self.held.len()));
        if doubt.has_returned {
            // What the suspect's writes end with is the suspect's in any case.
            rest.retain(|held| held.owner.is_rest && held.owner.client == owner.client);
            self.held.append(&mut rest);
            doubt.held = self.held.len();
        }
        doubt.wrong += 1;
        doubt.is_torn = true;
        doubt.has_returned = false;
        doubt.counter = request.map(Counter::begin);
        Some(owner)
    }

    fn follow(&mut self, counter: Option<Counter>) {
        match (&mut self.counter, counter) {
            (Some(known), Some(counter)) => known.follow(counter),
            (known, counter) => *known = counter.or(known.take()),
        }
    }
}

impl Doubt {
    fn owner(&self) -> Owner {
        Owner { client: self.suspect, begin: self.line, is_rest: true }
    }

    /// Returns whether lines have to follow.
    fn awaits_end(&self) -> bool {
        self.is_torn && self.counter.is_none()
    }
}
