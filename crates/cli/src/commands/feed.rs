//! `feed`: adds, lists and removes published lists of addresses.

use std::path::Path;

use nfguard_ban::{ActiveFeed, Bans, Feed};
use nfguard_control::context::Context;
use nfguard_control::input::read_bytes;
use nfguard_control::lists;
use nfguard_control::lists::review::ListUse;
use nfguard_control::persistence;
use serde_json::{Value, json};

use crate::args::{FeedVerb, ListRequest};
use crate::input::judged::judge;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn feed(verb: &FeedVerb, context: &Context, as_json: bool) -> Done {
    match verb {
        FeedVerb::Add { name, file, list } => add(name, file, list, context, as_json),
        FeedVerb::List => list(context, as_json),
        FeedVerb::Remove { name } => remove(name, context, as_json),
    }
}

fn add(name: &str, file: &Path, list: &ListRequest, context: &Context, as_json: bool) -> Done {
    let unchanged = format!("feed {name} was not changed");
    let (mut feed, mut bad) = (Feed::default(), Vec::new());
    let bytes = read_bytes(file)?;
    let summary = lists::read(&bytes, &list.options(), &mut |at, entry| match entry {
        Ok(entry) => feed.add_addresses(entry.addresses),
        Err(problem) => bad.push(format!("{at}: {problem}")),
    });
    let summary = summary.map_err(|why| Failure::Usage(format!("{unchanged}: {why}")))?;
    if !bad.is_empty() && !list.skip_bad_lines {
        let problems = output::some_of(&bad);
        return Err(Failure::Usage(format!("{unchanged}:\n{problems}")));
    }
    for problem in &bad {
        output::warning(problem);
    }
    let mut bans = persistence::open(context)?;
    let cleaned = feed.clean(bans.never_ban());
    let before = bans.feeds()?.into_iter().find(|feed| feed.name == name);
    let list_use = ListUse::Feed { before: before.as_ref() };
    let judgement = judge(&cleaned, &summary, list_use, list.force, &unchanged)?;
    bans.set_feed(name, &cleaned)?;
    context.write_down("this feed", |files| files.write_feed(name, &feed));
    let (ranges, reserved, never_ban) = (cleaned.ranges(), cleaned.reserved, cleaned.never_ban);
    let ranges_before = before.map(|before| before.ranges);
    if as_json {
        let mut answer = json!({
            "feed": name, "entries": cleaned.entries, "reserved": reserved, "never_ban": never_ban,
            "ranges": ranges, "ranges_before": ranges_before, "refused": bad,
        });
        judgement.add_to(&mut answer, &summary);
        output::json(&answer);
    } else {
        let before = ranges_before.map_or(String::new(), |before| format!(" (before: {before})"));
        output::line(&format!(
            "{name}: {ranges} ranges{before} from {} entries; {reserved} entries had private or reserved \
             addresses and {never_ban} had never-ban addresses, which were removed",
            cleaned.entries
        ));
        judgement.print(&summary);
    }
    Ok(Answer::from(bad.is_empty()))
}

fn list(context: &Context, as_json: bool) -> Done {
    let feeds = Bans::open_existing(context.never_ban()?)?
        .map_or(Ok(Vec::new()), |mut bans| bans.feeds())?;
    if as_json {
        let feeds: Vec<Value> = feeds
            .iter()
            .map(|ActiveFeed { name, ranges, created_at, dropped, .. }| {
                let dropped = json!({ "packets": dropped.packets, "bytes": dropped.bytes });
                json!({ "feed": name, "ranges": ranges, "created_at": created_at, "dropped": dropped })
            })
            .collect();
        output::json(&json!({ "feeds": feeds }));
        return Ok(Answer::Yes);
    }
    for ActiveFeed { name, ranges, created_at, dropped, .. } in &feeds {
        let updated = created_at.map_or("?".to_owned(), output::time);
        output::line(&format!(
            "{:<32} {ranges:>8} ranges, updated {updated}, {} packets dropped",
            name, dropped.packets
        ));
    }
    if feeds.is_empty() {
        output::line("no feed is active");
    }
    Ok(Answer::Yes)
}

fn remove(name: &str, context: &Context, as_json: bool) -> Done {
    let bans = Bans::open_existing(context.never_ban()?)?;
    let removed = bans.map_or(Ok(false), |mut bans| bans.remove_feed(name))?;
    let removed = context.write_down("this feed", |files| files.remove_feed(name)) || removed;
    if as_json {
        output::json(&json!({ "feed": name, "removed": removed }));
    } else {
        let word = if removed { "removed" } else { "there is no such feed" };
        output::line(&format!("{name}: {word}"));
    }
    Ok(Answer::from(removed))
}
