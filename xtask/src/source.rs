//! The repository's files, and what of them is code.

use std::fs;
use std::io;
use std::path::Path;

/// Folders that hold what was built or found, not what was written.
const SKIPPED: [&str; 5] = [".git", "target", "corpus", "artifacts", "proptest-regressions"];

/// A text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Relative to the top folder.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// `path:line: code` for each line whose code, comments and strings apart,
    /// has one of these as a whole word.
    pub(crate) fn code_with(&self, words: &[&str]) -> Vec<String> {
        let lines = self.text.lines().map(code).enumerate();
        lines
            .filter(|(_, code)| words.iter().any(|word| has_word(code, word)))
            .map(|(at, code)| format!("{}:{}: {}", self.path, at + 1, code.trim()))
            .collect()
    }

    /// The file without its tests, which come last.
    pub(crate) fn shipped(&self) -> File {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        File { path: self.path.clone(), text: self.text[..end].to_owned() }
    }
}

/// All text files below `root`.
pub(crate) fn files(root: &Path) -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    walk(root, root, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                walk(root, &path, found)?;
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(File { path, text });
        }
    }
    Ok(())
}

/// A line without its comment and without what stands in its strings.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => {
                characters.next();
            }
            '\'' if !quoted && characters.peek() == Some(&'"') => {
                characters.next();
                characters.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(character),
        }
    }
    code
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        let before = code[..start].chars().next_back().is_some_and(part);
        let after = word.ends_with(part) && code[end..].chars().next().is_some_and(part);
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::File;

    fn found(text: &str, word: &str) -> usize {
        File { path: "x.rs".to_owned(), text: text.to_owned() }.code_with(&[word]).len()
    }

    #[test]
    fn code_is_found_as_whole_words() {
        assert_eq!(found("let x = unsafe { y };", "unsafe"), 1);
        assert_eq!(found("#![deny(unsafe_code)]", "unsafe"), 0);
        assert_eq!(found("todo!(later)", "todo!"), 1);
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(found("x(); // unsafe", "unsafe"), 0);
        assert_eq!(found("x(\"unsafe \\\" unsafe\");", "unsafe"), 0);
        assert_eq!(found("x('\"', unsafe {})", "unsafe"), 1);
        assert_eq!(found("x(\"//\", unsafe {})", "unsafe"), 1);
    }

    #[test]
    fn tests_at_the_end_are_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        let file = File { path: "x.rs".to_owned(), text: text.to_owned() };
        assert_eq!(file.shipped().text, "fn a() {}\n");
    }
}
