//! Words that make a reader stop, and do not occur.

use crate::source::File;
use std::collections::BTreeMap;

/// What no text of the repository says: old words, and words for people where the field has a noun.
const WORDS: [&str; 9] = [
    "whom",
    "whoever",
    "whomever",
    "somebody",
    "nobody",
    "lest",
    "anew",
    "so many",
    "that is there",
];

/// The file that has to name them.
const HERE: &str = "xtask/src/tidy/words.rs";

/// Files that people read: sources, documents, units, and what goes with the program.
const READ: [&str; 8] = [".rs", ".md", ".toml", ".json", ".sh", ".service", ".timer", ".conf"];

/// Every line with one of the words.
pub(super) fn lines(files: &[File]) -> Vec<String> {
    let is_read = |file: &&File| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        file.path != HERE
            && !name.starts_with("LICENSE")
            && (READ.iter().any(|end| name.ends_with(end)) || !name.contains('.'))
    };
    let mut found = Vec::new();
    for file in files.iter().filter(is_read) {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(word) = WORDS.iter().find(|word| has(line, word)) {
                found.push(format!("{}:{}: {word}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    found
}

/// How many such lines each room has.
pub(super) fn by_room(lines: &[String]) -> Vec<String> {
    let mut rooms: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        let mut parts = line.split('/');
        let room = match (parts.next(), parts.next(), parts.next()) {
            (Some("crates"), Some(name), Some(_)) => format!("crates/{name}"),
            (Some(name), Some(_), _) => name.to_owned(),
            _ => line.split(':').next().unwrap_or_default().to_owned(),
        };
        *rooms.entry(room).or_default() += 1;
    }
    rooms.into_iter().map(|(room, count)| format!("{count:5} {room}")).collect()
}

/// Whether the line has the word, whole, in whatever case.
fn has(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::{by_room, has};

    #[test]
    fn words_are_found_whole_and_in_any_case() {
        assert!(has("Somebody else", "somebody"));
        assert!(!has("the nearest way", "lest") && !has("smallest", "lest"));
        assert!(has("for so many seconds", "so many"));
    }

    #[test]
    fn each_crate_is_a_room() {
        let lines = ["crates/ban/src/a.rs:1: x", "crates/ban/src/b.rs:1: x", "README.md:1: x"];
        let counted = by_room(&lines.map(str::to_owned));
        assert_eq!(counted, ["    1 README.md", "    2 crates/ban"]);
    }
}
