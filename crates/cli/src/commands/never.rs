//! `never`: who is never banned.

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanEntry, NeverBanKind, Target};
use nfguard_control::ban_table;
use serde_json::json;

use crate::args::NeverChange;
use crate::{Answer, Done, output};

pub(crate) fn never(change: Option<&NeverChange>, as_json: bool) -> Done {
    let this_host = ban_table::never()?;
    let mut stay = Vec::new();
    let never = match change {
        None => match Bans::open_existing(this_host.clone())? {
            Some(bans) => bans.never_ban().clone(),
            None => this_host,
        },
        Some(NeverChange::Add { networks, reason }) => {
            let entry = |network: &IpNetwork| {
                NeverBanEntry::from((*network, NeverBanKind::by_hand(reason)))
            };
            let added = networks.iter().map(entry);
            Bans::open(this_host.with_all(added))?.never_ban().clone()
        }
        Some(NeverChange::Remove { networks }) => {
            let mut bans = Bans::open(this_host.clone())?;
            let mut gone = Vec::new();
            for network in networks {
                match why_not(*network, &this_host, bans.never_ban()) {
                    Some(why) => stay.push(why),
                    None => gone.push(*network),
                }
            }
            bans.remove_never_ban(&gone)?;
            bans.never_ban().clone()
        }
    };
    for why in &stay {
        output::warning(why);
    }
    if as_json {
        let entries = never.entries().iter().map(|NeverBanEntry { network, kind }| {
            json!({
                "network": network.to_string(),
                "kind": kind.word(),
                "reason": kind.to_string(),
            })
        });
        output::json(&json!({ "never": entries.collect::<Vec<_>>() }));
    } else {
        for NeverBanEntry { network, kind } in never.entries() {
            output::line(&format!("{:<42} {kind}", network.to_string()));
        }
    }
    Ok(Answer::from(stay.is_empty()))
}

/// Why nobody can be taken off the list by this name. What is found anew each time would be back
/// with the next command.
fn why_not(network: IpNetwork, this_host: &NeverBan, all: &NeverBan) -> Option<String> {
    let network = Target::from(network).network();
    let on =
        |never: &NeverBan| never.entries().iter().find(|entry| entry.network == network).cloned();
    match (on(this_host), on(all)) {
        (Some(NeverBanEntry { kind, .. }), _) => {
            Some(format!("{network} stays on the list as long as it is {kind}"))
        }
        (None, None) => Some(format!("{network} is not on the list, not exactly so")),
        (None, Some(_)) => None,
    }
}
