//! The journal and sshd: what a client writes there.

use std::collections::BTreeMap;

use nfguard_jail::Event;

use crate::{A, B, clients, common};

const SSHD: &str = r#"{"version":1,"jails":[{"use":"sshd","after":1000}]}"#;

#[test]
fn a_binary_field_of_the_journal_cannot_imitate_an_entry() {
    let jail = r#"{"version":1,"jails":[{"use":"sshd","log":{"format":"journal"},"after":1000}]}"#;
    let entry = |unit: &str, uid: &str, message: &[u8]| {
        let mut entry = format!(
            "__CURSOR=a\n__REALTIME_TIMESTAMP=1795035600000000\n_SYSTEMD_UNIT={unit}\n_UID={uid}\n\
             SYSLOG_IDENTIFIER=sshd\nMESSAGE\n"
        )
        .into_bytes();
        entry.extend_from_slice(&(message.len() as u64).to_le_bytes());
        entry.extend_from_slice(message);
        entry.extend_from_slice(b"\n\n");
        entry
    };
    let failed = |address: &str| format!("Failed password for root from {address} port 1 ssh2");
    let forged = entry("ssh.service", "0", failed(B).as_bytes());
    let log = [
        entry("user@1000.service", "1000", &[b"x\n\n", &forged[..]].concat()),
        entry("evil.service", "0", failed(B).as_bytes()),
        entry("ssh.service", "1000", failed(B).as_bytes()),
        entry("ssh@1-2.service", "0", failed(A).as_bytes()),
        entry("ssh.service", "0", failed(A).as_bytes()),
    ]
    .concat();
    assert_eq!(clients(jail, &log), BTreeMap::from([(A.to_owned(), 2)]));
}

#[test]
fn what_stands_before_a_journal_hides_nothing_of_it() {
    let message = format!("Failed password for root from {A} port 1 ssh2");
    let json = format!(
        r#"{{"__REALTIME_TIMESTAMP":"1795035600000000","_SYSTEMD_UNIT":"ssh.service","_UID":"0","MESSAGE":"{message}"}}"#
    );
    let export = format!(
        "__CURSOR=a\n__REALTIME_TIMESTAMP=1795035600000000\n_SYSTEMD_UNIT=ssh.service\n_UID=0\n\
         MESSAGE={message}\n\n"
    );
    for leader in ["", "\u{feff}", "\0\0\0", "\0\0\n", "\"x\"}\n", "{\"a\":\n", "half\n\n"] {
        for log in [format!("{json}\n"), export.clone()] {
            let found = clients(SSHD, format!("{leader}{log}").as_bytes());
            assert_eq!(found, BTreeMap::from([(A.to_owned(), 1)]), "{leader:?} {log}");
        }
    }
    let syslog = format!("Nov 18 21:00:00 h sshd[1]: {message}\n");
    let forged = json.replace(A, B);
    let found = clients(SSHD, format!("{syslog}{forged}\n").as_bytes());
    assert_eq!(found, BTreeMap::from([(A.to_owned(), 1)]));
}

#[test]
fn one_attempt_at_sshd_is_one_piece_of_evidence() {
    let of = |process: u32, port: u16, messages: &[&str]| -> String {
        let line = |it: &&str| {
            format!(
                "2026-11-18T21:00:00Z h sshd[{process}]: {}\n",
                it.replace("PEER", &format!("{A} port {port}"))
            )
        };
        messages.iter().map(line).collect()
    };
    let wrong = "Failed password for root from PEER ssh2";
    let closed = "Connection closed by authenticating user root PEER [preauth]";
    let unknown = [
        "Invalid user x from PEER",
        "Failed password for invalid user x from PEER ssh2",
        "Connection closed by invalid user x PEER [preauth]",
    ];
    for (log, count) in [
        (of(1, 40, &unknown), 1),
        (of(1, 40, &[wrong, wrong, wrong, closed]), 3),
        // The client chooses its port, and not the process.
        (of(1, 40, &unknown[..1]) + &of(2, 40, &[wrong]) + &of(3, 40, &[closed]), 3),
    ] {
        assert_eq!(clients(SSHD, log.as_bytes()), BTreeMap::from([(A.to_owned(), count)]), "{log}");
    }
}

#[test]
fn an_export_of_the_journal_is_not_entered_in_its_middle() {
    let entry = |message: &str| {
        format!(
            "__CURSOR=a\n__REALTIME_TIMESTAMP=1795035600000000\n_SYSTEMD_UNIT=ssh.service\n_UID=0\n\
             MESSAGE={message}\n\n"
        )
    };
    let failed = |address: &str| entry(&format!("Invalid user x from {address} port 40"));
    let (mut jails, id) = common::jails(common::config(SSHD));
    let mut found = Vec::new();
    let mut each = |event: Event| {
        if let Event::Evidence(taken) = event {
            found.push(taken.client);
        }
    };
    jails.read(id, 0, failed(A).as_bytes(), &mut each);
    jails.read(id, 10_000, format!("half of a message\n\n{}", failed(B)).as_bytes(), &mut each);
    jails.restart(id);
    jails.read(id, 0, failed(A).as_bytes(), &mut each);
    assert_eq!(found, [A, A]);
}

#[test]
fn half_a_line_of_sshd_and_half_an_entry_ban_no_other() {
    for (message, count) in [
        (format!("Invalid user x from {A} port 40"), 1),
        (format!("Invalid user x from {A}"), 0),
        (format!("ROOT LOGIN REFUSED FROM {A}"), 0),
    ] {
        let log = format!("Nov 18 21:00:00 h sshd[1]: {message}");
        assert_eq!(clients(SSHD, log.as_bytes()).values().sum::<u32>(), count, "{log}");
    }
    let entry = format!(
        "__CURSOR=a\n__REALTIME_TIMESTAMP=1795035600000000\n_SYSTEMD_UNIT=ssh.service\n_UID=0\n\
         MESSAGE=Invalid user x from {A} port 40"
    );
    assert_eq!(clients(SSHD, entry.as_bytes()), BTreeMap::new());
}

#[test]
fn messages_that_rsyslog_has_joined_are_evidence_and_their_words_name_no_other() {
    let clients = |message: &str| {
        let line = format!("Nov 18 21:00:00 h sshd[5]: {message}\n");
        clients(SSHD, line.as_bytes()).into_keys().collect::<Vec<_>>()
    };
    let failed = |user: &str| format!("Failed password for {user} from {A} port 5 ssh2");
    assert_eq!(clients(&format!("message repeated 2 times: [ {}]", failed("root"))), [A]);
    let user = format!("x from {B} port 1 ssh2]");
    assert_eq!(clients(&format!("message repeated 12 times: [ {}]", failed(&user))), [A]);
    assert_eq!(clients(&format!("message repeated 2 times: [ {}", failed("root"))), [""; 0]);
    assert_eq!(clients(&format!("message repeated times: [ {}]", failed("root"))), [""; 0]);
}
