//! `completions`: prints command completions for a shell.

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::args::{Args, VERSION};
use crate::output::{self, Answer, Done};

pub(crate) fn completions(shell: Shell) -> Done {
    let whole = Args::command();
    // clap_complete offers hidden commands too.
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let options = whole.get_arguments().cloned();
    let mut shown = Command::new("nfguard").version(VERSION).args(options).subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "nfguard", &mut script);
    output::lines(String::from_utf8_lossy(&script).trim_end());
    Ok(Answer::Yes)
}
