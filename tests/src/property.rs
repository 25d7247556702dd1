//! The runner of property tests.

use std::env;

use proptest::test_runner::{Config, TestRunner};

/// Tries `cases` inputs, or the number in `PROPTEST_CASES`, and saves none.
///
/// # Panics
/// If `PROPTEST_CASES` is not a number.
#[must_use]
pub fn runner(cases: u32, max_shrink_iters: u32) -> TestRunner {
    let cases = env::var("PROPTEST_CASES").map_or(cases, |it| it.parse().expect("a number"));
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters,
        ..Config::default()
    })
}
