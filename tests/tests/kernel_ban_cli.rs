//! `ban`, `unban`, `bans`, `save`, `restore`, `never` and `unload --all`, as operators and ban
//! tools call them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nfguard_ban::TABLE;
use nfguard_lab::{Netns, Probe, World};
use nfguard_netlink::Nft;
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{self, Answer, TempFile, many, nfguard, nfguard_fed, succeed};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const TRAEFIK: &str = include_str!("../../policies/traefik.json");

fn listed(netns: &Netns) -> Vec<Value> {
    let answer = succeed(netns, &["bans", "--json"]);
    let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    answer["bans"].as_array().expect("a list").clone()
}

fn targets(netns: &Netns) -> Vec<String> {
    let name = |ban: &Value| ban["target"].as_str().expect("a target").to_owned();
    listed(netns).iter().map(name).collect()
}

fn count(netns: &Netns) -> String {
    succeed(netns, &["bans", "--count"]).stdout.trim().to_owned()
}

/// Returns a folder that is removed on drop, and a path in it.
fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bans");
    (folder, path)
}

#[test]
fn times_and_ports_are_read_as_ban_tools_write_them() {
    let netns = netns();
    for (time, at_most) in
        [("600", Some(600.0)), ("600.5", Some(600.5)), ("10m", Some(600.0)), ("-1", None)]
    {
        succeed(&netns, &["ban", "192.0.2.1", "--for", time, "--source", "f2b/sshd"]);
        let ban = listed(&netns).remove(0);
        assert_eq!(ban["source"], "f2b/sshd");
        let left = ban["expires_in_seconds"].as_f64();
        assert_eq!(left.is_some(), at_most.is_some(), "{time}: {ban}");
        assert!(left.is_none_or(|left| Some(left) <= at_most && left > 590.0), "{time}: {ban}");
        succeed(&netns, &["unban", "192.0.2.1"]);
    }
    assert_eq!(nfguard(&netns, &["ban", "192.0.2.1", "--for", "0"]).status, Some(2));
    succeed(&netns, &["ban", "192.0.2.1", "--port", "80,443/udp"]);
    let ports: Vec<_> = listed(&netns).iter().map(|ban| ban["port"].clone()).collect();
    assert_eq!(ports, ["80/tcp", "80/udp", "443/udp"]);
    assert_eq!(nfguard(&netns, &["unban", "192.0.2.1"]).status, Some(1));
    succeed(&netns, &["unban", "192.0.2.1", "--port", "80,443/udp"]);
    assert_eq!(count(&netns), "0");
}

#[test]
fn an_ipv6_address_is_banned_with_its_network_or_the_given_prefix() {
    let netns = netns();
    succeed(
        &netns,
        &["ban", "2001:db8::1", "2001:db8:1::1/128", "::ffff:192.0.2.1", "192.0.2.77/24"],
    );
    succeed(&netns, &["ban", "2001:db8:2::1", "--v6-prefix", "56"]);
    let expected =
        ["192.0.2.0/24", "192.0.2.1", "2001:db8:2::/56", "2001:db8::/64", "2001:db8:1::1/128"];
    assert_eq!(targets(&netns), expected);
    succeed(&netns, &["unban", "2001:db8::99", "2001:db8:1::1", "192.0.2.1"]);
    succeed(&netns, &["unban", "2001:db8:2::9", "--v6-prefix", "56"]);
    assert_eq!(targets(&netns), ["192.0.2.0/24"]);
}

#[test]
fn a_neighbour_in_our_own_ipv6_network_is_banned_alone() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    // The host's own address and its gateway are in the same /64.
    succeed(&world.host, &["ban", "2001:db8:1::77"]);
    assert_eq!(targets(&world.host), ["2001:db8:1::77/128"]);
    succeed(&world.host, &["unban", "2001:db8:1::77"]);
    assert_eq!(targets(&world.host), [""; 0]);
}

#[test]
fn this_host_its_gateway_and_the_operator_are_never_banned_and_the_answer_names_them() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let host = &world.host;
    for (target, who) in [
        ("198.51.100.2", "198.51.100.2 (this host's address on eth0)"),
        ("198.51.100.0/24", "198.51.100."),
        ("198.51.100.1", "198.51.100.1 (this host's gateway)"),
        ("2001:db8:1::1", "this host's"),
        ("127.0.0.1", "loopback"),
    ] {
        let refused = nfguard(host, &["ban", target]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(who), "{refused:?}");
    }
    // A tool outside of the SSH session does not ban its peer either.
    let over_ssh = host.run(|| {
        let mut command = program::command(&["never"]);
        command.env("SSH_CONNECTION", "203.0.113.9 50000 198.51.100.2 22");
        Answer::from(command.arg("add").arg("192.0.2.0/28").output().expect("nfguard starts"))
    });
    assert_eq!(over_ssh.status, Some(0), "{over_ssh:?}");
    let refused = nfguard(host, &["ban", "203.0.113.0/24"]);
    assert!(refused.stderr.contains("203.0.113.9 (an SSH session on 2"), "{refused:?}");
    let refused = nfguard(host, &["ban", "192.0.2.3"]);
    assert!(refused.stderr.contains("192.0.2.0/28 (the operator says so)"), "{refused:?}");
    succeed(host, &["never", "remove", "203.0.113.9", "192.0.2.0/28"]);
    succeed(host, &["ban", "203.0.113.0/24", "192.0.2.3"]);
    assert!(!succeed(host, &["never"]).stdout.contains("203.0.113.9"));
}

#[test]
fn a_never_ban_entry_of_the_policy_holds_until_the_policy_changes() {
    let netns = netns();
    let load = |never: &str| {
        let text = format!(
            r#"{{ "version": 1, "groups": {{ "office": ["192.0.2.0/28"] }}, {never}
                  "rules": [{{ "action": "allow", "port": "ssh" }}] }}"#
        );
        let policy = TempFile::new("policy.json", &text);
        succeed(&netns, &["load", policy.as_ref().to_str().expect("a path")]);
    };
    load("");
    assert!(!nft(&netns, "list ruleset\n").contains(TABLE), "no table without need");
    load(r#""never_ban": ["office", "203.0.113.9"],"#);
    for target in ["192.0.2.3", "203.0.113.0/24"] {
        let refused = nfguard(&netns, &["ban", target]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("the policy says so"), "{refused:?}");
    }
    load(r#""never_ban": "203.0.113.9","#);
    succeed(&netns, &["ban", "192.0.2.3"]);
    assert_eq!(nfguard(&netns, &["ban", "203.0.113.9"]).status, Some(2));
    load("");
    succeed(&netns, &["ban", "203.0.113.9"]);
}

#[test]
fn a_former_address_of_this_host_can_be_banned() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    succeed(&world.host, &["ban", "192.0.2.1"]);
    assert!(succeed(&world.host, &["never"]).stdout.contains("198.51.100.2/32"));
    let removed = || Command::new("ip").args(["link", "del", "eth0"]).status();
    assert!(world.host.run(removed).expect("ip starts").success());
    succeed(&world.host, &["ban", "198.51.100.2"]);
}

#[test]
fn connections_of_banned_addresses_are_deleted_on_request() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let host = &world.host;
    // A policy makes the kernel track connections.
    nft(host, "table inet t { chain c { type filter hook input priority 0; ct state new; }; }\n");
    let to = SocketAddr::new(World::HOST_V4, 443);
    let _server = host.serve_tcp(to).expect("a server");
    let open = |from: &str| {
        let from: std::net::IpAddr = from.parse().expect("an address");
        let probe = Probe::tcp(&world.internet, to).from(from);
        probe.timeout(TIMEOUT).connect().expect("no address is banned yet")
    };
    let _open = ["203.0.113.66", "203.0.113.67", "203.0.113.68"].map(open);
    let tracked = || {
        let mut kernel = Nft::open().expect("netlink");
        let mut senders = kernel.connections(|_| true).expect("a list");
        senders.sort_by_key(|connection| connection.original.source);
        senders.iter().map(|one| one.original.source.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(host.run(tracked).len(), 3);
    let answer = succeed(host, &["ban", "203.0.113.66", "203.0.113.67", "--port", "80", "--cut"]);
    assert!(answer.stdout.contains("\n0 open connections"), "another port: {answer:?}");
    let answer = succeed(host, &["ban", "203.0.113.66", "203.0.113.67", "--cut"]);
    assert!(answer.stdout.contains("\n2 open connections"), "{answer:?}");
    assert_eq!(host.run(tracked), ["203.0.113.68"]);
}

#[test]
fn unban_ends_all_bans_of_a_source() {
    let netns = netns();
    succeed(&netns, &["ban", "192.0.2.1", "192.0.2.2", "--source", "fail2ban/traefik"]);
    succeed(&netns, &["ban", "192.0.2.3"]);
    let answer = succeed(&netns, &["unban", "--source", "fail2ban/traefik"]);
    assert!(answer.stdout.contains("2 unbanned"), "{answer:?}");
    assert_eq!(targets(&netns), ["192.0.2.3"]);
    succeed(&netns, &["unban", "--source", "unknown"]);
    assert_eq!(nfguard(&netns, &["unban"]).status, Some(2));
}

#[test]
fn a_source_is_found_by_any_name() {
    let netns = netns();
    for source in ["my tool", "jail@host", "\"q\"", "a-jail-whose-name-is-longer-than-32-bytes"] {
        succeed(&netns, &["ban", "192.0.2.1", "--source", source]);
        assert!(succeed(&netns, &["bans", "--source", source]).stdout.contains("192.0.2.1"));
        let ended = succeed(&netns, &["unban", "--source", source]).stdout;
        assert!(ended.contains("1 unbanned"), "{ended}");
    }
}

#[test]
fn a_full_set_is_not_a_usage_error() {
    let netns = netns();
    succeed(&netns, &["ban", "192.0.2.1"]);
    let small = "{ type ipv4_addr; flags timeout; size 1; }";
    nft(&netns, &format!("add set inet {TABLE} v4/24 {small}\n"));
    succeed(&netns, &["ban", "192.0.2.0/24"]);
    let refused = nfguard(&netns, &["ban", "198.51.100.0/24"]);
    assert_eq!(refused.status, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("no room for 1 more bans"), "{refused:?}");
}

#[test]
fn only_an_existing_never_ban_entry_can_be_removed() {
    let netns = netns();
    succeed(&netns, &["never", "add", "192.0.2.77/24", "::ffff:198.51.100.1"]);
    for target in ["203.0.113.1", "192.0.2.1", "127.0.0.0/8"] {
        let refused = nfguard(&netns, &["never", "remove", target]);
        assert_eq!(refused.status, Some(1), "{refused:?}");
    }
    succeed(&netns, &["never", "remove", "192.0.2.77/24", "::ffff:198.51.100.1"]);
    let list = succeed(&netns, &["never"]).stdout;
    assert!(!list.contains("192.0.2.") && !list.contains("198.51.100."), "{list}");
    assert_eq!(list.matches("127.0.0").count(), 1, "{list}");
}

#[test]
fn listing_bans_changes_nothing() {
    let netns = netns();
    for arguments in [&["bans"][..], &["bans", "--count"], &["never"], &["unban", "--source", "x"]]
    {
        succeed(&netns, arguments);
    }
    assert_eq!(nfguard(&netns, &["unban", "192.0.2.1"]).status, Some(1));
    assert_eq!(nft(&netns, "list ruleset\n"), "");
}

#[test]
fn unload_removes_the_policy_and_unload_all_the_bans_too_and_no_other_table() {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    let host = &world.host;
    let policy = TempFile::new("traefik.json", TRAEFIK);
    let path = policy.as_ref().to_str().expect("a path");
    nft(host, "table ip mine { chain c { type filter hook input priority 0; accept; }; }\n");
    let others = nft(host, "list ruleset\n");
    let _server = host.serve_tcp(SocketAddr::new(World::HOST_V4, 443)).expect("a server");
    let attacker: std::net::IpAddr = "203.0.113.66".parse().expect("an address");
    let probe = || Probe::tcp(&world.internet, SocketAddr::new(World::HOST_V4, 443)).from(attacker);

    succeed(host, &["load", path]);
    succeed(host, &["ban", "203.0.113.66"]);
    succeed(host, &["unload"]);
    assert!(!probe().run().passed());
    succeed(host, &["load", path]);
    assert!(!probe().run().passed());
    succeed(host, &["unload", "--all"]);
    assert_eq!(nft(host, "list ruleset\n"), others);
    assert!(probe().timeout(TIMEOUT).run().passed());
    succeed(host, &["unload", "--all"]);
}

/// Returns the output of `ban -` on a terminal while it bans `count` addresses.
fn terminal_output(count: u32) -> String {
    let netns = netns();
    let list: String = (0..count).map(|at| format!("10.0.{}.{}\n", at >> 8, at & 255)).collect();
    let list = TempFile::new("list", &list);
    let mut command = program::command(&["ban", "-"]);
    command.stdin(fs::File::open(list.path()).expect("it is there"));
    let (status, written) = program::on_terminal(&netns, command, false);
    assert_eq!(status, Some(0), "{written}");
    written
}

#[test]
fn a_terminal_shows_the_progress_of_a_long_list() {
    let written = terminal_output(25_000);
    assert!(written.contains("of 25,000 banned, "), "{written:?}");
    assert_eq!(terminal_output(1_000), "", "it is over at once");
    let list: String = (0..25_000).map(|at| format!("10.0.{}.{}\n", at >> 8, at & 255)).collect();
    let elsewhere = nfguard_fed(&netns(), &["ban", "-"], &list);
    assert_eq!((elsewhere.status, elsewhere.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_hundred_thousand_saved_bans_come_back_with_their_remaining_time() {
    let (here, there) = (netns(), netns());
    let (_folder, path) = state();
    let path = path.to_str().expect("a path");
    let count = many(100_000);
    let list: String =
        (0..count).map(|at| format!("10.{}.{}.{}\n", at >> 16, at >> 8 & 255, at & 255)).collect();
    let banned = nfguard_fed(&here, &["ban", "-", "--for", "1h", "--reason", "many"], &list);
    assert_eq!(banned.status, Some(0), "{banned:?}");
    succeed(&here, &["ban", "2001:db8::/32", "--port", "443/udp"]);
    succeed(&here, &["save", path]);
    std::thread::sleep(Duration::from_secs(2));
    let restored = succeed(&there, &["restore", path]);
    assert!(restored.stdout.starts_with(&format!("{} banned, 0 ", count + 1)), "{restored:?}");
    // A repeated restore changes nothing.
    let again = succeed(&there, &["restore", path]);
    let unchanged = format!("nothing changed: {} were banned already", count + 1);
    assert!(again.stdout.starts_with(&unchanged), "{again:?}");
    let all = listed(&there);
    assert_eq!(all.len(), count as usize + 1);
    let probe = all.into_iter().find(|ban| ban["target"] == "10.0.2.3").expect("banned");
    let left = probe["expires_in_seconds"].as_f64().expect("an end");
    assert!(left < 3598.0, "{probe}");
    assert_eq!(probe["reason"], "many");
}

#[test]
fn a_saved_ban_that_has_expired_is_not_restored() {
    let (here, there) = (netns(), netns());
    let (_folder, path) = state();
    let path = path.to_str().expect("a path");
    succeed(&here, &["ban", "192.0.2.1", "--for", "10s"]);
    succeed(&here, &["ban", "192.0.2.2", "--for", "1h"]);
    succeed(&here, &["save", path]);
    std::thread::sleep(Duration::from_secs(11));
    let restored = succeed(&there, &["restore", path]);
    assert!(restored.stdout.starts_with("1 had expired\n1 banned, 0 "), "{restored:?}");
    assert_eq!(targets(&there), ["192.0.2.2"]);
}

#[test]
fn bans_of_other_tools_are_taken_over_with_the_time_that_is_left() {
    let netns = netns();
    let left = |target: &str| {
        let ban = listed(&netns).into_iter().find(|ban| ban["target"] == target).expect(target);
        let left =
            ban["expires_in_seconds"].as_f64().map_or(f64::INFINITY, |left| (left / 60.0).ceil());
        (ban["source"].as_str().expect("a source").to_owned(), left)
    };
    let ever = f64::INFINITY;
    let ipset = include_str!("../../crates/control/src/lists/samples/ipset.save");
    let cscli = include_str!("../../crates/control/src/lists/samples/cscli.json");
    let set = include_str!("../../crates/control/src/lists/samples/nft.set");
    let sshguard = "1764440000|100|4|192.0.2.9\n1764440001|100|6|2001:db8:7::7\n";
    for (list, targets, over) in [
        (
            ipset,
            &[("192.0.2.7", "ipset/f2b-sshd", 5.0), ("198.51.100.0/24", "ipset/f2b-sshd", ever)][..],
            0,
        ),
        (
            set,
            &[("192.0.2.7", "nft/blackhole", 60.0), ("203.0.113.2/31", "nft/blackhole", ever)],
            0,
        ),
        (cscli, &[("192.0.2.7", "crowdsec", 240.0), ("198.51.100.0/24", "crowdsec", 11.0)], 1),
        (sshguard, &[("192.0.2.9", "sshguard", ever), ("2001:db8:7::/64", "sshguard", ever)], 0),
    ] {
        let file = TempFile::new("bans", list);
        let import = ["import".as_ref(), "bans".as_ref(), file.as_ref(), "--json".as_ref()];
        let answer = nfguard::<&std::ffi::OsStr>(&netns, &import);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        let told: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        assert_eq!((&told["over"], &told["kept"]), (&over.into(), &0.into()), "{told}");
        for (target, source, minutes) in targets {
            assert_eq!(left(target), ((*source).to_owned(), *minutes), "{list}");
        }
        let import = ["import".as_ref(), "bans".as_ref(), file.as_ref()];
        let again = nfguard::<&std::ffi::OsStr>(&netns, &import);
        assert!(again.stdout.contains("nothing changed: ") || over > 0 || list == set, "{again:?}");
        succeed(&netns, &["unload", "--all"]);
    }
    let few = [&["import", "bans", "-", "--source", "mine", "--for", "1h"][..]].concat();
    let answer = nfguard_fed(&netns, &few, "# list\n192.0.2.7\n192.0.2.8\n");
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert_eq!(left("192.0.2.8"), ("mine".to_owned(), 60.0));
    // Nothing is left of what was banned: no error.
    let nothing = nfguard_fed(&netns, &["import", "bans", "-"], "null\n");
    assert_eq!(nothing.status, Some(0), "{nothing:?}");
    // A list that would shut everyone out is refused, whichever verb reads it.
    for verb in [&["ban", "-"][..], &["import", "bans", "-"]] {
        let refused = nfguard_fed(&netns, verb, "192.0.2.9\n128.0.0.0/1\n");
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("128.0.0.0-255.255.255.255"), "{refused:?}");
        assert_eq!(targets(&netns), ["192.0.2.7", "192.0.2.8"]);
    }
}

#[test]
fn a_damaged_file_restores_no_ban_and_is_set_aside() {
    let netns = netns();
    let (folder, path) = state();
    let text = path.to_str().expect("a path");
    succeed(&netns, &["ban", "192.0.2.1", "192.0.2.2", "--for", "1h"]);
    succeed(&netns, &["save", text]);
    succeed(&netns, &["unload", "--all"]);
    let whole = fs::read(&path).expect("saved");
    for number in 1..=2 {
        fs::write(&path, &whole[..whole.len() - 40]).expect("written");
        let refused = nfguard(&netns, &["restore", text]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(&format!("bans.damaged-{number}")), "{refused:?}");
        assert!(!path.exists());
        assert!(folder.path().join(format!("bans.damaged-{number}")).exists());
    }
    assert_eq!(count(&netns), "0");
    fs::write(&path, whole).expect("written");
    succeed(&netns, &["restore", text]);
    assert_eq!(count(&netns), "2");
}

#[test]
fn a_file_that_save_did_not_write_stays_in_place_and_so_does_a_pipe() {
    let netns = netns();
    let (folder, path) = state();
    let text = path.to_str().expect("a path");
    for other in ["", "# rules\n", "{\"bans\":[],\"schema\":1}\n"] {
        fs::write(&path, other).expect("written");
        let refused = nfguard(&netns, &["restore", text]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), other);
    }
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo starts").success());
    let refused = nfguard(&netns, &["save", pipe.to_str().expect("a path")]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("not a regular file"), "{refused:?}");
    assert!(fs::metadata(&pipe).expect("still there").file_type().is_fifo());
    let link = folder.path().join("link");
    symlink(&path, &link).expect("a link");
    succeed(&netns, &["save", link.to_str().expect("a path")]);
    assert!(link.is_symlink() && fs::read_to_string(&path).expect("saved").contains("sha256"));
}

#[test]
fn bans_are_saved_to_standard_output_and_restored_from_standard_input() {
    let (here, there) = (netns(), netns());
    succeed(&here, &["ban", "192.0.2.1", "2001:db8::/32", "--for", "1h"]);
    let saved = succeed(&here, &["save", "-"]).stdout;
    let restored = nfguard_fed(&there, &["restore", "-"], &saved);
    assert_eq!(restored.status, Some(0), "{restored:?}");
    assert_eq!(targets(&there), targets(&here));
    let refused = nfguard_fed(&there, &["restore", "-"], &saved[..saved.len() - 40]);
    assert!(refused.stderr.ends_with("no address was banned\n"), "{refused:?}");
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let netns = netns();
    let (folder, path) = state();
    let text = path.to_str().expect("a path");
    succeed(&netns, &["ban", "192.0.2.1"]);
    succeed(&netns, &["save", text]);
    let before = fs::read(&path).expect("saved");
    let absent = folder.path().join("absent/bans");
    assert_eq!(nfguard(&netns, &["save", absent.to_str().expect("a path")]).status, Some(2));
    // A file of 100,000 bans does not fit a limit of 1,024 bytes on the size of files.
    let list: String = (0..1000).map(|at| format!("10.0.{}.{}\n", at / 250, at % 250)).collect();
    nfguard_fed(&netns, &["ban", "-"], &list);
    let failed = netns.run(|| {
        let mut command = program::command::<&str>(&[]);
        let program = command.get_program().to_owned();
        command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$0\" save \"$1\""]);
        Answer::from(command.arg(program).arg(text).output().expect("sh starts"))
    });
    assert_eq!(failed.status, Some(2), "{failed:?}");
    assert_eq!(fs::read(&path).expect("still there"), before);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing left behind");
    assert!(nft(&netns, &format!("list table inet {TABLE}\n")).contains("192.0.2.1"));
}
