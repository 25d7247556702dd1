//! Properties of every text.

use nfguard_policy::arbitrary::{Pool, policy_text};
use nfguard_policy::{Policy, Problem, Severity};
use proptest::collection::vec;
use proptest::prelude::*;

fn policies() -> impl Strategy<Value = String> {
    vec(any::<u16>(), 0..400).prop_map(|choices| policy_text(&choices, &Pool::default()))
}

/// Policies with a few pieces replaced or removed.
fn damaged() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{},:\"0-9]",
        "\\PC{1,3}",
        Just("\"port\"".to_owned()),
        Just("\"any\"".to_owned()),
        Just("null".to_owned()),
        Just("[[]]".to_owned()),
        Just("\n".to_owned()),
    ];
    let edits = vec((any::<prop::sample::Index>(), 0_usize..12, piece), 1..6);
    (policies(), edits).prop_map(|(text, edits)| {
        let mut letters: Vec<char> = text.chars().collect();
        for (at, length, piece) in edits {
            let at = at.index(letters.len() + 1);
            let end = letters.len().min(at + length);
            letters.splice(at..end, piece.chars());
        }
        letters.into_iter().collect()
    })
}

fn check_places(text: &str, problems: &[Problem]) -> Result<(), TestCaseError> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = (0, 0);
    for problem in problems {
        let line = lines.get(problem.line - 1);
        prop_assert!(line.is_some(), "{problem} is in no line");
        let columns = line.map_or(0, |line| line.chars().count()) + 1;
        prop_assert!((1..=columns).contains(&problem.column), "{problem} is in no column");
        prop_assert!(last <= (problem.line, problem.column), "{problem} is out of order");
        last = (problem.line, problem.column);
        prop_assert!(problem.pointer.is_empty() || problem.pointer.starts_with('/'));
    }
    Ok(())
}

/// Returns the text with a space in place of each character of a comment, and of each trailing comma.
fn without_comments(text: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let blank = |letters: &mut [char]| {
        for letter in letters.iter_mut().filter(|letter| !"\r\n".contains(**letter)) {
            *letter = ' ';
        }
    };
    let ends = |rest: &[char], start: &str| start.chars().eq(rest.iter().copied().take(2));
    let (mut at, mut commas) = (0, Vec::new());
    while at < letters.len() {
        let rest = &letters[at..];
        let length = if rest[0] == '"' {
            let mut length = 1;
            while rest.get(length).is_some_and(|letter| *letter != '"') {
                length += if rest[length] == '\\' { 2 } else { 1 };
            }
            length + 1
        } else if ends(rest, "//") {
            rest.iter().take_while(|letter| !"\r\n".contains(**letter)).count()
        } else if ends(rest, "/*") {
            (2..rest.len()).find(|at| ends(&rest[*at..], "*/")).unwrap_or(rest.len()) + 2
        } else {
            if rest[0] == ',' {
                commas.push(at);
            }
            1
        };
        let end = (at + length).min(letters.len());
        if letters[at] == '/' && end > at + 1 {
            blank(&mut letters[at..end]);
        }
        at = end;
    }
    for comma in commas {
        let next = letters[comma + 1..].iter().find(|letter| !letter.is_whitespace());
        if next.is_some_and(|letter| "]}".contains(*letter)) {
            letters[comma] = ' ';
        }
    }
    letters.into_iter().collect()
}

/// Puts comments and trailing commas where they are allowed.
fn with_comments(text: &str, choices: &[u8]) -> String {
    const COMMENTS: [&str; 7] = [
        "// one, \"{[\n",
        "/* two } ] , \" */",
        "/**/",
        "\n//\r\n",
        "/* größer\n* / ** // */",
        "",
        " ",
    ];
    let mut choices = choices.iter().cycle();
    let mut comment = || COMMENTS[usize::from(*choices.next().unwrap_or(&0)) % COMMENTS.len()];
    let mut out = comment().to_owned();
    let (mut is_string, mut is_escaped, mut before) = (false, false, ' ');
    for letter in text.chars() {
        if !is_string && "]}".contains(letter) {
            if !"[{".contains(before) {
                out += comment();
                out.push(',');
            }
            out += comment();
        }
        out.push(letter);
        if letter == '"' && !is_escaped {
            is_string = !is_string;
        }
        is_escaped = letter == '\\' && !is_escaped;
        if !is_string && "[]{},:\"".contains(letter) {
            out += comment();
        }
        if !letter.is_whitespace() {
            before = letter;
        }
    }
    out
}

fn check(text: &str) -> Result<(), TestCaseError> {
    match Policy::parse(text) {
        Ok((_, warnings)) => {
            check_places(text, &warnings)?;
            prop_assert!(warnings.iter().all(|it| it.severity == Severity::Warning));
            // Besides comments and trailing commas it is JSON, and each problem has its place.
            let bare = without_comments(text);
            let strict = serde_json::from_str::<serde_json::Value>(&bare);
            prop_assert!(strict.is_ok(), "other tools refuse it: {strict:?}");
            prop_assert_eq!(Policy::parse(&bare).map(|(_, warnings)| warnings), Ok(warnings));
        }
        Err(problems) => {
            check_places(text, &problems)?;
            let bare = without_comments(text);
            let is_json = problems.iter().all(|it| !it.message.starts_with("not JSON"));
            if is_json && serde_json::from_str::<serde_json::Value>(&bare).is_ok() {
                prop_assert_eq!(Policy::parse(&bare).map(drop), Err(problems.clone()));
            }
            prop_assert!(problems.iter().any(|it| it.severity == Severity::Error));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_a_policy_or_problems_with_places(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn any_json_like_text_does(text in "[\\[\\]{}:,\"a-z0-9 \n\\\\u-]{0,60}") {
        check(&text)?;
    }

    #[test]
    fn any_damaged_policy_does(text in damaged()) {
        check(&text)?;
    }

    #[test]
    fn arbitrary_policies_are_valid(text in policies()) {
        let parsed = Policy::parse(&text);
        prop_assert!(parsed.is_ok(), "{:#?}\n{text}", parsed.err());
        check(&text)?;
    }

    #[test]
    fn comments_and_trailing_commas_mean_nothing(
        text in policies(),
        choices in vec(any::<u8>(), 1..40),
    ) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for text in [value.to_string(), format!("{value:#}")] {
            let commented = with_comments(&text, &choices);
            let plain = Policy::parse(&text).map(|(policy, _)| policy);
            let parsed = Policy::parse(&commented).map(|(policy, _)| policy);
            prop_assert_eq!(parsed, plain, "{}", commented);
            check(&commented)?;
        }
    }

    #[test]
    fn any_damaged_policy_with_comments_keeps_its_places(
        text in damaged(),
        choices in vec(any::<u8>(), 1..40),
    ) {
        check(&with_comments(&text, &choices))?;
    }

    #[test]
    fn layout_and_key_order_mean_nothing(text in policies()) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let one = Policy::parse(&value.to_string()).map(|(policy, _)| policy);
        let other = Policy::parse(&format!("\n\t{value:#}\r\n")).map(|(policy, _)| policy);
        prop_assert_eq!(one, other);
    }
}
