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

fn check(text: &str) -> Result<(), TestCaseError> {
    match Policy::parse(text) {
        Ok((_, warnings)) => {
            check_places(text, &warnings)?;
            prop_assert!(warnings.iter().all(|it| it.severity == Severity::Warning));
            let strict = serde_json::from_str::<serde_json::Value>(text);
            prop_assert!(strict.is_ok(), "other tools refuse it: {strict:?}");
        }
        Err(problems) => {
            check_places(text, &problems)?;
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
    fn layout_and_key_order_mean_nothing(text in policies()) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let one = Policy::parse(&value.to_string()).map(|(policy, _)| policy);
        let other = Policy::parse(&format!("\n\t{value:#}\r\n")).map(|(policy, _)| policy);
        prop_assert_eq!(one, other);
    }
}
