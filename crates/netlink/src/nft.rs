//! The kernel's side of a conversation: read a table, commit a transaction.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::model::{Counter, Counts, Rule, Set, Table};
use crate::transaction::Transaction;
use crate::wire::attr::{Attrs, Writer};
use crate::wire::channel::Channel;
use crate::wire::message::{Request, errno, nft};
use crate::wire::object;
use crate::wire::uapi::*;

/// How often a read is tried when others change the ruleset meanwhile.
const READS: usize = 100;

/// nf_tables of one network namespace: the one that the socket was opened in.
pub struct Nft {
    pub(crate) channel: Channel,
}

/// One table of the ruleset at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The ruleset's generation when it was read.
    pub generation: u32,
    /// The table; `None` if there was none.
    pub loaded: Option<LoadedTable>,
}

/// A table as the kernel holds it.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// The table. Chains and sets stand in the order in which they were made.
    pub table: Table,
    /// What its counters have counted, by name.
    pub counts: BTreeMap<String, Counts>,
}

impl Nft {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no netlink.
    #[cfg(feature = "socket")]
    pub fn open() -> Result<Nft, Error> {
        Ok(Nft { channel: Channel::open(libc::NETLINK_NETFILTER)? })
    }

    /// Talks through this function, which sends one request and gives every byte of the answer.
    pub fn from_exchange(
        exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Nft {
        Nft { channel: Channel::from_exchange(exchange) }
    }

    /// The ruleset's generation: a number that each commit to any table of the namespace changes.
    /// What is read after this is of that generation or a later one.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if others kept changing the ruleset; any but [`Error::Refused`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        for _ in 0..READS {
            let generation = self.announced_generation()?;
            match self.settled(generation) {
                Err(Error::Interrupted) => {}
                settled => return settled.map(|()| generation),
            }
        }
        Err(Error::Interrupted)
    }

    /// Fails if the ruleset is, or is just about to be, of another generation.
    ///
    /// The kernel changes the number and the rules one after the other (which first depends on its
    /// version), so a number read in between says nothing. A batch waits for the commit that is
    /// under way; one without operations changes nothing.
    fn settled(&mut self, generation: u32) -> Result<(), Error> {
        self.channel.commit(&Transaction::default(), Some(generation))
    }

    fn announced_generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        self.read(NFT_MSG_GETGEN, NFT_MSG_NEWGEN, false, &[], |attrs| {
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NFTA_GEN_ID {
                    generation = Some(attr.u32()?);
                }
            }
            Ok(())
        })?;
        generation.ok_or(Error::Unknown)
    }

    /// The table of this name in the `inet` family, all of one generation. Elements of dynamic
    /// sets are not read: they are state, and reading many is slow.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if others kept changing the ruleset, [`Error::Decode`] if it holds
    /// something that nfguard does not know.
    pub fn table(&mut self, name: &str) -> Result<Snapshot, Error> {
        self.table_with(name, |set| !set.dynamic)
    }

    /// As [`Nft::table`], but elements of sets that may have timeouts are not read either.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn skeleton(&mut self, name: &str) -> Result<Snapshot, Error> {
        self.table_with(name, |set| !set.dynamic && set.timeout.is_none())
    }

    fn table_with(&mut self, name: &str, whole: fn(&Set) -> bool) -> Result<Snapshot, Error> {
        for _ in 0..READS {
            let generation = self.generation()?;
            let read = self.table_once(name, whole);
            if matches!(read, Err(Error::Interrupted)) {
                continue;
            }
            match self.settled(generation) {
                Err(Error::Interrupted) => {}
                settled => return settled.and(read).map(|loaded| Snapshot { generation, loaded }),
            }
        }
        Err(Error::Interrupted)
    }

    /// Name and comment of the table, whatever it holds; `None` if there is none.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn table_head(&mut self, name: &str) -> Result<Option<Table>, Error> {
        let mut table = None;
        self.read(
            NFT_MSG_GETTABLE,
            NFT_MSG_NEWTABLE,
            false,
            &[(NFTA_TABLE_NAME, name)],
            |attrs| {
                table = Some(object::decode_table(attrs)?);
                Ok(())
            },
        )?;
        Ok(table)
    }

    /// Does the transaction, whole or not at all. With a generation: only if the ruleset is still
    /// that one.
    ///
    /// # Errors
    /// [`Error::Refused`] with each operation that the kernel refused, [`Error::Interrupted`] if
    /// the generation is another; then nothing was changed. After [`Error::Unknown`] either holds.
    pub fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Option<u32>,
    ) -> Result<(), Error> {
        if transaction.is_empty() { Ok(()) } else { self.channel.commit(transaction, generation) }
    }

    fn table_once(
        &mut self,
        name: &str,
        whole: fn(&Set) -> bool,
    ) -> Result<Option<LoadedTable>, Error> {
        let Some(mut table) = self.table_head(name)? else { return Ok(None) };

        self.read(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, true, &[], |attrs| {
            // This dump has all tables of the family, and others' chains may be of any type.
            if first_string(attrs, NFTA_CHAIN_TABLE) == name {
                table.chains.push(object::decode_chain(attrs)?);
            }
            Ok(())
        })?;
        // Chain by chain: for each part of a dump the kernel walks to it from the dump's start.
        for chain in &mut table.chains {
            chain.rules = self.rules(name, &chain.name)?;
        }
        table.sets = self.sets(name)?;
        for set in table.sets.iter_mut().filter(|set| whole(set)) {
            set.elements = self.elements(name, set)?;
        }
        let mut counts = BTreeMap::new();
        for (counter, count) in self.counters(name)? {
            counts.insert(counter.name.clone(), count);
            table.counters.push(counter);
        }
        Ok(Some(LoadedTable { table, counts }))
    }

    /// The rules of a chain, in order; none if there is no such chain.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn rules(&mut self, table: &str, chain: &str) -> Result<Vec<Rule>, Error> {
        let mut rules = Vec::new();
        let of_chain = [(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)];
        self.read(NFT_MSG_GETRULE, NFT_MSG_NEWRULE, true, &of_chain, |attrs| {
            rules.push(object::decode_rule(attrs)?);
            Ok(())
        })?;
        Ok(rules)
    }

    /// The named counters of a table, and what they have counted.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn counters(&mut self, table: &str) -> Result<Vec<(Counter, Counts)>, Error> {
        let mut counters = Vec::new();
        let of_table = [(NFTA_OBJ_TABLE, table)];
        self.read(NFT_MSG_GETOBJ, NFT_MSG_NEWOBJ, true, &of_table, |attrs| {
            counters.push(object::decode_counter(attrs)?);
            Ok(())
        })?;
        Ok(counters)
    }

    /// The sets of a table, without their elements; none if there is no such table.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn sets(&mut self, table: &str) -> Result<Vec<Set>, Error> {
        let mut sets = Vec::new();
        let of_table = [(NFTA_SET_TABLE, table)];
        self.read(NFT_MSG_GETSET, NFT_MSG_NEWSET, true, &of_table, |attrs| {
            sets.extend(object::decode_set(attrs)?);
            Ok(())
        })?;
        Ok(sets)
    }

    /// As [`Nft::sets`], without those that nfguard has no words for.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn readable_sets(&mut self, table: &str) -> Result<Vec<Set>, Error> {
        let mut sets = Vec::new();
        let of_table = [(NFTA_SET_TABLE, table)];
        self.read(NFT_MSG_GETSET, NFT_MSG_NEWSET, true, &of_table, |attrs| {
            sets.extend(object::decode_set(attrs).ok().flatten());
            Ok(())
        })?;
        Ok(sets)
    }

    /// Asks, and hands the attributes of each answer of the wanted kind to `each`. Absence is an
    /// answer without any.
    pub(crate) fn read(
        &mut self,
        ask: u16,
        want: u16,
        dump: bool,
        names: &[(u16, &str)],
        each: impl FnMut(Attrs<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let fill = |out: &mut Writer| {
            for (kind, name) in names {
                out.string(*kind, name);
            }
        };
        self.ask(Request::nft(ask, dump, fill), nft(want), each)
    }

    /// Asks once, and hands the attributes of each answer of the wanted type to `each`.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        want: u16,
        mut each: impl FnMut(Attrs<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.channel.ask(request, |reply| {
            if reply.interrupted() {
                return Err(Error::Interrupted);
            }
            fault(reply.outcome()?.map_or(0, |outcome| outcome.errno))?;
            reply.attrs(want).map_or(Ok(()), &mut each)
        })
    }
}

/// What an answer's number means where absence is none.
pub(crate) fn fault(errno: i32) -> Result<(), Error> {
    match errno {
        0 | errno::ENOENT => Ok(()),
        errno::EINTR => Err(Error::Interrupted),
        errno::EPERM => Err(Error::Permission),
        errno::EINVAL | errno::EOPNOTSUPP => {
            Err(Error::NoNftables(std::io::Error::from_raw_os_error(errno)))
        }
        errno => Err(std::io::Error::from_raw_os_error(errno).into()),
    }
}

fn first_string(attrs: Attrs<'_>, kind: u16) -> String {
    attrs
        .filter_map(Result::ok)
        .find(|attr| attr.kind == kind)
        .map(|attr| attr.string())
        .unwrap_or_default()
}
