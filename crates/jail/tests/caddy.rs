//! Caddy's access log in JSON.

mod common;

use common::{clients, config, events, evidence};
use serde_json::{Value, json};

const A: &str = "203.0.113.5";
const B: &str = "198.51.100.9";

/// The record of a request that was refused, as Caddy 2.8 writes it.
fn record(more: &[(&str, Value)]) -> String {
    let mut record = json!({
        "level": "info", "ts": 1_795_035_600.524_102, "logger": "http.log.access.log0",
        "msg": "handled request",
        "request": {
            "remote_ip": A, "remote_port": "41342", "client_ip": A, "proto": "HTTP/2.0",
            "method": "GET", "host": "www.example.com", "uri": "/private/?q=1",
            "headers": { "User-Agent": ["curl/8.5.0"], "Authorization": ["REDACTED"] },
            "tls": { "resumed": false, "version": 772, "server_name": "www.example.com" }
        },
        "bytes_read": 0, "user_id": "", "duration": 0.000_929, "size": 0, "status": 401,
        "resp_headers": { "Server": ["Caddy"], "Www-Authenticate": ["Basic realm=\"x\""] }
    });
    for (pointer, value) in more {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        record.pointer_mut(parent).expect("an object")[key] = value.clone();
    }
    format!("{record}\n")
}

const BUILT_IN: &str =
    r#"{"version":1,"jails":[{"use":"http-auth","log":"/var/log/caddy/access.log"}]}"#;

fn found(more: &[(&str, Value)]) -> Vec<String> {
    let found = evidence(events(config(BUILT_IN), record(more)));
    found.map(|taken| format!("{} {}", taken.client, taken.time)).collect()
}

#[test]
fn a_wrong_password_is_evidence_and_a_challenge_is_none() {
    let expected = [format!("{A} 2026-11-18T21:00:00.524102Z")];
    assert_eq!(found(&[]), expected);
    // Before 2.8 the value is left out; a refusal may have the level of errors.
    let old = [("/request/headers", json!({ "Authorization": [] })), ("/level", json!("error"))];
    assert_eq!(found(&old), expected);
    for none in [
        ("/request/headers", json!({ "User-Agent": ["curl"] })),
        ("/request/headers", json!({ "X": ["Authorization"] })),
        ("/status", json!(200)),
        ("/status", json!("401")),
        ("/status", json!(0)),
        // The log of errors has the request once more.
        ("/msg", json!("not authenticated")),
        ("/request/remote_ip", json!("client.example.org")),
        ("/request/remote_ip", json!("fe80::1%eth0")),
        ("/ts", json!("yesterday")),
    ] {
        assert_eq!(found(std::slice::from_ref(&none)), [""; 0], "{none:?}");
    }
}

#[test]
fn each_form_of_a_time_and_of_an_address_is_read() {
    for time in [
        json!(1_795_035_600),
        json!(1_795_035_600_000_i64),
        json!(1_795_035_600_000.5),
        json!(1_795_035_600_000_000_000_i64),
        json!("2026-11-18T22:00:00.000+0100"),
        json!("2026-11-18T21:00:00Z"),
        json!("2026/11/18 21:00:00"),
        json!("18/Nov/2026:22:00:00 +0100"),
    ] {
        assert_eq!(
            found(&[("/ts", time.clone())]),
            [format!("{A} 2026-11-18T21:00:00Z")],
            "{time}"
        );
    }
    let mapped = found(&[("/request/remote_ip", json!("::ffff:203.0.113.5"))]);
    assert!(mapped[0].starts_with(A), "{mapped:?}");
    // Caddy 2.4 and before.
    let old = record(&[("/request/remote_addr", json!("[2001:db8::5]:41342"))]);
    let old = old.replace(r#""remote_ip":"203.0.113.5","#, "");
    assert_eq!(clients(events(config(BUILT_IN), old)).into_keys().next().unwrap(), "2001:db8::5");
}

#[test]
fn what_a_client_says_names_no_other_and_hides_nothing() {
    let said = format!(r#""}},"status":200,"request":{{"remote_ip":"{B}"}},"x":""#);
    for said in [said.as_str(), "\n{\"status\":401}\n", "\u{0}\u{7f}\\\"", "\"status\":200"] {
        for at in ["/request/uri", "/request/host", "/user_id", "/request/tls"] {
            assert_eq!(found(&[(at, json!(said))]).len(), 1, "{at} {said}");
        }
        let headers = json!({ "Authorization": [said], "X-Forwarded-For": [B], "Cookie": [said] });
        let found = found(&[("/request/headers", headers)]);
        assert!(found.len() == 1 && found[0].starts_with(A), "{found:?}");
    }
}

#[test]
fn only_a_trusted_proxy_names_the_client_to_caddy() {
    let behind = BUILT_IN.replace(
        r#""/var/log/caddy/access.log""#,
        r#"{"file":"/l","trusted_proxies":["10.0.0.0/8"]}"#,
    );
    let client = |remote: &str, lists: Value| {
        let headers = json!({ "Authorization": ["REDACTED"], "X-Forwarded-For": lists });
        let line = record(&[("/request/remote_ip", json!(remote)), ("/request/headers", headers)]);
        clients(events(config(&behind), line)).into_keys().next().unwrap_or_default()
    };
    assert_eq!(client("10.0.0.1", json!([A])), A);
    assert_eq!(client("10.0.0.1", json!([format!("{B}, {A}")])), A);
    assert_eq!(client("10.0.0.1", json!([B, format!("{A}, 10.9.9.9")])), A);
    assert_eq!(client("10.0.0.1", json!(["x"])), "10.0.0.1");
    assert_eq!(client(B, json!([A])), B);
}

#[test]
fn a_built_in_jail_tells_caddys_json_from_the_common_format_by_the_first_record() {
    let common = format!("{A} - u [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 1\n");
    let other = r#"{"level":"info","ts":1795035600,"msg":"serving initial configuration"}"#;
    let count = |log: &[&str]| clients(events(config(BUILT_IN), log.concat())).into_values().sum();
    let caddy = record(&[]);
    let (common, caddy) = (common.as_str(), caddy.as_str());
    let numbers: [u32; 3] = [
        count(&[other, "\n", caddy, caddy]),
        count(&["noise\n", common, caddy, common]),
        count(&[caddy, common, caddy]),
    ];
    assert_eq!(numbers, [2, 2, 2]);
}

#[test]
fn probes_are_counted_by_path_and_by_host() {
    let text = r#"{"version":1,"jails":[{"name":"a","log":{"format":"caddy","file":"/l"},
        "evidence":[{"status":404,"host":"*.example.com","distinct":"path"}],"after":2}]}"#;
    let line = |uri: &str, host: &str| {
        let more =
            [("/status", json!(404)), ("/request/uri", json!(uri)), ("/request/host", json!(host))];
        record(&more)
    };
    let count = |log: &[String]| {
        common::bans(events(config(text), log.concat())).map(|ban| ban.evidence).collect::<Vec<_>>()
    };
    let host = "WWW.example.com:443";
    assert_eq!(count(&[line("/a?1", host), line("/%61", host), line("/b", host)]), [[2, 3]]);
    assert_eq!(count(&[line("/a", host), line("/b", "example.org")]), [[0; 0]; 0]);
}
