//! `nfguard`: arguments, files and printing. The libraries do the work.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]

mod args;
mod commands;
mod input;
mod inspect;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;
use crate::output::Answer;

/// Ends with help, or with what is wrong with the arguments. A value may be anything, and is quoted.
fn exit(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    output::to_stderr(output::PLAIN, error.render().to_string().trim_end());
    std::process::exit(error.exit_code());
}

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| exit(&error));
    let json = args.json;
    match commands::run(args) {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(failure) => {
            failure.print(json);
            failure.exit_code()
        }
    }
}
