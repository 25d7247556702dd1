//! Just enough of Rust's syntax to list what files import and what a crate makes public.

/// The text with each comment, and what stands in strings and characters, replaced by spaces.
/// Lines and columns stay.
pub(crate) fn without_words(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut plain = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' if starts_raw_string(&chars, at) => raw_string_end(&chars, at),
            '\'' => char_end(&chars, at).unwrap_or(at + 1),
            _ => at + 1,
        };
        let end = end.min(chars.len());
        match chars[at] {
            // A lifetime, or code.
            other if end == at + 1 => plain.push(other),
            _ => plain.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' })),
        }
        at = end;
    }
    plain
}

fn line_end(chars: &[char], start: usize) -> usize {
    (start..chars.len()).find(|at| chars[*at] == '\n').unwrap_or(chars.len())
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn starts_raw_string(chars: &[char], start: usize) -> bool {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    // `br"…"` counts, `for"` does not occur.
    let before = start.checked_sub(1).map(|at| chars[at]);
    let begins = before.is_none_or(|c| !is_word(&c) || c == 'b');
    let quote = chars[start + 1..].iter().find(|c| **c != '#');
    begins && quote == Some(&'"')
}

fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let mut at = start + 1 + hashes + 1;
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take(hashes).all(|c| *c == '#');
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

/// The end of a character, or nothing for a lifetime.
fn char_end(chars: &[char], start: usize) -> Option<usize> {
    let end = match chars.get(start + 1)? {
        '\\' => (start + 3..chars.len()).find(|at| chars[*at] == '\'')?,
        _ if chars.get(start + 2) == Some(&'\'') => start + 2,
        _ => return None,
    };
    Some(end + 1)
}

/// One item: `pub fn x() { … }`, with what stands before its body, and the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item<'t> {
    /// `#[…]` lines before it.
    pub(crate) attributes: Vec<&'t str>,
    /// Up to the body, or the semicolon.
    pub(crate) head: &'t str,
    /// What stands in the braces, if there are any.
    pub(crate) body: Option<&'t str>,
}

/// The items of a text that [`without_words`] has returned.
pub(crate) fn items(text: &str) -> Vec<Item<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let mut attributes = Vec::new();
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        while let Some(open) = rest.strip_prefix("#").map(|after| after.find('[')) {
            let Some(open) = open else { return found };
            let end = closing(rest, open + 1).map_or(rest.len(), |at| at + 1);
            attributes.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        if rest.is_empty() {
            return found;
        }
        let end = head_end(rest);
        let head = rest[..end].trim();
        let (body, after) = match rest[end..].chars().next() {
            Some('{') => match closing(rest, end) {
                Some(close) => (Some(&rest[end + 1..close]), &rest[close + 1..]),
                None => (Some(&rest[end + 1..]), ""),
            },
            Some(_) => (None, &rest[end + 1..]),
            None => (None, ""),
        };
        found.push(Item { attributes, head, body });
        rest = after;
    }
}

/// Where an item's body or its semicolon is.
fn head_end(text: &str) -> usize {
    let is_use = text.starts_with("use ") || text.starts_with("pub use ");
    let mut depth = 0usize;
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth == 0 && !is_use => return at,
            ';' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// Where the bracket that opens at `open` closes.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, character) in text[open..].char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(open + at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The parts of a list, split at commas that are in no bracket.
pub(crate) fn parts(list: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut angles) = (Vec::new(), 0, 0usize, 0usize);
    let mut before = ' ';
    for (at, character) in list.char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '<' => angles += 1,
            '>' if before != '-' && before != '=' => angles = angles.saturating_sub(1),
            ',' if depth == 0 && angles == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        before = character;
    }
    found.push(list[start..].trim());
    found.retain(|part| !part.is_empty());
    found
}

/// The text on one line, with single spaces.
pub(crate) fn on_one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace(", }", " }")
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(",)", ")")
        .replace(" )", ")")
}

#[cfg(test)]
mod tests {
    use super::{items, on_one_line, parts, without_words};

    #[test]
    fn comments_and_strings_become_spaces_and_lifetimes_stay() {
        assert_eq!(without_words("a /* x */ b // c\nd"), "a         b     \nd");
        assert_eq!(without_words("f(\"{ \\\" \", 'x')"), "f(       ,    )");
        assert_eq!(without_words("r#\"{\"}\"# 'a"), "         'a");
        assert_eq!(without_words("'\\'' &'a str"), "     &'a str");
    }

    #[test]
    fn items_have_attributes_a_head_and_a_body() {
        let found = items("#[derive(A)]\npub struct B { pub c: [u8; 2] }\npub use d::{e, f};\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].attributes, ["#[derive(A)]"]);
        assert_eq!((found[0].head, found[0].body), ("pub struct B", Some(" pub c: [u8; 2] ")));
        assert_eq!((found[1].head, found[1].body), ("pub use d::{e, f}", None));
    }

    #[test]
    fn a_list_is_split_where_no_bracket_is_open() {
        assert_eq!(
            parts("a: B<C, D>, e: (F, G), h: fn(I) -> J"),
            ["a: B<C, D>", "e: (F, G)", "h: fn(I) -> J"]
        );
    }

    #[test]
    fn a_head_over_many_lines_is_one_line() {
        assert_eq!(on_one_line("pub fn a(\n    b: C,\n) -> D"), "pub fn a(b: C) -> D");
    }
}
