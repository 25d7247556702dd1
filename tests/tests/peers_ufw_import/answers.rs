//! The messages of `import`, and the files that it writes.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use nfguard_lab::Netns;
use nfguard_tests::program::{Answer, nfguard};
use serde_json::Value;

use crate::needs_namespaces;
use crate::original::{Folder, mode};

fn import(folder: &Path, more: &[&OsStr]) -> Answer {
    let netns = Netns::new().unwrap_or_else(|error| needs_namespaces(&error));
    let folder = folder.join("etc/ufw");
    let arguments = ["import".as_ref(), "ufw".as_ref(), folder.as_os_str()];
    nfguard(&netns, &[&arguments[..], more].concat())
}

fn append(folder: &Folder, name: &str, text: &str) {
    let path = folder.path().join("etc/ufw").join(name);
    let old = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, old.replacen("\nCOMMIT", &format!("\n{text}\nCOMMIT"), 1)).expect("writable");
}

#[test]
fn an_installed_configuration_is_imported_whole() {
    let folder = Folder::new_installation();
    let answer = import(folder.path(), &[]);
    assert_eq!(answer.status, Some(0), "{answer:#?}");
    let notes: Vec<&str> = answer.stderr.lines().collect();
    assert!(matches!(notes.as_slice(), [one] if one.contains("ENABLED=no")), "{answer:#?}");
    let policy: Value = serde_json::from_str(&answer.stdout).expect("a policy is JSON");
    assert_eq!(policy["default"]["in"], "drop");
    assert_eq!(policy["default"]["out"], "accept");
}

#[test]
fn an_untranslated_line_is_named_with_its_file_and_number() {
    let folder = Folder::new_installation();
    let rule = "-A ufw-before-input -p tcp --dport 9 -j ACCEPT";
    append(&folder, "before.rules", rule);
    append(&folder, "after6.rules", "-A ufw6-after-forward -m mark --mark 1 -j ACCEPT");
    let text = fs::read_to_string(folder.path().join("etc/ufw/before.rules")).expect("it is there");
    let line = text.lines().position(|line| line == rule).expect("it was added") + 1;
    let answer = import(folder.path(), &[]);
    assert_eq!(answer.status, Some(1), "{answer:#?}");
    let named = format!(
        "not carried over: {}/etc/ufw/before.rules:{line}: {rule}",
        folder.path().display()
    );
    assert!(answer.stderr.contains(&named), "{named}\n{answer:#?}");
    assert!(answer.stdout.contains("before.rules"), "the policy says so too: {answer:#?}");

    let answer = import(folder.path(), &["--json".as_ref()]);
    assert_eq!(answer.status, Some(1), "{answer:#?}");
    let answer: Value = serde_json::from_str(&answer.stdout).expect("an answer is JSON");
    let lost = answer["not_carried_over"].as_array().expect("a list");
    assert_eq!(lost.len(), 2, "{answer:#}");
    assert_eq!(lost[0]["line"], line);
    assert_eq!(answer["policy"]["version"], 1);
}

#[test]
fn the_written_file_is_replaced_whole_and_for_its_owner_alone() {
    let (folder, to) = (Folder::new_installation(), Folder::new_installation());
    let policy = to.path().join("policy.json");
    fs::write(&policy, "something else").expect("writable");
    let answer = import(folder.path(), &["--output".as_ref(), policy.as_os_str()]);
    assert_eq!(answer.status, Some(0), "{answer:#?}");
    assert_eq!(mode(&policy), 0o600);
    let printed = import(folder.path(), &[]).stdout;
    assert_eq!(fs::read_to_string(&policy).expect("it is there"), printed);
}

#[test]
fn an_invalid_configuration_of_ufw_is_bad_input() {
    let folder = Folder::new_installation();
    for (name, text) in [
        ("ufw/user.rules", Some("nonsense")),
        ("default/ufw", Some("DEFAULT_INPUT_POLICY=maybe\nIPV6=yes\n")),
        ("ufw/before6.rules", None),
        ("ufw/ufw.conf", None),
    ] {
        let path = folder.path().join("etc").join(name);
        let old = fs::read(&path).expect("it is there");
        match text {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .expect("writable");
        let answer = import(folder.path(), &[]);
        assert_eq!(answer.status, Some(2), "{name}: {answer:#?}");
        assert!(answer.stdout.is_empty() && answer.stderr.contains(name), "{answer:#?}");
        fs::write(&path, old).expect("writable");
    }
    assert_eq!(import(folder.path(), &[]).status, Some(0), "as it was, it is good");
}

/// Each change is a shell command in the folder, as administrators and hardening roles make it.
#[test]
fn ipv6_that_is_switched_off_is_denied_whatever_its_files_are() {
    let set = |line: &str| format!("sed -i 's/^IPV6=.*/{line}/' default/ufw");
    let off = set("IPV6=no");
    let changes = [
        off.clone(),
        set("IPV6=\"no\""),
        set("IPV6=NO # no IPv6 here"),
        set("  export IPV6=no"),
        // What starts UFW knows no other yes.
        set("IPV6=Yes"),
        set("IPV6="),
        set(""),
        format!("{off}; rm ufw/*6.rules"),
        format!("{off}; for file in ufw/*6.rules; do : > $file; done"),
        format!("{off}; echo nonsense > ufw/user6.rules"),
        format!("{off}; rm -r ufw/applications.d"),
        format!("{off}; sed -i 's/^MANAGE_BUILTINS=.*/MANAGE_BUILTINS=yes/' default/ufw"),
        format!("{off}; sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/' default/ufw"),
        format!("{off}; sed -i '/^ENABLED/d' ufw/ufw.conf"),
        format!("{off}; sed -i 's/^ENABLED=.*/ENABLED=yes/' ufw/ufw.conf"),
        format!("{off}; sed -i 's/_POLICY=.*/_POLICY=\"ACCEPT\"/' default/ufw"),
    ];
    for change in changes {
        let folder = Folder::new_installation();
        folder.ufw(&["allow 22/tcp".to_owned(), "limit from 2001:db8::/32".to_owned()]);
        folder.change(&change);
        let answer = import(folder.path(), &[]);
        assert_eq!(answer.status, Some(0), "{change}: {answer:#?}");
        let policy: Value = serde_json::from_str(&answer.stdout).expect("a policy is JSON");
        let rules = policy["rules"].as_array().expect("a list");
        let is_against = |rule: &Value| rule["from"] == "::/0" && rule["action"] == "deny";
        assert!(rules[..3].iter().all(is_against), "{change}: {policy:#}");
        assert!(rules.iter().any(|rule| rule["port"] == 22), "{change}: {policy:#}");
        assert!(!answer.stdout.contains("2001:db8"), "{change}: {policy:#}");
        assert!(!answer.stderr.contains(" :") && !answer.stderr.contains(": :"), "{answer:#?}");
    }
}

#[test]
fn ipv6_that_is_on_needs_no_rules_of_its_own() {
    for change in ["rm ufw/user6.rules", ": > ufw/user6.rules", "echo > ufw/user6.rules"] {
        let folder = Folder::new_installation();
        folder.ufw(&["allow 22/tcp".to_owned()]);
        folder.change(change);
        let answer = import(folder.path(), &[]);
        assert_eq!(answer.status, Some(0), "{change}: {answer:#?}");
        assert!(answer.stderr.contains("user6.rules: no rules"), "{change}: {answer:#?}");
        let policy: Value = serde_json::from_str(&answer.stdout).expect("a policy is JSON");
        let rules = policy["rules"].as_array().expect("a list");
        let ssh = rules.iter().find(|rule| rule["port"] == 22).expect("the rule for IPv4");
        assert_eq!(ssh["from"], "0.0.0.0/0", "{change}: {policy:#}");
    }
}
