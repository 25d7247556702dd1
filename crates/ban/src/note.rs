//! What travels with a ban in its element's comment: `SOURCE @SECONDS REASON`.

use std::fmt::Write as _;

/// The most bytes of an element's comment that nft prints.
const BYTES: usize = 127;
const SOURCE_BYTES: usize = 32;

/// Who banned, when and why.
pub(crate) struct Note<'a> {
    pub(crate) source: &'a str,
    pub(crate) reason: &'a str,
    /// Seconds since 1970.
    pub(crate) since: u64,
}

impl Note<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(BYTES);
        push_source(&mut text, self.source);
        let _ = write!(text, " @{} ", self.since);
        push_clean(&mut text, self.reason, BYTES);
        text.truncate(text.trim_end().len());
        text
    }

    /// Source, reason and time; a comment of another form is a reason.
    pub(crate) fn parse(comment: &str) -> (String, String, Option<u64>) {
        let parsed = comment.split_once(" @").and_then(|(source, rest)| {
            let (since, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((source.to_owned(), reason.to_owned(), Some(since.parse().ok()?)))
        });
        parsed.unwrap_or_else(|| (String::new(), comment.to_owned(), None))
    }
}

/// Bytes of a note as an attribute of an element, at most.
pub(crate) fn encoded_len(source: &str, reason: &str) -> usize {
    // A space, an @, ten digits, a space; the headers, a NUL and padding.
    (source.len().min(SOURCE_BYTES) + 13 + reason.len()).min(BYTES) + 10
}

/// A source as it is noted.
pub(crate) fn source(text: &str) -> String {
    let mut source = String::new();
    push_source(&mut source, text);
    source
}

/// Without what nft's quotes cannot hold, and not too long for a comment.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::new();
    push_clean(&mut clean, text, BYTES);
    clean
}

fn push_source(out: &mut String, text: &str) {
    let start = out.len();
    push_clean(out, text, start + SOURCE_BYTES);
    if out.contains(['@', ' ']) {
        let source = out.split_off(start).replace(['@', ' '], "_");
        out.push_str(&source);
    }
}

/// Appends as much as leaves `out` with at most so many bytes.
fn push_clean(out: &mut String, text: &str, bytes: usize) {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"';
    if out.len() + text.len() <= bytes && text.bytes().all(is_plain) {
        return out.push_str(text);
    }
    let clean = |char: char| match char {
        '"' => '\'',
        char if char.is_control() || turns(char) => ' ',
        char => char,
    };
    for char in text.chars().map(clean) {
        if out.len() + char.len_utf8() > bytes {
            break;
        }
        out.push(char);
    }
}

/// Whether a terminal or an editor starts a line by it, or shows what follows in another order: the
/// reasons of bans quote what attackers sent.
fn turns(char: char) -> bool {
    matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again() {
        let note = Note { source: "fail2ban/traefik", reason: "5 failures", since: 1_700_000_000 };
        let parsed = Note::parse(&note.text());
        let expected = ("fail2ban/traefik".to_owned(), "5 failures".to_owned());
        assert_eq!(parsed, (expected.0, expected.1, Some(1_700_000_000)));
    }

    #[test]
    fn long_and_hostile_reasons_fit_a_comment_that_nft_can_print() {
        let reason = "ä\"\n".repeat(100);
        let note = Note { source: "a b@c", reason: &reason, since: 1 }.text();
        assert!(note.len() <= BYTES && !note.contains(['"', '\n']), "{note}");
        assert_eq!(Note::parse(&note).0, "a_b_c");
        assert_eq!(clean("a\u{202e}b\u{2028}c\u{1b}[31m"), "a b c [31m");
    }

    #[test]
    fn a_comment_of_another_form_is_a_reason() {
        assert_eq!(Note::parse("by hand"), (String::new(), "by hand".to_owned(), None));
    }
}
