//! Rules by the port that they are for. Of a thousand published ports, each has rules of its own.

use std::collections::HashMap;

use super::Packet;
use crate::model::{Chain, CmpOp, Expr, Header, Reg, Rule, Table};

/// The rules of each chain by the only destination port that they can match, for a table that many
/// packets are evaluated in.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortIndex(HashMap<String, RulesByPort>);

#[derive(Clone, Debug, Default)]
struct RulesByPort {
    /// The indices of the rules for any port, or for several.
    any: Vec<usize>,
    one: HashMap<u16, Vec<usize>>,
}

impl PortIndex {
    pub(crate) fn of(table: &Table) -> PortIndex {
        let chains = table.chains.iter().map(|chain| {
            let mut rules = RulesByPort::default();
            for (index, rule) in chain.rules.iter().enumerate() {
                match only_port(rule) {
                    Some(port) => rules.one.entry(port).or_default().push(index),
                    None => rules.any.push(index),
                }
            }
            (chain.name.clone(), rules)
        });
        PortIndex(chains.collect())
    }

    /// Returns the indices of the chain's rules that may match this packet, in order.
    pub(super) fn candidates(&self, chain: &Chain, packet: &Packet) -> Vec<usize> {
        let Some(rules) = self.0.get(&chain.name) else { return (0..chain.rules.len()).collect() };
        let port = packet.transport.get(2..4).and_then(|port| port.try_into().ok());
        let one = port.and_then(|port| rules.one.get(&u16::from_be_bytes(port)));
        let mut all = rules.any.clone();
        all.extend(one.into_iter().flatten());
        all.sort_unstable();
        all
    }
}

/// Returns the only destination port that the rule can match; `None` if it can match several.
fn only_port(rule: &Rule) -> Option<u16> {
    let (mut loaded, mut range) = (None::<Reg>, (0, u16::MAX));
    for expr in &rule.exprs {
        match expr {
            Expr::Payload { header: Header::Transport, offset: 2, len: 2, reg } => {
                loaded = Some(*reg);
            }
            Expr::Cmp { reg, op, data } if loaded == Some(*reg) => {
                let port = u16::from_be_bytes(data.as_slice().try_into().ok()?);
                match op {
                    CmpOp::Eq => return Some(port),
                    CmpOp::Gte => range.0 = port,
                    CmpOp::Lte => range.1 = port,
                    _ => {}
                }
            }
            // Another value may be in the register, or in one that overlaps with it.
            Expr::Cmp { .. } | Expr::Counter(_) | Expr::Count | Expr::Verdict(_) => {}
            _ => loaded = None,
        }
    }
    (range.0 == range.1).then_some(range.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{self, End};
    use crate::eval::{Memory, evaluate, evaluate_indexed};
    use crate::model::{Base, ChainPolicy, Hook, Verdict};
    use crate::protocol::TCP;

    #[test]
    fn a_table_with_an_index_does_what_it_does_without() {
        let to = |op, port: u16| Expr::Cmp { reg: build::REG, op, data: port.to_be_bytes().into() };
        let rule = |load: Expr, compared: &[Expr], verdict: Verdict| {
            let exprs = [&[load], compared, &[Expr::Verdict(verdict)]].concat();
            Rule { exprs, comment: None }
        };
        let port = || build::port(End::Destination);
        let jump = Verdict::Jump("more".to_owned());
        let rules = vec![
            rule(port(), &[to(CmpOp::Eq, 80)], Verdict::Accept),
            rule(port(), &[to(CmpOp::Gte, 90), to(CmpOp::Lte, 90)], Verdict::Drop),
            rule(port(), &[to(CmpOp::Gte, 85), to(CmpOp::Lte, 95)], jump),
            // The source port is no destination port.
            rule(build::port(End::Source), &[to(CmpOp::Eq, 99)], Verdict::Drop),
            rule(port(), &[to(CmpOp::Neq, 97)], Verdict::Accept),
        ];
        let more = vec![
            rule(port(), &[to(CmpOp::Eq, 88)], Verdict::Drop),
            rule(port(), &[to(CmpOp::Eq, 89)], Verdict::Return),
        ];
        let base = Base { hook: Hook::Input, priority: 0, policy: ChainPolicy::Drop };
        let chains = vec![
            Chain { name: "in".into(), base: Some(base), rules, ..Chain::default() },
            Chain { name: "more".into(), rules: more, ..Chain::default() },
        ];
        let table = Table { chains, ..Table::default() };
        let index = PortIndex::of(&table);
        for source in [98, 99] {
            for destination in 78..100 {
                let [from, to] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(std::net::IpAddr::from);
                let packet = Packet::new(from, to, TCP, (source, destination));
                let memory = &mut Memory::default();
                let plain = evaluate(&table, Hook::Input, &packet, memory);
                let indexed = evaluate_indexed(&table, Some(&index), Hook::Input, &packet, memory);
                assert_eq!(indexed, plain, "{source} {destination}");
            }
        }
        let packet = Packet::icmp([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 8);
        let chain = table.chain("in").expect("a chain");
        assert_eq!(index.candidates(chain, &packet).len(), 3);
    }
}
