//! `nfguard`: arguments, files and printing. What it prints comes from the libraries.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]

mod args;
mod import;
mod input;
mod inspect;
mod output;

use std::process::ExitCode;

use clap::Parser;
use nfguard_control::history::History;
use nfguard_control::rollback;

use crate::args::{Args, ImportVerb, Verb};
use crate::output::failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    let history = History::open(args.state_dir, output::warning);
    let done = match args.verb {
        Verb::Check { file } => check::check(&file, json),
        Verb::Load { file, dry_run: true, caution } => {
            load::dry_run(&file, &caution.caution(), json)
        }
        Verb::Load { file, dry_run: false, caution } => {
            load::load(&file, &caution.caution(), &history, json)
        }
        Verb::Boot { file, bans } => boot::boot(&file, bans, &history, json),
        Verb::Confirm => confirm::confirm(&history, json),
        Verb::Rollback { number, caution } => {
            confirm::rollback(number, &caution.caution(), &history, json)
        }
        Verb::History { of } => past::history(of.as_ref(), &history, json),
        Verb::WayBack { session: true } => {
            rollback::start_in_new_session().map(|()| Answer::Yes).map_err(Failure::from)
        }
        Verb::WayBack { session: false } => {
            rollback::keep(&history).map(Answer::from).map_err(Failure::from)
        }
        Verb::Diff { file, offline } => load::diff(&file, offline.as_deref(), json),
        Verb::Unload { all } => load::unload(all, &history, json),
        Verb::Show { file } => show::show(file.as_deref(), json),
        Verb::Explain(question) => explain::explain(&question, json),
        Verb::Status(seeing) => status::status(&seeing, &history, json),
        Verb::Log(request) => logged::log(&request, &history, json),
        Verb::Scans { address } => scans::scans(address, &history, json),
        Verb::Doctor(request) => doctor::doctor(&request, json),
        Verb::Ban(request) => bans::ban(&request, json),
        Verb::Unban(request) => bans::unban(&request, json),
        Verb::Bans(request) => bans::bans(&request, json),
        Verb::Save { file } => save::save(&file, json),
        Verb::Restore { file } => save::restore(&file, json),
        Verb::Feed(verb) => feed::feed(&verb, json),
        Verb::Never { change } => never::never(change.as_ref(), json),
        Verb::Import(ImportVerb::Ufw(request)) => import::run(&request, json),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { folder } => manual::man(folder.as_deref()),
        Verb::Guard(request) => guard::guard(&request, &history),
        Verb::Try { file } => rehearse::rehearse(&file, json),
    };
    match done {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(failure) => {
            failure.print(json);
            failure.exit_code()
        }
    }
}

/// What a verb that was done has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, or "yes".
    Yes,
    /// "No", or "differs".
    No,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Answer {
        if yes { Answer::Yes } else { Answer::No }
    }
}

type Done = Result<Answer, Failure>;
