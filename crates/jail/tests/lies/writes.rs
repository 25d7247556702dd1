//! Line breaks in user names of Traefik's common format, and honest logs that look like them.

use nfguard_jail::{Config, Event, Jails};

use crate::{A, ANY, B, FORGED_200, assert_clients, common, traefik};

/// What a log has around the write of an attacker: numbers before it, and failures of another after it.
fn around(write: &str) -> String {
    let before = traefik(B, "-", "/", 200, "curl", 5000);
    let after = traefik("203.0.113.7", "a", "/", 401, "curl", 5002);
    format!("{before}{write}{after}")
}

/// A record with this number that a client writes, without its line break.
fn forged(host: &str, status: u16, number: u32) -> String {
    traefik(host, "y", "/", status, "c", number).trim_end().to_owned()
}

#[test]
fn no_forged_end_of_a_record_bans_another_or_hides_a_failure() {
    let end = "x\" 5 \"r\" \"-\" 1ms";
    for user in [
        format!("{end}\n{B} - y"),
        format!("{end}\nz"),
        format!("x\n{end}\n{B} - y"),
        format!("{FORGED_200}\n{B} - y"),
        format!("{FORGED_200}\nz\n{B} - y"),
        format!("{FORGED_200}\n{FORGED_200}\n{B} - y"),
        format!(
            "{}\n{A} - x\n{}\n{B} - y",
            FORGED_200.replace(" 1 ", " 9000000 "),
            forged(B, 401, 9_000_000)
        ),
        format!(
            "{FORGED_200}\n{}\n{}\n{}",
            forged(B, 401, 2),
            forged(B, 401, 3),
            forged(B, 200, 4)
        ),
        format!("{}\n{}\n{B} - y", FORGED_200.replace(" 1 ", " - "), forged(B, 401, 7_777_777)),
        [1, 2001, 4001, 6001].map(|at| forged(B, 401, at)).join("\n"),
        format!(
            "x\n{}\nz",
            (1..40).map(|at| forged(B, 401, at * 111)).collect::<Vec<_>>().join("\n")
        ),
    ] {
        let log = around(&traefik(A, &user, "/", 401, "curl", 5001));
        assert_clients("traefik", log, &[(A, 1), ("203.0.113.7", 1)], &user);
    }
}

#[test]
fn wrong_numbers_hide_no_records_of_others() {
    let user = [1, 2001, 4001, 6001].map(|at| forged(B, 401, at)).join("\n");
    let mut log = traefik(B, "-", "/", 200, "curl", 5000);
    for at in 0..40 {
        log += &traefik(A, &format!("x\n{user}"), "/", 401, "curl", 5001 + 2 * at);
        log += &traefik("203.0.113.7", "a", "/", 401, "curl", 5002 + 2 * at);
    }
    assert_clients("traefik", log, &[(A, 40), ("203.0.113.7", 40)], "each of them");
}

#[test]
fn a_forged_time_before_a_line_break_shelters_nobodys_failures() {
    for status in [200, 401] {
        let user =
            forged(A, status, 1).replace(&format!("{A} - y"), "x").replace("2026", "2099") + "\nz";
        let jails = ANY.replace("FORMAT", "traefik").replace("1000", "3");
        let (mut jails, id) = common::jails(common::config(&jails));
        let mut log = traefik(B, "-", "/", 200, "curl", 5000);
        for at in 1..4 {
            log += &traefik(A, &user, "/", 401, "curl", 5000 + at);
        }
        let mut events = common::read(&mut jails, id, log);
        jails.finish(id, &mut |event| events.push(event));
        let bans: Vec<_> = common::bans(events)
            .map(|ban| (ban.source.to_string(), ban.until.to_string()))
            .collect();
        assert_eq!(bans, [(A.to_owned(), "2026-11-18T22:00:00Z".to_owned())], "{status}");
    }
}

#[test]
fn a_process_that_begins_anew_keeps_its_records() {
    let old: String = (5000..5020).map(|at| traefik(A, "a", "/", 401, "c", at)).collect();
    let new = |host: &str, at: u32| traefik(host, "a", "/", 401, "c", at);
    let mut log = old + &new(B, 1) + &new("203.0.113.7", 2) + &new(B, 3);
    // Within the records of the new process, another client breaks lines.
    let far = FORGED_200.replace(" 1 ", " 777 ");
    log += &traefik(A, &format!("{far}\n{B} - y"), "/", 401, "c", 4);
    log += &traefik(A, &format!("x\n{B} - y"), "/", 401, "c", 5);
    log += &new("203.0.113.7", 6);
    assert_clients("traefik", &log, &[(A, 22), (B, 2), ("203.0.113.7", 2)], "a restart");

    // They are judged as soon as the log is quiet, and only then.
    let (mut jails, id) = common::jails(common::config(ANY.replace("FORMAT", "traefik")));
    let mut count = 0;
    jails.read(id, 0, log.as_bytes(), &mut |_| count += 1);
    assert_eq!(count, 21, "what follows the first record may be a forgery by its client");
    let position = jails.position(id);
    jails.read(id, position, b"203.0.113.7 - half", &mut |_| count += 1);
    jails.settle(id, &mut |_| count += 1);
    assert_eq!(count, 26);
    let more: String = (7..9).map(|at| new(B, at)).collect();
    jails.read(id, jails.position(id), more.as_bytes(), &mut |_| count += 1);
    assert_eq!(count, 28, "the numbers of the new process are known");
}

#[test]
fn records_are_held_back_no_longer_than_one_write() {
    let mut log = traefik(A, "a", "/", 401, "c", 500_000);
    for at in 1..12_000 {
        log += &traefik(if at % 2 == 0 { B } else { A }, "a", "/", 401, "c", at);
    }
    let (mut jails, id) = common::jails(common::config(ANY.replace("FORMAT", "traefik")));
    let mut count = 0;
    jails.read(id, 0, log.as_bytes(), &mut |event| {
        count += u32::from(matches!(event, Event::Evidence(_)));
    });
    assert_eq!(count, 12_000);
}

#[test]
fn a_doubt_ends_with_its_file() {
    // A slow request, whose number is not remembered, is the last of its file.
    let (mut jails, id) = common::jails(common::config(ANY.replace("FORMAT", "traefik")));
    let mut found = Vec::new();
    let mut each = |event: Event| {
        if let Event::Evidence(taken) = event {
            found.push((taken.line, taken.client));
        }
    };
    let log = traefik(A, "a", "/", 401, "c", 5000) + &traefik(B, "a", "/", 401, "c", 1000);
    jails.read(id, 0, log.as_bytes(), &mut each);
    jails.restart(id);
    let rest = " 401 17 \"-\" \"c\" 5001 \"r\" \"-\" 1ms\n";
    let log = format!("{rest}{}", traefik(A, "a", "/", 401, "c", 5002));
    jails.read(id, 0, log.as_bytes(), &mut each);
    assert_eq!(found, [(1, A.into()), (2, B.into()), (4, A.into())]);
}

#[test]
fn what_a_proxy_forwards_bans_nobody_in_traefiks_common_format() {
    let jails = ANY.replace("\"FORMAT\"", "\"traefik\",\"trusted_proxies\":[\"192.0.2.0/24\"]");
    let (config, warnings) = Config::parse(&jails).unwrap();
    assert!(warnings.iter().any(|it| it.to_string().contains("write the log as JSON")));
    let said = [
        traefik(&format!("{B} - y, {A}"), "a", "/", 401, "c", 7),
        traefik(&format!("{B} - y, {A}"), "a\nz", "/", 401, "c", 8),
        traefik(&format!("{B}, {A}"), "a", "/", 401, "c", 9),
        traefik(&format!("{A}, 192.0.2.1"), "x\nz", "/", 401, "c", 10),
        traefik(A, "a, b - c", "/", 401, "c", 11),
    ];
    let mut jails = Jails::new(config, Vec::new());
    let (id, _) = jails.logs().next().unwrap();
    let found: Vec<_> = common::evidence(common::read(&mut jails, id, said.concat()))
        .map(|taken| (taken.line, taken.client))
        .collect();
    assert_eq!(found, [(4, A.into()), (6, A.into()), (7, A.into())]);
    assert_eq!(jails.counts(id).unclear, 2);
}

#[test]
fn the_rest_of_a_record_comes_through_the_same_proxy() {
    let text = ANY.replace("1000", "1");
    let text = text.replace("\"FORMAT\"", "\"traefik\",\"trusted_proxies\":[\"192.0.2.0/24\"]");
    let (mut jails, id) = common::jails(common::config(&text));
    let log = traefik(&format!("{A}, 192.0.2.1"), "x\nz", "/", 401, "c", 10);
    let mut events = common::read(&mut jails, id, log);
    jails.finish(id, &mut |event| events.push(event));
    let proxies: Vec<_> =
        common::bans(events).map(|ban| ban.proxy.map(|it| it.to_string())).collect();
    assert_eq!(proxies, [Some("192.0.2.1".to_owned())]);
}
