//! Upstream's own samples, taken from the source package of Fail2Ban.
//!
//! They are not in this repository, because their licence is another. `cargo xtask test` fetches the
//! source package, and names the folder in `NFGUARD_TEST_FAIL2BAN_SOURCE`. `cargo test` leaves this
//! target out.

use nfguard_jail::fail2ban::{Clock, Failure, Filter, Stamp, State};
use nfguard_jail::time::{Time, Zone};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// When upstream's samples are read: 2005-08-14 10:00:00 UTC.
const NOW_SECONDS: i64 = 1_124_013_600;
/// The zone of their logs.
const ZONE: &str = "Europe/Zurich";
/// The records and the filters of the package, whose checksum is known.
const RECORDS: usize = 1_671;
const FILTERS: usize = 94;

type Options = Map<String, Value>;

/// The filters that have samples: the name, and the folder of its file.
fn filters(source: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for (folder, is_test) in [("config/filter.d", false), ("fail2ban/tests/config/filter.d", true)]
    {
        for entry in fs::read_dir(source.join(folder)).expect("as upstream has it") {
            let file = entry
                .expect("as upstream has it")
                .file_name()
                .into_string()
                .expect("as upstream has it");
            let Some(name) = file.strip_suffix(".conf") else { continue };
            if name.starts_with("zzz-") == is_test && !name.ends_with("common") {
                found.push((name.to_owned(), source.join(folder)));
            }
        }
    }
    found.sort();
    found
}

/// What came of the samples.
#[derive(Debug, Default)]
struct Score {
    records: usize,
    wrong: Vec<String>,
    false_matches: Vec<String>,
    backtracking: Vec<String>,
    limits_reached: u64,
}

/// One filter with the options of some of its lines.
struct Reader {
    options: Options,
    filter: Filter,
    state: State,
}

/// The conditions of upstream's headers: `name == 'sshd'`, `opts.get('mode') != 'aggressive'`.
fn holds(condition: &str, name: &str, options: &Options) -> bool {
    let (left, is_equal, right) = match (condition.split_once("=="), condition.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (_, Some((left, right))) => (left, false, right),
        _ => panic!("condition {condition}"),
    };
    let wanted = right.trim().trim_matches('\'');
    let value = match left.trim() {
        "name" => Some(name),
        "opts.get('mode')" => options.get("mode").and_then(Value::as_str),
        _ => panic!("condition {condition}"),
    };
    (value == Some(wanted)) == is_equal
}

fn read(name: &str, folder: &Path, options: &Options) -> Filter {
    let given = options.iter().filter(|(key, _)| !key.starts_with("test."));
    let given: BTreeMap<String, String> = given
        .map(|(key, value)| (key.clone(), value.as_str().expect("as upstream has it").to_owned()))
        .collect();
    let path = folder.join(format!("{name}.conf"));
    let filter = Filter::read(path.to_str().expect("as upstream has it"), &given, &mut |file| {
        fs::read_to_string(file).ok()
    });
    filter.unwrap_or_else(|mistakes| panic!("{name} {given:?}: {mistakes:?}"))
}

/// Reads the samples of one filter.
fn judge(name: &str, folder: &Path, source: &Path, score: &mut Score) {
    let zone = Zone::parse(ZONE).expect("as upstream has it");
    let clock = Clock {
        now: Time::from_seconds(NOW_SECONDS).expect("as upstream has it"),
        zone: &zone,
        is_near: false,
    };
    let mut files = vec![name.to_owned()];
    let mut readers: Vec<Reader> = Vec::new();
    let (mut chosen, mut common, mut is_ignored) = (Vec::new(), Options::new(), false);
    let mut at = 0;
    while at < files.len() {
        let bytes = fs::read(source.join("fail2ban/tests/files/logs").join(&files[at]))
            .expect("as upstream has it");
        let text = String::from_utf8_lossy(&bytes);
        let mut expected: Option<Options> = None;
        for (number, line) in text.split('\n').enumerate() {
            let header = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#'));
            let header = header.map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
            let header = header.and_then(|rest| rest.split_once(':')).filter(|(kind, _)| {
                ["failJSON", "fileOptions", "filterOptions", "addFILE"].contains(kind)
            });
            if let Some((kind, json)) = header {
                let value: Value = serde_json::from_str(json).expect("as upstream has it");
                match (kind, value) {
                    ("failJSON", Value::Object(value)) => expected = Some(value),
                    ("fileOptions", Value::Object(value)) => common = value,
                    ("addFILE", Value::String(value)) => files.push(value),
                    ("filterOptions", value) => {
                        let sets = match value {
                            Value::Array(sets) => sets,
                            set => vec![set],
                        };
                        chosen.clear();
                        is_ignored = false;
                        for set in sets {
                            let mut options = common.clone();
                            options.extend(set.as_object().expect("as upstream has it").clone());
                            let condition = options.get("test.condition").and_then(Value::as_str);
                            is_ignored = condition.is_some_and(|text| !holds(text, name, &options));
                            if !is_ignored {
                                chosen.push(options);
                            }
                        }
                    }
                    header => panic!("{header:?}"),
                }
                continue;
            }
            let is_sample = expected.is_some() || !line.starts_with('#') && !line.trim().is_empty();
            if is_ignored || !is_sample {
                expected = expected.filter(|_| !is_sample);
                continue;
            }
            let expected = expected.take().unwrap_or_default();
            if chosen.is_empty() {
                chosen.push(Options::new());
            }
            for options in &chosen {
                let condition = expected.get("constraint").and_then(Value::as_str);
                if condition.is_some_and(|text| !holds(text, name, options)) {
                    continue;
                }
                let same = |reader: &Reader| {
                    let key = |options: &Options| {
                        let given = options.iter().filter(|(key, _)| !key.starts_with("test."));
                        given.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
                    };
                    key(&reader.options) == key(options)
                };
                let place = readers.iter().position(same).unwrap_or_else(|| {
                    let filter = read(name, folder, options);
                    let told = filter.backtracking().iter().map(ToString::to_string);
                    score.backtracking.extend(told);
                    readers.push(Reader {
                        options: options.clone(),
                        filter,
                        state: State::default(),
                    });
                    readers.len() - 1
                });
                let reader = &mut readers[place];
                let is_journal = options.get("logtype").is_some_and(|kind| kind == "journal");
                let stamp = if is_journal { Stamp::Clock } else { Stamp::InLine };
                let prefix = options.get("test.prefix-line").filter(|_| is_journal);
                let line = format!("{}{line}", prefix.and_then(Value::as_str).unwrap_or_default());
                let failures =
                    reader.filter.stamped_line(&mut reader.state, line.as_bytes(), stamp, &clock);
                score.records += 1;
                let place = format!("{}:{} {options:?}", files[at], number + 1);
                if let Some(what) = difference(&expected, &failures, &zone) {
                    score.wrong.push(format!("{place}: {what}\n    {line}"));
                }
                if expected.get("match") != Some(&Value::Bool(true)) && !failures.is_empty() {
                    score.false_matches.push(format!("{place}: {failures:?}"));
                }
            }
        }
        at += 1;
    }
    score.limits_reached += readers.iter().map(|reader| reader.state.limits_reached).sum::<u64>();
}

/// What differs from what the header of the line says.
fn difference(expected: &Options, failures: &[Failure], zone: &Zone) -> Option<String> {
    let is_match = expected.get("match") == Some(&Value::Bool(true));
    let failure = match failures {
        [] => return is_match.then(|| "no match".to_owned()),
        [failure] if is_match => failure,
        more => return Some(format!("{} matches: {more:?}", more.len())),
    };
    let text = |key: &str| expected.get(key).and_then(Value::as_str);
    let host = text("host").or(text("dns")).is_none_or(|host| host == failure.client);
    let user = text("user").is_none_or(|user| failure.user.as_deref() == Some(user));
    let users = expected.get("users").and_then(Value::as_array).is_none_or(|users| {
        let mut users: Vec<&str> = users.iter().filter_map(Value::as_str).collect();
        users.sort_unstable();
        users == failure.users
    });
    let lines = expected.get("attempts").and_then(Value::as_u64);
    let lines = lines.is_none_or(|lines| lines == u64::from(failure.lines));
    // Upstream drops the fraction of a second.
    let time = text("time")
        .is_none_or(|time| seconds(time, zone) == failure.time.micros().div_euclid(1_000_000));
    let is_right = host && user && users && lines && time;
    (!is_right).then(|| {
        format!("host {host}, user {user}, users {users}, lines {lines}, time {time}: {failure:?}")
    })
}

/// The seconds since 1970 of `2005-06-21T16:47:46`, in the zone of the samples.
fn seconds(text: &str, zone: &Zone) -> i64 {
    let mut numbers = text
        .split(['-', 'T', ':', '.'])
        .map(|part| part.parse::<i32>().expect("as upstream has it"));
    let mut next = || numbers.next().expect("as upstream has it");
    let small = |number: i32| i8::try_from(number).expect("as upstream has it");
    let civil = nfguard_jail::time::Civil {
        year: i16::try_from(next()).expect("as upstream has it"),
        month: small(next()),
        day: small(next()),
        hour: small(next()),
        minute: small(next()),
        second: small(next()),
        micro: 0,
    };
    civil.in_zone(zone).expect("as upstream has it").micros() / 1_000_000
}

#[test]
fn upstreams_samples_are_judged_as_upstream_judges_them() {
    let source = std::env::var_os("NFGUARD_TEST_FAIL2BAN_SOURCE");
    let source = PathBuf::from(source.expect("`cargo xtask test` names the folder"));
    let mut score = Score::default();
    let filters = filters(&source);
    for (name, folder) in &filters {
        judge(name, folder, &source, &mut score);
    }
    let wrong = score.wrong.len();
    println!("{} records of {} filters, {wrong} wrong:", score.records, filters.len());
    println!("{}", score.wrong.join("\n"));
    println!("backtracking expressions: {}", score.backtracking.len());
    assert_eq!((score.records, filters.len()), (RECORDS, FILTERS));
    assert_eq!(score.false_matches, [""; 0]);
    assert_eq!(score.limits_reached, 0);
    assert!(wrong * 100 <= score.records, "{wrong} of {} are wrong", score.records);
}
