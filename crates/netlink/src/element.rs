//! The elements of a set as netlink attributes, both ways.

use std::time::Duration;

use crate::attr::{Attrs, Writer, userdata};
use crate::error::DecodeError;
use crate::model::{Element, Key, LiveElement, Set};
use crate::object::millis;
use crate::uapi::*;

pub(crate) fn encode_elements(out: &mut Writer, table: &str, set: &str, elements: &[Element]) {
    out.string(NFTA_SET_ELEM_LIST_TABLE, table);
    out.string(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        for element in elements {
            let (first, end) = match &element.key {
                Key::Value(key) => (key, None),
                Key::Range(first, last) => (first, successor(last)),
            };
            out.nest(NFTA_LIST_ELEM, |out| {
                out.nest(NFTA_SET_ELEM_KEY, |out| out.bytes(NFTA_DATA_VALUE, first));
                if let Some(timeout) = element.timeout {
                    out.u64(NFTA_SET_ELEM_TIMEOUT, millis(timeout));
                }
                if let Some(comment) = &element.comment {
                    out.comment(NFTA_SET_ELEM_USERDATA, comment);
                }
            });
            // An interval is two elements: its first key, and the one after its last. One that
            // reaches to the end of the key's range has no second.
            if let Some(end) = end {
                out.nest(NFTA_LIST_ELEM, |out| {
                    out.nest(NFTA_SET_ELEM_KEY, |out| out.bytes(NFTA_DATA_VALUE, &end));
                    out.u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                });
            }
        }
    });
}

/// Bytes that [`encode_elements`] writes for one element, at most.
pub(crate) fn encoded_len(element: &Element) -> usize {
    let (key, ends) = match &element.key {
        Key::Value(key) => (key, 0),
        Key::Range(key, _) => (key, 1),
    };
    let key = 12 + key.len().next_multiple_of(4);
    let comment = element.comment.as_ref().map_or(0, |text| text.len() + 10);
    key + 12 + comment + ends * (key + 8)
}

/// A message that names elements by their keys: to delete them, or to ask for them.
pub(crate) fn encode_keys(out: &mut Writer, table: &str, set: &str, keys: &[Vec<u8>]) {
    out.string(NFTA_SET_ELEM_LIST_TABLE, table);
    out.string(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |out| {
        for key in keys {
            out.nest(NFTA_LIST_ELEM, |out| {
                out.nest(NFTA_SET_ELEM_KEY, |out| out.bytes(NFTA_DATA_VALUE, key));
            });
        }
    });
}

/// The elements of one set, as the kernel's messages have them.
#[derive(Debug, Default)]
pub(crate) struct RawElements(Vec<RawElement>);

#[derive(Debug)]
struct RawElement {
    key: Vec<u8>,
    /// The end of an interval.
    is_end: bool,
    timeout: Option<Duration>,
    expires_in: Option<Duration>,
    comment: Option<String>,
}

impl RawElements {
    pub(crate) fn add(&mut self, attrs: Attrs<'_>) -> Result<(), DecodeError> {
        for attr in attrs {
            let attr = attr?;
            if attr.kind == NFTA_SET_ELEM_LIST_ELEMENTS {
                for element in attr.nested() {
                    self.0.push(decode_element(element?.nested())?);
                }
            }
        }
        Ok(())
    }

    /// As the model has them: in an interval set a start and the next end are one range.
    pub(crate) fn finish(mut self, set: &Set) -> Vec<Element> {
        self.sort();
        let mut elements: Vec<Element> = Vec::new();
        let mut open = false;
        for RawElement { key, is_end, timeout, comment, .. } in self.0 {
            match (is_end, elements.last_mut().map(|last| &mut last.key)) {
                (true, Some(Key::Range(_, last))) if open => {
                    *last = predecessor(&key);
                    open = false;
                }
                // nft marks the keys below the first range by an end of their own.
                (true, _) => {}
                (false, _) => {
                    let key = if set.interval {
                        let end = vec![0xff; key.len()];
                        Key::Range(key, end)
                    } else {
                        Key::Value(key)
                    };
                    elements.push(Element { key, timeout, comment });
                    open = set.interval;
                }
            }
        }
        elements
    }

    /// Of a set without intervals, with what is left of each one's life.
    pub(crate) fn live(mut self) -> Vec<LiveElement> {
        self.sort();
        let live = |RawElement { key, timeout, expires_in, comment, .. }| LiveElement {
            element: Element { key: Key::Value(key), timeout, comment },
            expires_in,
        };
        self.0.into_iter().map(live).collect()
    }

    /// By key; where one range ends as the next begins, the end comes first. A dump may tell of an
    /// element twice.
    fn sort(&mut self) {
        self.0.sort_by(|a, b| a.key.cmp(&b.key).then(b.is_end.cmp(&a.is_end)));
        self.0.dedup_by(|a, b| a.key == b.key && a.is_end == b.is_end);
    }
}

fn decode_element(attrs: Attrs<'_>) -> Result<RawElement, DecodeError> {
    let (mut key, mut is_end) = (None, false);
    let (mut timeout, mut expires_in, mut comment) = (None, None, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            NFTA_SET_ELEM_KEY => {
                for part in attr.nested() {
                    let part = part?;
                    if part.kind == NFTA_DATA_VALUE {
                        key = Some(part.value.to_vec());
                    }
                }
            }
            NFTA_SET_ELEM_FLAGS => is_end = attr.u32()? & NFT_SET_ELEM_INTERVAL_END != 0,
            NFTA_SET_ELEM_TIMEOUT => timeout = Some(Duration::from_millis(attr.u64()?)),
            NFTA_SET_ELEM_EXPIRATION => expires_in = Some(Duration::from_millis(attr.u64()?)),
            NFTA_SET_ELEM_USERDATA => {
                comment = userdata::find_string(attr.value, userdata::COMMENT);
            }
            _ => {}
        }
    }
    let key = key.ok_or(DecodeError::Missing { object: "element", attribute: "key" })?;
    Ok(RawElement { key, is_end, timeout, expires_in, comment })
}

/// The key after this one in big-endian order; `None` after the last.
fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(key);
        }
    }
    None
}

fn predecessor(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    key
}
