//! Comments and log prefixes that nft can print and read again, and text of others that a terminal can
//! show.
//!
//! nft has no escapes inside quotes, and takes at most 127 bytes. A terminal or an editor may show
//! what stands behind some characters in another order, and comments quote what strangers sent.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The most bytes of a comment that nft prints and reads.
pub const MAX_COMMENT_BYTES: usize = 127;

/// Returns the text as a comment can hold it, in at most `max_bytes`: quotes become apostrophes,
/// and control characters and those that turn the direction of writing become spaces.
#[must_use]
pub fn clean(text: &str, max_bytes: usize) -> String {
    let mut clean = String::new();
    push_clean(&mut clean, text, max_bytes);
    clean
}

/// Appends the text as [`clean`] returns it, as much of it as leaves `out` with at most
/// `max_bytes`. Allocates nothing if `out` has room for the text.
pub fn push_clean(out: &mut String, text: &str, max_bytes: usize) {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"';
    if out.len() + text.len() <= max_bytes && text.bytes().all(is_plain) {
        return out.push_str(text);
    }
    let clean = |char: char| match char {
        '"' => '\'',
        char if char.is_control() || is_layout(char) => ' ',
        char => char,
    };
    for char in text.chars().map(clean) {
        if out.len() + char.len_utf8() > max_bytes {
            break;
        }
        out.push(char);
    }
}

/// Returns the text as a terminal can show it: control characters and those that change the layout
/// become JSON's escapes, as `\u001b`. So what is JSON stays the same JSON. The ends of lines and
/// tabs stay.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |char| matches!(char, '\n' | '\t'))
}

/// Returns the text as [`visible`] does, on one line. Tabs stay.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char == '\t')
}

fn escaped(text: &str, stays: fn(char) -> bool) -> Cow<'_, str> {
    let is_odd = |char: char| (char.is_control() || is_layout(char)) && !stays(char);
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_odd(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal or an editor starts a line at this character, shows what follows in another
/// order, or shows nothing.
fn is_layout(char: char) -> bool {
    matches!(char,
        '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_cut_and_cleaned() {
        let clean = |text| clean(text, 8);
        assert_eq!(clean("a\"b\nc"), "a'b c");
        assert_eq!(clean("a\u{202e}b\u{2028}c"), "a b c");
        assert_eq!(clean("ääää "), "ääää");
        assert_eq!(clean("aääää"), "aäää");
        assert_eq!(clean("a\u{feff}\u{e0041}b"), "a  b");
        let mut out = "123456".to_owned();
        push_clean(&mut out, "789", 8);
        assert_eq!(out, "12345678");
    }

    #[test]
    fn what_a_terminal_would_obey_becomes_escapes_that_json_reads_back() {
        let plain = "äöü {}\n\tnext \\ \"line\" 👩\u{200d}🔬";
        assert!(matches!(visible(plain), Cow::Borrowed(same) if same == plain));
        let hostile = "a\u{1b}[31m\r\u{9b}2J\u{7f}\u{202e}\u{e0041}\0\u{7}b";
        let shown = r"a\u001b[31m\u000d\u009b2J\u007f\u202e\udb40\udc41\u0000\u0007b";
        assert_eq!(visible(hostile), shown);
        assert_eq!(one_line("a\n\tb"), "a\\u000a\tb");
    }
}
