//! What a never-ban entry is, and how that is written into an element's comment. Pure.

use std::fmt;

use crate::day::Day;
use nfguard_netlink::comment::{self, MAX_COMMENT_BYTES};

/// What a never-ban entry is. Its text tells people why the entry is on the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NeverBanKind {
    /// An address of the loopback interface.
    Loopback,
    /// This host's own address.
    OwnAddress {
        /// The interface that has the address.
        interface: String,
    },
    /// A gateway of this host.
    Gateway,
    /// A name server that this host asks.
    NameServer,
    /// A network behind this host: of containers, guests, or peers of a tunnel.
    Behind {
        /// The interface that leads there.
        interface: String,
    },
    /// The peer of an SSH session.
    SshPeer {
        /// The last day on which the session was seen.
        seen_on: Day,
        /// The same day, counted from the boot of the kernel. An older nfguard does not say it.
        day_since_boot: Option<u64>,
    },
    /// The loaded policy names it.
    Policy,
    /// An operator or a program has named it.
    ByHand {
        /// Why, in their words. At most 118 bytes are kept.
        reason: String,
    },
}

impl NeverBanKind {
    /// Returns the kind of an entry that an operator or a program names.
    #[must_use]
    pub fn by_hand(reason: &str) -> NeverBanKind {
        NeverBanKind::ByHand { reason: reason.to_owned() }
    }

    /// Returns the kind's word, without what belongs to the single entry.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            NeverBanKind::Loopback => "loopback",
            NeverBanKind::OwnAddress { .. } => "own-address",
            NeverBanKind::Gateway => "gateway",
            NeverBanKind::NameServer => "name-server",
            NeverBanKind::Behind { .. } => "behind",
            NeverBanKind::SshPeer { .. } => "ssh-peer",
            NeverBanKind::Policy => "policy",
            NeverBanKind::ByHand { .. } => "by-hand",
        }
    }

    /// Tells whether the entry is a network behind this host.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self, NeverBanKind::Behind { .. })
    }

    /// Tells whether the entry is a fact of this host, which the host's settings change.
    pub(crate) fn is_fact_of_host(&self) -> bool {
        matches!(
            self,
            NeverBanKind::OwnAddress { .. }
                | NeverBanKind::Gateway
                | NeverBanKind::NameServer
                | NeverBanKind::Behind { .. }
        )
    }

    /// Returns the kind with texts as a comment holds them.
    pub(crate) fn cleaned(self) -> NeverBanKind {
        NeverBanKind::from_comment(&self.comment())
    }

    /// Writes the comment of the kernel's element: the kind's word, and what belongs to the single
    /// entry behind `: `.
    pub(crate) fn comment(&self) -> String {
        let mut comment = self.word().to_owned();
        let detail = match self {
            NeverBanKind::OwnAddress { interface } | NeverBanKind::Behind { interface } => {
                interface.clone()
            }
            NeverBanKind::SshPeer { seen_on, day_since_boot: Some(day) } => {
                format!("{seen_on} {day}")
            }
            NeverBanKind::SshPeer { seen_on, day_since_boot: None } => seen_on.to_string(),
            NeverBanKind::ByHand { reason } => reason.clone(),
            NeverBanKind::Loopback
            | NeverBanKind::Gateway
            | NeverBanKind::NameServer
            | NeverBanKind::Policy => String::new(),
        };
        if !detail.is_empty() {
            comment.push_str(SEPARATOR);
            comment::push_clean(&mut comment, &detail, MAX_COMMENT_BYTES);
        }
        comment
    }

    /// Reads the comment of an element. A comment of another form is a reason by hand.
    pub(crate) fn from_comment(comment: &str) -> NeverBanKind {
        let (word, detail) = comment.split_once(SEPARATOR).unwrap_or((comment, ""));
        match (word, detail) {
            ("loopback", "") => NeverBanKind::Loopback,
            ("own-address", interface) => {
                NeverBanKind::OwnAddress { interface: interface.to_owned() }
            }
            ("behind", interface) => NeverBanKind::Behind { interface: interface.to_owned() },
            ("gateway", "") => NeverBanKind::Gateway,
            ("name-server", "") => NeverBanKind::NameServer,
            ("policy", "") => NeverBanKind::Policy,
            ("by-hand", reason) => NeverBanKind::by_hand(reason),
            ("ssh-peer", days) => ssh_peer(days).unwrap_or_else(|| NeverBanKind::by_hand(comment)),
            _ => NeverBanKind::by_hand(comment),
        }
    }
}

const SEPARATOR: &str = ": ";

fn ssh_peer(days: &str) -> Option<NeverBanKind> {
    let (seen_on, since_boot) = match days.split_once(' ') {
        Some((seen_on, day)) => (seen_on, Some(day.parse().ok()?)),
        None => (days, None),
    };
    Some(NeverBanKind::SshPeer { seen_on: seen_on.parse().ok()?, day_since_boot: since_boot })
}

impl fmt::Display for NeverBanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NeverBanKind::Loopback => f.write_str("loopback"),
            NeverBanKind::OwnAddress { interface } => {
                write!(f, "this host's address on {interface}")
            }
            NeverBanKind::Gateway => f.write_str("this host's gateway"),
            NeverBanKind::NameServer => f.write_str("this host's name server"),
            NeverBanKind::Behind { interface } => {
                write!(f, "containers, guests or peers behind this host, by {interface}")
            }
            NeverBanKind::SshPeer { seen_on, .. } => write!(f, "an SSH session on {seen_on}"),
            NeverBanKind::Policy => f.write_str("the policy says so"),
            NeverBanKind::ByHand { reason } => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// Every kind with its comment.
    fn all() -> [(NeverBanKind, &'static str); 10] {
        let seen_on = "2026-11-29".parse().expect("a day");
        [
            (NeverBanKind::Loopback, "loopback"),
            (NeverBanKind::OwnAddress { interface: "eth0".to_owned() }, "own-address: eth0"),
            (NeverBanKind::Gateway, "gateway"),
            (NeverBanKind::Behind { interface: "docker0".to_owned() }, "behind: docker0"),
            (NeverBanKind::NameServer, "name-server"),
            (NeverBanKind::SshPeer { seen_on, day_since_boot: None }, "ssh-peer: 2026-11-29"),
            (
                NeverBanKind::SshPeer { seen_on, day_since_boot: Some(40) },
                "ssh-peer: 2026-11-29 40",
            ),
            (NeverBanKind::Policy, "policy"),
            (NeverBanKind::by_hand("the office"), "by-hand: the office"),
            (NeverBanKind::by_hand(""), "by-hand"),
        ]
    }

    #[test]
    fn every_kind_is_written_and_read_again() {
        for (kind, comment) in all() {
            assert_eq!(kind.comment(), comment);
            assert_eq!(NeverBanKind::from_comment(comment), kind);
        }
    }

    #[test]
    fn a_reason_that_reads_like_another_kind_stays_a_reason() {
        for (_, comment) in all() {
            let kind = NeverBanKind::by_hand(comment);
            assert_eq!(NeverBanKind::from_comment(&kind.comment()), kind);
        }
    }

    #[test]
    fn a_comment_of_another_form_is_a_reason() {
        for comment in [
            "",
            "the backup server",
            "gateway: of the lab",
            "ssh-peer: the bastion",
            "ssh-peer: 2026-11-29 x",
        ] {
            assert_eq!(NeverBanKind::from_comment(comment), NeverBanKind::by_hand(comment));
        }
    }

    proptest! {
        #[test]
        fn any_reason_fits_a_comment_and_is_read_as_it_was_cleaned(reason in ".{0,200}") {
            let kind = NeverBanKind::by_hand(&reason).cleaned();
            let comment = kind.comment();
            prop_assert!(comment.len() <= MAX_COMMENT_BYTES);
            prop_assert!(!comment.contains(['"', '\n']));
            prop_assert_eq!(NeverBanKind::from_comment(&comment), kind);
        }
    }
}
