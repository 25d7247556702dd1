//! Pieces, saves and repetitions change nothing, whatever the log has.

mod common;

use common::formats::{FORMATS, looks};
use common::{events, evidence, jails, read};
use nfguard_jail::{Config, Event, Jails, Taken};
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn config(format: &str) -> Config {
    let looks = looks(format);
    let text = format!(
        r#"{{"version":1,"jails":[
            {{"name":"a","log":{{{format}}},{looks},"after":2,"within":"1h","ban":"1m"}},
            {{"name":"b","log":{{{format}}},{looks},"after":3,"within":"1h","ban":"1h","mode":"observe"}},
            {{"use":"recidive","after":2}}]}}"#
    );
    common::config(&text)
}

/// A part of a log: a line of some format, or a part of one, or noise.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let address = || select(vec!["203.0.113.5", "198.51.100.9", "2001:db8::1", "010.0.0.1", "x"]);
    let status = || select(vec!["401", "404", "200"]);
    let traefik = (address(), status(), 0..60_u32, 0..9_u32).prop_map(|(host, status, second, n)| {
        format!(
            "{host} - a [18/Nov/2026:21:00:{second:02} +0000] \"GET /{n} HTTP/1.1\" {status} 17 \"-\" \
             \"c\" {n} \"r\" \"-\" 1ms\n"
        )
    });
    let json = (address(), status(), 0..60_u32).prop_map(|(host, status, second)| {
        format!(
            r#"{{"ClientHost":"{host}","DownstreamStatus":{status},"time":"2026-11-18T21:00:{second:02}Z"}}"#
        )
    });
    let caddy = (address(), status(), 0..60_u32).prop_map(|(host, status, second)| {
        format!(
            r#"{{"msg":"handled request","ts":17950356{second:02},"request":{{"remote_ip":"{host}","uri":"/{second}"}},"status":{status}}}"#
        )
    });
    let docker =
        (json.clone(), any::<bool>(), any::<bool>()).prop_map(|(json, is_whole, is_out)| {
            let end = if is_whole { "\n" } else { "" };
            let stream = if is_out { "stdout" } else { "stderr" };
            let log = serde_json::Value::from(json + end);
            format!("{{\"log\":{log},\"stream\":\"{stream}\",\"time\":\"2026-11-18T21:00:00Z\"}}\n")
        });
    let entry = (address(), 0..60_u32, any::<bool>()).prop_map(|(host, second, is_binary)| {
        let message = format!("failed\n from {host}");
        let mut bytes = format!("__REALTIME_TIMESTAMP=17950356{second:02}000000\n").into_bytes();
        if is_binary {
            bytes.extend_from_slice(b"MESSAGE\n");
            bytes.extend_from_slice(&(message.len() as u64).to_le_bytes());
            bytes.extend_from_slice(message.as_bytes());
            bytes.extend_from_slice(b"\n\n");
        } else {
            bytes.extend_from_slice(format!("MESSAGE=from {host}\n\n").as_bytes());
        }
        bytes
    });
    let text = (address(), 0..60_u32).prop_map(|(host, second)| {
        format!("2026-11-18 21:00:{second:02} h sshd[1]: from {host}\n")
    });
    prop_oneof![
        4 => traefik.prop_map(String::into_bytes),
        3 => json.prop_map(|line| (line + "\n").into_bytes()),
        2 => caddy.prop_map(|line| (line + "\n").into_bytes()),
        3 => docker.prop_map(String::into_bytes),
        3 => entry,
        3 => text.prop_map(String::into_bytes),
        1 => "203\\.0\\.113\\.6 - x\n".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => select(vec![&b"\n"[..], b"\r\n", b"\0", b"{", b"\"", b"MESSAGE\n\xff"])
            .prop_map(<[u8]>::to_vec),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_saves_and_repetitions_change_nothing(
        format in select(FORMATS.to_vec()),
        parts in proptest::collection::vec(part(), 0..40),
        cuts in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 0..12),
    ) {
        let log = parts.concat();
        let config = config(format);
        let (mut jails, id) = jails(config.clone());
        let mut at_once = read(&mut jails, id, &log);
        jails.finish(id, &mut |event| at_once.push(event));

        let mut ends: Vec<(usize, usize, bool)> = cuts
            .iter()
            .map(|(end, begin, saves)| {
                let end = end.index(log.len() + 1);
                (end, begin.index(end + 1), *saves)
            })
            .collect();
        ends.sort_unstable();
        ends.push((log.len(), 0, false));
        let mut in_pieces: Vec<Event> = Vec::new();
        let mut pieces = Jails::new(config.clone(), Vec::new());
        let mut known = 0;
        for (end, begin, saves) in ends {
            // From somewhere before what is known: nothing is left out, and a tail is repeated.
            let begin = begin.min(known);
            pieces.read(id, begin as u64, &log[begin..end], &mut |event| in_pieces.push(event));
            known = end;
            if saves {
                let saved = serde_json::to_string(&pieces.state()).expect("JSON");
                let state = serde_json::from_str(&saved).expect("a state");
                pieces = Jails::new(config.clone(), Vec::new()).with_state(state);
            }
        }
        pieces.finish(id, &mut |event| in_pieces.push(event));
        prop_assert_eq!(at_once, in_pieces);
        prop_assert_eq!(jails.state(), pieces.state());
    }
}

/// Bytes that a client may write: pieces of records, and any bytes. Numbers are far from Traefik's own:
/// a client is not told the number of its request.
fn written() -> impl Strategy<Value = Vec<u8>> {
    let forged = "\n198.51.100.9 - u [18/Nov/2026:21:00:10 +0000] \"GET / HTTP/2.0\" 401 17 \"-\" \
                  \"-\" 5 \"r\" \"-\" 1ms\n";
    let pieces = [
        forged,
        &forged.replace(" 5 ", " - "),
        &forged.replace(" 5 ", " 9000000 "),
        &forged.replace(" 5 ", " 6 ").replace("2026", "2099"),
        &forged.replace("198.51.100.9", "203.0.113.5"),
        // The end of a record, with what stands before it and without.
        " [18/Nov/2099:21:00:00 +0000] \"GET / HTTP/1.1\" 200 17 \"-\" \"c\" 7 \"r\" \"-\" 1ms",
        " [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \"c\" 8 \"r\" \"-\" 1ms\n",
        "\" 5 \"r\" \"-\" 1ms",
        "\" 5 \"r\" \"-\" 1ms\n",
        "\" 5 - - 1ms\n",
        &forged.replace("\"r\" \"-\"", "- -"),
        "\n198.51.100.9 - ",
        "\n198.51.100.9 - u",
        "198.51.100.9",
        " - ",
        "- u [18/Nov/2026:21:00:10 +0000] \"GET / HTTP/2.0\" 200 17 \"-\" \"-\" ",
        " [18/Nov/2031:21:00:00 +0000] \"GET /ok",
        " HTTP/1.1\" 200 17 \"-\" \"x",
        "\" 401 17 \"-\" \"",
        "?",
        "\"",
        "\\",
        "\n",
        "] \"",
        ", ",
        "{\"DownstreamStatus\":200}",
    ];
    let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    let piece =
        prop_oneof![4 => select(pieces), 1 => proptest::collection::vec(any::<u8>(), 0..12)];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// What a header may have: no line break and no zero.
fn header(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !byte.is_ascii_control()).collect()
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let each = text.iter().flat_map(|byte| match byte {
        b'"' | b'\\' | 0..=31 | 127..=255 => format!("\\x{byte:02X}").into_bytes(),
        byte => vec![*byte],
    });
    each.collect()
}

/// The line of a request, in one of the formats.
fn request(
    format: &str,
    host: &str,
    [user, query, agent, said]: &[Vec<u8>; 4],
    number: usize,
) -> Vec<u8> {
    let status = if host == HONEST { "200" } else { "401" };
    let time = format!("18/Nov/2026:21:00:{number:02} +0000");
    let (query, agent, said) = (header(query), header(agent), header(said));
    let join = |parts: &[&[u8]]| parts.concat();
    let number = (5_000_000 + number).to_string();
    match format {
        "traefik-clf" => join(&[
            host.as_bytes(),
            b" - a",
            user,
            b" [",
            time.as_bytes(),
            b"] \"GET /?",
            &query,
            b" HTTP/2.0\" ",
            status.as_bytes(),
            b" 17 \"-\" \"",
            &agent,
            b"\" ",
            number.as_bytes(),
            b" \"web@docker\" \"-\" 1ms\n",
        ]),
        "clf" => join(&[
            host.as_bytes(),
            b" - a",
            &escaped(user),
            b" [",
            time.as_bytes(),
            b"] \"GET /?",
            &escaped(&query),
            b" HTTP/2.0\" ",
            status.as_bytes(),
            b" 17 \"-\" \"",
            &escaped(&agent),
            b"\" \"",
            &escaped(&said),
            b"\"\n",
        ]),
        _ => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let record = serde_json::json!({
                "ClientAddr": format!("{host}:1"), "ClientHost": format!("{}, {host}", text(&said)),
                "ClientUsername": format!("a{}", text(user)), "RequestPath": text(&query),
                "DownstreamStatus": status.parse::<u16>().expect("a status"), "agent": text(&agent),
                "time": "2026-11-18T21:00:00Z",
            });
            format!("{record}\n").into_bytes()
        }
    }
}

const HONEST: &str = "192.0.2.7";
const ATTACKER: &str = "203.0.113.5";
const OTHER: &str = "192.0.2.8";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_a_client_writes_is_evidence_of_no_other_and_hides_none_of_his(
        format in select(vec!["traefik-clf", "clf", "traefik-json"]),
        attacks in proptest::collection::vec([written(), written(), written(), written()], 1..6),
    ) {
        let text = format!(
            r#"{{"version":1,"jails":[{{"name":"a","log":{{"format":"{format}"}},
                "evidence":[{{"status":401,"user":"present"}}],"after":1000}}]}}"#
        );
        let nothing = [const { Vec::new() }; 4];
        let mut log = request(format, HONEST, &nothing, 0);
        for (at, attack) in attacks.iter().enumerate() {
            log.extend(request(format, ATTACKER, attack, 3 * at + 1));
            log.extend(request(format, HONEST, &nothing, 3 * at + 2));
            log.extend(request(format, OTHER, &nothing, 3 * at + 3));
        }
        let mut found: Vec<Taken> = evidence(events(common::config(&text), &log)).collect();
        let text = String::from_utf8_lossy(&log);
        let of = |client: &str| found.iter().filter(|taken| taken.client == client).count();
        prop_assert_eq!(of(OTHER), attacks.len(), "{:?}\n{}", &found, &text);
        prop_assert!(found.iter().all(|taken| taken.client == ATTACKER || taken.client == OTHER), "{:?}\n{}", &found, &text);
        let is_true = |taken: &Taken| taken.time.to_string().starts_with("2026-11-18T21:");
        prop_assert!(found.iter().all(is_true), "{:?}\n{}", &found, &text);
        found.retain(|taken| taken.client == ATTACKER);
        prop_assert!(found.len() >= attacks.len(), "{} of {}\n{}", found.len(), attacks.len(), text);
    }
}

/// A request of a log without lies: its client, whether it fails, and how many begin before it ends.
fn honest() -> impl Strategy<Value = (usize, bool, usize)> {
    let length = prop_oneof![8 => 0..3_usize, 3 => 0..60_usize, 1 => Just(400)];
    (0..4_usize, any::<bool>(), length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Requests end out of order and late, its process is another, and its filters leave requests out.
    #[test]
    fn a_log_without_lies_loses_nothing_and_moves_nothing(
        processes in proptest::collection::vec(
            (proptest::collection::vec(honest(), 1..200), any::<bool>()), 1..3),
        first in prop_oneof![Just(1_usize), 100_000..200_000_usize],
    ) {
        let (mut log, mut expected, mut count) = (Vec::new(), Vec::new(), 0);
        for (process, (requests, is_filtered)) in processes.iter().enumerate() {
            let first = if process == 0 { first + 1000 } else { 1 };
            let mut ends: Vec<_> = requests.iter().enumerate().collect();
            ends.sort_by_key(|(at, (.., length))| at + length);
            for (at, (client, fails, _)) in ends {
                if *is_filtered && !fails {
                    continue;
                }
                let (host, status) = (format!("192.0.2.{client}"), if *fails { 401 } else { 200 });
                count += 1;
                log.extend_from_slice(format!(
                    "{host} - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" {status} 17 \"-\" \"c\" {} \
                     \"r\" \"-\" 1ms\n", first + at).as_bytes());
                if *fails {
                    expected.push((count, host));
                }
            }
        }
        let text = r#"{"version":1,"jails":[{"name":"a","log":{"format":"traefik-clf"},
            "evidence":[{"status":401}],"after":1000}]}"#;
        let found = evidence(events(common::config(text), &log));
        let found: Vec<_> = found.map(|taken| (taken.line, taken.client)).collect();
        prop_assert_eq!(found, expected);
    }
}
