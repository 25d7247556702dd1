//! What is judged, and what is found.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nfguard_netlink::Table;
use serde::Serialize;

use crate::inspect::ports::Port;
use crate::inspect::system::Host;

/// A problem with its cause and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// A stable name for programs.
    pub(crate) code: &'static str,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) fix: String,
}

/// The facts to judge.
pub(crate) struct Facts<'a> {
    pub(crate) host: &'a Host,
    /// The loaded policy.
    pub(crate) table: Option<&'a Table>,
    pub(crate) ports: &'a [Port],
    /// A warning for each interface that the policy has under an alternative name.
    pub(crate) alternative_names: Vec<String>,
    /// The name and the text of the file that nftables.service loads at boot.
    pub(crate) boot: Option<(String, String)>,
    /// By the address of a container: the address from which this host relays to it, and why the
    /// never-ban list refuses a ban of that address.
    pub(crate) refused: BTreeMap<IpAddr, (IpAddr, String)>,
}
