//! The elements of a set as netlink attributes, both ways.

use std::time::Duration;

use crate::error::DecodeError;
use crate::model::{Element, Key, LiveElement, Set};
use crate::wire::attr::{Attrs, Writer, userdata};
use crate::wire::uapi::*;

/// Most bytes of elements in one message: the length of an attribute, less room for its header.
const MAX_LIST_BYTES: usize = 65_500;

/// Length of the headers around an element's key.
const KEY_OVERHEAD_BYTES: usize = 12;

/// Elements of a set without intervals, encoded as messages hold them. So an element of a long list
/// takes no allocation of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// The elements of each message.
    parts: Vec<Writer>,
}

/// Timeout and comment of elements, encoded once for all elements that have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementOptions(Writer);

impl ElementOptions {
    /// Encodes a timeout, in place of the set's own, and a comment of at most 127 bytes.
    #[must_use]
    pub fn new(timeout: Option<Duration>, comment: Option<&str>) -> ElementOptions {
        let mut out = Writer::default();
        encode_options(&mut out, timeout, comment);
        ElementOptions(out)
    }
}

impl Elements {
    /// Appends an element.
    pub fn push(&mut self, key: &[u8], ElementOptions(options): &ElementOptions) {
        let bytes = KEY_OVERHEAD_BYTES + key.len().next_multiple_of(4) + options.len();
        match self.parts.last() {
            None => self.parts.push(Writer::default()),
            Some(full) if full.len() + bytes > MAX_LIST_BYTES => {
                self.parts.push(Writer::with_room(full.len()));
            }
            Some(_) => {}
        }
        if let Some(part) = self.parts.last_mut() {
            part.nest(NFTA_LIST_ELEM, |out| {
                encode_key(out, key);
                out.append(options);
            });
        }
    }

    /// Returns the encoded elements of each message.
    pub(crate) fn parts(&self) -> &[Writer] {
        &self.parts
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().flat_map(Writer::attrs).filter_map(|element| {
            let key = element.ok()?.nested().next()?.ok()?;
            Some(key.nested().next()?.ok()?.value)
        })
    }
}

/// Encodes a list of elements that `fill` writes.
pub(crate) fn encode_list(
    out: &mut Writer,
    table: &str,
    set: &str,
    fill: impl FnOnce(&mut Writer),
) {
    out.string(NFTA_SET_ELEM_LIST_TABLE, table);
    out.string(NFTA_SET_ELEM_LIST_SET, set);
    out.nest(NFTA_SET_ELEM_LIST_ELEMENTS, fill);
}

pub(crate) fn encode_element(out: &mut Writer, Element { key, timeout, comment }: &Element) {
    let (first, end) = match key {
        Key::Value(key) => (key, None),
        Key::Range(first, last) => (first, successor(last)),
    };
    out.nest(NFTA_LIST_ELEM, |out| {
        encode_key(out, first);
        encode_options(out, *timeout, comment.as_deref());
    });
    // An interval is two elements: its first key, and the key after its last. An interval that
    // reaches to the highest key has only the first.
    if let Some(end) = end {
        out.nest(NFTA_LIST_ELEM, |out| {
            encode_key(out, &end);
            out.u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        });
    }
}

/// Encodes elements by their keys, to delete them or to ask for them.
pub(crate) fn encode_keys(out: &mut Writer, table: &str, set: &str, keys: &[impl AsRef<[u8]>]) {
    encode_list(out, table, set, |out| {
        for key in keys {
            out.nest(NFTA_LIST_ELEM, |out| encode_key(out, key.as_ref()));
        }
    });
}

fn encode_key(out: &mut Writer, key: &[u8]) {
    out.nest(NFTA_SET_ELEM_KEY, |out| out.bytes(NFTA_DATA_VALUE, key));
}

fn encode_options(out: &mut Writer, timeout: Option<Duration>, comment: Option<&str>) {
    if let Some(timeout) = timeout {
        out.millis(NFTA_SET_ELEM_TIMEOUT, timeout);
    }
    if let Some(comment) = comment {
        out.comment(NFTA_SET_ELEM_USERDATA, comment);
    }
}

/// Splits elements into parts that each fit one message.
pub(crate) fn chunks(elements: &[Element]) -> impl Iterator<Item = &[Element]> {
    let mut rest = elements;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest
            .iter()
            .take_while(|element| {
                bytes += encoded_len(element);
                bytes <= MAX_LIST_BYTES
            })
            .count();
        let (chunk, later) = rest.split_at_checked(fitting.max(1))?;
        rest = later;
        Some(chunk)
    })
}

/// Returns the most bytes that [`encode_element`] writes.
fn encoded_len(element: &Element) -> usize {
    let (key, ends) = match &element.key {
        Key::Value(key) => (key, 0),
        Key::Range(key, _) => (key, 1),
    };
    let key = KEY_OVERHEAD_BYTES + key.len().next_multiple_of(4);
    let comment = element.comment.as_ref().map_or(0, |text| text.len() + 10);
    key + 12 + comment + ends * (key + 8)
}

/// The elements of a set as the kernel's messages have them.
#[derive(Debug, Default)]
pub(crate) struct RawElements(Vec<RawElement>);

#[derive(Debug)]
struct RawElement {
    key: Vec<u8>,
    /// The element is the end of an interval.
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

    /// Returns the elements of the model. In an interval set a start and the next end make a range.
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
                // nft marks the keys below the first range by an end without a start.
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

    /// Returns the elements of a set without intervals, with the time until each expires.
    pub(crate) fn live(mut self) -> Vec<LiveElement> {
        self.sort();
        let live = |RawElement { key, timeout, expires_in, comment, .. }| LiveElement {
            element: Element { key: Key::Value(key), timeout, comment },
            expires_in,
        };
        self.0.into_iter().map(live).collect()
    }

    /// Sorts by key. If one range ends where the next begins, the end comes first. A dump may hold an
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

/// Returns the next key in big-endian order; `None` after the last.
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
