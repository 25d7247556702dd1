//! An event of the ruleset, and how it is read.

use crate::error::DecodeError;
use crate::model::LiveElement;
use crate::wire::attr::Attrs;
use crate::wire::element::RawElements;
use crate::wire::message::{INET, nft};
use crate::wire::reply::{Replies, Reply};
use crate::wire::uapi::*;

/// A change of the ruleset. Events come in the order of the changes, and each commit ends with
/// [`RulesetEvent::Committed`].
///
/// An event is a hint: the kernel may lose events, and reports [`RulesetEvent::Lost`] then. To know
/// what holds, read the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulesetEvent {
    /// Elements were added to a set, or their timeouts were renewed.
    Added {
        /// The table's name.
        table: String,
        /// The set's name.
        set: String,
        /// The elements with the time that was left until each expires.
        elements: Vec<LiveElement>,
    },
    /// Elements were removed from a set. An element that expires is not reported.
    Removed {
        /// The table's name.
        table: String,
        /// The set's name.
        set: String,
        /// The elements.
        elements: Vec<LiveElement>,
    },
    /// The table was removed.
    TableRemoved(String),
    /// Another part of the table was changed.
    Changed(String),
    /// A process committed all changes since the last event of this kind.
    Committed {
        /// The process's number.
        process: u32,
        /// The process's name, of which the kernel keeps 15 bytes.
        name: String,
    },
    /// Events were lost.
    Lost,
}

impl RulesetEvent {
    /// Reads messages of the kernel. Messages about other families than `inet` are left out.
    pub(crate) fn read(bytes: &[u8]) -> Result<Vec<RulesetEvent>, DecodeError> {
        let mut events = Vec::new();
        for reply in Replies(bytes) {
            let reply = reply?;
            let Some(kind) = nft_kind(&reply) else { continue };
            let Some(attrs) = reply.attrs(nft(kind)) else { continue };
            events.push(RulesetEvent::decode(kind, attrs)?);
        }
        Ok(events)
    }

    fn decode(kind: u16, attrs: Attrs<'_>) -> Result<RulesetEvent, DecodeError> {
        if kind == NFT_MSG_NEWGEN {
            return committed(attrs);
        }
        let (mut table, mut second) = (String::new(), String::new());
        for attr in attrs {
            let attr = attr?;
            // The attributes have the same numbers in every kind of message.
            match attr.kind {
                NFTA_SET_ELEM_LIST_TABLE => table = attr.string(),
                NFTA_SET_ELEM_LIST_SET => second = attr.string(),
                _ => {}
            }
        }
        let elements = || {
            let mut raw = RawElements::default();
            raw.add(attrs).map(|()| raw.live())
        };
        Ok(match kind {
            NFT_MSG_NEWSETELEM => RulesetEvent::Added { table, set: second, elements: elements()? },
            NFT_MSG_DELSETELEM => {
                RulesetEvent::Removed { table, set: second, elements: elements()? }
            }
            NFT_MSG_DELTABLE => RulesetEvent::TableRemoved(table),
            _ => RulesetEvent::Changed(table),
        })
    }
}

/// Returns the message's type if it is about the `inet` family or the ruleset as a whole.
fn nft_kind(reply: &Reply<'_>) -> Option<u16> {
    let family = *reply.body.first()?;
    let kind = reply.kind.checked_sub(nft(0)).filter(|kind| *kind < 0x100)?;
    (family == INET || family == 0).then_some(kind)
}

fn committed(attrs: Attrs<'_>) -> Result<RulesetEvent, DecodeError> {
    let (mut process, mut name) = (0, String::new());
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_GEN_PROC_PID => process = attr.u32()?,
            NFTA_GEN_PROC_NAME => name = attr.string(),
            _ => {}
        }
    }
    Ok(RulesetEvent::Committed { process, name })
}
