//! Reads log lines and decides which sources to ban.
//!
//! ```text
//!  bytes ─► lines ─► record ─────► evidence ───────► window ─────► verdict
//!           whole    read by the   what a jail       score of a    a ban with its end,
//!           lines    log's format  takes it for      source        or a source that is spared
//! ```
//!
//! # Example
//!
//! ```
//! use nfguard_jail::{Config, Event, Jails};
//!
//! let text = r#"{ "version": 1, "jails": [
//!     { "use": "traefik-auth", "log": "/var/log/traefik/access.log", "after": 2 }
//! ] }"#;
//! let (config, _warnings) = Config::parse(text).expect("no mistakes");
//! let mut jails = Jails::new(config, Vec::new());
//! let (log, _) = jails.logs().next().expect("a log");
//!
//! let line = |second| format!(
//!     "203.0.113.5 - admin [18/Nov/2026:21:00:0{second} +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \
//!      \"curl\" {second} \"web@docker\" \"-\" 1ms\n"
//! );
//! let bytes = line(1) + &line(2);
//! let mut bans = Vec::new();
//! jails.read(log, 0, bytes.as_bytes(), &mut |event| match event {
//!     Event::Ban(ban) => bans.push(format!("{} until {}", ban.source, ban.until)),
//!     _ => {}
//! });
//! assert_eq!(bans, ["203.0.113.5 until 2026-11-18T22:00:02Z"]);
//!
//! // What they remember can be saved and put back.
//! let saved = serde_json::to_string(&jails.state()).expect("JSON");
//! let (config, _) = Config::parse(text).expect("no mistakes");
//! let state = serde_json::from_str(&saved).expect("a state");
//! let jails = Jails::new(config, Vec::new()).with_state(state);
//! assert_eq!(jails.position(log), bytes.len() as u64);
//! ```
//!
//! # What holds
//!
//! - Times are the log's. The same lines give the same bans, whenever and in whatever pieces they are
//!   read, and however often: bytes of a position that was read are left out. A time without a year
//!   needs a first time: see [`Jails::with_time`].
//! - What a client writes in Traefik's JSON, or in a format that escapes, bans no other client and
//!   hides nothing. Traefik's common format does not escape; `docs/jails.md` names what it leaves open.
//!   Records of it that are in doubt are held back: see [`Jails::settle`].
//! - No expression is compiled for a line. Those of jails run in time linear to the line; those of
//!   Fail2Ban's filters that need to go back end at a limit of steps.
//! - A line above [`MAX_LINE_BYTES`] is counted and not judged.
//!
//! # Modules
//!
//! - [`address`]: strict addresses, and the source that an address belongs to.
//! - [`time`]: times of logs with zone, without zone, without year and in epoch seconds.
//! - `frame`: whole lines out of bytes that come in pieces.
//! - [`record`]: what a line says. `read` has a reader for each format, `json` what they share.
//! - `evidence`: what a jail takes for evidence; `status`: sets of statuses.
//! - [`fail2ban`]: filters of Fail2Ban.
//! - `window`: how evidence is counted, and bans grow.
//! - [`jails`]: all of it at work. [`event`]: what jails tell.
//! - `config`: `jails.json`. [`builtin`]: built-in jails.
//!
//! # What this crate does not do
//!
//! It opens no file, has no clock and no socket, and looks up no name.

pub mod address;
pub mod builtin;
mod config;
pub mod event;
mod evidence;
pub mod fail2ban;
mod frame;
mod jail;
pub mod jails;
mod json;
mod read;
pub mod record;
mod status;
pub mod time;
mod window;

pub use config::{Config, UnknownJail, schema};
pub use event::{Ban, Event, Limit, Shelter, Spared, Taken};
pub use jail::{Jail, Log, Mode, Place};
pub use jails::{Jails, LogId, State};
pub use nfguard_json::{Problem, Severity};
pub use read::{Format, LineFormat, ReadCounts, Vouched};

/// The longest line that is judged, in bytes.
pub const MAX_LINE_BYTES: usize = 2 << 20;
