//! Ports: the reading and the schema of numbers, ranges and service names, and their merging.

use std::ops::{Index, IndexMut};

use schemars::json_schema;

use crate::json::document::Problems;
use crate::json::reader::{FromJson, Node, schema, shown};
use crate::json::services::{self, Service};
use crate::json::suggest::quoted;
use crate::policy::{Ports, Transport};

const EXPECTED: &str =
    "a port from 1 to 65535, a range like \"8000-8100\" or a service like \"https\"";

/// One element of a list of ports.
#[derive(Clone, Debug)]
pub(crate) enum PortItem {
    /// First and last port.
    Range(u16, u16),
    Service(String, Service),
}

impl PortItem {
    /// Returns the text for the name of a rule.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Range(low, high) if low == high => low.to_string(),
            Self::Range(low, high) => format!("{low}-{high}"),
            Self::Service(name, _) => name.clone(),
        }
    }

    /// Returns the ports in TCP and in UDP.
    pub(crate) fn ranges(&self) -> PerTransport<Option<(u16, u16)>> {
        match self {
            Self::Range(low, high) => {
                let range = Some((*low, *high));
                PerTransport { tcp: range, udp: range }
            }
            Self::Service(_, service) => PerTransport {
                tcp: service.tcp.map(|port| (port, port)),
                udp: service.udp.map(|port| (port, port)),
            },
        }
    }
}

/// One value for TCP and one for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerTransport<T> {
    pub(crate) tcp: T,
    pub(crate) udp: T,
}

impl<T> PerTransport<T> {
    pub(crate) fn from_fn(mut make: impl FnMut(Transport) -> T) -> Self {
        Self { tcp: make(Transport::Tcp), udp: make(Transport::Udp) }
    }
}

impl<T> Index<Transport> for PerTransport<T> {
    type Output = T;

    fn index(&self, transport: Transport) -> &T {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        }
    }
}

impl<T> IndexMut<Transport> for PerTransport<T> {
    fn index_mut(&mut self, transport: Transport) -> &mut T {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }
}

impl FromJson for PortItem {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        if node.value.as_number_lit().is_some() {
            let port = node.integer(problems, 1..=65_535, "a port")?;
            return u16::try_from(port).ok().map(|port| Self::Range(port, port));
        }
        let text = node.text(problems, EXPECTED)?;
        if let Some(service) = services::lookup(text) {
            return Some(Self::Service(text.to_owned(), service));
        }
        let wrong = |problems: &mut Problems, suggestion| {
            let message = format!("found {}; expected {EXPECTED}", shown(text));
            node.error_suggesting(problems, message, suggestion);
            None
        };
        // A text that begins with a letter is the name of a service.
        if text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let message = format!("unknown service {}; expected {EXPECTED}", shown(text));
            node.error_suggesting(problems, message, services::suggest(text));
            return None;
        }
        let separator = text.find([':', '-']);
        let (low, high) = match separator {
            Some(at) => (text.get(..at).unwrap_or(""), text.get(at + 1..).unwrap_or("")),
            None => (text, text),
        };
        let (Some(low), Some(high)) = (port_number(low), port_number(high)) else {
            return wrong(problems, None);
        };
        if low > high {
            return wrong(problems, Some(quoted(&format!("{high}-{low}"))));
        }
        if text.contains(':') {
            return wrong(problems, Some(quoted(&format!("{low}-{high}"))));
        }
        Some(Self::Range(low, high))
    }
}

/// Reads a port number without sign and leading zeros.
fn port_number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

schema!(PortItem as "port": |_| {
    json_schema!({
        "description": "A port, a range like `8000-8100` or the name of a service.",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "enum": services::names().collect::<Vec<_>>() },
            { "type": "string", "pattern": "^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$" },
        ],
    })
});

impl Ports {
    /// Sorts and merges ranges.
    pub(crate) fn from_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (low, high) in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }
}
