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

fn main() -> ExitCode {
    let args = Args::parse();
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
