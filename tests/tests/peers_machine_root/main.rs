//! nfguard under a real systemd, from enabling to power-off and over the next boots.

mod machine;

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use machine::{Disk, Machine};
use nfguard_lab::{Probe, World};
use nfguard_tests::policies::{BROKEN, GOOD, OTHER};
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
    // As the README has it.
    let units = ["nfguard.service", "nfguard-bans.service", "nfguard-save.timer"];
    machine.done(&[&["systemctl", "enable", "--now"], &units[..]].concat());
    assert!(is_loaded(&machine, "web"), "{}", machine.journal());
    machine.done(&[NFGUARD, "ban", "203.0.113.66", "--for", "1h", "--reason", "for the boot"]);
    machine.done(&["systemctl", "stop", "nfguard.service"]);
    assert!(is_loaded(&machine, "web"), "stopping removes no rule");
    machine.done(&["systemctl", "start", "nfguard-save.service"]);
    assert!(disk.path("var/lib/nfguard/bans").is_file(), "{}", machine.journal());
    fs::remove_file(disk.path("var/lib/nfguard/bans")).expect("it is there");
    machine.power_off();
    assert!(disk.path("var/lib/nfguard/bans").is_file(), "going down saves the bans");

    let machine = Machine::boot(&disk);
    assert!(is_loaded(&machine, "web"), "{}", machine.journal());
    let bans = machine.done(&[NFGUARD, "bans"]);
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
    let journal = machine.done(&["journalctl", "--no-pager", "--unit", "nfguard.service"]);
    for said in ["found \"alow\"; expected \"allow\"", "policy.json:1:", "Failed to start"] {
        assert!(journal.contains(said), "{said}: {journal}");
    }
    assert!(machine.done(&[NFGUARD, "bans"]).contains("203.0.113.66"));
    assert_ne!(machine.property("network.target", "ActiveEnterTimestampMonotonic"), "0");
    machine.power_off();
}

/// The unit of the way back, if there is one.
fn way_back(machine: &Machine) -> Option<String> {
    let units = machine.done(&["systemctl", "list-units", "--plain", "--no-legend", "--no-pager"]);
    let mut names = units.lines().filter_map(|line| line.split(' ').next());
    names.find(|name| name.starts_with("nfguard-watchdog-")).map(str::to_owned)
}

#[test]
fn the_watchdog_is_a_unit_that_outlives_the_session() {
    let disk = Disk::new();
    disk.policy(GOOD);
    fs::write(disk.path("etc/nfguard/other.json"), OTHER).expect("written");
    let machine = Machine::boot(&disk);
    machine.done(&[NFGUARD, "load", POLICY]);

    let load = format!("{NFGUARD} load /etc/nfguard/other.json --confirm 10s; sleep 1000");
    machine.done(&["systemd-run", "--unit=session", "sh", "-c", &load]);
    machine.until("the load", |machine| is_loaded(machine, "other"));
    let unit = way_back(&machine).expect("the way back is a unit");
    machine.done(&["systemctl", "kill", "--signal=KILL", "session.service"]);
    machine.until("the end of the session", |machine| {
        machine.property("session.service", "ActiveState") != "active"
    });
    assert_eq!(machine.property(&unit, "ActiveState"), "active");
    machine.until("the way back", |machine| is_loaded(machine, "web"));
    assert!(!is_loaded(&machine, "other"));
    machine.until("the unit's end", |machine| way_back(machine).is_none());
    let history = machine.done(&[NFGUARD, "history"]);
    assert!(history.contains("other.json, rolled back"), "{history}");

    machine.done(&[NFGUARD, "load", "/etc/nfguard/other.json", "--confirm", "2s"]);
    let unit = way_back(&machine).expect("the way back is a unit");
    machine.done(&[NFGUARD, "confirm"]);
    machine.until("the unit's end", |machine| way_back(machine).is_none());
    // Longer than it would have waited.
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
    machine.done(&[NFGUARD, "load", POLICY]);
    // Until it says that it is ready.
    machine.done(&["systemctl", "enable", "--now", GUARD]);
    let survives = |when: &str| {
        machine.done(&["nft", "flush", "ruleset"]);
        assert!(is_loaded(&machine, "web"), "{when}: {}", machine.journal());
    };
    survives("started");
    machine.done(&[NFGUARD, "ban", "203.0.113.66", "--for", "1h"]);
    machine.done(&["nft", "flush", "ruleset"]);
    machine.until("the ban is back", |machine| {
        machine.run(&[NFGUARD, "bans"]).stdout.contains("203.0.113.66")
    });
    machine.until("the journal's entry", |machine| {
        let entries = machine.done(&["journalctl", "--unit", GUARD, "--output=json"]);
        let entries = entries.lines().map(serde_json::from_str::<Value>);
        entries.flatten().any(|entry| entry["MICROSECONDS"].is_string())
    });

    machine.done(&["systemctl", "restart", GUARD]);
    survives("restarted");
    let first = machine.property(GUARD, "MainPID");
    machine.done(&["systemctl", "kill", "--signal=KILL", GUARD]);
    machine.until("another guard", |machine| {
        let now = machine.property(GUARD, "MainPID");
        now != first && now != "0" && machine.property(GUARD, "ActiveState") == "active"
    });
    survives("killed");
    machine.done(&["systemctl", "stop", GUARD]);
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
    machine.done(&[NFGUARD, "load", POLICY]);
    machine.run(&["systemctl", "enable", "--now", LOG]);
    let says = |machine: &Machine, what: &str| {
        machine.done(&["journalctl", "--no-pager", "--unit", LOG]).contains(what)
    };
    machine.until("it fails", |machine| machine.property(LOG, "ActiveState") == "failed");
    assert!(says(&machine, "the loaded policy logs to no group"), "{}", machine.journal());

    let log = r#""log": { "to": { "group": 5 }, "rate": "unlimited", "unmatched": ["in"] }"#;
    disk.policy(&GOOD.replacen("\"version\": 1,", &format!("\"version\": 1, {log},"), 1));
    machine.done(&[NFGUARD, "load", POLICY]);
    machine.done(&["systemctl", "restart", LOG]);
    machine.until("it reads the group", |machine| says(machine, "reading NFLOG group 5"));
    let source: IpAddr = "203.0.113.66".parse().expect("an address");
    let knock = Probe::tcp(&machine.world.internet, (World::HOST_V4, 8443)).from(source);
    assert!(!knock.timeout(Duration::from_secs(1)).run().passed());
    machine.done(&["systemctl", "stop", LOG]);
    assert!(machine.done(&[NFGUARD, "scans", "203.0.113.66"]).contains("8443"));
    assert!(!says(&machine, "203.0.113.66"), "no line for each packet");
    machine.power_off();
}
