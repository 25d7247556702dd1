//! Random steps over a few addresses, so that the steps meet often.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{select, subsequence};

/// A notation, and its meaning.
pub(crate) type Notation = (&'static str, &'static str);

const TARGETS: [Notation; 18] = [
    ("203.0.113.2", "203.0.113.2/32"),
    ("::ffff:203.0.113.2", "203.0.113.2/32"),
    ("203.0.113.3/32", "203.0.113.3/32"),
    ("203.0.113.3/31", "203.0.113.2/31"),
    ("::ffff:203.0.113.1/126", "203.0.113.0/30"),
    ("203.0.113.77/25", "203.0.113.0/25"),
    ("203.0.113.0/24", "203.0.113.0/24"),
    ("203.0.113.128/1", "128.0.0.0/1"),
    ("192.0.2.1/24", "192.0.2.0/24"),
    ("2001:db8:a::1", "2001:db8:a::/64"),
    ("2001:db8:a::2/128", "2001:db8:a::2/128"),
    ("2001:db8:a::3/127", "2001:db8:a::2/127"),
    ("2001:db8:a::/64", "2001:db8:a::/64"),
    ("2001:db8:a:1::9", "2001:db8:a:1::/64"),
    ("2001:db8:a:1::9/63", "2001:db8:a::/63"),
    ("2001:db8:a:7::/48", "2001:db8:a::/48"),
    ("2001:db8:b::/47", "2001:db8:a::/47"),
    ("2001:db8::1/3", "2000::/3"),
];

const NEVER_BAN: [Notation; 9] = [
    ("203.0.113.2/32", "203.0.113.2/32"),
    ("::ffff:203.0.113.3/128", "203.0.113.3/32"),
    ("203.0.113.1/30", "203.0.113.0/30"),
    ("203.0.113.9/24", "203.0.113.0/24"),
    ("192.0.2.1/32", "192.0.2.1/32"),
    ("2001:db8:a::1/128", "2001:db8:a::1/128"),
    ("2001:db8:a::7/64", "2001:db8:a::/64"),
    ("2001:db8:a::/48", "2001:db8:a::/48"),
    ("2001:db8:b::1/128", "2001:db8:b::1/128"),
];

/// The senders of packets: inside and outside of each network, close to its ends.
pub(crate) const SENDERS: [&str; 14] = [
    "203.0.113.1",
    "203.0.113.2",
    "203.0.113.3",
    "203.0.113.4",
    "203.0.113.127",
    "203.0.113.128",
    "192.0.2.1",
    "2001:db8:a::1",
    "2001:db8:a::2",
    "2001:db8:a::3",
    "2001:db8:a::4",
    "2001:db8:a:1::1",
    "2001:db8:a:2::1",
    "2001:db8:b::1",
];

/// The ports of bans and of packets. No ban has the last port.
pub(crate) const PORTS: [&str; 3] = ["443/tcp", "443/udp", "53/udp"];

/// Two of the names agree in their first 40 bytes.
pub(crate) const SOURCES: [&str; 3] = [
    "one",
    "fail2ban/traefik-shop.example-company.com/a",
    "fail2ban/traefik-shop.example-company.com/b",
];
const REASONS: [&str; 2] = ["the monitor", "the office"];

/// A step, and the index of the program that takes it.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    pub(crate) by: usize,
    pub(crate) step: Step,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ban(Wish),
    BanAll(Vec<Wish>),
    Replace(&'static str, Vec<Wish>),
    Extend(&'static str, Notation, From),
    /// The operator's word.
    Unban(Notation, From),
    UnbanOf(&'static str, Notation, From),
    Flush(&'static str),
    ReplaceNeverBan(&'static str, Vec<Notation>),
    RemoveNeverBan(Vec<Notation>),
    /// The run waits until all short bans have ended.
    Wait,
    /// Both programs end and start again.
    Reopen,
}

/// The port of a ban, or all ports.
pub(crate) type From = Option<&'static str>;

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) target: Notation,
    pub(crate) from: From,
    pub(crate) lasts: Lasts,
    pub(crate) source: &'static str,
    /// A ban that a list without the never-ban entries has admitted. The kernel still has the
    /// entries.
    pub(crate) unasked: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Lasts {
    Short,
    Hours(u64),
    Ever,
}

/// Returns sequences of steps. Each uses a few of the targets and entries, so that they meet often.
pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let few = (subsequence(TARGETS.to_vec(), 2..=6), subsequence(NEVER_BAN.to_vec(), 3));
    few.prop_flat_map(|(targets, entries)| {
        let action = (0..2_usize, steps(targets, entries));
        vec(action.prop_map(|(by, step)| Action { by, step }), 1..30)
    })
}

fn steps(targets: Vec<Notation>, entries: Vec<Notation>) -> impl Strategy<Value = Step> {
    let target = move || select(targets.clone());
    let entries = move || subsequence(entries.clone(), 0..=2);
    let source = || select(&SOURCES[..]);
    let wishes = |len| vec(wish(target()), len);
    prop_oneof![
        12 => wish(target()).prop_map(Step::Ban),
        5 => wishes(1..7).prop_map(Step::BanAll),
        2 => (source(), wishes(0..7)).prop_map(|(source, list)| Step::Replace(source, list)),
        4 => (source(), target(), from())
            .prop_map(|(source, target, from)| Step::Extend(source, target, from)),
        3 => (target(), from()).prop_map(|(target, from)| Step::Unban(target, from)),
        5 => (source(), target(), from())
            .prop_map(|(source, target, from)| Step::UnbanOf(source, target, from)),
        1 => source().prop_map(Step::Flush),
        3 => (select(&REASONS[..]), entries())
            .prop_map(|(reason, entries)| Step::ReplaceNeverBan(reason, entries)),
        2 => entries().prop_map(Step::RemoveNeverBan),
        3 => Just(Step::Wait),
        2 => Just(Step::Reopen),
    ]
}

fn wish(target: impl Strategy<Value = Notation>) -> impl Strategy<Value = Wish> {
    let lasts = prop_oneof![
        3 => Just(Lasts::Short),
        7 => (1..6_u64).prop_map(Lasts::Hours),
        2 => Just(Lasts::Ever),
    ];
    (target, from(), lasts, select(&SOURCES[..]), any::<bool>()).prop_map(
        |(target, from, lasts, source, unasked)| Wish { target, from, lasts, source, unasked },
    )
}

fn from() -> impl Strategy<Value = From> {
    option::weighted(0.3, select(&PORTS[..2]))
}
