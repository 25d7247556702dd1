//! Loads, boots and rollbacks that are killed between any two steps. The rules are the old ones or
//! the new ones, every ban is in force, the history can be read, and the next load works.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_netlink::Table;
use nfguard_tests::guard::{Guard, GuardClient, rendezvous};
use nfguard_tests::wait::{TIMEOUT, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BANNED, Place, SCANNER, loaded_table, read_calls, strace};

/// The system calls that separate the steps.
const CALLS: [&str; 8] =
    ["sendto", "sendmsg", "connect", "fsync", "rename", "renameat2", "linkat", "unlink"];

/// A moment to kill the program: as it enters this system call for the n-th time.
type Moment = (String, usize);

/// Returns the moments of a complete run: each of these system calls. Of the messages to the
/// kernel, only commits and the first message after a commit count.
fn moments(place: &Place, run: impl FnOnce(&[String])) -> Vec<Moment> {
    let trace = place.path("trace");
    let file = trace.to_str().expect("UTF-8").to_owned();
    run(&["-o".to_owned(), file, "-e".to_owned(), format!("trace={}", CALLS.join(","))]);
    let (mut moments, mut counts) = (Vec::new(), std::collections::HashMap::new());
    let mut is_after_commit = false;
    for (call, rest) in read_calls(&trace) {
        let count = counts.entry(call.clone()).or_insert(0);
        *count += 1;
        let is_message = call == "sendto" || call == "sendmsg";
        let is_commit = is_message && rest.contains("NFNL_MSG_BATCH_BEGIN");
        let is_question = is_message && !is_commit && rest.contains("nlmsg");
        if !is_question || is_after_commit {
            moments.push((call, *count));
        }
        is_after_commit = is_commit;
    }
    let commits = is_after_commit || moments.iter().any(|(call, _)| call.starts_with("send"));
    assert!(commits, "there is a commit among {moments:?}");
    moments
}

fn kill_at(moment: &Moment) -> Vec<String> {
    signal_at(moment, "SIGKILL", "/dev/null")
}

/// Returns the options of strace that send this signal, and write down that it came.
fn signal_at((call, count): &Moment, signal: &str, file: &str) -> Vec<String> {
    let inject = format!("inject={call}:signal={signal}:when={count}");
    ["-o", file, "-e", &format!("trace={call}"), "-e", &inject].map(str::to_owned).to_vec()
}

/// Counts of the killed runs and their outcomes.
#[derive(Debug, Default)]
struct Outcomes {
    killed: u32,
    old: u32,
    new: u32,
}

impl Outcomes {
    /// Asserts that one of `tables` (old, new) is in force, with every ban, and counts the outcome.
    #[track_caller]
    fn assert_state(&mut self, place: &Place, tables: [&Option<Table>; 2], at: &Moment) {
        let at = format!("killed at {at:?}");
        let table = place.table();
        let [old, new] = tables.map(|known| *known == table);
        assert!(old || new, "{at}: neither the old rules nor the new ones: {table:#?}");
        self.old += u32::from(old);
        self.new += u32::from(new);
        self.killed += 1;
        place.assert_banned(&[SCANNER, BANNED], &at);
        let history = place.succeed(&["history", "--json"]);
        assert!(!history.stderr.contains("skipped"), "{at}: {history:?}");
        let next = place.nfguard(&["load", "{}/b.json"]);
        assert_eq!(next.status, Some(0), "{at}: the next load: {next:?}");
        place.assert_banned(&[SCANNER, BANNED], &at);
    }

    fn assert_counts(&self) {
        assert!(self.killed >= 4 && self.old >= 1 && self.new >= 1, "{self:?}");
    }
}

/// Runs nfguard under strace. Reports whether it was killed.
fn run_traced(place: &Place, options: &[String], arguments: &[&str]) -> bool {
    let output = place.netns.run(|| strace(place, options, arguments).output());
    let output = output.expect("strace is installed");
    // strace ends as the traced program does.
    let is_killed = output.status.signal() == Some(9);
    assert!(is_killed || output.status.success(), "{arguments:?}: {output:?}");
    is_killed
}

/// Runs a verb that changes policy A, and kills it at each of its moments.
fn kill_everywhere(arguments: &[&str], new: &Option<Table>) {
    let old = loaded_table("{}/a.json");
    let place = Place::new();
    place.prepare("{}/a.json");
    let moments = moments(&place, |options| assert!(!run_traced(&place, options, arguments)));
    let mut outcomes = Outcomes::default();
    for moment in &moments {
        place.nfguard(&["rollback"]);
        place.prepare("{}/a.json");
        if run_traced(&place, &kill_at(moment), arguments) {
            outcomes.assert_state(&place, [&old, new], moment);
        }
    }
    outcomes.assert_counts();
    // One of these is written down.
    place.succeed(&["load", "{}/b.json"]);
    place.succeed(&["load", "{}/a.json"]);
    for record in std::fs::read_dir(place.path("state/history")).expect("there") {
        let name = record.expect("there").file_name();
        assert!(name.to_string_lossy().ends_with(".json"), "left over: {name:?}");
    }
}

#[test]
fn a_load_that_is_killed_between_any_two_steps_leaves_old_or_new_rules_and_every_ban() {
    kill_everywhere(&["load", "{}/b.json"], &loaded_table("{}/b.json"));
}

#[test]
fn an_unload_that_is_killed_between_any_two_steps_leaves_every_ban() {
    kill_everywhere(&["unload"], &None);
}

#[test]
fn a_boot_that_is_killed_between_any_two_steps_leaves_old_or_new_rules_and_every_ban() {
    kill_everywhere(&["boot", "{}/b.json"], &loaded_table("{}/b.json"));
}

#[test]
fn an_unconfirmed_load_that_is_killed_anywhere_is_rolled_back_with_every_ban() {
    let old = loaded_table("{}/a.json");
    let place = Place::new();
    place.prepare("{}/a.json");
    let arguments = ["load", "{}/b.json", "--confirm", "10m"];
    let moments = moments(&place, |options| assert!(!run_traced(&place, options, &arguments)));
    let mut killed = 0;
    for moment in &moments {
        place.nfguard(&["rollback"]);
        place.prepare("{}/a.json");
        if !run_traced(&place, &kill_at(moment), &arguments) {
            continue;
        }
        killed += 1;
        // Before the watchdog was armed, nothing was changed. From then on its time runs.
        wait_until("no load is being done", || {
            let answer = place.nfguard(&["rollback"]);
            !answer.stderr.contains("ask again")
        });
        let at = format!("killed at {moment:?}");
        // Without a watchdog, `rollback` has gone back to the load before in the history.
        if place.table() != old {
            place.succeed(&["load", "{}/a.json"]);
        }
        assert_eq!(place.table(), old, "{at}");
        place.assert_banned(&[SCANNER, BANNED], &at);
        place.succeed(&["history"]);
    }
    assert!(killed >= 4, "{killed} killed");
}

/// The test starts the watchdog itself, so that strace can kill it. The load then finds this
/// watchdog.
#[test]
fn a_rollback_that_is_killed_between_any_two_steps_leaves_old_or_new_rules_and_every_ban() {
    let [a, b] = ["{}/a.json", "{}/b.json"].map(loaded_table);
    let place = Place::new();
    place.prepare("{}/b.json");
    // The rollback goes from A, which bans scans, to B, which does not.
    let roll_back = |options: &[String]| {
        place.succeed(&["load", "{}/b.json"]);
        let mut watchdog = start_watchdog(&place, options);
        place.nfguard(&["load", "{}/a.json", "--confirm", "10m"]);
        if place.table() == a {
            let add = "add element inet nfguard scan/banned/v4";
            nfguard_tests::nft::nft(&place.netns, &format!("{add} {{ {SCANNER} timeout 1h }}\n"));
        }
        // `nfguard rollback` would use the history after the watchdog is killed.
        let _ = ask_for_rollback(&place);
        // A watchdog that was killed while it was armed has left its name to another one.
        place.nfguard(&["confirm"]);
        watchdog.wait().expect("it ends").signal() == Some(9)
    };
    let moments = moments(&place, |options| assert!(!roll_back(options)));
    let mut outcomes = Outcomes::default();
    for moment in &moments {
        if roll_back(&kill_at(moment)) {
            outcomes.assert_state(&place, [&a, &b], moment);
        }
    }
    outcomes.assert_counts();
}

/// The time of a load is over while it stands between two steps. What it does after that, such as
/// putting its table in again because the guard finds another one, is taken back as well.
#[test]
fn a_load_whose_time_is_over_at_any_step_ends_with_the_old_rules() {
    let old = loaded_table("{}/a.json");
    let place = Place::new();
    let state = place.path("state");
    let state = state.to_str().expect("UTF-8");
    let _guard = Guard::start(&place.netns, Some(&place.path("a.json")), &["--state-dir", state]);
    place.succeed(&["ban", "--for", "1h", BANNED]);
    let arguments = ["load", "{}/b.json", "--confirm", "10m"];
    let moments = moments(&place, |options| assert!(!run_traced(&place, options, &arguments)));
    place.succeed(&["rollback"]);
    let (trace, mut expired) = (place.path("stopped"), 0);
    let trace_option = trace.to_str().expect("UTF-8");
    for moment in &moments {
        let at = format!("stopped at {moment:?}");
        std::fs::write(&trace, "").expect("can be written");
        let mut watchdog = start_watchdog(&place, &["-o".to_owned(), "/dev/null".to_owned()]);
        let mut load = start(&place, &signal_at(moment, "SIGSTOP", trace_option), &arguments);
        let is_stopped =
            || std::fs::read_to_string(&trace).expect("is there").contains("stopped by SIGSTOP");
        wait_until("the load stops", || is_stopped() || has_ended(&mut load));
        // This has the watchdog do at once what it does when the time is over.
        signal_traced(&watchdog, Signal::SIGTERM);
        wait_until("the old rules are back", || place.table() == old || has_ended(&mut load));
        wait_until("the load ends", || {
            signal_traced(&load, Signal::SIGCONT);
            has_ended(&mut load)
        });
        watchdog.wait().expect("it ends");
        if load.wait().expect("it has ended").success() {
            // Had it not armed this watchdog yet, it has started one of its own.
            let _ = ask_for_rollback(&place);
        } else {
            expired += 1;
        }
        assert_eq!(place.table(), old, "{at}");
        place.assert_banned(&[BANNED], &at);
    }
    assert!(expired >= 4, "{expired} of {}", moments.len());
}

/// Starts a watchdog, which the next load finds.
fn start_watchdog(place: &Place, options: &[String]) -> Child {
    let mut watchdog = start(place, options, &["watchdog"]);
    wait_until("the watchdog listens", || {
        let sockets = || std::fs::read_to_string("/proc/thread-self/net/unix");
        let sockets = place.netns.run(sockets).expect("/proc is mounted");
        sockets.contains("/private/watchdog-") || has_ended(&mut watchdog)
    });
    watchdog
}

/// Asks the watchdog for a rollback, and waits until it has answered or ended.
fn ask_for_rollback(place: &Place) -> io::Result<()> {
    let mut watchdog = UnixStream::connect(rendezvous(&place.netns, "watchdog"))?;
    watchdog.set_read_timeout(Some(TIMEOUT))?;
    watchdog.write_all(b"{\"op\":\"rollback\"}\n")?;
    watchdog.read_to_end(&mut Vec::new()).map(drop)
}

fn start(place: &Place, options: &[String], arguments: &[&str]) -> Child {
    let mut strace = strace(place, options, arguments);
    place.netns.run(|| strace.stderr(Stdio::null()).spawn().expect("strace is installed"))
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("it is ours").is_some()
}

#[test]
fn a_guard_that_is_killed_while_it_starts_leaves_old_or_new_rules_and_every_ban() {
    let [a, b] = ["{}/a.json", "{}/b.json"].map(loaded_table);
    let place = Place::new();
    let arguments = ["guard", "--socket", "{}/guard.sock", "{}/b.json"];
    // Starts a guard, and reports whether it was killed before it answered.
    let start_guard = |options: &[String]| {
        place.prepare("{}/a.json");
        let mut guard = start(&place, options, &arguments);
        let deadline = Instant::now() + TIMEOUT;
        while !has_ended(&mut guard) {
            if guard_answers(&place) {
                // This kills the guard itself, and strace ends with it.
                signal_traced(&guard, Signal::SIGKILL);
                guard.wait().expect("it ends");
                return false;
            }
            assert!(Instant::now() < deadline, "the guard does not come up");
            thread::sleep(Duration::from_millis(10));
        }
        true
    };
    let moments = moments(&place, |options| assert!(!start_guard(options)));
    let mut outcomes = Outcomes::default();
    for moment in &moments {
        if start_guard(&kill_at(moment)) {
            outcomes.assert_state(&place, [&a, &b], moment);
        }
    }
    outcomes.assert_counts();
}

fn guard_answers(place: &Place) -> bool {
    UnixStream::connect(place.path("guard.sock"))
        .is_ok_and(|stream| GuardClient::new(stream).try_request(r#"{"op":"status"}"#).is_some())
}

/// Sends the traced program a signal. strace ends with it.
fn signal_traced(strace: &Child, signal: Signal) {
    let children = format!("/proc/{0}/task/{0}/children", strace.id());
    let children = std::fs::read_to_string(children).unwrap_or_default();
    for child in children.split_whitespace() {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(child.parse().expect("a number")), signal);
    }
}
