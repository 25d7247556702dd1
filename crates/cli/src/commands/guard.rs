//! `guard`: keeps what is loaded, whatever other programs do.

use nfguard_control::guard;
use nfguard_control::history::History;
use nfguard_control::policy_file::PolicyFile;

use crate::args::GuardRequest;
use crate::{Answer, Done, journal, output};

pub(crate) fn guard(request: &GuardRequest, history: &History) -> Done {
    journal::open();
    let file = request.file.as_deref().map(PolicyFile::read_trusted).transpose()?;
    let file = file.map(|file| output::warned(file, false));
    guard::run(&request.options(), file.as_ref(), history)?;
    Ok(Answer::Yes)
}
