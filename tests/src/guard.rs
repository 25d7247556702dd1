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

/// Returns the socket at which the guard, or the watchdog, of this namespace is found.
#[must_use]
pub fn rendezvous(netns: &Netns, name: &str) -> PathBuf {
    let folder = env::var_os("NFGUARD_RUN_DIR").unwrap_or_else(|| "/run/nfguard".into());
    Path::new(&folder).join(format!("private/{name}-{}", netns.id()))
}

/// A running guard. Its value kills the process on drop.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    folder: PathBuf,
}

impl Guard {
    /// Starts a guard and waits until it answers. `more` are further arguments. `{}` in them stands
    /// for the folder of the guard.
    ///
    /// # Panics
    /// If the guard does not answer.
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
            // The guard listens early. It answers once the policy is guarded.
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

    /// Returns the process ID.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("guard.sock")
    }

    /// Returns the folder of the guard, which is removed on drop.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the log of the guard.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("the log is there")
    }

    /// Connects a client.
    ///
    /// # Panics
    /// If the guard does not listen.
    pub fn connect(&self) -> GuardClient {
        GuardClient::new(UnixStream::connect(self.socket()).expect("it listens"))
    }

    /// Returns the answer to `status`.
    ///
    /// # Panics
    /// If the guard does not answer.
    pub fn status(&self) -> String {
        self.connect().request(r#"{"op":"status"}"#)
    }

    /// Kills the guard with SIGKILL.
    ///
    /// # Panics
    /// If the guard has ended before.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Guard {
    /// Ends the guard. No test makes it use a system call that its sandbox denies.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let _ = fs::remove_dir_all(&self.folder);
        assert!(thread::panicking() || !log.contains("denied a system call"), "{log}");
    }
}

/// A client of a guard or a watchdog. It speaks line by line.
#[derive(Debug)]
pub struct GuardClient(BufReader<UnixStream>);

impl GuardClient {
    /// Wraps a connected stream.
    ///
    /// # Panics
    /// If the stream is closed.
    pub fn new(stream: UnixStream) -> GuardClient {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        GuardClient(BufReader::new(stream))
    }

    /// Sends a line and returns the answer.
    ///
    /// # Panics
    /// If the connection ends without an answer.
    pub fn request(&mut self, line: &str) -> String {
        self.try_request(line).unwrap_or_else(|| panic!("process {}: no answer", process::id()))
    }

    /// Sends a line and returns the answer, or `None` if the connection has ended.
    pub fn try_request(&mut self, line: &str) -> Option<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).ok()?;
        self.read_line()
    }

    /// Returns the next line, or `None` if the connection has ended.
    pub fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.0.read_line(&mut line).ok()?;
        (len > 0).then_some(line)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }
}
