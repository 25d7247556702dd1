//! The fenced code blocks of the documents.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder of README.md.
///
/// # Panics
/// Never.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder around this one").to_owned()
}

/// A fenced code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The number of its first line, from 1.
    pub line: usize,
    /// The level-two heading above the block.
    pub section: String,
    /// The language: the first word after the fence.
    pub language: String,
    /// The other words after the fence.
    pub tags: Vec<String>,
    /// The text, with a newline at its end.
    pub text: String,
}

impl Block {
    /// Returns the value of the tag `NAME=VALUE`.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='))
    }

    /// Reports whether the block has this tag.
    #[must_use]
    pub fn is(&self, tag: &str) -> bool {
        self.tags.iter().any(|it| it == tag)
    }
}

/// Returns all blocks of a document, by its path in the repository.
///
/// # Panics
/// If the document cannot be read, or its last fence is not closed.
#[must_use]
pub fn blocks(path: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(path));
    parse(&text.unwrap_or_else(|error| panic!("{path}: {error}")))
}

fn parse(text: &str) -> Vec<Block> {
    let (mut blocks, mut section, mut open) = (Vec::new(), String::new(), None::<Block>);
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some(rest)) => {
                assert_eq!(rest, "", "line {}: a block begins within another", at + 1);
                blocks.extend(open.take());
            }
            (None, Some(words)) => {
                let mut words = words.split(' ').map(str::to_owned);
                open = Some(Block {
                    line: at + 2,
                    section: section.clone(),
                    language: words.next().unwrap_or_default(),
                    tags: words.collect(),
                    text: String::new(),
                });
            }
            (None, None) => {
                // An indented fence would be missed.
                assert!(!line.trim_start().starts_with("```"), "line {}: {line}", at + 1);
                if let Some(heading) = line.strip_prefix("## ") {
                    section = heading.to_owned();
                }
            }
        }
    }
    assert_eq!(open, None, "the last block has no end");
    blocks
}

/// Reports whether text matches the text of a document, line by line. In a line of the document,
/// `…` stands for any text. A line with only `…` stands for any number of lines. Several blanks
/// count as one.
#[must_use]
pub fn is_like(text: &str, pattern: &str) -> bool {
    let lines = |text: &str| text.lines().map(with_single_blanks).collect::<Vec<_>>();
    lines_are_like(&lines(text), &lines(pattern))
}

fn with_single_blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines_are_like(lines: &[String], pattern: &[String]) -> bool {
    match (lines, pattern) {
        (_, [dots, rest @ ..]) if dots == "…" => {
            (0..=lines.len()).any(|skipped| lines_are_like(&lines[skipped..], rest))
        }
        ([line, lines @ ..], [one, rest @ ..]) => {
            line_is_like(line, one) && lines_are_like(lines, rest)
        }
        (lines, pattern) => lines.is_empty() && pattern.is_empty(),
    }
}

fn line_is_like(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return line == pattern };
    let Some(line) = line.strip_prefix(start) else { return false };
    let places = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    places.into_iter().any(|at| line_is_like(&line[at..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_words_and_its_line() {
        let text = "# A\n## B\n```sh exit=1 goes-on\none\n\ntwo\n```\n```text\n```\n";
        let blocks = parse(text);
        let [sh, text] = blocks.as_slice() else { panic!("{blocks:?}") };
        assert_eq!((sh.line, sh.section.as_str(), sh.language.as_str()), (4, "B", "sh"));
        assert_eq!((sh.tag("exit"), sh.tag("file"), sh.is("goes-on")), (Some("1"), None, true));
        assert_eq!((sh.text.as_str(), text.text.as_str()), ("one\n\ntwo\n", ""));
    }

    #[test]
    fn only_an_ellipsis_matches_any_text() {
        for (lines, pattern, wanted) in [
            ("a 1 b\nc", "a … b\nc", true),
            ("a 1 b\nc", "a …\nc", true),
            ("a 1 b\nc", "… b\nc", true),
            ("a 1 b\nc", "…", true),
            ("a 1 b\nc", "…\nc", true),
            ("c", "…\nc\n…", true),
            ("  a   1\nc ", "a 1\nc", true),
            ("a 1 b\nc", "a …", false),
            ("a 1 b\nc", "a … c\nc", false),
            ("a 1 b\nc", "a … b", false),
            ("a", "a\nb", false),
        ] {
            assert_eq!(is_like(lines, pattern), wanted, "{lines:?} {pattern:?}");
        }
    }
}
