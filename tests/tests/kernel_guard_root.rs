//! The guard beside users who mean it no good. Only real root can act as other users.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nfguard_lab::Netns;
use nfguard_tests::guard::{Guard, GuardClient};
use nfguard_tests::nft::nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::{TempFile, many, nfguard, nfguard_fed, succeed};
use nfguard_tests::wait::wait_until_with;
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid, prlimit, setrlimit};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use serde_json::Value;

const POLICY: &str =
    r#"{ "version": 1, "rules": [{ "name": "ssh", "action": "allow", "port": 22 }] }"#;
/// The group that may ban, and one that may not.
const MEMBERS: u32 = 4;
const OTHERS: u32 = 65534;

/// Starts a guard whose sockets every user can connect to.
fn open_guard(netns: &Netns, policy: &Path) -> Guard {
    let files = Rlimit { current: Some(8192), maximum: Some(8192) };
    setrlimit(Resource::Nofile, files).expect("root may");
    let more = ["--mode", "0666", "--group", "4", "--metrics", "{}/metrics.sock"];
    let guard = Guard::start(netns, Some(policy), &more);
    let open = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(guard.folder().to_owned(), 0o755);
    open(guard.folder().join("metrics.sock"), 0o666);
    guard
}

/// Runs as another user, on a thread of its own.
fn run_as<T: Send>(user: u32, group: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            set_thread_res_gid(group, group, group).expect("root may");
            set_thread_res_uid(user, user, user).expect("root may");
            work()
        });
        other.join().expect("no panic")
    })
}

fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).expect("it listens")
}

/// Reports whether the guard has closed the connection, or says that it is busy.
fn is_refused(stream: &mut UnixStream) -> bool {
    stream.set_nonblocking(true).expect("can be set");
    let mut text = [0; 256];
    match stream.read(&mut text) {
        Ok(len) => len == 0 || String::from_utf8_lossy(&text[..len]).contains(r#""code":"busy""#),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Waits until this number of them is refused.
fn wait_for_refusals(guard: &Guard, all: &mut [UnixStream], count: usize) {
    let mut open: Vec<&mut UnixStream> = all.iter_mut().collect();
    let all = open.len();
    wait_until_with(
        "some are refused",
        || guard.log(),
        || {
            open.retain_mut(|stream| !is_refused(stream));
            all - open.len() >= count
        },
    );
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn ban(stream: UnixStream, target: &str) -> Value {
    let line = format!(r#"{{"op":"ban","target":"{target}","for":"1h"}}"#);
    json(&GuardClient::new(stream).request(&line))["did"].clone()
}

/// Returns the memory of the guard in KiB.
fn memory(guard: &Guard) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", guard.process())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is there");
    line.split_whitespace().next().and_then(|it| it.parse().ok()).expect("a number")
}

/// Returns the time of processor that the guard took so far.
fn processor(guard: &Guard) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", guard.process())).expect("it runs");
    let rest = stat.rsplit_once(')').expect("a name").1;
    let ticks = |at: usize| rest.split_whitespace().nth(at).and_then(|it| it.parse::<u64>().ok());
    // In hundredths of a second.
    Duration::from_millis(10 * (ticks(11).expect("user") + ticks(12).expect("system")))
}

#[test]
fn what_some_clients_take_up_is_missing_to_none_of_another_kind_or_user() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let guard = open_guard(&netns, policy.path());
    let (socket, metrics) = (guard.socket(), guard.folder().join("metrics.sock"));
    // More than there is room for, of each kind. They send nothing, or half of something.
    let scrapers: Vec<UnixStream> =
        run_as(1001, OTHERS, || (0..many(1600)).map(|_| connect(&metrics)).collect());
    let mut readers = Vec::new();
    for user in 1001..1004 {
        readers.extend(run_as(user, OTHERS, || {
            (0..500).map(|_| connect(&socket)).collect::<Vec<_>>()
        }));
    }
    let mut writers =
        run_as(1005, MEMBERS, || (0..400).map(|_| connect(&socket)).collect::<Vec<_>>());
    for stream in readers.iter_mut().chain(&mut writers) {
        // The guard may have closed it.
        let _ = stream.write_all(br#"{"op":"status"#);
    }
    wait_for_refusals(&guard, &mut readers, 1500 - 3 * 64);
    wait_for_refusals(&guard, &mut writers, 400 - 256);

    // Another reader, another member of the group, root and Prometheus are served all the same.
    let status =
        run_as(1004, OTHERS, || GuardClient::new(connect(&socket)).request(r#"{"op":"status"}"#));
    assert_eq!(json(&status)["ok"], true, "{status}");
    let did = run_as(1006, MEMBERS, || ban(connect(&socket), "203.0.113.6"));
    assert_eq!(did, "added", "{}", guard.log());
    assert_eq!(ban(connect(&socket), "203.0.113.7"), "added");
    let path = policy.path().to_str().expect("plain letters");
    assert_eq!(nfguard(&netns, &["load", path]).status, Some(0), "{}", guard.log());
    let mut scrape = connect(&metrics);
    scrape.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it reads");
    let mut text = String::new();
    scrape.read_to_string(&mut text).expect("it answers");
    assert!(text.contains("nfguard_guarded 1"), "{text}");
    drop((scrapers, readers, writers));
}

#[test]
fn flushed_bans_come_back_and_root_bans_beside_hostile_readers_and_memory_stays_flat() {
    let netns = netns();
    let policy = TempFile::new("policy.json", POLICY);
    let guard = open_guard(&netns, policy.path());
    let socket = guard.socket();
    let count = many(20_000);
    let list: String = (0..count).map(|at| format!("10.{}.{}.1\n", at / 250, at % 250)).collect();
    let made = nfguard_fed(&netns, &["ban", "-", "--for", "1h", "--source", "list"], &list);
    assert_eq!(made.status, Some(0), "{made:?}");
    let status = || json(&guard.status())["status"].clone();
    let log = || guard.log();
    wait_until_with("the guard has the bans", log, || status()["bans"] == count);
    let before = memory(&guard);
    let mut highest = before;
    let (is_over, pages) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // Some send requests and read no answer, some half a line; some read, as fast as they can.
        let mut silent = Vec::new();
        for user in 1001..1004 {
            silent.extend(run_as(user, OTHERS, || {
                (0..48).map(|_| connect(&socket)).collect::<Vec<_>>()
            }));
        }
        for (at, stream) in silent.iter_mut().enumerate() {
            stream.set_nonblocking(true).expect("can be set");
            let line: &[u8] = match at % 3 {
                0 => b"{\"op\":\"bans\"}\n",
                1 => b"{\"op\":\"subscribe\"}\n{\"op\":\"bans\",\"source\":\"none\"}\n",
                _ => b"{\"op\":\"bans\",\"source\":\"                                          ",
            };
            let _ = stream.write_all(&line.repeat(200));
        }
        for user in 1001..1004 {
            let (socket, is_over, pages) = (&socket, &is_over, &pages);
            scope.spawn(move || {
                run_as(user, OTHERS, || {
                    let mut clients: Vec<GuardClient> =
                        (0..12).map(|_| GuardClient::new(connect(socket))).collect();
                    while !is_over.load(Ordering::Relaxed) {
                        for client in &mut clients {
                            let _ = client.send(b"{\"op\":\"bans\"}\n");
                        }
                        for client in &mut clients {
                            pages.fetch_add(
                                u64::from(client.read_line().is_some()),
                                Ordering::Relaxed,
                            );
                        }
                    }
                });
            });
        }
        wait_until_with("readers read", log, || pages.load(Ordering::Relaxed) > 100);
        let mut root = guard.connect();
        for round in 0..3 {
            let since = Instant::now();
            let line = format!(r#"{{"op":"ban","target":"203.0.113.{round}","for":"1h"}}"#);
            assert_eq!(json(&root.request(&line))["did"], "added");
            let banned = since.elapsed();
            let restores = status()["restores"].as_u64().expect("a number");
            let since = Instant::now();
            nft(&netns, "delete table inet nfguard_bans\n");
            wait_until_with("the bans are back", log, || {
                succeed(&netns, &["bans", "--count"]).stdout.trim()
                    == (count + round + 1).to_string()
            });
            eprintln!(
                "a ban of root took {banned:?}, and {count} bans were back {:?} later",
                since.elapsed()
            );
            assert!(status()["restores"].as_u64() > Some(restores), "{}", guard.log());
            highest = highest.max(memory(&guard));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    eprintln!(
        "{} pages; {before} KiB before, {highest} KiB at most",
        pages.load(Ordering::Relaxed)
    );
    assert!(highest < before + 96 * 1024, "{before} KiB before, {highest} KiB at most");

    let process = Pid::from_raw(guard.process().cast_signed()).expect("it runs");
    wait_until_with("the clients are gone", log, || status()["clients"] == 1);
    let open = fs::read_dir(format!("/proc/{}/fd", guard.process())).expect("it runs").count();
    let few = Rlimit { current: Some(open as u64), maximum: Some(8192) };
    // No more files can be opened: the guard says so once, and takes no processor.
    let files = prlimit(Some(process), Resource::Nofile, few).expect("root may");
    let waiting: Vec<UnixStream> = (0..50).map(|_| connect(&socket)).collect();
    wait_until_with("it says so", log, || guard.log().contains("cannot be accepted"));
    let before = processor(&guard);
    thread::sleep(Duration::from_secs(4));
    let took = processor(&guard) - before;
    assert!(took < Duration::from_secs(2), "{took:?} in four seconds");
    assert_eq!(guard.log().matches("cannot be accepted").count(), 1, "{}", guard.log());
    prlimit(Some(process), Resource::Nofile, files).expect("root may");
    drop(waiting);
    assert!(UnixStream::connect(&socket).is_ok(), "{}", guard.log());
    assert_eq!(json(&guard.status())["ok"], true);
}
