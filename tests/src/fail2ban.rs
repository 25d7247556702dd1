//! The real Fail2Ban with Debian's configuration, our action and the two jails for Traefik that ship
//! as an example, inside a namespace.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::Netns;

use crate::program;

const ACTION: &str = include_str!("../../packaging/fail2ban/action.d/nfguard.conf");
const JAILS: &str = include_str!("../../packaging/fail2ban/jail.d/traefik.conf");
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with its value.
#[derive(Debug)]
pub struct Fail2Ban<'n> {
    netns: &'n Netns,
    folder: PathBuf,
    server: Child,
}

impl<'n> Fail2Ban<'n> {
    /// Starts it on an access log that is there, with its files in a folder of its own, and waits
    /// for both jails.
    ///
    /// # Panics
    /// If it is not installed or does not start.
    pub fn start(netns: &'n Netns, folder: &Path, log: &Path) -> Fail2Ban<'n> {
        configure(folder, log);
        let mut command = command(folder, "fail2ban-server");
        command.args(["-f", "--loglevel", "INFO", "--syslogsocket", "auto", "--logtarget"]);
        command.arg(folder.join("fail2ban.log"));
        let output = File::create(folder.join("output")).expect("a file");
        command.stdout(output.try_clone().expect("a file")).stderr(output);
        let server = netns.run(|| command.spawn().expect("fail2ban starts"));
        let fail2ban = Fail2Ban { netns, folder: folder.to_owned(), server };
        fail2ban.wait("both jails", || {
            let status = fail2ban.client(&["status"]);
            status.contains("traefik-auth") && status.contains("traefik-botsearch")
        });
        fail2ban
    }

    /// What the client says.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn client(&self, arguments: &[&str]) -> String {
        let mut command = command(&self.folder, "fail2ban-client");
        let output = self.netns.run(|| command.args(arguments).output());
        let output = output.expect("fail2ban-client starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until it is so, and else shows what the server had to say.
    ///
    /// # Panics
    /// If it never is.
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let [output, log] = ["output", "fail2ban.log"].map(read);
            assert!(Instant::now() < deadline, "never: {what}\n{output}\n{log}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Fail2Ban<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Debian's configuration, our files, and what an administrator sets.
fn configure(folder: &Path, log: &Path) {
    let etc = folder.join("etc");
    let copied = Command::new("cp").args(["-r", "/etc/fail2ban"]).arg(&etc).status();
    assert!(copied.expect("cp starts").success(), "fail2ban is not installed");
    let write = |name: &str, text: &str| fs::write(etc.join(name), text).expect("written");
    write("action.d/nfguard.conf", ACTION);
    let log = log.to_str().expect("a path");
    let jails = JAILS.replace("/var/log/traefik/access.log", log);
    assert!(jails.contains(log));
    write("jail.d/traefik.conf", &jails);
    // There is no auth.log here.
    write("jail.d/zz-test.local", "[sshd]\nenabled = false\n");
    write("fail2ban.d/zz-test.local", "[DEFAULT]\ndbfile = None\n");
    let programs = folder.join("bin");
    fs::create_dir(&programs).expect("a folder");
    symlink(program::path(), programs.join("nfguard")).expect("a link");
}

fn command(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", folder.join("bin").display()));
    command.arg("-c").arg(folder.join("etc")).arg("-s").arg(folder.join("socket"));
    command.arg("-p").arg(folder.join("pid")).stdin(Stdio::null());
    command
}
