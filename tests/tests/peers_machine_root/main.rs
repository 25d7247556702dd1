//! nfguard under a real systemd, from enabling to power-off and over the next boots.

mod machine;

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use machine::{Disk, Machine};
use nfguard_lab::{Probe, World};
use nfguard_tests::policies::{BROKEN, GOOD, OTHER};
use nfguard_tests::program::nfguard_fed;
use serde_json::Value;

const NFGUARD: &str = "/opt/nfguard";
const POLICY: &str = "/etc/nfguard/policy.json";

fn is_loaded(machine: &Machine, rule: &str) -> bool {
    machine.run(&[NFGUARD, "show"]).stdout.contains(&format!("\"{rule}\""))
}

#[test]
fn a_machine_keeps_policy_and_bans_from_boot_to_boot() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let machine = Machine::boot(&disk);
    assert_eq!(machine.run(&[NFGUARD, "show"]).status, Some(1), "nothing is enabled");
    // The commands of the README.
    let units = ["nfguard.service", "nfguard-bans.service", "nfguard-save.timer"];
    machine.succeed(&[&["systemctl", "enable", "--now"], &units[..]].concat());
    assert!(is_loaded(&machine, "web"), "{}", machine.journal());
    machine.succeed(&[NFGUARD, "ban", "203.0.113.66", "--for", "1h", "--reason", "for the boot"]);
    machine.succeed(&["systemctl", "stop", "nfguard.service"]);
    assert!(is_loaded(&machine, "web"), "stopping removes no rule");
    machine.succeed(&["systemctl", "start", "nfguard-save.service"]);
    assert!(disk.path("var/lib/nfguard/bans").is_file(), "{}", machine.journal());
    fs::remove_file(disk.path("var/lib/nfguard/bans")).expect("it is there");
    // Bans that take longer to save and to restore than the units have time.
    let count = 60_000;
    let list: String = (0..count).map(|at| format!("10.{}.{}.1\n", at / 250, at % 250)).collect();
    let banned = nfguard_fed(&machine.world.host, &["ban", "-", "--for", "1h", "--force"], &list);
    assert_eq!(banned.status, Some(0), "{banned:?}");
    for unit in units.into_iter().take(2) {
        let folder = disk.path(&format!("etc/systemd/system/{unit}.d"));
        fs::create_dir_all(&folder).expect("ours");
        fs::write(folder.join("time.conf"), "[Service]\nTimeoutSec=1\n").expect("ours");
    }
    machine.succeed(&["systemctl", "daemon-reload"]);
    machine.power_off();
    assert!(disk.path("var/lib/nfguard/bans").is_file(), "going down saves the bans");

    let machine = Machine::boot(&disk);
    assert!(is_loaded(&machine, "web"), "{}", machine.journal());
    let held = machine.succeed(&[NFGUARD, "bans", "--count"]);
    assert_eq!(held.trim(), (count + 1).to_string(), "{}", machine.journal());
    let bans = machine.succeed(&[NFGUARD, "bans"]);
    assert!(bans.contains("203.0.113.66") && bans.contains("for the boot"), "{bans}");
    let at = |unit: &str, what: &str| -> u64 {
        machine.property(unit, what).parse().unwrap_or_else(|_| panic!("{}", machine.journal()))
    };
    let done = at("nfguard.service", "ActiveEnterTimestampMonotonic");
    let network = at("network-pre.target", "ActiveEnterTimestampMonotonic");
    assert!(0 < done && done <= network, "policy {done}, network {network}");
    machine.power_off();

    disk.policy(BROKEN);
    let machine = Machine::boot(&disk);
    assert!(is_loaded(&machine, "web"), "{}", machine.journal());
    assert_eq!(machine.property("nfguard.service", "Result"), "exit-code");
    let journal = machine.succeed(&["journalctl", "--no-pager", "--unit", "nfguard.service"]);
    for said in ["found \"alow\"; expected \"allow\"", "policy.json:1:", "Failed to start"] {
        assert!(journal.contains(said), "{said}: {journal}");
    }
    assert!(machine.succeed(&[NFGUARD, "bans"]).contains("203.0.113.66"));
    assert_ne!(machine.property("network.target", "ActiveEnterTimestampMonotonic"), "0");
    machine.power_off();
}

/// Returns the unit of the watchdog, or `None`.
fn watchdog_unit(machine: &Machine) -> Option<String> {
    let units =
        machine.succeed(&["systemctl", "list-units", "--plain", "--no-legend", "--no-pager"]);
    let mut names = units.lines().filter_map(|line| line.split(' ').next());
    names.find(|name| name.starts_with("nfguard-watchdog-")).map(str::to_owned)
}

#[test]
fn the_watchdog_is_a_unit_that_outlives_the_session() {
    let disk = Disk::new();
    disk.policy(GOOD);
    fs::write(disk.path("etc/nfguard/other.json"), OTHER).expect("written");
    let machine = Machine::boot(&disk);
    machine.succeed(&[NFGUARD, "load", POLICY]);

    let load = format!("{NFGUARD} load /etc/nfguard/other.json --confirm 10s; sleep 1000");
    machine.succeed(&["systemd-run", "--unit=session", "sh", "-c", &load]);
    machine.wait_until("the load", |machine| is_loaded(machine, "other"));
    let unit = watchdog_unit(&machine).expect("the watchdog is a unit");
    machine.succeed(&["systemctl", "kill", "--signal=KILL", "session.service"]);
    machine.wait_until("the end of the session", |machine| {
        machine.property("session.service", "ActiveState") != "active"
    });
    assert_eq!(machine.property(&unit, "ActiveState"), "active");
    machine.wait_until("the rollback", |machine| is_loaded(machine, "web"));
    assert!(!is_loaded(&machine, "other"));
    machine.wait_until("the unit's end", |machine| watchdog_unit(machine).is_none());
    let history = machine.succeed(&[NFGUARD, "history"]);
    assert!(history.contains("other.json, rolled back"), "{history}");

    machine.succeed(&[NFGUARD, "load", "/etc/nfguard/other.json", "--confirm", "2s"]);
    let unit = watchdog_unit(&machine).expect("the watchdog is a unit");
    machine.succeed(&[NFGUARD, "confirm"]);
    machine.wait_until("the unit's end", |machine| watchdog_unit(machine).is_none());
    // Longer than the time to confirm.
    thread::sleep(Duration::from_secs(3));
    assert!(is_loaded(&machine, "other"), "{unit}");
    machine.power_off();
}

const GUARD: &str = "nfguard-guard.service";

#[test]
fn the_guard_service_restarts_and_writes_to_the_journal() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let machine = Machine::boot(&disk);
    machine.succeed(&[NFGUARD, "load", POLICY]);
    // `enable --now` waits until the guard reports that it is ready.
    machine.succeed(&["systemctl", "enable", "--now", GUARD]);
    let survives = |when: &str| {
        machine.succeed(&["nft", "flush", "ruleset"]);
        assert!(is_loaded(&machine, "web"), "{when}: {}", machine.journal());
    };
    survives("started");
    machine.succeed(&[NFGUARD, "ban", "203.0.113.66", "--for", "1h"]);
    machine.succeed(&["nft", "flush", "ruleset"]);
    machine.wait_until("the ban is back", |machine| {
        machine.run(&[NFGUARD, "bans"]).stdout.contains("203.0.113.66")
    });
    machine.wait_until("the journal's entry", |machine| {
        let entries = machine.succeed(&["journalctl", "--unit", GUARD, "--output=json"]);
        let entries = entries.lines().map(serde_json::from_str::<Value>);
        entries.flatten().any(|entry| entry["MICROSECONDS"].is_string())
    });

    machine.succeed(&["systemctl", "restart", GUARD]);
    survives("restarted");
    let first = machine.property(GUARD, "MainPID");
    machine.succeed(&["systemctl", "kill", "--signal=KILL", GUARD]);
    machine.wait_until("another guard", |machine| {
        let now = machine.property(GUARD, "MainPID");
        now != first && now != "0" && machine.property(GUARD, "ActiveState") == "active"
    });
    survives("killed");
    machine.succeed(&["systemctl", "stop", GUARD]);
    assert!(is_loaded(&machine, "web"), "stopping leaves the rules");
    machine.power_off();

    let machine = Machine::boot(&disk);
    assert_eq!(machine.property(GUARD, "ActiveState"), "active");
    assert!(is_loaded(&machine, "web"), "what was loaded last: {}", machine.journal());
    machine.power_off();
}

const LOG: &str = "nfguard-log.service";

#[test]
fn the_log_service_records_scans_where_the_policy_logs_to_a_group() {
    let disk = Disk::new();
    disk.policy(GOOD);
    let machine = Machine::boot(&disk);
    machine.succeed(&[NFGUARD, "load", POLICY]);
    machine.run(&["systemctl", "enable", "--now", LOG]);
    let says = |machine: &Machine, what: &str| {
        machine.succeed(&["journalctl", "--no-pager", "--unit", LOG]).contains(what)
    };
    machine.wait_until("it fails", |machine| machine.property(LOG, "ActiveState") == "failed");
    assert!(says(&machine, "the loaded policy logs to no group"), "{}", machine.journal());

    let log = r#""log": { "to": { "group": 5 }, "rate": "unlimited", "unmatched": ["in"] }"#;
    disk.policy(&GOOD.replacen("\"version\": 1,", &format!("\"version\": 1, {log},"), 1));
    machine.succeed(&[NFGUARD, "load", POLICY]);
    machine.succeed(&["systemctl", "restart", LOG]);
    machine.wait_until("the service reads the group", |machine| {
        says(machine, "reading NFLOG group 5")
    });
    let source: IpAddr = "203.0.113.66".parse().expect("an address");
    let knock = Probe::tcp(&machine.world.internet, (World::HOST_V4, 8443)).from(source);
    assert!(!knock.timeout(Duration::from_secs(1)).run().passed());
    machine.succeed(&["systemctl", "stop", LOG]);
    assert!(machine.succeed(&[NFGUARD, "scans", "203.0.113.66"]).contains("8443"));
    assert!(!says(&machine, "203.0.113.66"), "no line for each packet");
    machine.power_off();
}
