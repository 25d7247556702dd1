//! Elements of sets: count them, look some up, list them all.

use crate::error::Error;
#[cfg(feature = "socket")]
use crate::model::Key;
use crate::model::{Element, LiveElement, Set};
use crate::nft::{Nft, fault};
use crate::wire::channel::MAX_REQUESTS_PER_SEND;
use crate::wire::element::{self, RawElements};
use crate::wire::message::{Request, nft};
#[cfg(feature = "socket")]
use crate::wire::reply::Replies;
use crate::wire::uapi::*;

/// `NFTA_SET_COUNT`, which Linux 6.12 does not have yet and 6.18 has.
const NFTA_SET_COUNT: u16 = 20;

/// Number of elements from which on a set's hash table may still grow while it is read.
const LARGE_SET_ELEMENTS: usize = 5_000;
/// Number of reads of such a set.
const MAX_LARGE_READS: usize = 10;

impl Nft {
    /// Returns the element of this key of a set without intervals; `None` if it is absent. The cost
    /// does not depend on the size of the set (measured, Linux 6.18: 5 µs).
    ///
    /// # Errors
    /// Any but [`Error::Refused`]. An absent table or set has no element.
    pub fn element(
        &mut self,
        table: &str,
        set: &str,
        key: &[u8],
    ) -> Result<Option<LiveElement>, Error> {
        let mut raw = RawElements::default();
        let request = Request::nft(NFT_MSG_GETSETELEM, |out| {
            element::encode_keys(out, table, set, &[key]);
        });
        self.ask(request, nft(NFT_MSG_NEWSETELEM), |attrs| Ok(raw.add(attrs)?))?;
        Ok(raw.live().pop())
    }

    /// Returns the element of each key, in the order of the keys, as [`Nft::element`] does. Takes
    /// about half the time per key (measured, Linux 6.18: 1.2 µs, not 2.1).
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn find_elements(
        &mut self,
        table: &str,
        set: &str,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<LiveElement>>, Error> {
        let mut found = Vec::with_capacity(keys.len());
        for part in keys.chunks(MAX_REQUESTS_PER_SEND) {
            let requests = part.iter().map(|key| {
                Request::nft(NFT_MSG_GETSETELEM, |out| {
                    element::encode_keys(out, table, set, std::slice::from_ref(key));
                })
            });
            let mut answers = vec![None; part.len()];
            self.channel.ask_each(requests, |number, reply| {
                let mut raw = RawElements::default();
                if let Some(outcome) = reply.outcome()? {
                    fault(outcome.errno)?;
                } else if let Some(attrs) = reply.attrs(nft(NFT_MSG_NEWSETELEM)) {
                    raw.add(attrs)?;
                }
                if let Some(answer) = answers.get_mut(number) {
                    *answer = Some(raw.live().pop());
                }
                Ok(())
            })?;
            for answer in answers {
                found.push(answer.ok_or(Error::AnswerLost)?);
            }
        }
        Ok(found)
    }

    /// Returns the elements of a set, sorted by key; none if the set is absent. The elements of an
    /// interval set are ranges.
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<Element>, Error> {
        let mut raw = RawElements::default();
        let of_set = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, &set.name)];
        self.read_all(
            NFT_MSG_GETSETELEM,
            NFT_MSG_NEWSETELEM,
            &of_set,
            |attrs| Ok(raw.add(attrs)?),
        )?;
        Ok(raw.finish(set))
    }

    /// Returns the number of elements of a set without intervals; 0 if the set is absent. The kernel
    /// counts expired elements too, until it removes them. A kernel that reports no number (6.12
    /// does not, 6.18 does) is asked for all elements, see [`Nft::live_elements`].
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn count(&mut self, table: &str, set: &str) -> Result<u64, Error> {
        match self.kernel_count(table, set)? {
            (_, Some(count)) => Ok(count),
            (false, None) => Ok(0),
            (true, None) => {
                Ok(u64::try_from(self.live_elements(table, set)?.len()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Returns the number of elements of a set without intervals as the kernel reports it: `None` if it
    /// reports none, or the set is absent.
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn reported_count(&mut self, table: &str, set: &str) -> Result<Option<u64>, Error> {
        Ok(self.kernel_count(table, set)?.1)
    }

    /// Returns whether the set exists, and the number of its elements if the kernel reports it.
    fn kernel_count(&mut self, table: &str, set: &str) -> Result<(bool, Option<u64>), Error> {
        let (mut count, mut exists) = (None, false);
        let names = [(NFTA_SET_TABLE, table), (NFTA_SET_NAME, set)];
        self.read_one(NFT_MSG_GETSET, NFT_MSG_NEWSET, &names, |attrs| {
            exists = true;
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NFTA_SET_COUNT {
                    count = Some(u64::from(attr.u32()?));
                }
            }
            Ok(())
        })?;
        Ok((exists, count))
    }

    /// Returns all elements of a set without intervals, sorted by key. The kernel's time grows with
    /// the square of their number: 100,000 take a third of a second, a million a minute (measured,
    /// Linux 6.18).
    ///
    /// After a long list was added the set's hash table grows for a while, and a dump may leave
    /// elements out. So a large set is read until the number is the kernel's own, or two reads
    /// agree.
    ///
    /// # Errors
    /// As [`Nft::element`]; [`Error::Interrupted`] if others kept changing the set.
    pub fn live_elements(&mut self, table: &str, set: &str) -> Result<Vec<LiveElement>, Error> {
        let mut last = None;
        for _ in 0..MAX_LARGE_READS {
            match self.dump_elements(table, set) {
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    if read.len() < LARGE_SET_ELEMENTS
                        || last == Some(read.len())
                        || self.kernel_count(table, set)?.1 == u64::try_from(read.len()).ok()
                    {
                        return Ok(read);
                    }
                    last = Some(read.len());
                }
            }
        }
        Err(Error::Interrupted)
    }

    fn dump_elements(&mut self, table: &str, set: &str) -> Result<Vec<LiveElement>, Error> {
        let of_set = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, set)];
        let mut raw = RawElements::default();
        self.read_all(
            NFT_MSG_GETSETELEM,
            NFT_MSG_NEWSETELEM,
            &of_set,
            |attrs| Ok(raw.add(attrs)?),
        )?;
        Ok(raw.live())
    }
}

/// A list of a set's keys that is read part by part, over a socket of its own. The kernel's time for a
/// part grows with the place of the part in the set: a millisecond for each 30,000 elements before it
/// (measured, Linux 6.18).
///
/// While the set changes, the list may leave keys out, or have some that are gone: look each up.
#[cfg(feature = "socket")]
pub struct KeyDump {
    socket: crate::socket::Socket,
    is_over: bool,
}

#[cfg(feature = "socket")]
impl KeyDump {
    /// Begins to list the keys of a set.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Permission`].
    pub fn open(table: &str, set: &str) -> Result<KeyDump, Error> {
        let mut socket = crate::socket::Socket::open(libc::NETLINK_NETFILTER)?;
        let request = Request::nft_dump(NFT_MSG_GETSETELEM, |out| {
            out.string(NFTA_SET_ELEM_LIST_TABLE, table);
            out.string(NFTA_SET_ELEM_LIST_SET, set);
        });
        let mut bytes = Vec::new();
        request.write(1, &mut bytes)?;
        socket.send(&bytes)?;
        Ok(KeyDump { socket, is_over: false })
    }

    /// Returns the next keys, some hundred at once; `None` if there are no more.
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn next_part(&mut self) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let part = match self.socket.receive_messages() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(Error::AnswerLost);
            }
            part => part?,
        };
        let mut raw = RawElements::default();
        for reply in Replies(part) {
            let reply = reply?;
            fault(reply.outcome()?.map_or(0, |outcome| outcome.errno))?;
            self.is_over |= reply.ends();
            if let Some(attrs) = reply.attrs(nft(NFT_MSG_NEWSETELEM)) {
                raw.add(attrs)?;
            }
        }
        let keys = raw.live().into_iter().filter_map(|live| match live.element.key {
            Key::Value(key) => Some(key),
            Key::Range(..) => None,
        });
        Ok(Some(keys.collect()))
    }
}
