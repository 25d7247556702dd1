//! `nfguard guard`, running inside a namespace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use crate::wait::TIMEOUT;
use nfguard_lab::Netns;

use crate::program::command;

/// A guard. It is killed with its value, without a chance to tidy up.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    folder: PathBuf,
}

impl Guard {
    /// Starts one and waits until it answers. `more` are further arguments; `{}` in them stands for
    /// a folder that goes with the guard.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(netns: &Netns, policy: Option<&Path>, more: &[&str]) -> Guard {
        let folder = tempfile::tempdir_in(env::temp_dir()).expect("a folder").keep();
        let place = folder.to_str().expect("plain letters");
        let socket = format!("{place}/guard.sock");
        let mut arguments = vec!["guard".to_owned(), "--socket".to_owned(), socket];
        arguments.extend(policy.map(|policy| policy.display().to_string()));
        arguments.extend(more.iter().map(|argument| argument.replace("{}", place)));
        let log = fs::File::create(folder.join("log")).expect("a file");
        let child = netns.run(|| {
            let mut command = command(&arguments);
            command.stdout(Stdio::null()).stderr(log).spawn().expect("nfguard starts")
        });
        let mut guard = Guard { child, folder };
        let since = Instant::now();
        loop {
            // It listens before it guards, and answers only once it does.
            let answers = UnixStream::connect(guard.socket()).is_ok_and(|stream| {
                let mut client = GuardClient::new(stream);
                client.try_request(r#"{"op":"status"}"#).is_some()
            });
            if answers {
                return guard;
            }
            let ended = guard.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "it ended: {}", guard.log());
            assert!(since.elapsed() < TIMEOUT, "it does not come up: {}", guard.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("guard.sock")
    }

    /// The folder that goes with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has written to its log.
    ///
    /// # Panics
    /// If the file is gone.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("the log is there")
    }

    /// Another client.
    ///
    /// # Panics
    /// If it is not let in.
    pub fn connect(&self) -> GuardClient {
        GuardClient::new(UnixStream::connect(self.socket()).expect("it listens"))
    }

    /// What it says of itself.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn status(&self) -> String {
        self.connect().request(r#"{"op":"status"}"#)
    }

    /// Kills it, as nothing can be caught or tidied up.
    ///
    /// # Panics
    /// If that is not possible.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A conversation with a guard, line by line.
#[derive(Debug)]
pub struct GuardClient(BufReader<UnixStream>);

impl GuardClient {
    /// With the guard at the other end.
    ///
    /// # Panics
    /// If the stream is closed.
    pub fn new(stream: UnixStream) -> GuardClient {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        GuardClient(BufReader::new(stream))
    }

    /// Says a line and hears the answer.
    ///
    /// # Panics
    /// If there is none.
    pub fn request(&mut self, line: &str) -> String {
        self.try_request(line).unwrap_or_else(|| panic!("process {}: no answer", process::id()))
    }

    /// As [`GuardClient::request`]; `None` if the other side is gone.
    pub fn try_request(&mut self, line: &str) -> Option<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).ok()?;
        self.read_line()
    }

    /// The next line; `None` if the other side is gone.
    pub fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.0.read_line(&mut line).ok()?;
        (len > 0).then_some(line)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }
}
