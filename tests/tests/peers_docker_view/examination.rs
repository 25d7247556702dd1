//! `doctor`: each finding, on a host that has the problem and on a host without it.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nfguard_lab::{Netns, Probe, World};
use nfguard_tests::nft::nft;
use nfguard_tests::place::world_with_container;
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::ufw::{ufw, ufw_disabled_again};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use super::{BACKENDS, Backend, NOWHERE, Relay, iptables, json, load, reaches, serve};

const WEB: &str = r#"{ "name": "web", "action": "allow", "proto": "tcp", "port": [80, 443] },
    { "name": "ssh", "action": "allow", "proto": "tcp", "port": 22 },
    { "name": "https-out", "action": "allow", "direction": "out", "proto": "tcp", "port": 443 }"#;

/// Returns the findings of `doctor`, without the configuration of this machine.
#[track_caller]
pub(crate) fn doctor(netns: &Netns) -> Value {
    with_boot_file(netns, NOWHERE)
}

#[track_caller]
fn with_boot_file(netns: &Netns, file: &str) -> Value {
    let arguments = ["doctor", "--docker-socket", NOWHERE, "--nftables-conf", file, "--json"];
    let answer = nfguard(netns, &arguments);
    let found: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(found["schema"], 1);
    let nothing = codes(&found).is_empty();
    assert_eq!(answer.status, Some(if nothing { 0 } else { 1 }), "{answer:?}");
    found
}

pub(crate) fn codes(found: &Value) -> Vec<&str> {
    let findings = found["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["code"].as_str().expect("a word")).collect()
}

/// Returns the text of the only finding with this code.
#[track_caller]
pub(crate) fn finding_text<'a>(found: &'a Value, code: &str) -> &'a str {
    let findings = found["findings"].as_array().expect("a list");
    let mut those = findings.iter().filter(|finding| finding["code"] == code);
    let (Some(one), None) = (those.next(), those.next()) else { panic!("{code}: {found:#}") };
    for words in ["what", "why", "fix"] {
        assert!(one[words].as_str().is_some_and(|words| !words.is_empty()), "{one}");
    }
    one["what"].as_str().expect("words")
}

#[test]
fn dockers_own_rules_are_no_finding_and_its_backend_is_named() {
    let bare = world_with_container();
    load(&bare.host, WEB);
    let found = doctor(&bare.host);
    assert_eq!((codes(&found), &found["docker_backends"]), (vec![], &serde_json::json!([])));
    for backend in BACKENDS {
        let world = world_with_container();
        backend.load(&world.host);
        // The finding exists before a policy is loaded, too.
        for loaded in [false, true] {
            if loaded {
                load(&world.host, WEB);
            }
            let before = all_rules(&world.host);
            let found = doctor(&world.host);
            assert_eq!(all_rules(&world.host), before, "it only looks");
            assert_eq!(found["loaded"], loaded);
            assert_eq!(found["docker_backends"], serde_json::json!([backend.word()]));
            assert_eq!(found["notes"], serde_json::json!([]));
            let expected = match backend {
                Backend::IptablesLegacy => vec!["legacy-iptables"],
                _ => vec![],
            };
            assert_eq!(codes(&found), expected, "{found:#}");
        }
    }
}

/// Returns all rules of the namespace, of nf_tables and of legacy iptables, without counters.
fn all_rules(netns: &Netns) -> String {
    let mut text = nft(netns, "list ruleset\n");
    for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let output = netns.run(|| std::process::Command::new(program).output());
        let output = output.expect("iptables is installed");
        assert!(output.status.success(), "{output:?}");
        text += &String::from_utf8_lossy(&output.stdout);
    }
    // A comment has the time of its creation.
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let is_number = |word: &&str| {
        word.trim_matches(['[', ']']).split(':').all(|part| part.parse::<u64>().is_ok())
    };
    let words =
        lines.map(|line| line.split(' ').filter(|word| !is_number(word)).collect::<Vec<_>>());
    words.map(|words| words.join(" ") + "\n").collect()
}

#[test]
fn empty_tables_of_the_legacy_iptables_are_no_finding() {
    let world = world_with_container();
    let set = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
    iptables(&world.host, "iptables-legacy-restore", set);
    assert_eq!(codes(&doctor(&world.host)), [""; 0]);
    let rule = "*filter\n-A INPUT -s 192.0.2.9/32 -j DROP\nCOMMIT\n";
    iptables(&world.host, "iptables-legacy-restore", rule);
    assert!(finding_text(&doctor(&world.host), "legacy-iptables").contains("ip filter"));
}

#[test]
fn clients_behind_the_relay_are_found_and_a_ban_of_the_relay_is_refused() {
    let world = world_with_container();
    Backend::IptablesNft.load(&world.host);
    load(&world.host, WEB);
    assert_eq!(codes(&doctor(&world.host)), [""; 0], "IPv4 and IPv6 by address translation");
    // The case of a container network without IPv6.
    let _relay = Relay::listen(&world.host, "[::]:443", "172.17.0.2:8443");
    let found = doctor(&world.host);
    let words = finding_text(&found, "client-hidden");
    for part in ["443/tcp", "IPv6", "172.17.0.1", "docker-proxy"] {
        assert!(words.contains(part), "{words}");
    }
    let why = found["findings"][0]["why"].as_str().expect("words");
    let refused = nfguard(&world.host, &["ban", "172.17.0.1"]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    let reason = refused.stderr.lines().last().expect("a reason").trim();
    assert!(why.contains(reason), "{why}\n{reason}");
}

#[test]
fn clients_that_a_masquerade_rule_hides_are_found() {
    for backend in BACKENDS {
        let world = world_with_container();
        backend.load(&world.host);
        load(&world.host, WEB);
        let _servers = serve(&world);
        let seen = || {
            let to = SocketAddr::new(World::HOST_V4, 80);
            let from = std::net::IpAddr::from([203, 0, 113, 7]);
            let probe = Probe::tcp(&world.internet, to).from(from).timeout(TIMEOUT);
            first_line(&probe.connect().expect("a connection"))
        };
        let is_hidden = || codes(&doctor(&world.host)).contains(&"client-hidden");
        assert!(seen().starts_with("203.0.113.7:"), "{backend:?}: {}", seen());
        assert!(!is_hidden(), "{backend:?}");
        backend.masquerade_all(&world.host);
        assert!(seen().starts_with("172.17.0.1:"), "{backend:?}: {}", seen());
        assert!(is_hidden(), "{backend:?}");
        assert!(finding_text(&doctor(&world.host), "client-hidden").contains("80/tcp over IPv4"));
    }
}

/// Returns the first line of the server: the address that it sees.
fn first_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line
}

#[test]
fn forwarding_that_is_off_is_found_where_containers_are_published() {
    let world = world_with_container();
    load(&world.host, WEB);
    let set = |name: &str, value: &str| world.host.sysctl(name, value).expect("a setting");
    set("ipv4/ip_forward", "0");
    assert_eq!(codes(&doctor(&world.host)), [""; 0], "nothing is published");
    Backend::Nftables.load(&world.host);
    assert!(finding_text(&doctor(&world.host), "ip-forward-off").contains("net.ipv4.ip_forward"));
    set("ipv4/ip_forward", "1");
    assert_eq!(codes(&doctor(&world.host)), [""; 0]);
    set("ipv6/conf/all/forwarding", "0");
    assert!(finding_text(&doctor(&world.host), "ip-forward-off").contains("net.ipv6"));
}

/// Rules of another program, the program that loads them, and the finding about their drops, if
/// there is one.
const OTHERS: [(&str, &str, Option<&str>); 14] = [
    ("nft", "table inet mine { chain in { type filter hook input priority 0; policy drop;
        iif lo accept; ct state established,related accept; tcp dport { 22, 80 } accept; }; }",
        Some("table inet mine, chain in (hook input, policy drop) drops what the policy allows: in 443/tcp")),
    ("nft", "table inet mine { chain in { type filter hook input priority 0; policy drop;
        ct state vmap { established : accept, invalid : drop }; meta l4proto icmpv6 accept; tcp dport { 22, 80, 443 } accept; }; }", None),
    ("nft", "table ip mine { set bad { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 }; }
        chain in { type filter hook prerouting priority -200; ip saddr @bad drop;
        ip saddr 198.51.100.0/24 drop; tcp dport 25 reject; }; }", None),
    ("nft", "table ip mine { chain in { type filter hook prerouting priority -200; jump more; }
        chain more { tcp dport 440-450 reject with tcp reset; }; }",
        Some("table ip mine, chain in (hook prerouting, policy accept) drops what the policy allows: in 443/tcp")),
    ("nft", "table inet mine { flags dormant; chain in { type filter hook input priority 0; policy drop; }; }", None),
    ("iptables-nft-restore", "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n
        -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"all -j ACCEPT\" -j ACCEPT\n
        -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n",
        Some("table ip filter, chain INPUT (hook input, policy drop) drops what the policy allows: in 443/tcp")),
    ("iptables-nft-restore", "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 22:443 -j ACCEPT\n
        -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n", None),
    ("iptables-nft-restore", "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m length --length 0:1400 -j ACCEPT\n
        -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n",
        Some("table ip filter, chain INPUT (hook input, policy drop) may drop what the policy allows")),
    (
        "iptables-nft-restore",
        "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 22,400:443 -j ACCEPT\n
        -A INPUT -p tcp -m multiport ! --dports 22,443 -j DROP\n
        -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n",
        Some("table ip filter, chain INPUT (hook input, policy drop) drops what the policy allows: in 80/tcp"),
    ),
    (
        "iptables-legacy-restore",
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m multiport --dports 442,443 -j DROP\nCOMMIT\n",
        Some(
            "table ip filter (iptables-legacy), chain INPUT (hook input, policy accept) drops what the policy allows: in 443/tcp",
        ),
    ),
    ("ip6tables-nft-restore", "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 443 -m addrtype --dst-type LOCAL -j DROP\nCOMMIT\n",
        Some("table ip6 raw, chain PREROUTING (hook prerouting, policy accept) drops what the policy allows: in 443/tcp")),
    ("iptables-legacy-restore", "*filter\n:INPUT ACCEPT [0:0]\n:MINE - [0:0]\n-A INPUT -p tcp -m tcp --dport 443 -j MINE\n
        -A MINE -j LOG --log-prefix \"-j ACCEPT\"\n-A MINE -m addrtype --dst-type LOCAL -j REJECT\nCOMMIT\n",
        Some("table ip filter (iptables-legacy), chain INPUT (hook input, policy accept) drops what the policy allows: in 443/tcp")),
    ("iptables-legacy-restore", "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT ! -i eth0 -p tcp -m tcp --dport 443 -j DROP\n
        -A INPUT -s 198.51.0.0/16 -j DROP\nCOMMIT\n", None),
    ("nft", "table inet mine { chain out { type filter hook output priority 0; policy drop;
        ct state established accept; udp dport 53 accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; }; }",
        Some("table inet mine, chain out (hook output, policy drop) drops what the policy allows: out 443/tcp")),
];

#[test]
fn only_foreign_drops_of_allowed_packets_are_found() {
    for (program, rules, expected) in OTHERS {
        let world = world_with_container();
        load(&world.host, WEB);
        let servers = [World::HOST_V4, World::HOST_V6]
            .map(|address| world.host.serve_tcp(SocketAddr::new(address, 443)));
        match program {
            "nft" => drop(nft(&world.host, &format!("{rules}\n"))),
            program => {
                let lines: Vec<&str> =
                    rules.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                iptables(&world.host, program, &(lines.join("\n") + "\n"));
            }
        }
        let found = doctor(&world.host);
        let others = codes(&found).into_iter().filter(|code| *code == "foreign-drop").count();
        assert_eq!(others, usize::from(expected.is_some()), "{rules}\n{found:#}");
        if let Some(expected) = expected {
            let words = finding_text(&found, "foreign-drop");
            assert!(words.contains(expected), "{rules}\n{words}");
        }
        // The finding about incoming packets agrees with real packets.
        if expected.is_some_and(|words| !words.contains("in 443")) {
            continue;
        }
        let drops = |family: &str| {
            expected.is_some_and(|words| {
                words.starts_with(&format!("table {family} ")) || words.contains("inet")
            })
        };
        for (is_v6, family) in [(false, "ip"), (true, "ip6")] {
            let dropped = drops(family);
            let timeout = if dropped { Duration::from_millis(500) } else { TIMEOUT };
            assert_eq!(reaches(&world, 443, is_v6, timeout), !dropped, "{family}: {rules}");
        }
        drop(servers);
    }
}

#[test]
fn ufw_is_found_as_long_as_it_is_enabled() {
    let world = world_with_container();
    load(&world.host, WEB);
    ufw(&world.host, &["allow 22/tcp", "allow 80/tcp", "allow out 443/tcp"]);
    let found = doctor(&world.host);
    assert!(finding_text(&found, "ufw-active").contains("ip filter"), "{found:#}");
    let drops: Vec<&Value> = found["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|finding| finding["code"] == "foreign-drop")
        .map(|finding| &finding["what"])
        .collect();
    let drops = serde_json::to_string(&drops).expect("JSON");
    for family in ["ip", "ip6"] {
        let chain = format!("table {family} filter, chain INPUT (hook input, policy drop)");
        assert!(drops.contains(&chain), "{drops}");
    }
    assert!(
        drops.contains("in 443/tcp") && !drops.contains("in 22/tcp") && !drops.contains("80/tcp"),
        "{drops}"
    );

    let other = world_with_container();
    load(&other.host, WEB);
    ufw_disabled_again(&other.host, &["allow 22/tcp"]);
    let found = doctor(&other.host);
    assert_eq!(codes(&found), [""; 0], "{found:#}");
}

#[test]
fn firewalld_is_found_by_its_table() {
    let world = world_with_container();
    load(&world.host, WEB);
    // The hooks of the nftables backend of firewalld, which has more chains than these.
    let table = "table inet firewalld {
        chain filter_IN_public { tcp dport { 22, 80, 443 } accept; }
        chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
            ct state { established, related } accept; iifname \"lo\" accept; goto filter_IN_public; }
    }\n";
    assert_eq!(codes(&doctor(&world.host)), [""; 0]);
    nft(&world.host, table);
    assert_eq!(codes(&doctor(&world.host)), ["firewalld-active"]);
}

#[test]
fn a_boot_file_that_flushes_everything_is_found() {
    let world = world_with_container();
    let debians = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n";
    let mended = debians.replace("flush ruleset", "table inet filter\ndelete table inet filter");
    for (text, expected) in [(debians, vec!["flush-ruleset"]), (&*mended, vec![])] {
        let file = TempFile::new("nftables.conf", text);
        let found = with_boot_file(&world.host, file.path().to_str().expect("plain letters"));
        assert_eq!(codes(&found), expected, "{text}");
        // nft itself checks the file.
        load(&world.host, WEB);
        nft(&world.host, text);
        let loaded =
            nfguard(&world.host, &["status", "--docker-socket", NOWHERE]).status == Some(0);
        assert_eq!(loaded, expected.is_empty(), "{text}");
    }
}

#[test]
fn an_uplink_that_the_policy_treats_as_a_docker_bridge_is_found() {
    let host = Netns::new().expect("run me with `cargo xtask netns-test`");
    host.bridge("br-lan").expect("a bridge");
    host.address("br-lan", World::HOST_V4, 24).expect("an address");
    host.route([0; 4].into(), 0, World::INTERNET_V4).expect("a route");
    load(&host, WEB);
    assert!(finding_text(&doctor(&host), "uplink-bridge").contains("br-lan"));
    let policy = format!(
        r#"{{ "version": 1, "containers": {{ "interfaces": ["docker0"] }}, "rules": [{WEB}] }}"#
    );
    let policy = TempFile::new("view.json", &policy);
    let answer = nfguard(&host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert_eq!(codes(&doctor(&host)), [""; 0]);
}

#[test]
fn doctor_says_that_no_policy_is_loaded() {
    let world = world_with_container();
    let answer =
        nfguard(&world.host, &["doctor", "--docker-socket", NOWHERE, "--nftables-conf", NOWHERE]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert!(
        answer.stdout.contains("no policy is loaded") && answer.stdout.contains("nothing found")
    );
    let found =
        json(&world.host, &["doctor", "--nftables-conf", NOWHERE, "--docker-socket", NOWHERE], 0);
    assert_eq!(found["findings"], serde_json::json!([]));
}
