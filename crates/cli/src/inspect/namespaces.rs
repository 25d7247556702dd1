//! Interfaces in other network namespaces that are built on those of this one. Of these, the kernel tells
//! only who looks from the other side. They are only read.

use std::path::PathBuf;

use nfguard_host::NetworkNamespace;
use nfguard_netlink::{Link, Rtnetlink};

/// The kinds of interfaces that share the hardware of another one.
const SHARING_KINDS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Returns the interfaces of other network namespaces that share one elsewhere, with who holds the
/// namespace. `open` has further files that are network namespaces. A namespace that this process may
/// not enter is left out.
pub(crate) fn sharing_links(open: Vec<PathBuf>) -> Vec<(Link, String)> {
    let others = NetworkNamespace::others(open);
    let links = others.iter().flat_map(|namespace| {
        let links = || Rtnetlink::open().and_then(|mut rtnetlink| rtnetlink.links());
        let links = namespace.run(links).ok().and_then(Result::ok).unwrap_or_default();
        let sharing = links
            .into_values()
            .filter(|link| link.is_linked_elsewhere && SHARING_KINDS.contains(&link.kind.as_str()));
        sharing.map(|link| (link, namespace.holder())).collect::<Vec<_>>()
    });
    links.collect()
}
