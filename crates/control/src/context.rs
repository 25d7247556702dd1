//! What one run of a program knows of itself and of its host, found out once.

use std::cell::OnceCell;
use std::path::PathBuf;

use nfguard_ban::NeverBan;
use nfguard_host::{HostFacts, InvalidSession, SshSession, TcpConnection};

use crate::history::History;
use crate::{Error, Warn};

/// What one run of a program knows of itself and of its host. Make it once, and hand it around: each
/// fact is read when it is first needed, and then kept.
#[derive(Debug)]
pub struct Context {
    /// The loads that were done before.
    pub history: History,
    /// Takes what the operator has to know.
    pub warn: Warn,
    session: OnceCell<Result<Option<SshSession>, InvalidSession>>,
    never_ban: OnceCell<NeverBan>,
}

impl Context {
    /// Keeps its files in this folder, or in that of the environment, or in the usual one.
    pub fn new(state_dir: Option<PathBuf>, warn: Warn) -> Context {
        Context {
            history: History::open(state_dir, warn),
            warn,
            session: OnceCell::new(),
            never_ban: OnceCell::new(),
        }
    }

    /// Returns the SSH session that this process was started from.
    ///
    /// # Errors
    /// There is a session, and nothing says where it comes from.
    pub fn session(&self) -> Result<Option<SshSession>, InvalidSession> {
        self.session.get_or_init(SshSession::of_this_process).clone()
    }

    /// Returns the connection of that session.
    pub fn connection(&self) -> Option<TcpConnection> {
        self.session().ok()??.connection
    }

    /// Returns the addresses that are never banned, as far as this host tells.
    ///
    /// # Errors
    /// If this host cannot be asked.
    pub fn never_ban(&self) -> Result<NeverBan, Error> {
        if let Some(known) = self.never_ban.get() {
            return Ok(known.clone());
        }
        let facts = HostFacts::read().map_err(|error| Error::Kernel(error.into()))?;
        let session = self.session().ok().flatten();
        let found = NeverBan::of_host(&facts, session.as_ref());
        Ok(self.never_ban.get_or_init(|| found).clone())
    }
}
