//! A load does not touch other tables, nor the state of unchanged objects.

use nfguard_lab::{Probe, World};
use nfguard_tests::nft::{nft, try_nft};
use nfguard_tests::place::{keep_neighbours, send_syn_once};
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use super::{POLICY_A, POLICY_B, load, netns, policy_file, world};

/// Rules in the shape of those of Docker for a published port.
const DOCKER: &str = "
table ip nat {
    chain DOCKER { iifname docker0 return; iifname != docker0 meta l4proto tcp tcp dport 80 counter dnat to 172.17.0.2:8080; }
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local counter jump DOCKER; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; oifname != docker0 ip saddr 172.17.0.0/16 counter masquerade; }
    chain OUTPUT { type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
}
table ip filter {
    chain DOCKER { iifname != docker0 oifname docker0 ip daddr 172.17.0.2 tcp dport 8080 counter accept; }
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        counter jump DOCKER-USER; oifname docker0 ct state related,established counter accept;
        oifname docker0 counter jump DOCKER; iifname docker0 oifname != docker0 counter accept; }
}
table ip6 filter { chain FORWARD { type filter hook forward priority filter; policy accept; }; }
table inet other {
    comment \"nfguard policy, format 1\"
    set banned { type ipv4_addr; flags timeout; elements = { 203.0.113.9 } }
    map ports { type inet_service : verdict; elements = { 22 : accept } }
    chain in { type filter hook input priority -200; tcp dport vmap @ports; ip saddr @banned drop; }
}
table netdev early { chain c { comment \"of another family\"; }; }
";

#[test]
fn other_tables_stay_as_they_are_byte_for_byte() {
    let netns = netns();
    nft(&netns, DOCKER);
    let tables = ["ip nat", "ip filter", "ip6 filter", "inet other", "netdev early"];
    // Handles prove that no object was replaced.
    let others = || {
        let output = netns.run(|| {
            let list = |table: &&str| {
                let words = ["-a", "list", "table"].into_iter().chain(table.split(' '));
                std::process::Command::new("nft").args(words).output().expect("nft starts")
            };
            tables.iter().map(list).collect::<Vec<_>>()
        });
        output.into_iter().map(|output| {
            assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let before: Vec<String> = others().collect();
    let same = |after: &str| assert_eq!(others().collect::<Vec<_>>(), before, "after {after}");
    let files = [policy_file(POLICY_A), policy_file(POLICY_B)];
    load(&netns, &files[0]);
    same("the first load");
    load(&netns, &files[1]);
    same("a reload");
    nft(&netns, "add map inet nfguard m { type mark : verdict; }\n");
    load(&netns, &files[1]);
    same("a load that replaced our table");
    let unloaded = nfguard(&netns, &["unload"]);
    assert_eq!(unloaded.status, Some(0), "{unloaded:?}");
    same("unload");
    assert!(!try_nft(&netns, "list table inet nfguard\n").status.success());
    let again = nfguard(&netns, &["unload"]);
    assert_eq!((again.status, again.stdout.as_str()), (Some(0), "no policy was loaded\n"));
}

#[test]
fn a_changed_policy_keeps_counters_and_limits_of_what_did_not_change() {
    let policy = |more: &str| {
        policy_file(&format!(
            r#"{{ "version": 1, "builtin": {{ "ping-in": false }}, "rules": [ {more}
            {{ "name": "ssh", "action": "limit", "port": 22, "limit": {{ "seconds": 3600 }} }},
            {{ "name": "web", "action": "allow", "port": 443 }} ] }}"#
        ))
    };
    let (old, new) = (
        policy(""),
        policy(r#"{ "name": "more", "action": "deny", "from": "203.0.113.0/24", "port": 443 },"#),
    );
    let world = world();
    keep_neighbours(&world);
    send_syn_once(&world.internet);
    let host = &world.host;
    load(host, &old);
    let _servers = [22, 443].map(|port| host.serve_tcp((World::HOST_V4, port)).expect("serves"));
    let probe = |source: [u8; 4], port| {
        let probe = Probe::tcp(&world.internet, (World::HOST_V4, port)).from(source);
        probe.timeout(TIMEOUT).run()
    };
    for _ in 0..5 {
        assert!(probe([192, 0, 2, 7], 22).passed());
    }
    for _ in 0..3 {
        assert!(probe([203, 0, 113, 7], 443).passed());
    }
    let counted = counters(host);
    assert_eq!(counted["in/ssh"]["packets"], 5);
    assert_eq!(counted["in/web"]["packets"], 3);

    load(host, &new);
    let after = counters(host);
    for name in ["in/ssh", "in/web"] {
        assert_eq!(after[name], counted[name], "{name}");
    }
    assert_eq!(after["in/more"]["packets"], 0);
    assert!(!probe([192, 0, 2, 7], 22).passed(), "the sixth of a source, over two loads");
    assert!(probe([192, 0, 2, 8], 22).passed());
    assert!(probe([192, 0, 2, 7], 443).passed());
    let after = counters(host);
    assert!(after["in/ssh/over"]["packets"].as_u64() >= Some(1), "{after}");
    assert_eq!(after["in/web"]["packets"], 4);
}

fn counters(host: &nfguard_lab::Netns) -> Value {
    let answer = nfguard(host, &["status", "--json"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let mut status: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    status["counters"].take()
}
