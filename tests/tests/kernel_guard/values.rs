//! One meaning of a value, whichever way it comes in: command line, list, JSON and socket.

use std::collections::BTreeSet;
use std::fs;

use nfguard_lab::{Netns, Probe, veth};
use nfguard_tests::guard::{Guard, GuardClient};
use nfguard_tests::program::{Answer, nfguard, nfguard_fed};
use serde_json::{Value, json};

use super::{json as parsed, netns, succeed};

/// The bans that a way in made, or the words with which it refused.
type Outcome = Result<BTreeSet<String>, String>;

/// Returns each ban as `TARGET PORT SECONDS`, and ends all.
fn taken(netns: &Netns) -> BTreeSet<String> {
    let all = parsed(&succeed(netns, &["bans", "--json"]).stdout);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let bans = all["bans"].as_array().expect("a list").iter().map(|ban| {
        // A test on a slow machine is some seconds late.
        let left = ban["expires_in_seconds"].as_f64().map(|left| (left / 60.0).ceil() * 60.0);
        let left = left.map_or("-".to_owned(), |left| left.to_string());
        format!("{} {} {left}", text(&ban["target"]), text(&ban["port"]))
    });
    let bans = bans.collect();
    succeed(netns, &["unban", "--source", "values"]);
    bans
}

/// Returns what became of a command.
fn outcome(netns: &Netns, answer: &Answer) -> Outcome {
    match answer.status {
        Some(0) => Ok(taken(netns)),
        status => {
            assert_eq!(status, Some(2), "{answer:?}");
            assert_eq!(taken(netns), BTreeSet::new(), "{answer:?}");
            Err(answer.stderr.clone())
        }
    }
}

fn by_socket(netns: &Netns, client: &mut GuardClient, ban: &Value) -> Outcome {
    let mut request = ban.clone();
    request["op"] = json!("ban");
    let answer = parsed(&client.request(&request.to_string()));
    if answer["ok"] == true {
        return Ok(taken(netns));
    }
    let expected = if ban["target"] == "127.0.0.1" { "never_ban" } else { "bad_input" };
    assert_eq!(answer["code"], expected, "{answer}");
    assert_eq!(taken(netns), BTreeSet::new(), "{answer}");
    Err(answer["error"].as_str().expect("an error").to_owned())
}

/// Target, ports and time of a ban, and the bans that it makes; or the words of its refusal.
type Case =
    (&'static str, &'static str, &'static str, Result<&'static [&'static str], &'static str>);

#[rustfmt::skip]
const VALUES: [Case; 42] = [
    ("203.0.113.7", "", "1h30m", Ok(&["203.0.113.7 - 5400"])),
    ("203.0.113.7", "", "10m", Ok(&["203.0.113.7 - 600"])),
    ("203.0.113.7", "", "600", Ok(&["203.0.113.7 - 600"])),
    ("203.0.113.7", "", "600s", Ok(&["203.0.113.7 - 600"])),
    ("203.0.113.7", "", "599.5", Ok(&["203.0.113.7 - 600"])),
    ("203.0.113.7", "", "-1", Ok(&["203.0.113.7 - -"])),
    ("203.0.113.7", "", "0", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "0s", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "-2", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "-1s", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "1e300", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "99999999999999999999999", Err("is no duration; expected 90s")),
    ("203.0.113.7", "", "soon", Err("is no duration; expected 90s")),
    ("203.0.113.9/24", "", "", Ok(&["203.0.113.0/24 - -"])),
    ("203.0.113.0/255.255.255.0", "", "", Ok(&["203.0.113.0/24 - -"])),
    ("203.0.113.0-203.0.113.255", "", "", Ok(&["203.0.113.0/24 - -"])),
    ("203.0.113.7-203.0.113.9", "", "", Ok(&["203.0.113.7 - -", "203.0.113.8/31 - -"])),
    ("::ffff:203.0.113.7", "", "", Ok(&["203.0.113.7 - -"])),
    ("::ffff:203.0.113.0/120", "", "", Ok(&["203.0.113.0/24 - -"])),
    ("2001:db8:9::7", "", "", Ok(&["2001:db8:9::/64 - -"])),
    ("[2001:db8:9::7]", "", "", Ok(&["2001:db8:9::/64 - -"])),
    ("2001:db8:9::7/128", "", "", Ok(&["2001:db8:9::7/128 - -"])),
    ("fe80::1%eth0", "", "", Err("a zone is one of a link")),
    ("203.0.113.010", "", "", Err("leading zero is octal")),
    ("203.0.113", "", "", Err("an IPv4 address has four numbers")),
    ("203.0.113.0/33", "", "", Err("a prefix is up to 32 bits")),
    ("203.0.113.9-203.0.113.7", "", "", Err("it ends before it starts")),
    ("203.0.113.7-2001:db8::1", "", "", Err("its ends are of two IP versions")),
    ("203.0.113.300", "", "", Err("is no address, prefix or range; expected 192.0.2.1")),
    ("example.org", "", "", Err("is no address, prefix or range; expected 192.0.2.1")),
    ("127.0.0.1", "", "", Err("127.0.0.0/8 (loopback), which is on the never-ban list")),
    ("203.0.113.7", "443/tcp", "", Ok(&["203.0.113.7 443/tcp -"])),
    ("203.0.113.7", "443", "", Ok(&["203.0.113.7 443/tcp -", "203.0.113.7 443/udp -"])),
    ("203.0.113.7", "http/tcp,https/tcp", "", Ok(&["203.0.113.7 80/tcp -", "203.0.113.7 443/tcp -"])),
    ("203.0.113.7", "ssh", "", Ok(&["203.0.113.7 22/tcp -"])),
    ("203.0.113.7", "8000:8001/udp", "", Ok(&["203.0.113.7 8000/udp -", "203.0.113.7 8001/udp -"])),
    ("203.0.113.7", "0:65535", "", Ok(&["203.0.113.7 - -"])),
    ("203.0.113.7", "any", "", Ok(&["203.0.113.7 - -"])),
    ("203.0.113.7", "0", "", Err("is no port; expected 443")),
    ("203.0.113.7", "70000/tcp", "", Err("is no port; expected 443")),
    ("203.0.113.7", "nothing", "", Err("is no port; expected 443")),
    ("203.0.113.7", "1000:9000", "", Err("are more than 128 ports")),
];

#[test]
fn a_value_means_the_same_on_the_command_line_in_a_list_in_json_and_on_the_socket() {
    let netns = netns();
    let guard = Guard::start(&netns, None, &[]);
    let mut client = guard.connect();
    for (target, port, time, expected) in VALUES {
        let mut options = vec!["--source", "values"];
        let mut ban = json!({ "target": target, "source": "values" });
        if !port.is_empty() {
            options.extend(["--port", port]);
            ban["port"] = json!(port);
        }
        if !time.is_empty() {
            options.extend(["--for", time]);
            ban["for"] = json!(time);
        }
        let command = [&["ban", target], options.as_slice()].concat();
        let list = [&["ban", "-"], options.as_slice()].concat();
        let ways = [
            ("command line", outcome(&netns, &nfguard(&netns, &command))),
            ("list", outcome(&netns, &nfguard_fed(&netns, &list, &format!("{target}\n")))),
            ("JSON", outcome(&netns, &nfguard_fed(&netns, &["ban", "-"], &format!("{ban}\n")))),
            (
                "import",
                outcome(&netns, &nfguard_fed(&netns, &["import", "bans", "-"], &ban.to_string())),
            ),
            ("socket", by_socket(&netns, &mut client, &ban)),
        ];
        for (way, found) in ways {
            let is_as_expected = match (&found, expected) {
                (Ok(found), Ok(expected)) => found
                    .iter()
                    .eq(&BTreeSet::from_iter(expected.iter().map(|it| (*it).to_owned()))),
                (Err(found), Err(expected)) => found.contains(expected),
                _ => false,
            };
            assert!(
                is_as_expected,
                "{way}, {target} {port} {time}: {found:?}, expected {expected:?}"
            );
        }
    }
    // JSON has times as numbers too.
    for (time, bans) in [
        (json!(600), Some("203.0.113.7 - 600")),
        (json!(-1), Some("203.0.113.7 - -")),
        (json!(0), None),
        (json!(-60), None),
    ] {
        let ban = json!({ "target": "203.0.113.7", "for": time, "source": "values" });
        let expected = bans.map(|ban| BTreeSet::from([ban.to_owned()]));
        assert_eq!(
            outcome(&netns, &nfguard_fed(&netns, &["ban", "-"], &format!("{ban}\n"))).ok(),
            expected,
            "{ban}"
        );
        assert_eq!(by_socket(&netns, &mut client, &ban).ok(), expected, "{ban}");
    }
    // What is written in one form is ended in another.
    succeed(&netns, &["ban", "203.0.113.7-203.0.113.9", "--port", "http/tcp,https/tcp"]);
    let unban =
        json!({ "op": "unban", "target": "203.0.113.7-203.0.113.9", "port": "80/tcp,443/tcp" });
    assert_eq!(parsed(&client.request(&unban.to_string()))["did"], "ended");
    assert_eq!(taken(&netns), BTreeSet::new());
    // Never-ban entries are read as targets are.
    succeed(&netns, &["never", "add", "::ffff:203.0.113.7", "203.0.113.16-203.0.113.18"]);
    for (target, is_refused) in
        [("203.0.113.7", true), ("203.0.113.18", true), ("203.0.113.19", false)]
    {
        assert_eq!(nfguard(&netns, &["ban", target]).status == Some(2), is_refused, "{target}");
    }
    for wrong in ["fe80::1%eth0", "203.0.113.010"] {
        assert_eq!(nfguard(&netns, &["never", "add", wrong]).status, Some(2), "{wrong}");
    }
}

#[test]
fn a_target_without_an_address_is_refused() {
    let netns = netns();
    // Each argument is one target.
    let lists = ["203.0.113.7,203.0.113.300", "203.0.113.7 203.0.113.8", "203.0.113.7\nx"];
    for target in ["", " ", "# none"].into_iter().chain(lists) {
        let refused = nfguard(&netns, &["ban", target]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("is no address"), "{refused:?}");
    }
    for of_lists in [&["--column", "1"][..], &["--set", "a"]] {
        let refused = nfguard(&netns, &[&["ban", "203.0.113.7"], of_lists].concat());
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(
            refused.stderr.contains(&format!("{} is about a list", of_lists[0])),
            "{refused:?}"
        );
    }
    assert_eq!(nfguard(&netns, &["bans", "--count"]).stdout, "0\n");
    // An empty list is valid.
    assert_eq!(nfguard_fed(&netns, &["ban", "-"], "# none\n").status, Some(0));
}

#[test]
fn a_ban_that_shuts_out_what_no_list_should_is_refused_by_all_ways_unless_it_is_forced() {
    let (netns, far) = (netns(), netns());
    veth(&netns, "eth0", &far, "far0").expect("a cable");
    netns.address("eth0", [45, 10, 0, 1].into(), 8).expect("an address");
    let place = tempfile::tempdir().expect("a folder");
    let path = |name: &str| place.path().join(name).to_str().expect("plain letters").to_owned();
    let guard = Guard::start(&netns, None, &[]);
    let mut client = guard.connect();
    let mut refused = |target: &str, why: &str| {
        let said = |answer: Answer| {
            let is_refused = answer.status == Some(2) && answer.stderr.contains(why);
            assert!(is_refused && answer.stderr.contains("--force"), "{target}: {answer:?}");
        };
        said(nfguard(&netns, &["ban", target]));
        said(nfguard(&netns, &["ban", "203.0.113.7", target]));
        said(nfguard_fed(&netns, &["ban", "-"], &format!("{target}\n")));
        fs::write(path("list"), format!("{target}\n")).expect("written");
        said(nfguard(&netns, &["import", "bans", &path("list")]));
        let other = super::netns();
        succeed(&other, &["ban", target, "--force"]);
        succeed(&other, &["save", &path("saved")]);
        said(nfguard(&netns, &["restore", &path("saved")]));
        let entry = format!(r#"{{"target":"{target}","for":60}}"#);
        let all = format!(r#""bans":[{{"target":"203.0.113.7"}},{entry}]"#);
        for request in [
            format!(r#"{{"op":"ban","target":"{target}"}}"#),
            format!(r#"{{"op":"ban_all",{all}}}"#),
            format!(r#"{{"op":"replace","source":"a",{all}}}"#),
        ] {
            let answer = client.request(&request);
            assert!(answer.contains(r#""code":"too_wide""#) && answer.contains(why), "{answer}");
        }
        assert_eq!(nfguard(&netns, &["bans", "--count"]).stdout, "0\n");
    };
    refused("128.0.0.0/1", "percent of all addresses of IPv4");
    refused("2000::/3", "percent of all addresses of IPv6");
    refused("4.0.0.0-7.255.255.255", "percent of all addresses of IPv4");
    refused("2400::/12", "percent of all addresses of IPv6");

    // The connected peers count, if the prefix is wider than what has one owner.
    let server = netns.serve_tcp(([45, 10, 0, 1], 8080)).expect("a server");
    let connect = |last: u8| {
        far.address("far0", [45, 9, 1, last].into(), 8).expect("an address");
        let probe = Probe::tcp(&far, server.address()).from([45, 9, 1, last]);
        probe.connect().expect("it is let in")
    };
    let _connections: Vec<_> = (1..=4).map(connect).collect();
    refused("45.9.0.0/16", "4 of the 4 peers that are connected now");
    let narrow = r#"{"op":"ban","target":"45.9.1.0/24"}"#;
    assert!(client.request(narrow).contains("added"));
    succeed(&netns, &["ban", "45.9.1.0/24"]);

    // What the never-ban list refuses is refused alone, and is no reason to refuse the rest.
    let both = r#"{"op":"ban_all","bans":[{"target":"0.0.0.0/0"},{"target":"203.0.113.7"}]}"#;
    let answer = client.request(both);
    assert!(answer.contains(r#""added":1"#) && answer.contains("never_ban"), "{answer}");

    let forced = r#"{"op":"ban","target":"128.0.0.0/1","force":true}"#;
    assert!(client.request(forced).contains("added"));
    let all = r#"{"op":"ban_all","bans":[{"target":"2000::/3"}],"force":true}"#;
    assert!(client.request(all).contains(r#""added":1"#));
    succeed(&netns, &["ban", "45.9.0.0/16", "--force"]);
    succeed(&netns, &["restore", &path("saved"), "--force"]);
}
