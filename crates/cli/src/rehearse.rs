//! `try`.
use crate::{Answer, Done};
use std::path::Path;
pub(crate) fn rehearse(_path: &Path, _json: bool) -> Done {
    Ok(Answer::Yes)
}
