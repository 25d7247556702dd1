//! What a ban carries in its element's comment: `SOURCE @SECONDS REASON`. Before the seconds of a ban
//! that drops stands a `+` if there are other owners of its target. Pure.

use std::fmt::Write as _;

use nfguard_netlink::comment::{self, MAX_COMMENT_BYTES, push_clean};

/// The longest name of a source that is kept as it is.
const MAX_SOURCE_BYTES: usize = 64;
/// `~` and a digest.
const DIGEST_BYTES: usize = 17;

/// What stands behind the source.
const SEPARATOR: &str = " @";

/// What stands before the seconds of a ban with other owners beside it. Numbers may begin so.
const SHARED: &str = "+";

/// Who banned, when and why.
#[derive(Clone, Copy)]
pub(crate) struct BanComment<'a> {
    pub(crate) source: &'a str,
    pub(crate) reason: &'a str,
    /// Seconds since 1970.
    pub(crate) created_at: u64,
    pub(crate) sharing: Sharing,
}

/// Whether a ban that drops has other owners of its target beside it. What lies in a set of owners
/// counts only if the ban says so: it may be left of a ban that was removed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Alone,
    Shared,
}

impl BanComment<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(MAX_COMMENT_BYTES);
        push_source(&mut text, self.source);
        let mark = if self.sharing == Sharing::Shared { SHARED } else { "" };
        let _ = write!(text, " @{mark}{} ", self.created_at);
        push_clean(&mut text, self.reason, MAX_COMMENT_BYTES);
        text.truncate(text.trim_end().len());
        text
    }

    /// Reads whether other owners count.
    pub(crate) fn sharing(comment: &str) -> Sharing {
        match comment.split_once(SEPARATOR) {
            Some((_, rest)) if rest.starts_with(SHARED) => Sharing::Shared,
            _ => Sharing::Alone,
        }
    }

    /// Reads the source alone.
    pub(crate) fn source_of(comment: &str) -> &str {
        let has_time =
            |rest: &str| rest.split_once(' ').map_or(rest, |(time, _)| time).parse::<u64>().is_ok();
        match comment.split_once(SEPARATOR) {
            Some((source, rest)) if has_time(rest) => source,
            _ => "",
        }
    }

    /// Parses source, reason and time. A comment of another form is a reason.
    pub(crate) fn parse(comment: &str) -> (String, String, Option<u64>) {
        let parsed = comment.split_once(SEPARATOR).and_then(|(source, rest)| {
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

/// Returns the name of a source as bans are listed with it: the name itself, or a part of it with a
/// digest of the whole.
#[must_use]
pub fn source_name(text: &str) -> String {
    let mut source = String::new();
    push_source(&mut source, text);
    source
}

/// Returns a text as comments hold it: without what nft's quotes cannot hold, and not too long.
pub(crate) fn clean(text: &str) -> String {
    comment::clean(text, MAX_COMMENT_BYTES)
}

/// Appends a source. A name that a comment cannot hold as it is gets a digest of the whole name, so
/// that no two names become one.
fn push_source(out: &mut String, text: &str) {
    let start = out.len();
    push_clean(out, text, start + MAX_SOURCE_BYTES);
    let is_kept = out.get(start..) == Some(text) && !text.contains(SEPARATOR);
    if is_kept {
        return;
    }
    out.truncate(start);
    push_clean(out, &text.replace(SEPARATOR, "_@"), start + MAX_SOURCE_BYTES - DIGEST_BYTES);
    let _ = write!(out, "~{:016x}", digest(text));
}

/// Returns the FNV-1a digest of a text.
pub(crate) fn digest(text: &str) -> u64 {
    digest_of(text.as_bytes())
}

/// Returns the FNV-1a digest of bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
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
            sharing: Sharing::Alone,
        };
        assert_eq!(comment.text(), "fail2ban/traefik @1700000000 5 failures");
        let shared = BanComment { sharing: Sharing::Shared, ..comment };
        assert_eq!(shared.text(), "fail2ban/traefik @+1700000000 5 failures");
        for comment in [comment, shared] {
            assert_eq!(BanComment::sharing(&comment.text()), comment.sharing);
            let parsed = BanComment::parse(&comment.text());
            let expected = ("fail2ban/traefik".to_owned(), "5 failures".to_owned());
            assert_eq!(parsed, (expected.0, expected.1, Some(1_700_000_000)));
            assert_eq!(BanComment::source_of(&comment.text()), "fail2ban/traefik");
        }
    }

    #[test]
    fn long_and_hostile_reasons_fit_a_comment_that_nft_can_print() {
        let reason = "ä\"\n".repeat(100);
        let comment =
            BanComment { source: "a b@c", reason: &reason, created_at: 1, sharing: Sharing::Alone }
                .text();
        let fits = comment.len() <= MAX_COMMENT_BYTES && !comment.contains(['"', '\n']);
        assert!(fits, "{comment}");
        assert_eq!(BanComment::parse(&comment).0, "a b@c");
        assert_eq!(clean("a\u{202e}b\u{2028}c\u{1b}[31m"), "a b c [31m");
    }

    #[test]
    fn each_name_of_a_source_is_one_of_its_own_and_is_found_again() {
        let long = |end: &str| format!("fail2ban/{}.example.org{end}", "a".repeat(50));
        let names = [
            "",
            "a b",
            "a_b",
            "a@b",
            "a @b",
            "a_@b",
            "@a",
            "a ",
            "a'",
            "a\"",
            "a\n",
            "ä",
            "fail2ban/sshd",
        ];
        let names = names.map(str::to_owned).into_iter();
        let names: Vec<String> = names.chain(["", "1", "2"].map(long)).collect();
        let mut kept = std::collections::BTreeSet::new();
        for name in &names {
            let source = source_name(name);
            assert!(source.len() <= MAX_SOURCE_BYTES, "{source}");
            assert_eq!(source_name(&source), source, "a name that was listed is the same source");
            let comment =
                BanComment { source: name, reason: "why", created_at: 1, sharing: Sharing::Shared }
                    .text();
            assert_eq!(BanComment::parse(&comment), (source.clone(), "why".to_owned(), Some(1)));
            assert!(kept.insert(source), "{name:?} is another source, too: {kept:?}");
        }
        assert!(kept.contains("a b") && kept.contains("a@b"), "{kept:?}");
    }

    #[test]
    fn a_comment_of_another_form_is_a_reason() {
        for comment in ["by hand", "by @hand", "by @1and @2"] {
            assert_eq!(BanComment::parse(comment), (String::new(), comment.to_owned(), None));
            assert_eq!(BanComment::source_of(comment), "");
        }
    }
}
