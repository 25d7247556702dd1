//! The one loop: first the kernel's events and the timers, then the clients.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::Instant;

use nfguard_api::codec::{self, MAX_LINE};
use nfguard_api::message::{ErrorCode, Response};
use nfguard_netlink::{RulesetEvent, RulesetMonitor};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::client::{Client, ConnectionKind, Right};
use super::denied_call;
use super::firewall::Firewall;
use super::listener::Listener;
use super::metrics;
use super::requests::{self, Answer, Caller};
use crate::Error;

/// Longest wait for an event, in milliseconds.
const POLL_TIMEOUT_MS: u16 = 1000;
/// Most clients, and most clients that may not change the policy.
const MAX_CLIENTS: usize = 2000;
const MAX_UNPRIVILEGED_CLIENTS: usize = 1500;
/// Most connections that are accepted before the turn of others.
const ACCEPTS_PER_TURN: usize = 64;
/// Most requests of one client that are answered before the turn of others.
const REQUESTS_PER_TURN: usize = 32;
/// Most bytes of unfinished long lines, of all clients together.
const MAX_BUFFERED_INPUT: usize = 64 * 1024 * 1024;
/// Most long lists that are carried out at once. Each takes some megabytes.
const MAX_BATCHES: usize = 8;

pub(super) struct EventLoop {
    firewall: Firewall,
    monitor: RulesetMonitor,
    clients: Vec<Client>,
    last_client_id: u64,
}

/// What can be done without waiting.
struct Ready {
    has_kernel_events: bool,
    /// For each listener, whether a client connects.
    listeners: Vec<bool>,
    clients: Vec<PollFlags>,
}

impl EventLoop {
    pub(super) fn new(firewall: Firewall, monitor: RulesetMonitor) -> EventLoop {
        EventLoop { firewall, monitor, clients: Vec::new(), last_client_id: 0 }
    }

    /// Runs until the process is ended from outside. The tables stay.
    pub(super) fn run(mut self, listeners: &[Listener]) -> Result<(), Error> {
        self.firewall.log_start();
        loop {
            for call in denied_call::take_new() {
                log::warn!(call; "the sandbox denied a system call");
            }
            let ready = self.wait(listeners).map_err(|error| Error::Guard(error.to_string()))?;
            if ready.has_kernel_events {
                self.handle_events();
            }
            self.run_timers();
            self.publish();
            for (at, flags) in ready.clients.into_iter().enumerate() {
                self.serve_client(at, flags);
                self.publish();
            }
            self.drop_closed();
            self.publish();
            for (listener, connects) in listeners.iter().zip(ready.listeners) {
                if connects {
                    self.accept(listener);
                }
            }
        }
    }

    fn wait(&self, listeners: &[Listener]) -> io::Result<Ready> {
        let mut all = vec![PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN)];
        all.extend(listeners.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        all.extend(self.clients.iter().map(|it| PollFd::new(it.as_fd(), it.poll_flags())));
        let has_work = self.clients.iter().any(Client::has_work);
        match poll(&mut all, if has_work { 0 } else { POLL_TIMEOUT_MS }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut flags = all.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let has_kernel_events = flags.next().is_some_and(|flags| !flags.is_empty());
        let connects = flags.by_ref().take(listeners.len()).map(|flags| !flags.is_empty());
        let listeners = connects.collect();
        Ok(Ready { has_kernel_events, listeners, clients: flags.collect() })
    }

    /// Reads the kernel's events and repairs what has to be.
    fn handle_events(&mut self) {
        let received_at = Instant::now();
        let events = self.monitor.recv().unwrap_or_else(|error| {
            log::warn!("an event of the kernel cannot be read: {error}");
            vec![RulesetEvent::Lost]
        });
        self.firewall.handle_events(events, received_at);
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        self.firewall.check_lease(now);
        if self.firewall.is_verify_due(now) {
            // What an event tells already is not to be found once more.
            self.handle_events();
            self.firewall.verify(now);
        }
        if self.firewall.is_never_ban_due(now) {
            self.firewall.refresh_never_ban(now);
        }
        let has_subscribers = self.clients.iter().any(Client::is_subscribed);
        self.firewall.watch_scans(has_subscribers, now);
        self.firewall.write_down();
    }

    /// Sends what happened to all subscribers.
    fn publish(&mut self) {
        let events = self.firewall.take_events();
        if events.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut subscribers: Vec<&mut Client> =
            self.clients.iter_mut().filter(|client| client.is_subscribed()).collect();
        for event in events {
            let Ok(line) = codec::encode(&event) else { continue };
            subscribers.iter_mut().for_each(|client| client.queue_event(&line, now));
        }
    }

    fn accept(&mut self, listener: &Listener) {
        for _ in 0..ACCEPTS_PER_TURN {
            match listener.accept() {
                Ok(None) => {}
                Ok(Some((connection, kind))) => {
                    self.last_client_id += 1;
                    let client = Client::new(self.last_client_id, kind, connection, Instant::now());
                    if self.has_room_for(&client) {
                        self.clients.push(client);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return log::warn!("a connection cannot be accepted: {error}"),
            }
        }
    }

    fn has_room_for(&self, client: &Client) -> bool {
        let unprivileged = || self.clients.iter().filter(|it| !it.is_privileged()).count();
        self.clients.len() < MAX_CLIENTS
            && (client.is_privileged() || unprivileged() < MAX_UNPRIVILEGED_CLIENTS)
    }

    /// Reads from one client, answers it, and sends to it.
    fn serve_client(&mut self, at: usize, flags: PollFlags) {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.is_stalled(now) {
            return client.close();
        }
        let is_hung_up = flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        if is_hung_up {
            client.hang_up();
        }
        if is_hung_up || flags.contains(PollFlags::POLLIN) {
            client.receive(now);
            self.limit_input(at, now);
        }
        self.answer(at, now);
        let Some(client) = self.clients.get_mut(at) else { return };
        client.send(now);
        client.close_if_done();
    }

    /// Closes a client whose long line finds no room beside those of others.
    fn limit_input(&mut self, at: usize, now: Instant) {
        let unread = |client: &Client| client.unread_input();
        if self.clients.get(at).is_none_or(|client| unread(client) <= MAX_LINE) {
            return;
        }
        if self.clients.iter().map(unread).sum::<usize>() > MAX_BUFFERED_INPUT {
            let busy = Response::refused(ErrorCode::Busy, "too many long lines at once; try again");
            self.queue(at, &busy, now);
            self.clients.get_mut(at).into_iter().for_each(Client::close_when_sent);
        }
    }

    /// Answers what a client has asked, as far as its turn goes.
    fn answer(&mut self, at: usize, now: Instant) {
        match self.clients.get(at).map(|client| client.kind) {
            Some(ConnectionKind::Api(right)) => self.answer_requests(at, right, now),
            Some(ConnectionKind::Metrics) => self.answer_http(at, now),
            None => {}
        }
    }

    fn answer_requests(&mut self, at: usize, right: Right, now: Instant) {
        for _ in 0..REQUESTS_PER_TURN {
            let clients = self.clients.len();
            let Some(client) = self.clients.get_mut(at).filter(|client| client.has_work()) else {
                return;
            };
            let id = client.id;
            if let Some(batch) = &mut client.batch {
                // One part in each turn, so that a long list keeps no other client waiting.
                if let Some(response) = batch.run_part(&mut self.firewall) {
                    client.batch = None;
                    self.queue(at, &response, now);
                }
                return;
            }
            let line = match client.next_line(now) {
                Ok(None) => return,
                Ok(Some(line)) => line,
                Err(error) => {
                    client.close_when_sent();
                    return self.queue(at, &Response::refused(ErrorCode::TooLong, error), now);
                }
            };
            let start = Instant::now();
            let caller = Caller { id, right, clients };
            let answer = requests::carry_out(&mut self.firewall, &line, &caller, start);
            self.firewall.metrics.answer_seconds.observe(start.elapsed().as_secs_f64());
            match answer {
                Answer::Response(response) => self.queue(at, &response, now),
                Answer::Batch(batch) => {
                    let batches = self.clients.iter().filter(|it| it.batch.is_some()).count();
                    if batches >= MAX_BATCHES {
                        let busy = "too many long lists at once; try again";
                        self.queue(at, &Response::refused(ErrorCode::Busy, busy), now);
                    } else if let Some(client) = self.clients.get_mut(at) {
                        client.batch = Some(batch);
                    }
                    return;
                }
                Answer::Subscribe => {
                    // What the kernel bans from now on is new to this client.
                    self.firewall.watch_scans(true, now);
                    self.clients.get_mut(at).into_iter().for_each(Client::subscribe);
                    self.queue(at, &Response::done(), now);
                }
            }
        }
    }

    fn answer_http(&mut self, at: usize, now: Instant) {
        let clients = self.clients.len();
        let Some(client) = self.clients.get_mut(at).filter(|it| it.accepts_requests()) else {
            return;
        };
        match client.has_http_request() {
            Ok(false) => {}
            Ok(true) => {
                let text = self.firewall.metrics_text(clients, now);
                client.queue(metrics::http(&text).as_bytes(), now);
                client.close_when_sent();
            }
            Err(_) => client.close(),
        }
    }

    fn queue(&mut self, at: usize, response: &Response, now: Instant) {
        let line = codec::encode(response).unwrap_or_default();
        self.clients.get_mut(at).into_iter().for_each(|client| client.queue(&line, now));
    }

    /// Forgets closed clients. The lease of one that is gone ends.
    fn drop_closed(&mut self) {
        let firewall = &mut self.firewall;
        self.clients.retain(|client| {
            if client.is_closed() {
                firewall.end_lease_of(client.id);
            }
            !client.is_closed()
        });
    }
}
