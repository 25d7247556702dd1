//! Policies with a given number of rules.

use std::fmt::Write as _;

/// The kind of the rules of a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Rules with one port each.
    Ports,
    /// Rules with one source prefix each.
    Prefixes,
    /// Rules with two ports and four source prefixes each, thus three sets of their own.
    Lists,
    /// One rule with all source prefixes.
    OneList,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Ports, Kind::Prefixes, Kind::Lists, Kind::OneList];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::Ports => "N rules, a port each",
            Kind::Prefixes => "N rules, a source prefix each",
            Kind::Lists => {
                "N rules, each with two ports and four source prefixes: three sets for each, and \
                 the kernel finds a set by looking at all"
            }
            Kind::OneList => "One rule with N source prefixes",
        }
    }

    /// Returns the numbers of rules. The kernel searches the sets of a table one by one, so ten
    /// thousand rules with sets of their own take every program more than a minute.
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            Kind::Lists => &[10, 100, 1_000],
            Kind::Ports | Kind::Prefixes | Kind::OneList => &[10, 100, 1_000, 10_000],
        }
    }

    /// Returns a policy with `n` of these, and a rule for SSH, so that nfguard prints no warning.
    pub(crate) fn policy(self, n: usize) -> String {
        let mut rules = r#"{ "action": "allow", "proto": "tcp", "port": 22 }"#.to_owned();
        let mut add = |port: &str, from: &str| {
            let _ = write!(
                rules,
                ",\n    {{ \"action\": \"allow\", \"proto\": \"tcp\", \"port\": [{port}]{from} }}"
            );
        };
        let list = |prefixes: Vec<String>| format!(", \"from\": [{}]", prefixes.join(", "));
        match self {
            Kind::Ports => (0..n).for_each(|i| add(&(1024 + i).to_string(), "")),
            Kind::Prefixes => {
                (0..n).for_each(|i| add("443", &list(vec![format!("\"{}.0/24\"", network(i))])));
            }
            Kind::Lists => (0..n).for_each(|i| {
                let prefixes = (0..4).map(|j| format!("\"{}.{}/27\"", network(i), j * 64));
                let ports = format!("{}, {}", 1024 + i, 20_000 + 2 * i);
                add(&ports, &list(prefixes.collect()));
            }),
            // Halves of networks, so that two of them never merge.
            Kind::OneList => {
                add("443", &list((0..n).map(|i| format!("\"{}.0/25\"", network(i))).collect()));
            }
        }
        format!("{{\n  \"version\": 1,\n  \"rules\": [\n    {rules}\n  ]\n}}\n")
    }
}

/// Returns the first three bytes of the `i`th network of 10.0.0.0/8.
fn network(i: usize) -> String {
    format!("10.{}.{}", i >> 8, i & 255)
}
