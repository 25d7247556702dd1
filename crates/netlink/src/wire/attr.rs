//! Netlink attributes: a writer that fixes lengths by scope, a reader that cannot panic.
//!
//! Layout (RFC 3549, `linux/netlink.h`): a 16-bit length that counts the four-byte header, a 16-bit
//! type whose two upper bits are flags, the value, padding to four bytes.

use std::time::Duration;

use crate::error::DecodeError;

/// The two upper bits of an attribute's type: "nested" and "network byte order".
const TYPE_FLAGS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// Appends attributes to one message.
///
/// If a value or a nest is longer than an attribute can be (65,535 bytes with its header), then
/// [`Writer::finish`] fails. So callers need not check each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    too_long: Option<u16>,
}

/// Room for a transaction of one or two operations.
const INITIAL_BYTES: usize = 512;

impl Default for Writer {
    fn default() -> Writer {
        Writer::with_room(INITIAL_BYTES)
    }
}

impl Writer {
    pub(crate) fn with_room(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes), too_long: None }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what another writer has written.
    pub(crate) fn append(&mut self, other: &Writer) {
        self.raw(&other.bytes);
        self.too_long = self.too_long.or(other.too_long);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn attrs(&self) -> Attrs<'_> {
        Attrs(&self.bytes)
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let at = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(at, kind);
    }

    /// Writes a string with a NUL at its end, as the kernel's own strings have.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let at = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(at, kind);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Writes a number big endian, as nf_tables has all numbers.
    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Writes a duration in milliseconds, as nf_tables has all durations.
    pub(crate) fn millis(&mut self, kind: u16, duration: Duration) {
        self.u64(kind, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let at = self.open(kind | NESTED);
        fill(self);
        self.close(at, kind);
    }

    /// Returns the bytes, or the type of the first attribute that was too long.
    pub(crate) fn finish(self) -> Result<Vec<u8>, u16> {
        self.too_long.map_or(Ok(self.bytes), Err)
    }

    /// Returns the type of the first attribute that was too long.
    pub(crate) fn too_long(&self) -> Option<u16> {
        self.too_long
    }

    /// Replaces the bytes at an offset.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Writes a comment as nft's own user data (libnftnl's `udata.h`).
    pub(crate) fn comment(&mut self, kind: u16, text: &str) {
        let at = self.open(kind);
        userdata::push_string(&mut self.bytes, userdata::COMMENT, text);
        self.close(at, kind);
    }

    fn open(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        let [first, second] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[0, 0, first, second]);
        at
    }

    fn close(&mut self, at: usize, kind: u16) {
        let len = self.bytes.len() - at;
        match u16::try_from(len) {
            Ok(len) => self.put(at, &len.to_ne_bytes()),
            Err(_) => self.too_long = self.too_long.or(Some(kind)),
        }
        // Mostly there is no padding, which saves a call.
        let padded = self.bytes.len().next_multiple_of(4);
        if padded > self.bytes.len() {
            self.bytes.resize(padded, 0);
        }
    }
}

/// An attribute without the flags of its type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attr<'a> {
    pub(crate) fn u8(&self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Returns a number in the machine's own byte order, as netlink's own numbers are.
    pub(crate) fn u32_native(&self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// Returns a string up to its NUL. Other programs choose names too, so bytes that are not UTF-8
    /// are replaced and no error.
    pub(crate) fn string(&self) -> String {
        let text = self.value.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    pub(crate) fn nested(&self) -> Attrs<'a> {
        Attrs(self.value)
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| DecodeError::Length {
            kind: self.kind,
            expected: N,
            found: self.value.len(),
        })
    }
}

/// Reads attributes one after the other, and ends after the first error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attrs<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attr = self.split();
        if attr.is_none() {
            let rest = self.0.len();
            self.0 = &[];
            return Some(Err(DecodeError::Truncated { rest }));
        }
        attr.map(Ok)
    }
}

impl<'a> Attrs<'a> {
    /// Returns the first string of this type; an empty one if there is none.
    pub(crate) fn first_string(self, kind: u16) -> String {
        let found = self.filter_map(Result::ok).find(|attr| attr.kind == kind);
        found.map(|attr| attr.string()).unwrap_or_default()
    }

    fn split(&mut self) -> Option<Attr<'a>> {
        let (len, rest) = self.0.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let value = self.0.get(4..len)?;
        // The last attribute of a message may come without its padding.
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr { kind: u16::from_ne_bytes(*kind) & !TYPE_FLAGS, value })
    }
}

/// nft's own type-length-value lists inside `USERDATA` attributes (libnftnl's `udata.h`): one byte
/// of type, one of length, the value.
pub(crate) mod userdata {
    /// The type of a comment, in tables, chains, rules, set elements and objects.
    pub(crate) const COMMENT: u8 = 0;
    /// The types of a set's user data.
    pub(crate) const SET_KEY_BYTEORDER: u8 = 0;
    pub(crate) const SET_COMMENT: u8 = 7;

    /// Appends a string with its NUL. A string that does not fit the length byte is cut off; the
    /// model's bounds rule that out.
    pub(crate) fn push_string(out: &mut Vec<u8>, kind: u8, text: &str) {
        let text = text.as_bytes().get(..254).unwrap_or(text.as_bytes());
        out.extend([kind, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)]);
        out.extend_from_slice(text);
        out.push(0);
    }

    /// Returns the string of this type, if there is one, and skips everything else.
    pub(crate) fn find_string(mut bytes: &[u8], kind: u8) -> Option<String> {
        while let Some(([found, len], rest)) = bytes.split_first_chunk::<2>() {
            let (value, rest) = rest.split_at_checked(usize::from(*len))?;
            if *found == kind {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                return Some(String::from_utf8_lossy(text).into_owned());
            }
            bytes = rest;
        }
        None
    }
}
