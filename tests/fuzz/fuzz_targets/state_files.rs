//! See the case.
#![no_main]

#[path = "../cases/state_files.rs"]
mod case;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| case::run(input));
