//! Keeps the comments of a policy file that a program writes again.

use std::collections::{BTreeMap, HashMap};

use jsonc_parser::ast::Value;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, parse_to_ast};

use crate::json::document::JSONC;

/// Returns a new text of a policy file with the comments of the old text.
///
/// A comment belongs to the key or the element before it on its line, or else behind it. It moves with that
/// key or element; a rule is known by its name, or by all of its keys. If what it belongs to is gone,
/// the comment stands at what came next in the old text. No comment gets lost, and nothing else of the
/// new text changes. A text that is no JSON has no comments to keep.
#[must_use]
pub fn keep_comments(old: &str, new: &str) -> String {
    let (Some(old_text), Some(new_text)) = (Document::read(old), Document::read(new)) else {
        return new.to_owned();
    };
    let places: HashMap<&[String], usize> =
        new_text.entries.iter().map(|entry| (entry.path.as_slice(), entry.start)).collect();
    let place = |entry: &Entry| places.get(entry.path.as_slice()).copied();
    // Comments by the start of the line that they stand before.
    let mut inserted: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for comment in &old_text.comments {
        let is_before = |entry: &&Entry| {
            let between = old.get(entry.end..comment.start);
            between.is_some_and(|it| it.trim_matches([' ', '\t', ',']).is_empty())
        };
        let own = old_text.entries.iter().find(is_before).and_then(place);
        let next = || {
            let behind = old_text.entries.iter().filter(|entry| entry.start >= comment.start);
            behind.filter_map(&place).next()
        };
        let at = match own {
            _ if comment.is_head => 0,
            Some(start) => line_start(new, start),
            None => next().map_or(new.len(), |start| line_start(new, start)),
        };
        inserted.entry(at).or_default().extend(old.get(comment.start..comment.end));
    }
    let mut out = String::new();
    let mut from = 0;
    for (at, comments) in inserted {
        out.push_str(new.get(from..at).unwrap_or_default());
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        let line = new.get(at..).unwrap_or_default();
        let indent: String = line.chars().take_while(|letter| " \t".contains(*letter)).collect();
        for comment in comments {
            out.push_str(&format!("{indent}{}\n", comment.trim_end()));
        }
        from = at;
    }
    out.push_str(new.get(from..).unwrap_or_default());
    out
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// A key or an element of a file.
struct Entry {
    start: usize,
    end: usize,
    /// The keys and elements that lead to it.
    path: Vec<String>,
}

struct CommentPlace {
    start: usize,
    end: usize,
    /// Nothing but comments stands before it.
    is_head: bool,
}

struct Document {
    /// In the order of the text.
    entries: Vec<Entry>,
    comments: Vec<CommentPlace>,
}

impl Document {
    fn read(text: &str) -> Option<Document> {
        let collect =
            CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
        let parsed = parse_to_ast(text, &collect, &JSONC).ok()?;
        let mut entries = Vec::new();
        add_entries(&parsed.value?, &mut Vec::new(), &mut entries);
        let mut comments = Vec::new();
        let mut has_begun = false;
        for TokenAndRange { token, range } in parsed.tokens? {
            if matches!(token, Token::CommentLine(_) | Token::CommentBlock(_)) {
                comments.push(CommentPlace {
                    start: range.start,
                    end: range.end,
                    is_head: !has_begun,
                });
            } else {
                has_begun = true;
            }
        }
        Some(Document { entries, comments })
    }
}

fn add_entries(value: &Value<'_>, path: &mut Vec<String>, entries: &mut Vec<Entry>) {
    let mut add = |step: String, range: Range, value: &Value<'_>, path: &mut Vec<String>| {
        path.push(step);
        entries.push(Entry { start: range.start, end: range.end, path: path.clone() });
        add_entries(value, path, entries);
        path.pop();
    };
    match value {
        Value::Object(object) => {
            for property in &object.properties {
                add(property.name.as_str().to_owned(), property.range, &property.value, path);
            }
        }
        Value::Array(array) => {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for element in &array.elements {
                let name = identity(element);
                let number = seen.entry(name.clone()).or_default();
                *number += 1;
                add(format!("{name} {number}"), element.range(), element, path);
            }
        }
        _ => {}
    }
}

/// Returns a text that is equal for the same element: its name, or all that it says.
fn identity(value: &Value<'_>) -> String {
    match value {
        Value::Object(object) => {
            let name = object.get("name").and_then(|property| property.value.as_string_lit());
            if let Some(name) = name {
                return format!("name {}", name.value);
            }
            let mut keys: Vec<String> = object
                .properties
                .iter()
                .map(|it| format!("{:?}: {}", it.name.as_str(), identity(&it.value)))
                .collect();
            keys.sort();
            format!("{{{}}}", keys.join(", "))
        }
        Value::Array(array) => {
            let elements: Vec<String> = array.elements.iter().map(identity).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::StringLit(literal) => format!("{:?}", literal.value),
        Value::NumberLit(literal) => literal.value.to_owned(),
        Value::BooleanLit(literal) => literal.value.to_string(),
        Value::NullKeyword(_) => "null".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    const OLD: &str = r#"// The firewall of the web server. "Ask before you change it."
{
  "version": 1, // of the language
  /* Two lines
     about defaults */
  "default": { "out": "accept" },
  "rules": [
    // The office.
    { "action": "limit", "port": "ssh", "from": "192.0.2.0/24" }, // until May
    // Everybody.
    { "action": "allow", "port": ["http", "https"] },
    // The old mail server.
    { "name": "mail", "action": "allow", "port": "smtp" },
    // At the end.
  ],
}
// vim: ft=jsonc
"#;

    #[test]
    fn comments_move_with_what_they_belong_to_and_none_is_lost() {
        let new = r#"{
  "version": 1,
  "default": {
    "out": "drop"
  },
  "rules": [
    {
      "name": "mail",
      "action": "deny",
      "port": "smtp"
    },
    {
      "action": "allow",
      "port": [
        "http",
        "https"
      ]
    }
  ]
}
"#;
        let expected = r#"// The firewall of the web server. "Ask before you change it."
{
  // of the language
  "version": 1,
  /* Two lines
     about defaults */
  "default": {
    "out": "drop"
  },
  "rules": [
    // The old mail server.
    {
      "name": "mail",
      "action": "deny",
      "port": "smtp"
    },
    // The office.
    // until May
    // Everybody.
    {
      "action": "allow",
      "port": [
        "http",
        "https"
      ]
    }
  ]
}
// At the end.
// vim: ft=jsonc
"#;
        let kept = keep_comments(OLD, new);
        assert_eq!(kept, expected);
        let policy = |text: &str| Policy::parse(text).map(|(policy, _)| policy);
        assert_eq!(policy(&kept), policy(new));
        assert_eq!(keep_comments(&kept, new), kept, "again");
    }

    #[test]
    fn a_text_without_comments_or_that_is_no_json_changes_nothing() {
        let new = "{ \"version\": 1, \"rules\": [] }";
        for old in ["{ \"version\": 1 }", "", "{ // unfinished", "// only a comment"] {
            assert_eq!(keep_comments(old, new), new, "{old}");
        }
        let kept = keep_comments("{ /* here */ \"version\": 1 } // end", new);
        assert_eq!(kept, format!("/* here */\n{new}\n// end\n"));
        assert!(Policy::parse(&kept).is_ok());
    }
}
