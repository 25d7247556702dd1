//! A real SSH server: loads that cut their own connection, and confirmations over other
//! connections.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Probe, World};
use nfguard_tests::guard::Guard;
use nfguard_tests::nft::nft;
use nfguard_tests::program::{self, Answer};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

const OPEN: &str =
    r#"{ "version": 1, "rules": [{ "name": "ssh", "action": "allow", "port": 22 }] }"#;
const ALSO_OPEN: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "allow", "port": 22 },
    { "name": "web", "action": "allow", "port": 80 } ] }"#;
const CLOSED: &str = r#"{ "version": 1, "rules": [
    { "name": "web", "action": "allow", "port": 80 } ] }"#;

/// Starts the server. The end of the first process ends the server with all its sessions.
const STAGE: &str = "mount -t tmpfs none /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f";

struct Stage {
    world: World,
    folder: tempfile::TempDir,
    server: Child,
}

impl Stage {
    /// Makes a server behind a firewall that opens its port.
    fn new() -> Stage {
        let stage = Stage::without_rules();
        let open = stage.path("open");
        let loaded = program::nfguard(&stage.world.host, &["load".as_ref(), &*open]);
        assert_eq!(loaded.status, Some(0), "{loaded:?}");
        stage
    }

    fn without_rules() -> Stage {
        let world = World::new().expect("run me with `cargo xtask netns-test`");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key));
            assert!(keygen.status().expect("ssh-keygen is installed").success());
        }
        for (name, policy) in [("open", OPEN), ("also-open", ALSO_OPEN), ("closed", CLOSED)] {
            fs::write(at(name), policy).expect("writes");
        }
        let place = folder.path().display();
        let run = std::env::var("NFGUARD_RUN_DIR").unwrap_or_else(|_| "/run/nfguard".to_owned());
        let config = format!(
            "ListenAddress {}\nHostKey {place}/host\nAuthorizedKeysFile {place}/key.pub\n\
             StrictModes no\nUsePAM no\nUseDNS no\nPermitRootLogin yes\nPidFile none\n\
             PasswordAuthentication no\nMaxStartups 100\nSetEnv NFGUARD_STATE_DIR={place}/state \
             NFGUARD_RUN_DIR={run}\n",
            World::HOST_V4
        );
        fs::write(at("config"), config).expect("writes");
        let log = fs::File::create(at("log")).expect("a file");
        let mut server = Command::new("unshare");
        server.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        server.arg(format!("{STAGE} {place}/config")).stdin(Stdio::null());
        server.stdout(log.try_clone().expect("a file")).stderr(log);
        let server = world.host.run(|| server.spawn().expect("unshare starts"));
        let stage = Stage { world, folder, server };
        stage.wait_until("the server answers", || stage.gets_in());
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the command of a client on the internet.
    fn ssh(&self, options: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        // The first value of an option counts.
        ssh.args(options).args(["-F", "none", "-o", "BatchMode=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "ConnectTimeout=60", "-i"]).arg(self.path("key"));
        ssh.arg(format!("root@{}", World::HOST_V4)).stdin(Stdio::null());
        ssh
    }

    fn over_ssh(&self, options: &[&str], command: &str) -> Answer {
        let mut ssh = self.ssh(options);
        ssh.arg(command);
        self.world.internet.run(|| ssh.output().expect("ssh is installed").into())
    }

    fn nfguard(&self, arguments: &str) -> String {
        let program = program::command::<&str>(&[]);
        let program = Path::new(program.get_program()).display();
        format!("cd {} && {program} {arguments}", self.folder.path().display())
    }

    fn gets_in(&self) -> bool {
        self.over_ssh(&["-o", "ConnectTimeout=1"], "true").status == Some(0)
    }

    fn listed(&self) -> String {
        nft(&self.world.host, "list ruleset\n")
    }

    /// Waits until `is_so` returns true.
    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !is_so() {
            let log = fs::read_to_string(self.path("log"));
            assert!(Instant::now() < deadline, "not so in a minute: {what}; {log:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A shell over a connection that stays open.
struct Shell {
    client: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(stage: &Stage, options: &[&str]) -> Shell {
        let mut ssh = stage.ssh(options);
        ssh.arg("sh").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = stage.world.internet.run(|| ssh.spawn().expect("ssh is installed"));
        let input = client.stdin.take().expect("a pipe");
        let output = BufReader::new(client.stdout.take().expect("a pipe"));
        Shell { client, input, output }
    }

    /// Returns the output, from standard output and standard error, and the exit status.
    fn run(&mut self, command: &str) -> (String, i32) {
        self.start(command);
        self.finish()
    }

    fn start(&mut self, command: &str) {
        writeln!(self.input, "( {command} ) 2>&1; echo end $?").expect("sends");
    }

    fn finish(&mut self) -> (String, i32) {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("reads"), 0, "{text}");
            if let Some(status) = line.strip_prefix("end ") {
                return (text, status.trim().parse().expect("a number"));
            }
            text += &line;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn a_load_that_cuts_its_own_connection_is_rolled_back_with_the_client_dead() {
    let stage = Stage::new();
    let refused = stage.over_ssh(&[], &stage.nfguard("load closed --confirm 15s"));
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("would lock you out"), "{refused:?}");
    assert!(stage.gets_in() && !stage.listed().contains("dport 80"));

    // With a terminal, as operators have.
    let command = stage.nfguard("load closed --force --confirm 15s; sleep 600");
    let mut ssh = stage.ssh(&["-tt"]);
    ssh.arg(command).stdout(Stdio::null());
    let mut client = stage.world.internet.run(|| ssh.spawn().expect("ssh is installed"));
    stage.wait_until("the policy is loaded", || stage.listed().contains("dport 80"));
    client.kill().expect("runs");
    client.wait().expect("ends");
    assert!(!stage.gets_in(), "locked out");

    stage.wait_until("the old rules are back", || stage.gets_in());
    let start = format!("root from {}: ", World::INTERNET_V4);
    stage.wait_until("the history has the peer", || {
        let history = stage.over_ssh(&[], &stage.nfguard("history")).stdout;
        history
            .lines()
            .last()
            .is_some_and(|last| last.contains(&start) && last.ends_with("closed, rolled back"))
    });
}

#[test]
fn a_confirmation_is_proof_only_over_another_connection() {
    let stage = Stage::new();
    let control = stage.path("control");
    let control = control.to_str().expect("plain letters");
    let mut first = Shell::open(&stage, &["-M", "-S", control]);
    let mut load = |file: &str| {
        let (words, status) = first.run(&stage.nfguard(&format!("load {file} --confirm 10m")));
        assert_eq!(status, 0, "{words}");
        words
    };
    let confirm = stage.nfguard("confirm --json");
    let expect = |answer: &str, from: &str| {
        let answer: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!(answer["confirmed"], true);
        assert_eq!(
            (&answer["connection"], &answer["proves_access"]),
            (&from.into(), &(from == "new").into())
        );
    };
    load("also-open");
    // Another session over the connection of the load. A policy that refuses new connections does
    // not cut it.
    let shared = stage.over_ssh(&["-S", control], &confirm);
    expect(&shared.stdout, "same");
    load("open");
    expect(&stage.over_ssh(&[], &confirm).stdout, "new");
    let mut second = Shell::open(&stage, &[]);
    assert_eq!(second.run("true").1, 0);
    load("also-open");
    expect(&second.run(&confirm).0, "old");
    let none = stage.over_ssh(&[], &confirm);
    assert_eq!(none.status, Some(1), "{none:?}");
    assert!(stage.listed().contains("dport 80"));
}

/// Asserts that an open connection continues. Without rules about connections, the kernel tracks
/// none. Then it would take the next packet of the server for a new connection.
#[test]
fn the_very_first_load_keeps_its_own_connection_open() {
    let stage = Stage::without_rules();
    let mut shell = Shell::open(&stage, &[]);
    assert_eq!(shell.run("true").1, 0);
    let (words, status) = shell.run(&stage.nfguard("load open --confirm 10m"));
    assert_eq!(status, 0, "{words}");
    assert!(words.contains("`nfguard confirm`"), "{words}");
    assert_eq!(stage.over_ssh(&[], &stage.nfguard("confirm")).status, Some(0));
}

#[test]
fn no_program_bans_the_peer_of_a_login_and_one_that_only_guesses_is_banned() {
    let stage = Stage::new();
    let host = &stage.world.host;
    let attacker = "203.0.113.66";
    let peer = "203.0.113.9";
    let refused = |answer: &str| answer.contains("an SSH session on 2");

    // Another program than the operator's has no session of its own.
    let mut shell = Shell::open(&stage, &["-b", peer]);
    assert_eq!(shell.run("true").1, 0);
    let answer = program::nfguard(host, &["ban", peer, "--source", "fail2ban/sshd"]);
    assert!(answer.status == Some(2) && refused(&answer.stderr), "{answer:?}");
    // The list still has the peer: for a guard, too.
    let guard = Guard::start(host, None, &[]);
    let mut client = guard.connect();
    let mut ban = |target: &str| {
        client.request(&format!(r#"{{"op":"ban","target":"{target}","for":600,"source":"waf"}}"#))
    };
    assert!(refused(&ban(peer)), "{}", guard.log());

    // An attacker has a connection to the server, too, while it guesses.
    let connection = Probe::tcp(&stage.world.internet, (World::HOST_V4, 22));
    let from: IpAddr = attacker.parse().expect("an address");
    let connection = connection.from(from).timeout(TIMEOUT).connect().expect("it connects");
    let answer = ban(attacker);
    assert!(answer.contains("added"), "{answer}");
    program::succeed(host, &["unban", attacker]);
    let answer = program::nfguard(host, &["ban", attacker, "--source", "fail2ban/sshd"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    drop(connection);
    assert_eq!(shell.run("true").1, 0, "the session goes on");
}
