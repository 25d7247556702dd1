//! A blocking client of the guard.

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::local_socket::{Connection, LocalAddress};
use crate::message::{
    BanKey, BatchCounts, Did, ErrorCode, Event, ListedBan, NewBan, RefusedEntry, Release, Request,
    Response, Status,
};

/// Time that the guard has for each answer, unless set otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to a guard.
///
/// It blocks until the guard answers, or until the time limit of 60 seconds is over; see
/// [`GuardClient::set_time_limit`].
#[derive(Debug)]
pub struct GuardClient {
    connection: Connection,
}

/// A connection over which the guard sends events.
#[derive(Debug)]
pub struct Subscription {
    connection: Connection,
}

impl GuardClient {
    /// Connects to a guard at its socket, mostly `/run/nfguard/guard.sock`.
    ///
    /// # Errors
    /// [`Error::Io`] if no guard listens there or this user may not connect, [`Error::Untrusted`] if
    /// what listens there does not run as root or as this user.
    pub fn connect(path: impl AsRef<Path>) -> Result<GuardClient, Error> {
        let address = LocalAddress::File(path.as_ref().to_owned());
        Ok(GuardClient { connection: Connection::open(&address, REQUEST_TIMEOUT)? })
    }

    /// Connects to the guard of this network namespace, for root only. Returns `None` if there is
    /// no guard.
    ///
    /// # Errors
    /// As [`GuardClient::connect`].
    pub fn of_this_namespace() -> Result<Option<GuardClient>, Error> {
        match Connection::open(&LocalAddress::Guard, REQUEST_TIMEOUT) {
            Ok(connection) => Ok(Some(GuardClient { connection })),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes the time that the guard has for each answer; `None` waits without end.
    pub fn set_time_limit(&mut self, time_limit: Option<Duration>) {
        self.connection.set_time_limit(time_limit);
    }

    /// Sends a request and returns the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] if the guard refused it; else what is wrong with the connection. After
    /// [`Error::TimedOut`] an answer may still arrive, so the connection is of no more use.
    pub fn request(&mut self, request: &Request) -> Result<Response, Error> {
        let response: Response = self.connection.request(request)?;
        if response.ok {
            return Ok(response);
        }
        Err(Error::Refused {
            code: response.code.unwrap_or(ErrorCode::Unknown),
            message: response.error.unwrap_or_default(),
        })
    }

    /// Returns the state of the guard.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn status(&mut self) -> Result<Status, Error> {
        self.request(&Request::Status {})?.status.ok_or_else(incomplete)
    }

    /// Bans an address or a prefix.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn ban(&mut self, ban: NewBan) -> Result<Did, Error> {
        self.request(&Request::Ban(ban))?.did.ok_or_else(incomplete)
    }

    /// Bans many, at most [`MAX_BATCH`](crate::message::MAX_BATCH), and returns the entries that were
    /// refused.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn ban_all(
        &mut self,
        bans: Vec<NewBan>,
    ) -> Result<(BatchCounts, Vec<RefusedEntry>), Error> {
        let (source, duration, until, reason) = (None, None, None, None);
        self.batch(&Request::BanAll { bans, source, duration, until, reason, force: false })
    }

    /// Makes these the bans of one source, and returns the entries that were refused.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn replace(
        &mut self,
        source: &str,
        bans: Vec<NewBan>,
    ) -> Result<(BatchCounts, Vec<RefusedEntry>), Error> {
        let (source, duration, until, reason) = (source.to_owned(), None, None, None);
        self.batch(&Request::Replace { source, bans, duration, until, reason, force: false })
    }

    /// Ends a ban.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn unban(&mut self, ban: BanKey) -> Result<Did, Error> {
        self.request(&Request::Unban(ban))?.did.ok_or_else(incomplete)
    }

    /// Ends many bans, at most [`MAX_BATCH`](crate::message::MAX_BATCH), and returns the entries that
    /// were refused.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn unban_all(
        &mut self,
        unbans: Vec<BanKey>,
    ) -> Result<(BatchCounts, Vec<RefusedEntry>), Error> {
        self.batch(&Request::UnbanAll { unbans, source: None })
    }

    fn batch(&mut self, request: &Request) -> Result<(BatchCounts, Vec<RefusedEntry>), Error> {
        let Response { counts, refused, .. } = self.request(request)?;
        Ok((counts.ok_or_else(incomplete)?, refused))
    }

    /// Lists all bans in force, or those of one source, page by page.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn bans(&mut self, source: Option<&str>) -> Result<Vec<ListedBan>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let source = source.map(str::to_owned);
            let page = self.request(&Request::Bans { source, after })?;
            all.extend(page.bans.unwrap_or_default());
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Takes the lease of the policy's table, for root only. It ends with [`GuardClient::release`],
    /// with the connection, or after 60 seconds.
    ///
    /// # Errors
    /// [`ErrorCode::Busy`] if another client holds it; else as [`GuardClient::request`].
    pub fn acquire(&mut self) -> Result<(), Error> {
        self.request(&Request::Acquire {}).map(drop)
    }

    /// Gives the lease back, and waits until the guard guards the table again.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn release(&mut self, tables: Release) -> Result<(), Error> {
        self.request(&Request::Release { tables }).map(drop)
    }

    /// Asks for events.
    ///
    /// # Errors
    /// As [`GuardClient::request`].
    pub fn subscribe(mut self) -> Result<Subscription, Error> {
        self.request(&Request::Subscribe {})?;
        Ok(Subscription { connection: self.connection })
    }
}

impl Subscription {
    /// Waits for the next event, at most for this time if one is given.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if none came, [`Error::Closed`] if the guard has ended or this client
    /// read too slowly.
    pub fn next_event(&mut self, time_limit: Option<Duration>) -> Result<Event, Error> {
        self.connection.set_time_limit(time_limit);
        self.connection.receive()
    }
}

/// The answer lacks what it is for.
fn incomplete() -> Error {
    Error::Malformed(serde::de::Error::custom("the answer is incomplete"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// A client, and what a guard that gives these answers was asked.
    fn asked<T: Send>(
        answers: Vec<Response>,
        ask: impl FnOnce(GuardClient) -> T + Send,
    ) -> (T, Vec<Request>) {
        let (client, guard) = UnixStream::pair().expect("a pair");
        let limit = Some(Duration::from_secs(60));
        let client = GuardClient { connection: Connection::new(client, limit).expect("a client") };
        let mut guard = Connection::new(guard, limit).expect("a guard");
        thread::scope(|scope| {
            let asked = scope.spawn(|| ask(client));
            let mut requests = Vec::new();
            for answer in answers {
                requests.push(guard.receive().expect("a request"));
                guard.send(&answer).expect("sent");
            }
            guard.send(&Event::Unloaded {}).ok();
            drop(guard);
            (asked.join().expect("no panic"), requests)
        })
    }

    fn listed(target: &str) -> ListedBan {
        ListedBan {
            target: target.to_owned(),
            port: None,
            expires_in_seconds: None,
            source: "tool".to_owned(),
            reason: String::new(),
            created_at: None,
        }
    }

    #[test]
    fn a_list_of_pages_is_one_list() {
        let page = |target, next: Option<&str>| Response {
            bans: Some(vec![listed(target)]),
            next: next.map(str::to_owned),
            ..Response::done()
        };
        let answers = vec![page("192.0.2.1", Some("here")), page("192.0.2.2", None)];
        let (bans, requests) = asked(answers, |mut client| client.bans(Some("tool")));
        assert_eq!(bans.expect("answered"), [listed("192.0.2.1"), listed("192.0.2.2")]);
        let source = Some("tool".to_owned());
        let after = [None, Some("here".to_owned())];
        assert_eq!(requests, after.map(|after| Request::Bans { source: source.clone(), after }));
    }

    #[test]
    fn a_refusal_is_an_error_with_its_code_and_events_follow_a_subscription() {
        let refusal = Response::refused(ErrorCode::NeverBan, "it is the gateway");
        let (did, _) = asked(vec![refusal], |mut client| client.ban(NewBan::of("192.0.2.1")));
        let error = did.expect_err("refused");
        assert_eq!(error.code(), Some(ErrorCode::NeverBan));
        assert_eq!(error.to_string(), "it is the gateway");
        let (events, _) = asked(vec![Response::done()], |client| {
            let mut events = client.subscribe().expect("subscribed");
            let first = events.next_event(None).expect("an event");
            (first, events.next_event(None).map_err(|error| error.to_string()))
        });
        assert_eq!(events.0, Event::Unloaded {});
        assert!(events.1.is_err(), "the guard is gone");
    }
}
