//! `never`: lists and changes the never-ban entries.

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanEntry, NeverBanKind, Target};
use nfguard_control::context::Context;
use nfguard_control::persistence;
use nfguard_control::voided_bans;
use serde_json::{Value, json};

use crate::args::NeverChange;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done, bans};

pub(crate) fn never(change: Option<&NeverChange>, context: &Context, as_json: bool) -> Done {
    let of_this_host = context.never_ban()?;
    let (mut kept, mut voided) = (Vec::new(), Vec::new());
    let never = match change {
        None => match Bans::open_existing(of_this_host.clone())? {
            Some(bans) => bans.never_ban().clone(),
            None => of_this_host,
        },
        Some(NeverChange::Add { networks, reason }) => {
            let entry = |network: &IpNetwork| {
                NeverBanEntry::from((*network, NeverBanKind::by_hand(reason)))
            };
            let networks: Vec<IpNetwork> = networks.iter().flat_map(|it| it.networks()).collect();
            if let Some(all) = networks.iter().find(|network| network.prefix() == 0) {
                return Err(Failure::Usage(format!(
                    "no entry was added: {all} would exempt every address from bans; `nfguard unload \
                     --all` ends all bans"
                )));
            }
            let added: Vec<_> = networks.iter().map(entry).collect();
            let mut bans = persistence::open(context)?;
            voided = voided_bans::spare(&mut bans, |bans| bans.add_never_ban(added))?;
            context.write_down("these entries", |files| files.add_never_ban(&networks, reason));
            bans.never_ban().clone()
        }
        Some(NeverChange::Remove { networks }) => {
            let mut bans = persistence::open(context)?;
            let mut removable = Vec::new();
            for network in networks.iter().flat_map(|it| it.networks()) {
                match obstacle(network, &of_this_host, bans.never_ban()) {
                    Some(why) => kept.push(why),
                    None => removable.push(network),
                }
            }
            bans.remove_never_ban(&removable)?;
            context.write_down("these entries", |files| files.remove_never_ban(&removable));
            bans.never_ban().clone()
        }
    };
    for why in kept.iter().chain(&voided_bans::voided_text(&voided)) {
        output::warning(why);
    }
    if as_json {
        let entries: Vec<Value> = never
            .entries()
            .iter()
            .map(|NeverBanEntry { network, kind }| {
                json!({
                    "network": network.to_string(),
                    "kind": kind.word(),
                    "reason": kind.to_string(),
                })
            })
            .collect();
        let voided: Vec<Value> = voided.iter().map(bans::to_json).collect();
        output::json(&json!({ "entries": entries, "voided": voided }));
    } else {
        for NeverBanEntry { network, kind } in never.entries() {
            output::line(&format!("{:<42} {}", network.to_string(), kind));
        }
    }
    Ok(Answer::from(kept.is_empty()))
}

/// Returns why no entry of this name can be removed. The next command would add an entry of this host
/// again.
fn obstacle(network: IpNetwork, of_this_host: &NeverBan, all: &NeverBan) -> Option<String> {
    let network = Target::from(network).network();
    let entry =
        |never: &NeverBan| never.entries().iter().find(|entry| entry.network == network).cloned();
    let Some(NeverBanEntry { kind, .. }) = entry(all) else {
        return Some(format!("the list has no entry that is exactly {network}"));
    };
    // What an operator has said of a network behind this host goes, and the network stays.
    let stays = entry(of_this_host).is_some_and(|own| own.kind.word() == kind.word());
    stays.then(|| format!("{network} stays on the list as long as it is {kind}"))
}
