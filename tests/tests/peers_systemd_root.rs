//! The units: systemd checks them, and their commands run under the sandbox of the units.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfguard_lab::Netns;
use nfguard_tests::guard::GuardClient;
use nfguard_tests::program::{self, Answer};
use nfguard_tests::wait::TIMEOUT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
const SERVICES: [&str; 5] = [
    "nfguard.service",
    "nfguard-bans.service",
    "nfguard-save.service",
    "nfguard-log.service",
    GUARD,
];
const GUARD: &str = "nfguard-guard.service";

/// The highest exposure that `systemd-analyze security` may report, in tenths. 0 is safe, 100 is
/// unsafe.
const EXPOSURE: u32 = 14;
/// The same for the guard, which needs more until it has entered its sandbox.
const GUARD_EXPOSURE: u32 = 16;

/// Enables the units in a folder of their own, with the program at its present path.
fn enabled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    // Units that systemd explains.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let program = folder.path().join("nfguard");
    fs::copy(program::path(), &program).expect("built");
    let program = program.to_str().expect("a path");
    for unit in fs::read_dir(UNITS).expect("the units") {
        let unit = unit.expect("a unit").path();
        let text = fs::read_to_string(&unit).expect("a text");
        let name = unit.file_name().expect("a name");
        fs::write(folder.path().join(name), text.replace("/usr/bin/nfguard", program))
            .expect("written");
        for line in text.lines().filter_map(|line| line.strip_prefix("WantedBy=")) {
            let wants = folder.path().join(format!("{line}.wants"));
            fs::create_dir_all(&wants).expect("a folder");
            symlink(Path::new("..").join(name), wants.join(name)).expect("a link");
        }
    }
    folder
}

/// Returns the complaints of `systemd-analyze verify`.
fn verify(folder: &Path) -> String {
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "sysinit.target", "timers.target", "network.target"])
        .args(SERVICES);
    // An empty entry at the end adds the default folders of systemd.
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()));
    let output = verify.output().expect("systemd is installed");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // Units of other packages have faults of their own.
    said.lines().filter(|line| line.contains("nfguard")).collect::<Vec<_>>().join("\n")
}

#[test]
fn systemd_accepts_the_units() {
    let folder = enabled();
    assert_eq!(verify(folder.path()), "");
    let path = folder.path().join("nfguard.service");
    let text = fs::read_to_string(&path).expect("a text");
    for (right, wrong, complaint) in [
        ("ProtectClock=", "ProtectClok=", "ProtectClok"),
        ("ExecStart=/", "ExecStart=/no/", "not executable"),
        // A unit before the network cannot wait for the network.
        ("After=local-fs.target", "After=network.target local-fs.target", "Found dependency on"),
    ] {
        fs::write(&path, text.replace(right, wrong)).expect("written");
        let said = verify(folder.path());
        assert!(said.contains(complaint), "{wrong}: {said}");
    }
}

/// The order of units in a boot, by unit and word: the units before and after.
type Places = BTreeMap<(String, String), BTreeSet<String>>;

/// Lets systemd compute a boot without running it.
fn a_boot(folder: &Path) -> Places {
    let mut systemd = Command::new("setpriv");
    // systemd does not do this as root.
    systemd.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    systemd.args(["/lib/systemd/systemd", "--test", "--system", "--unit", "network.target"]);
    systemd.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display())).current_dir("/");
    systemd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut systemd = systemd.spawn().expect("util-linux is installed");
    let (mut places, mut unit) = (Places::new(), String::new());
    for line in BufReader::new(systemd.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        let line = line.trim_start();
        if line.starts_with("-> By jobs") {
            break;
        }
        if let Some(name) = line.strip_prefix("-> Unit ") {
            unit = name.trim_end_matches(':').to_owned();
        } else if let Some((word, rest)) = line.split_once(": ") {
            let other = rest.split(' ').next().unwrap_or_default();
            places.entry((unit.clone(), word.to_owned())).or_default().insert(other.to_owned());
        }
    }
    // systemd has printed everything. Without a service manager it does not always end.
    systemd.kill().expect("it is ours");
    systemd.wait().expect("it ends");
    places
}

#[test]
fn policy_and_bans_come_before_the_network_and_wait_for_nothing_that_needs_it() {
    let folder = enabled();
    let places = a_boot(folder.path());
    let of = |unit: &str, word: &str| {
        places.get(&(unit.to_owned(), word.to_owned())).cloned().unwrap_or_default()
    };
    let has = |unit: &str, word: &str, other: &str| of(unit, word).contains(other);
    assert!(has("network-pre.target", "After", "nfguard.service"), "{:?}", places.keys());
    assert!(has("network-pre.target", "Before", "network.target"));
    assert!(has("sysinit.target", "Wants", "nfguard.service"));
    assert!(has("nfguard.service", "After", "local-fs.target"));
    // nftables.service would flush rules that were loaded before.
    assert!(has("nfguard.service", "After", "nftables.service"));
    assert!(has("nfguard-bans.service", "After", "nfguard.service"));
    for unit in ["nfguard.service", "nfguard-bans.service"] {
        assert!(has(unit, "Before", "network-pre.target"));
        // The unit stops, and saves the bans, before its folder is unmounted.
        assert!(
            has(unit, "Before", "shutdown.target") && has(unit, "Conflicts", "shutdown.target")
        );
        assert!(has(unit, "RequiresMountsFor", "/var/lib/nfguard"));
        let waits_for = of(unit, "After");
        let late = ["network", "docker", "nss-", "sysinit", "basic", "dbus", "resolved", "device"];
        let early = |it: &&String| !late.iter().any(|word| it.contains(word));
        let found: Vec<_> = waits_for.iter().filter(|it| !early(it)).collect();
        assert!(found.is_empty(), "{unit} waits for {found:?}");
        let needs: BTreeSet<_> = &of(unit, "Requires") | &of(unit, "BindsTo");
        let own = ["system.slice", "-.mount"].map(str::to_owned).into();
        assert!(needs.is_subset(&own), "{unit} needs {needs:?}");
    }
}

#[test]
fn stopping_removes_no_rule() {
    for unit in SERVICES {
        let text = fs::read_to_string(Path::new(UNITS).join(unit)).expect("a unit");
        let stops: Vec<_> = text.lines().filter(|line| line.starts_with("ExecStop")).collect();
        let saves = ["ExecStop=/usr/bin/nfguard save /var/lib/nfguard/bans"];
        assert_eq!(stops, if unit == "nfguard-bans.service" { &saves[..] } else { &[] });
    }
}

#[test]
fn the_services_are_sandboxed() {
    for unit in SERVICES {
        let exposure = if unit == GUARD { GUARD_EXPOSURE } else { EXPOSURE };
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        security.arg(format!("--threshold={exposure}")).arg(Path::new(UNITS).join(unit));
        let output = security.output().expect("systemd is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{unit}:\n{said}");
        assert!(said.contains("Overall exposure level"), "{said}");
    }
    // Without its sandbox, the guard reports it.
    let bare = tempfile::tempdir().expect("a folder");
    let path = bare.path().join("bare.service");
    fs::write(&path, "[Service]\nExecStart=/usr/bin/nfguard boot\n").expect("written");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]);
    security.arg(format!("--threshold={GUARD_EXPOSURE}")).arg(path).stdout(Stdio::null());
    assert!(!security.status().expect("systemd is installed").success());
}

/// Returns the values of a setting of a unit.
fn setting(unit: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(UNITS).join(unit)).expect("a unit");
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

/// Returns the system calls that a unit allows.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in setting(unit, "SystemCallFilter") {
        let (not, groups) = line.strip_prefix('~').map_or((false, line.as_str()), |it| (true, it));
        for call in groups.split(' ').flat_map(calls_of) {
            if not {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");
    allowed
}

/// Returns the system calls of a group, or the single call of this name.
fn calls_of(group: &str) -> Vec<String> {
    if !group.starts_with('@') {
        return vec![group.to_owned()];
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--", group]).output();
    let text = String::from_utf8(output.expect("systemd is installed").stdout).expect("text");
    let lines = text.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).flat_map(calls_of).collect()
}

/// Returns the commands of the units, in the order of a boot and a shutdown.
fn commands() -> Vec<(&'static str, Vec<String>)> {
    let mut all = Vec::new();
    for (unit, word) in [
        ("nfguard.service", "ExecStart"),
        ("nfguard-bans.service", "ExecStart"),
        ("nfguard-save.service", "ExecStart"),
        ("nfguard.service", "ExecReload"),
        ("nfguard-bans.service", "ExecStop"),
    ] {
        let command = setting(unit, word).pop().expect("a command");
        let arguments = command.strip_prefix("/usr/bin/nfguard ").expect("our program");
        all.push((unit, arguments.split(' ').map(str::to_owned).collect()));
    }
    all
}

/// Makes the folders of the units: a policy, a state folder, and a folder for sockets.
fn folders() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/traefik.json");
    fs::copy(policy, folder.path().join("policy.json")).expect("a policy");
    for name in ["state", "run"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    folder
}

/// Returns the command of a unit under strace, with its one capability and a read-only disk except
/// for its own folders.
fn sandboxed(unit: &str, folder: &Path, arguments: &[String]) -> Command {
    let script = r#"set -e
        mount --make-rprivate /
        mount --bind "$FOLDER" "$FOLDER"
        mount -t tmpfs tmpfs /run
        for place in $RUN; do
            mkdir "/run/$place"
            mount --bind "$FOLDER/run" "/run/$place"
        done
        mount -o remount,ro /run
        mount -o remount,bind,ro /
        exec nice -n -10 strace -D -f -q -o "$FOLDER/trace" setpriv --no-new-privs \
            --inh-caps=-all,+net_admin --bounding-set=-all,+net_admin -- "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(program::path());
    command.arg("--state-dir").arg(folder.join("state")).args(arguments);
    command.env("FOLDER", folder).env("RUN", setting(unit, "RuntimeDirectory").concat());
    command.env_remove("NFGUARD_RUN_DIR");
    command.stdin(Stdio::null());
    command
}

/// Asserts that a traced command needs no more than its unit allows.
fn assert_allowed(unit: &str, folder: &Path) {
    let trace = fs::read_to_string(folder.join("trace")).expect("strace is installed");
    let calls: Vec<(&str, &str)> = after_start(&trace).filter_map(call).collect();
    assert!(calls.len() > 50, "{trace}");
    let allowed = allowed_calls(unit);
    for (name, rest) in calls {
        assert!(allowed.contains(name), "{unit} does not allow {name}");
        let families = setting(unit, "RestrictAddressFamilies").concat();
        let family = rest.split(',').next().unwrap_or_default();
        assert!(name != "socket" || families.split(' ').any(|it| it == family), "{rest}");
    }
}

#[test]
fn the_commands_of_the_units_need_no_more_than_the_units_allow() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let folder = folders();
    let place = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let other = Netns::new().expect("run me with `cargo xtask netns-test`");
    for command in [&["ban", "203.0.113.66", "--for", "1h"][..], &["save", &place("state/bans")]] {
        assert_eq!(program::nfguard(&other, command).status, Some(0));
    }
    for (unit, arguments) in commands() {
        let mut arguments: Vec<String> = arguments
            .iter()
            .map(|argument| match argument.as_str() {
                "/etc/nfguard/policy.json" => place("policy.json"),
                "/var/lib/nfguard/bans" => place("state/bans"),
                other => other.to_owned(),
            })
            .collect();
        if arguments == ["boot"] {
            arguments.push(place("policy.json"));
        }
        let mut command = sandboxed(unit, folder.path(), &arguments);
        let output = netns.run(|| command.output()).expect("util-linux is installed");
        assert!(output.status.success(), "{unit}: {arguments:?}: {output:?}");
        assert_allowed(unit, folder.path());
    }
    let bans = program::nfguard(&netns, &["bans"]);
    assert!(bans.stdout.contains("203.0.113.66"), "{bans:?}");
    let status = program::nfguard(&netns, &["status"]);
    assert_eq!(status.status, Some(0), "{status:?}");
}

/// Starts the guard as its unit does, and waits until it reports that it is ready.
fn ready_guard(netns: &Netns, folder: &Path) -> Child {
    let words = setting(GUARD, "ExecStart").concat();
    let arguments = words.strip_prefix("/usr/bin/nfguard ").expect("our program");
    let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let systemd = folder.join("systemd");
    let _ = fs::remove_file(&systemd);
    let waiting = UnixDatagram::bind(&systemd).expect("a socket");
    waiting.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut command = sandboxed(GUARD, folder, &arguments);
    command.env("NOTIFY_SOCKET", &systemd);
    let guard = netns.run(|| command.spawn()).expect("util-linux is installed");
    let mut said = [0; 64];
    loop {
        let len = waiting.recv(&mut said).expect("it tells systemd");
        let said = String::from_utf8_lossy(&said[..len]);
        if said == "READY=1\n" {
            break;
        }
        assert!(said.starts_with("EXTEND_TIMEOUT_USEC="), "{said}");
    }
    guard
}

#[test]
fn the_guard_needs_no_more_than_its_unit_allows_and_a_restart_of_it_removes_nothing() {
    let netns = Netns::new().expect("run me with `cargo xtask netns-test`");
    let folder = folders();
    let policy = folder.path().join("policy.json");
    let load = ["load", policy.to_str().expect("a path")];
    let done = |arguments: &[&str]| {
        let mut command = program::command(arguments);
        // There the guard has its `/run/nfguard`.
        command.env("NFGUARD_RUN_DIR", folder.path().join("run"));
        let answer: Answer = netns.run(|| command.output().expect("nfguard starts").into());
        assert_eq!(answer.status, Some(0), "{arguments:?}: {answer:?}");
        answer.stdout
    };
    let rescue = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/rescue.json");
    done(&load);
    done(&["ban", "203.0.113.66"]);
    let held = || done(&["show"]) + &done(&["bans", "--json"]);
    for _ in ["start", "restart"] {
        let mut guard = ready_guard(&netns, folder.path());
        let socket: PathBuf = folder.path().join("run/guard.sock");
        let mut client = GuardClient::new(UnixStream::connect(socket).expect("it listens"));
        let status = client.request(r#"{"op":"status"}"#);
        assert!(status.contains(r#""file":"policy.json""#), "{status}");
        for line in [r#"{"op":"ban","target":"203.0.113.67"}"#, r#"{"op":"bans"}"#] {
            let answer = client.request(line);
            assert!(answer.contains(r#""ok":true"#), "{line}: {answer}");
        }
        done(&["unban", "203.0.113.67"]);
        done(&["load", rescue]);
        done(&load);
        let before = held();
        // The signal with which systemd stops the guard.
        let process = Pid::from_raw(guard.id().cast_signed());
        kill(process, Signal::SIGTERM).expect("it is there");
        guard.wait().expect("it ends");
        assert!(held() == before, "{before}\nbecame {}", held());
        let since = Instant::now();
        let ended = || fs::read_to_string(folder.path().join("trace")).expect("a trace");
        while !ended().contains("+++ killed by SIGTERM") {
            assert!(since.elapsed() < TIMEOUT, "{}", ended());
            thread::sleep(Duration::from_millis(10));
        }
        assert_allowed(GUARD, folder.path());
    }
}

/// Returns the lines of a trace after the start of the program.
fn after_start(trace: &str) -> impl Iterator<Item = &str> {
    let started = format!("execve(\"{}\"", program::path().display());
    let lines: Vec<&str> = trace.lines().collect();
    let start = lines.iter().position(|line| line.contains(&started)).expect("it was started");
    lines.into_iter().skip(start + 1)
}

/// Splits `123 socket(AF_NETLINK, …` into name and arguments.
fn call(line: &str) -> Option<(&str, &str)> {
    let (_, line) = line.split_once(' ')?;
    line.trim_start().split_once('(').filter(|(name, _)| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty()
    })
}
