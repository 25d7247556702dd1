//! What a ban carries in its element's comment: `SOURCE @SECONDS REASON`. Pure.

use std::fmt::Write as _;

use nfguard_netlink::comment::{self, MAX_COMMENT_BYTES, push_clean};

const MAX_SOURCE_BYTES: usize = 32;

/// Who banned, when and why.
pub(crate) struct BanComment<'a> {
    pub(crate) source: &'a str,
    pub(crate) reason: &'a str,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
}

impl BanComment<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(MAX_COMMENT_BYTES);
        push_source(&mut text, self.source);
        let _ = write!(text, " @{} ", self.created_at);
        push_clean(&mut text, self.reason, MAX_COMMENT_BYTES);
        text.truncate(text.trim_end().len());
        text
    }

    /// Parses source, reason and time. A comment of another form is a reason.
    pub(crate) fn parse(comment: &str) -> (String, String, Option<u64>) {
        let parsed = comment.split_once(" @").and_then(|(source, rest)| {
            let (created_at, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((source.to_owned(), reason.to_owned(), Some(created_at.parse().ok()?)))
        });
        parsed.unwrap_or_else(|| (String::new(), comment.to_owned(), None))
    }
}

/// Returns the most bytes that a ban's comment takes as an attribute of an element.
pub(crate) fn encoded_len(source: &str, reason: &str) -> usize {
    // A space, an @, ten digits, a space; the headers, a NUL and padding.
    (source.len().min(MAX_SOURCE_BYTES) + 13 + reason.len()).min(MAX_COMMENT_BYTES) + 10
}

/// Returns a source as comments hold it.
pub(crate) fn clean_source(text: &str) -> String {
    let mut source = String::new();
    push_source(&mut source, text);
    source
}

/// Returns a text as comments hold it: without what nft's quotes cannot hold, and not too long.
pub(crate) fn clean(text: &str) -> String {
    comment::clean(text, MAX_COMMENT_BYTES)
}

fn push_source(out: &mut String, text: &str) {
    let start = out.len();
    push_clean(out, text, start + MAX_SOURCE_BYTES);
    if out.contains(['@', ' ']) {
        let source = out.split_off(start).replace(['@', ' '], "_");
        out.push_str(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let comment = BanComment {
            source: "fail2ban/traefik",
            reason: "5 failures",
            created_at: 1_700_000_000,
        };
        assert_eq!(comment.text(), "fail2ban/traefik @1700000000 5 failures");
        let parsed = BanComment::parse(&comment.text());
        let expected = ("fail2ban/traefik".to_owned(), "5 failures".to_owned());
        assert_eq!(parsed, (expected.0, expected.1, Some(1_700_000_000)));
    }

    #[test]
    fn long_and_hostile_reasons_fit_a_comment_that_nft_can_print() {
        let reason = "ä\"\n".repeat(100);
        let comment = BanComment { source: "a b@c", reason: &reason, created_at: 1 }.text();
        let fits = comment.len() <= MAX_COMMENT_BYTES && !comment.contains(['"', '\n']);
        assert!(fits, "{comment}");
        assert_eq!(BanComment::parse(&comment).0, "a_b_c");
        assert_eq!(clean("a\u{202e}b\u{2028}c\u{1b}[31m"), "a b c [31m");
    }

    #[test]
    fn a_comment_of_another_form_is_a_reason() {
        assert_eq!(BanComment::parse("by hand"), (String::new(), "by hand".to_owned(), None));
    }
}
