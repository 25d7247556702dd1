//! The watchdog, and users who are not root. Only real root can act as other users.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, rendezvous};
use nfguard_tests::place::netns;
use nfguard_tests::program::{Answer, TempFile, command, nfguard};
use nix::sys::socket::{Backlog, listen};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

const POLICY: &str =
    r#"{ "version": 1, "rules": [{ "name": "ssh", "action": "allow", "port": 22 }] }"#;

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
fn another_user_can_neither_be_guard_or_watchdog_nor_speak_to_them_nor_stop_anything() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let path = policy.path().to_str().expect("plain letters");
    // What was a name for every user to take, and the queue to fill.
    let names = ["nfguard/guard", "nfguard/watchdog"];
    let _taken = names.map(|name| {
        run_as_other_user(&netns, || {
            let name = SocketAddr::from_abstract_name(name).expect("a name");
            let listener = UnixListener::bind_addr(&name).expect("binds");
            listen(&listener, Backlog::new(0).expect("a queue")).expect("a short queue");
            let _ = UnixStream::connect_addr(&name);
            listener
        })
    });
    let guard = Guard::start(&netns, None, &[]);
    let loaded = nfguard(&netns, &["load", path, "--confirm", "10m"]);
    assert_eq!(loaded.status, Some(0), "{loaded:?}");
    for name in ["guard", "watchdog"] {
        let socket = rendezvous(&netns, name);
        let folder = socket.parent().expect("a folder");
        run_as_other_user(&netns, || {
            for kind in [
                UnixStream::connect(&socket).map(drop),
                UnixListener::bind(folder.join("mine")).map(drop),
                fs::read_dir(folder).map(drop),
                fs::remove_file(&socket),
                fs::rename(folder, folder.with_extension("old")),
            ] {
                let kind = kind.map_err(|error| error.kind());
                assert_eq!(kind, Err(ErrorKind::PermissionDenied), "{name}");
            }
        });
    }
    let second = nfguard(&netns, &["guard", "--socket", "/dev/null/no"]);
    assert_eq!(second.status, Some(3), "{second:?}");
    assert!(second.stderr.contains("another guard runs"), "{second:?}");
    let status = nfguard(&netns, &["status"]);
    assert!(status.stdout.contains("waits for `nfguard confirm`"), "{status:?}");
    for (arguments, is_loaded_then) in [
        (&["rollback"][..], false),
        (&["load", path], true),
        (&["unload"], false),
        (&["load", path, "--confirm", "10m"], true),
        (&["confirm"], true),
    ] {
        let done = nfguard(&netns, arguments);
        assert_eq!(done.status, Some(0), "{arguments:?}: {done:?}");
        assert_eq!(is_loaded(&netns), is_loaded_then, "{arguments:?}");
    }
    // A guard that was killed has left its socket.
    guard.kill();
    assert_eq!(nfguard(&netns, &["unload"]).status, Some(0));
    drop(Guard::start(&netns, Some(policy.path()), &[]));
}

#[test]
fn a_folder_of_another_user_is_no_place_to_meet() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let path = policy.path().to_str().expect("plain letters");
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("run");
    let private = folder.join("private");
    // Another user listens there as the watchdog and as the guard.
    let socket = |name: &str| private.join(rendezvous(&netns, name).file_name().expect("a name"));
    fs::create_dir_all(&private).expect("made");
    let _listeners = ["guard", "watchdog"].map(|name| UnixListener::bind(socket(name)));
    for owned in [&folder, &private] {
        chown(owned, Some(65534), None).expect("root may");
    }
    let run = |arguments: &[&str]| -> Answer {
        netns.run(|| {
            let mut run = command(arguments);
            run.env("NFGUARD_RUN_DIR", &folder).output().expect("nfguard starts").into()
        })
    };
    for arguments in [&["guard"][..], &["load", path, "--confirm", "10m"]] {
        let refused = run(arguments);
        assert_eq!(refused.status, Some(3), "{refused:?}");
        assert!(refused.stderr.contains("no folder of this user"), "{refused:?}");
        assert!(!is_loaded(&netns));
    }
    for arguments in [&["load", path][..], &["status"], &["unload"]] {
        assert_eq!(run(arguments).status, Some(0), "{arguments:?}");
    }
    assert_eq!(run(&["confirm"]).status, Some(1), "nothing waits");
}

#[test]
fn a_policy_of_another_user_is_loaded_only_by_that_user_through_sudo() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    chown(policy.path(), Some(65534), Some(65534)).expect("root may");
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
