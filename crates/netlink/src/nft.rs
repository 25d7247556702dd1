//! nf_tables of the kernel: read a table, commit a transaction.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::model::{Counter, Counts, Rule, Set, Table};
use crate::transaction::Transaction;
use crate::wire::attr::{Attrs, Writer};
use crate::wire::channel::Channel;
use crate::wire::message::{Request, errno, nft};
use crate::wire::object::{self, NamedObject};
use crate::wire::uapi::*;

/// Number of reads while others change the ruleset.
const MAX_READS: usize = 100;

/// nf_tables of one network namespace.
///
/// Reading needs `CAP_NET_ADMIN` in that namespace, as every change does.
pub struct Nft {
    pub(crate) channel: Channel,
}

/// One table of one generation of the ruleset.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// The ruleset's generation at the time of the read.
    pub generation: u32,
    /// The table; `None` if it is absent.
    pub loaded: Option<LoadedTable>,
}

/// A table as the kernel holds it.
#[derive(Clone, Debug)]
pub struct LoadedTable {
    /// The table. Chains and sets stand in the order of their creation.
    pub table: Table,
    /// The numbers of its counters, by name.
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

    /// Talks to the kernel, or to a test, through a function. The function sends one request and
    /// returns all bytes of the answer.
    pub fn from_exchange(
        exchange: impl FnMut(&[u8]) -> Result<Vec<u8>, Error> + Send + 'static,
    ) -> Nft {
        Nft { channel: Channel::from_exchange(exchange) }
    }

    /// Returns the ruleset's generation: a number that each commit to any table of the namespace
    /// changes. Later reads return that generation or a later one.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if others kept changing the ruleset; any but [`Error::Refused`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        for _ in 0..MAX_READS {
            let generation = self.reported_generation()?;
            match self.check_generation(generation) {
                Err(Error::Interrupted) => {}
                checked => return checked.map(|()| generation),
            }
        }
        Err(Error::Interrupted)
    }

    /// Fails if the ruleset has another generation, or a commit is under way.
    ///
    /// The kernel changes the number and the rules one after the other, in an order that depends on
    /// its version. So a number alone proves nothing. A batch waits for the commit that is under
    /// way, and an empty batch changes nothing.
    fn check_generation(&mut self, generation: u32) -> Result<(), Error> {
        self.channel.commit(&Transaction::default(), Some(generation))
    }

    fn reported_generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        self.read_one(NFT_MSG_GETGEN, NFT_MSG_NEWGEN, &[], |attrs| {
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NFTA_GEN_ID {
                    generation = Some(attr.u32()?);
                }
            }
            Ok(())
        })?;
        generation.ok_or(Error::AnswerLost)
    }

    /// Reads the table of this name in the `inet` family. All parts are of one generation. The
    /// elements of dynamic sets are left out: they are state, and reading many is slow.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if others kept changing the ruleset, [`Error::Decode`] if it holds
    /// something that nfguard does not know.
    pub fn table(&mut self, name: &str) -> Result<TableSnapshot, Error> {
        self.table_with(name, |set| !set.dynamic)
    }

    /// Reads the table as [`Nft::table`] does, without the elements of sets that have timeouts.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn table_without_timed_elements(&mut self, name: &str) -> Result<TableSnapshot, Error> {
        self.table_with(name, |set| !set.dynamic && set.timeout.is_none())
    }

    fn table_with(&mut self, name: &str, whole: fn(&Set) -> bool) -> Result<TableSnapshot, Error> {
        for _ in 0..MAX_READS {
            let generation = self.generation()?;
            let read = self.table_once(name, whole);
            if matches!(read, Err(Error::Interrupted)) {
                continue;
            }
            match self.check_generation(generation) {
                Err(Error::Interrupted) => {}
                checked => {
                    return checked.and(read).map(|loaded| TableSnapshot { generation, loaded });
                }
            }
        }
        Err(Error::Interrupted)
    }

    /// Reads name, comment and flags of the table, whatever it holds; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn table_head(&mut self, name: &str) -> Result<Option<Table>, Error> {
        let mut table = None;
        self.read_one(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, &[(NFTA_TABLE_NAME, name)], |attrs| {
            table = Some(object::decode_table(attrs)?);
            Ok(())
        })?;
        Ok(table)
    }

    /// Returns the number that the kernel gave a table when it was made; `None` if there is no such
    /// table. One that is made again has another number.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn table_handle(&mut self, name: &str) -> Result<Option<u64>, Error> {
        let mut handle = None;
        self.read_one(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, &[(NFTA_TABLE_NAME, name)], |attrs| {
            for attr in attrs {
                let attr = attr?;
                if attr.kind == NFTA_TABLE_HANDLE {
                    handle = Some(attr.u64()?);
                }
            }
            Ok(())
        })?;
        Ok(handle)
    }

    /// Commits the transaction, whole or not at all. With a generation: only if the ruleset still
    /// has that generation. An empty transaction sends nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with each operation that the kernel refused. [`Error::Interrupted`] if
    /// the ruleset has another generation. Both leave the ruleset as it was. After
    /// [`Error::AnswerLost`] the transaction may be committed or not.
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

        self.read_all(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, &[], |attrs| {
            // The dump has the chains of all tables, and those of others may be of any type.
            if attrs.first_string(NFTA_CHAIN_TABLE) == name {
                table.chains.push(object::decode_chain(attrs)?);
            }
            Ok(())
        })?;
        // Chain by chain: the kernel walks from a dump's start to each of its parts.
        for chain in &mut table.chains {
            chain.rules = self.rules(name, &chain.name)?;
        }
        table.sets = self.sets(name)?;
        for set in table.sets.iter_mut().filter(|set| whole(set)) {
            set.elements = self.elements(name, set)?;
        }
        let mut counts = BTreeMap::new();
        for object in self.objects(name)? {
            match object {
                NamedObject::Counter(counter, count) => {
                    counts.insert(counter.name.clone(), count);
                    table.counters.push(counter);
                }
                NamedObject::Helper(helper) => table.helpers.push(helper),
            }
        }
        Ok(Some(LoadedTable { table, counts }))
    }

    /// Returns the rules of a chain in their order; none if the chain is absent.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn rules(&mut self, table: &str, chain: &str) -> Result<Vec<Rule>, Error> {
        let mut rules = Vec::new();
        let of_chain = [(NFTA_RULE_TABLE, table), (NFTA_RULE_CHAIN, chain)];
        self.read_all(NFT_MSG_GETRULE, NFT_MSG_NEWRULE, &of_chain, |attrs| {
            rules.push(object::decode_rule(attrs)?);
            Ok(())
        })?;
        Ok(rules)
    }

    /// Returns the named counters of a table with their numbers.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn counters(&mut self, table: &str) -> Result<Vec<(Counter, Counts)>, Error> {
        let counter = |object| match object {
            NamedObject::Counter(counter, counts) => Some((counter, counts)),
            NamedObject::Helper(_) => None,
        };
        Ok(self.objects(table)?.into_iter().filter_map(counter).collect())
    }

    fn objects(&mut self, table: &str) -> Result<Vec<NamedObject>, Error> {
        let mut objects = Vec::new();
        let of_table = [(NFTA_OBJ_TABLE, table)];
        self.read_all(NFT_MSG_GETOBJ, NFT_MSG_NEWOBJ, &of_table, |attrs| {
            objects.push(object::decode_object(attrs)?);
            Ok(())
        })?;
        Ok(objects)
    }

    /// Returns the sets of a table without their elements; none if the table is absent.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn sets(&mut self, table: &str) -> Result<Vec<Set>, Error> {
        let mut sets = Vec::new();
        let of_table = [(NFTA_SET_TABLE, table)];
        self.read_all(NFT_MSG_GETSET, NFT_MSG_NEWSET, &of_table, |attrs| {
            sets.extend(object::decode_set(attrs)?);
            Ok(())
        })?;
        Ok(sets)
    }

    /// Returns the sets of a table that this crate has a model of, without their elements.
    ///
    /// # Errors
    /// As [`Nft::table`].
    pub fn readable_sets(&mut self, table: &str) -> Result<Vec<Set>, Error> {
        let mut sets = Vec::new();
        let of_table = [(NFTA_SET_TABLE, table)];
        self.read_all(NFT_MSG_GETSET, NFT_MSG_NEWSET, &of_table, |attrs| {
            sets.extend(object::decode_set(attrs).ok().flatten());
            Ok(())
        })?;
        Ok(sets)
    }

    /// Asks for one object, and hands its attributes to `each`; for none if it is absent.
    pub(crate) fn read_one(
        &mut self,
        ask: u16,
        want: u16,
        names: &[(u16, &str)],
        each: impl FnMut(Attrs<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.ask(Request::nft(ask, |out| write_names(out, names)), nft(want), each)
    }

    /// Asks for all objects of a kind, and hands the attributes of each to `each`.
    pub(crate) fn read_all(
        &mut self,
        ask: u16,
        want: u16,
        names: &[(u16, &str)],
        each: impl FnMut(Attrs<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.ask(Request::nft_dump(ask, |out| write_names(out, names)), nft(want), each)
    }

    /// Sends a request, and hands the attributes of each answer of the type `want` to `each`.
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

fn write_names(out: &mut Writer, names: &[(u16, &str)]) {
    for (kind, name) in names {
        out.string(*kind, name);
    }
}

/// Returns the error of an answer's number. Absence is no error.
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
