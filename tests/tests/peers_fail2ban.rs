//! The real Fail2Ban, which bans through nfguard at host and container.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Probe, World};
use nfguard_tests::fail2ban::Fail2Ban;
use nfguard_tests::nft::nft;
use nfguard_tests::program::nfguard;
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const ATTACKER: &str = "203.0.113.66";
const ATTACKER_V6: &str = "2001:db8:66::1";
const CLIENT: &str = "203.0.113.67";
const CLIENT_V6: &str = "2001:db8:67::1";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A host with a published container, web servers on both, and Fail2Ban on their log.
struct Stage {
    world: World,
    fail2ban: Fail2Ban,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let world = World::with_container().expect("run me with `cargo xtask netns-test`");
        // The rules of Docker for `-p 80:8080`.
        nft(
            &world.host,
            "table inet docker { chain published { type nat hook prerouting priority -100;
                fib daddr type local tcp dport 80 dnat ip to 172.17.0.2:8080
                fib daddr type local tcp dport 80 dnat ip6 to [2001:db8:d0c::2]:8080; }; }\n",
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let log = OpenOptions::new().create(true).append(true).open(&path).expect("a log");
        let log = Arc::new(Mutex::new(log));
        let container = world.container.as_ref().expect("made with one");
        for (netns, at, port) in [
            (&world.host, World::HOST_V4, 443),
            (&world.host, World::HOST_V6, 443),
            (container, World::CONTAINER_V4, 8080),
            (container, World::CONTAINER_V6, 8080),
        ] {
            let listen = || TcpListener::bind(SocketAddr::new(at, port)).expect("a listener");
            serve(netns.run(listen), &log);
        }
        let fail2ban = Fail2Ban::new(folder.path(), &path);
        Stage { world, fail2ban, folder }
    }

    fn start(&mut self) {
        self.fail2ban.start(&self.world.host);
    }

    fn client(&self, arguments: &[&str]) -> String {
        self.fail2ban.client(&self.world.host, arguments)
    }

    fn stop(&mut self) {
        self.fail2ban.stop(&self.world.host);
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        self.fail2ban.wait(what, is_so);
    }

    /// Sends a request, and reports whether it was answered.
    fn get(&self, from: &str, to: (IpAddr, u16), path: &str) -> bool {
        let to = SocketAddr::new(to.0, to.1);
        let probe = Probe::tcp(&self.world.internet, to).from(address(from)).timeout(TIMEOUT);
        let Ok(mut stream) = probe.connect() else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n");
        let sent = stream.write_all(request.as_bytes());
        sent.is_ok()
            && BufReader::new(stream).read_line(&mut String::new()).is_ok_and(|len| len > 0)
    }

    /// Reports whether a connection opens within a short time. It serves for connections that
    /// should not open.
    fn reaches(&self, from: &str, to: (IpAddr, u16)) -> bool {
        let to = SocketAddr::new(to.0, to.1);
        Probe::tcp(&self.world.internet, to).from(address(from)).connect().is_ok()
    }

    fn bans(&self) -> Vec<Value> {
        let answer = nfguard(&self.world.host, &["bans", "--json"]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        let answer: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        answer["bans"].as_array().expect("a list").clone()
    }

    /// Returns the sources of the bans of an address.
    fn owners(&self, of: &str) -> Vec<String> {
        let of = |ban: &Value| (ban["target"] == of).then(|| ban["source"].to_string());
        let mut owners: Vec<String> = self.bans().iter().filter_map(of).collect();
        owners.sort();
        owners
    }

    /// Sends a wrong request each second until the address is banned.
    fn attack_until_banned(&self, from: &str, to: (IpAddr, u16), path: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while self.owners(from).is_empty() {
            assert!(Instant::now() < deadline, "not banned again: {}", self.fail2ban.log());
            for _ in 0..5 {
                self.get(from, to, path);
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Attacks until the address is banned.
    fn attack(&self, from: &str, to: (IpAddr, u16), path: &str, times: usize) {
        let before = self.bans().len();
        for _ in 0..times {
            assert!(self.get(from, to, path), "{from} is not banned yet");
        }
        self.wait("a ban", || self.bans().len() > before);
    }
}

/// Answers requests, and logs them as Traefik does.
fn serve(listener: TcpListener, log: &Arc<Mutex<File>>) {
    let log = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = log.clone();
            thread::spawn(move || answer(stream, &log));
        }
    });
}

fn answer(mut stream: TcpStream, log: &Mutex<File>) -> Option<()> {
    let peer = stream.peer_addr().ok()?.ip().to_canonical();
    let mut request = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut request).ok()?;
    let path = request.split(' ').nth(1)?;
    let (user, status) = match path {
        "/admin" => ("admin", 401),
        "/wp-login.php" => ("-", 404),
        _ => ("-", 200),
    };
    let time = Command::new("date").args(["-u", "+%d/%b/%Y:%H:%M:%S +0000"]).output().ok()?;
    let time = String::from_utf8(time.stdout).ok()?;
    let line = format!(
        "{peer} - {user} [{}] \"GET {path} HTTP/1.1\" {status} 17 \"-\" \"-\" 7 \"web@docker\" \
         \"http://172.17.0.2:8080\" 1ms\n",
        time.trim()
    );
    log.lock().ok()?.write_all(line.as_bytes()).ok()?;
    stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()
}

const HOST: [(IpAddr, u16); 2] = [(World::HOST_V4, 443), (World::HOST_V6, 443)];
const PUBLISHED: [(IpAddr, u16); 2] = [(World::HOST_V4, 80), (World::HOST_V6, 80)];

#[test]
fn an_attacker_s_packets_stop_at_host_and_container_until_the_jail_lets_it_go() {
    let mut stage = Stage::new();
    stage.start();
    let people = [(ATTACKER, CLIENT), (ATTACKER_V6, CLIENT_V6)];
    for (jail, path, times) in
        [("traefik-auth", "/admin", 5), ("traefik-botsearch", "/wp-login.php", 3)]
    {
        for (family, (attacker, client)) in people.into_iter().enumerate() {
            let (host, published) = (HOST[family], PUBLISHED[family]);
            assert!(stage.get(client, host, "/") && stage.get(client, published, "/"));
            stage.attack(attacker, published, path, times);
            assert!(!stage.reaches(attacker, host), "{jail}: {attacker} reaches the host");
            assert!(
                !stage.reaches(attacker, published),
                "{jail}: {attacker} reaches the container"
            );
            assert!(stage.get(client, host, "/") && stage.get(client, published, "/"));

            let ban = stage.bans().remove(0);
            assert_eq!(ban["source"], format!("fail2ban/{jail}"), "{ban}");
            assert_eq!(ban["reason"], format!("{times} failures"), "{ban}");
            let target = if family == 0 { attacker } else { "2001:db8:66::/64" };
            assert_eq!(ban["target"], target);
            let hours = if jail == "traefik-auth" { 1.0 } else { 24.0 };
            let left = ban["expires_in_seconds"].as_f64().expect("an end");
            assert!(left <= hours * 3600.0 && left > hours * 3600.0 - 100.0, "{ban}");

            stage.client(&["set", jail, "unbanip", attacker]);
            stage.wait("an unban", || stage.bans().is_empty());
            assert!(stage.get(attacker, host, "/") && stage.get(attacker, published, "/"));
        }
    }
}

#[test]
fn a_stop_ends_its_own_bans_and_a_restart_brings_each_back_once() {
    let mut stage = Stage::new();
    stage.start();
    stage.attack(ATTACKER, HOST[0], "/admin", 5);
    stage.attack(ATTACKER_V6, HOST[1], "/admin", 5);
    let by_hand = nfguard(&stage.world.host, &["ban", "192.0.2.99"]);
    assert_eq!(by_hand.status, Some(0), "{by_hand:?}");
    assert_eq!(stage.bans().len(), 3);

    stage.stop();
    assert_eq!(stage.bans().len(), 1, "the one by hand stays");
    assert!(stage.get(ATTACKER, HOST[0], "/"));

    stage.start();
    stage.wait("both bans", || stage.bans().len() == 3);
    assert!(!stage.reaches(ATTACKER, HOST[0]) && !stage.reaches(ATTACKER_V6, HOST[1]));

    // A killed server leaves its bans in the kernel, and finds them at its next start.
    stage.fail2ban.kill();
    assert_eq!(stage.bans().len(), 3);
    assert!(!stage.reaches(ATTACKER, HOST[0]));
    stage.start();
    stage.wait("its bans", || stage.client(&["status", "traefik-auth"]).contains(ATTACKER));
    assert_eq!(stage.bans().len(), 3);
    let mut ends = stage.bans().into_iter().map(|ban| ban["expires_in_seconds"].as_f64());
    assert!(ends.all(|left| left.is_none_or(|left| left <= 3600.0)));
}

#[test]
fn an_attacker_is_banned_again_after_a_flush_by_others() {
    let mut stage = Stage::new();
    stage.start();
    stage.attack(ATTACKER, HOST[0], "/admin", 5);
    nft(&stage.world.host, "flush ruleset\n");
    assert!(stage.bans().is_empty());
    stage.attack_until_banned(ATTACKER, HOST[0], "/admin");
    assert!(!stage.reaches(ATTACKER, HOST[0]));
    assert!(stage.get(CLIENT, HOST[0], "/"));
}

#[test]
fn an_attacker_that_an_operator_let_go_is_banned_again_at_its_next_failures() {
    let mut stage = Stage::new();
    stage.start();
    stage.attack(CLIENT, HOST[0], "/admin", 5);
    stage.attack(ATTACKER, HOST[0], "/admin", 5);
    let by_hand = nfguard(&stage.world.host, &["unban", ATTACKER]);
    assert_eq!(by_hand.status, Some(0), "{by_hand:?}");
    assert!(stage.get(ATTACKER, HOST[0], "/"), "the operator's word");
    stage.attack_until_banned(ATTACKER, HOST[0], "/admin");
    assert!(!stage.reaches(ATTACKER, HOST[0]));
    assert_eq!(stage.owners(CLIENT), ["\"fail2ban/traefik-auth\""], "it has stayed banned");
    let log = stage.fail2ban.log();
    assert!(!log.contains("Unable to restore"), "{log}");

    // The two are in step: Fail2Ban lets it go, and the ban ends.
    stage.client(&["set", "traefik-auth", "unbanip", ATTACKER]);
    stage.wait("an unban", || stage.owners(ATTACKER).is_empty());
    assert!(stage.get(ATTACKER, HOST[0], "/"));
    assert!(!stage.reaches(CLIENT, HOST[0]));
}

#[test]
fn a_ban_lasts_as_long_as_fail2ban_prolongs_it() {
    let mut stage = Stage::new();
    let increment = "[sshd]\nenabled = false\n\n[traefik-auth]\nbantime = 40\n\
                     bantime.increment = true\nbantime.multipliers = 1 1000\n";
    stage.fail2ban.write("jail.d/zz-test.local", increment);
    stage.start();
    stage.attack(ATTACKER, HOST[0], "/admin", 5);
    let is_banned = || stage.client(&["status", "traefik-auth"]).contains(ATTACKER);
    stage.wait("the end of the first ban", || stage.owners(ATTACKER).is_empty() && !is_banned());
    // Fail2Ban prolongs the second ban, some seconds after it began.
    for _ in 0..5 {
        assert!(stage.get(ATTACKER, HOST[0], "/admin"));
    }
    stage.wait("the longer ban", || {
        let left = stage.bans().first().and_then(|ban| ban["expires_in_seconds"].as_f64());
        left.is_some_and(|left| left > 1000.0)
    });
    assert_eq!(stage.owners(ATTACKER).len(), 1);
    assert!(!stage.reaches(ATTACKER, HOST[0]));
}

/// The jail of sshd on a log of its own, and the jail for those that were banned twice. Debian's
/// filters and everything else.
fn enable_sshd_and_recidive(stage: &Stage, folder: &Path) -> PathBuf {
    let auth = folder.join("auth.log");
    File::create(&auth).expect("a log");
    let (auth_text, own) = (auth.display(), folder.join("fail2ban.log"));
    File::create(&own).expect("a log");
    stage.fail2ban.write(
        "jail.d/zz-test.local",
        &format!(
            "[sshd]\nenabled = true\nbackend = polling\nlogpath = {auth_text}\nmaxretry = 3\n\
             bantime = 10m\n\n[recidive]\nenabled = true\nbackend = polling\nlogpath = {}\n\
             maxretry = 2\nbantime = 1w\n",
            own.display()
        ),
    );
    auth
}

/// Writes what sshd logs of wrong passwords, until the jail has banned the address.
fn fail_at_ssh(stage: &Stage, auth: &Path, from: &str) {
    let time = Command::new("date").arg("+%b %e %H:%M:%S").output().expect("a time");
    let time = String::from_utf8(time.stdout).expect("a text");
    let mut log = OpenOptions::new().append(true).open(auth).expect("a log");
    for port in 1000..1003 {
        let line = format!(
            "{} host sshd[7]: Failed password for root from {from} port {port} ssh2\n",
            time.trim()
        );
        log.write_all(line.as_bytes()).expect("written");
    }
    let sshd = "\"fail2ban/sshd\"".to_owned();
    stage.wait("a ban by sshd", || stage.owners(from).contains(&sshd));
}

/// Has sshd ban the attacker once more and again, until recidive bans it too.
fn ban_by_both(stage: &Stage, auth: &Path) {
    let both = ["\"fail2ban/recidive\"", "\"fail2ban/sshd\""];
    let deadline = Instant::now() + TIMEOUT;
    loop {
        fail_at_ssh(stage, auth, ATTACKER);
        let soon = Instant::now() + Duration::from_secs(3);
        while stage.owners(ATTACKER) != both && Instant::now() < soon {
            thread::sleep(Duration::from_millis(100));
        }
        if stage.owners(ATTACKER) == both {
            return;
        }
        assert!(Instant::now() < deadline, "not banned by both: {}", stage.fail2ban.log());
        stage.client(&["set", "sshd", "unbanip", ATTACKER]);
        stage.wait("an unban", || !stage.owners(ATTACKER).contains(&both[1].to_owned()));
    }
}

#[test]
fn an_address_that_sshd_and_recidive_banned_is_shut_out_until_the_last_lets_it_go() {
    let mut stage = Stage::new();
    let auth = enable_sshd_and_recidive(&stage, stage.folder.path());
    stage.start();
    stage.wait("the other jails", || {
        let status = stage.client(&["status"]);
        status.contains("sshd") && status.contains("recidive")
    });
    for (first, last) in [("sshd", "recidive"), ("recidive", "sshd")] {
        ban_by_both(&stage, &auth);
        assert!(!stage.reaches(ATTACKER, HOST[0]));
        stage.client(&["set", first, "unbanip", ATTACKER]);
        stage.wait("one owner", || stage.owners(ATTACKER).len() == 1);
        assert_eq!(stage.owners(ATTACKER), [format!("\"fail2ban/{last}\"")]);
        assert!(!stage.reaches(ATTACKER, HOST[0]), "{last} has not let it go");
        let left = stage.bans()[0]["expires_in_seconds"].as_f64().expect("an end");
        let (least, most) = if last == "sshd" { (300.0, 600.0) } else { (604_000.0, 604_800.0) };
        assert!((least..=most).contains(&left), "{last}: {left}");
        stage.client(&["set", last, "unbanip", ATTACKER]);
        stage.wait("no owner", || stage.owners(ATTACKER).is_empty());
        assert!(stage.get(ATTACKER, HOST[0], "/"));
    }

    // The end of a jail ends its own bans alone.
    ban_by_both(&stage, &auth);
    stage.client(&["stop", "sshd"]);
    stage.wait("the end of a jail", || stage.owners(ATTACKER).len() == 1);
    assert!(!stage.reaches(ATTACKER, HOST[0]));
    let by_hand = nfguard(&stage.world.host, &["unban", ATTACKER]);
    assert_eq!(by_hand.status, Some(0), "{by_hand:?}");
    assert!(stage.get(ATTACKER, HOST[0], "/"), "the operator's word ends all");
}

#[test]
fn the_bans_of_a_database_are_taken_over_and_those_that_are_over_are_counted() {
    let mut stage = Stage::new();
    let bans = "[sshd]\nenabled = false\n\n[traefik-auth]\nbantime = 1h\n\n[traefik-botsearch]\nbantime = -1\n";
    stage.fail2ban.write("jail.d/zz-test.local", bans);
    stage.start();
    stage.client(&["set", "traefik-auth", "banip", ATTACKER]);
    stage.client(&["set", "traefik-botsearch", "banip", ATTACKER]);
    stage.client(&["set", "traefik-auth", "banip", "2001:db8:bad::7"]);
    stage.wait("the bans", || stage.bans().len() == 3);
    let before = stage.owners(ATTACKER);
    // The database is read while Fail2Ban runs, and stays as it is.
    let database = stage.folder.path().join("db.sqlite3");
    let is_written = || {
        let found =
            Command::new("/usr/bin/python3").args(["-c", COUNT_ROWS]).arg(&database).output();
        found.is_ok_and(|found| found.stdout == b"3\n")
    };
    stage.wait("the database", is_written);
    let over =
        Command::new("/usr/bin/python3").args(["-c", ADD_ONE_THAT_IS_OVER]).arg(&database).status();
    assert!(over.expect("python3 starts").success());
    assert_eq!(nfguard(&stage.world.host, &["unload", "--all"]).status, Some(0));
    let path = database.to_str().expect("a path");
    let answer = nfguard(&stage.world.host, &["import", "bans", path, "--json"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let told: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!((&told["added"], &told["over"]), (&3.into(), &1.into()), "{told}");
    // Each belongs to its jail, as if the action had made it.
    assert_eq!(stage.owners(ATTACKER), before);
    let left = |source: &str| {
        let of = |ban: &&Value| ban["source"] == source && ban["target"] == ATTACKER;
        stage.bans().iter().find(of).expect("a ban")["expires_in_seconds"].as_f64()
    };
    assert_eq!(left("fail2ban/traefik-botsearch"), None, "bantime = -1 is without end");
    assert!(left("fail2ban/traefik-auth").is_some_and(|left| left > 3000.0 && left <= 3600.0));
    let again = nfguard(&stage.world.host, &["import", "bans", path]);
    assert!(again.stdout.contains("1 had expired"), "{again:?}");
    let other = stage.folder.path().join("other.sqlite3");
    fs::write(&other, b"SQLite format 3\0 and no more").expect("written");
    let refused = nfguard(&stage.world.host, &["import", "bans", other.to_str().expect("a path")]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
}

const COUNT_ROWS: &str = "import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute('select count(*) from bips').fetchone()[0])";
const ADD_ONE_THAT_IS_OVER: &str = "import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=60)
base.execute(\"insert into bips(ip, jail, timeofban, bantime) values('203.0.113.99', 'traefik-auth', 1000000000, 600)\")
base.commit()";
