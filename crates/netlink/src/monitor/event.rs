//! What the kernel tells of changes to the ruleset.

use crate::error::DecodeError;
use crate::model::LiveElement;
use crate::wire::attr::Attrs;
use crate::wire::element::RawElements;
use crate::wire::message::{INET, nft};
use crate::wire::reply::{Replies, Reply};
use crate::wire::uapi::*;

/// One thing that has changed, in the order in which it did. Each commit ends with
/// [`RulesetEvent::Committed`].
///
/// It is a hint: the kernel may lose some, and says then that it did. What holds is what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulesetEvent {
    /// Elements were added to a set, or live longer now.
    Added {
        /// The table's name.
        table: String,
        /// The set's name.
        set: String,
        /// With what was left of their lives at that moment.
        elements: Vec<LiveElement>,
    },
    /// Elements were removed from a set, not because their time was over.
    Removed {
        /// The table's name.
        table: String,
        /// The set's name.
        set: String,
        /// What they were.
        elements: Vec<LiveElement>,
    },
    /// The table was removed.
    TableRemoved(String),
    /// Something else of the table has changed.
    Changed(String),
    /// This process has done all since the last one of these.
    Committed {
        /// Its number.
        process: u32,
        /// Its name, as far as the kernel keeps it.
        name: String,
    },
    /// Some were lost.
    Lost,
}

impl RulesetEvent {
    /// Reads messages of the kernel; those about other families than `inet` are left out.
    pub(crate) fn read(bytes: &[u8]) -> Result<Vec<RulesetEvent>, DecodeError> {
        let mut all = Vec::new();
        for reply in Replies(bytes) {
            let reply = reply?;
            let Some(kind) = nft_kind(&reply) else { continue };
            let Some(attrs) = reply.attrs(nft(kind)) else { continue };
            all.push(RulesetEvent::of(kind, attrs)?);
        }
        Ok(all)
    }

    fn of(kind: u16, attrs: Attrs<'_>) -> Result<RulesetEvent, DecodeError> {
        if kind == NFT_MSG_NEWGEN {
            return committed(attrs);
        }
        let (mut table, mut second) = (String::new(), String::new());
        for attr in attrs {
            let attr = attr?;
            // The same numbers in every kind of message.
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

/// Its type, if it is about nf_tables' `inet` family or the ruleset as a whole.
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
