//! The process that holds the way back.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;

use super::snapshot::Previous;
use super::{LINE_BREAK, Line, PAUSE, Proof, address};
use crate::connections::{self, Ends};
use crate::history::{History, LoadOutcome};
use crate::local_socket::is_trusted;
use crate::scan_bans::Scans;
use crate::{Error, Warn};

/// How long a keeper waits for the loader that it was started by.
const LOADER: Duration = Duration::from_secs(30);
/// How long it listens to somebody else's question: longer than it takes to write one line, and no
/// hindrance to what is due.
const QUESTION: Duration = Duration::from_millis(500);
/// How long it tries to put back what the kernel refuses.
const TRIES: Duration = Duration::from_secs(600);

/// Runs until the way back is taken or needed no more; `false` if another one runs already.
///
/// # Errors
/// If it cannot wait.
pub fn keep(history: &History) -> Result<bool, Error> {
    let warn = history.warn;
    let failed = |error: io::Error| Error::WayBack(error.to_string());
    let Some(mut keeper) = Keeper::new(warn).map_err(failed)? else { return Ok(false) };
    let outcome = keeper.run().map_err(failed)?;
    if let (Some(previous), End::WentBack) = (&keeper.previous, outcome) {
        warn("nobody has confirmed the load: the rules from before it are back");
        if let Err(error) = previous.tell_bans() {
            warn(&error.to_string());
        }
        // Whom the kernel has banned meanwhile, by rules that are gone.
        if let Some(Err(_)) = keeper.scans.take().map(Scans::outlive) {
            warn("who was banned for a scan is banned no longer");
        }
        history.settle(&LoadOutcome::WentBack);
    }
    Ok(true)
}

struct Keeper {
    warn: Warn,
    listener: UnixListener,
    timer: TimerFd,
    signals: SignalFd,
    previous: Option<Previous>,
    /// Who was banned for a scan when the way back was taken.
    scans: Option<Scans>,
    /// By the clock that goes on while the machine sleeps and that nobody sets.
    due: Duration,
    loader: Option<Loader>,
    /// What the last load came by.
    came_by: Option<Ends>,
    /// The connections that were there when it was done; `None` if nobody could tell.
    open_then: Option<HashSet<Ends>>,
}

/// A load that is being done.
struct Loader {
    line: Line,
    /// When the load before it was due, if that one still waits to be confirmed.
    due_before: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotNeeded,
    WentBack,
}

impl Keeper {
    /// `None` if there is one in this network namespace already.
    fn new(warn: Warn) -> io::Result<Option<Keeper>> {
        // What ends a session, a terminal or a job is not meant for this process. All the same it
        // can be ended politely: then what is due is done at once.
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
        let listener = match UnixListener::bind_addr(&address()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            listener => listener?,
        };
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        // Where memory is short, somebody else is to go. Only root may say so.
        let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        let mut keeper = Keeper {
            warn,
            listener,
            timer,
            signals,
            previous: None,
            scans: None,
            due: Duration::ZERO,
            loader: None,
            came_by: None,
            open_then: None,
        };
        keeper.set_due(clock()? + LOADER)?;
        Ok(Some(keeper))
    }

    fn run(&mut self) -> io::Result<End> {
        loop {
            let [time, signal, loader, caller] = self.wait()?;
            let end = if time {
                Some(self.go_back())
            } else if signal {
                let signal = self.signals.read_signal()?;
                let is_term = |signal: i32| signal == Signal::SIGTERM as i32;
                let ends = signal.is_some_and(|info| is_term(info.ssi_signo.cast_signed()));
                ends.then(|| self.go_back())
            } else if loader {
                self.hear_loader()?
            } else if caller {
                let (stream, _) = self.listener.accept()?;
                // Whoever is gone again, or no root, is not worth an error.
                self.hear(stream).unwrap_or_default()
            } else {
                None
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Until the time is over, a signal is there, the loader says something, or somebody calls.
    fn wait(&self) -> io::Result<[bool; 4]> {
        let mut all = vec![
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(loader) = &self.loader {
            all.push(PollFd::new(loader.line.0.get_ref().as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut all, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok([false; 4]),
            result => result?,
        };
        let is_ready = |at: usize| {
            all.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        Ok([is_ready(0), is_ready(1), is_ready(3), is_ready(2)])
    }

    fn set_due(&mut self, due: Duration) -> io::Result<()> {
        self.due = due;
        // A timer that is set to zero never fires.
        let at = due.max(Duration::from_nanos(1));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        Ok(self.timer.set(Expiration::OneShot(at.into()), flags)?)
    }

    /// What the loader says, or that it is gone: then nobody knows how far it came.
    fn hear_loader(&mut self) -> io::Result<Option<End>> {
        let Some(mut loader) = self.loader.take() else { return Ok(None) };
        match (loader.line.hear().unwrap_or_default().as_str(), loader.due_before) {
            ("loaded", _) => self.open_then = connections::open_now().ok(),
            ("stop", None) => {
                let _ = loader.line.say("ok");
                return Ok(Some(End::NotNeeded));
            }
            ("stop", Some(before)) => self.set_due(before)?,
            (_, before) => {
                self.open_then = connections::open_now().ok();
                self.set_due(before.unwrap_or(self.due).min(self.due))?;
            }
        }
        let _ = loader.line.say("ok");
        Ok(None)
    }

    /// Somebody's question.
    fn hear(&mut self, stream: UnixStream) -> io::Result<Option<End>> {
        let credentials = getsockopt(&stream, PeerCredentials)?;
        if !is_trusted(credentials.uid()) {
            return Ok(None);
        }
        stream.set_read_timeout(Some(QUESTION))?;
        stream.set_write_timeout(Some(QUESTION))?;
        let mut line = Line(BufReader::new(stream));
        let question = line.hear()?;
        let (word, rest) = question.split_once(' ').unwrap_or((&question, ""));
        if word == "arm" {
            return self.arm(line, rest);
        }
        if self.previous.is_none() {
            line.say("idle")?;
            return Ok(None);
        }
        if word == "left" {
            let left = self.due.saturating_sub(clock()?);
            line.say(&format!("left {}", left.as_millis()))?;
            return Ok(None);
        }
        match word {
            "confirm" | "back" if self.loader.is_some() => {
                line.say("cannot a load is being done at this moment; ask again")?;
                Ok(None)
            }
            "confirm" => {
                let proof = self.proof(rest);
                // Said or not, it is decided.
                let _ = line.say(&format!("confirmed {}", proof.word()));
                Ok(Some(End::NotNeeded))
            }
            "back" => {
                let end = self.go_back();
                let _ = line.say("late");
                Ok(Some(end))
            }
            _ => Ok(None),
        }
    }

    /// From now on the way back is taken in time, whatever becomes of the loader.
    fn arm(&mut self, mut line: Line, request: &str) -> io::Result<Option<End>> {
        let (millis, ends) = request.split_once(' ').unwrap_or((request, ""));
        let Ok(millis) = millis.parse() else { return Ok(None) };
        if self.loader.is_some() {
            line.say("cannot another load is being done at this moment")?;
            return Ok(None);
        }
        let due_before = self.previous.is_some().then_some(self.due);
        if self.previous.is_none() {
            match Previous::read() {
                Ok(previous) => self.previous = Some(previous),
                Err(why) => {
                    line.say(&format!("cannot {why}"))?;
                    return Ok(Some(End::NotNeeded));
                }
            }
        }
        self.set_due(clock()? + Duration::from_millis(millis))?;
        self.came_by = ends.parse().ok();
        self.open_then = None;
        line.say("armed")?;
        line.0.get_ref().set_read_timeout(None)?;
        self.loader = Some(Loader { line, due_before });
        Ok(None)
    }

    fn proof(&self, ends: &str) -> Proof {
        let Ok(ends) = ends.parse::<Ends>() else { return Proof::Console };
        let is_open = connections::open_now().is_ok_and(|open| open.contains(&ends));
        match &self.open_then {
            _ if Some(ends) == self.came_by => Proof::Same,
            _ if !is_open => Proof::Unseen,
            Some(then) if !then.contains(&ends) => Proof::New,
            _ => Proof::Old,
        }
    }

    /// Takes the way back. Whoever asks from now on is told that it is too late.
    fn go_back(&mut self) -> End {
        let Some(previous) = &self.previous else { return End::NotNeeded };
        self.scans = Scans::now().ok();
        put_back(previous, self.warn);
        if let Some(mut loader) = self.loader.take() {
            // It has not said that it is done: what it does until it ends has to go as well.
            let _ = loader.line.hear();
            put_back(previous, self.warn);
            let _ = loader.line.say("late");
        }
        if self.listener.set_nonblocking(true).is_ok() {
            while let Ok((stream, _)) = self.listener.accept() {
                let _ = Line(BufReader::new(stream)).say("late");
            }
        }
        End::WentBack
    }
}

/// Until it has worked.
fn put_back(previous: &Previous, warn: Warn) {
    let since = Instant::now();
    while let Err(error) = previous.put_back(warn) {
        let words = error.to_string().replace('\n', &LINE_BREAK.to_string());
        warn(&format!("the rules from before the load are not back yet: {words}"));
        if since.elapsed() > TRIES {
            return;
        }
        thread::sleep(PAUSE * 10);
    }
}

fn clock() -> io::Result<Duration> {
    Ok(clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?.into())
}
