//! Any bytes in the files of the state folder are what nfguard wrote, or are refused. The checksums of
//! half of the inputs are right, so that what is behind them is read.

use std::fs;

use nfguard_control::digest::sha256;
use nfguard_control::fuzz::read_state;

/// Reads one input. It must not panic.
pub(crate) fn run(input: &[u8]) {
    read(input);
}

/// Writes one of the files and reads the folder. Returns how many bans and loads it has.
pub(crate) fn read(input: &[u8]) -> (usize, usize) {
    let Some((how, bytes)) = input.split_first() else { return (0, 0) };
    let text = String::from_utf8_lossy(bytes);
    let is_sealed = how % 2 == 0;
    let (file, sealed) = match how / 2 % 4 {
        0 => ("bans", saved_bans(&text)),
        1 => ("bans.log", text.lines().map(log_line).collect()),
        2 => ("history/0000000001.json", record(&text)),
        _ => ("scans", text.clone().into_owned()),
    };
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("history")).expect("is made");
    let written = if is_sealed { sealed.as_bytes() } else { bytes };
    fs::write(folder.path().join(file), written).expect("is written");
    read_state(folder.path())
}

fn saved_bans(lines: &str) -> String {
    let body = format!("{{\"nfguard_bans\":1,\"saved_at\":1800000000.5}}\n{lines}\n");
    let bans = body.lines().count() - 1;
    format!("{body}{{\"bans\":{bans},\"sha256\":\"{}\"}}\n", sha256(body.as_bytes()))
}

fn log_line(line: &str) -> String {
    format!("{} {line}\n", &sha256(line.as_bytes())[..16])
}

fn record(text: &str) -> String {
    let entry = text.lines().next().unwrap_or_default();
    format!("{entry}\n{{\"sha256\":\"{}\"}}\n", sha256(entry.as_bytes()))
}
