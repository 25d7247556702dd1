//! Service names and their ports, as `/etc/services` lists them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::suggest;

/// Under which port a service is listed for each of the two protocols; one of them at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) tcp: Option<u16>,
    pub(crate) udp: Option<u16>,
}

static TABLE: LazyLock<BTreeMap<&'static str, Service>> = LazyLock::new(|| {
    let lines = include_str!("services.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let name = fields.next()?;
            let mut port = || fields.next().and_then(|port| port.parse().ok());
            Some((name, Service { tcp: port(), udp: port() }))
        })
        .collect()
});

/// The service of a name or an alias.
pub(crate) fn lookup(name: &str) -> Option<Service> {
    TABLE.get(name).copied()
}

/// Every name and alias, sorted.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}

/// What an unknown name was probably meant to be.
pub(crate) fn suggest(name: &str) -> Option<String> {
    suggest::nearest_text(name, names())
}
