//! Every command block of README.md and docs/ is run, as it stands.
//!
//! A document is read from its beginning, as root, on a machine of its own: a mount, a process and
//! a network namespace, with what is written kept apart from this machine's files. Each `sh` block
//! is one shell, which stops at the first command that fails. What a block prints is compared with
//! the `text` block after it, in which `…` stands for anything ([`document::is_like`]).
//!
//! Three programs are stand-ins: `apt-get` puts into place what our package has, by the list that
//! the package is made from; `systemctl` runs what our units name; `cargo run` runs the program
//! that is already built. Nothing is known here of how systemd orders or fences the units
//! (`peers_systemd_root`), nor of the package as such (`cargo xtask dist`).
//!
//! A block's fence may have more words, and no others:
//!
//! | Block | Word | Meaning |
//! |---|---|---|
//! | `sh` | `exit=N` | it ends with this status |
//! | `sh` | `goes-on` | a guard, which goes on while the next ones are run |
//! | `sh` | `run-by=docker_root` | that test runs it |
//! | `sh` | `run-by=xtask` | the command that runs this test, or the one that makes the package |
//! | `text` | `drawing` | it is not what a block prints |
//! | `text`, `json` | `file=NAME` | the reader writes it to this file |

mod machine;

use std::fs;

use machine::{CommandOutcome, Machine};
use nfguard_policy::Policy;
use nfguard_tests::document::{self, Block, blocks, repository};

/// The documents, and the least number of command blocks of each.
const DOCUMENTS: [(&str, usize); 14] = [
    ("README.md", 6),
    ("docs/api.md", 2),
    ("docs/bans.md", 1),
    ("docs/beside.md", 0),
    ("docs/guard.md", 2),
    ("docs/guide.md", 30),
    ("docs/jails.md", 0),
    ("docs/lists.md", 2),
    ("docs/performance.md", 0),
    ("docs/policy.md", 0),
    ("docs/recipe.md", 4),
    ("docs/rollback.md", 0),
    ("docs/scans.md", 0),
    ("docs/security.md", 2),
];

/// The number of blocks that another test or task runs.
const ELSEWHERE: [(&str, &str, usize); 3] = [
    ("docs/recipe.md", "docker_root", 4),
    ("README.md", "xtask", 2),
    ("docs/guide.md", "xtask", 1),
];

/// Runs a document from its beginning.
fn follow(document: &str, machine: &mut Machine) {
    let mut last: Option<(usize, String)> = None;
    for block in blocks(document) {
        let place = format!("{document}:{}", block.line);
        match (block.language.as_str(), block.tag("file")) {
            ("sh", _) if block.tag("run-by").is_some() => last = None,
            ("sh", _) if block.is("goes-on") => {
                machine.start(&block.text);
                last = None;
            }
            ("sh", _) => {
                let CommandOutcome { status, printed } = machine.run(&block.text);
                let wanted = block.tag("exit").map_or(0, |it| it.parse().expect("a number"));
                assert_eq!(status, Some(wanted), "{place}:\n{}\n{printed}", block.text);
                last = Some((block.line, printed));
            }
            (_, Some(file)) => machine.write(file, &block.text),
            ("text", None) if !block.is("drawing") => {
                let (_, printed) =
                    last.take().unwrap_or_else(|| panic!("{place}: of which block?"));
                let is_like = document::is_like(&printed, &block.text);
                assert!(is_like, "{place}: expected\n{}\nfound\n{printed}", block.text);
            }
            _ => {}
        }
        machine.check_background_commands();
    }
}

#[test]
fn every_fence_has_known_words_and_no_block_is_forgotten() {
    let docs = fs::read_dir(repository().join("docs")).expect("docs");
    let docs = docs.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let docs = docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let mut found: Vec<_> = docs.chain(["README.md".to_owned()]).collect();
    found.sort();
    assert_eq!(found, DOCUMENTS.map(|(document, _)| document), "all documents are known");

    let mut elsewhere = Vec::new();
    for (document, least) in DOCUMENTS {
        let blocks = blocks(document);
        for block in &blocks {
            let place = format!("{document}:{}", block.line);
            is_known(block).unwrap_or_else(|why| panic!("{place}: {why}"));
            elsewhere.extend(block.tag("run-by").map(|by| (document, by.to_owned())));
        }
        // Only the output tells which command has failed.
        for (block, next) in blocks.iter().zip(blocks.iter().skip(1)) {
            let is_shown = block.tag("exit").is_none() || next.language == "text";
            assert!(is_shown, "{document}:{}: what does it print?", block.line);
        }
        let count = blocks.iter().filter(|block| block.language == "sh").count();
        assert!(count >= least, "{document} has {count} command blocks");
    }
    for (document, by, count) in ELSEWHERE {
        let found = elsewhere.extract_if(.., |it| it.0 == document && it.1 == by).count();
        assert_eq!(found, count, "{document}: run by {by}");
    }
    assert_eq!(elsewhere, [], "what runs it?");
}

fn is_known(block: &Block) -> Result<(), String> {
    let tags: Vec<_> = block.tags.iter().map(|tag| tag.split('=').next().unwrap_or(tag)).collect();
    match (block.language.as_str(), tags.as_slice()) {
        ("sh", [] | ["exit"] | ["goes-on"]) => Ok(()),
        ("sh", ["run-by"]) => is_run(block, block.tag("run-by").unwrap_or_default()),
        ("text", [] | ["drawing"] | ["file"]) | ("json", [] | ["file"]) | ("rust", []) => Ok(()),
        (language, tags) => Err(format!("what is {language:?} {tags:?}?")),
    }
}

/// Asserts that another test or task runs the block.
fn is_run(block: &Block, by: &str) -> Result<(), String> {
    let root = repository();
    let found = match by {
        "docker_root" => {
            let test = fs::read_to_string(root.join("tests/tests/docker_root/recipe.rs"));
            let names_it = format!("\"{}\"", block.section);
            test.is_ok_and(|test| test.contains(&names_it))
        }
        "xtask" => {
            let command = block.text.split('#').next().unwrap_or_default().trim();
            let is_known = ["cargo xtask test", "cargo xtask dist"].contains(&command);
            is_known && block.text.lines().count() == 1
        }
        _ => false,
    };
    if found { Ok(()) } else { Err(format!("{by} does not run it")) }
}

#[test]
fn every_policy_in_a_document_is_valid() {
    let mut count = 0;
    // The page on jails has none; its crate reads what it shows.
    for (document, _) in DOCUMENTS.iter().filter(|(document, _)| *document != "docs/jails.md") {
        for block in blocks(document).iter().filter(|block| block.language == "json") {
            let parsed = Policy::parse(&block.text);
            assert!(parsed.is_ok(), "{document}:{}: {:#?}", block.line, parsed.err());
            count += 1;
        }
    }
    assert!(count > 9, "only {count} policies");
}

/// Makes a machine with our package installed.
fn installed() -> Machine {
    let machine = Machine::new();
    machine.succeed("apt-get install ./target/dist/out/nfguard_0.1.0_amd64.deb");
    machine
}

#[test]
fn the_readme_does_what_it_says() {
    follow("README.md", &mut installed());
}

#[test]
fn the_page_on_the_guard_s_socket_does_what_it_says() {
    follow("docs/api.md", &mut installed());
}

#[test]
fn the_page_on_bans_does_what_it_says() {
    follow("docs/bans.md", &mut installed());
}

#[test]
fn the_page_on_the_guard_does_what_it_says() {
    follow("docs/guard.md", &mut installed());
}

#[test]
fn the_page_on_security_does_what_it_says() {
    follow("docs/security.md", &mut installed());
}

#[test]
fn the_page_on_lists_does_what_it_says() {
    follow("docs/lists.md", &mut installed());
}

#[test]
fn the_guide_does_what_it_says() {
    let mut machine = Machine::new();
    // A reader who comes from UFW has UFW rules.
    for rule in ["limit ssh", "allow 80/tcp", "default deny outgoing", "allow out 53"] {
        machine.succeed(&format!("ufw {rule}"));
    }
    follow("docs/guide.md", &mut machine);
    assert_eq!(machine.succeed("cat /run/asked"), ASKED);
}

/// The requests of the guide to systemd.
const ASKED: &str = "\
enable --now nfguard.service nfguard-bans.service nfguard-save.timer
reload nfguard.service
enable --now nfguard-guard.service
daemon-reload
restart nfguard-guard.service
disable --quiet nfguard-save.timer nfguard-bans.service nfguard-log.service nfguard-guard.service \
nfguard.service
disable nfguard.service nfguard-bans.service nfguard-save.timer
stop nfguard-guard.service
";
