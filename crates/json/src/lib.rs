//! Reads JSON files that people write by hand, and reports every mistake with its place.
//!
//! A type that implements [`FromJson`] has its reading beside its schema. The macros
//! [`object!`], [`schema!`] and [`words!`] make both from one list of keys or words. [`read()`] reads a
//! whole file.
//!
//! # Example
//!
//! ```
//! use nfguard_json::{object, words};
//!
//! #[derive(Clone, Copy, Debug, PartialEq)]
//! enum Colour {
//!     Red,
//!     Green,
//! }
//! words!(Colour, "colour", "A colour.", { "red" => Colour::Red, "green" => Colour::Green, });
//!
//! object! {
//!     /// A lamp.
//!     Lamp {
//!         /// Its colour.
//!         "colour" => colour: Colour [required],
//!     }
//! }
//!
//! let text = r#"{ "colour": "gren" }"#;
//! let problems = nfguard_json::read(text, |lamp: Lamp, _| lamp.colour.or_none()).unwrap_err();
//! assert_eq!(problems[0].column, 13);
//! assert_eq!(problems[0].suggestion.as_deref(), Some("\"green\""));
//! ```

pub mod document;
mod problem;
pub mod reader;
pub mod suggest;

pub use problem::{Problem, Severity};

use document::{Pointer, Problems, parse_json};
use reader::{FromJson, Node};

/// Reads a file. `check` makes of it what it means, and finds what no single value shows. Returns that
/// with the warnings.
///
/// # Errors
/// Returns every problem of the file, errors and warnings, in the order of the text. A syntax error is
/// the only problem, because nothing after it can be read.
pub fn read<T: FromJson, U>(
    text: &str,
    check: impl FnOnce(T, &mut Problems) -> U,
) -> Result<(U, Vec<Problem>), Vec<Problem>> {
    let root = parse_json(text).map_err(|problem| vec![*problem])?;
    let mut problems = Problems::default();
    let value = T::from_json(Node { value: &root, pointer: Pointer::Root }, &mut problems);
    let meaning = value.map(|value| check(value, &mut problems));
    let has_errors = problems.has_errors();
    let problems = problems.into_problems(text, &root);
    match meaning {
        Some(meaning) if !has_errors => Ok((meaning, problems)),
        _ => Err(problems),
    }
}
