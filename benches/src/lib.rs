//! Shared code of the benchmarks: their namespaces, their measurements, their output.
//!
//! Every number is a median. The runs took turns with those of the peers, so that a neighbour
//! on the machine slows all alike. Quote ratios of one run, never one number.

pub mod child;
mod machine;
mod place;
mod plot;
mod sample;
mod table;
mod ufw;

pub use machine::{Program, header};
pub use place::enter;
pub use plot::{Plot, Series};
pub use sample::{Sample, Samples, children, in_turns, run, timed};
pub use table::{millis, table};
pub use ufw::Ufw;

/// The result of a benchmark, which stops at the first error.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
