//! A real Docker Engine in namespaces of its own.
//!
//! Its mounts, its processes and its network are its own, and end with the value: the first
//! process of its process namespace reads from a pipe that this process holds, so that not even a
//! test that is killed leaves anything running.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nfguard_lab::{Netns, World};
use tempfile::TempDir;

use crate::docker::{self, Docker, Kind, poll};

/// The name of the image.
const IMAGE: &str = "responder";
/// The name of the image with a health check.
const CHECKED: &str = "checked";

/// The settings of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// `nft` or `legacy`: which iptables the engine calls.
    pub(crate) iptables: &'static str,
    pub(crate) userland_proxy: bool,
}

/// The shell that holds the namespaces of the engine. A sysfs of the new network namespace hides
/// the control groups, so the shell mounts them again: the hierarchy of version 2, or those of
/// version 1.
const HOLDER: &str = r#"
set -e
version=$(stat -f -c %T /sys/fs/cgroup)
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
if [ "$version" = cgroup2fs ]; then
    mount -t cgroup2 cgroup /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        [ -n "$controllers" ] || continue
        folder=/sys/fs/cgroup/${controllers#name=}
        case $controllers in name=*) controllers=none,$controllers ;; esac
        mkdir "$folder"
        mount -t cgroup -o "$controllers" cgroup "$folder"
    done < /proc/self/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs /run
echo ready
cat > /dev/null
"#;

pub(crate) struct Engine<'w> {
    host: &'w Netns,
    settings: Settings,
    folder: TempDir,
    /// The parent of the control groups of all containers.
    cgroup: String,
    holder: Child,
    daemon: Mutex<Option<Child>>,
}

impl<'w> Engine<'w> {
    pub(crate) fn start(host: &'w Netns, settings: Settings) -> Engine<'w> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().expect("a folder");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("nfguard-docker-{}-{number}", std::process::id());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", HOLDER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = host.run(|| command.spawn().expect("unshare starts"));
        let mut ready = String::new();
        let words = holder.stdout.take().expect("a pipe");
        BufReader::new(words).read_line(&mut ready).expect("the pipe is read");
        assert_eq!(ready, "ready\n", "the namespaces are not set up");
        let engine = Engine { host, settings, folder, cgroup, holder, daemon: Mutex::new(None) };
        engine.configure();
        engine.start_daemon();
        engine.import_image();
        engine
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self) {
        let bin = self.path("bin");
        fs::create_dir(&bin).expect("a folder");
        for family in ["iptables", "ip6tables"] {
            for what in ["", "-save", "-restore"] {
                let program = format!("/usr/sbin/{family}-{}{what}", self.settings.iptables);
                symlink(program, bin.join(format!("{family}{what}"))).expect("a link");
            }
        }
        let config = serde_json::json!({
            "ipv6": true,
            "fixed-cidr-v6": "2001:db8:d0c::/64",
            "experimental": true,
            "ip6tables": true,
            "userland-proxy": self.settings.userland_proxy,
        });
        fs::write(self.path("daemon.json"), config.to_string()).expect("written");
    }

    /// Returns the options that every engine here needs.
    fn options(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        let mut options = Vec::new();
        for (option, value) in [
            ("--data-root", "/run/docker-data".to_owned()),
            ("--exec-root", "/run/docker".to_owned()),
            ("--pidfile", "/run/docker.pid".to_owned()),
            ("--host", format!("unix://{}", path("docker.sock"))),
            ("--storage-driver", "vfs".to_owned()),
            ("--cgroup-parent", format!("/{}", self.cgroup)),
            ("--exec-opt", "native.cgroupdriver=cgroupfs".to_owned()),
            ("--dns", World::INTERNET_V4.to_string()),
        ] {
            options.extend([option.to_owned(), value]);
        }
        options
    }

    /// Returns the command of a program in the namespaces of the engine.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespaces = format!("/proc/{}/ns", self.holder.id());
        command.arg(format!("--mount={namespaces}/mnt"));
        command.arg(format!("--pid={namespaces}/pid_for_children"));
        let path = std::env::var("PATH").expect("a path");
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        // What is written down here is for this namespace, and for no other.
        command.env("NFGUARD_STATE_DIR", self.path("state"));
        command.arg("--").arg(program).stdin(Stdio::null());
        command
    }

    fn run_inside(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.inside(program);
        self.host.run(|| command.args(arguments).output().expect("nsenter starts"))
    }

    fn start_daemon(&self) {
        let mut command = self.inside("dockerd");
        command.arg("--config-file").arg(self.path("daemon.json"));
        command.args(self.options());
        let log = File::options().create(true).append(true).open(self.path("dockerd.log"));
        let log = log.expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let mut daemon = self.host.run(|| command.spawn().expect("nsenter starts"));
        poll("the engine's answer", || {
            assert!(daemon.try_wait().expect("a child").is_none(), "{}", self.log());
            self.client(&["version"]).status.success()
        });
        *self.daemon.lock().expect("no panic") = Some(daemon);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("dockerd.log")).unwrap_or_default()
    }

    fn stop_daemon(&self) {
        let stopped = self.run_inside("sh", &["-c", "kill $(cat /run/docker.pid)"]);
        assert!(stopped.status.success(), "{stopped:?}");
        let mut daemon = self.daemon.lock().expect("no panic").take().expect("it runs");
        poll("the engine's end", || daemon.try_wait().expect("a child").is_some());
    }

    fn import_image(&self) {
        let root = self.path("root");
        fs::create_dir(&root).expect("a folder");
        fs::copy(docker::responder(), root.join("responder")).expect("copied");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(self.path("image.tar")).arg(".");
        assert!(tar.status().expect("tar starts").success());
        self.import(IMAGE, &["/responder"], &[]);
        // The image has no shell, so `docker run` can set no health check.
        let check =
            r#"HEALTHCHECK --interval=2s CMD ["/responder", "tcp", "127.0.0.1:8443", "1000"]"#;
        self.import(CHECKED, &["/responder"], &["--change", check]);
    }

    /// Imports the image with this name and entry point.
    pub(crate) fn import(&self, name: &str, entry: &[&str], options: &[&str]) {
        let entry = format!("ENTRYPOINT {}", serde_json::json!(entry));
        let archive = self.path("image.tar");
        let archive = archive.to_str().expect("a path");
        self.docker(&[&["import", "--change", &entry][..], options, &[archive, name]].concat());
    }

    /// Adds a program that [`Engine::script`] finds before others of its name.
    pub(crate) fn add_program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// Adds a link to an existing program, as [`Engine::add_program`] does.
    pub(crate) fn link_program(&self, name: &str, program: &Path) {
        symlink(program, self.path("bin").join(name)).expect("a link");
    }

    /// Runs commands in the folder of the repository up to the first failure, and returns their
    /// output.
    pub(crate) fn script(&self, commands: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder");
        let mut command = self.inside("sh");
        command.arg("-euxc").arg(format!("cd '{}'\n{commands}", folder.display()));
        command.env("DOCKER_HOST", format!("unix://{}", self.path("docker.sock").display()));
        command.env("DOCKER_CONFIG", self.folder.path());
        command.env("DOCKERD_OPTIONS", self.options().join(" "));
        let output = self.host.run(|| command.output().expect("nsenter starts"));
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{}\n{out}\n{err}\n{}", output.status, self.log());
        out.into_owned()
    }

    fn client(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.path("docker.sock").display()));
        command.env("DOCKER_CONFIG", self.folder.path()).stdin(Stdio::null());
        command.args(arguments).output().expect("docker starts")
    }

    /// Runs the client, which must succeed, and returns its output.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a container of the image, with these options of `docker run`.
    pub(crate) fn run(&self, name: &str, options: &[&str], serve: &[&str]) {
        self.run_image(IMAGE, name, options, serve);
    }

    fn run_image(&self, image: &str, name: &str, options: &[&str], serve: &[&str]) {
        // The responder needs no time to stop.
        let always = ["run", "--detach", "--restart", "always", "--stop-signal", "KILL"];
        let arguments = [&always, &["--name", name][..], options, &[image, "serve"], serve];
        self.docker(&arguments.concat());
    }
}

impl Docker for Engine<'_> {
    fn has_proxy(&self) -> bool {
        self.settings.userland_proxy
    }

    fn translates_ipv6(&self) -> bool {
        // With ip6tables-legacy, Docker 20.10 makes the rule for only one port of a container and
        // leaves the others to docker-proxy.
        self.settings.iptables != "legacy"
    }

    fn lets_neighbours_route_to_published_ports(&self) -> bool {
        true
    }

    fn address(&self, container: &str) -> (IpAddr, Option<IpAddr>) {
        let format =
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        let addresses = self.docker(&["inspect", "--format", format, container]);
        let mut addresses = addresses.split(' ').map(str::parse);
        let v4 = addresses.next().and_then(Result::ok).expect("an address");
        (v4, addresses.next().and_then(Result::ok))
    }

    fn reaches(&self, container: &str, kind: Kind, to: &str, milliseconds: u32) -> bool {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container]);
        let milliseconds = milliseconds.to_string();
        let ask = ["/responder", kind.word(), to, &milliseconds];
        let enter = ["--target", &pid, "--mount", "--net"];
        self.run_inside("nsenter", &[&enter[..], &ask].concat()).status.success()
    }

    fn set_up(&self) {
        let bridge = "com.docker.network.bridge.name=br-backend";
        let network = ["network", "create", "--subnet", "172.18.0.0/16", "--opt", bridge];
        self.docker(&[&network[..], &["backend"]].concat());
        self.run_web();
        let published = ["--publish", "4443:8443", "--publish", "9443:8443"];
        let options = [&["--network", "backend"][..], &published].concat();
        self.run("two", &options, &["8443", "9100"]);
        self.run_image(CHECKED, "three", &["--network", "backend"], &["8443"]);
    }

    fn restart(&self) {
        self.stop_daemon();
        self.start_daemon();
    }

    fn move_web(&self) {
        let before = self.address("web");
        self.docker(&["rm", "--force", "web"]);
        self.run("squatter", &[], &["8080"]);
        self.run_web();
        assert_ne!(before, self.address("web"));
        self.docker(&["rm", "--force", "squatter"]);
    }

    fn add_network(&self) {
        let bridge = "com.docker.network.bridge.name=br-other";
        self.docker(&["network", "create", "--opt", bridge, "other"]);
        self.run("four", &["--network", "other", "--publish", "9444:8443"], &["8443"]);
    }

    fn remove_network(&self) {
        self.docker(&["rm", "--force", "four"]);
        self.docker(&["network", "rm", "other"]);
    }

    fn rules(&self) -> String {
        ["iptables", "ip6tables"]
            .map(|family| {
                let saved = self.run_inside(&format!("{family}-save"), &[]);
                assert!(saved.status.success(), "{saved:?}");
                String::from_utf8_lossy(&saved.stdout).into_owned()
            })
            .concat()
    }

    fn check_health(&self) {
        poll("a health check that passes", || {
            self.docker(&["inspect", "--format", "{{.State.Health.Status}}", "three"]) == "healthy"
        });
    }
}

impl Engine<'_> {
    fn run_web(&self) {
        let published = ["80:8080", "443:8443", "443:8444/udp", "9000:9000", "9000:9000/udp"];
        let options: Vec<_> = published.iter().flat_map(|port| ["--publish", port]).collect();
        self.run("web", &options, &["8080", "8443", "8444", "9000", "9100"]);
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        // The first process of the namespace ends, and with it all other processes.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        if let Some(mut daemon) = self.daemon.lock().ok().and_then(|mut daemon| daemon.take()) {
            let _ = daemon.wait();
        }
        for folder in docker::cgroups(&self.cgroup) {
            remove_cgroups(&folder);
        }
    }
}

/// Removes control groups. The kernel frees a group a moment after its last process. A group that
/// stays disturbs only the test that checks for remains.
fn remove_cgroups(folder: &Path) {
    let inner = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroups(&entry.path());
    }
    for _ in 0..100 {
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
