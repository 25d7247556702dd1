//! What one run of a program knows of itself and of its host, found out once.

use std::cell::OnceCell;
use std::path::PathBuf;

use nfguard_ban::{Day, Moment, NeverBan, NeverBanEntry, NeverBanKind, Target};
use nfguard_host::{HostFacts, InvalidSession, SshSession, TcpConnection};

use crate::history::History;
use crate::operator_files::OperatorFiles;
use crate::{Error, Warn};

/// What one run of a program knows of itself and of its host. Make it once, and hand it around: each
/// fact is read when it is first needed, and then kept.
#[derive(Debug)]
pub struct Context {
    /// The loads that were done before.
    pub history: History,
    /// What operators put in besides policies.
    pub files: OperatorFiles,
    /// Takes what the operator has to know.
    pub warn: Warn,
    session: OnceCell<Result<Option<SshSession>, InvalidSession>>,
    never_ban: OnceCell<NeverBan>,
    /// Whether what is kept is restored later by the same run: a boot loads the policy first.
    pub(crate) restores_later: bool,
}

impl Context {
    /// Keeps its files in this folder, or in that of the environment, or in the usual one.
    pub fn new(state_dir: Option<PathBuf>, warn: Warn) -> Context {
        let history = History::open(state_dir, warn);
        Context {
            files: OperatorFiles::in_folder(history.folder()),
            history,
            warn,
            session: OnceCell::new(),
            never_ban: OnceCell::new(),
            restores_later: false,
        }
    }

    /// Returns one for a boot, which restores what is written down at its end.
    pub(crate) fn of_boot(&self) -> Context {
        let Context { history, files, warn, session, never_ban, .. } = self;
        Context {
            history: history.clone(),
            files: files.clone(),
            warn: *warn,
            session: session.clone(),
            never_ban: never_ban.clone(),
            restores_later: true,
        }
    }

    /// Writes down what was put in, so that the next boot has it. Returns whether it did; why it did
    /// not is a warning. `what` is in force all the same.
    pub fn write_down(
        &self,
        what: &str,
        write: impl FnOnce(&OperatorFiles) -> Result<bool, Error>,
    ) -> bool {
        write(&self.files).unwrap_or_else(|error| {
            (self.warn)(&format!(
                "what was done to {what} is in force, but could not be written down and ends with \
                 the next boot: {error}"
            ));
            false
        })
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

    /// Returns the peer of that session as it stands on the never-ban list, and the day on which it is
    /// no more: other programs keep it until then, or until the next boot.
    pub fn spared_peer(&self) -> Option<(Target, Day)> {
        let peer = self.session().ok().flatten()?.peer;
        let now = Moment::now();
        let all = NeverBan::default().with_ssh_peer(peer, now);
        let is_peer = |entry: &&NeverBanEntry| matches!(entry.kind, NeverBanKind::SshPeer { .. });
        let entry = all.entries().iter().find(is_peer)?;
        Some((entry.network.into(), Day::of(now.calendar + NeverBan::SSH_PEER_RETENTION)))
    }

    /// Returns the never-ban list of a host that does not tell who it is: the SSH session is known.
    pub(crate) fn without_host_facts(&self) -> NeverBan {
        let peer = self.session().ok().flatten().map(|session| session.peer);
        let none = NeverBan::default();
        peer.into_iter().fold(none, |all, peer| all.with_ssh_peer(peer, Moment::now()))
    }

    /// Tells whether an SSH login is open on this host, as far as the host tells.
    pub(crate) fn has_login(&self) -> bool {
        let is_peer = |entry: &NeverBanEntry| matches!(entry.kind, NeverBanKind::SshPeer { .. });
        let is_known = self.never_ban().is_ok_and(|all| all.entries().iter().any(is_peer));
        is_known || self.spared_peer().is_some()
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
        for problem in &facts.problems {
            (self.warn)(&format!("not all SSH logins are spared: {problem}"));
        }
        let session = self.session().ok().flatten();
        let found = NeverBan::of_host(&facts, session.as_ref());
        Ok(self.never_ban.get_or_init(|| found).clone())
    }
}
