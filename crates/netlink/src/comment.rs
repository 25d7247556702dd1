//! Comments and log prefixes that nft can print and read again.
//!
//! nft has no escapes inside quotes, and takes at most 127 bytes. A terminal or an editor may show
//! what stands behind some characters in another order, and comments quote what strangers sent.

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

/// Whether a terminal or an editor starts a line at this character, or shows what follows in
/// another order.
fn is_layout(char: char) -> bool {
    matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
        let mut out = "123456".to_owned();
        push_clean(&mut out, "789", 8);
        assert_eq!(out, "12345678");
    }
}
