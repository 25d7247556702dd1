//! `guard`: protects the loaded policy and the bans against other programs.

use nfguard_control::context::Context;
use nfguard_control::guard;
use nfguard_control::policy_file::PolicyFile;

use crate::args::GuardRequest;
use crate::output::{self, Answer, Done, journal};

pub(crate) fn guard(request: &GuardRequest, context: &Context) -> Done {
    journal::open();
    let file = request.file.as_deref().map(PolicyFile::read_trusted).transpose()?;
    let file = file.map(|file| output::warned(file, false));
    guard::run(&request.options(), file.as_ref(), context)?;
    Ok(Answer::Yes)
}
