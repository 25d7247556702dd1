//! A strict reader of one JSON object, for lines that strangers have a part in.
//!
//! It reads each byte once, nests no deeper than a limit, and copies nothing but strings with escapes.
//! It takes strings as bytes: what a client sends need not be UTF-8.

use std::borrow::Cow;

/// Deepest nesting that is read.
const MAX_DEPTH: u32 = 64;

/// A value of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A string, as it stands between its quotes.
    Text(Text<'a>),
    /// A number, as it is written.
    Number(&'a [u8]),
    /// An array, as it is written.
    Array(&'a [u8]),
    /// An object, as it is written.
    Object(&'a [u8]),
    /// `true`, `false` or `null`.
    Other,
}

/// A string, checked and not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    has_escapes: bool,
}

impl<'a> Text<'a> {
    /// Returns the string. Half a surrogate pair becomes U+FFFD.
    pub(crate) fn decode(self) -> Cow<'a, [u8]> {
        if !self.has_escapes {
            return Cow::Borrowed(self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            let (plain, escape) = rest.split_at(at);
            out.extend_from_slice(plain);
            let (character, after) = unescape(escape);
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        }
        out.extend_from_slice(rest);
        Cow::Owned(out)
    }

    /// Returns the string, if it has no escapes.
    pub(crate) fn plain(self) -> Option<&'a [u8]> {
        (!self.has_escapes).then_some(self.raw)
    }
}

/// Reads an object that is the whole text, and hands over each key with its value. A key with escapes
/// is no key that a program writes. Returns `None` if the text is anything else, or `each` does.
pub(crate) fn object<'a>(
    text: &'a [u8],
    mut each: impl FnMut(&'a [u8], Value<'a>) -> Option<()>,
) -> Option<()> {
    let mut reader = Reader { rest: text, depth: 0 };
    reader.blank();
    reader.members(&mut each)?;
    reader.blank();
    reader.rest.is_empty().then_some(())
}

/// Reads an array of numbers from 0 to 255, the journal's form of what is no UTF-8.
pub(crate) fn bytes(array: &[u8]) -> Option<Vec<u8>> {
    let inner = array.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let numbers = inner
        .split(|byte| *byte == b',')
        .map(|number| std::str::from_utf8(number.trim_ascii()).ok()?.parse::<u8>().ok());
    numbers.collect()
}

/// Reads an array of strings.
pub(crate) fn texts(array: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    let (mut reader, mut texts) = (Reader { rest: array, depth: 0 }, Vec::new());
    reader.list(b'[', b']', |reader| {
        texts.push(reader.text()?.decode());
        Some(())
    })?;
    Some(texts)
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    fn blank(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        while let Some((first, rest)) = self.rest.split_first()
            && blank(first)
        {
            self.rest = rest;
        }
    }

    fn byte(&mut self, expected: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == expected).then(|| self.rest = rest)
    }

    /// Returns what is read since `before`.
    fn since(&self, before: &'a [u8]) -> &'a [u8] {
        before.get(..before.len() - self.rest.len()).unwrap_or_default()
    }

    fn members(&mut self, each: &mut dyn FnMut(&'a [u8], Value<'a>) -> Option<()>) -> Option<()> {
        self.nested(|reader| {
            reader.list(b'{', b'}', |reader| {
                let key = reader.text()?.plain()?;
                reader.blank();
                reader.byte(b':')?;
                reader.blank();
                each(key, reader.value()?)
            })
        })
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        read(self)?;
        self.depth -= 1;
        Some(())
    }

    fn list(
        &mut self,
        open: u8,
        close: u8,
        mut element: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.byte(open)?;
        self.blank();
        if self.byte(close).is_some() {
            return Some(());
        }
        loop {
            self.blank();
            element(self)?;
            self.blank();
            if self.byte(b',').is_none() {
                return self.byte(close);
            }
        }
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let before = self.rest;
        match before.first()? {
            b'"' => self.text().map(Value::Text),
            b'{' => {
                self.members(&mut |_, _| Some(()))?;
                Some(Value::Object(self.since(before)))
            }
            b'[' => {
                self.nested(|reader| reader.list(b'[', b']', |it| it.value().map(|_| ())))?;
                Some(Value::Array(self.since(before)))
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Some(Value::Number(self.since(before)))
            }
            _ => {
                let words: [&[u8]; 3] = [b"true", b"false", b"null"];
                self.rest = words.iter().find_map(|word| before.strip_prefix(*word))?;
                Some(Value::Other)
            }
        }
    }

    fn text(&mut self) -> Option<Text<'a>> {
        self.byte(b'"')?;
        let (before, mut has_escapes) = (self.rest, false);
        loop {
            let plain = plain_bytes(self.rest);
            match self.rest.get(plain..)? {
                [b'"', rest @ ..] => {
                    let raw = before.get(..before.len() - rest.len() - 1)?;
                    self.rest = rest;
                    return Some(Text { raw, has_escapes });
                }
                [b'\\', b'u', rest @ ..] => {
                    let (digits, rest) = rest.split_first_chunk::<4>()?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    self.rest = rest;
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => {
                    self.rest = rest;
                }
                _ => return None,
            }
            has_escapes = true;
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.byte(b'-');
        if self.byte(b'0').is_none() {
            self.digits()?;
        }
        if self.byte(b'.').is_some() {
            self.digits()?;
        }
        if self.byte(b'e').or_else(|| self.byte(b'E')).is_some() {
            let _ = self.byte(b'+').or_else(|| self.byte(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(count..)?;
        (count > 0).then_some(())
    }
}

/// Returns how many bytes of a string there are before a quote, a backslash or a control character. It
/// looks at eight bytes at once.
fn plain_bytes(text: &[u8]) -> usize {
    const LOWS: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = LOWS << 7;
    // The lowest byte that is marked is below the limit; those above it may be marked by a borrow.
    let below = |word: u64, limit: u8| word.wrapping_sub(LOWS * u64::from(limit)) & !word & HIGHS;
    let is = |word: u64, byte: u8| below(word ^ (LOWS * u64::from(byte)), 1);
    let (chunks, rest) = text.as_chunks::<8>();
    for (at, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let marks = is(word, b'"') | is(word, b'\\') | below(word, b' ');
        if marks != 0 {
            return 8 * at + marks.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    text.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// Returns the character of an escape that was checked, and the text after it.
fn unescape(escape: &[u8]) -> (char, &[u8]) {
    let rest = escape.get(2..).unwrap_or_default();
    let short = match escape.get(1) {
        Some(b'u') => {
            let (first, rest) = unit(rest);
            if let Some(character) = char::from_u32(first) {
                return (character, rest);
            }
            if let Some(after) = rest.strip_prefix(b"\\u")
                && let (second @ 0xdc00..=0xdfff, after) = unit(after)
                && first < 0xdc00
            {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), after);
            }
            return (char::REPLACEMENT_CHARACTER, rest);
        }
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(other) => char::from(*other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (short, rest)
}

fn unit(text: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((b"", text));
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0);
    (digits.iter().fold(0, |sum, byte| sum * 16 + digit(byte)), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        object(text.as_bytes(), |key, value| {
            let value = match value {
                Value::Text(text) => String::from_utf8_lossy(&text.decode()).into_owned(),
                Value::Number(text) | Value::Array(text) | Value::Object(text) => {
                    String::from_utf8_lossy(text).into_owned()
                }
                Value::Other => String::new(),
            };
            found.push(format!("{}={value}", String::from_utf8_lossy(key)));
            Some(())
        })?;
        Some(found)
    }

    #[test]
    fn an_object_is_read_strictly() {
        let text =
            r#" {"a": "x\n\"\u00e4\ud83d\ude00\ud800y", "b":[1, {"c":2}],"d":-1.5e3,"e":null} "#;
        let found = read(text).unwrap();
        assert_eq!(found, ["a=x\n\"ä😀\u{fffd}y", r#"b=[1, {"c":2}]"#, "d=-1.5e3", "e="]);
        for text in [
            "",
            "{",
            "{}x",
            "[]",
            r#"{"a":01}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":"x}"#,
            "{\"a\":\"x\ny\"}",
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            r#"{"a":nul}"#,
            r#"{"a":1.}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert_eq!(read(&deep), None);
    }

    #[test]
    fn an_array_of_bytes_is_read() {
        assert_eq!(bytes(b"[70, 255,0]"), Some(vec![70, 255, 0]));
        assert_eq!(bytes(b"[70, 256]"), None);
        assert_eq!(bytes(b"[\"a\"]"), None);
    }
}
