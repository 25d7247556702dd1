//! What `jail test` prints.

use nfguard_jail::time::Span;
use nfguard_jail::{Ban, Event, Jails, Limit, Mode, ReadCounts, Shelter, Spared, Taken};
use serde_json::{Value, json};

use crate::output::{self, SCHEMA};

/// Prints events, and counts them.
pub(super) struct Report {
    as_json: bool,
    with_lines: bool,
    evidence: u64,
    bans: u64,
    /// Bans that cannot hold, because packets come from a proxy.
    behind_proxy: u64,
}

impl Report {
    pub(super) fn new(as_json: bool, with_lines: bool) -> Self {
        Self { as_json, with_lines, evidence: 0, bans: 0, behind_proxy: 0 }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Evidence(taken) => {
                self.evidence += 1;
                if self.with_lines {
                    self.print(&evidence_json(taken), || evidence_text(taken));
                }
            }
            Event::Ban(ban) => {
                self.bans += 1;
                self.behind_proxy += u64::from(ban.proxy.is_some());
                self.print(&ban_json(ban), || ban_text(ban));
            }
            Event::Limit(Limit { line, jail }) => {
                let object = json!({ "event": "limit", "line": line, "jail": **jail });
                self.print(&object, || {
                    format!("line {line}: {jail}: an expression reached the limit of its steps")
                });
            }
            Event::Spared(spared) => self.print(&spared_json(spared), || {
                let Spared { line, jail, source, why, .. } = spared;
                let why = match why {
                    Shelter::Never => "it is on the never-ban list",
                    Shelter::Proxy => "it is a trusted proxy, with other clients behind it",
                    Shelter::Own => "it is this machine, or no machine",
                };
                format!("line {line}: {jail} spares {source}: {why}")
            }),
            _ => {}
        }
    }

    /// Prints the summary of a log that has this number of lines.
    pub(super) fn summary(&self, jails: &Jails, lines: u64) {
        let counts: Vec<_> = jails.logs().map(|(id, _)| jails.counts(id)).collect();
        let most = |of: fn(&ReadCounts) -> u64| counts.iter().map(of).max().unwrap_or(0);
        let (records, too_long) = (most(|it| it.records), most(|it| it.too_long));
        let unclear = most(|it| it.unclear);
        let (evidence, bans, limits) = (self.evidence, self.bans, jails.limits_reached());
        let object = json!({
            "event": "summary", "lines": lines, "records": records, "evidence": evidence,
            "bans": bans, "too_long": too_long, "unclear": unclear, "limits_reached": limits,
        });
        self.print(&object, || {
            format!("{lines} lines, {records} records, {evidence} pieces of evidence, {bans} bans")
        });
        if self.as_json {
            return;
        }
        if too_long > 0 {
            output::warning(&format!("{too_long} lines are longer than 2 MiB and were not judged"));
        }
        if unclear > 0 {
            output::warning(&format!(
                "{unclear} records name no client for sure and were not judged; write the log as JSON"
            ));
        }
        if limits > 0 {
            output::warning(&format!(
                "an expression reached the limit of its steps {limits} times"
            ));
        }
        if counts.is_empty() {
            output::warning("no jail reads a log");
        } else if lines > 0 && records == 0 {
            output::warning("no line is a record: is the format of the log right?");
        }
        if self.behind_proxy > 0 {
            output::warning("a ban of a client behind a trusted proxy cannot hold on this host");
        }
    }

    fn print(&self, object: &Value, text: impl FnOnce() -> String) {
        if self.as_json {
            let mut object = object.clone();
            object["schema"] = json!(SCHEMA);
            output::line(&object.to_string());
        } else {
            output::line(&text());
        }
    }
}

fn evidence_json(taken: &Taken) -> Value {
    let Taken { line, jail, client, source, time, counts, score, .. } = taken;
    json!({
        "event": "evidence", "line": line, "jail": **jail, "client": client,
        "source": source.map(|source| source.to_string()), "time": time.to_string(),
        "counts": counts, "score": score,
    })
}

fn evidence_text(taken: &Taken) -> String {
    let Taken { line, jail, client, source, time, score, .. } = taken;
    let of = match source.map(|source| source.to_string()) {
        Some(source) if source == *client => String::new(),
        Some(source) => format!(" of {source}"),
        None => ", which is no address,".to_owned(),
    };
    format!("line {line}: {jail}: {client}{of} at {time}, score {score}")
}

pub(super) fn ban_json(ban: &Ban) -> Value {
    let mut object = json!({
        "event": "ban", "line": ban.line, "jail": *ban.jail, "target": ban.source.to_string(),
        "since": ban.since.to_string(), "until": ban.until.to_string(), "seconds": ban.seconds,
        "again": ban.again, "mode": ban.mode.word(), "evidence": ban.evidence,
    });
    if ban.is_over_cap {
        object["over_cap"] = json!(true);
    }
    if let Some(proxy) = ban.proxy {
        object["proxy"] = json!(proxy);
    }
    object
}

fn ban_text(ban: &Ban) -> String {
    let Ban { line, jail, source, since, until, again, evidence, .. } = ban;
    let verb = match ban.mode {
        Mode::Enforce => "bans",
        Mode::Observe if ban.is_over_cap => "bans too many a minute, and would ban",
        Mode::Observe => "would ban",
    };
    let length = Span::from_seconds(ban.seconds).map(|span| span.to_string()).unwrap_or_default();
    let again = if *again > 0 { format!(", after {again} bans") } else { String::new() };
    let lines: Vec<String> = evidence.iter().map(u64::to_string).collect();
    let proxy = ban.proxy.map_or(String::new(), |proxy| {
        format!("; it cannot hold here, because packets come from {proxy}")
    });
    let lines = lines.join(", ");
    format!(
        "line {line}: {jail} {verb} {source} for {length}, from {since} to {until}{again}, by lines \
         {lines}{proxy}"
    )
}

fn spared_json(spared: &Spared) -> Value {
    let Spared { line, jail, source, time, why, .. } = spared;
    let why = match why {
        Shelter::Never => "never",
        Shelter::Proxy => "proxy",
        Shelter::Own => "own",
    };
    json!({
        "event": "spared", "line": line, "jail": **jail, "source": source.to_string(),
        "time": time.to_string(), "why": why,
    })
}
