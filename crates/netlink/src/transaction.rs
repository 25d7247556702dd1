//! A transaction: what is to be done, as a value that prints itself as an nft script.

use std::fmt;

use crate::model::{Chain, Counter, Element, Rule, Set};
use crate::text;
use crate::wire::element::Elements;

/// How many characters of an operation an error quotes.
const QUOTED: usize = 500;

/// Operations on one table of the `inet` family, done by the kernel all together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The table.
    pub table: String,
    /// In the order in which they are to be done.
    pub ops: Vec<Op>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes the table if it is absent. If it is there it stays as it is, comment included.
    AddTable {
        /// At most 127 bytes.
        comment: Option<String>,
        /// Wakes it up if it is dormant. Fails if a table that is there has other flags, as one has
        /// that a process owns or owned.
        awake: bool,
    },
    /// Makes the table, or takes over one that outlived its owner, so that nobody else can change
    /// it while this socket is open, and that it stays when the socket is closed. Needs Linux 6.9.
    OwnTable {
        /// At most 127 bytes.
        comment: Option<String>,
    },
    /// Removes the table with all that it holds; an error if it is absent.
    DeleteTable,
    /// Removes every rule of every chain.
    FlushRules,
    /// Removes every rule of one chain.
    FlushChain(String),
    /// Makes a chain without its rules; one that is there stays as it is.
    AddChain(Chain),
    /// Removes a chain that has no rules and that no rule jumps to; an error if it is absent.
    DeleteChain(String),
    /// Puts a rule at the end of a chain.
    AddRule {
        /// The chain's name.
        chain: String,
        /// What to put there.
        rule: Rule,
    },
    /// Makes a set without its elements; one that is there stays as it is, and one that is there
    /// with other properties is an error.
    AddSet(Set),
    /// Removes a set that no rule uses; an error if it is absent.
    DeleteSet(String),
    /// Adds elements. One that is there already stays: before Linux 6.12 with its old timeout,
    /// since then with the new one. A range that overlaps another is an error.
    AddElements {
        /// The set's name.
        set: String,
        /// Any number; they are split over as many messages as they need.
        elements: Vec<Element>,
    },
    /// Adds elements, none of which may be there.
    CreateElements {
        /// The set's name.
        set: String,
        /// Any number, in as many messages as they need.
        elements: Elements,
    },
    /// Removes elements of a set without intervals; an error if one is absent.
    DeleteElements {
        /// The set's name.
        set: String,
        /// Any number.
        keys: Vec<Vec<u8>>,
    },
    /// Removes all elements of a set.
    FlushElements(String),
    /// Makes a counter that stands at zero; one that is there goes on counting.
    AddCounter(Counter),
    /// Removes a counter that no rule uses; an error if it is absent.
    DeleteCounter(String),
}

impl Transaction {
    /// One that does nothing yet.
    #[must_use]
    pub fn new(table: &str) -> Transaction {
        Transaction { table: table.to_owned(), ops: Vec::new() }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// For an error: ten thousand elements would bury the kernel's words.
    pub(crate) fn describe_short(&self, op: &Op) -> String {
        let mut operation = self.describe(op);
        if let Some((end, _)) = operation.char_indices().nth(QUOTED) {
            operation.truncate(end);
            operation.push('…');
        }
        operation
    }

    fn describe(&self, op: &Op) -> String {
        let table = format!("inet {}", self.table);
        match op {
            Op::AddTable { .. } => format!("add table {table}"),
            Op::OwnTable { .. } => format!("add table {table} {{ flags owner, persist; }}"),
            Op::DeleteTable => format!("delete table {table}"),
            Op::FlushRules => format!("flush table {table}"),
            Op::FlushChain(chain) => format!("flush chain {table} {chain}"),
            Op::AddChain(chain) => {
                let body = text::chain_head(chain);
                format!("add chain {table} {} {{ {body} }}", chain.name)
            }
            Op::DeleteChain(chain) => format!("delete chain {table} {chain}"),
            Op::AddRule { chain, rule } => format!("add rule {table} {chain} {}", text::rule(rule)),
            Op::AddSet(set) => {
                format!("add set {table} {} {{ {} }}", set.name, text::set_head(set))
            }
            Op::DeleteSet(set) => format!("delete set {table} {set}"),
            Op::AddElements { set, elements } => format!(
                "add element {table} {set} {{ {} }}",
                elements.iter().map(text::plain_element).collect::<Vec<_>>().join(", ")
            ),
            Op::CreateElements { set, elements } => format!(
                "create element {table} {set} {{ {} }}",
                elements.keys().map(text::plain_key).collect::<Vec<_>>().join(", ")
            ),
            Op::DeleteElements { set, keys } => format!(
                "delete element {table} {set} {{ {} }}",
                keys.iter().map(|key| text::plain_key(key)).collect::<Vec<_>>().join(", ")
            ),
            Op::FlushElements(set) => format!("flush set {table} {set}"),
            Op::AddCounter(counter) => format!("add counter {table} {}", counter.name),
            Op::DeleteCounter(counter) => format!("delete counter {table} {counter}"),
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| writeln!(f, "{}", self.describe(op)))
    }
}
