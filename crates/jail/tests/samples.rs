//! The samples in `tests/logs` come out as their `expected.json` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nfguard_jail::{Ban, Config, Event, Jails};
use serde_json::{Value, json};

const FOLDERS: [&str; 6] = [
    "docker-json-file",
    "nginx",
    "sshd-journal",
    "traefik-clf-new",
    "traefik-clf-old",
    "traefik-json",
];

fn file(path: &str) -> Vec<u8> {
    let logs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/logs"));
    fs::read(logs.join(path)).expect("a sample")
}

fn config(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|problems| panic!("{problems:#?}")).0.with_one_place()
}

fn sample(folder: &str) -> (Config, Vec<u8>, Value) {
    let text = String::from_utf8(file(&format!("{folder}/jails.json"))).expect("UTF-8");
    let expected: Value =
        serde_json::from_slice(&file(&format!("{folder}/expected.json"))).expect("JSON");
    let log = file(&format!("{folder}/{}", expected["log"].as_str().expect("a name")));
    (config(&text), log, expected["bans"].clone())
}

fn ban_json(ban: &Ban) -> Value {
    json!({
        "line": ban.line, "jail": *ban.jail, "target": ban.source.to_string(),
        "since": ban.since.to_string(), "until": ban.until.to_string(), "seconds": ban.seconds,
        "again": ban.again, "mode": ban.mode.word(), "evidence": ban.evidence,
    })
}

/// Reads all of it in pieces of this size, and returns the events.
fn events(jails: &mut Jails, log: &[u8], piece: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let ids: Vec<_> = jails.logs().map(|(id, _)| id).collect();
    for id in ids {
        let mut position = 0;
        for piece in log.chunks(piece) {
            jails.read(id, position, piece, &mut |event| events.push(event));
            position += piece.len() as u64;
        }
        jails.finish(id, &mut |event| events.push(event));
    }
    events
}

fn bans(events: &[Event]) -> Vec<Value> {
    let ban = |event: &Event| match event {
        Event::Ban(ban) => Some(ban_json(ban)),
        _ => None,
    };
    events.iter().filter_map(ban).collect()
}

#[test]
fn each_sample_gives_its_bans() {
    for folder in FOLDERS {
        let (config, log, expected) = sample(folder);
        let found = bans(&events(&mut Jails::new(config, Vec::new()), &log, usize::MAX));
        assert_eq!(json!(found), expected, "{folder}");
    }
}

#[test]
fn pieces_saves_and_repetitions_change_nothing() {
    for folder in FOLDERS {
        let (config, log, expected) = sample(folder);
        for piece in [1, 7, 1000] {
            let found = bans(&events(&mut Jails::new(config.clone(), Vec::new()), &log, piece));
            assert_eq!(json!(found), expected, "{folder} in pieces of {piece}");
        }
        let mut jails = Jails::new(config.clone(), Vec::new());
        let mut found = Vec::new();
        let (id, _) = jails.logs().next().unwrap();
        for at in (0..log.len()).step_by(997) {
            let piece = &log[at.saturating_sub(1500)..(at + 997).min(log.len())];
            let begin = at.saturating_sub(1500) as u64;
            jails.read(id, begin, piece, &mut |event| found.push(event));
            let saved = serde_json::to_string(&jails.state()).unwrap();
            let state = serde_json::from_str(&saved).unwrap();
            jails = Jails::new(config.clone(), Vec::new()).with_state(state);
            assert_eq!(serde_json::to_string(&jails.state()).unwrap(), saved);
        }
        assert_eq!(json!(bans(&found)), expected, "{folder} with restarts");
    }
}

#[test]
fn no_lie_bans_another_or_hides_anything() {
    let cases: Vec<Value> = serde_json::from_slice(&file("adversarial.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let lines = case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let log: String = lines.map(|line| format!("{line}\n")).collect();
        let mut jails = Jails::new(config(&case["jails"].to_string()), Vec::new());
        let mut found = BTreeMap::<String, u32>::new();
        for event in events(&mut jails, log.as_bytes(), usize::MAX) {
            if let Event::Evidence(taken) = event {
                *found.entry(taken.client).or_default() += 1;
            }
        }
        if json!(found) != case["evidence"] {
            wrong.push(format!("{}: {found:?}, not {}", case["name"], case["evidence"]));
        }
    }
    assert!(cases.len() > 15 && wrong.is_empty(), "{}", wrong.join("\n"));
}
