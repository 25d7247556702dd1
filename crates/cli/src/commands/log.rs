//! `log`: the packets that rules log to NFLOG groups, as they come.

mod record;

pub(crate) use record::flags;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nfguard_netlink::{Expr, LogTo, Nflog, NflogEvent, Nft, ParsedPacket, Table};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

use crate::args::LogRequest;
use crate::output::failure::Failure;
use crate::output::{self, SCHEMA};
use crate::{Answer, Done};
use nfguard_control::history::History;
use nfguard_control::scanners::Keeper;
use nfguard_control::table::ours;
use record::{Interfaces, Record};

/// How a policy comes to be read from.
const HOW: &str = "have it say \"log\": { \"to\": { \"group\": 5 }, \"rate\": \"unlimited\", \
                   \"unmatched\": [\"in\", \"forward\"] }";

/// No more is read while so much waits to be written: then it waits in the kernel, which counts what
/// it has no room for.
const FULL: usize = 1 << 16;
/// As much as a pipe that takes anything takes without waiting (`PIPE_BUF`).
const PART: usize = 4096;
/// Milliseconds that whoever reads has to take the rest.
const GRACE: u16 = 1000;

pub(crate) fn log(request: &LogRequest, history: &History, as_json: bool) -> Done {
    let loaded = nfguard_netlink::own_table(&mut Nft::open()?, &ours())?.loaded;
    let rules = loaded.map(|loaded| logging_rules(&loaded.table)).unwrap_or_default();
    let told: BTreeSet<u16> = rules.iter().map(|(group, _)| *group).collect();
    let mut groups: BTreeSet<u16> = request.group.iter().copied().collect();
    if groups.is_empty() && told.is_empty() {
        return Err(Failure::Usage(format!("the loaded policy logs to no group: {HOW}")));
    }
    for group in groups.difference(&told) {
        output::warning(&format!("the loaded policy does not log to group {group}: {HOW}"));
    }
    if groups.is_empty() {
        groups = told;
    }
    if rules.iter().any(|(group, is_limited)| *is_limited && groups.contains(group)) {
        output::warning("not every packet is logged: the policy has a \"rate\" for it");
    }
    let keeper = request.keep.then(|| Keeper::open(history)).transpose()?;
    let signals = signals().map_err(failed)?;
    let nflog = Nflog::open(groups.iter().copied())?;
    let names: Vec<String> = groups.iter().map(u16::to_string).collect();
    output::warning(&format!("reading NFLOG group {}", names.join(", ")));
    let mut reader = Reader {
        signals,
        nflog,
        keeper,
        as_json,
        interfaces: Interfaces::default(),
        left: request.count,
        packets: 0,
        lost: 0,
        overrun: false,
        pending: Vec::new(),
    };
    let ended = reader.run();
    if let Some(keeper) = reader.keeper {
        keeper.close();
    }
    ended.map(|()| Answer::Yes)
}

/// What ends it, from now on something to be read.
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

/// The group of each rule that logs to one, and whether it logs no more than so many packets.
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
    keeper: Option<Keeper>,
    as_json: bool,
    interfaces: Interfaces,
    /// How many packets are still wanted; `None` for all.
    left: Option<u64>,
    packets: u64,
    lost: u64,
    /// Packets were lost that no number has told of yet.
    overrun: bool,
    /// What is to be written.
    pending: Vec<u8>,
}

impl Reader {
    /// Until it has printed all that is wanted, is told to end, or nobody reads what it prints. It
    /// waits for all of that at once and for nothing alone, so that it can always be ended.
    fn run(&mut self) -> Result<(), Failure> {
        loop {
            self.hear()?;
            let ends = self.left == Some(0);
            let [signal, closed, free] = if ends { [true, false, false] } else { self.wait()? };
            if let Some(keeper) = &mut self.keeper
                && keeper.is_due_in() == Some(Duration::ZERO)
            {
                keeper.write();
            }
            if signal {
                self.hear()?;
                self.say_the_end();
                return self.write_the_rest();
            }
            if closed || free && !self.write()? {
                self.say_the_end();
                return Ok(());
            }
        }
    }

    /// What has come, as far as there is room.
    fn hear(&mut self) -> Result<(), Failure> {
        while self.wants_more() {
            let Some(news) = self.nflog.hear()? else { break };
            news.into_iter().for_each(|news| self.take(news));
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        self.pending.len() < FULL && self.left != Some(0)
    }

    /// Whether it is told to end, nobody reads any more, and more can be written.
    fn wait(&self) -> Result<[bool; 3], Failure> {
        let stdout = io::stdout();
        let when = |flag, is_wanted| if is_wanted { flag } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), when(PollFlags::POLLOUT, !self.pending.is_empty())),
            PollFd::new(self.nflog.as_fd(), when(PollFlags::POLLIN, self.wants_more())),
        ];
        let due = self.keeper.as_ref().and_then(Keeper::is_due_in);
        // Rounded up, so that it is due then.
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
                if let (Some(keeper), Some(packet)) = (&mut self.keeper, &packet)
                    && record.is_unwanted()
                {
                    keeper.add(packet, record.time);
                }
                if self.as_json {
                    // Neither a vector nor such a record can fail.
                    let _ = serde_json::to_writer(&mut self.pending, &record);
                    self.pending.push(b'\n');
                } else {
                    self.say(&record);
                }
            }
            NflogEvent::Lost(packets) => {
                self.lost += u64::from(packets);
                self.overrun = false;
                if self.as_json {
                    let lost = json!({ "schema": SCHEMA, "event": "lost", "packets": packets });
                    self.say(&lost);
                } else {
                    self.say(&format_args!("{packets} packets were lost here"));
                }
            }
            NflogEvent::Overrun => {
                // Once: the numbers follow.
                if !self.overrun && self.lost == 0 {
                    output::warning("packets are being lost: they come faster than they are read");
                }
                self.overrun = true;
            }
        }
    }

    fn say(&mut self, line: &dyn std::fmt::Display) {
        // A vector takes all.
        let _ = writeln!(self.pending, "{line}");
    }

    /// How many were read and how many were not: as a record, or where it is not in the way.
    fn say_the_end(&mut self) {
        let Reader { packets, lost, overrun, .. } = *self;
        if self.as_json {
            self.say(&json!({
                "schema": SCHEMA, "event": "end", "packets": packets, "lost": lost, "lost_more": overrun,
            }));
        }
        let more = if overrun { " and more after the last one" } else { "" };
        output::warning(&format!("{packets} packets, {lost} lost{more}"));
    }

    /// As much as can be written without waiting; `false` if nobody reads it.
    fn write(&mut self) -> Result<bool, Failure> {
        let part = &self.pending[..self.pending.len().min(PART)];
        match nix::unistd::write(io::stdout(), part) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(Errno::EPIPE) => return Ok(false),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(true)
    }

    fn write_the_rest(&mut self) -> Result<(), Failure> {
        let stdout = io::stdout();
        while !self.pending.is_empty() {
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
            let is_free = poll(&mut fds, GRACE).map_err(failed)? > 0;
            if !is_free || !self.write()? {
                break;
            }
        }
        Ok(())
    }
}
