//! The way back from a load that somebody has yet to confirm.
//!
//! A process of its own, the keeper, holds what was there before a load and puts it back when the
//! time is over. It is there before the load and needs neither the loader nor its terminal, its
//! parents or a disk. It is spoken to over a socket whose name, unlike a file's, belongs to the
//! network namespace: in each there is at most one keeper, and everybody finds it.
//!
//! A question is a line of words, and so is the answer.

mod snapshot;
mod spawn;
mod watchdog;

pub use spawn::start_in_new_session;
pub use watchdog::keep;

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::Error;
use crate::connections::Ends;
use crate::history::History;
use crate::local_socket::is_trusted;

/// In the abstract namespace.
const NAME: &str = "nfguard/watchdog";

/// How long a keeper has to answer: it may be putting rules back meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a keeper may take to start.
const START: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(5);

/// How somebody who confirms came here, seen from the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a connection opened since: the rules let one in.
    New,
    /// By the connection that the load came by.
    Same,
    /// By another one that was open then already.
    Old,
    /// By one that is none of this network namespace.
    Unseen,
    /// Not over SSH.
    Console,
}

impl Proof {
    const WORDS: [(Proof, &str, &str); 5] = [
        (Proof::New, "new", "from a connection opened after the load"),
        (
            Proof::Same,
            "same",
            "from the same connection as the load, which proves nothing about new ones",
        ),
        (
            Proof::Old,
            "old",
            "from a connection that was open before the load, which proves nothing about new ones",
        ),
        (
            Proof::Unseen,
            "unseen",
            "from an SSH session whose connection is not to be seen here, which proves nothing",
        ),
        (Proof::Console, "console", "from the console, which proves nothing about the network"),
    ];

    /// As JSON has it.

    pub fn word(self) -> &'static str {
        self.entry().1
    }

    /// For people.
    pub fn phrase(self) -> &'static str {
        self.entry().2
    }

    fn entry(self) -> (Proof, &'static str, &'static str) {
        let own = Proof::WORDS.into_iter().find(|(proof, ..)| *proof == self);
        own.unwrap_or((self, "", ""))
    }
}

/// What came of an attempt to confirm.
pub enum Confirmed {
    /// It is confirmed.
    Yes(Proof),
    /// The way back was taken already.
    TooLate,
    /// Nothing waits for confirmation.
    Nothing,
}

/// Confirms the load that waits, if one does.
pub fn confirm(ends: Option<Ends>) -> Result<Confirmed, Error> {
    let Some(mut keeper) = Line::find()? else { return Ok(Confirmed::Nothing) };
    let ends = ends.map_or_else(|| "-".to_owned(), |ends| ends.to_string());
    let answer = keeper.ask(&format!("confirm {ends}"))?;
    if let Some(word) = answer.strip_prefix("confirmed ") {
        let proof = Proof::WORDS.into_iter().find(|(_, known, _)| *known == word);
        return Ok(Confirmed::Yes(proof.map_or(Proof::Unseen, |(proof, ..)| proof)));
    }
    match answer.as_str() {
        "late" => Ok(Confirmed::TooLate),
        "" | "idle" => Ok(Confirmed::Nothing),
        other => Err(refusal(other)),
    }
}

/// Takes the way back at once; whether there was one.
pub fn go_back() -> Result<bool, Error> {
    let Some(mut keeper) = Line::find()? else { return Ok(false) };
    match keeper.ask("back")?.as_str() {
        "late" => Ok(true),
        "" | "idle" => Ok(false),
        other => Err(refusal(other)),
    }
}

/// How long the load that waits can still be confirmed; `None` if none waits.
pub fn time_left() -> Option<Duration> {
    let answer = Line::find().ok()??.ask("left").ok()?;
    Some(Duration::from_millis(answer.strip_prefix("left ")?.parse().ok()?))
}

/// A way back that is ready, before the load.
pub struct Armed(Line);

impl Armed {
    /// Has the way back made ready, to be taken after this time. If another load still waits to be
    /// confirmed, it stays the way back from that one, with this load's time.
    pub fn ready(time: Duration, ends: Option<Ends>, history: &History) -> Result<Armed, Error> {
        let ends = ends.map_or_else(|| "-".to_owned(), |ends| ends.to_string());
        let request = format!("arm {} {ends}", time.as_millis());
        let since = Instant::now();
        let mut started = None;
        loop {
            if let Some(mut keeper) = Line::find()? {
                match keeper.ask(&request)?.as_str() {
                    "armed" => return Ok(Armed(keeper)),
                    // It ended just now.
                    "" => started = None,
                    other => return Err(refusal(other)),
                }
            }
            if since.elapsed() > START {
                return Err(Error::WayBack("its process does not come up".to_owned()));
            }
            // Two that start at once: the second one ends by itself.
            if started.is_none_or(|at: Instant| at.elapsed() > START / 4) {
                spawn::start(history)?;
                started = Some(Instant::now());
            }
            thread::sleep(PAUSE);
        }
    }

    /// The load was done.
    pub fn loaded(mut self) -> After {
        match self.0.ask("loaded").unwrap_or_default().as_str() {
            "ok" => After::Waits,
            "late" => After::TooLate,
            _ => After::Gone,
        }
    }

    /// The load was not done.
    pub fn stop(mut self) {
        // If it does not hear, it puts back what is there already.
        let _ = self.0.ask("stop");
    }
}

/// How it is with the way back once the load was done.
pub enum After {
    /// It is ready.
    Waits,
    /// The load took so long that it was taken.
    TooLate,
    /// Somebody has ended the keeper.
    Gone,
}

fn refusal(answer: &str) -> Error {
    let why = answer.strip_prefix("cannot ").unwrap_or(answer);
    Error::WayBack(why.replace(LINE_BREAK, "\n"))
}

/// Stands for a line break in an answer.
const LINE_BREAK: char = '\u{2028}';

/// One end of a conversation.
struct Line(BufReader<UnixStream>);

impl Line {
    /// The keeper of this network namespace, if there is one.
    fn find() -> Result<Option<Line>, Error> {
        let failed = |error: io::Error| Error::WayBack(error.to_string());
        let stream = match UnixStream::connect_addr(&address().map_err(failed)?) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            stream => stream.map_err(failed)?,
        };
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let credentials =
            getsockopt(&stream, PeerCredentials).map_err(|errno| failed(errno.into()))?;
        if !is_trusted(credentials.uid()) {
            return Err(Error::WayBack(format!(
                "process {} of user {}, who is not root, pretends to be it",
                credentials.pid(),
                credentials.uid()
            )));
        }
        Ok(Some(Line(BufReader::new(stream))))
    }

    /// An answer of nothing: the other end is gone.
    fn ask(&mut self, question: &str) -> Result<String, Error> {
        let answer = self.say(question).and_then(|()| self.hear());
        match answer {
            Err(error)
                if [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()) =>
            {
                Ok(String::new())
            }
            answer => answer.map_err(|error| Error::WayBack(error.to_string())),
        }
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        let line = line.replace('\n', &LINE_BREAK.to_string());
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end_matches('\n').to_owned())
    }
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}
