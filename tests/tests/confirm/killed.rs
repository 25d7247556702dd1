//! Killed loaders and watchdogs: the old rules come back.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use nfguard_lab::Netns;
use nfguard_tests::program::{TempFile, command, nfguard, time_box};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use super::{
    LONG_CONFIRM_TIME, POLICY_A, POLICY_B, SHORT_CONFIRM_TIME, assert_loaded_or_rolled_back,
    has_watchdog, listed, load_each, netns, path, policy_file, succeed, wait_for_watchdog_end,
    wait_until,
};

fn loader(file: &TempFile, time: &str) -> Command {
    let mut command = command(&["load", path(file), "--confirm", time]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process"))
}

#[test]
fn a_loader_killed_at_any_moment_leaves_the_old_rules() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let (killed, in_force, ended) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for at in 0..8_u32 {
            let (a, b, list_a, list_b) = (&a, &b, &list_a, &list_b);
            let (killed, in_force, ended) = (&killed, &in_force, &ended);
            scope.spawn(move || {
                let netns = netns();
                succeed(&netns, &["load", path(a)]);
                // The time of a load on this machine.
                let begun = Instant::now();
                succeed(&netns, &["load", path(b), "--confirm", LONG_CONFIRM_TIME]);
                let mut usual = begun.elapsed();
                succeed(&netns, &["rollback"]);
                wait_for_watchdog_end(&netns);
                for round in 0..6_u32 {
                    if start.elapsed() > time_box() && killed.load(Ordering::Relaxed) >= 8 {
                        break;
                    }
                    let mut child =
                        netns.run(|| loader(b, SHORT_CONFIRM_TIME).spawn().expect("starts"));
                    let moment = (round * 8 + at) * 377 % 100;
                    thread::sleep(usual.mul_f64(f64::from(moment) / 100.0));
                    child.kill().expect("can be killed, or has ended");
                    let was_killed = child.wait().expect("ends").code().is_none();
                    let count = if was_killed { killed } else { ended };
                    usual = usual.mul_f64(if was_killed { 1.05 } else { 0.85 });
                    count.fetch_add(1, Ordering::Relaxed);
                    // One that has ended has loaded, and maybe it took longer than a second.
                    let loaded = !was_killed || listed(&netns) == *list_b;
                    in_force.fetch_add(u32::from(loaded), Ordering::Relaxed);
                    wait_for_watchdog_end(&netns);
                    assert_eq!(&listed(&netns), list_a, "killed at {moment} %: {was_killed}");
                }
            });
        }
    });
    eprintln!("{killed:?} killed, {ended:?} ended before, {in_force:?} had loaded by then");
    assert!(killed.into_inner() >= 8);
    assert!(in_force.into_inner() >= 1);
}

#[test]
fn a_closed_terminal_ends_only_the_loader() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let netns = netns();
    succeed(&netns, &["load", path(&a)]);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let line = openpt(flags).expect("a terminal");
    unlockpt(&line).expect("ours");
    let mut shell = in_terminal(&netns, &b, ioctl_tiocgptpeer(&line, flags).expect("its end"));
    wait_until("the policy is loaded", || listed(&netns) == list_b);
    // The line is cut: all in its session get SIGHUP.
    drop(line);
    shell.wait().expect("ends");
    assert!(has_watchdog(&netns), "the watchdog still runs");
    assert_eq!(listed(&netns), list_b);
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), list_a);
}

/// A shell that leads the terminal's session loads, and stays.
fn in_terminal(netns: &Netns, file: &TempFile, terminal: OwnedFd) -> Child {
    let load = loader(file, "20s");
    netns.run(|| {
        // The tests may have been started with signals ignored, as `nohup` does.
        let mut session = Command::new("env");
        session.args(["--default-signal", "setsid", "-c", "sh", "-c", "\"$@\"; sleep 600", "sh"]);
        session.arg(load.get_program()).args(load.get_args()).env("NFGUARD_STATE_DIR", "");
        let clone = || terminal.try_clone().expect("a descriptor");
        session.stdin(clone()).stdout(clone()).stderr(clone());
        session.spawn().expect("setsid starts")
    })
}

#[test]
fn a_signal_to_the_loaders_whole_job_does_not_reach_the_watchdog() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let by = |signal: Signal| {
        let netns = netns();
        succeed(&netns, &["load", path(&a)]);
        let load = loader(&b, "20s");
        let mut shell = netns.run(|| {
            let mut shell = Command::new("env");
            shell.args(["--default-signal", "sh", "-c", "\"$@\"; sleep 600; true", "sh"]);
            shell.arg(load.get_program());
            shell.args(load.get_args()).env("NFGUARD_STATE_DIR", "").stdin(Stdio::null());
            shell.stdout(Stdio::null()).process_group(0).spawn().expect("sh starts")
        });
        wait_until("the policy is loaded", || listed(&netns) == list_b);
        killpg(pid(&shell), signal).expect("there");
        shell.wait().expect("ends");
        assert!(has_watchdog(&netns), "{signal}: the watchdog still runs");
        wait_for_watchdog_end(&netns);
        assert_eq!(listed(&netns), list_a, "{signal}");
    };
    thread::scope(|scope| {
        for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let by = &by;
            scope.spawn(move || by(signal));
        }
    });
}

#[test]
fn a_full_disk_stops_neither_a_load_nor_its_rollback() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let full = tempfile::tempdir().expect("a folder");
    let state = full.path().join("state");
    // A disk of its own, seen by what runs here alone, whose last byte is taken.
    let script = r#"mount -t tmpfs -o size=8k,nr_inodes=8 none "$1" && cat /dev/zero > "$1/all" 2>/dev/null
        export NFGUARD_STATE_DIR="$2" TMPDIR="$1"; shift 2; exec "$@""#;
    let load = |netns: &Netns, extra: &[&str], file: &TempFile| -> super::Answer {
        let load = command(&[&["load", path(file)], extra].concat());
        netns.run(|| {
            let mut shell = Command::new("unshare");
            shell.args(["--mount", "sh", "-c", script, "sh"]).arg(full.path()).arg(&state);
            shell.arg(load.get_program()).args(load.get_args()).stdin(Stdio::null());
            shell.output().expect("unshare starts").into()
        })
    };
    let netns = netns();
    let plain = load(&netns, &[], &a);
    assert_eq!(plain.status, Some(0), "{plain:?}");
    assert!(plain.stderr.contains("not in the history"), "{plain:?}");
    assert_eq!(listed(&netns), list_a);
    assert_loaded_or_rolled_back(&load(&netns, &["--confirm", SHORT_CONFIRM_TIME], &b));
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), list_a);
    load(&netns, &["--confirm", LONG_CONFIRM_TIME], &b);
    succeed(&netns, &["confirm"]);
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), list_b);
}

#[test]
fn a_terminated_watchdog_rolls_back_at_once() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a, list_b] = load_each([&a, &b]);
    let netns = netns();
    succeed(&netns, &["load", path(&a)]);
    succeed(&netns, &["load", path(&b), "--confirm", LONG_CONFIRM_TIME]);
    let watchdogs = watchdogs(&netns);
    let [watchdog] = watchdogs[..] else { panic!("{watchdogs:?}") };
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGPIPE] {
        kill(watchdog, ignored).expect("there");
    }
    succeed(&netns, &["status"]);
    assert!(has_watchdog(&netns));
    assert_eq!(listed(&netns), list_b);
    kill(watchdog, Signal::SIGTERM).expect("there");
    wait_for_watchdog_end(&netns);
    assert_eq!(listed(&netns), list_a);
}

/// Returns the watchdogs of this namespace.
fn watchdogs(netns: &Netns) -> Vec<Pid> {
    let own = format!("net:[{}]", netns.id());
    let numbers = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_watchdog = |number: &i32| {
        let place = std::fs::read_link(format!("/proc/{number}/ns/net"));
        let words = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        place.is_ok_and(|place| place.to_str() == Some(&own))
            && words.split(|byte| *byte == 0).any(|word| word == b"watchdog")
    };
    numbers.filter(is_watchdog).map(Pid::from_raw).collect()
}

#[test]
fn two_loaders_at_once_have_one_watchdog() {
    let (a, b) = (policy_file(POLICY_A), policy_file(POLICY_B));
    let [list_a] = load_each([&a]);
    for _ in 0..5 {
        let netns = netns();
        succeed(&netns, &["load", path(&a)]);
        let children =
            [0; 4].map(|_| netns.run(|| loader(&b, LONG_CONFIRM_TIME).spawn().expect("starts")));
        // A loader that meets another load in progress gets an error, and changes nothing.
        let statuses = children.map(|mut child| child.wait().expect("ends").code());
        assert!(statuses.contains(&Some(0)), "{statuses:?}");
        assert!(statuses.iter().all(|it| [Some(0), Some(3)].contains(it)), "{statuses:?}");
        wait_until("one watchdog runs", || watchdogs(&netns).len() == 1);
        assert_eq!(nfguard(&netns, &["rollback"]).status, Some(0));
        wait_for_watchdog_end(&netns);
        assert_eq!(listed(&netns), list_a);
    }
}
