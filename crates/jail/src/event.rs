//! What jails tell.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Source;
use crate::jail::Mode;
use crate::time::Time;

/// Something that a jail tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A line is evidence.
    Evidence(Taken),
    /// A source is to be banned, or would be.
    Ban(Ban),
    /// A source would be banned, and must not be.
    Spared(Spared),
    /// A line was not judged as a whole.
    Limit(Limit),
}

/// A line that a jail takes as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The line, from 1.
    pub line: u64,
    /// The name of the jail.
    pub jail: Arc<str>,
    /// The client's address, canonical. Of a filter of Fail2Ban: what that takes for the client.
    pub client: String,
    /// What it is counted as. `None` if the client is no address, and counts for nothing.
    pub source: Option<Source>,
    /// The time of the line.
    pub time: Time,
    /// How much it counts.
    pub counts: u32,
    /// The score of the source with it. 0 if it is from before the end of a ban, or older than the
    /// window.
    pub score: u64,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The line that made it, from 1.
    pub line: u64,
    /// The name of the jail.
    pub jail: Arc<str>,
    /// Whose packets are to be dropped.
    pub source: Source,
    /// The time of the newest evidence.
    pub since: Time,
    /// The end.
    pub until: Time,
    /// Its length in seconds.
    pub seconds: i64,
    /// How many bans of the source went before.
    pub again: usize,
    /// Whether it is to be made.
    pub mode: Mode,
    /// Lines of the evidence.
    pub evidence: Vec<u64>,
    /// The ban is only told, because the jail has made as many bans in this minute as it may.
    pub is_over_cap: bool,
    /// The proxy that the packets of the source come from. A ban cannot hold here.
    pub proxy: Option<IpAddr>,
}

/// A source that would be banned, and must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spared {
    /// The line that would have made the ban, from 1.
    pub line: u64,
    /// The name of the jail.
    pub jail: Arc<str>,
    /// The source.
    pub source: Source,
    /// The time of the newest evidence.
    pub time: Time,
    /// Why it must not be.
    pub why: Shelter,
}

/// Why a source must not be banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelter {
    /// It is on the never-ban list.
    Never,
    /// It is a trusted proxy, with other clients behind it.
    Proxy,
    /// It is this machine, or no address of a machine.
    Own,
}

/// A line on which an expression of a Fail2Ban filter reached the limit of its steps. It is no failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The line, from 1.
    pub line: u64,
    /// The name of the jail.
    pub jail: Arc<str>,
}
