//! Bans, for people and for programs.

use std::time::Duration;

use nfguard_ban::{ActiveBan, BanCounts, BanOutcome, Day, Port, Target};
use nfguard_control::context::Context;
use nfguard_control::saved_bans::Restored;
use serde_json::{Value, json};

use crate::output;

/// Returns `TARGET`, or `TARGET to PORT`.
pub(crate) fn target_text(target: &str, port: Option<Port>) -> String {
    port.map_or_else(|| target.to_owned(), |port| format!("{target} to {port}"))
}

/// Returns what became of one ban, in words.
pub(crate) fn outcome_text(outcome: BanOutcome) -> &'static str {
    match outcome {
        BanOutcome::Added => "banned",
        BanOutcome::Extended => "was banned, now for longer",
        BanOutcome::Kept => "was banned already, for at least as long",
    }
}

/// Prints what became of many bans, how many of a list were over, and which were refused.
pub(crate) fn print_counts(counts: &BanCounts, over: u64, refused: &[String], as_json: bool) {
    if as_json {
        return output::json(&counts_to_json(counts, over, refused));
    }
    if over > 0 {
        output::line(&format!("{over} had expired"));
    }
    output::line(&match counts {
        BanCounts { added: 0, extended: 0, kept } => {
            format!("nothing changed: {kept} were banned already for at least as long")
        }
        BanCounts { added, extended, kept } => format!(
            "{added} banned, {extended} were banned and are now for longer, {kept} were banned already \
             for at least as long"
        ),
    });
}

fn counts_to_json(counts: &BanCounts, over: u64, refused: &[String]) -> Value {
    let BanCounts { added, extended, kept } = counts;
    json!({ "added": added, "extended": extended, "kept": kept, "over": over, "refused": refused })
}

pub(crate) fn print_restored(restored: &Restored, as_json: bool) {
    print_counts(&restored.tally, restored.over, &restored.refused, as_json);
}

pub(crate) fn restored_to_json(restored: &Restored) -> Value {
    counts_to_json(&restored.tally, restored.over, &restored.refused)
}

/// Prints how long the peer of the SSH session is not banned.
pub(crate) fn print_spared_peer(context: &Context) {
    if let Some((peer, until)) = context.spared_peer() {
        output::line(&format!(
            "{peer}, the peer of your SSH session, is not banned by any program until {until} or the \
             next boot"
        ));
    }
}

/// Returns the same for programs.
pub(crate) fn spared_peer_to_json(context: &Context) -> Value {
    let to_json = |(peer, until): (Target, Day)| json!({ "network": peer.to_string(), "until": until.to_string() });
    context.spared_peer().map_or(Value::Null, to_json)
}

/// Prints a table of bans.
pub(crate) fn print_list(bans: &[ActiveBan]) {
    for ban in bans {
        let left = ban.expires_in.map_or("no end".to_owned(), |left| {
            format!("{} left", humantime::format_duration(Duration::from_secs(left.as_secs())))
        });
        let target = target_text(&ban.target.to_string(), ban.port);
        let ActiveBan { source, reason, .. } = ban;
        output::line(&format!("{target:<42} {left:<20} {source:<20} {reason}"));
    }
    if bans.is_empty() {
        output::line("no active bans");
    }
}

/// Returns a ban in the form that [`nfguard_control::lists`] reads.
pub(crate) fn to_json(ban: &ActiveBan) -> Value {
    json!({
        "target": ban.target.to_string(),
        "port": ban.port.map(|port| port.to_string()),
        "expires_in_seconds": ban.expires_in.map(|left| left.as_secs_f64()),
        "source": ban.source,
        "reason": ban.reason,
        "created_at": ban.created_at,
    })
}
