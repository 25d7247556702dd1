//! A machine for one document: files, processes and a network of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::{Netns, veth};
use nfguard_tests::document::repository;
use nfguard_tests::program;
use nfguard_tests::wait::TIMEOUT;

/// The SSH session of the reader: addresses and ports.
const SESSION: &str = "192.0.2.1 50022 192.0.2.10 22";

/// The shell that holds the namespaces of the machine. No written file outlasts it. The working
/// folder has the sources.
const HOLDER: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs /run
for folder in etc usr var; do
    mkdir -p /run/disk/$folder /run/disk/$folder-work
    upper=upperdir=/run/disk/$folder,workdir=/run/disk/$folder-work
    mount -t overlay overlay -o "lowerdir=/$folder,$upper" /$folder
done
mkdir -p /run/bin /run/sources/crates/cli
cd "$REPOSITORY"
cp -R README.md CHANGELOG.md SECURITY.md LICENSE-* docs packaging policies /run/sources
cp crates/cli/Cargo.toml /run/sources/crates/cli
chown -R 0:0 /run/sources
chmod -R go-w /run/sources
# The document's machine knows nothing of this one.
rm -rf /etc/nfguard /var/lib/nfguard
echo 'nameserver 192.0.2.1' > /run/resolv.conf
rm -f /etc/resolv.conf
cp /run/resolv.conf /etc/resolv.conf
echo ready
cat > /dev/null
"#;

/// The stand-ins for programs that would reach beyond the machine.
const STAND_INS: [(&str, &str); 3] = [
    ("apt-get", include_str!("apt-get")),
    ("systemctl", include_str!("systemctl")),
    ("cargo", include_str!("cargo")),
];

pub(crate) struct Machine {
    host: Netns,
    _internet: Netns,
    holder: Child,
    going_on: Vec<Going>,
}

/// A command in the background.
struct Going {
    text: String,
    child: Child,
}

/// The outcome of a block.
pub(crate) struct CommandOutcome {
    pub(crate) status: Option<i32>,
    /// The output, in the order of printing.
    pub(crate) printed: String,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let no = "run me with `cargo xtask netns-test`";
        let (host, internet) = (Netns::new().expect(no), Netns::new().expect(no));
        veth(&host, "eth0", &internet, "eth0").expect("a link");
        for (own, gateway, prefix) in
            [(v4([192, 0, 2, 10]), v4([192, 0, 2, 1]), 24), (v6(0x10), v6(1), 64)]
        {
            host.address("eth0", own, prefix).expect("an address");
            internet.address("eth0", gateway, prefix).expect("an address");
            let any = if own.is_ipv4() { v4([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
            host.route(any, 0, gateway).expect("a route");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", HOLDER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("REPOSITORY", repository());
        let mut holder = host.run(|| command.spawn().expect("unshare starts"));
        let mut ready = String::new();
        let words = holder.stdout.take().expect("a pipe");
        BufReader::new(words).read_line(&mut ready).expect("the pipe is read");
        assert_eq!(ready, "ready\n", "the machine is not set up");
        let machine = Machine { host, _internet: internet, holder, going_on: Vec::new() };
        for (name, text) in STAND_INS {
            machine.write(&format!("/run/bin/{name}"), text);
            machine.succeed(&format!("chmod 755 /run/bin/{name}"));
        }
        machine
    }

    fn inside(&self, commands: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespaces = format!("/proc/{}/ns", self.holder.id());
        command.arg(format!("--mount={namespaces}/mnt"));
        command.arg(format!("--pid={namespaces}/pid_for_children"));
        command.args(["--", "sh", "-ec", &format!("exec 2>&1\ncd /run/sources\n{commands}")]);
        let path = std::env::var("PATH").expect("a path");
        command.env("PATH", format!("/run/bin:{path}"));
        command.env("NFGUARD_BIN", program::path()).env("SSH_CONNECTION", SESSION);
        command
            .env_remove("NFGUARD_STATE_DIR")
            .env_remove("NFGUARD_RUN_DIR")
            .env_remove("SSH_CLIENT")
            .env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    /// Runs commands as a reader would, up to the first failure.
    pub(crate) fn run(&self, commands: &str) -> CommandOutcome {
        let mut command = self.inside(commands);
        // A background process must not keep the pipe of the command open.
        let mut child = self.host.run(|| command.spawn().expect("nsenter starts"));
        let mut pipe = child.stdout.take().expect("a pipe");
        let reader = thread::spawn(move || {
            let mut printed = Vec::new();
            let _ = pipe.read_to_end(&mut printed);
            printed
        });
        let status = child.wait().expect("it ends").code();
        let deadline = Instant::now() + TIMEOUT;
        while !reader.is_finished() {
            assert!(Instant::now() < deadline, "something holds on to its output: {commands}");
            thread::sleep(Duration::from_millis(10));
        }
        let printed = reader.join().expect("it reads");
        CommandOutcome { status, printed: String::from_utf8_lossy(&printed).into_owned() }
    }

    /// Runs commands that must succeed, and returns their output.
    pub(crate) fn succeed(&self, commands: &str) -> String {
        let CommandOutcome { status, printed } = self.run(commands);
        assert_eq!(status, Some(0), "{commands}\n{printed}");
        printed
    }

    /// Starts a guard in the background, and waits until it answers.
    pub(crate) fn start(&mut self, commands: &str) {
        let mut command = self.inside(commands);
        command.stdout(Stdio::null());
        let child = self.host.run(|| command.spawn().expect("nsenter starts"));
        self.going_on.push(Going { text: commands.to_owned(), child });
        let socket = self.path("/run/nfguard/guard.sock");
        let deadline = Instant::now() + TIMEOUT;
        while !socket.exists() {
            self.check_background_commands();
            assert!(Instant::now() < deadline, "no socket: {commands}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asserts that each background command still runs, unless the document has ended it.
    pub(crate) fn check_background_commands(&mut self) {
        for going in &mut self.going_on {
            let Some(status) = going.child.try_wait().expect("a child") else { continue };
            let is_ended = status.success() || status.signal().is_some();
            assert!(is_ended || status.code() > Some(128), "{}: {status}", going.text);
        }
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = if path.starts_with('/') { path } else { &format!("/run/sources/{path}") };
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Returns the path of a file of the machine, seen from outside.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.id()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of the namespace ends, and with it all other processes.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        for going in &mut self.going_on {
            let _ = going.child.wait();
        }
    }
}

fn v4(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn v6(host: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, host).into()
}
