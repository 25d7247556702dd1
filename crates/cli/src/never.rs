//! `never`: who is never banned.

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanEntry, Target};
use nfguard_control::ban_table;
use serde_json::json;

use crate::args::NeverChange;
use crate::{Answer, Done, output};

pub(crate) fn never(change: Option<&NeverChange>, as_json: bool) -> Done {
    let this_host = ban_table::never()?;
    let mut stay = Vec::new();
    let never = match change {
        None => match Bans::open_existing(this_host.clone())? {
            Some(bans) => bans.never().clone(),
            None => this_host,
        },
        Some(NeverChange::Add { networks, reason }) => {
            let added = networks.iter().map(|network| (*network, reason.clone()));
            Bans::open(this_host.and_all(added))?.never().clone()
        }
        Some(NeverChange::Remove { networks }) => {
            let mut bans = Bans::open(this_host.clone())?;
            let mut gone = Vec::new();
            for network in networks {
                match why_not(*network, &this_host, bans.never()) {
                    Some(why) => stay.push(why),
                    None => gone.push(*network),
                }
            }
            bans.spare_no_longer(&gone)?;
            bans.never().clone()
        }
    };
    for why in &stay {
        output::warning(why);
    }
    if as_json {
        let allies = never.entries().iter().map(
            |NeverBanEntry { network, reason }| json!({ "network": network.to_string(), "reason": reason }),
        );
        output::json(&json!({ "never": allies.collect::<Vec<_>>() }));
    } else {
        for NeverBanEntry { network, reason } in never.entries() {
            output::line(&format!("{:<42} {reason}", network.to_string()));
        }
    }
    Ok(Answer::from(stay.is_empty()))
}

/// Why nobody can be taken off the list by this name. What is found anew each time would be back
/// with the next command.
fn why_not(network: IpNetwork, this_host: &NeverBan, all: &NeverBan) -> Option<String> {
    let network = Target::from(network).network();
    let on =
        |never: &NeverBan| never.entries().iter().find(|ally| ally.network == network).cloned();
    match (on(this_host), on(all)) {
        (Some(NeverBanEntry { reason, .. }), _) => {
            Some(format!("{network} stays on the list as long as it is {reason}"))
        }
        (None, None) => Some(format!("{network} is not on the list, not exactly so")),
        (None, Some(_)) => None,
    }
}
