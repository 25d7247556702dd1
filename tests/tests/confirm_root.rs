//! The watchdog, and users who are not root. Only real root can act as other users.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, rendezvous};
use nfguard_tests::place::netns;
use nfguard_tests::program::{Answer, TempFile, command, nfguard, nfguard_fed};
use nix::sys::socket::{Backlog, listen};
use rustix::fs::{XattrFlags, setxattr};
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

/// Gives a file a list by which user 65534 may do this.
fn let_other_user(path: &Path, permissions: u16, mask: u16) {
    const NO_ONE: u32 = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    let entries = [
        (1, 6, NO_ONE),
        (2, permissions, 65534),
        (4, 4, NO_ONE),
        (16, mask, NO_ONE),
        (32, 4, NO_ONE),
    ];
    for (tag, permissions, number) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(permissions.to_le_bytes());
        list.extend(number.to_le_bytes());
    }
    setxattr(path, "system.posix_acl_access", &list, XattrFlags::empty()).expect("root may");
}

/// Each way by which another user can change what root loads, or make root wait for it.
#[test]
fn no_policy_is_loaded_that_another_user_can_change_and_none_is_waited_for() {
    let netns = netns();
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
    };
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    mode(place.path(), 0o755);
    fs::create_dir(at("shared")).expect("made");
    mode(&at("shared"), 0o1777);

    write(&at("listed.json"), POLICY);
    let_other_user(&at("listed.json"), 6, 6);
    write(&at("masked.json"), POLICY);
    let_other_user(&at("masked.json"), 6, 4);
    write(&at("outer/inner/policy.json"), POLICY);
    mode(&at("outer"), 0o775);
    chown(at("outer"), None, Some(65534)).expect("root may");
    write(&at("theirs/inner/policy.json"), POLICY);
    chown(at("theirs"), Some(65534), None).expect("root may");
    write(&at("named/inner/policy.json"), POLICY);
    let_other_user(&at("named"), 7, 7);
    symlink(at("theirs/inner/policy.json"), at("link.json")).expect("made");
    write(&at("large.json"), &" ".repeat((16 << 20) + 1));
    let _socket = UnixListener::bind(at("socket")).expect("binds");
    run_as_other_user(&netns, || {
        let read_all = nix::sys::stat::Mode::from_bits_truncate(0o644);
        nix::unistd::mkfifo(&at("shared/pipe"), read_all).expect("made");
    });
    for (name, why) in [
        ("listed.json", "user 65534 may write this file"),
        ("outer/inner/policy.json", "group 65534 may write this file through"),
        ("theirs/inner/policy.json", "user 65534 may write this file through"),
        ("named/inner/policy.json", "user 65534 may write this file through"),
        ("link.json", "user 65534 may write this file through"),
        ("large.json", "more than 16 MiB"),
        ("shared/pipe", "a pipe or device of user 65534"),
        ("socket", "No such device"),
        ("shared", "directory"),
        ("/dev/zero", "not a regular file"),
    ] {
        for verb in ["load", "boot"] {
            let refused = nfguard(&netns, &[verb.as_ref(), at(name).as_os_str()]);
            assert!(refused.stderr.contains(why), "{verb} {name}: {refused:?}");
            assert!(verb == "boot" || !is_loaded(&netns), "{name}");
        }
        assert_eq!(nfguard(&netns, &["unload"]).status, Some(0));
    }
    assert_eq!(nfguard(&netns, &["load".as_ref(), at("masked.json").as_os_str()]).status, Some(0));
    assert_eq!(nfguard(&netns, &["unload"]).status, Some(0));
    // A pipe that root itself has made.
    let piped = nfguard_fed(&netns, &["load", "/dev/stdin"], POLICY);
    assert_eq!(piped.status, Some(0), "{piped:?}");
}

/// What lies where files of the state are to be, and links for what root writes.
#[test]
fn no_strange_file_stops_or_leads_elsewhere_what_root_writes() {
    let netns = netns();
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    let policy = at("policy.json");
    fs::write(&policy, POLICY).expect("written");
    let run = |arguments: &[&str]| -> Answer {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|it| it.replace("{}", place.path().to_str().expect("text")))
            .collect();
        netns.run(|| {
            let mut run = command(&arguments);
            run.env("NFGUARD_STATE_DIR", at("state")).output().expect("nfguard starts").into()
        })
    };
    assert_eq!(run(&["load", "{}/policy.json"]).status, Some(0));
    assert_eq!(run(&["ban", "203.0.113.9", "--for", "1h"]).status, Some(0));
    for name in ["state/history/0000000050.json", "state/bans", "state/never"] {
        nix::unistd::mkfifo(&at(name), nix::sys::stat::Mode::S_IRWXU).expect("made");
    }
    for name in ["18446744073709551615.json", "9999999999999999999999.json"] {
        fs::write(at("state/history").join(name), "{}").expect("written");
    }
    let history = run(&["history"]);
    assert!(history.stderr.contains("0000000050.json: not a regular file"), "{history:?}");
    for arguments in [
        &["unload"][..],
        &["load", "{}/policy.json"],
        &["never", "add", "192.0.2.77"],
        &["ban", "203.0.113.10", "--for", "1h"],
        &["save", "{}/state/bans"],
        &["boot", "{}/policy.json"],
        &["save", "{}/state/bans"],
    ] {
        let answer = run(arguments);
        assert!(answer.status.is_some_and(|status| status < 4), "{arguments:?}: {answer:?}");
    }
    assert!(is_loaded(&netns));
    let bans = run(&["bans"]).stdout;
    assert!(bans.contains("203.0.113.9") && bans.contains("203.0.113.10"), "{bans}");
    assert!(at("state/bans").is_file(), "the strange one is aside");

    fs::create_dir(at("shared")).expect("made");
    fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o1777)).expect("root may");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("root may");
    fs::write(at("secret"), "mine").expect("written");
    run_as_other_user(&netns, || symlink(at("secret"), at("shared/bans")).expect("made"));
    let refused = run(&["save", "{}/shared/bans"]);
    assert!(refused.stderr.contains("a link that user 65534 made"), "{refused:?}");
    assert_eq!(fs::read_to_string(at("secret")).expect("there"), "mine");
    symlink(at("secret"), at("shared/own")).expect("made");
    assert_eq!(run(&["save", "{}/shared/own"]).status, Some(0));
    assert!(fs::read_to_string(at("secret")).expect("there").contains("nfguard_bans"));

    fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o777)).expect("root may");
    let refused = run(&["guard", "--socket", "{}/shared/guard.sock"]);
    assert!(refused.stderr.contains("everybody may write in the folder"), "{refused:?}");

    chown(at("state"), Some(65534), None).expect("root may");
    let other = run(&["unload"]);
    assert_eq!(other.status, Some(0), "{other:?}");
    chown(at("state/history"), Some(65534), None).expect("root may");
    let other = run(&["load", "{}/policy.json"]);
    assert_eq!(other.status, Some(0), "{other:?}");
    assert!(other.stderr.contains("user 65534 may write in the folder"), "{other:?}");
}
