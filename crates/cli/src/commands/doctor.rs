//! `doctor`: finds problems of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use nfguard_ban::{Bans, NeverBan, NeverBanKind, Target};
use nfguard_control::context::Context;
use nfguard_control::interface_names;
use nfguard_netlink::{Error, Nft};
use serde_json::json;

use crate::args::DoctorRequest;
use crate::inspect::finding::Facts;
use crate::inspect::findings;
use crate::inspect::ports::{self, Port, Responder};
use crate::inspect::system::Host;
use crate::output::failure::Failure;
use crate::output::{self, Answer, BAD, Done, GOOD, NOTE, PLAIN};

use nfguard_control::table::ours;

pub(crate) fn doctor(request: &DoctorRequest, context: &Context, as_json: bool) -> Done {
    let mut kernel = Nft::open()?;
    let mut host = Host::read(&mut kernel, &request.sources.docker_socket)?;
    let table = match nfguard_netlink::read_own_table(&mut kernel, &ours()) {
        Ok(found) => found.loaded.map(|loaded| loaded.table),
        Err(error @ (Error::Decode(_) | Error::ForeignTable { .. })) => {
            host.notes.push(format!("the loaded policy cannot be read: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let ports = ports::list(&host, table.as_ref());
    let of_this_host = context.never_ban()?;
    let never = match Bans::open_existing(of_this_host.clone()) {
        Ok(bans) => bans.map_or(of_this_host.clone(), |bans| bans.never_ban().clone()),
        Err(error) => {
            host.notes.push(format!("the bans cannot be read: {error}"));
            of_this_host.clone()
        }
    };
    host.notes.extend(idle_may_ban(never.may_ban(), &of_this_host));
    let found = findings::all(&Facts {
        host: &host,
        table: table.as_ref(),
        ports: &ports,
        alternative_names: table.as_ref().map_or_else(Vec::new, |table| {
            interface_names::warnings(&interface_names::of_table(table))
        }),
        boot: boot(&request.nftables_conf)?,
        refused: refused(&host, &ports, &never),
    });
    let backends = findings::docker_backends(&host);
    if as_json {
        output::json(&json!({
            "docker_backends": backends, "loaded": table.is_some(), "findings": found,
            "notes": host.notes,
        }));
        return Ok(Answer::from(found.is_empty()));
    }
    let backends =
        if backends.is_empty() { "none seen".to_owned() } else { backends.join(" and ") };
    output::line(&format!("Docker's rules: {backends}"));
    if table.is_none() {
        output::styled(NOTE, "no policy is loaded: doctor judged nothing by a policy");
    }
    for note in &host.notes {
        output::styled(NOTE, note);
    }
    for finding in &found {
        output::line("");
        let what = format!("  {}", finding.what);
        output::spans(&[(BAD, finding.code), (PLAIN, &what)]);
        output::line(&format!("    why  {}", finding.why));
        output::line(&format!("    do   {}", finding.fix));
    }
    if found.is_empty() {
        output::styled(GOOD, "nothing found");
    }
    Ok(Answer::from(found.is_empty()))
}

fn boot(path: &Path) -> Result<Option<(String, String)>, Failure> {
    match fs::read(path) {
        Ok(bytes) => {
            Ok(Some((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file(path)(error)),
    }
}

/// Returns, for each container behind a published port, the address from which this host relays to
/// it and why the never-ban list refuses a ban of that address.
fn refused(host: &Host, ports: &[Port], never: &NeverBan) -> BTreeMap<IpAddr, (IpAddr, String)> {
    let receivers = ports.iter().filter_map(|port| match &port.responder {
        Responder::Translated { to, .. } | Responder::Relayed { to: Some(to), .. } => {
            Some(to.address)
        }
        _ => None,
    });
    let receivers: BTreeSet<IpAddr> = receivers.collect();
    let refused = receivers.into_iter().filter_map(|receiver| {
        let gateway = host.network.way(receiver)?.source?;
        let refused = never.admit(IpNetwork::from(gateway).into()).err()?;
        Some((receiver, (gateway, refused.to_string())))
    });
    refused.collect()
}

/// Returns a note for each network that the policy lets be banned and that is behind this host by no
/// link: a slip of the pen, or a tunnel that is down.
fn idle_may_ban(may_ban: &[IpNetwork], of_this_host: &NeverBan) -> Vec<String> {
    let is_behind = |network: &IpNetwork| {
        of_this_host.entries().iter().any(|entry| {
            matches!(entry.kind, NeverBanKind::Behind { .. })
                && Target::from(entry.network).overlaps((*network).into())
        })
    };
    let idle = may_ban.iter().filter(|network| !is_behind(network));
    let note = |network| {
        format!(
            "`may_ban` of the policy has {network}, and no network behind this host has a part of it"
        )
    };
    idle.map(note).collect()
}
