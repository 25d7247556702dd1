//! The watchdog, and users who are not root. Only real root can act as other users.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nfguard_lab::Netns;
use nfguard_tests::place::netns;
use nfguard_tests::program::{Answer, TempFile, command, nfguard};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

const POLICY: &str =
    r#"{ "version": 1, "rules": [{ "name": "ssh", "action": "allow", "port": 22 }] }"#;

fn watchdog_name() -> SocketAddr {
    SocketAddr::from_abstract_name("nfguard/watchdog").expect("a name")
}

/// Runs as another user, on a thread of its own in the namespace.
fn run_as_other_user<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    netns.run(|| {
        let stranger = Uid::from_raw(65534);
        set_thread_res_uid(stranger, stranger, stranger).expect("root may");
        work()
    })
}

fn is_loaded(netns: &Netns) -> bool {
    nfguard(netns, &["status"]).status == Some(0)
}

#[test]
fn a_false_watchdog_is_named_and_nothing_is_loaded() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let path = policy.path().to_str().expect("plain letters");
    let pretender =
        run_as_other_user(&netns, || UnixListener::bind_addr(&watchdog_name()).expect("binds"));
    for arguments in [&["load", path, "--confirm", "10m"][..], &["confirm"], &["rollback"]] {
        let refused = nfguard(&netns, arguments);
        assert_eq!(refused.status, Some(3), "{refused:?}");
        assert!(refused.stderr.contains("of user 65534, who is not root"), "{refused:?}");
        assert!(!is_loaded(&netns));
    }
    drop(pretender);
    let loaded = nfguard(&netns, &["load", path, "--confirm", "10m"]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
    assert!(is_loaded(&netns));
    assert_eq!(nfguard(&netns, &["confirm"]).status, Some(0));
}

#[test]
fn a_false_guard_is_named_and_blocks_no_load() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let path = policy.path().to_str().expect("plain letters");
    let name = SocketAddr::from_abstract_name("nfguard/guard").expect("a name");
    let _pretender = run_as_other_user(&netns, || UnixListener::bind_addr(&name).expect("binds"));
    for (arguments, loaded) in [(&["load", path][..], true), (&["unload"], false)] {
        let done = nfguard(&netns, arguments);
        assert_eq!(done.status, Some(0), "{done:?}");
        assert!(done.stderr.contains("of user 65534, who is not root"), "{done:?}");
        assert_eq!(is_loaded(&netns), loaded);
    }
    let refused = nfguard(&netns, &["guard"]);
    assert_eq!(refused.status, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("of user 65534, who is not root"), "{refused:?}");
}

#[test]
fn another_user_can_neither_confirm_nor_roll_back_nor_block_the_watchdog() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let path = policy.path().to_str().expect("plain letters");
    let loaded = nfguard(&netns, &["load", path, "--confirm", "10m"]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
    let mut idle = Vec::new();
    let lines = [
        "{\"op\":\"confirm\"}\n",
        "{\"op\":\"rollback\"}\n",
        "{\"op\":\"arm\",\"milliseconds\":1}\n",
        "",
        "\n",
        "{\"op\":\"time_left\"}",
    ];
    for word in lines {
        let mut stream = run_as_other_user(&netns, || {
            let mut stream = UnixStream::connect_addr(&watchdog_name()).expect("anybody may");
            let _ = stream.write_all(word.as_bytes());
            stream
        });
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert_eq!(answer, "", "{word:?}");
        idle.push(stream);
    }
    let status = nfguard(&netns, &["status"]);
    assert!(status.stdout.contains("waits for `nfguard confirm`"), "{status:?}");
    assert_eq!(nfguard(&netns, &["rollback"]).status, Some(0));
    assert!(!is_loaded(&netns));
}

#[test]
fn a_policy_of_another_user_is_loaded_only_by_that_user_through_sudo() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    std::os::unix::fs::chown(policy.path(), Some(65534), Some(65534)).expect("root may");
    let load = |variables: &[(&str, &str)]| -> Answer {
        netns.run(|| {
            let mut load = command(&["load".as_ref(), policy.path()]);
            load.env_remove("SUDO_UID").env_remove("SUDO_GID").envs(variables.iter().copied());
            load.output().expect("nfguard starts").into()
        })
    };
    for variables in [&[][..], &[("SUDO_UID", "1000")]] {
        let refused = load(variables);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("user 65534 may write this file"), "{refused:?}");
        assert!(!is_loaded(&netns));
    }
    let loaded = load(&[("SUDO_UID", "65534")]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
}
