//! The one loop: first the kernel's events and the timers, then the clients.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nfguard_api::codec;
use nfguard_api::local_socket::peer_credentials;
use nfguard_api::message::{ErrorCode, Response};
use nfguard_netlink::{RulesetEvent, RulesetMonitor};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::ban_input::Refusal;
use super::client::{Client, ConnectionKind, Right};
use super::denied_call;
use super::firewall::Firewall;
use super::listener::Listener;
use super::metrics;
use super::repeated_warning::RepeatedWarning;
use super::requests::{self, Answer, Caller};
use crate::Error;

/// Longest wait for an event, in milliseconds.
const POLL_TIMEOUT_MS: u16 = 1000;
/// Longest time that clients are served between two looks at the kernel's events. The request that is
/// under way is answered.
const TURN: Duration = Duration::from_millis(5);
/// Time for reading bans before clients are served.
const START_TIME: Duration = Duration::from_millis(300);
/// Most connections that are accepted before the turn of others.
const ACCEPTS_PER_TURN: usize = 64;
/// Most requests of one client that are answered before the turn of others.
const REQUESTS_PER_TURN: usize = 8;
/// Most long lists that are carried out at once. Each takes some megabytes.
const MAX_BATCHES: usize = 8;
/// Open files besides those of clients.
const OWN_FILES: usize = 64;
/// No connection is accepted for this time if the process or the machine has no room for it.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// There is room again if there was for this time.
const ROOM_RETENTION: Duration = Duration::from_secs(60);

pub(super) struct EventLoop {
    firewall: Firewall,
    monitor: RulesetMonitor,
    clients: Vec<Client>,
    last_client_id: u64,
    turn: u64,
    /// Most open files.
    max_files: usize,
    /// When a connection found no room last.
    no_room_at: Option<Instant>,
    accept_warning: RepeatedWarning,
}

/// What can be done without waiting.
struct Ready {
    has_kernel_events: bool,
    /// For each listener, whether a client connects.
    listeners: Vec<bool>,
    clients: Vec<PollFlags>,
}

impl EventLoop {
    pub(super) fn new(firewall: Firewall, monitor: RulesetMonitor, max_files: u64) -> EventLoop {
        EventLoop {
            firewall,
            monitor,
            clients: Vec::new(),
            last_client_id: 0,
            turn: 0,
            max_files: usize::try_from(max_files).unwrap_or(usize::MAX),
            no_room_at: None,
            accept_warning: RepeatedWarning::default(),
        }
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
            self.serve_clients(&ready.clients);
            self.drop_closed();
            self.publish();
            for (listener, connects) in listeners.iter().zip(ready.listeners) {
                if connects {
                    self.accept(listener);
                }
            }
        }
    }

    /// Reads the bans before clients are served, if that takes no longer than a moment.
    pub(super) fn read_bans(&mut self) {
        let start = Instant::now();
        while !self.firewall.is_complete() && start.elapsed() < START_TIME {
            self.handle_events();
            self.firewall.read_part();
        }
    }

    fn wait(&self, listeners: &[Listener]) -> io::Result<Ready> {
        let is_paused = self.no_room_at.is_some_and(|at| at.elapsed() < ACCEPT_PAUSE);
        let accepts = if is_paused { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut all = vec![PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN)];
        all.extend(listeners.iter().map(|it| PollFd::new(it.as_fd(), accepts)));
        all.extend(self.clients.iter().map(|it| PollFd::new(it.as_fd(), it.poll_flags())));
        let may_queue = ConnectionKind::ALL.map(|kind| self.may_queue(kind));
        let can_work =
            |it: &Client| it.has_work() && may_queue.get(it.kind.index()).is_some_and(|may| *may);
        let has_work = self.clients.iter().any(can_work);
        let longest = Duration::from_millis(POLL_TIMEOUT_MS.into());
        let idle = match self.firewall.next_work() {
            _ if has_work => Duration::ZERO,
            Some(at) => at.saturating_duration_since(Instant::now()).min(longest),
            None => longest,
        };
        let idle = u16::try_from(idle.as_micros().div_ceil(1000)).unwrap_or(POLL_TIMEOUT_MS);
        match poll(&mut all, idle) {
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
        if self.clients.iter().any(Client::is_subscribed) {
            self.firewall.watch_scans(now);
        }
        self.firewall.work(now);
        self.firewall.write_down();
    }

    /// Sends what happened to all subscribers.
    fn publish(&mut self) {
        let events = self.firewall.take_events();
        if events.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut queued = ConnectionKind::ALL.map(|kind| self.queued(kind));
        let mut subscribers: Vec<&mut Client> =
            self.clients.iter_mut().filter(|client| client.is_subscribed()).collect();
        for event in events {
            let Ok(line) = codec::encode(&event) else { continue };
            for client in &mut subscribers {
                let Some(queued) = queued.get_mut(client.kind.index()) else { continue };
                let before = client.unsent();
                client.queue_event(&line, now);
                *queued = queued.saturating_sub(before) + client.unsent();
                if *queued > client.kind.quota().output_bytes {
                    client.close();
                }
            }
        }
    }

    fn accept(&mut self, listener: &Listener) {
        for _ in 0..ACCEPTS_PER_TURN {
            match listener.accept() {
                Ok(None) => {}
                Ok(Some((connection, kind))) => self.admit(connection, kind),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.no_room_at.is_some_and(|at| at.elapsed() > ROOM_RETENTION) {
                        self.no_room_at = None;
                        self.warn_of_accept(Ok(()));
                    }
                    return;
                }
                Err(error) => {
                    let errno = error.raw_os_error().map(Errno::from_raw);
                    if let Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) =
                        errno
                    {
                        self.no_room_at = Some(Instant::now());
                        return self.warn_of_accept(Err(error));
                    }
                    // The other end has gone meanwhile.
                }
            }
        }
    }

    fn warn_of_accept(&mut self, outcome: io::Result<()>) {
        self.accept_warning.log("connections cannot be accepted for now", outcome);
    }

    /// Takes a client, or says that there is no room for one more of its kind or of its user.
    fn admit(&mut self, connection: OwnedFd, kind: ConnectionKind) {
        let now = Instant::now();
        let user = peer_credentials(&connection).ok().map(|peer| peer.user);
        self.last_client_id += 1;
        let mut client = Client::new(self.last_client_id, kind, user, connection, now);
        if self.has_room_for(&client) {
            return self.clients.push(client);
        }
        if kind == ConnectionKind::Metrics {
            // Each takes one answer, and the oldest has had its time.
            let all = self.clients.iter_mut().filter(|it| it.kind == kind && !it.is_closed());
            all.min_by_key(|it| it.connected_at()).into_iter().for_each(Client::close);
            return self.clients.push(client);
        }
        let busy = Response::refused(ErrorCode::Busy, "too many connections; try again");
        client.queue(&codec::encode(&busy).unwrap_or_default(), now);
        client.send(now);
    }

    fn has_room_for(&self, client: &Client) -> bool {
        let all: usize = ConnectionKind::ALL.map(|kind| kind.quota().connections).iter().sum();
        let files = self.max_files.saturating_sub(OWN_FILES).min(all);
        let quota = client.kind.quota();
        let connections = (quota.connections * files / all).max(1);
        let of_kind = self.clients.iter().filter(|it| it.kind == client.kind && !it.is_closed());
        let of_user = of_kind.clone().filter(|it| it.user.is_some() && it.user == client.user);
        of_kind.count() < connections && of_user.count() < quota.of_one_user
    }

    /// Returns the bytes that wait to be sent over all connections of a kind.
    fn queued(&self, kind: ConnectionKind) -> usize {
        self.clients.iter().filter(|it| it.kind == kind).map(Client::unsent).sum()
    }

    /// Whether there is room for one more answer to clients of a kind.
    fn may_queue(&self, kind: ConnectionKind) -> bool {
        self.queued(kind) < kind.quota().output_bytes
    }

    /// Serves clients as long as the turn lasts, and at least one of each kind. Who is not served goes
    /// first in the next turn.
    fn serve_clients(&mut self, ready: &[PollFlags]) {
        let start = Instant::now();
        self.turn += 1;
        let mut order: Vec<_> = self.clients.iter().zip(ready).enumerate().collect();
        order.retain(|(_, (client, flags))| {
            !flags.is_empty() || client.has_work() || client.is_stalled(start)
        });
        order.sort_by_key(|(_, (client, _))| client.precedence());
        let order: Vec<_> = order
            .into_iter()
            .map(|(at, (client, flags))| {
                let (kind, is_long, _) = client.precedence();
                (at, *flags, (kind, is_long))
            })
            .collect();
        let mut last = None;
        for (at, flags, kind) in order {
            if start.elapsed() >= TURN && last == Some(kind) {
                continue;
            }
            last = Some(kind);
            self.serve_client(at, flags, start + TURN);
            self.publish();
        }
    }

    /// Reads from one client, answers it, and sends to it.
    fn serve_client(&mut self, at: usize, flags: PollFlags, deadline: Instant) {
        let (now, turn) = (Instant::now(), self.turn);
        let Some(client) = self.clients.get_mut(at) else { return };
        client.served_in = turn;
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
        self.answer(at, now, deadline);
        let Some(client) = self.clients.get_mut(at) else { return };
        client.send(now);
        client.close_if_done();
    }

    /// Closes a client whose input finds no room beside that of others of its kind.
    fn limit_input(&mut self, at: usize, now: Instant) {
        let Some(kind) = self.clients.get(at).map(|client| client.kind) else { return };
        let all = self.clients.iter().filter(|it| it.kind == kind);
        if all.map(Client::unread_input).sum::<usize>() > kind.quota().input_bytes {
            let busy = Response::refused(ErrorCode::Busy, "too many long lines at once; try again");
            self.queue(at, &busy, now);
            self.clients.get_mut(at).into_iter().for_each(Client::close_when_sent);
        }
    }

    /// Answers what a client has asked, as far as its turn goes.
    fn answer(&mut self, at: usize, now: Instant, deadline: Instant) {
        match self.clients.get(at).map(|client| client.kind) {
            Some(kind) if !self.may_queue(kind) => {}
            Some(ConnectionKind::Api(right)) => self.answer_requests(at, right, now, deadline),
            Some(ConnectionKind::Metrics) => self.answer_http(at, now),
            None => {}
        }
    }

    fn answer_requests(&mut self, at: usize, right: Right, now: Instant, deadline: Instant) {
        for done in 0..REQUESTS_PER_TURN {
            let clients = self.clients.len();
            let Some(client) = self.clients.get_mut(at).filter(|client| client.has_work()) else {
                return;
            };
            if done > 0 && Instant::now() >= deadline {
                return;
            }
            let id = client.id;
            if let Some(batch) = &mut client.batch {
                // One part in each turn, so that a long list keeps no other client waiting.
                if let Some(response) = batch.run_part(&mut self.firewall) {
                    client.batch = None;
                    self.queue(at, &response, now);
                }
                return;
            }
            let start = Instant::now();
            let request = match client.request.take() {
                Some(request) => request,
                None => match client.next_line(now) {
                    Ok(None) => return,
                    Ok(Some(line)) => match requests::read(&line, right) {
                        // Others go first, and to read a long line took time already.
                        Ok(request) if requests::takes_long(&request) => {
                            return client.request = Some(request);
                        }
                        Ok(request) => request,
                        Err(Refusal { code, message }) => {
                            self.queue(at, &Response::refused(code, message), now);
                            continue;
                        }
                    },
                    Err(error) => {
                        client.close_when_sent();
                        return self.queue(at, &Response::refused(ErrorCode::TooLong, error), now);
                    }
                },
            };
            let caller = Caller { id, clients };
            let answer = requests::carry_out(&mut self.firewall, request, &caller, start);
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
                    self.firewall.see_scans(now);
                    self.publish();
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
