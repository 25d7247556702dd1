//! `never`: who is never banned.

use nfguard_ban::{Ally, Bans};
use serde_json::json;

use crate::args::NeverChange;
use crate::{Answer, Done, bans, output};

pub(crate) fn never(change: Option<&NeverChange>, as_json: bool) -> Done {
    let never = bans::never()?;
    let never = match change {
        None => Bans::open_existing(never.clone())?.map_or(never, |bans| bans.never().clone()),
        Some(NeverChange::Add { networks, reason }) => {
            let added = networks.iter().map(|network| (*network, reason.clone()));
            Bans::open(never.and_all(added))?.never().clone()
        }
        Some(NeverChange::Remove { networks }) => {
            let mut bans = Bans::open(never)?;
            bans.spare_no_longer(networks)?;
            bans.never().clone()
        }
    };
    if as_json {
        let allies = never.allies().iter().map(
            |Ally { network, reason }| json!({ "network": network.to_string(), "reason": reason }),
        );
        output::json(&json!({ "never": allies.collect::<Vec<_>>() }));
    } else {
        for Ally { network, reason } in never.allies() {
            output::line(&format!("{:<42} {reason}", network.to_string()));
        }
    }
    Ok(Answer::Yes)
}
