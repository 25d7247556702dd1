//! A machine that boots: a real systemd, first of the processes of namespaces of its own.
//!
//! Its root is made for each boot, of this machine's programs, which it cannot write to, and of
//! a disk that outlasts it. Of systemd's own units only the journal is there: others would set what
//! all namespaces share. It ends with its value, and with the test, even one that is killed: the
//! shell that started it reads from a pipe that the test holds.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::World;
use nfguard_tests::program::{self, Answer};
use nfguard_tests::wait::TIMEOUT;
use tempfile::TempDir;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
const VENDOR: &str = "/usr/lib/systemd/system";

/// Starts the machine, and waits for the end of the machine or of the test.
const STARTER: &str = r#"
exec 3<&0
for group in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
    [ -e $group/cgroup.procs ] && break
done
group=$group/$3
mkdir $group
sh -c 'echo $$ > $0/cgroup.procs; shift; exec "$@" < /dev/null' $group - unshare \
    --cgroup --fork --pid --kill-child --mount --uts --ipc -- sh -c "$4" - "$1" "$2" &
machine=$!
echo $machine
{ cat <&3 > /dev/null; kill -KILL $machine 2> /dev/null; } &
wait $machine
kill $! 2> /dev/null
# Until its last process is gone.
for try in $(seq 100); do
    find $group -depth -type d -exec rmdir {} \; 2> /dev/null
    [ -d $group ] || exit 0
    sleep 0.1
done
exit 1
"#;

/// Builds the root and starts systemd in it.
const BOOT: &str = r#"
set -e
version=$(stat -f -c %T /sys/fs/cgroup)
mount -t tmpfs -o mode=755 machine "$1"
cd "$1"
mkdir proc sys dev run tmp usr etc var opt root old
for name in bin sbin lib lib64; do
    if [ -L /$name ]; then
        ln -s usr/$name $name
    else
        mkdir $name
        mount --bind /$name $name
        mount -o remount,bind,ro $name
    fi
done
mount --bind /usr usr
mount -o remount,bind,ro usr
for name in etc var opt; do mount --bind "$2/$name" $name; done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
if [ "$version" = cgroup2fs ]; then
    mount -t cgroup2 cgroup sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 dev dev
for name in null zero full random urandom tty; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for name in run tmp dev/shm; do mount -t tmpfs tmpfs $name; done
pivot_root . old
umount -l old
hostname machine
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal --show-status=no
"#;

/// The files that outlast a boot.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Makes a disk with the program and its units installed and nothing enabled.
    pub(crate) fn new() -> Disk {
        let disk = Disk(tempfile::tempdir().expect("a folder"));
        for folder in ["root", "etc/systemd/system", "etc/nfguard", "var/lib", "var/log", "opt"] {
            fs::create_dir_all(disk.path(folder)).expect("a folder");
        }
        for name in ["passwd", "group", "ld.so.cache"] {
            fs::copy(Path::new("/etc").join(name), disk.path("etc").join(name)).expect("copied");
        }
        fs::write(disk.path("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").expect("ours");
        fs::copy(program::path(), disk.path("opt/nfguard")).expect("it was built");
        for unit in files(Path::new(UNITS)) {
            let text = fs::read_to_string(&unit).expect("a text");
            let text = text.replace("/usr/bin/nfguard", "/opt/nfguard");
            fs::write(disk.unit(name(&unit)), text).expect("written");
        }
        for target in ["sysinit", "local-fs", "sockets", "timers", "multi-user"] {
            for unit in files(&Path::new(VENDOR).join(format!("{target}.target.wants"))) {
                if !name(&unit).starts_with("systemd-journald") && !disk.unit(name(&unit)).exists()
                {
                    symlink("/dev/null", disk.unit(name(&unit))).expect("a link");
                }
            }
        }
        let target = "[Unit]\nRequires=multi-user.target\nWants=network.target\n\
                      After=multi-user.target network.target\nAllowIsolate=yes\n";
        fs::write(disk.unit("default.target"), target).expect("written");
        disk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.path("etc/systemd/system").join(name)
    }

    pub(crate) fn policy(&self, text: &str) {
        fs::write(self.path("etc/nfguard/policy.json"), text).expect("written");
    }
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// A running machine.
pub(crate) struct Machine {
    pub(crate) world: World,
    starter: Child,
    /// The parent of the processes of the machine.
    outside: String,
}

impl Machine {
    /// Boots a machine as the host of a new world, and waits for the end of the boot.
    pub(crate) fn boot(disk: &Disk) -> Machine {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = format!("nfguard-machine-{}-{number}", std::process::id());
        let world = World::new()
            .unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"));
        let mut command = Command::new("sh");
        command.args(["-c", STARTER, "-"]).arg(disk.path("root")).arg(disk.path("")).arg(group);
        command.arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut starter = world.host.run(|| command.spawn().expect("sh starts"));
        let outside = first_line(&mut starter);
        let machine = Machine { world, starter, outside };
        machine.wait_until("the end of the boot", |machine| {
            let state = machine.run(&["systemctl", "is-system-running"]).stdout;
            ["running", "degraded"].contains(&state.trim())
        });
        machine
    }

    /// Runs a program on the machine.
    pub(crate) fn run(&self, command: &[&str]) -> Answer {
        let output: Output = self.world.host.run(|| {
            let mut nsenter = Command::new("nsenter");
            let namespaces = format!("/proc/{}/ns", self.outside);
            nsenter.arg(format!("--mount={namespaces}/mnt")).arg(format!("--uts={namespaces}/uts"));
            nsenter.arg(format!("--pid={namespaces}/pid_for_children"));
            nsenter.arg("--").args(command).stdin(Stdio::null());
            nsenter
                .env_remove("SSH_CONNECTION")
                .env_remove("NFGUARD_RUN_DIR")
                .output()
                .expect("nsenter starts")
        });
        output.into()
    }

    #[track_caller]
    pub(crate) fn succeed(&self, command: &[&str]) -> String {
        let answer = self.run(command);
        assert_eq!(answer.status, Some(0), "{command:?}: {answer:?}\n{}", self.journal());
        answer.stdout
    }

    pub(crate) fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=short-monotonic"]).stdout
    }

    /// Returns a property of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        let value = self.succeed(&["systemctl", "show", "--value", "--property", name, unit]);
        value.trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Machine) -> bool) {
        let since = Instant::now();
        while !is_so(self) {
            assert!(since.elapsed() < TIMEOUT, "{what}: not so\n{}", self.journal());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Shuts the machine down.
    pub(crate) fn power_off(mut self) {
        // The machine may end before the command returns.
        self.run(&["systemctl", "poweroff"]);
        let since = Instant::now();
        while self.starter.try_wait().expect("it is ours").is_none() {
            assert!(since.elapsed() < TIMEOUT, "it does not end\n{}", self.journal());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.starter.stdin.take());
        let _ = self.starter.wait();
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let words = child.stdout.take().expect("a pipe");
    BufReader::new(words).read_line(&mut line).expect("the pipe is read");
    assert!(line.ends_with('\n'), "it does not start");
    line.trim().to_owned()
}
