//! Names in the abstract namespace, which any user may take or connect to.

use nix::unistd::Uid;

/// Whether this user may change the firewall.
pub(crate) fn is_trusted(user: u32) -> bool {
    user == 0 || user == Uid::effective().as_raw()
}
