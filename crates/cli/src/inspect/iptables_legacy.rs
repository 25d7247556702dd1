//! Rules of the legacy iptables. No netlink protocol lists them, so this reads the text of
//! `iptables-legacy-save`.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use nfguard_netlink::build::{self, End, REG};
use nfguard_netlink::{
    Base, ChainPolicy, CmpOp, CtKey, Expr, Family, ForeignChain, ForeignRule, ForeignTable, Hook,
    IpVersion, MetaKey, Nat, Reject, Verdict, ct_state, fib_type,
};

/// Returns the tables of the text.
pub(crate) fn parse(text: &str, family: Family) -> Vec<ForeignTable> {
    let mut tables: Vec<ForeignTable> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let name = format!("{name} (iptables-legacy)");
            tables.push(ForeignTable { family, name, chains: Vec::new(), sets: Vec::new() });
            continue;
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            table.chains.extend(parse_chain(chain, &table.name));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let Some((name, words)) = words.split_first() else { continue };
            let chains: Vec<String> = table.chains.iter().map(|chain| chain.name.clone()).collect();
            if let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == *name) {
                chain.rules.extend(parse_rule(words, family, &chains));
            }
        }
    }
    tables
}

/// Tells whether one of these tables has a rule or drops by its policy. The kernel creates empty
/// tables as soon as a program looks for them.
pub(crate) fn holds_rules(tables: &[ForeignTable]) -> bool {
    tables.iter().flat_map(|table| &table.chains).any(|chain| {
        !chain.rules.is_empty() || chain.base.is_some_and(|base| base.policy == ChainPolicy::Drop)
    })
}

/// `INPUT DROP [0:0]`
fn parse_chain(text: &str, table: &str) -> Option<ForeignChain> {
    let (name, rest) = text.split_once(' ')?;
    let is_nat = table.starts_with("nat ");
    let hook = match name {
        "PREROUTING" => Some(Hook::Prerouting),
        "INPUT" => Some(Hook::Input),
        "FORWARD" => Some(Hook::Forward),
        "OUTPUT" => Some(Hook::Output),
        "POSTROUTING" => Some(Hook::Postrouting),
        _ => None,
    };
    let priority = match table.split(' ').next() {
        Some("raw") => -300,
        Some("mangle") => -150,
        Some("nat") if hook == Some(Hook::Prerouting) => -100,
        Some("nat") => 100,
        _ => 0,
    };
    let policy = if rest.starts_with("DROP") { ChainPolicy::Drop } else { ChainPolicy::Accept };
    // Only base chains have a policy.
    let base = hook.filter(|_| !rest.starts_with('-')).map(|hook| Base { hook, priority, policy });
    Some(ForeignChain { name: name.to_owned(), base, is_nat, rules: Vec::new() })
}

/// Returns one rule, or one rule for each port of a list.
fn parse_rule(words: &[String], family: Family, chains: &[String]) -> Vec<ForeignRule> {
    let at = words.iter().position(|word| word == "--dports").unwrap_or(words.len());
    let inverted = at > 0 && words.get(at - 1).is_some_and(|word| word == "!");
    let Some(list) = words.get(at + 1).filter(|_| !inverted) else {
        return vec![parse_one(words, family, chains)];
    };
    let with = |ports: &str| {
        let mut words = words.to_vec();
        words.splice(at..at + 2, ["--dport".to_owned(), ports.to_owned()]);
        parse_one(&words, family, chains)
    };
    list.split(',').map(with).collect()
}

fn parse_one(words: &[String], family: Family, chains: &[String]) -> ForeignRule {
    let mut rule = ForeignRule::default();
    let mut rest = words.iter().map(String::as_str).peekable();
    let (mut inverted, mut has_target) = (false, false);
    while let Some(word) = rest.next() {
        if word == "!" {
            inverted = true;
            continue;
        }
        let is_option = |word: &&str| word.starts_with('-') || *word == "!";
        let value = rest.next_if(|word| !is_option(word)).unwrap_or_default();
        let op = if inverted { CmpOp::Neq } else { CmpOp::Eq };
        inverted = false;
        let exprs = match word {
            "-j" | "-g" => {
                has_target = true;
                target(value, chains, &mut rule.nat)
            }
            "--to-destination" => {
                rule.nat = Some(destination(value));
                Some(Vec::new())
            }
            // An option of the target.
            _ if has_target => Some(Vec::new()),
            "-m" | "--comment" => Some(Vec::new()),
            "-p" => protocol(value, op),
            "-s" => address(value, op, family, End::Source),
            "-d" => address(value, op, family, End::Destination),
            "-i" => Some(interface(MetaKey::Iifname, value, op)),
            "-o" => Some(interface(MetaKey::Oifname, value, op)),
            "--sport" => ports(value, op, End::Source),
            "--dport" => ports(value, op, End::Destination),
            "--ctstate" | "--state" => states(value, op),
            "--dst-type" if value == "LOCAL" => {
                let data = fib_type::LOCAL.to_ne_bytes().to_vec();
                Some(vec![Expr::FibDaddrType { reg: REG }, Expr::Cmp { reg: REG, op, data }])
            }
            _ => None,
        };
        rule.exprs.extend(exprs.unwrap_or_else(|| vec![opaque("match")]));
    }
    rule
}

/// Returns an expression for what nfguard does not know.
fn opaque(name: &str) -> Expr {
    Expr::Unknown { name: name.to_owned(), data: Vec::new() }
}

fn target(name: &str, chains: &[String], nat: &mut Option<Nat>) -> Option<Vec<Expr>> {
    let verdict = match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "REJECT" => return Some(vec![Expr::Reject(Reject::PortUnreachable)]),
        "MASQUERADE" | "SNAT" => {
            *nat = Some(Nat::Source);
            return Some(Vec::new());
        }
        // The packet continues with the next rule. `--to-destination` holds the target of DNAT.
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "TCPMSS" | "CT" | "SET" | "DNAT" => {
            return Some(Vec::new());
        }
        name if chains.iter().any(|chain| chain == name) => Verdict::Jump(name.to_owned()),
        _ => return Some(vec![opaque("target")]),
    };
    Some(vec![Expr::Verdict(verdict)])
}

/// `172.17.0.2:8080`, `[2001:db8::2]:8080`, or without a port.
fn destination(text: &str) -> Nat {
    let both = text.parse::<SocketAddr>().ok();
    let address = both.map(|both| both.ip()).or_else(|| text.parse().ok());
    Nat::Destination { address, port: both.map(|both| both.port()) }
}

fn protocol(name: &str, op: CmpOp) -> Option<Vec<Expr>> {
    let name = if name == "ipv6-icmp" { "icmpv6" } else { name };
    let number = nfguard_policy::protocol_number(name)?;
    Some(build::compare(build::meta(MetaKey::L4proto), op, vec![number]))
}

fn address(text: &str, op: CmpOp, family: Family, end: End) -> Option<Vec<Expr>> {
    let network: IpNetwork = text.parse().ok()?;
    let bytes = |address| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let version = if family == Family::Ip6 { IpVersion::V6 } else { IpVersion::V4 };
    let mut exprs = vec![build::address(version, end)];
    let (data, mask) = (bytes(network.network()), bytes(network.mask()));
    if mask.iter().any(|byte| *byte != 0xff) {
        exprs.push(Expr::Bitwise { reg: REG, xor: vec![0; mask.len()], mask });
    }
    exprs.push(Expr::Cmp { reg: REG, op, data });
    Some(exprs)
}

/// `br-+` is each interface whose name begins with `br-`.
fn interface(key: MetaKey, name: &str, op: CmpOp) -> Vec<Expr> {
    let mut data = name.trim_end_matches('+').as_bytes().to_vec();
    if !name.ends_with('+') {
        data.push(0);
    }
    build::compare(build::meta(key), op, data)
}

/// `80` or `8000:8100`
fn ports(text: &str, op: CmpOp, end: End) -> Option<Vec<Expr>> {
    let load = build::port(end);
    let number = |text: &str| text.parse::<u16>().ok().map(|port| port.to_be_bytes().to_vec());
    let Some((first, last)) = text.split_once(':') else {
        return Some(build::compare(load, op, number(text)?));
    };
    (op == CmpOp::Eq).then_some(())?;
    let mut exprs = build::compare(load, CmpOp::Gte, number(first)?);
    exprs.push(Expr::Cmp { reg: REG, op: CmpOp::Lte, data: number(last)? });
    Some(exprs)
}

/// `RELATED,ESTABLISHED`
fn states(text: &str, op: CmpOp) -> Option<Vec<Expr>> {
    let mut mask = 0;
    for word in text.split(',') {
        mask |= match word {
            "INVALID" => ct_state::INVALID,
            "ESTABLISHED" => ct_state::ESTABLISHED,
            "RELATED" => ct_state::RELATED,
            "NEW" => ct_state::NEW,
            "UNTRACKED" => ct_state::UNTRACKED,
            _ => return None,
        };
    }
    let is_set = if op == CmpOp::Eq { CmpOp::Neq } else { CmpOp::Eq };
    let (mask, xor) = (mask.to_ne_bytes().to_vec(), vec![0; 4]);
    Some(vec![
        Expr::Ct { key: CtKey::State, reg: REG },
        Expr::Bitwise { reg: REG, mask, xor },
        Expr::Cmp { reg: REG, op: is_set, data: vec![0; 4] },
    ])
}

/// Splits at spaces outside of quotes. Within quotes a backslash protects a quote.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut any) = (String::new(), false, false);
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => (quoted, any) = (!quoted, true),
            '\\' if quoted => word.extend(chars.next()),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            char => {
                word.push(char);
                any = true;
            }
        }
    }
    words.extend(Some(word).filter(|_| any));
    words
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const DOCKER: &str = "# Generated by iptables-save\n*filter\n:FORWARD DROP [1:60]\n:DOCKER - [0:0]\n\
        -A FORWARD -m comment --comment \"a \\\"-j DROP\\\"\" -o docker0 -j DOCKER\nCOMMIT\n*nat\n\
        :PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n:OTHER - [0:0]\n\
        -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
        -A DOCKER -i docker0 -j RETURN\n\
        -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8080\n\
        -A DOCKER -d 127.0.0.1/32 ! -i br-1 -p udp -m udp --dport 5000:5010 -j DNAT --to-destination 172.18.0.2\n\
        -A OTHER -p tcp -m tcp --dport 9 -j DNAT --to-destination 172.17.0.9:9\nCOMMIT\n";

    #[test]
    fn what_docker_publishes_is_found_in_the_text_of_the_legacy_program() {
        let tables = parse(DOCKER, Family::Ip);
        let [filter, nat] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!(filter.chains[0].rules[0].exprs.len(), 3, "{filter:?}");
        let published = nat.published();
        let [web, udp] = published.as_slice() else { panic!("{published:?}") };
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!((web.protocol, web.ports, web.on), (6, (80, 80), None));
        assert_eq!((web.to, web.to_port), (address("172.17.0.2"), Some(8080)));
        assert_eq!(
            (udp.protocol, udp.ports, udp.on),
            (17, (5000, 5010), Some(address("127.0.0.1")))
        );
        assert_eq!((udp.to, udp.to_port), (address("172.18.0.2"), None));
        assert!(holds_rules(&tables));
    }

    #[test]
    fn tables_that_were_only_looked_at_hold_no_rules() {
        let text = "*filter\n:INPUT ACCEPT [9:9]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
        assert!(!holds_rules(&parse(text, Family::Ip)));
    }
}
