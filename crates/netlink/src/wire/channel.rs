//! A conversation with the kernel: one request, and the messages of its answer.

use crate::error::Error;
use crate::transaction::Transaction;
use crate::wire::batch::Batch;
use crate::wire::message::Request;
use crate::wire::reply::{Replies, Reply};

/// Number of requests in one send. Their answers fit the receive buffer, which holds about 250.
pub(crate) const MAX_REQUESTS_PER_SEND: usize = 100;

/// Sends a request and hands the answer over part by part. A part holds whole messages.
type Exchange = Box<dyn FnMut(&[u8], &mut dyn FnMut(&[u8])) -> Result<(), Error> + Send>;

/// A netlink socket, or a function in its place.
pub(crate) struct Channel {
    exchange: Exchange,
    seq: u32,
}

impl Channel {
    /// Opens a socket in the network namespace of this thread. `protocol` is the subsystem
    /// (`NETLINK_*`).
    #[cfg(feature = "socket")]
    pub(crate) fn open(protocol: i32) -> Result<Channel, Error> {
        let mut socket = crate::socket::Socket::open(protocol)?;
        let exchange =
            move |request: &[u8], part: &mut dyn FnMut(&[u8])| socket.exchange(request, part);
        Ok(Channel { exchange: Box::new(exchange), seq: 0 })
    }

    /// Talks through a function that returns all bytes of the answer.
    pub(crate) fn from_exchange(
        mut exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Channel {
        let exchange = move |request: &[u8], part: &mut dyn FnMut(&[u8])| {
            part(&exchange(request)?);
            Ok(())
        };
        Channel { exchange: Box::new(exchange), seq: 0 }
    }

    /// Sends a request and hands each message of its answer to `each`.
    ///
    /// Fails with [`Error::AnswerLost`] if the answer has no end. After an error of `each` the rest of
    /// the answer is received and not read.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        mut each: impl FnMut(Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.seq = self.seq.wrapping_add(1);
        let (seq, is_dump) = (self.seq, request.is_dump());
        let mut bytes = Vec::new();
        request.write(seq, &mut bytes)?;
        let (mut has_end, mut outcome) = (false, Ok(()));
        (self.exchange)(&bytes, &mut |part| {
            if outcome.is_ok() {
                outcome = read_part(part, |reply| {
                    if reply.seq != seq {
                        return Ok(());
                    }
                    has_end = !is_dump || reply.ends();
                    each(reply)
                });
            }
        })?;
        outcome?;
        if has_end { Ok(()) } else { Err(Error::AnswerLost) }
    }

    /// Sends all requests at once, none of them for a dump, and hands each message of the answer
    /// to `each` with the index of its request.
    pub(crate) fn ask_each(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
        mut each: impl FnMut(usize, Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let first = self.seq.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut count = 0;
        for request in requests {
            self.seq = self.seq.wrapping_add(1);
            request.write(self.seq, &mut bytes)?;
            count += 1;
        }
        let mut outcome = Ok(());
        (self.exchange)(&bytes, &mut |part| {
            if outcome.is_ok() {
                outcome = read_part(part, |reply| {
                    let index = usize::try_from(reply.seq.wrapping_sub(first));
                    match index.ok().filter(|index| *index < count) {
                        Some(index) => each(index, reply),
                        None => Ok(()),
                    }
                });
            }
        })?;
        outcome
    }

    /// Sends a transaction as one batch. With a generation, the kernel commits it only if the
    /// ruleset is still of that generation.
    pub(crate) fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Option<u32>,
    ) -> Result<(), Error> {
        let batch = Batch::encode(transaction, generation, self.seq.wrapping_add(1))?;
        self.seq = self.seq.wrapping_add(batch.messages()).wrapping_add(2);
        let mut answer = Vec::new();
        (self.exchange)(&batch.bytes, &mut |part| answer.extend_from_slice(part))?;
        batch.judge(&answer)
    }
}

fn read_part(
    part: &[u8],
    mut each: impl FnMut(Reply<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    Replies(part).try_for_each(|reply| each(reply?))
}
