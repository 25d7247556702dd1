//! The real `ufw`, with folders of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nfguard_lab::Netns;
use nfguard_tests::ufw::ufw;
use tempfile::TempDir;

use crate::needs_namespaces;

/// Runs the ufw of Debian in a fork for each command. Python and the modules of ufw are loaded
/// once.
const DRIVER: &str = r#"
import os, runpy, shlex, sys
import ufw.frontend
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["ufw", "--datadir=" + sys.argv[1]] + shlex.split(line)
        runpy.run_path("/usr/sbin/ufw", run_name="__main__")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("status", os.waitstatus_to_exitcode(status), line, flush=True)
"#;

/// An application profile besides those of Debian.
const PROFILE: &str = "[Test Web]\ntitle=Test web server\ndescription=For tests\n\
                       ports=80,443/tcp|8080|6000:6003/udp\n";

/// A root folder for ufw.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// Makes the folder as it is after the installation, with ufw disabled.
    pub(crate) fn new_installation() -> Folder {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let script = r#"
            set -e
            mkdir -p etc/default lib/ufw
            cp -r /usr/share/ufw/iptables etc/ufw
            cp /usr/share/ufw/ufw.conf etc/ufw
            cp -r /etc/ufw/applications.d etc/ufw
            cp /etc/default/ufw etc/default/ufw
        "#;
        shell(script, folder.path());
        fs::write(folder.path().join("etc/ufw/applications.d/test"), PROFILE).expect("writable");
        Folder(folder)
    }

    /// Runs a shell command in its `etc`.
    pub(crate) fn change(&self, command: &str) {
        shell(command, &self.path().join("etc"));
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs these ufw commands, and returns the number of refused ones.
    pub(crate) fn ufw(&self, commands: &[String]) -> usize {
        let netns = Netns::new().unwrap_or_else(|error| needs_namespaces(&error));
        let output = netns.run(|| {
            let mut driver = Command::new("/usr/bin/python3")
                .args(["-c", DRIVER])
                .arg(self.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("python3 is there, as ufw needs it");
            let mut stdin = driver.stdin.take().expect("a pipe");
            let mut lines = String::new();
            for command in commands {
                writeln!(lines, "{command}").expect("a string takes everything");
            }
            stdin.write_all(lines.as_bytes()).expect("it reads");
            drop(stdin);
            driver.wait_with_output().expect("it ends")
        });
        let words = String::from_utf8_lossy(&output.stdout);
        let statuses: Vec<&str> =
            words.lines().filter_map(|line| line.strip_prefix("status ")).collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(statuses.len(), commands.len(), "{words}\n{errors}");
        statuses.iter().filter(|status| !status.starts_with("0 ")).count()
    }

    /// Returns the number of rules that ufw has written for both IP versions.
    pub(crate) fn rules(&self) -> usize {
        let count = |name: &str| self.read(name).matches("### tuple ###").count();
        count("user.rules") + count("user6.rules")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("etc/ufw").join(name)).expect("ufw has written it")
    }
}

fn shell(script: &str, folder: &Path) {
    let mut command = Command::new("sh");
    let done = command.args(["-c", script]).current_dir(folder).status().expect("sh is there");
    assert!(done.success(), "is ufw installed? {script}");
}

/// The kernel rules of an enabled ufw besides user rules, for given defaults.
#[derive(Clone)]
pub(crate) struct Base([String; 2]);

impl Base {
    /// Enables a real ufw and reads its rules.
    pub(crate) fn of(defaults: [&'static str; 3]) -> Base {
        let netns = Netns::new().unwrap_or_else(|error| needs_namespaces(&error));
        let commands: Vec<String> = ["incoming", "outgoing", "routed"]
            .iter()
            .zip(defaults)
            .map(|(way, word)| format!("default {word} {way}"))
            .collect();
        ufw(&netns, &commands.iter().map(String::as_str).collect::<Vec<_>>());
        Base(["iptables-save", "ip6tables-save"].map(|program| {
            let output = netns.run(|| Command::new(program).output().expect("ufw needs it"));
            String::from_utf8(output.stdout).expect("it prints text")
        }))
    }

    /// Loads the base, and then the rules of a folder as ufw does.
    pub(crate) fn load(&self, netns: &Netns, folder: &Folder) {
        let programs = ["iptables-restore", "ip6tables-restore"];
        for ((program, base), rules) in
            programs.iter().zip(&self.0).zip(["user.rules", "user6.rules"])
        {
            restore(netns, &[program], base);
            restore(netns, &[program, "-n"], &folder.read(rules));
        }
    }
}

fn restore(netns: &Netns, command: &[&str], text: &str) {
    let output = netns.run(|| {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ufw needs it");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}\n{text}");
}

/// Returns the permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}
