//! `man`: prints the manual page, or writes one page for each command.

use std::path::Path;

use clap::CommandFactory as _;
use nfguard_control::input::STANDARD;

use crate::args::Args;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn man(folder: Option<&Path>) -> Done {
    // The head of a page names only the release.
    let command = Args::command().version(env!("CARGO_PKG_VERSION"));
    match folder {
        Some(folder) => clap_mangen::generate_to(command, folder).map_err(Failure::file(folder))?,
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            rendered.map_err(Failure::file(Path::new(STANDARD)))?;
            output::lines(String::from_utf8_lossy(&page).trim_end());
        }
    }
    Ok(Answer::Yes)
}
