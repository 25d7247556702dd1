//! Requests of clients, and their answers.

use std::slice;
use std::time::Instant;

use nfguard_api::codec;
use nfguard_api::message::{Did, ErrorCode, Request, Response};
use nfguard_ban::BanCounts;

use super::ban_input::{CheckedBan, Refusal, judge, parse_key};
use super::batch::{Batch, Defaults};
use super::client::Right;
use super::firewall::{Firewall, LeaseError};

/// What becomes of a request.
pub(super) enum Answer {
    Response(Response),
    /// The answer comes once the batch is carried out.
    Batch(Batch),
    /// The client is told of events from now on.
    Subscribe,
}

/// The client that asks, among the others.
pub(super) struct Caller {
    pub(super) id: u64,
    pub(super) clients: usize,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer::Response(response)
    }
}

/// Reads a request that a client with this right may make.
pub(super) fn read(line: &[u8], right: Right) -> Result<Request, Refusal> {
    let request: Request = codec::decode(line).map_err(Refusal::bad_input)?;
    if right < needed(&request) {
        let message = "this user may not do this".to_owned();
        return Err(Refusal { code: ErrorCode::NotAllowed, message });
    }
    Ok(request)
}

/// Whether it takes a millisecond or more to carry out a request.
pub(super) fn takes_long(request: &Request) -> bool {
    matches!(
        request,
        Request::Bans { .. }
            | Request::BanAll { .. }
            | Request::Replace { .. }
            | Request::UnbanAll { .. }
    )
}

/// Carries out a request.
pub(super) fn carry_out(
    firewall: &mut Firewall,
    request: Request,
    caller: &Caller,
    now: Instant,
) -> Answer {
    answer(firewall, request, caller, now)
        .unwrap_or_else(|Refusal { code, message }| Response::refused(code, message).into())
}

fn needed(request: &Request) -> Right {
    match request {
        Request::Status {} | Request::Bans { .. } | Request::Subscribe {} => Right::Read,
        Request::Ban(_)
        | Request::BanAll { .. }
        | Request::Replace { .. }
        | Request::Unban(_)
        | Request::UnbanAll { .. } => Right::Write,
        Request::Acquire {} | Request::Release { .. } => Right::Load,
    }
}

fn answer(
    firewall: &mut Firewall,
    request: Request,
    caller: &Caller,
    now: Instant,
) -> Result<Answer, Refusal> {
    if let Request::Ban(_) | Request::BanAll { .. } | Request::Replace { .. } = &request {
        firewall.see_logins(now)?;
    }
    let response = match request {
        Request::Status {} => {
            Response { status: Some(firewall.status(caller.clients, now)), ..Response::done() }
        }
        Request::Bans { source, after } => {
            let (bans, next) = firewall.page(source.as_deref(), after.as_deref(), now);
            Response { bans: Some(bans), next, ..Response::done() }
        }
        Request::Subscribe {} => return Ok(Answer::Subscribe),
        Request::Ban(ban) => {
            judge(slice::from_ref(&ban), firewall.never_ban())?;
            let ban = CheckedBan::check(ban, firewall.never_ban())?;
            Response::did(did(firewall.ban(&ban)?))
        }
        Request::Unban(key) => {
            let is_ended = firewall.unban(&parse_key(key)?)?;
            firewall.write_down();
            Response::did(if is_ended { Did::Ended } else { Did::Absent })
        }
        Request::BanAll { bans, source, duration, until, reason, force } => {
            judge(if force { &[] } else { &bans }, firewall.never_ban())?;
            let defaults = Defaults { source, duration, until, reason };
            return Batch::ban(bans, defaults).map(Answer::Batch);
        }
        Request::Replace { source, bans, duration, until, reason, force } => {
            judge(if force { &[] } else { &bans }, firewall.never_ban())?;
            let defaults = Defaults { source: None, duration, until, reason };
            return Batch::replace(source, bans, defaults).map(Answer::Batch);
        }
        Request::UnbanAll { unbans, source } => {
            return Batch::unban(unbans, source).map(Answer::Batch);
        }
        Request::Acquire {} => lease(firewall.acquire(caller.id, now)),
        Request::Release { tables } => lease(firewall.release(caller.id, &tables)),
    };
    Ok(response.into())
}

/// What became of one ban.
fn did(counts: BanCounts) -> Did {
    match counts {
        BanCounts { added: 1.., .. } => Did::Added,
        BanCounts { extended: 1.., .. } => Did::Extended,
        BanCounts { .. } => Did::Kept,
    }
}

fn lease(outcome: Result<(), LeaseError>) -> Response {
    match outcome {
        Ok(()) => Response::done(),
        Err(LeaseError::Taken) => {
            Response::refused(ErrorCode::Busy, "another client is changing the policy")
        }
        Err(LeaseError::NotHeld) => {
            Response::refused(ErrorCode::NoLease, "this client does not hold the lease")
        }
        Err(LeaseError::TableChanged) => Response::refused(
            ErrorCode::TableChanged,
            "another program changed the table meanwhile; put it in again",
        ),
        Err(LeaseError::Kernel(error)) => Response::refused(ErrorCode::Kernel, error),
    }
}
