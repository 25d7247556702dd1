//! Questions for a route. The kernel answers each as if a packet asked.

use std::net::IpAddr;

use super::{RTMSG_BYTES, Rtnetlink, gateway_of, split};
use crate::error::{DecodeError, Error};
use crate::ip_version::{IpVersion, address_from_bytes};
use crate::wire::attr::{Attrs, Writer};
use crate::wire::message::Request;
use crate::wire::uapi::*;

/// Number of questions in one send. Their answers fit a receive buffer of the usual size.
const QUESTIONS_PER_SEND: usize = 50;

/// The packet that asks for its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuestion {
    /// The packet's destination.
    pub destination: IpAddr,
    /// The packet's source, of the same IP version; `None` for any. Of a packet that this host sends,
    /// it is an address of this host.
    pub source: Option<IpAddr>,
    /// The index of the interface that the packet comes in by; `None` for a packet that this host
    /// sends.
    pub in_interface: Option<u32>,
}

impl RouteQuestion {
    /// Asks for the route of a packet that this host sends.
    #[must_use]
    pub fn to(destination: IpAddr) -> RouteQuestion {
        RouteQuestion { destination, source: None, in_interface: None }
    }
}

/// The route that a packet takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteAnswer {
    /// The type of the route, see [`fib_type`](crate::fib_type).
    pub kind: u8,
    /// The index of the interface that the packet leaves by.
    pub interface: Option<u32>,
    /// The gateway; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that this host would use.
    pub source: Option<IpAddr>,
}

impl Rtnetlink {
    /// Asks for the route of each packet, with all routing rules and tables. An answer is `None` if
    /// the kernel forwards or sends no such packet. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::AnswerLost`] if an answer is missing; [`Error::Decode`], or the socket's.
    pub fn look_up(
        &mut self,
        questions: &[RouteQuestion],
    ) -> Result<Vec<Option<RouteAnswer>>, Error> {
        let mut all = Vec::with_capacity(questions.len());
        for some in questions.chunks(QUESTIONS_PER_SEND) {
            let mut answers: Vec<Option<Option<RouteAnswer>>> = vec![None; some.len()];
            self.channel.ask_each(some.iter().map(question), |index, reply| {
                let Some(answer) = answers.get_mut(index) else { return Ok(()) };
                *answer = match split(&reply, RTM_NEWROUTE, RTMSG_BYTES)? {
                    Some((head, attrs)) => Some(Some(RouteAnswer::decode(head, attrs)?)),
                    None => reply.outcome()?.map(|_| None),
                };
                Ok(())
            })?;
            for answer in answers {
                all.push(answer.ok_or(Error::AnswerLost)?);
            }
        }
        Ok(all)
    }
}

fn question(question: &RouteQuestion) -> Request {
    let version = IpVersion::of(question.destination);
    let (bits, mut body) = (version.address_bits(), Writer::default());
    body.raw(&[0; RTMSG_BYTES - 4]);
    let mut address = |kind, address| match address {
        IpAddr::V4(address) => body.bytes(kind, &address.octets()),
        IpAddr::V6(address) => body.bytes(kind, &address.octets()),
    };
    address(RTA_DST, question.destination);
    if let Some(source) = question.source {
        address(RTA_SRC, source);
    }
    if let Some(index) = question.in_interface {
        body.bytes(RTA_IIF, &index.to_ne_bytes());
    }
    let source_bits = if question.source.is_some() { bits } else { 0 };
    Request::one(RTM_GETROUTE, [version.family(), bits, source_bits, 0], body)
}

impl RouteAnswer {
    fn decode(head: &[u8], attrs: Attrs<'_>) -> Result<RouteAnswer, DecodeError> {
        let kind = head.get(7).copied().unwrap_or_default();
        let mut answer = RouteAnswer { kind, ..RouteAnswer::default() };
        for attr in attrs {
            let attr = attr?;
            match attr.kind {
                RTA_OIF => answer.interface = Some(attr.u32_native()?),
                RTA_PREFSRC => answer.source = address_from_bytes(attr.value),
                _ => answer.gateway = answer.gateway.or(gateway_of(&attr)),
            }
        }
        Ok(answer)
    }
}
