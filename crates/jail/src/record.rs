//! Records: what a line says, by the format of its log.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::time::{Time, Zone};

/// What a log says of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An HTTP request and its response.
    Http(Http<'a>),
    /// A line of text. Who it is about is found by a pattern.
    Text(Text<'a>),
    /// A line that a filter of Fail2Ban reads by itself, its time included.
    Raw(Raw<'a>),
}

/// An HTTP request and its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http<'a> {
    /// When the log says that it was.
    pub time: Time,
    /// The client.
    pub client: Client,
    /// The status that the client got.
    pub status: u16,
    /// The method. `None` if the request could not be read by the server, or the log has none.
    pub method: Option<Cow<'a, [u8]>>,
    /// The target of the request as the log has it, with the query.
    pub target: Option<Cow<'a, [u8]>>,
    /// The host that was asked for, if the log has it.
    pub host: Option<Cow<'a, [u8]>>,
    /// The user, if there is one.
    pub user: Option<Cow<'a, [u8]>>,
    /// Who answered, if the log tells.
    pub origin: Option<Origin>,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// When the log says that it was.
    pub time: Time,
    /// The text after its time.
    pub text: Cow<'a, [u8]>,
    /// Who wrote it, as `name[pid]`, if that stands beside the text.
    pub sender: Option<Vec<u8>>,
}

/// A line as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The line.
    pub line: &'a [u8],
    /// A time near which the line was written, if one is known.
    pub written: Option<Time>,
    /// The zone of a time without one.
    pub zone: &'a Zone,
}

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// The trusted proxy whose word for the address this is. The client's packets come from there.
    pub proxy: Option<IpAddr>,
}

/// Who made the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The proxy that writes the log.
    Proxy,
    /// The application behind the proxy.
    Application,
}
