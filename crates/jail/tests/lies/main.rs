//! What a client writes bans no other client and hides nothing. More kinds than those of the samples.

#[path = "../common/mod.rs"]
mod common;
mod journal;
mod writes;

use std::collections::BTreeMap;

use nfguard_jail::{Config, Event, Jails};

const ANY: &str = r#"{"version":1,"jails":[{"name":"all","log":{"format":"FORMAT"},
    "evidence":[{"status":401,"user":"present"},{"status":[403,429]}],
    "after":1000,"within":"10m","ban":"1h"}]}"#;

/// Returns how often each client was evidence.
fn clients(config: &str, log: &[u8]) -> BTreeMap<String, u32> {
    common::clients(common::events(common::config(config), log))
}

fn assert_clients(format: &str, log: impl AsRef<[u8]>, expected: &[(&str, u32)], what: &str) {
    let expected: BTreeMap<String, u32> =
        expected.iter().map(|(client, count)| ((*client).to_owned(), *count)).collect();
    assert_eq!(clients(&ANY.replace("FORMAT", format), log.as_ref()), expected, "{what}");
}

/// A line of Traefik's common format, with what a client has a say in.
fn traefik(host: &str, user: &str, target: &str, status: u16, agent: &str, number: u32) -> String {
    format!(
        "{host} - {user} [18/Nov/2026:21:00:00 +0000] \"GET {target} HTTP/1.1\" {status} 17 \"-\" \
         \"{agent}\" {number} \"web@docker\" \"-\" 1ms\n"
    )
}

const A: &str = "203.0.113.66";
const B: &str = "198.51.100.99";
const FORGED_200: &str =
    "x [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 200 17 \"-\" \"c\" 1 \"r\" \"-\" 1ms";

#[test]
fn a_user_name_that_looks_like_a_record_hides_no_failure() {
    for user in [
        FORGED_200,
        "x [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 200 17 \"-\" \"",
        "x [18/Nov/2026:21:00:00 +0000] \"GET /?",
        "\" 200 17 \"-\" \"",
        "] \"",
        "[18/Nov/2026:21:00:00 +0000]",
        "198.51.100.99 - y",
        "\u{0}\u{1b}[31m",
    ] {
        assert_clients("traefik", traefik(A, user, "/", 401, "curl", 7), &[(A, 1)], user);
    }
}

#[test]
fn a_query_or_a_user_agent_that_looks_like_a_record_hides_no_failure() {
    let fake = "/?a HTTP/1.1\" 200 17 \"-\" \"x\" 1 \"r\" \"-\" 1ms";
    assert_clients("traefik", traefik(A, "a", fake, 401, "curl", 7), &[(A, 1)], "query");
    let agent = "x HTTP/2.0\" 200 17 \"-\" \"y";
    assert_clients("traefik", traefik(A, "a", "/", 401, agent, 7), &[(A, 1)], "user agent");
    let agent = format!("x [18/Nov/2026:21:00:00 +0000] \"GET / {agent}");
    assert_clients("traefik", traefik(A, "a", "/", 401, &agent, 7), &[(A, 1)], "whole record");
}

#[test]
fn a_status_in_a_path_a_size_or_a_user_agent_is_none() {
    for target in ["/\"%20401%2017", "/401?q=429", "/?a\"401"] {
        assert_clients("traefik", traefik(B, "-", target, 200, "curl", 7), &[], target);
    }
    for agent in ["\" 401 17 \"-\" \"", "a\" 401 17 \"b", "x HTTP/1.1\" 401 17 \"-\" \"y", "401"] {
        assert_clients("traefik", traefik(B, "a", "/", 200, agent, 7), &[], agent);
    }
}

#[test]
fn line_breaks_in_a_user_name_ban_no_other_client() {
    let before = traefik(B, "-", "/", 200, "curl", 5000);
    let forged = |status| traefik(B, "y", "/", status, "c", 1);
    let end = |host: &str| traefik(host, "z", "/", 401, "curl", 5001);
    let after = traefik("203.0.113.7", "a", "/", 401, "curl", 5002);
    let told = [(A, 1), ("203.0.113.7", 1)];
    for (what, middle) in [
        ("one line break", String::new()),
        ("a forged failure", forged(401)),
        ("a forged success", forged(200)),
        ("many", format!("{}noise\n\n{}", forged(200), forged(401))),
        ("another beginning", format!("{B} - q\n")),
    ] {
        let log = format!("{before}{A} - x\n{middle}{}{after}", end(B));
        assert_clients("traefik", &log, &told, what);
    }
}

#[test]
fn a_forged_time_does_not_push_evidence_out_of_the_window() {
    let jails = ANY.replace("FORMAT", "traefik").replace("1000", "3");
    let line = |user: &str, number| traefik(A, user, "/", 401, "curl", number);
    let forged = "x [18/Nov/2099:21:00:00 +0000] \"GET /? HTTP/1.1\" 200 17 \"-\" \"";
    let log = [line("a", 1), line(forged, 2), line("a", 3)].concat();
    let (mut jails, id) = common::jails(common::config(&jails));
    let bans: Vec<_> = common::bans(common::read(&mut jails, id, log))
        .map(|ban| (ban.source.to_string(), ban.until.to_string()))
        .collect();
    assert_eq!(bans, [(A.to_owned(), "2026-11-18T22:00:00Z".to_owned())]);
}

#[test]
fn half_a_line_at_the_end_of_a_file_is_half_a_line() {
    let whole = traefik(A, "a", "/", 401, "curl", 7);
    for cut in 1..whole.len() - 1 {
        let log = &whole[..whole.len() - 1 - cut];
        assert_clients("traefik", log, &[], log);
    }
    let combined =
        format!("{A} - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \"c\"");
    assert_clients("clf", &combined, &[(A, 1)], "whole");
    for cut in [1, 2, 3, 5, 6, 7, 12, 20] {
        assert_clients("clf", &combined[..combined.len() - cut], &[], "half a line");
    }
}

#[test]
fn the_combined_format_is_read_with_its_escapes() {
    let line = |user: &str, request: &str, status: u16, more: &str| {
        format!("{A} - {user} [18/Nov/2026:21:00:00 +0000] \"{request}\" {status} 17{more}\n")
    };
    let tail = r#" "-" "a\"b\\""#;
    let (get, all) = ("GET / HTTP/1.1", [(A, 1)]);
    assert_clients("clf", line("a", get, 401, tail), &all, "Apache's escapes");
    assert_clients("clf", line("a b", get, 401, ""), &all, "a space and no more fields");
    assert_clients("clf", line("a", get, 401, " \"-\" \"x\" rt=0.1 \"y\""), &all, "more fields");
    assert_clients("clf", line("-", r"\x16\x03\x01", 403, tail), &all, "no request");
    let hidden = r#"x\" 200 1 \"-\" \""#;
    assert_clients("clf", line(hidden, get, 401, tail), &all, "escaped quotes");
    let query = r#"GET /\x22 401 1 HTTP/1.1"#;
    assert_clients("clf", line("-", query, 200, tail), &[], "a status in the request");
}

#[test]
fn noise_breaks_nothing() {
    let evidence = traefik(A, "a", "/", 401, "curl", 7);
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    let long = format!("{A} - {}\n", "x".repeat(3 << 20));
    let pieces: [&[u8]; 9] = [
        b"\0\0\0\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe\n",
        b"\r\n\r\n",
        deep.as_bytes(),
        b"\n",
        long.as_bytes(),
        b"\x1b[31m\n",
        b"{\n}\n[]\nnull\n",
    ];
    for format in ["traefik", "traefik-json", "traefik-clf", "clf", "text", "journal", "sshd"] {
        let config = match format {
            "text" | "journal" | "sshd" => {
                format!(
                    r#"{{"version":1,"jails":[{{"name":"a","log":{{"format":"{format}"}},
                        "match":".*from <client>.*"}}]}}"#
                )
            }
            _ => ANY.replace("FORMAT", format),
        };
        let log = [&pieces.concat()[..], evidence.as_bytes()].concat();
        let expected = u32::from(matches!(format, "traefik" | "traefik-clf" | "clf"));
        assert_eq!(clients(&config, &log).get(A).copied().unwrap_or(0), expected, "{format}");
    }
}

#[test]
fn a_line_of_two_mebibytes_is_judged_and_a_longer_one_counted() {
    let line = |bytes: usize| {
        let rest = traefik(A, "", "/", 401, "curl", 7).len() - 1;
        traefik(A, &"x".repeat(bytes - rest), "/", 401, "curl", 7)
    };
    assert_clients("traefik-clf", line(2 << 20), &[(A, 1)], "2 MiB");
    assert_clients("traefik-clf", line((2 << 20) + 1), &[], "2 MiB and a byte");
}

#[test]
fn only_a_trusted_proxy_names_the_client() {
    let line = |peer: &str, host: &str| {
        format!(
            r#"{{"ClientAddr":"{peer}:1","ClientHost":"{host}","ClientUsername":"a","DownstreamStatus":401,"time":"2026-11-18T21:00:00Z"}}"#
        )
    };
    let direct = ANY.replace("FORMAT", "traefik");
    let trusting =
        direct.replace("\"traefik\"", "\"traefik\",\"trusted_proxies\":[\"198.51.100.0/24\"]");
    let log = line(B, &format!("192.0.2.1, {A}"));
    assert_eq!(clients(&direct, log.as_bytes()), BTreeMap::from([(B.to_owned(), 1)]));
    assert_eq!(clients(&trusting, log.as_bytes()), BTreeMap::from([(A.to_owned(), 1)]));
    // Without a word for its client, the proxy itself would be banned, and all behind it.
    let jails = trusting.replace("1000", "1");
    let (mut jails, id) = common::jails(common::config(&jails));
    let mut bans = 0;
    let log = format!("{}\n{}\n", line(B, B), line(B, A));
    jails.read(id, 0, log.as_bytes(), &mut |event| {
        if let Event::Ban(ban) = event {
            assert_eq!(
                (ban.source.to_string(), ban.proxy),
                (A.to_owned(), Some(B.parse().unwrap()))
            );
            bans += 1;
        }
    });
    assert_eq!(bans, 1);
    let own = line("192.0.2.9", A);
    assert_eq!(clients(&trusting, own.as_bytes()), BTreeMap::from([("192.0.2.9".to_owned(), 1)]));
}

/// A line with this number, or none.
fn numbered(host: &str, user: &str, status: u16, number: &str) -> String {
    traefik(host, user, "/", status, "curl", 7).replace(" 7 \"web", &format!(" {number} \"web"))
}

#[test]
fn no_number_and_no_guess_of_a_number_ends_a_torn_record() {
    let before = numbered(B, "-", 200, "1234567");
    let end = numbered(B, "z", 401, "1234568");
    let none = numbered(B, "u", 401, "-").repeat(6);
    let log = format!("{before}{A} - x\n{none}{end}");
    assert_clients("traefik", log, &[(A, 1)], "no number");
    let guesses: String =
        (1..7000).map(|at| numbered(B, "u", 401, &(at * 2000).to_string())).collect();
    assert!(guesses.len() < (1 << 20));
    let log = format!("{before}{A} - x\n{guesses}{end}");
    assert_clients("traefik", log, &[(A, 1)], "guesses");
}

#[test]
fn a_query_hides_neither_time_nor_path() {
    let jails = ANY.replace("FORMAT", "traefik").replace("1000", "8");
    for with_honest in [true, false] {
        let mut log = String::new();
        // Of the first record of a log, nothing tells which time is true.
        for at in 0..if with_honest { 8 } else { 9 } {
            let target = format!("/?x [18/Nov/20{}:21:00:00 +0000] \"GET /ok", 18 + at);
            if with_honest {
                log += &traefik(B, "-", "/", 200, "curl", 2 * at);
            }
            log += &traefik(A, "a", &target, 401, "curl", 2 * at + 1);
        }
        let (mut jails, id) = common::jails(common::config(&jails));
        let mut bans = 0;
        jails.read(id, 0, log.as_bytes(), &mut |event| {
            bans += u32::from(matches!(event, Event::Ban(_)));
        });
        assert_eq!(bans, 1, "{with_honest}");
    }
    let trap =
        r#"{"version":1,"jails":[{"use":"traefik-trap","log":{"format":"traefik"},"after":1000}]}"#;
    let target = "/.env?x [18/Nov/2026:21:00:00 +0000] \"GET /ok";
    let log = traefik(A, "-", target, 404, "curl", 7);
    assert_eq!(clients(trap, log.as_bytes()), BTreeMap::from([(A.to_owned(), 1)]));
}

#[test]
fn a_user_agent_names_no_client() {
    let jails = ANY.replace("\"FORMAT\"", "\"clf\",\"trusted_proxies\":[\"198.51.100.0/24\"]");
    let line = |more: &str| {
        format!(
            "{B} - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \"{A}\"{more}\n"
        )
    };
    assert_eq!(clients(&jails, line("").as_bytes()), BTreeMap::from([(B.to_owned(), 1)]));
    let forwarded = line(" \"192.0.2.1, 203.0.113.9\"");
    let expected = BTreeMap::from([("203.0.113.9".to_owned(), 1)]);
    assert_eq!(clients(&jails, forwarded.as_bytes()), expected);
}

#[test]
fn what_a_client_forwards_hides_nothing() {
    for said in ["unknown, x", "192.0.2.1, 10.0.0.1:80", &"192.0.2.1, ".repeat(3000)] {
        let log = traefik(&format!("{said}, {A}"), "a", "/", 401, "curl", 7);
        assert_clients("traefik", &log, &[(A, 1)], said.get(..20).unwrap_or(said));
    }
}

#[test]
fn a_line_of_readings_alone_is_judged_in_one_pass() {
    let decoy = " HTTP/1.1\" 200 17 \"-\" \"";
    let target = format!("/?{}", decoy.repeat((1 << 20) / decoy.len()));
    let log = traefik(A, "a", &target, 401, "curl", 7);
    assert_clients("traefik", log, &[(A, 1)], "many readings");
}

#[test]
fn half_a_line_of_docker_is_not_joined_to_the_next() {
    let jails = ANY.replace("\"FORMAT\"", "\"docker-json\",\"inside\":\"traefik\"");
    let envelope = |text: &str| {
        let log = serde_json::Value::from(text);
        format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"2026-11-18T21:00:00Z\"}}\n")
    };
    let whole = traefik(B, "-", "/", 200, "curl", 1);
    let failed = traefik(A, "a", "/", 401, "curl", 2);
    let one = BTreeMap::from([(A.to_owned(), 1)]);
    let log = [envelope(&whole[..40]), envelope(&failed)].concat();
    assert_eq!(clients(&jails, log.as_bytes()), one);
    let long = traefik(A, &"x".repeat(20_000), "/", 401, "curl", 2);
    let (first, second) = long.split_at(16 * 1024);
    let log = [envelope(first), envelope(second)].concat();
    assert_eq!(clients(&jails, log.as_bytes()), one);
    let log = [envelope(first), "{\"log\":\n".to_owned(), envelope(&failed)].concat();
    assert_eq!(clients(&jails, log.as_bytes()), one);
}

#[test]
fn a_gap_and_a_new_file_have_no_half_lines_of_before() {
    let (mut jails, id) = common::jails(common::config(ANY.replace("FORMAT", "traefik")));
    let mut found = Vec::new();
    let mut each = |event: Event| {
        if let Event::Evidence(taken) = event {
            found.push(taken.client);
        }
    };
    let failed = |host: &str, number| traefik(host, "a", "/", 401, "curl", number);
    jails.read(id, 0, format!("{B} - x\n{B} - ").as_bytes(), &mut each);
    jails.read(id, 1000, failed(A, 1).as_bytes(), &mut each);
    jails.read(id, u64::MAX - 5, format!("{B} - x\n{B}").as_bytes(), &mut each);
    jails.restart(id);
    assert_eq!(jails.position(id), 0);
    jails.read(id, 0, failed(A, 1).as_bytes(), &mut each);
    assert_eq!(found, [A, A]);
}

#[test]
fn a_prefix_within_ipv6_spares_its_ipv4_addresses() {
    let jails = ANY.replace("FORMAT", "traefik").replace("1000", "1");
    let (config, _) = Config::parse(&jails).unwrap();
    let mut jails = Jails::new(config, vec!["::ffff:203.0.113.0/120".parse().unwrap()]);
    let (id, _) = jails.logs().next().unwrap();
    let mut told = Vec::new();
    let log = [traefik(A, "a", "/", 401, "c", 1), traefik(B, "a", "/", 401, "c", 2)].concat();
    jails.read(id, 0, log.as_bytes(), &mut |event| match event {
        Event::Spared(spared) => told.push(format!("spared {}", spared.source)),
        Event::Ban(ban) => told.push(format!("ban {}", ban.source)),
        _ => {}
    });
    assert_eq!(told, [format!("spared {A}"), format!("ban {B}")]);
}

#[test]
fn above_the_cap_is_no_shelter() {
    let text = r#"{"version":1,"jails":[{"name":"a","log":{"format":"traefik"},
        "evidence":[{"status":401}],"after":1,"within":"10m","ban":"1h","bans_a_minute":1}]}"#;
    let (mut jails, id) = common::jails(common::config(text));
    let later = traefik(A, "a", "/", 401, "c", 3).replace("21:00:00", "21:02:00");
    let log = [traefik(B, "a", "/", 401, "c", 1), traefik(A, "a", "/", 401, "c", 2), later];
    let bans: Vec<_> = common::bans(common::read(&mut jails, id, log.concat()))
        .map(|ban| (ban.source.to_string(), ban.is_over_cap))
        .collect();
    assert_eq!(bans, [(B.into(), false), (A.into(), true), (A.into(), false)]);
}

#[test]
fn a_ban_of_those_who_come_again_tells_the_proxy_too() {
    let jails = r#"{"version":1,"jails":[{"name":"a","log":{"format":"traefik-json",
        "trusted_proxies":["198.51.100.0/24"]},"evidence":[{"status":401}],"after":1,"ban":"1s"},
        {"use":"recidive","after":2}]}"#;
    let (mut jails, id) = common::jails(common::config(jails));
    let mut told = Vec::new();
    for second in [1, 9] {
        let line = format!(
            r#"{{"ClientAddr":"{B}:1","ClientHost":"{A}","DownstreamStatus":401,"time":"2026-11-18T21:00:0{second}Z"}}"#
        ) + "\n";
        jails.read(id, jails.position(id), line.as_bytes(), &mut |event| {
            if let Event::Ban(ban) = event {
                told.push((ban.jail.to_string(), ban.proxy.map(|it| it.to_string())));
            }
        });
    }
    let of = |jail: &str| (jail.to_owned(), Some(B.to_owned()));
    assert_eq!(told, [of("a"), of("a"), of("recidive")]);
}

#[test]
fn a_forged_end_before_a_line_break_hides_no_failure() {
    let user =
        "x [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/2.0\" 200 17 \"-\" \"-\" 1 \"r\" \"-\" 1ms\n";
    let log = traefik(B, "-", "/", 200, "c", 5000) + &traefik(A, user, "/", 401, "c", 5001);
    assert_clients("traefik", log, &[(A, 1)], "a forged end");
}

#[test]
fn a_cookie_names_no_client() {
    let jails = ANY.replace("\"FORMAT\"", "\"clf\",\"trusted_proxies\":[\"192.0.2.0/24\"]");
    for more in ["\"192.0.2.77\"", "\"198.51.100.99\"", "\"d4f1\""] {
        let line = format!(
            "192.0.2.1 - a [18/Nov/2026:21:00:00 +0000] \"GET / HTTP/1.1\" 401 17 \"-\" \"c\" \"{A}\" {more}\n"
        );
        assert_eq!(clients(&jails, line.as_bytes()), BTreeMap::from([(A.to_owned(), 1)]), "{more}");
    }
}

#[test]
fn a_page_with_forbidden_pictures_bans_no_visitor() {
    let jails = r#"{"version":1,"jails":[{"use":"http-auth","after":1000}]}"#;
    let line = |user: &str, method: &str| {
        format!(
            "{A} - {user} [18/Nov/2026:21:00:00 +0000] \"{method} /a.jpg HTTP/1.1\" 403 1 \"-\" \"c\"\n"
        )
    };
    let log = line("-", "GET").repeat(40)
        + &line("-", "HEAD")
        + &line("anna", "GET")
        + &line("-", "POST");
    assert_eq!(clients(jails, log.as_bytes()), BTreeMap::from([(A.to_owned(), 2)]));
}

#[test]
fn what_traefik_before_2_2_writes_without_quotes_is_read() {
    let tails = [
        ("\"web@docker\" -", 1),
        ("- -", 1),
        ("\"web@docker\" \"http://172.18.0.2:80\"", 0),
        ("-", 0),
        ("\"web@docker\"-", 0),
    ];
    for (tail, count) in tails {
        let line = traefik(A, "admin", "/", 401, "curl", 7).replace("\"web@docker\" \"-\"", tail);
        let jail = r#"{"version":1,"jails":[{"use":"traefik-auth","log":"/l"}]}"#;
        assert_eq!(clients(jail, line.as_bytes()).into_values().sum::<u32>(), count, "{line}");
    }
    let forged =
        traefik(B, "x", "/", 401, "\" 7 - - 1ms", 900_000).replace("\"web@docker\" \"-\"", "- -");
    let user = format!("x\n{forged}{B} - x");
    let log =
        traefik(A, &user, "/", 401, "curl", 7) + &traefik(A, "a", "/", 401, "\" 7 - - 1ms", 8);
    let log = traefik("192.0.2.1", "-", "/", 200, "curl", 6) + &log;
    assert_clients("traefik-clf", log, &[(A, 2)], "without quotes");
}
