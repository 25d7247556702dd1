//! The crates: which may depend on which, what each does without, and how large it may be.

use crate::source::File;
use serde_json::Value;
use std::collections::BTreeMap;

/// Every package, and the packages of ours that it may depend on. Nothing points upwards; what
/// knows policies and what knows bans meet in `control`; the guard's protocol knows neither.
const ARROWS: [(&str, &[&str]); 15] = [
    ("nfguard-netlink", &[]),
    ("nfguard-json", &[]),
    ("nfguard-policy", &["netlink", "json"]),
    ("nfguard-ufw", &["netlink", "policy"]),
    ("nfguard-jail", &["json"]),
    ("nfguard-host", &["netlink"]),
    ("nfguard-ban", &["netlink", "host"]),
    ("nfguard-api", &[]),
    ("nfguard-control", &["netlink", "policy", "host", "ban", "api"]),
    ("nfguard-lab", &[]),
    ("nfguard", &["netlink", "policy", "ufw", "jail", "host", "ban", "api", "control", "lab"]),
    ("nfguard-responder", &[]),
    (
        "nfguard-tests",
        &["netlink", "policy", "ufw", "jail", "host", "ban", "api", "control", "lab"],
    ),
    (
        "nfguard-benches",
        &["netlink", "policy", "ufw", "jail", "host", "ban", "api", "control", "lab"],
    ),
    ("xtask", &[]),
];

/// What a pure crate does without: files, sockets, programs and the clock.
const IMPURE: [&str; 12] = [
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "io::stdin",
    "UnixStream",
    "UnixListener",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime",
    "Instant",
];

/// Folders without them. The kernel's errors are `std::io` errors.
const PURE: [&str; 5] =
    ["crates/jail/src/", "crates/json/src/", "crates/policy/src/", "crates/ufw/src/", NETLINK];
const NETLINK: &str = "crates/netlink/src/";

/// What the two that know no kernel do without, too.
const NO_KERNEL: [&str; 1] = ["std::io"];

/// The file that talks to the kernel; without the feature `socket` it is not compiled.
const SOCKET: &str = "crates/netlink/src/socket";

/// What prints.
const PRINTS: [&str; 8] =
    ["print!", "println!", "eprint!", "eprintln!", "dbg!", "io::stdout", "io::stderr", "stdout()"];

/// The program alone talks to the terminal; libraries return values.
const PRINTING: [&str; 1] = ["crates/cli/"];

/// No room holds more of the sources of `crates` than this part.
const LARGEST: usize = 4;

/// Dependencies that the list does not allow. Tests of a crate may use more.
pub(super) fn arrows(packages: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("{name} has no entry"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let is_ours = ARROWS.iter().any(|(known, _)| *known == on);
            let short = on.strip_prefix("nfguard-").unwrap_or(on);
            if is_ours && dependency["kind"] != "dev" && !allowed.contains(&short) {
                problems.push(format!("{name} depends on {on}"));
            }
        }
    }
    problems
}

/// Uses of the machine in crates that are pure.
pub(super) fn impure(rust: &[&File]) -> Vec<String> {
    let is_pure = |path: &str| {
        PURE.iter().any(|folder| path.starts_with(folder)) && !path.starts_with(SOCKET)
    };
    let pure = rust.iter().filter(|file| is_pure(&file.path));
    let words = |file: &File| match file.path.starts_with(NETLINK) {
        true => IMPURE.to_vec(),
        false => [&IMPURE[..], &NO_KERNEL].concat(),
    };
    pure.flat_map(|file| file.shipped().code_with(&words(file))).collect()
}

/// Lines of libraries that print.
pub(super) fn prints(rust: &[&File]) -> Vec<String> {
    let is_library = |path: &str| {
        let in_sources = path.starts_with("crates/") && path.contains("/src/");
        in_sources && !PRINTING.iter().any(|folder| path.starts_with(folder))
    };
    let libraries = rust.iter().filter(|file| is_library(&file.path));
    libraries.flat_map(|file| file.shipped().code_with(&PRINTS)).collect()
}

/// Crates that hold too much.
pub(super) fn too_large(rust: &[&File]) -> Vec<String> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for file in rust {
        let place = file.path.strip_prefix("crates/").and_then(|it| it.split_once("/src/"));
        if let Some((room, _)) = place {
            *lines.entry(room).or_default() += file.text.lines().count();
        }
    }
    let all: usize = lines.values().sum();
    let large = lines.into_iter().filter(|(_, lines)| lines * LARGEST > all);
    large.map(|(room, lines)| format!("crates/{room}: {lines} of {all} lines")).collect()
}

#[cfg(test)]
mod tests {
    use super::{arrows, prints, too_large};
    use crate::source::File;
    use serde_json::json;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn an_arrow_that_points_upwards_is_found_and_one_of_tests_is_not() {
        let package = |kind| {
            let on = [json!({ "name": "nfguard-policy", "kind": kind })];
            [json!({ "name": "nfguard-netlink", "dependencies": on })]
        };
        assert_eq!(arrows(&package(None)), ["nfguard-netlink depends on nfguard-policy"]);
        assert_eq!(arrows(&package(Some("dev"))), [""; 0]);
        assert_eq!(arrows(&[json!({ "name": "nfguard-new" })]), ["nfguard-new has no entry"]);
    }

    #[test]
    fn a_library_that_prints_is_found() {
        let text = "fn f() { println!(); }\n#[cfg(test)]\nmod tests { fn f() { println!(); } }\n";
        let files = [file("crates/ban/src/lib.rs", text), file("crates/cli/src/main.rs", text)];
        assert_eq!(prints(&files.iter().collect::<Vec<_>>()).len(), 1);
    }

    #[test]
    fn a_room_above_a_quarter_is_found() {
        let rooms = [("a", 3), ("b", 2), ("c", 2), ("d", 2), ("e", 2)];
        let files = rooms
            .map(|(room, lines)| file(&format!("crates/{room}/src/lib.rs"), &"\n".repeat(lines)));
        let found = too_large(&files.iter().collect::<Vec<_>>());
        assert_eq!(found, ["crates/a: 3 of 11 lines"]);
    }
}
