//! Lock-out protection, and what a confirmation proves.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use nfguard_lab::{Netns, Probe, Server, World};
use nfguard_tests::place::ip;
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use super::{
    LONG_CONFIRM_TIME, POLICY_A, POLICY_B, POLICY_C, listed, load_each, netns, over_ssh, path,
    policy_file, run_nft_script, succeed, wait_for_watchdog_end, world,
};

/// Lets in SSH from elsewhere only.
const ELSEWHERE: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "allow", "port": 22, "from": ["203.0.113.0/24", "2001:db8:99::/48"] },
    { "name": "old", "action": "allow", "port": 80 } ] }"#;

/// An SSH server that serves nothing, which takes nothing off from its connections.
struct Sshd<'w>(&'w World, Server);

impl Sshd<'_> {
    fn new(world: &World, at: IpAddr) -> Sshd<'_> {
        Sshd(world, world.host.serve_tcp((at, 22)).expect("serves"))
    }

    /// A connection, and how it stands in the environment of a shell at its other end.
    fn login(&self) -> (TcpStream, String) {
        let to = self.1.address();
        let probe = Probe::tcp(&self.0.internet, to).timeout(TIMEOUT);
        let stream = probe.connect().expect("connects");
        let near = stream.local_addr().expect("connected");
        let words = |at: SocketAddr| format!("{} {}", at.ip(), at.port());
        (stream, format!("{} {}", words(near), words(to)))
    }
}

#[test]
fn a_load_that_would_lock_out_its_operator_is_refused() {
    let (a, elsewhere) = (policy_file(POLICY_A), policy_file(ELSEWHERE));
    let [list_a, list_elsewhere] = load_each([&a, &elsewhere]);
    for address in [World::HOST_V4, World::HOST_V6] {
        let world = world();
        let host = &world.host;
        let sshd = Sshd::new(&world, address);
        let (_stream, session) = sshd.login();
        let run = |arguments: &[&str]| over_ssh(host, &session, arguments);
        assert_eq!(run(&["load", path(&a)]).status, Some(0));
        for extra in [&[][..], &["--confirm", LONG_CONFIRM_TIME]] {
            let refused = run(&[&["load", path(&elsewhere)], extra].concat());
            assert_eq!(refused.status, Some(1), "{refused:?}");
            assert!(refused.stderr.contains("nothing was loaded"), "{refused:?}");
            assert!(refused.stderr.contains("would be dropped at"), "{refused:?}");
            assert_eq!(listed(host), list_a);
        }
        let json = run(&["load", path(&elsewhere), "--json"]);
        let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert!(json["error"].as_str().expect("why").contains("`--force`"), "{json}");
        let dry = run(&["load", path(&elsewhere), "--dry-run"]);
        assert_eq!(dry.status, Some(0));
        assert!(dry.stderr.contains("would lock you out"), "{dry:?}");

        // What was foretold comes true: the open connection goes on, and a new one does not.
        let knock = || Probe::tcp(&world.internet, sshd.1.address()).run().passed();
        assert!(knock());
        let forced = run(&["load", path(&elsewhere), "--force", "--confirm", LONG_CONFIRM_TIME]);
        assert_eq!(forced.status, Some(0), "{forced:?}");
        assert_eq!(listed(host), list_elsewhere);
        assert!(!knock());
        succeed(host, &["rollback"]);
        wait_for_watchdog_end(host);
        assert!(knock());
    }
}

#[test]
fn a_session_that_names_no_addresses_needs_a_peer_or_force() {
    let (a, elsewhere) = (policy_file(POLICY_A), policy_file(ELSEWHERE));
    let [list_a, list_elsewhere] = load_each([&a, &elsewhere]);
    // What sshd writes for a pipe or a Unix socket, an empty text, and damaged ones.
    for session in
        ["UNKNOWN 65535 UNKNOWN 65535", "", "192.0.2.9 50000 UNKNOWN 65535", "192.0.2.9", "-", " "]
    {
        let netns = netns();
        let run = |arguments: &[&str]| over_ssh(&netns, session, arguments);
        // Neither a policy that lets SSH in nor one that does not can be judged.
        for file in [&a, &elsewhere] {
            let refused = run(&["load", path(file)]);
            assert_eq!(refused.status, Some(1), "{session:?}: {refused:?}");
            for part in ["nothing was loaded", "cannot be judged", "`--peer`", "`--force`"] {
                assert!(refused.stderr.contains(part), "{session:?}: {refused:?}");
            }
            assert_eq!(listed(&netns), "");
        }
        let dry = run(&["load", path(&a), "--dry-run", "--json"]);
        assert_eq!(dry.status, Some(0), "{dry:?}");
        let dry: Value = serde_json::from_str(&dry.stdout).expect("JSON");
        assert!(dry["lockout"].is_string(), "{dry}");
        // A peer that is named is judged as always.
        let named = ["--peer", "192.0.2.9"];
        assert_eq!(run(&[&["load", path(&elsewhere)], &named[..]].concat()).status, Some(1));
        assert_eq!(listed(&netns), "");
        assert_eq!(run(&[&["load", path(&a)], &named[..]].concat()).status, Some(0));
        assert_eq!(listed(&netns), list_a);
        let forced = run(&["load", path(&elsewhere), "--force"]);
        assert_eq!(forced.status, Some(0), "{forced:?}");
        assert!(forced.stderr.contains("cannot be judged"), "{forced:?}");
        assert_eq!(listed(&netns), list_elsewhere);
    }
}

#[test]
fn a_session_of_which_sshd_names_the_client_alone_is_judged_by_its_port() {
    let (a, elsewhere) = (policy_file(POLICY_A), policy_file(ELSEWHERE));
    let netns = netns();
    let run = |file| over_ssh(&netns, "192.0.2.9 50000 22", &["load", path(file)]);
    let refused = run(&elsewhere);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("would lock you out"), "{refused:?}");
    assert_eq!(run(&a).status, Some(0));
}

#[test]
fn a_limit_rule_does_not_lock_out_the_operator() {
    let world = world();
    let sshd = Sshd::new(&world, World::HOST_V4);
    let (_stream, session) = sshd.login();
    let a = policy_file(POLICY_A);
    let loaded = over_ssh(&world.host, &session, &["load", path(&a)]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
}

#[test]
fn a_peer_can_be_given_and_a_session_of_another_host_is_ignored() {
    let world = world();
    let elsewhere = policy_file(ELSEWHERE);
    let load = |peer: &str| {
        nfguard(&world.host, &["load", path(&elsewhere), "--dry-run", "--json", "--peer", peer])
    };
    let cut = |peer: &str| {
        let answer = load(peer);
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        answer["lockout"].is_string()
    };
    assert!(cut("192.0.2.9") && cut("2001:db8:98::1") && cut("[2001:db8:98::1]:22"));
    assert!(!cut("203.0.113.9") && !cut("2001:db8:99::1"));
    assert!(!cut("192.0.2.9:80") && cut("192.0.2.9:81"));
    assert_eq!(load("a word").status, Some(2));
    // The machine that this is a namespace of has addresses of its own.
    let session = "192.0.2.9 50000 192.0.2.77 22";
    let other = over_ssh(&world.host, session, &["load", path(&elsewhere)]);
    assert_eq!(other.status, Some(0), "{other:?}");
}

#[test]
fn a_session_is_judged_by_the_interface_that_its_packets_come_in_by() {
    let world = world();
    ip(&world.host, "address add 198.51.100.60/32 dev eth0 label eth0:1");
    ip(&world.host, "address add 198.51.100.61/32 dev lo");
    let locks_out = |interface: &str, session: &str| {
        let rule = format!(r#"{{ "action": "allow", "port": 22, "in_interface": "{interface}" }}"#);
        let policy = policy_file(&format!(r#"{{ "version": 1, "rules": [{rule}] }}"#));
        let load = ["load", path(&policy), "--dry-run", "--json"];
        let answer = over_ssh(&world.host, session, &load);
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        answer["lockout"].is_string()
    };
    for local in ["198.51.100.2", "198.51.100.60", "198.51.100.61"] {
        let session = format!("203.0.113.9 50000 {local} 22");
        assert!(!locks_out("eth0", &session), "{local}");
        assert!(locks_out("eth1", &session), "{local}");
    }
    // From this host to itself a packet never leaves it.
    let own = "198.51.100.2 50000 198.51.100.2 22";
    assert!(!locks_out("eth9", own), "loopback is built in");
}

/// Returns why a load over this session is not done; `None` if it would be.
fn lockout(host: &Netns, session: &str, policy: &str) -> Option<String> {
    let policy = policy_file(policy);
    let answer = over_ssh(host, session, &["load", path(&policy), "--dry-run", "--json"]);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    answer["lockout"].as_str().map(str::to_owned)
}

/// Lets in these ports and no others.
fn allow(ports: &[u16]) -> String {
    let rules: Vec<String> =
        ports.iter().map(|port| format!(r#"{{ "action": "allow", "port": {port} }}"#)).collect();
    format!(r#"{{ "version": 1, "rules": [{}] }}"#, rules.join(","))
}

#[test]
fn a_session_behind_port_translation_is_judged_by_the_port_that_its_client_asks_for() {
    for (address, family) in [(World::HOST_V4, "ip"), (World::HOST_V6, "ip6")] {
        let world = world();
        let host = &world.host;
        ip(host, "address add 203.0.113.77/32 dev lo");
        ip(host, "address add 2001:db8:77::1/128 dev lo");
        // 2222 by redirect; 2223 to another address of this host; 2224 of an address that it has not.
        let (any, other, foreign) = match family {
            "ip" => ("0.0.0.0", "203.0.113.77", "198.18.5.9"),
            _ => ("::", "2001:db8:77::1", "2001:db9::9"),
        };
        let to = SocketAddr::new(other.parse().expect("an address"), 22);
        run_nft_script(
            host,
            &format!(
                "table {family} nat {{ chain pre {{ type nat hook prerouting priority dstnat;
                     tcp dport 2222 redirect to :22
                     tcp dport 2223 dnat to {to}
                     {family} daddr {foreign} tcp dport 2224 dnat to {to}
                 }}
                 }}"
            ),
        );
        ip(&world.internet, &format!("route add {foreign} via {address}"));
        let any: IpAddr = any.parse().expect("an address");
        let _server = host.serve_tcp((any, 22)).expect("serves");
        let mut streams = Vec::new();
        let mut session = |at: SocketAddr| {
            let probe = Probe::tcp(&world.internet, at).timeout(TIMEOUT);
            let stream = probe.connect().expect("connects");
            let near = stream.local_addr().expect("connected");
            streams.push(stream);
            // sshd names the end that it sees.
            let local = if [22, 2222].contains(&at.port()) { address } else { to.ip() };
            format!("{} {} {local} 22", near.ip(), near.port())
        };
        let foreign = foreign.parse().expect("an address");
        for (at, port) in [(address, 22), (address, 2222), (address, 2223), (foreign, 2224)] {
            let at = SocketAddr::new(at, port);
            let session = session(at);
            assert_eq!(lockout(host, &session, &allow(&[port])), None, "{session} by {port}");
            let why = lockout(host, &session, &allow(&[2200])).expect("no way in");
            assert!(why.contains(&at.to_string()), "{why}");
            // What was foretold comes true.
            let policy = policy_file(&allow(&[port]));
            assert_eq!(over_ssh(host, &session, &["load", path(&policy)]).status, Some(0));
            assert!(Probe::tcp(&world.internet, at).run().passed(), "{session} by {port}");
            succeed(host, &["unload"]);
            if port != 22 {
                // The port of sshd alone is of no use.
                assert!(lockout(host, &session, &allow(&[22])).is_some(), "{session} by {port}");
            }
        }
    }
}

#[test]
fn a_session_whose_way_in_is_not_certain_is_judged_by_each_way() {
    let world = world();
    let host = &world.host;
    // Answers to one peer leave by another interface than the one that has the address.
    ip(host, "link add eth1 type veth peer name other");
    for arguments in ["link set eth1 up", "link set other up", "address add 10.9.0.1/24 dev eth1"] {
        ip(host, arguments);
    }
    ip(host, "route add 203.0.113.0/24 via 10.9.0.2");
    let (asymmetric, plain) =
        ("203.0.113.9 50000 198.51.100.2 22", "192.0.2.9 50000 198.51.100.2 22");
    let by = |interface: &str| {
        format!(
            r#"{{ "version": 1, "rules": [
                {{ "action": "allow", "port": 22, "in_interface": "{interface}" }} ] }}"#
        )
    };
    for interface in ["eth0", "eth1"] {
        let why = lockout(host, asymmetric, &by(interface)).expect("it depends");
        assert!(why.contains("come in by eth0 or eth1"), "{why}");
    }
    assert_eq!(lockout(host, asymmetric, &by("eth*")), None);
    assert!(lockout(host, asymmetric, &by("wg0")).expect("none").contains("would be dropped"));
    assert_eq!(lockout(host, plain, &by("eth0")), None);
    let strict = r#"{ "version": 1, "builtin": { "return-path": true },
        "rules": [ { "action": "allow", "port": 22 } ] }"#;
    let why = lockout(host, asymmetric, strict).expect("the kernel may drop it");
    assert!(why.contains("return-path") && why.contains("answers leave by eth1"), "{why}");
    assert_eq!(lockout(host, plain, strict), None);
    // The named peer is the operator's word.
    let file = policy_file(strict);
    let named = ["load", path(&file), "--peer", "203.0.113.9"];
    assert_eq!(over_ssh(host, asymmetric, &named).status, Some(0));
}

#[test]
fn a_session_to_an_address_that_this_host_has_not_needs_a_peer_or_force() {
    let world = world();
    let policy = policy_file(POLICY_A);
    let run = |session: &str, more: &str| {
        // A process namespace, in which all ancestors are in the same network namespace.
        let nfguard = nfguard_tests::program::path();
        let script = format!("{} load {} {more}; exit $?", nfguard.display(), path(&policy));
        world.host.run(|| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script]);
            unshare.env("SSH_CONNECTION", session);
            nfguard_tests::program::Answer::from(unshare.output().expect("unshare is installed"))
        })
    };
    for session in [
        "192.0.2.9 50000 192.0.2.77 22",
        "2001:db8:5::9 50000 2001:db8:5::77 2222",
        "127.0.0.1 50000 127.0.0.1 22",
        "::1 50000 ::1 22",
    ] {
        let refused = run(session, "");
        assert_eq!(refused.status, Some(1), "{session}: {refused:?}");
        for part in ["nothing was loaded", "cannot be judged", "`--peer`", "`--force`"] {
            assert!(refused.stderr.contains(part), "{session}: {refused:?}");
        }
        assert_eq!(run(session, "--dry-run --peer 192.0.2.9").status, Some(0), "{session}");
    }
    let forced = run("192.0.2.9 50000 192.0.2.77 22", "--force");
    assert_eq!(forced.status, Some(0), "{forced:?}");
    assert!(forced.stderr.contains("cannot be judged"), "{forced:?}");
    assert_eq!(run("192.0.2.9 50000 198.51.100.2 22", "").status, Some(0), "an own address");
}

fn confirm(host: &Netns, session: Option<&str>) -> Value {
    let answer = match session {
        Some(session) => over_ssh(host, session, &["confirm", "--json"]),
        None => nfguard(host, &["confirm", "--json"]),
    };
    assert_eq!(answer.status, Some(0), "{answer:?}");
    wait_for_watchdog_end(host);
    serde_json::from_str(&answer.stdout).expect("JSON")
}

#[test]
fn only_a_connection_opened_after_the_load_is_proof() {
    let world = world();
    let host = &world.host;
    let sshd = Sshd::new(&world, World::HOST_V4);
    let files = [policy_file(POLICY_A), policy_file(POLICY_B), policy_file(POLICY_C)];
    let (_first, first) = sshd.login();
    let (_second, second) = sshd.login();
    let load = |which: usize| {
        let loaded =
            over_ssh(host, &first, &["load", path(&files[which]), "--confirm", LONG_CONFIRM_TIME]);
        assert_eq!(loaded.status, Some(0), "{loaded:?}");
    };
    let expect = |answer: &Value, from: &str| {
        assert_eq!(answer["confirmed"], true);
        assert_eq!(
            (&answer["connection"], &answer["proves_access"]),
            (&from.into(), &(from == "new").into())
        );
    };
    load(0);
    expect(&confirm(host, Some(&first)), "same");
    load(1);
    expect(&confirm(host, Some(&second)), "old");
    load(2);
    let (third, after) = sshd.login();
    expect(&confirm(host, Some(&after)), "new");
    drop(third);
    load(0);
    expect(&confirm(host, Some("192.0.2.9 50000 198.51.100.2 22")), "unseen");
    // In words.
    load(1);
    let (_fourth, after) = sshd.login();
    let words = over_ssh(host, &after, &["confirm"]);
    let (confirmed, peer) = words.stdout.split_once('\n').expect("two lines");
    assert_eq!(confirmed, "confirmed from a connection opened after the load");
    assert!(
        peer.starts_with("198.51.100.1, the peer of your SSH session, is not banned"),
        "{peer}"
    );
}

#[test]
fn the_console_may_confirm_and_is_named_as_console() {
    let netns = netns();
    let a = policy_file(POLICY_A);
    succeed(&netns, &["load", path(&a), "--confirm", LONG_CONFIRM_TIME]);
    let answer = confirm(&netns, None);
    // A session by SSH that runs this test is not one of the namespace.
    let from = answer["connection"].as_str().expect("a word");
    assert!(["console", "unseen"].contains(&from), "{answer}");
    assert_eq!(answer["proves_access"], false);
}
