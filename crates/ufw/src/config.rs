//! The files that UFW reads, as values.

use nfguard_netlink::{PerIpVersion, Published};

/// One file and its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// The file's path, as diagnostics show it.
    pub name: String,
    /// The file's text. Bytes outside UTF-8 may stand only in comments.
    pub text: String,
}

/// All files of a UFW configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UfwConfig {
    /// `/etc/default/ufw`.
    pub defaults: SourceFile,
    /// `ufw.conf`.
    pub conf: SourceFile,
    /// `user.rules` and `user6.rules`: the rules that `ufw` commands made.
    pub user_rules: PerIpVersion<SourceFile>,
    /// `before.rules` and `before6.rules`.
    pub before_rules: PerIpVersion<SourceFile>,
    /// `after.rules` and `after6.rules`.
    pub after_rules: PerIpVersion<SourceFile>,
    /// The file that `IPT_SYSCTL` in `defaults` names, if it exists. See
    /// [`sysctl_path`](crate::sysctl_path).
    pub sysctl: Option<SourceFile>,
    /// The files of `applications.d`, in UFW's order: of two profiles with one name, the last counts.
    pub profiles: Vec<SourceFile>,
    /// The ports that the kernel forwards, by rules of Docker and others. UFW judges those packets by
    /// the receiver's port, and has no list of them. Empty if they are not known.
    pub published: Vec<Published>,
    /// The paths of `before.init` and `after.init`, where they are executable.
    pub scripts: Vec<String>,
}
