//! `log`: prints the packets that rules log to NFLOG groups, as they arrive.

mod record;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nfguard_netlink::comment::one_line;
use nfguard_netlink::{Expr, LogTo, Nflog, NflogEvent, Nft, ParsedPacket, Table};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

use crate::args::LogRequest;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done, SCHEMA};

use nfguard_control::history::History;
use nfguard_control::scanners::Recorder;
use nfguard_control::table::ours;
use record::{Interfaces, Record};

/// How to make a policy log to a group.
const POLICY_HINT: &str = "set in the policy \"log\": { \"to\": { \"group\": 5 }, \"rate\": \"unlimited\", \
                   \"unmatched\": [\"in\", \"forward\"] }";

/// Bytes of pending output at which the program stops reading. Further packets wait in the kernel, and
/// the kernel counts those that it loses.
const MAX_PENDING_BYTES: usize = 1 << 16;
/// The most that a writable pipe takes without blocking (`PIPE_BUF`).
const PIPE_BUF: usize = 4096;
/// How long the reader of the output has for the rest, in milliseconds.
const LAST_WRITE_TIMEOUT_MS: u16 = 1000;

pub(crate) fn log(request: &LogRequest, history: &History, as_json: bool) -> Done {
    let loaded = nfguard_netlink::read_own_table(&mut Nft::open()?, &ours())?.loaded;
    let rules = loaded.map(|loaded| logging_rules(&loaded.table)).unwrap_or_default();
    let told: BTreeSet<u16> = rules.iter().map(|(group, _)| *group).collect();
    let mut groups: BTreeSet<u16> = request.group.iter().copied().collect();
    if groups.is_empty() && told.is_empty() {
        return Err(Failure::Usage(format!("the loaded policy logs to no group: {POLICY_HINT}")));
    }
    for group in groups.difference(&told) {
        output::warning(&format!("the loaded policy does not log to group {group}: {POLICY_HINT}"));
    }
    if groups.is_empty() {
        groups = told;
    }
    if rules.iter().any(|(group, is_limited)| *is_limited && groups.contains(group)) {
        output::warning("not every packet is logged: the policy limits the \"rate\"");
    }
    let recorder = request.keep.then(|| Recorder::open(history)).transpose()?;
    let signals = signals().map_err(failed)?;
    let nflog = Nflog::open(groups.iter().copied())?;
    let names: Vec<String> = groups.iter().map(u16::to_string).collect();
    output::warning(&format!("reading NFLOG group {}", names.join(", ")));
    let mut reader = Reader {
        signals,
        nflog,
        recorder,
        as_json,
        interfaces: Interfaces::default(),
        left: request.count,
        packets: 0,
        lost: 0,
        overrun: false,
        pending: Vec::new(),
    };
    let ended = reader.run();
    if let Some(recorder) = reader.recorder {
        recorder.close();
    }
    ended.map(|()| Answer::Yes)
}

/// Turns SIGINT and SIGTERM into something to poll.
fn signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}

fn failed(error: Errno) -> Failure {
    Failure::File("standard output".to_owned(), error.into())
}

/// Returns the group of each rule that logs to one, and whether the rule limits the rate.
fn logging_rules(table: &Table) -> Vec<(u16, bool)> {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    let group = |expr: &Expr| match expr {
        Expr::Log(log) => match log.to {
            LogTo::Group(group) => Some(group),
            LogTo::Kernel => None,
        },
        _ => None,
    };
    rules
        .filter_map(|rule| {
            let is_limited = rule.exprs.iter().any(|expr| matches!(expr, Expr::Limit(_)));
            Some((rule.exprs.iter().find_map(group)?, is_limited))
        })
        .collect()
}

struct Reader {
    signals: SignalFd,
    nflog: Nflog,
    recorder: Option<Recorder>,
    as_json: bool,
    interfaces: Interfaces,
    /// How many packets are still wanted; `None` for all.
    left: Option<u64>,
    packets: u64,
    lost: u64,
    /// Whether packets were lost that no event has counted yet.
    overrun: bool,
    /// Output that is not written yet.
    pending: Vec<u8>,
}

impl Reader {
    /// Runs until all wanted packets are printed, a signal arrives or the output is closed. One poll
    /// waits for all of them, so a signal always ends it.
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            self.receive()?;
            let ends = self.left == Some(0);
            let [signal, closed, free] = if ends { [true, false, false] } else { self.wait()? };
            if let Some(recorder) = &mut self.recorder
                && recorder.is_due_in() == Some(Duration::ZERO)
            {
                recorder.write();
            }
            if signal {
                self.receive()?;
                self.print_summary();
                return self.flush();
            }
            if closed || free && !self.write()? {
                self.print_summary();
                return Ok(());
            }
        }
    }

    /// Receives the packets that have arrived, as far as there is room.
    fn receive(&mut self) -> Result<(), Failure> {
        while self.wants_more() {
            let Some(news) = self.nflog.recv()? else { break };
            news.into_iter().for_each(|news| self.take(news));
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.pending.len() < MAX_PENDING_BYTES && self.left != Some(0)
    }

    /// Waits, and tells whether a signal arrived, the output is closed, and the output is writable.
    fn wait(&self) -> Result<[bool; 3], Failure> {
        let stdout = io::stdout();
        let when = |flag, is_wanted| if is_wanted { flag } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), when(PollFlags::POLLOUT, !self.pending.is_empty())),
            PollFd::new(self.nflog.as_fd(), when(PollFlags::POLLIN, self.wants_more())),
        ];
        let due = self.recorder.as_ref().and_then(Recorder::is_due_in);
        // Rounded up: then it is due.
        let timeout = due.map(|due| PollTimeout::try_from(due + Duration::from_millis(1)));
        match poll(&mut fds, timeout.and_then(Result::ok).unwrap_or(PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let [signal, out, _] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let closed = out.intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
        Ok([!signal.is_empty(), closed, out.contains(PollFlags::POLLOUT)])
    }

    fn take(&mut self, news: NflogEvent) {
        match news {
            NflogEvent::Packet(_) if self.left == Some(0) => {}
            NflogEvent::Packet(logged) => {
                self.packets += 1;
                self.left = self.left.map(|left| left - 1);
                let packet = ParsedPacket::read(&logged.packet);
                let record = Record::new(&logged, packet.as_ref(), &mut self.interfaces);
                if let (Some(recorder), Some(packet)) = (&mut self.recorder, &packet)
                    && record.is_unwanted()
                {
                    recorder.add(packet, record.time);
                }
                let line = if self.as_json {
                    // Such a record cannot fail.
                    serde_json::to_string(&record).unwrap_or_default()
                } else {
                    record.to_string()
                };
                self.push(&line);
            }
            NflogEvent::Lost(packets) => {
                self.lost += u64::from(packets);
                self.overrun = false;
                if self.as_json {
                    let lost = json!({ "schema": SCHEMA, "event": "lost", "packets": packets });
                    self.push(&lost.to_string());
                } else {
                    self.push(&format!("{packets} packets were lost here"));
                }
            }
            NflogEvent::Overrun => {
                // One warning: the counts follow.
                if !self.overrun && self.lost == 0 {
                    output::warning(
                        "packets are being lost: they arrive faster than nfguard reads them",
                    );
                }
                self.overrun = true;
            }
        }
    }

    fn push(&mut self, line: &str) {
        self.pending.extend_from_slice(one_line(line).as_bytes());
        self.pending.push(b'\n');
    }

    /// Prints how many packets were read and lost: to standard error, and with JSON as an event.
    fn print_summary(&mut self) {
        let Reader { packets, lost, overrun, .. } = *self;
        if self.as_json {
            let end = json!({
                "schema": SCHEMA, "event": "end", "packets": packets, "lost": lost, "more_lost": overrun,
            });
            self.push(&end.to_string());
        }
        let more = if overrun { " and more after the last one" } else { "" };
        output::warning(&format!("{packets} packets, {lost} lost{more}"));
    }

    /// Writes as much as possible without blocking; `false` if the output is closed.
    fn write(&mut self) -> Result<bool, Failure> {
        let part = &self.pending[..self.pending.len().min(PIPE_BUF)];
        match nix::unistd::write(io::stdout(), part) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(Errno::EPIPE) => return Ok(false),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(true)
    }

    /// Writes the rest, unless the reader of the output is too slow.
    fn flush(&mut self) -> Result<(), Failure> {
        let stdout = io::stdout();
        while !self.pending.is_empty() {
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
            let is_free = poll(&mut fds, LAST_WRITE_TIMEOUT_MS).map_err(failed)? > 0;
            if !is_free || !self.write()? {
                break;
            }
        }
        Ok(())
    }
}
