//! The `nft` program, run inside a namespace.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use nfguard_lab::Netns;

/// Runs `nft` with a script and returns what it prints.
///
/// # Panics
/// If nft is not installed or refuses the script.
pub fn nft(netns: &Netns, script: &str) -> String {
    let output = try_nft(netns, script);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft refused:\n{script}\n{words}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `nft` with a script and returns its output, also on failure.
///
/// # Panics
/// If nft is not installed.
pub fn try_nft(netns: &Netns, script: &str) -> Output {
    netns.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nft is installed");
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        stdin.write_all(script.as_bytes()).expect("nft reads");
        drop(stdin);
        child.wait_with_output().expect("nft ends")
    })
}

/// Returns the nft listing of a table, without the remaining time of its elements.
///
/// # Panics
/// As [`nft()`].
pub fn listed(netns: &Netns, table: &str) -> String {
    let text = nft(netns, &format!("list table inet {table}\n"));
    text.lines().map(without_expiry).collect::<Vec<_>>().join("\n")
}

fn without_expiry(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once(" expires ") {
        out += before;
        rest = after.trim_start_matches(|char: char| char.is_ascii_alphanumeric());
    }
    out + rest
}
