//! Sets whose elements come and go: how many there are, and which.

use crate::error::Error;
use crate::model::{Element, LiveElement, Set};
use crate::nft::{Nft, fault};
use crate::wire::channel::MAX_REQUESTS_PER_SEND;
use crate::wire::element::{self, RawElements};
use crate::wire::message::{Request, nft};
use crate::wire::uapi::*;

/// `NFTA_SET_COUNT`, which Linux 6.12 does not have yet and 6.18 has.
const NFTA_SET_COUNT: u16 = 20;

/// A set of so many elements may still be growing when it is read.
const LARGE: usize = 5_000;
const LARGE_READS: usize = 10;

impl Nft {
    /// One element of a set without intervals, by its key; `None` if it is not there. Costs the
    /// same however large the set is.
    ///
    /// # Errors
    /// Any but [`Error::Refused`]. A table or set that is absent has no element.
    pub fn element(
        &mut self,
        table: &str,
        set: &str,
        key: &[u8],
    ) -> Result<Option<LiveElement>, Error> {
        let mut raw = RawElements::default();
        let request = Request::nft(NFT_MSG_GETSETELEM, false, |out| {
            element::encode_keys(out, table, set, &[key]);
        });
        self.ask(request, nft(NFT_MSG_NEWSETELEM), |attrs| Ok(raw.add(attrs)?))?;
        Ok(raw.live().pop())
    }

    /// As [`Nft::element`], of many keys: what is found of each, in their order. Takes about half
    /// the time (measured, Linux 6.18: 1.2 µs each, not 2.1).
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn find(
        &mut self,
        table: &str,
        set: &str,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<LiveElement>>, Error> {
        let mut found = Vec::with_capacity(keys.len());
        for part in keys.chunks(MAX_REQUESTS_PER_SEND) {
            let requests = part.iter().map(|key| {
                Request::nft(NFT_MSG_GETSETELEM, false, |out| {
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
                found.push(answer.ok_or(Error::Unknown)?);
            }
        }
        Ok(found)
    }

    /// What the kernel holds in this set of the table, sorted; nothing if there is no such set.
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn elements(&mut self, table: &str, set: &Set) -> Result<Vec<Element>, Error> {
        let mut raw = RawElements::default();
        let of_set = [(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, &set.name)];
        self.read(NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM, true, &of_set, |attrs| {
            Ok(raw.add(attrs)?)
        })?;
        Ok(raw.finish(set))
    }

    /// How many elements a set without intervals has; none if it is not there. The kernel counts
    /// those that have just expired too, until it clears them away. One that does not tell (6.12
    /// does not, 6.18 does) is asked for all of them, see [`Nft::live_elements`].
    ///
    /// # Errors
    /// As [`Nft::element`].
    pub fn count(&mut self, table: &str, set: &str) -> Result<u64, Error> {
        match self.told_count(table, set)? {
            (_, Some(count)) => Ok(count),
            (false, None) => Ok(0),
            (true, None) => {
                Ok(u64::try_from(self.live_elements(table, set)?.len()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Whether the set is there, and how many elements it has if the kernel tells.
    fn told_count(&mut self, table: &str, set: &str) -> Result<(bool, Option<u64>), Error> {
        let (mut count, mut is_there) = (None, false);
        let names = [(NFTA_SET_TABLE, table), (NFTA_SET_NAME, set)];
        self.read(NFT_MSG_GETSET, NFT_MSG_NEWSET, false, &names, |attrs| {
            is_there = true;
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NFTA_SET_COUNT {
                    count = Some(u64::from(attr.u32()?));
                }
            }
            Ok(())
        })?;
        Ok((is_there, count))
    }

    /// Every element of a set without intervals, sorted by key. The kernel's time for it grows with
    /// the square of their number: 100,000 take a third of a second, a million a minute (measured,
    /// Linux 6.18).
    ///
    /// While the hash table of a set still grows after a long list was added, a dump may leave
    /// elements out. So a large set is read again until the number is the kernel's own or two reads
    /// agree.
    ///
    /// # Errors
    /// As [`Nft::element`]; [`Error::Interrupted`] if others kept changing the set.
    pub fn live_elements(&mut self, table: &str, set: &str) -> Result<Vec<LiveElement>, Error> {
        let mut last = None;
        for _ in 0..LARGE_READS {
            match self.dump_elements(table, set) {
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    if read.len() < LARGE
                        || last == Some(read.len())
                        || self.told_count(table, set)?.1 == u64::try_from(read.len()).ok()
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
        self.read(NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM, true, &of_set, |attrs| {
            Ok(raw.add(attrs)?)
        })?;
        Ok(raw.live())
    }
}
