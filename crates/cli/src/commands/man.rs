//! What the program says of itself: its version, its manual pages, and what shells complete.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use nfguard_control::input::STANDARD;

use crate::args::Args;
use crate::output::failure::Failure;
use crate::{Answer, Done, output};

/// The release, what it was made from, and for what.
pub(crate) const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("NFGUARD_COMMIT"),
    ", features: ",
    env!("NFGUARD_FEATURES"),
    ", ",
    env!("NFGUARD_TARGET"),
    ")"
);

pub(crate) fn completions(shell: Shell) -> Done {
    let whole = Args::command();
    // What is hidden would be offered, too.
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let options = whole.get_arguments().cloned();
    let mut shown = Command::new("nfguard").version(VERSION).args(options).subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "nfguard", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(Answer::Yes)
}

pub(crate) fn man(folder: Option<&Path>) -> Done {
    // A page's head has the release alone.
    let command = Args::command().version(env!("CARGO_PKG_VERSION"));
    match folder {
        Some(folder) => clap_mangen::generate_to(command, folder).map_err(Failure::file(folder))?,
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            rendered.map_err(Failure::file(Path::new(STANDARD)))?;
            output::line(String::from_utf8_lossy(&page).trim_end());
        }
    }
    Ok(Answer::Yes)
}
