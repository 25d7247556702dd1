//! What a jail is: which log, what is evidence, how much of it, and what follows.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::evidence::Looks;
use crate::read::{Format, LineFormat, Vouched};
use crate::time::Zone;
use crate::window::Limits;

/// A jail.
#[derive(Clone, Debug)]
pub struct Jail {
    pub(crate) name: Arc<str>,
    /// `None` for a jail that looks at bans.
    pub(crate) log: Option<Log>,
    pub(crate) looks: Looks,
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
}

impl Jail {
    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the log, unless the jail looks at the bans of others.
    pub fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Returns whether the jail bans.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// A log, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where the log is.
    pub place: Place,
    /// Its format.
    pub format: Format,
    /// The zone of times that have none.
    pub zone: Zone,
    /// Proxies whose word for the client counts.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Whose messages of the journal count.
    pub vouched: Vouched,
}

/// What a log is known by in a state that was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogKey {
    /// Where it is, and its format.
    log: String,
    /// How it is read.
    settings: String,
}

impl LogKey {
    /// Returns whether it is that of the same log, which may be read in another way.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.log == other.log
    }
}

impl Log {
    /// Returns what the log is known by.
    pub(crate) fn key(&self) -> LogKey {
        let place = match &self.place {
            Place::Unsaid => "input".to_owned(),
            Place::File(path) => format!("file {path}"),
            Place::Container(name) => format!("container {name}"),
            Place::Journal => "journal".to_owned(),
        };
        let inside = |format: LineFormat| match format {
            LineFormat::Traefik => "traefik",
            LineFormat::TraefikJson => "traefik-json",
            LineFormat::TraefikClf => "traefik-clf",
            LineFormat::Clf => "clf",
            LineFormat::Caddy => "caddy",
            LineFormat::Http => "http",
            LineFormat::Text => "text",
            LineFormat::Raw => "raw",
        };
        let format = match self.format {
            Format::Journal => "journal".to_owned(),
            Format::Sshd => "sshd".to_owned(),
            Format::DockerJson(line) => format!("docker-json {}", inside(line)),
            Format::Lines(line) => inside(line).to_owned(),
        };
        let proxies: Vec<String> = self.trusted_proxies.iter().map(ToString::to_string).collect();
        let uid = self.vouched.uid.map_or(String::new(), |uid| uid.to_string());
        let settings =
            [&*self.zone.name(), &proxies.join(" "), &self.vouched.units.join(" "), &uid];
        LogKey { log: format!("{place} {format}"), settings: settings.join("; ") }
    }
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Given by the caller: the jail does not say.
    Unsaid,
    /// A file.
    File(String),
    /// The log of a container, by the container's name.
    Container(String),
    /// The journal.
    Journal,
}

/// Whether a jail bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bans.
    Enforce,
    /// Tells what it would ban.
    Observe,
}

impl Mode {
    /// Returns the word of the mode.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe",
        }
    }
}
