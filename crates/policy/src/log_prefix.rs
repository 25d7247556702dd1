//! The prefix of a log line: it names the verdict and the rule.
//!
//! A rule that logs to an NFLOG group gives each packet a prefix such as `[NFGUARD] drop in/telnet`:
//! the policy's own prefix, the verdict, and the name of the rule's counter. The kernel log gets the
//! policy's own prefix alone, because other programs search for it.

use serde::Serialize;

use crate::policy::Verdict;
use nfguard_netlink::comment::clean;

/// Longest prefix of a log line, in bytes. The kernel's limit is 128 with the NUL.
pub(crate) const MAX_PREFIX_BYTES: usize = 127;

/// The rule and the verdict that a prefix names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedRule<'a> {
    /// What happened to the packet: `accept`, `drop` or `reject`.
    pub verdict: &'a str,
    /// Name of the rule's counter, such as `in/telnet` or `default/in`.
    pub rule: &'a str,
}

impl<'a> LoggedRule<'a> {
    /// Reads the end of a prefix. Returns `None` if nfguard did not write the prefix.
    #[must_use]
    pub fn parse(prefix: &'a str) -> Option<Self> {
        let mut words = prefix.rsplit(' ');
        let (rule, verdict) = (words.next()?, words.next()?);
        let is_verdict = VERDICTS.iter().any(|known| word(*known) == verdict);
        (is_verdict && rule.contains('/')).then_some(Self { verdict, rule })
    }
}

/// Returns the prefix for an NFLOG group. `own` is the policy's own prefix, which is cut if the whole
/// is too long.
pub(crate) fn compose(own: &str, verdict: Verdict, counter: &str) -> String {
    let end = format!("{} {counter}", word(verdict));
    let own = clean(own.trim_end(), MAX_PREFIX_BYTES - 1 - end.len());
    format!("{own} {end}").trim_start().to_owned()
}

const VERDICTS: [Verdict; 3] = [Verdict::Accept, Verdict::Drop, Verdict::Reject];

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accept => "accept",
        Verdict::Drop => "drop",
        Verdict::Reject => "reject",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_of_another_program_names_no_rule() {
        for prefix in ["", "[UFW BLOCK] ", "drop me", "drop a/b c", "in/dns", "dropped in/dns"] {
            assert_eq!(LoggedRule::parse(prefix), None, "{prefix}");
        }
        let rule = LoggedRule { verdict: "accept", rule: "in/dns" };
        assert_eq!(LoggedRule::parse("accept in/dns"), Some(rule));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parse_reads_what_compose_writes(
            own in "\\PC{0,127}",
            verdict in 0..VERDICTS.len(),
            name in "(in|out|forward)/[a-z0-9][a-z0-9._-]{0,63}",
        ) {
            let verdict = VERDICTS[verdict];
            let prefix = compose(&own, verdict, &name);
            prop_assert!(prefix.len() <= MAX_PREFIX_BYTES);
            let rule = LoggedRule { verdict: word(verdict), rule: &name };
            prop_assert_eq!(LoggedRule::parse(&prefix), Some(rule));
        }
    }
}
