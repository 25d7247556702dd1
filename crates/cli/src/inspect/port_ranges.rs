//! Ranges of ports: where rules split them, and what receives them. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use nfguard_netlink::{CmpOp, Expr, Key, KeyType, Set, Table};

/// The address and the ports that receive what comes for a port, or for a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    /// First and last. One port receives all of a range, or as many ports as the range has.
    pub(crate) ports: (u16, u16),
}

impl From<SocketAddr> for Target {
    fn from(to: SocketAddr) -> Target {
        Target { address: to.ip(), ports: (to.port(), to.port()) }
    }
}

impl Target {
    /// Returns what receives a part of these ports.
    pub(crate) fn part(self, ports: (u16, u16), part: (u16, u16)) -> Target {
        if self.ports.0 == self.ports.1 {
            return self;
        }
        let first = self.ports.0.saturating_add(part.0 - ports.0);
        Target { ports: (first, first.saturating_add(part.1 - part.0)), ..self }
    }

    /// Returns what receives these ports and the next ones; `None` if that is not one range of as many
    /// ports, and not one port for all.
    pub(crate) fn with(
        self,
        ports: (u16, u16),
        next: Target,
        next_ports: (u16, u16),
    ) -> Option<Target> {
        let is_one = |target: Target| target.ports.0 == target.ports.1;
        if self.address != next.address {
            None
        } else if self == next && is_one(self) {
            Some(self)
        } else {
            let is_parallel = |target: Target, ports: (u16, u16)| {
                target.ports.1 - target.ports.0 == ports.1 - ports.0
            };
            let follows = self.ports.1.checked_add(1) == Some(next.ports.0);
            let is_range = follows && is_parallel(self, ports) && is_parallel(next, next_ports);
            is_range.then_some(Target { ports: (self.ports.0, next.ports.1), ..self })
        }
    }
}

/// `172.17.0.2:8080`, `[2001:db8::2]:8000-8100`
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.ports;
        write!(f, "{}", SocketAddr::new(self.address, first))?;
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

/// Returns all ports as ranges, first and last, that no rule of the table splits.
pub(crate) fn intervals(table: &Table) -> Vec<(u16, u16)> {
    cut((1, u16::MAX), &starts_in(table))
}

/// Returns the ports at which a verdict of the table may change, in order. Port 0 is reserved.
pub(crate) fn starts_in(table: &Table) -> Vec<u16> {
    let exprs = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    let mut starts = starts(exprs, &table.sets);
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Returns the ports at which a verdict by these expressions may change.
pub(crate) fn starts<'a>(exprs: impl IntoIterator<Item = &'a Expr>, sets: &[Set]) -> Vec<u16> {
    let mut starts = Vec::new();
    let number = |port: &[u8]| port.try_into().ok().map(u16::from_be_bytes);
    let mut at = |port: &[u8]| starts.extend(number(port));
    let mut after = Vec::new();
    for expr in exprs {
        match expr {
            Expr::Cmp { op: CmpOp::Eq | CmpOp::Neq, data, .. } => {
                at(data);
                after.extend(number(data));
            }
            Expr::Cmp { op: CmpOp::Lt | CmpOp::Gte, data, .. } => at(data),
            Expr::Cmp { op: CmpOp::Lte | CmpOp::Gt, data, .. } => after.extend(number(data)),
            _ => {}
        }
    }
    for set in sets.iter().filter(|set| set.key == [KeyType::InetService]) {
        for element in &set.elements {
            let (Key::Value(last) | Key::Range(_, last)) = &element.key;
            let (Key::Value(first) | Key::Range(first, _)) = &element.key;
            at(first);
            after.extend(number(last));
        }
    }
    starts.extend(after.into_iter().filter_map(|last: u16| last.checked_add(1)));
    starts.retain(|port| *port > 0);
    starts
}

/// Cuts a range before each of these ports, which are in ascending order.
pub(crate) fn cut((first, last): (u16, u16), cuts: &[u16]) -> Vec<(u16, u16)> {
    let from = cuts.partition_point(|cut| *cut <= first);
    let inside = cuts.iter().skip(from).take_while(|cut| **cut <= last).copied();
    let starts: Vec<u16> = [first].into_iter().chain(inside).collect();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([last]);
    starts.iter().copied().zip(ends).collect()
}
