//! Random sequences of ufw commands, each from a seed.

/// A sequence of ufw commands, and the default policies that result.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    pub(crate) commands: Vec<String>,
    /// The number of commands that the previous rule set already had.
    pub(crate) given: usize,
    /// The defaults for incoming, outgoing and routed packets.
    pub(crate) defaults: [&'static str; 3],
    pub(crate) seed: u64,
}

/// The tested combinations of defaults. Each needs an enabled real ufw.
const DEFAULTS: [[&str; 3]; 6] = [
    ["deny", "allow", "deny"],
    ["deny", "allow", "deny"],
    ["reject", "allow", "reject"],
    ["deny", "deny", "deny"],
    ["allow", "allow", "allow"],
    ["deny", "reject", "allow"],
];

/// The ports of rules, and of packets.
pub(crate) const PORTS: [u16; 10] = [22, 25, 53, 80, 443, 6000, 6003, 6004, 8080, 8081];

const PORT_WORDS: [&str; 7] = ["22", "25", "53", "80", "443", "8080", "8081"];
const MANY_PORTS: [&str; 5] =
    ["6000:6003", "80,443", "22,6000:6004", "25,53,8080:8081", "443,6004,8081"];
const SERVICES: [&str; 4] = ["ssh", "smtp", "domain", "http"];

/// The sources in rules.
const SOURCES: [&str; 8] = [
    "203.0.113.0/25",
    "203.0.113.128/25",
    "192.0.2.0/24",
    "192.0.2.64/26",
    "192.0.2.7",
    "2001:db8:a::/48",
    "2001:db8:a:100::/57",
    "2001:db8:b:5::5",
];

/// The destinations in rules: this host, its container, other hosts.
const TARGETS: [&str; 8] = [
    "198.51.100.2",
    "198.51.100.0/24",
    "172.17.0.2",
    "192.0.2.128/25",
    "2001:db8:1::2",
    "2001:db8:1::/64",
    "2001:db8:d0c::/64",
    "2001:db8:7::/48",
];

/// The offset of the second seed, far from the seeds of other rule sets.
const SECOND: u64 = 1 << 40;

const APPS: [&str; 4] = ["OpenSSH", "'Test Web'", "'WWW Full'", "Deluge"];

impl RuleSet {
    /// Returns a rule set, and the same rule set after a few more commands.
    pub(crate) fn generate_two(seed: u64) -> [RuleSet; 2] {
        let mut dice = Dice(seed);
        let defaults = dice.of(&DEFAULTS);
        let mut commands: Vec<String> = ["incoming", "outgoing", "routed"]
            .iter()
            .zip(["deny", "allow", "deny"])
            .zip(defaults)
            .filter(|((_, shipped), wanted)| shipped != wanted)
            .map(|((way, _), wanted)| format!("default {wanted} {way}"))
            .collect();
        let mut rules = Vec::new();
        let mut add = |commands: &mut Vec<String>| {
            for _ in 0..4 + dice.below(2) {
                commands.push(command(&mut dice, &mut rules));
            }
        };
        add(&mut commands);
        let one = RuleSet { commands, defaults, seed, given: 0 };
        let mut other = RuleSet { given: one.commands.len(), seed: seed + SECOND, ..one.clone() };
        add(&mut other.commands);
        [one, other]
    }

    /// Reports whether the ICMP errors of this host can always leave.
    pub(crate) fn errors_leave(&self) -> bool {
        let refuses_out = |command: &String| {
            let is_out = command.contains(" out ") && !command.starts_with("route");
            is_out && !command.contains("allow out")
        };
        self.defaults[1] == "allow" && !self.commands.iter().any(refuses_out)
    }
}

/// Returns a command that adds or deletes a rule.
fn command(dice: &mut Dice, rules: &mut Vec<String>) -> String {
    let (is_delete, is_insert) = (dice.once_in(9), dice.once_in(5));
    if is_delete && rules.len() > 1 {
        return if dice.once_in(2) {
            format!("--force delete {}", 1 + dice.below(rules.len()))
        } else {
            as_deletion(&rules[dice.below(rules.len())])
        };
    }
    let rule = rule(dice);
    rules.push(rule.clone());
    match (is_insert, dice.once_in(2), rule.strip_prefix("route ")) {
        (true, true, None) => format!("prepend {rule}"),
        (true, true, Some(rule)) => format!("route prepend {rule}"),
        (true, false, None) => format!("insert 1 {rule}"),
        (true, false, Some(rule)) => format!("route insert 1 {rule}"),
        (false, ..) => rule,
    }
}

fn as_deletion(rule: &str) -> String {
    let rule = rule.split(" comment ").next().expect("there is a first part");
    match rule.strip_prefix("route ") {
        Some(rule) => format!("route delete {rule}"),
        None => format!("delete {rule}"),
    }
}

fn rule(dice: &mut Dice) -> String {
    let action = dice.of(&["allow", "allow", "allow", "deny", "reject", "limit"]);
    let mut words: Vec<String> = Vec::new();
    match dice.below(10) {
        // The short syntax: a port, a service or a profile.
        0 => words.push(format!("{action} {}", dice.of(&SERVICES))),
        1 => words.push(format!("{action} {}", dice.of(&APPS))),
        2 | 3 => {
            let way = dice.of(&["", "", " in", " out"]);
            let port = ports(dice);
            words.push(format!("{action}{way} {port}"));
        }
        4 | 5 => {
            let action = if action == "limit" { "allow" } else { action };
            words.push(format!("route {action}"));
            words.extend(
                dice.once_in(2).then(|| format!("in on {}", dice.of(&["eth0", "docker0"]))),
            );
            words.extend(
                dice.once_in(3).then(|| format!("out on {}", dice.of(&["eth0", "docker+"]))),
            );
            long(dice, &mut words);
        }
        6 => {
            let action = if action == "limit" { "reject" } else { action };
            words.push(format!("{action} out"));
            words.extend(dice.once_in(3).then(|| format!("on {}", dice.of(&["eth0", "docker0"]))));
            long(dice, &mut words);
        }
        _ => {
            words.push(action.to_owned());
            words.extend(
                dice.once_in(4).then(|| format!("in on {}", dice.of(&["eth0", "docker+"]))),
            );
            long(dice, &mut words);
        }
    }
    words.extend(dice.once_in(6).then(|| "comment 'said by \"me\"'".to_owned()));
    words.join(" ")
}

/// Returns ports such as `80`, `80/tcp` or `80,443/udp`.
fn ports(dice: &mut Dice) -> String {
    let proto = dice.of(&["tcp", "udp"]);
    match dice.below(3) {
        0 => dice.of(&PORT_WORDS).to_owned(),
        1 => format!("{}/{proto}", dice.of(&PORT_WORDS)),
        _ => format!("{}/{proto}", dice.of(&MANY_PORTS)),
    }
}

/// Appends `proto tcp from A port P to B port P`, with ends of one IP version.
fn long(dice: &mut Dice, words: &mut Vec<String>) {
    if dice.once_in(12) {
        let proto = dice.of(&["gre", "esp"]);
        words.push(format!(
            "proto {proto} from {}",
            dice.of(&["any", "any", SOURCES[0], SOURCES[5]])
        ));
        return;
    }
    let proto = dice.of(&["tcp", "udp", ""]);
    words.extend((!proto.is_empty()).then(|| format!("proto {proto}")));
    let of_family = |list: &[&'static str], is_v6: bool| -> Vec<&'static str> {
        list.iter().copied().filter(|word| word.contains(':') == is_v6).collect()
    };
    let is_v6 = dice.once_in(2);
    let from = if dice.once_in(2) { dice.of(&of_family(&SOURCES, is_v6)) } else { "any" };
    let to = if dice.once_in(3) { dice.of(&of_family(&TARGETS, is_v6)) } else { "any" };
    words.push(format!("from {from}"));
    words.extend(dice.once_in(12).then(|| "port 4000".to_owned()));
    words.push(format!("to {to}"));
    let port = if proto.is_empty() || dice.once_in(2) {
        dice.of(&PORT_WORDS)
    } else {
        dice.of(&MANY_PORTS)
    };
    words.extend((!dice.once_in(5)).then(|| format!("port {port}")));
}

/// The SplitMix64 generator, whose numbers are the same on every machine.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small number");
        usize::try_from(self.next() % bound).expect("a small number")
    }

    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}
