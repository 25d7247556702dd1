//! The fuzz targets on their seeds, on earlier findings, and on simple changes of both. The
//! command `cargo xtask fuzz` searches for new inputs.

#[path = "../fuzz/cases/netlink_decode.rs"]
mod netlink_decode;
#[path = "../fuzz/cases/policy_parse.rs"]
mod policy_parse;

use std::fs;
use std::path::Path;

use nfguard_tests::document::repository;

/// Returns the files of a folder, or none if it is absent.
fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| fs::read(path).expect("it can be read")).collect()
}

#[test]
fn every_seed_of_netlink_messages_is_read_or_refused_whole_and_cut() {
    let folder = repository().join("tests/fuzz");
    let seeds = inputs(&folder.join("seeds/netlink_decode"));
    assert!(seeds.len() >= 5, "{}", seeds.len());
    for mut input in seeds.into_iter().chain(inputs(&folder.join("corpus/netlink_decode"))) {
        netlink_decode::run(&input);
        let Some(how) = input.first_mut() else { continue };
        *how ^= 1;
        netlink_decode::run(&input);
        // The step does not divide a message, so that each field is cut once.
        for cut in (1..input.len()).step_by(input.len() / 50 + 1) {
            netlink_decode::run(&input[..cut]);
            let mut changed = input.clone();
            changed[cut] ^= 0x81;
            netlink_decode::run(&changed);
        }
    }
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
