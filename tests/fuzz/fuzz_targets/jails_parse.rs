//! See the case.
#![no_main]

#[path = "../cases/jails_parse.rs"]
mod case;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| case::run(input));
