//! Service names and their ports, as `/etc/services` lists them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::json::suggest;

/// The ports that a service is listed for. At least one of the two is `Some`.
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

/// Returns the service of a name or an alias.
pub(crate) fn lookup(name: &str) -> Option<Service> {
    TABLE.get(name).copied()
}

/// Returns the ports of a service in TCP and in UDP, by its name or an alias. A service that is known
/// has at least one.
#[must_use]
pub fn service_ports(name: &str) -> (Option<u16>, Option<u16>) {
    lookup(name).map_or((None, None), |service| (service.tcp, service.udp))
}

/// Returns every name and alias, sorted.
pub(crate) fn names() -> impl Iterator<Item = &'static str> + Clone {
    TABLE.keys().copied()
}

/// Returns the service that an unknown name was probably meant to be, as JSON.
pub(crate) fn suggest(name: &str) -> Option<String> {
    suggest::nearest_text(name, names())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns name, index of the protocol, and port of each entry of a services file, with aliases.
    fn listed(text: &str) -> Vec<(String, usize, u16)> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        lines
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next()?;
                let (port, protocol) = words.next()?.split_once('/')?;
                let protocol = ["tcp", "udp"].iter().position(|known| *known == protocol)?;
                let port: u16 = port.parse().ok()?;
                let names = std::iter::once(name).chain(words).map(str::to_owned);
                Some(names.map(|name| (name, protocol, port)).collect::<Vec<_>>())
            })
            .flatten()
            .collect()
    }

    #[test]
    fn every_service_of_the_host_is_known_by_the_same_port() {
        let Ok(text) = std::fs::read_to_string("/etc/services") else { return };
        let mut table: BTreeMap<String, [Option<u16>; 2]> =
            TABLE.iter().map(|(name, it)| ((*name).to_owned(), [it.tcp, it.udp])).collect();
        let mut wrong = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (name, protocol, port) in listed(&text) {
            if !seen.insert((name.clone(), protocol)) {
                continue;
            }
            let known = &mut table.entry(name.clone()).or_default()[protocol];
            if *known != Some(port) {
                wrong.push(format!("{name}: {port}, here {known:?}"));
                known.get_or_insert(port);
            }
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let header = include_str!("services.tsv").lines().filter(|line| line.starts_with('#'));
            let port = |port: Option<u16>| port.map_or("-".to_owned(), |port| port.to_string());
            let lines = table
                .iter()
                .map(|(name, [tcp, udp])| format!("{name}\t{}\t{}", port(*tcp), port(*udp)));
            let text: String =
                header.map(str::to_owned).chain(lines).map(|line| line + "\n").collect();
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/json/services.tsv");
            std::fs::write(path, text).unwrap();
        }
        assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 adds new names: {wrong:?}");
    }

    #[test]
    fn aliases_and_dns_are_services() {
        assert_eq!(lookup("dns"), Some(Service { tcp: Some(53), udp: Some(53) }));
        assert_eq!(lookup("www"), lookup("http"));
        assert_eq!(lookup("https"), Some(Service { tcp: Some(443), udp: Some(443) }));
        assert_eq!(lookup("ssh"), Some(Service { tcp: Some(22), udp: None }));
        assert_eq!(lookup("htps"), None);
    }

    #[test]
    fn every_line_of_the_table_is_a_service() {
        let lines = include_str!("services.tsv").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.count(), TABLE.len());
        assert!(TABLE.values().all(|service| service.tcp.or(service.udp).is_some()));
    }
}
