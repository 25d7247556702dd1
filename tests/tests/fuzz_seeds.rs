//! The fuzz targets on their seeds, on earlier findings, and on simple changes of both. The
//! command `cargo xtask fuzz` searches for new inputs.

#[path = "../fuzz/cases/jail_filter.rs"]
mod jail_filter;
#[path = "../fuzz/cases/jail_read.rs"]
mod jail_read;
#[path = "../fuzz/cases/jails_parse.rs"]
mod jails_parse;
#[path = "../fuzz/cases/list_read.rs"]
mod list_read;
#[path = "../fuzz/cases/netlink_decode.rs"]
mod netlink_decode;
#[path = "../fuzz/cases/policy_parse.rs"]
mod policy_parse;
#[path = "../fuzz/cases/socket_line.rs"]
mod socket_line;
#[path = "../fuzz/cases/state_files.rs"]
mod state_files;
#[path = "../fuzz/cases/ufw_import.rs"]
mod ufw_import;

use std::fs;
use std::path::Path;

use nfguard_tests::document::repository;

/// Returns the files of a folder, or none if it is absent.
fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| fs::read(path).expect("it can be read")).collect()
}

/// Runs the case on each seed and each finding, whole, cut, and with one byte changed, at about this
/// many places.
fn replay(case: fn(&[u8]), folder: &str, name: &str, places: usize) {
    let seeds = inputs(&repository().join(folder));
    assert!(seeds.len() >= 3, "{}", seeds.len());
    let findings = inputs(&repository().join("tests/fuzz/corpus").join(name));
    for input in seeds.into_iter().chain(findings) {
        case(&input);
        for cut in (1..input.len()).step_by(input.len() / places + 1) {
            case(&input[..cut]);
            let mut changed = input.clone();
            changed[cut] ^= 0x81;
            changed[0] = changed[0].wrapping_add(u8::try_from(cut % 251).expect("is below"));
            case(&changed);
            case(&changed[..=cut]);
        }
    }
}

#[test]
fn every_seed_of_netlink_messages_is_read_or_refused_whole_and_cut() {
    replay(netlink_decode::run, "tests/fuzz/seeds/netlink_decode", "netlink_decode", 15);
}

#[test]
fn every_list_is_read_or_refused_whole_and_cut() {
    replay(list_read::run, "crates/control/src/lists/samples", "list_read", 25);
}

#[test]
fn every_line_of_the_socket_is_read_or_refused_whole_and_cut() {
    replay(socket_line::run, "tests/fuzz/seeds/socket_line", "socket_line", 200);
}

#[test]
fn every_file_of_the_state_folder_is_read_or_refused_whole_and_cut() {
    let folder = "tests/fuzz/seeds/state_files";
    for seed in inputs(&repository().join(folder)) {
        assert_ne!(state_files::read(&seed), (0, 0), "{}", String::from_utf8_lossy(&seed));
    }
    replay(state_files::run, folder, "state_files", 50);
}

#[test]
fn every_file_of_ufw_is_imported_or_refused_whole_and_cut() {
    replay(ufw_import::run, "tests/fuzz/seeds/ufw_import", "ufw_import", 200);
}

#[test]
fn every_policy_is_read_or_refused_whole_and_cut() {
    let seeds = inputs(&repository().join("policies"));
    assert!(seeds.len() >= 4, "{}", seeds.len());
    for input in
        seeds.into_iter().chain(inputs(&repository().join("tests/fuzz/corpus/policy_parse")))
    {
        let text = String::from_utf8_lossy(&input);
        policy_parse::run(&text);
        for (cut, _) in text.char_indices().step_by(text.len() / 50 + 1) {
            policy_parse::run(&text[..cut]);
            let doubled = format!("{}{}", &text[..cut], &text[..cut]);
            policy_parse::run(&doubled);
        }
    }
}

#[test]
fn every_log_is_read_alike_in_one_piece_and_in_two_whole_and_cut() {
    replay(jail_read::run, "tests/fuzz/seeds/jail_read", "jail_read", 25);
}

#[test]
fn every_file_of_jails_is_read_or_refused_whole_and_cut() {
    let seeds = inputs(&repository().join("crates/jail/src/builtin"));
    assert!(seeds.len() >= 8, "{}", seeds.len());
    for input in
        seeds.into_iter().chain(inputs(&repository().join("tests/fuzz/corpus/jails_parse")))
    {
        let text = String::from_utf8_lossy(&input);
        let text = format!("{{\"version\":1,\"jails\":[{text}]}}");
        jails_parse::run(&text);
        for (cut, _) in text.char_indices().step_by(text.len() / 8 + 1) {
            jails_parse::run(&text[..cut]);
        }
    }
}

#[test]
fn every_log_of_a_filter_is_read_alike_in_one_piece_and_in_two_whole_and_cut() {
    replay(jail_filter::run, "tests/fuzz/seeds/jail_filter", "jail_filter", 25);
}

#[test]
fn every_file_of_fail2bans_jails_is_read_or_refused_whole_and_cut() {
    let text = "[DEFAULT]\nbantime = 1h\nbantime.increment = on\nfilter = a[mode=%(mode)s]\n\
                mode = b\nlogtimezone = UTC+0100\n[My Jail]\nenabled = yes\nlogpath = /a\n /b tail\n\
                action = iptables[port=\"1,2\"]\n  mail\n[my-jail]\nenabled = 1\nbackend = systemd\n\
                journalmatch = _SYSTEMD_UNIT=a.service\nfailregex = y <HOST>\nmaxretry = 7\n\
                [recidive]\nfilter = recidive\nenabled = true\nfindtime = 60*10\n";
    jails_parse::run(text);
    for cut in 1..text.len() {
        jails_parse::run(&text[..cut]);
        jails_parse::run(&format!("{}{}", &text[..cut], &text[cut + 1..]));
    }
}
