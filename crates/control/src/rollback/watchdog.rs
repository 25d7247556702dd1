//! The process that puts the rules from before a load back.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nfguard_api::local_socket::{Connection, LocalAddress, LocalListener, is_trusted};
use nfguard_api::message::ErrorCode;
use nfguard_api::message::watchdog::{Proof, WatchdogRequest, WatchdogResponse};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use super::client::RETRY_PAUSE;
use super::snapshot::Snapshot;
use crate::Error;
use crate::change;
use crate::context::Context;
use crate::history::LoadOutcome;
use nfguard_host::{TcpConnection, tcp_connections};

/// How long a watchdog waits for the loader that started it.
const LOADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it listens to another process: longer than it takes to write a line, and no hindrance to
/// what is due.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// How long it waits at the end for a loader that is not done. One that finds no watchdog later takes
/// its load back itself.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// How long it tries to put back what the kernel refuses.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(600);
/// How long it waits between these attempts.
const ROLLBACK_PAUSE: Duration = RETRY_PAUSE.saturating_mul(10);

/// Runs until the rules from before are back, or no load waits any more; `false` if another watchdog
/// runs already.
///
/// # Errors
/// If it cannot wait.
pub fn run(context: &Context) -> Result<bool, Error> {
    let failed = |error: io::Error| Error::Rollback(error.to_string());
    let Some(mut watchdog) = Watchdog::new(context).map_err(failed)? else { return Ok(false) };
    if watchdog.wait_for_end().map_err(failed)? == End::RolledBack {
        (context.warn)("the load was not confirmed: the rules from before it are back");
        context.history.settle(&LoadOutcome::RolledBack);
    }
    Ok(true)
}

struct Watchdog<'c> {
    context: &'c Context,
    listener: LocalListener,
    timer: TimerFd,
    signals: SignalFd,
    /// What is put back; `None` before the first load.
    snapshot: Option<Snapshot>,
    /// By the clock that goes on while the machine sleeps, and that no program sets.
    due: Duration,
    loader: Option<Loader>,
    /// The connection that the last load came by.
    loaded_by: Option<TcpConnection>,
    /// The connections that were open when the last load was done; `None` if that is not known.
    open_before: Option<HashSet<TcpConnection>>,
}

/// A load that is being done.
struct Loader {
    connection: Connection,
    /// When the load before it is due, if that one still waits to be confirmed.
    due_before: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotNeeded,
    RolledBack,
}

/// What a watchdog waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    timer: bool,
    signal: bool,
    loader: bool,
    caller: bool,
}

impl<'c> Watchdog<'c> {
    /// Returns `None` if this network namespace has a watchdog already.
    fn new(context: &'c Context) -> io::Result<Option<Watchdog<'c>>> {
        // The end of a session, a terminal or a job is not the end of this process. SIGTERM ends it,
        // and then what is due is done at once.
        let mut signals = SigSet::empty();
        for signal in [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGPIPE,
            Signal::SIGTERM,
        ] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
        let listener = match LocalAddress::Watchdog.listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            listener => listener?,
        };
        listener.set_nonblocking(true)?;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        // Where memory is short, another process is to end. Only root may say so.
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        let mut watchdog = Watchdog {
            context,
            listener,
            timer,
            signals,
            snapshot: None,
            due: Duration::ZERO,
            loader: None,
            loaded_by: None,
            open_before: None,
        };
        watchdog.set_due(now()? + LOADER_TIMEOUT)?;
        Ok(Some(watchdog))
    }

    fn wait_for_end(&mut self) -> io::Result<End> {
        loop {
            let ready = self.wait()?;
            let end = if ready.timer {
                Some(self.roll_back())
            } else if ready.signal {
                let signal = self.signals.read_signal()?;
                let is_term = |signal: i32| signal == Signal::SIGTERM as i32;
                let ends = signal.is_some_and(|info| is_term(info.ssi_signo.cast_signed()));
                ends.then(|| self.roll_back())
            } else if ready.loader {
                self.hear_loader()?
            } else if ready.caller {
                // A caller that is gone again is no reason to end.
                let stream = self.listener.accept().map(|(stream, _)| stream);
                stream.map_or(None, |stream| self.answer_caller(stream).unwrap_or_default())
            } else {
                None
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(loader) = &self.loader {
            fds.push(PollFd::new(loader.connection.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(Ready::default()),
            result => result?,
        };
        let is_ready = |at: usize| {
            fds.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        let [timer, signal, caller, loader] = [0, 1, 2, 3].map(is_ready);
        Ok(Ready { timer, signal, loader, caller })
    }

    fn set_due(&mut self, due: Duration) -> io::Result<()> {
        self.due = due;
        // A timer that is set to zero never fires.
        let at = due.max(Duration::from_nanos(1));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        Ok(self.timer.set(Expiration::OneShot(at.into()), flags)?)
    }

    /// Hears how the load went. If the loader is gone, it is not known how far it came.
    fn hear_loader(&mut self) -> io::Result<Option<End>> {
        let Some(mut loader) = self.loader.take() else { return Ok(None) };
        match (loader.connection.receive(), loader.due_before) {
            (Ok(WatchdogRequest::Loaded {}), _) => {
                self.open_before = tcp_connections().ok();
            }
            (Ok(WatchdogRequest::Cancel {}), None) => {
                let _ = loader.connection.send(&WatchdogResponse::done());
                return Ok(Some(End::NotNeeded));
            }
            (Ok(WatchdogRequest::Cancel {}), Some(before)) => self.set_due(before)?,
            (_, before) => {
                self.open_before = tcp_connections().ok();
                self.set_due(before.unwrap_or(self.due).min(self.due))?;
            }
        }
        let _ = loader.connection.send(&WatchdogResponse::done());
        Ok(None)
    }

    fn answer_caller(&mut self, stream: UnixStream) -> Result<Option<End>, nfguard_api::Error> {
        let mut caller = Connection::new(stream, Some(REQUEST_TIMEOUT))?;
        if !is_trusted(caller.peer()?.user) {
            return Ok(None);
        }
        let request: WatchdogRequest = match caller.receive() {
            Err(nfguard_api::Error::Malformed(error)) => {
                caller.send(&WatchdogResponse::refused(ErrorCode::BadInput, error))?;
                return Ok(None);
            }
            request => request?,
        };
        if has_hung_up(&caller)? {
            // It was told that it failed, while this process was stopped.
            return Ok(None);
        }
        if let WatchdogRequest::Arm { milliseconds, session } = request {
            let time = Duration::from_millis(milliseconds);
            return self.arm(caller, time, session.and_then(|text| text.parse().ok()));
        }
        if self.snapshot.is_none() {
            let why = "no load waits to be confirmed";
            caller.send(&WatchdogResponse::refused(ErrorCode::NothingPending, why))?;
            return Ok(None);
        }
        match request {
            WatchdogRequest::TimeLeft {} => {
                let left = self.due.saturating_sub(now()?);
                let milliseconds_left = u64::try_from(left.as_millis()).ok();
                caller.send(&WatchdogResponse { milliseconds_left, ..WatchdogResponse::done() })?;
                Ok(None)
            }
            WatchdogRequest::Confirm { .. } | WatchdogRequest::Rollback {}
                if self.loader.is_some() =>
            {
                let why = "a load is in progress; try again";
                caller.send(&WatchdogResponse::refused(ErrorCode::Busy, why))?;
                Ok(None)
            }
            WatchdogRequest::Confirm { session } => {
                let proof = Some(self.proof(session.as_deref()));
                // Heard or not, it is decided.
                let _ = caller.send(&WatchdogResponse { proof, ..WatchdogResponse::done() });
                Ok(Some(End::NotNeeded))
            }
            WatchdogRequest::Rollback {} => {
                let end = self.roll_back();
                let _ = caller.send(&WatchdogResponse::done());
                Ok(Some(end))
            }
            WatchdogRequest::Arm { .. }
            | WatchdogRequest::Loaded {}
            | WatchdogRequest::Cancel {} => {
                let why = "this connection has not armed the watchdog";
                caller.send(&WatchdogResponse::refused(ErrorCode::BadInput, why))?;
                Ok(None)
            }
        }
    }

    /// From now on the rules from before come back in time, whatever becomes of the loader.
    fn arm(
        &mut self,
        mut loader: Connection,
        time: Duration,
        session: Option<TcpConnection>,
    ) -> Result<Option<End>, nfguard_api::Error> {
        if self.loader.is_some() {
            let why = "another load is in progress";
            loader.send(&WatchdogResponse::refused(ErrorCode::Busy, why))?;
            return Ok(None);
        }
        let due_before = self.snapshot.is_some().then_some(self.due);
        if self.snapshot.is_none() {
            match Snapshot::take() {
                Ok(snapshot) => self.snapshot = Some(snapshot),
                Err(why) => {
                    loader.send(&WatchdogResponse::refused(ErrorCode::Kernel, why))?;
                    return Ok(Some(End::NotNeeded));
                }
            }
        }
        self.set_due(now()? + time)?;
        self.loaded_by = session;
        self.open_before = None;
        loader.send(&WatchdogResponse::done())?;
        self.loader = Some(Loader { connection: loader, due_before });
        Ok(None)
    }

    fn proof(&self, session: Option<&str>) -> Proof {
        let Some(Ok(session)) = session.map(str::parse::<TcpConnection>) else {
            return Proof::Console;
        };
        let is_open = tcp_connections().is_ok_and(|open| open.contains(&session));
        match &self.open_before {
            _ if Some(session) == self.loaded_by => Proof::Same,
            _ if !is_open => Proof::Unseen,
            Some(before) if !before.contains(&session) => Proof::New,
            _ => Proof::Old,
        }
    }

    /// Puts the rules from before back. A caller that asks from now on hears that it is too late.
    fn roll_back(&mut self) -> End {
        let Some(snapshot) = &self.snapshot else { return End::NotNeeded };
        put_back(snapshot, self.context);
        if let Some(Loader { mut connection, .. }) = self.loader.take() {
            // It has not said that it is done: what it does until it ends has to go as well.
            self.wait_for_last(&connection);
            let _ = connection.receive::<WatchdogRequest>();
            put_back(snapshot, self.context);
            let _ = connection.send(&expired());
        }
        self.refuse_callers();
        End::RolledBack
    }

    /// Waits until the loader says something or is gone, and answers others meanwhile.
    fn wait_for_last(&self, loader: &Connection) {
        let deadline = Instant::now() + LAST_WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [loader.as_fd(), self.listener.as_fd()]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                Ok(0) | Err(_) => return,
                Ok(_) if fds[0].any() == Some(true) => return,
                Ok(_) => self.refuse_callers(),
            }
        }
    }

    /// Answers those who wait that it is too late.
    fn refuse_callers(&self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let caller = Connection::new(stream, Some(REQUEST_TIMEOUT));
            let _ = caller.map(|mut caller| caller.send(&expired()));
        }
    }
}

/// Tells whether the other end has closed the connection.
fn has_hung_up(connection: &Connection) -> io::Result<bool> {
    let mut fds = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].any() == Some(true))
}

fn expired() -> WatchdogResponse {
    WatchdogResponse::refused(ErrorCode::Expired, "the rules from before the load are back")
}

/// Tries until it has worked.
fn put_back(snapshot: &Snapshot, context: &Context) {
    let start = Instant::now();
    while let Err(error) = change::restore(snapshot, context) {
        (context.warn)(&format!("the rules from before the load are not back yet: {error}"));
        if start.elapsed() > ROLLBACK_TIMEOUT {
            return;
        }
        thread::sleep(ROLLBACK_PAUSE);
    }
}

fn now() -> io::Result<Duration> {
    Ok(clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?.into())
}
