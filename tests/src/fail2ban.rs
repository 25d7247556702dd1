//! The real Fail2Ban inside a namespace, with the configuration of Debian, our action and the two
//! packaged jails for Traefik.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait::TIMEOUT;
use nfguard_lab::Netns;

use crate::program;

const ACTION: &str = include_str!("../../packaging/fail2ban/action.d/nfguard.conf");
const JAILS: &str = include_str!("../../packaging/fail2ban/jail.d/traefik.conf");

/// A folder with another Fail2Ban to test, as `dpkg-deb -x` unpacks its package. Without it, the
/// installed one is tested.
const UNPACKED: &str = "NFGUARD_TEST_FAIL2BAN";

/// A Fail2Ban server with files of its own. It ends with its value.
#[derive(Debug)]
pub struct Fail2Ban {
    folder: PathBuf,
    server: Option<Child>,
}

impl Fail2Ban {
    /// Writes the configuration into a folder. The access log must exist before
    /// [`Fail2Ban::start`].
    ///
    /// # Panics
    /// If Fail2Ban is not installed.
    pub fn new(folder: &Path, log: &Path) -> Fail2Ban {
        configure(folder, log);
        Fail2Ban { folder: folder.to_owned(), server: None }
    }

    /// Writes a file of the configuration.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join("etc").join(name), text).expect("written");
    }

    /// Returns the log of the server.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("fail2ban.log")).unwrap_or_default()
    }

    /// Starts the server, also a second time, and waits for both jails.
    ///
    /// # Panics
    /// If the server does not start.
    pub fn start(&mut self, netns: &Netns) {
        let _ = fs::remove_file(self.folder.join("socket"));
        let mut command = self.command("fail2ban-server");
        command.args(["-f", "--loglevel", "INFO", "--syslogsocket", "auto", "--logtarget"]);
        command.arg(self.folder.join("fail2ban.log"));
        let output = File::create(self.folder.join("output")).expect("a file");
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        self.server = Some(netns.run(|| command.spawn().expect("fail2ban starts")));
        self.wait("both jails", || {
            let status = self.client(netns, &["status"]);
            status.contains("traefik-auth") && status.contains("traefik-botsearch")
        });
    }

    /// Returns the output of `fail2ban-client`.
    ///
    /// # Panics
    /// If Fail2Ban is not installed.
    pub fn client(&self, netns: &Netns, arguments: &[&str]) -> String {
        let output = netns.run(|| self.command("fail2ban-client").args(arguments).output());
        let output = output.expect("fail2ban-client starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Stops the server, which puts its bans in order.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn stop(&mut self, netns: &Netns) {
        self.client(netns, &["stop"]);
        self.server.take().expect("it runs").wait().expect("it ends");
    }

    /// Kills the server, which leaves its bans as they are.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.kill().expect("killed");
        server.wait().expect("it ends");
    }

    /// Waits until `is_so` returns true. Prints the log of the server on failure.
    ///
    /// # Panics
    /// If `is_so` does not return true within [`TIMEOUT`].
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !is_so() {
            let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let [output, log] = ["output", "fail2ban.log"].map(read);
            assert!(Instant::now() < deadline, "never: {what}\n{output}\n{log}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").expect("a path");
        let mut command = match std::env::var_os(UNPACKED).map(PathBuf::from) {
            None => Command::new(program),
            Some(root) => {
                let mut command = Command::new(root.join("usr/bin").join(program));
                command.env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"));
                command
            }
        };
        command.env("PATH", format!("{}:{path}", self.folder.join("bin").display()));
        // The actions write down the bans of this namespace, and of no other.
        command.env("NFGUARD_STATE_DIR", self.folder.join("state"));
        command.arg("-c").arg(self.folder.join("etc"));
        command.arg("-s").arg(self.folder.join("socket"));
        command.arg("-p").arg(self.folder.join("pid")).stdin(Stdio::null());
        command
    }
}

impl Drop for Fail2Ban {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Writes the configuration of Debian, our files, and the settings of an administrator.
fn configure(folder: &Path, log: &Path) {
    let etc = folder.join("etc");
    let root = std::env::var_os(UNPACKED).map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let copied = Command::new("cp").arg("-r").arg(root.join("etc/fail2ban")).arg(&etc).status();
    assert!(copied.expect("cp starts").success(), "fail2ban is not installed");
    let write = |name: &str, text: &str| fs::write(etc.join(name), text).expect("written");
    write("action.d/nfguard.conf", ACTION);
    let log = log.to_str().expect("a path");
    let jails = JAILS.replace("/var/log/traefik/access.log", log);
    assert!(jails.contains(log));
    write("jail.d/traefik.conf", &jails);
    // The host has no auth.log.
    write("jail.d/zz-test.local", "[sshd]\nenabled = false\n");
    // Fail2Ban restores bans from this file.
    let data = folder.join("db.sqlite3");
    write("fail2ban.d/zz-test.local", &format!("[DEFAULT]\ndbfile = {}\n", data.display()));
    let programs = folder.join("bin");
    fs::create_dir(&programs).expect("a folder");
    symlink(program::path(), programs.join("nfguard")).expect("a link");
}
