//! Errors: each has its words and its exit status, and changes nothing.

use nfguard_lab::Netns;
use nfguard_netlink::{Error, Nft, Table, load as load_table};
use nfguard_tests::nft::nft;
use nfguard_tests::program::{Answer, command, nfguard};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::{POLICY_A, POLICY_B, is_real_root, kernel, load, netns, policy_file, ruleset};

/// Asserts that a run fails with these words: on standard error, and with `--json` also on standard
/// output.
fn assert_failed(run: impl Fn(&[&str]) -> Answer, arguments: &[&str], status: i32, words: &[&str]) {
    let answer = run(arguments);
    assert_eq!(answer.status, Some(status), "{arguments:?}: {answer:?}");
    assert_eq!(answer.stdout, "", "{arguments:?}");
    assert!(answer.stderr.starts_with("nfguard: "), "{arguments:?}: {}", answer.stderr);
    for word in words {
        assert!(answer.stderr.contains(word), "{arguments:?}: no {word:?} in {}", answer.stderr);
    }
    let answer = run(&[arguments, &["--json"]].concat());
    assert_eq!(answer.status, Some(status), "{answer:?}");
    let error: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(error["schema"], 1);
    let message = error["error"].as_str().expect("a message");
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

fn without_privilege(netns: &Netns, arguments: &[&str]) -> Answer {
    netns.run(|| {
        // This drops the privileges of this thread and its children only.
        remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN).expect("can be given up");
        command(arguments).output().expect("nfguard starts").into()
    })
}

#[test]
fn without_privilege_nothing_is_changed_and_the_status_is_4() {
    let netns = netns();
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    load(&netns, &a);
    let before = ruleset(&netns);
    let b = b.path().to_str().expect("plain letters");
    let run = |arguments: &[&str]| without_privilege(&netns, arguments);
    for arguments in [&["load", b][..], &["unload"], &["diff", b], &["status"], &["show"]] {
        assert_failed(run, arguments, 4, &["no permission", "CAP_NET_ADMIN", "nfguard try"]);
    }
    assert_eq!(ruleset(&netns), before);
    for arguments in [&["check", b][..], &["show", b]] {
        let answer = run(arguments);
        assert_eq!(answer.status, Some(0), "{arguments:?} needs none: {answer:?}");
    }
    let a = a.path().to_str().expect("plain letters");
    let differs = run(&["diff", b, "--offline", a]);
    assert_eq!(differs.status, Some(1), "{differs:?}");
    assert!(differs.stdout.lines().any(|line| line.starts_with('+')), "{differs:?}");
    let same = run(&[
        "diff",
        b,
        "--offline",
        policy_file(POLICY_B).path().to_str().expect("plain letters"),
    ]);
    assert_eq!(same.status, Some(0), "{same:?}");
}

#[test]
fn an_unread_error_keeps_its_exit_status() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = netns().run(|| command(&["check", "/no/such/file"]).stderr(writer).status());
    assert_eq!(status.expect("nfguard starts").code(), Some(2));
}

#[test]
fn a_kernel_without_nf_tables_is_named_as_such() {
    for errno in [22_i32, 95] {
        let mut kernel = Nft::from_exchange(move |request| {
            let request = &request[..16];
            let head = [&36_u32.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &[0, 0], &request[8..]];
            Ok([&head.concat(), &(-errno).to_ne_bytes()[..], request].concat())
        });
        let table = Table { name: "nfguard".to_owned(), ..Table::default() };
        let error = load_table(&mut kernel, &table).expect_err("there is none");
        assert!(matches!(error, Error::NoNftables(_)), "{error:?}");
        assert!(error.to_string().starts_with("this kernel has no nf_tables: "), "{error}");
    }
}

#[test]
fn a_foreign_table_of_our_name_is_left_alone() {
    let netns = netns();
    nft(
        &netns,
        "table inet nfguard { chain mine { type filter hook input priority 0; tcp dport 22 accept; }; }\n",
    );
    let before = ruleset(&netns);
    let a = policy_file(POLICY_A);
    let a = a.path().to_str().expect("plain letters");
    let run = |arguments: &[&str]| nfguard(&netns, arguments);
    let words = ["table inet nfguard exists and was not made by nfguard", "Nothing was changed"];
    for arguments in [&["load", a][..], &["load", "--dry-run", a], &["diff", a], &["unload"]] {
        assert_failed(run, arguments, 3, &words);
    }
    for arguments in [["status"], ["show"]] {
        assert_failed(run, &arguments, 3, &words[..1]);
    }
    assert_eq!(ruleset(&netns), before);
    nft(&netns, "delete table inet nfguard\n");
    assert_eq!(run(&["load", a]).status, Some(0), "as the message said");
}

#[test]
fn a_policy_too_large_for_the_send_buffer_changes_nothing() {
    let netns = netns();
    let small = policy_file(POLICY_A);
    load(&netns, &small);
    let before = ruleset(&netns);
    // The send buffer of a plain user may grow to twice this number. A prefix takes more than 40
    // bytes. Older kernels do not show the setting in a namespace.
    let wmem_max = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
    let wmem_max = wmem_max.map_or(212_992, |text| text.trim().parse().expect("a number"));
    let prefixes: u32 = wmem_max / 20 + 1000;
    let prefixes: Vec<String> = (0..prefixes)
        .map(|at| format!("\"{}\"", std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * at)))
        .collect();
    let large = policy_file(&format!(
        r#"{{ "version": 1, "groups": {{ "many": [{}] }}, "rules": [
            {{ "action": "allow", "port": 22, "from": "many" }} ] }}"#,
        prefixes.join(",")
    ));
    let large = large.path().to_str().expect("plain letters");
    let run = |arguments: &[&str]| nfguard(&netns, arguments);
    if is_real_root() {
        // Real root may enlarge the buffer.
        let answer = run(&["load", large]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        assert!(answer.stdout.contains("read back"), "{answer:?}");
        return;
    }
    assert_failed(
        run,
        &["load", large],
        3,
        &["the transaction has ", "at most", "Nothing was changed"],
    );
    assert_eq!(ruleset(&netns), before);
    assert_eq!(kernel(&netns).table("nfguard").expect("reads").loaded.map(|_| ()), Some(()));
    assert!(
        run(&["load", small.path().to_str().expect("plain letters")])
            .stdout
            .contains("nothing changed")
    );
}
