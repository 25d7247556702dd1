//! The never-ban entries of the host itself, from the kernel and from the files of the system.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use nfguard_ban::{Ban, Bans, NeverBan, Outgoing, TABLE};
use nfguard_lab::{Netns, Probe, veth};
use nfguard_tests::nft::listed;
use nfguard_tests::place::netns;
use nfguard_tests::program::{self, Answer};
use nfguard_tests::wait::{TIMEOUT, wait_until};

/// A host with two links to itself, and every notation of a gateway.
const ROUTES: &str = "
address flush dev eth0 scope link
address flush dev eth1 scope link
address flush dev far0 scope link
address flush dev far1 scope link
address add 192.0.2.2/24 dev eth0
address add 192.0.2.3/24 dev eth0
address add 2001:db8:1::2/64 dev eth0 nodad
address add fe80::2/64 dev eth0 nodad
address add 198.51.100.2/24 dev eth1
address add 2001:db8:2::2/64 dev eth1 nodad
route add default via 192.0.2.101
route add default via 192.0.2.102 table 77
route add 203.0.113.0/28 nexthop via 192.0.2.103 nexthop via 198.51.100.103
route add 203.0.113.16/28 via inet6 fe80::104 dev eth0
route add 203.0.113.32/28 nexthop via inet6 fe80::105 dev eth0 nexthop via 198.51.100.105
route add blackhole 203.0.113.48/28
route add ::/0 via fe80::111 dev eth0
route add ::/0 via 2001:db8:1::112 table 77
route add 2001:db8:f::/48 nexthop via 2001:db8:1::113 nexthop via 2001:db8:2::113
route add 2001:db8:f::/48 via 2001:db8:1::114 table 300
nexthop add id 1 via 192.0.2.121 dev eth0
nexthop add id 2 via 198.51.100.121 dev eth1
nexthop add id 3 group 1/2
nexthop add id 11 via 2001:db8:1::121 dev eth0
nexthop add id 12 via 2001:db8:2::121 dev eth1
nexthop add id 13 group 11/12
route add 203.0.113.64/28 nhid 3
route add 2001:db8:e::/48 nhid 13
";

const ADDRESSES: [(&str, &str); 6] = [
    ("192.0.2.2", "eth0"),
    ("192.0.2.3", "eth0"),
    ("2001:db8:1::2", "eth0"),
    ("fe80::2", "eth0"),
    ("198.51.100.2", "eth1"),
    ("2001:db8:2::2", "eth1"),
];

const GATEWAYS: [&str; 16] = [
    "192.0.2.101",
    "192.0.2.102",
    "192.0.2.103",
    "198.51.100.103",
    "fe80::104",
    "fe80::105",
    "198.51.100.105",
    "fe80::111",
    "2001:db8:1::112",
    "2001:db8:1::113",
    "2001:db8:2::113",
    "2001:db8:1::114",
    "192.0.2.121",
    "198.51.100.121",
    "2001:db8:1::121",
    "2001:db8:2::121",
];

fn ip(netns: &Netns, batch: &str) {
    let output = netns.run(|| {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("iproute2 is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(batch.as_bytes()).expect("ip reads");
        drop(stdin);
        child.wait_with_output().expect("ip ends")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn never_ban_entries(netns: &Netns) -> BTreeSet<(IpAddr, String)> {
    let never = netns.run(|| NeverBan::of_this_host().expect("the kernel tells"));
    let entries = never.entries().iter();
    entries.map(|entry| (entry.network.ip(), entry.kind.to_string())).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns the never-ban entries whose reason begins with this text.
fn with_reason(all: &BTreeSet<(IpAddr, String)>, start: &str) -> BTreeSet<(IpAddr, String)> {
    all.iter().filter(|(_, reason)| reason.starts_with(start)).cloned().collect()
}

#[test]
fn every_address_and_every_gateway_of_every_table_is_never_banned() {
    let host = netns();
    for (near, far) in [("eth0", "far0"), ("eth1", "far1")] {
        veth(&host, near, &host, far).expect("a cable");
    }
    ip(&host, ROUTES);
    let own = |(text, link)| (address(text), format!("this host's address on {link}"));
    let addresses: BTreeSet<_> = ADDRESSES.map(own).into();
    let gateways: BTreeSet<_> =
        GATEWAYS.map(|text| (address(text), "this host's gateway".to_owned())).into();
    // The kernel may name a next hop only by its number.
    for compatible in ["1", "0"] {
        host.sysctl("ipv4/nexthop_compat_mode", compatible).expect("the setting");
        let found = never_ban_entries(&host);
        assert_eq!(with_reason(&found, "this host's address"), addresses);
        assert_eq!(with_reason(&found, "this host's gateway"), gateways, "{compatible}");
    }
    assert!(with_reason(&never_ban_entries(&netns()), "this host's gateway").is_empty());
}

#[test]
fn gateways_are_found_among_many_routes() {
    let host = netns();
    veth(&host, "eth0", &host, "far0").expect("a cable");
    let mut batch = "address add 192.0.2.2/24 dev eth0\n".to_owned();
    // The answer of the kernel has more than one part. The last few routes have a gateway of their
    // own.
    for number in 0..5000u32 {
        let (high, low) = (number / 256, number % 256);
        let gateway = if number < 4990 { 101 } else { 102 };
        batch += &format!("route add 10.{high}.{low}.0/24 via 192.0.2.{gateway}\n");
    }
    ip(&host, &batch);
    let gateways = ["192.0.2.101", "192.0.2.102"];
    let expected = gateways.map(|text| (address(text), "this host's gateway".to_owned()));
    assert_eq!(with_reason(&never_ban_entries(&host), "this host's gateway"), expected.into());
}

#[test]
fn host_addresses_found_by_one_program_stay_in_the_rules_of_another() {
    let host = netns();
    veth(&host, "eth0", &host, "far0").expect("a cable");
    let open = || {
        let open = || Bans::open(NeverBan::of_this_host().expect("the kernel tells"));
        host.run(open).expect("bans")
    };
    let mut first = open();
    let target =
        first.admit("203.0.113.9".parse().expect("a target")).expect("not on the never-ban list");
    let ban =
        Ban { target, port: None, duration: None, source: "test", reason: "", created_at: None };
    first.ban(&ban).expect("is banned");
    ip(&host, "address add 192.0.2.60/24 dev eth0\n");
    drop(open());
    first.set_outgoing(Outgoing::Drop).expect("can be asked for");
    let listed = listed(&host, TABLE);
    let rules: Vec<_> = listed.lines().filter(|line| line.contains(" @v4/32 ")).collect();
    assert_eq!(rules.len(), 2, "{listed}");
    assert!(rules.iter().all(|rule| rule.contains("!= 192.0.2.60")), "{listed}");
}

/// Runs `nfguard never` with only the files of `script` in `/etc` and `/run`.
fn never_with(netns: &Netns, script: &str) -> Answer {
    let script = format!(
        "mkdir -p /etc && mount -t tmpfs none /etc && mount -t tmpfs none /run &&
         mkdir -p /run/systemd/resolve && {script} && exec \"$0\" never"
    );
    let nfguard = program::command::<&str>(&[]);
    netns.run(|| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script]).arg(nfguard.get_program());
        unshare.output().expect("unshare starts").into()
    })
}

#[test]
fn name_servers_and_the_upstreams_of_a_local_resolver_are_never_banned() {
    let host = netns();
    let listed = never_with(
        &host,
        "echo 'nameserver 127.0.0.53' > /etc/resolv.conf &&
         echo 'nameserver fe80::53%eth0' >> /etc/resolv.conf &&
         echo 'nameserver 192.0.2.53' > /run/systemd/resolve/resolv.conf",
    );
    assert_eq!(listed.status, Some(0), "{listed:?}");
    let servers = listed.stdout.lines().filter(|line| line.ends_with("this host's name server"));
    let servers: Vec<_> = servers.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(servers, ["fe80::53/128", "192.0.2.53/32"]);
}

#[test]
fn a_list_of_name_servers_may_be_absent_but_not_unreadable() {
    let host = netns();
    let absent = never_with(&host, "ln -s ../run/absent/resolv.conf /etc/resolv.conf");
    assert_eq!(absent.status, Some(0), "{absent:?}");
    assert!(!absent.stdout.contains("name server"), "{absent:?}");
    let unreadable = never_with(&host, "mkdir /etc/resolv.conf");
    assert_eq!(unreadable.status, Some(3), "{unreadable:?}");
    assert!(unreadable.stderr.contains("/etc/resolv.conf: "), "{unreadable:?}");
}

#[test]
fn the_ssh_session_is_found_behind_programs_that_clean_the_environment() {
    let host = netns();
    let nfguard = program::command::<&str>(&[]);
    for (variable, peer) in [
        ("SSH_CONNECTION=203.0.113.9 50000 198.51.100.2 22", "203.0.113.9/32"),
        ("SSH_CONNECTION=fe80::9%eth0 50000 fe80::2%eth0 22", "fe80::9/128"),
        ("SSH_CLIENT=2001:db8:9::9 50000 22", "2001:db8:9::/64"),
    ] {
        // The shell stays, as `sudo` does, and has the variables that its child lacks.
        let script = "env -i \"$0\" never; exit $?";
        let listed: Answer = host.run(|| {
            let mut session = Command::new("env");
            session.args(["-u", "SSH_CONNECTION", "-u", "SSH_CLIENT", variable]);
            session.args(["sh", "-c", script]).arg(nfguard.get_program());
            session.output().expect("env starts").into()
        });
        assert_eq!(listed.status, Some(0), "{listed:?}");
        let found = listed.stdout.lines().find(|line| line.starts_with(peer));
        assert!(found.is_some_and(|line| line.contains("an SSH session on 2")), "{listed:?}");
    }
}

/// Runs `nfguard` in a session of this peer.
fn in_session(host: &Netns, peer: &str, arguments: &[&str]) -> Answer {
    let mut command = program::command(arguments);
    command.env("SSH_CONNECTION", format!("{peer} 50000 198.51.100.2 22"));
    host.run(|| command.output().expect("nfguard starts").into())
}

#[test]
fn every_load_confirmation_and_ban_notes_the_peer_of_the_ssh_session_and_says_for_how_long() {
    let place = tempfile::tempdir().expect("a folder");
    let policy = |name: &str, port: u16| {
        let path = place.path().join(name);
        let rules = format!(
            r#"{{ "version": 1, "rules": [{{ "action": "allow", "port": 22 }},
                {{ "action": "allow", "port": {port} }}] }}"#
        );
        std::fs::write(&path, rules).expect("written");
        path.to_str().expect("plain letters").to_owned()
    };
    let (first, second) = (policy("first", 80), policy("second", 443));
    let (peer, neighbour) = ("2001:db8:9::9", "2001:db8:9::abcd");
    let refused = |host: &Netns| {
        let ban = ["ban", neighbour, "--source", "fail2ban/sshd"];
        let answer = program::nfguard(host, &ban);
        assert_eq!(answer.status, Some(2), "{answer:?}");
        assert!(answer.stderr.contains("2001:db8:9::/64 (an SSH session on 2"), "{answer:?}");
    };
    let said = "2001:db8:9::/64, the peer of your SSH session, is not banned by any program until";
    // The first policy of a host says nothing of bans.
    for ways in [
        &[&["load", &*first][..]][..],
        &[&["load", &*first, "--dry-run"], &["ban", "203.0.113.7"]],
        &[&["load", &*first], &["unload", "--all"], &["load", &*second, "--confirm", "10m"]],
    ] {
        let host = netns();
        let answers: Vec<_> = ways.iter().map(|way| in_session(&host, peer, way)).collect();
        let last = answers.last().expect("one");
        assert!(last.status == Some(0) && last.stdout.contains(said), "{answers:?}");
        refused(&host);
        if last.stdout.contains("confirm") {
            // A table that was removed meanwhile.
            nfguard_tests::nft::nft(&host, "delete table inet nfguard_bans\n");
            let answer = in_session(&host, peer, &["confirm"]);
            assert!(answer.stdout.contains(said), "{answer:?}");
            refused(&host);
        }
    }
    // The control: without a session a load notes none.
    let host = netns();
    program::succeed(&host, &["load", &first]);
    program::succeed(&host, &["ban", neighbour]);
}

/// The networks of two bridges and of a pair of links, of which one end is in a container.
fn host_with_guests() -> (Netns, Netns) {
    let (host, guest) = (netns(), netns());
    for (bridge, addresses) in
        [("docker0", &["172.17.0.1/16"][..]), ("br-web", &["10.7.0.1/24", "2a00:7::1/64"])]
    {
        host.bridge(bridge).expect("a bridge");
        for address in addresses {
            let (address, bits) = address.split_once('/').expect("a prefix");
            let bits = bits.parse().expect("a length");
            host.address(bridge, address.parse().expect("an address"), bits).expect("an address");
        }
    }
    veth(&host, "ve-guest", &guest, "host0").expect("a link");
    host.address("ve-guest", [192, 168, 77, 1].into(), 28).expect("an address");
    (host, guest)
}

#[test]
fn containers_and_guests_are_not_banned_by_any_way_and_the_answer_says_what_is_wrong_with_the_log()
{
    let (host, _guest) = host_with_guests();
    let place = tempfile::tempdir().expect("a folder");
    let inside = [
        ("172.17.0.2", "172.17.0.0/16", "docker0"),
        ("10.7.0.0/25", "10.7.0.0/24", "br-web"),
        ("2a00:7::5", "2a00:7::/64", "br-web"),
        ("192.168.77.2", "192.168.77.0/28", "ve-guest"),
    ];
    let around =
        [("10.0.0.0/8", "10.7.0.0/24"), ("::/1", "2a00:7::/64"), ("2a00::/16", "2a00:7::/64")];
    for (target, network, link) in inside {
        let answer = program::nfguard(&host, &["ban", target, "--source", "fail2ban/traefik"]);
        let listed = program::nfguard_fed(&host, &["ban", "-"], &format!("{target}\n"));
        for answer in [answer, listed] {
            assert_eq!(answer.status, Some(2), "{answer:?}");
            let behind =
                format!("{network} (containers, guests or peers behind this host, by {link})");
            let said = answer.stderr.contains(&behind) && answer.stderr.contains("X-Forwarded-For");
            assert!(said, "{answer:?}");
        }
    }
    for (target, network) in around {
        let answer = program::nfguard(&host, &["ban", target]);
        assert_eq!(answer.status, Some(2), "{answer:?}");
        assert!(answer.stderr.contains(&format!("it would ban {network}")), "{answer:?}");
    }
    // The neighbours of these networks can be banned.
    program::succeed(&host, &["ban", "172.18.0.2", "10.7.1.0/24", "2a00:8::5", "192.168.77.17"]);

    // A list that is put in is cut.
    let list = place.path().join("list");
    std::fs::write(&list, "2a00::/16\n").expect("written");
    program::succeed(&host, &["feed", "add", "drop", list.to_str().expect("plain letters")]);
    let feed = listed(&host, TABLE);
    assert!(feed.contains("2a00::-2a00:6:ffff:") && feed.contains("2a00:7:0:1::"), "{feed}");

    // Bans of a time when there was no container.
    let (before, saved) = (netns(), place.path().join("saved"));
    let saved = saved.to_str().expect("plain letters");
    program::succeed(&before, &["ban", "172.17.0.2", "172.16.0.0/12", "203.0.113.9"]);
    program::succeed(&before, &["save", saved]);
    let answer = program::succeed(&host, &["restore", saved]);
    assert!(answer.stderr.matches("by docker0)").count() == 2, "{answer:?}");
    assert!(answer.stdout.starts_with("1 banned"), "{answer:?}");

    // The library, and the socket.
    host.run(|| {
        let bans = Bans::open(NeverBan::of_this_host().expect("facts")).expect("opens");
        let refused = bans.admit("172.17.0.2".parse().expect("a target")).expect_err("refused");
        assert_eq!(refused.entry.kind.word(), "behind");
    });
    let guard = nfguard_tests::guard::Guard::start(&host, None, &[]);
    let mut client = guard.connect();
    for target in ["172.17.0.2", "10.0.0.0/8"] {
        let answer = client.request(&format!(r#"{{"op":"ban","target":"{target}","for":60}}"#));
        assert!(answer.contains("never_ban") && answer.contains("behind this host"), "{answer}");
    }
    let all = r#"{"op":"ban_all","bans":[{"target":"172.17.0.2"},{"target":"203.0.113.77"}]}"#;
    let answer = client.request(all);
    assert!(answer.contains("behind this host") && answer.contains(r#""added":1"#), "{answer}");
}

/// A policy that lets everything in, and says this of bans.
fn policy_about_bans(keys: &str) -> program::TempFile {
    program::policy_file(&format!(
        r#"{{ "version": 1, "default": {{ "in": "accept", "out": "accept", "forward": "accept" }},
            "scan": {{}}, {keys} "rules": [] }}"#
    ))
}

#[test]
fn what_the_policy_lets_be_banned_behind_this_host_is_banned_like_any_other() {
    let place = tempfile::tempdir().expect("a folder");
    let state = place.path().to_str().expect("plain letters").to_owned();
    let (host, guest) = host_with_guests();
    guest.address("host0", [192, 168, 77, 2].into(), 28).expect("an address");
    let ping = || Probe::ping(&guest, [192, 168, 77, 1]);
    let passes = || ping().timeout(TIMEOUT).run().passed();
    let is_answered_soon = || ping().run().passed();
    let run = |host: &Netns, arguments: &[&str]| {
        program::nfguard(host, &[&["--state-dir", &state], arguments].concat())
    };
    let succeed = |arguments: &[&str]| {
        let answer = run(&host, arguments);
        assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
        answer
    };
    let refused = |host: &Netns, target: &str, why: &str| {
        let answer = run(host, &["ban", target]);
        assert!(answer.status == Some(2) && answer.stderr.contains(why), "{answer:?}");
    };
    let spares = policy_about_bans("");
    let bans = policy_about_bans(
        r#""may_ban": ["192.168.77.0/28", "172.17.0.5", "2a00:7::/64", "10.99.0.0/16"],"#,
    );
    let [spares, bans] = [&spares, &bans].map(|it| it.path().to_str().expect("plain letters"));
    succeed(&["load", spares]);
    refused(&host, "192.168.77.2", "ve-guest");
    assert!(passes());

    succeed(&["load", bans]);
    succeed(&["ban", "192.168.77.2", "172.17.0.5", "2a00:7::5"]);
    assert!(!is_answered_soon(), "a dropped packet");
    refused(&host, "192.168.77.1", "this host's address");
    for (target, link) in
        [("172.17.0.6", "docker0"), ("172.17.0.4/30", "docker0"), ("10.7.0.9", "br-web")]
    {
        refused(&host, target, link);
    }
    // The rules that ban scans spare the rest alone, and a feed has what may be banned.
    let never = nfguard_tests::nft::nft(&host, "list set inet nfguard scan/never/v4\n");
    assert!(never.contains("172.17.0.6-172.17.255.255"), "{never}");
    let list = place.path().join("list");
    std::fs::write(&list, "2a00::/16\n").expect("written");
    succeed(&["feed", "add", "drop", list.to_str().expect("plain letters")]);
    let feed = listed(&host, TABLE);
    assert!(feed.contains("2a00:7::2-2a00:ffff:"), "all but this host's address: {feed}");
    let doctor = run(&host, &["doctor"]).stdout;
    let idle = doctor.contains("has 10.99.0.0/16, and") && !doctor.contains("has 172.17.0.5");
    assert!(idle, "{doctor}");

    // An operator's word goes before the policy's, also where it is about the very same network.
    succeed(&["never", "add", "192.168.77.0/28", "--reason", "the backup"]);
    refused(&host, "192.168.77.3", "the backup");
    assert!(passes());
    succeed(&["never", "remove", "192.168.77.0/28"]);
    assert!(!is_answered_soon());

    // With a guard, and over its socket.
    let guard = nfguard_tests::guard::Guard::start(&host, None, &["--state-dir", &state]);
    let mut client = guard.connect();
    let answer = client.request(r#"{"op":"ban","target":"192.168.77.4","for":600}"#);
    assert!(answer.contains("added"), "{answer}");
    let answer = client.request(r#"{"op":"ban","target":"172.17.0.6"}"#);
    assert!(answer.contains("behind this host"), "{answer}");
    // It puts back what others flush.
    nfguard_tests::nft::nft(&host, "flush ruleset\n");
    wait_until("the bans are back", || !is_answered_soon());
    let answer = client.request(r#"{"op":"ban","target":"192.168.77.5"}"#);
    assert!(answer.contains("added"), "{answer}");
    drop(guard);

    // What no one confirms is taken back, with what it lets be banned.
    succeed(&["load", spares]);
    assert!(passes(), "the ban is there and does nothing");
    succeed(&["load", bans, "--confirm", "10m"]);
    succeed(&["rollback"]);
    wait_until("the rules are back", is_answered_soon);
    refused(&host, "192.168.77.3", "ve-guest");

    // A boot of the policy restores the bans, and a restore of a file too.
    succeed(&["load", bans]);
    let saved = place.path().join("saved");
    let saved = saved.to_str().expect("plain letters");
    succeed(&["save", saved]);
    let (booted, _guest) = host_with_guests();
    let answer = run(&booted, &["boot", bans]);
    assert!(answer.status == Some(0) && answer.stderr.is_empty(), "{answer:?}");
    let (other, _guest) = host_with_guests();
    program::succeed(&other, &["load", bans]);
    let answer = program::succeed(&other, &["restore", saved]);
    assert!(!answer.stderr.contains("docker0"), "{answer:?}");
    for host in [&booted, &other] {
        let listed = program::succeed(host, &["bans"]).stdout;
        assert!(listed.contains("172.17.0.5") && listed.contains("192.168.77.2"), "{listed}");
    }
}
