//! A transaction: operations on one table, as a value that prints itself as an nft script.

use std::fmt;

use crate::model::{Chain, Counter, CtHelper, Element, Rule, Set};
use crate::text;
use crate::wire::element::Elements;

/// Number of characters of an operation that an error quotes.
const MAX_QUOTED_CHARS: usize = 500;

/// Operations on one table of the `inet` family. The kernel does all of them or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The table's name.
    pub table: String,
    /// The operations, in their order.
    pub ops: Vec<Op>,
}

/// An operation on a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the table if it is absent. A table that exists stays as it is, comment included.
    AddTable {
        /// At most 127 bytes.
        comment: Option<String>,
        /// Wakes the table up if it is dormant. The transaction fails if the table has other flags,
        /// as a table has that a process owns or owned.
        awake: bool,
    },
    /// Creates the table, or adopts an orphan, with this socket as its owner: no other socket can
    /// change the table, and the table stays when the socket is closed. Needs Linux 6.9.
    OwnTable {
        /// At most 127 bytes.
        comment: Option<String>,
    },
    /// Removes the table with all that it holds. Fails if the table is absent.
    DeleteTable,
    /// Removes every rule of every chain.
    FlushRules,
    /// Removes every rule of one chain.
    FlushChain(String),
    /// Creates a chain without its rules. A chain that exists stays as it is.
    AddChain(Chain),
    /// Removes a chain that has no rules and that no rule jumps to. Fails if the chain is absent.
    DeleteChain(String),
    /// Appends a rule to a chain.
    AddRule {
        /// The chain's name.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Creates a set without its elements. A set that exists stays as it is. Fails if that set has
    /// other properties.
    AddSet(Set),
    /// Removes a set that no rule uses. Fails if the set is absent.
    DeleteSet(String),
    /// Adds elements. An element that exists stays: before Linux 6.12 with its old timeout, since
    /// then with the new one. Fails if a range overlaps another.
    AddElements {
        /// The set's name.
        set: String,
        /// Any number of elements, in as many messages as they need.
        elements: Vec<Element>,
    },
    /// Adds elements. Fails if one of them exists.
    CreateElements {
        /// The set's name.
        set: String,
        /// Any number of elements, in as many messages as they need.
        elements: Elements,
    },
    /// Removes elements of a set without intervals. Fails if one of them is absent.
    DeleteElements {
        /// The set's name.
        set: String,
        /// Any number of keys.
        keys: Vec<Vec<u8>>,
    },
    /// Removes all elements of a set.
    FlushElements(String),
    /// Creates a counter that stands at zero. A counter that exists goes on counting.
    AddCounter(Counter),
    /// Removes a counter that no rule uses. Fails if the counter is absent.
    DeleteCounter(String),
    /// Creates a connection tracking helper. Fails if the kernel has no helper of that kind.
    AddHelper(CtHelper),
    /// Removes a helper that no rule uses. Fails if the helper is absent.
    DeleteHelper(String),
}

impl Transaction {
    /// Makes a transaction without operations.
    #[must_use]
    pub fn new(table: &str) -> Transaction {
        Transaction { table: table.to_owned(), ops: Vec::new() }
    }

    /// Returns whether there are no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns the start of the operation, for an error: ten thousand elements would bury the
    /// kernel's message.
    pub(crate) fn describe_short(&self, op: &Op) -> String {
        let mut operation = self.describe(op);
        if let Some((end, _)) = operation.char_indices().nth(MAX_QUOTED_CHARS) {
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
            Op::AddHelper(helper) => {
                let body = text::helper_lines(helper).join("; ");
                format!("add ct helper {table} {} {{ {body}; }}", helper.name)
            }
            Op::DeleteHelper(helper) => format!("delete ct helper {table} {helper}"),
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| writeln!(f, "{}", self.describe(op)))
    }
}
