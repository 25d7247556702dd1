//! `nfguard log`, running inside a namespace.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use nfguard_lab::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::command;

/// A running `nfguard log`, which receives every packet from its start on.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    /// `None` if the output is closed or redirected.
    lines: Option<BufReader<ChildStdout>>,
    notes: BufReader<ChildStderr>,
}

impl Reader {
    /// Starts a reader, and waits until it reads its NFLOG group.
    ///
    /// # Panics
    /// If the reader ends before.
    pub fn start(netns: &Netns, arguments: &[&str]) -> Reader {
        Reader::printing_to(netns, arguments, Stdio::piped())
    }

    /// Starts a reader with its output redirected.
    ///
    /// # Panics
    /// As [`Reader::start`].
    pub fn printing_to(netns: &Netns, arguments: &[&str], output: Stdio) -> Reader {
        let mut command = command(&[&["log"], arguments].concat());
        command.stdout(output).stderr(Stdio::piped());
        let mut child = netns.run(|| command.spawn().expect("nfguard starts"));
        let lines = child.stdout.take().map(BufReader::new);
        let mut notes = BufReader::new(child.stderr.take().expect("a pipe"));
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("reading NFLOG group") {
            line.clear();
            assert_ne!(notes.read_line(&mut line).expect("text"), 0, "it has ended: {all}");
            all.push_str(&line);
        }
        Reader { child, lines, notes }
    }

    /// Sends a signal to the reader.
    ///
    /// # Panics
    /// If the reader has ended.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// Returns the next line of the output.
    ///
    /// # Panics
    /// If there is none.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.lines.as_mut().expect("open").read_line(&mut line).expect("text"),
            0,
            "it has ended"
        );
        line.trim_end().to_owned()
    }

    /// Closes the output of the reader.
    pub fn close(&mut self) {
        self.lines = None;
    }

    /// Waits for a successful end, and returns the rest of standard output and standard error.
    ///
    /// # Panics
    /// If the reader fails.
    pub fn end(mut self) -> (String, String) {
        let (mut rest, mut notes) = (String::new(), String::new());
        if let Some(mut lines) = self.lines.take() {
            lines.read_to_string(&mut rest).expect("text");
        }
        self.notes.read_to_string(&mut notes).expect("text");
        assert!(self.child.wait().expect("it was started").success(), "{notes}");
        (rest, notes)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
