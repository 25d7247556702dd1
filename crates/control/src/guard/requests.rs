//! What is answered to each line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nfguard_ban::{Ban, BanOutcome, Target, scan};

use super::api::{Request, Response, Status, Time};
use super::client::Right;
use super::event_loop::Guard;
use super::metrics;
use crate::ban_text::{Who, parse_time};

/// How many lines of one client are answered before somebody else's turn.
const AT_ONCE: usize = 32;

impl Guard {
    /// Answers what this client has asked; `false` if it is to go.
    pub(super) fn answer(&mut self, at: usize, now: Instant) -> bool {
        for _ in 0..AT_ONCE {
            let Some(peer) = self.peers.get_mut(at) else { return false };
            peer.busy = true;
            if !peer.has_room() {
                return true;
            }
            if peer.right == Right::Scrape {
                let is_whole = peer.head().is_some();
                if is_whole {
                    let text = metrics::http(&self.scraped(now));
                    let Some(peer) = self.peers.get_mut(at) else { return false };
                    peer.say(text.as_bytes(), now);
                    peer.ends = true;
                    return true;
                }
                peer.busy = false;
                return !peer.is_too_long();
            }
            let (number, right) = (peer.number, peer.right);
            let response = match peer.line(now) {
                Ok(None) => {
                    peer.busy = false;
                    return true;
                }
                Ok(Some(line)) => self.respond(&line, number, right, now),
                Err(()) => {
                    peer.ends = true;
                    Response::error("the line is too long")
                }
            };
            self.numbers.latency.observe(now.elapsed().as_secs_f64());
            let Some(peer) = self.peers.get_mut(at) else { return false };
            let mut line = serde_json::to_vec(&response).unwrap_or_default();
            line.push(b'\n');
            peer.say(&line, now);
        }
        true
    }

    fn respond(&mut self, line: &[u8], client: u64, right: Right, now: Instant) -> Response {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return Response::error(error),
        };
        let needed = match request {
            Request::Status {} | Request::Bans { .. } | Request::Subscribe {} => Right::Read,
            Request::Ban { .. } | Request::Unban { .. } => Right::Write,
            Request::Borrow {} | Request::Return { .. } => Right::Load,
        };
        if right < needed {
            return Response::error("you may not do this");
        }
        match request {
            Request::Status {} => self.status(now),
            Request::Ban { target, lasts, port, source, reason } => {
                let source = source.as_deref().unwrap_or("api");
                let reason = reason.as_deref().unwrap_or_default();
                self.ban(&target, lasts.as_ref(), port.as_deref(), source, reason)
                    .unwrap_or_else(Response::error)
            }
            Request::Unban { target, port } => {
                self.unban(&target, port.as_deref()).unwrap_or_else(Response::error)
            }
            Request::Bans { source, after } => {
                let (mut bans, next) = self.memory.page(source.as_deref(), after.as_deref(), now);
                if next.is_none() && source.is_none_or(|source| source == scan::SOURCE) {
                    bans.extend(
                        self.bans.list_scans().unwrap_or_default().into_iter().map(Into::into),
                    );
                }
                Response { bans: Some(bans), next, ..Response::done() }
            }
            Request::Subscribe {} => {
                let peer = self.peers.iter_mut().find(|peer| peer.number == client);
                peer.into_iter().for_each(|peer| peer.subscribes = true);
                Response::done()
            }
            Request::Borrow {} if self.lent.is_some() => {
                Response::error("somebody else changes the policy")
            }
            Request::Borrow {} => {
                self.lent = Some((client, now));
                self.policy.lend();
                Response::done()
            }
            Request::Return { removed, as_is } if self.lent.is_some_and(|(to, _)| to == client) => {
                self.take_back(&removed, as_is).map_or_else(Response::done, Response::error)
            }
            Request::Return { .. } => Response::error("nothing was lent to you"),
        }
    }

    fn status(&mut self, now: Instant) -> Response {
        let bans_by_source = self.by_source(now);
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            policy: self.policy.kept(),
            file: self.policy.file(),
            repairs: self.numbers.repairs,
            restores: self.numbers.restores,
            loads: self.numbers.loads,
            bans: self.memory.count() + self.bans.count_scans().unwrap_or_default(),
            bans_by_source,
            clients: self.peers.len(),
        };
        Response { status: Some(status), ..Response::done() }
    }

    fn ban(
        &mut self,
        target: &str,
        lasts: Option<&Time>,
        port: Option<&str>,
        source: &str,
        reason: &str,
    ) -> Result<Response, String> {
        let who: Who = target.parse().map_err(|error| format!("{error}"))?;
        let admitted = who.admit(self.bans.never_ban(), Target::V6_SOURCE);
        let ban = Ban {
            target: admitted.map_err(|refused| refused.to_string())?,
            port: self::port(port)?,
            duration: lasts.map_or(Ok(None), how_long)?,
            source,
            reason,
            created_at: None,
        };
        let did = match self.bans.ban(&ban).map_err(|error| error.to_string())? {
            BanOutcome::Added => "added",
            BanOutcome::Extended => "extended",
            BanOutcome::Kept => "kept",
        };
        Ok(Response { did: Some(did), ..Response::done() })
    }

    fn unban(&mut self, target: &str, port: Option<&str>) -> Result<Response, String> {
        let who: Who = target.parse().map_err(|error| format!("{error}"))?;
        let port = self::port(port)?;
        let mut ended = false;
        for target in who.may_be_banned_as(Target::V6_SOURCE) {
            if port.is_none() {
                ended |= self.policy.unban(target).map_err(|error| error.to_string())?;
            }
            ended |= self.bans.unban(target, port).map_err(|error| error.to_string())?;
        }
        let did = if ended { "ended" } else { "absent" };
        Ok(Response { did: Some(did), ..Response::done() })
    }

    fn by_source(&mut self, now: Instant) -> BTreeMap<String, u64> {
        let mut all = self.memory.by_source(now).clone();
        if let Some(scans) = self.bans.count_scans().ok().filter(|scans| *scans > 0) {
            *all.entry(scan::SOURCE.to_owned()).or_default() += scans;
        }
        all
    }

    fn scraped(&mut self, now: Instant) -> String {
        let policy = self.policy.counters().unwrap_or_default();
        let bans = self.memory.counters(nfguard_ban::TABLE).unwrap_or_default();
        let counters = [(nfguard_policy::TABLE, policy), (nfguard_ban::TABLE, bans)];
        let sources = self.by_source(now);
        let (clients, is_kept) = (self.peers.len(), self.policy.is_kept());
        self.numbers.text(&counters, &sources, clients, is_kept)
    }
}

fn port(text: Option<&str>) -> Result<Option<nfguard_ban::Port>, String> {
    text.map(str::parse).transpose().map_err(|error: nfguard_ban::InvalidPort| error.to_string())
}

fn how_long(time: &Time) -> Result<Option<Duration>, String> {
    match time {
        Time::Text(text) => parse_time(text),
        Time::Seconds(seconds) if *seconds < 0.0 => Ok(None),
        Time::Seconds(seconds) => {
            Duration::try_from_secs_f64(*seconds).map(Some).map_err(|error| error.to_string())
        }
    }
}
