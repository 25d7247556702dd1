//! `feed`: adds, lists and removes published lists of addresses.

use std::path::Path;

use nfguard_ban::{ActiveFeed, Bans};
use serde_json::{Value, json};

use crate::args::FeedVerb;
use crate::input::{self, feed_list};
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};
use nfguard_control::context::Context;
use nfguard_control::persistence;

pub(crate) fn feed(verb: &FeedVerb, context: &Context, as_json: bool) -> Done {
    match verb {
        FeedVerb::Add { name, file, skip_bad_lines } => {
            add(name, file, *skip_bad_lines, context, as_json)
        }
        FeedVerb::List => list(context, as_json),
        FeedVerb::Remove { name } => remove(name, context, as_json),
    }
}

fn add(name: &str, file: &Path, skip_bad_lines: bool, context: &Context, as_json: bool) -> Done {
    let text = input::read_list(file)?;
    let (feed, bad) = feed_list::parse(&text);
    if !bad.is_empty() && !skip_bad_lines {
        let problems = output::some_of(&bad);
        return Err(Failure::Usage(format!("feed {name} was not changed:\n{problems}")));
    }
    for problem in &bad {
        output::warning(problem);
    }
    let mut bans = persistence::open(context)?;
    let cleaned = feed.clean(bans.never_ban());
    bans.set_feed(name, &cleaned)?;
    context.write_down("this feed", |kept| kept.write_feed(name, &feed));
    let (ranges, reserved, never_ban) = (cleaned.ranges(), cleaned.reserved, cleaned.never_ban);
    if as_json {
        output::json(&json!({
            "feed": name, "entries": cleaned.entries, "reserved": reserved, "never_ban": never_ban,
            "ranges": ranges, "refused": bad,
        }));
    } else {
        output::line(&format!(
            "{name}: {ranges} ranges from {} entries; {reserved} entries had private or reserved \
             addresses and {never_ban} had never-ban addresses, which were removed",
            cleaned.entries
        ));
    }
    Ok(Answer::from(bad.is_empty()))
}

fn list(context: &Context, as_json: bool) -> Done {
    let feeds = Bans::open_existing(context.never_ban()?)?
        .map_or(Ok(Vec::new()), |mut bans| bans.feeds())?;
    if as_json {
        let feeds: Vec<Value> = feeds
            .iter()
            .map(|ActiveFeed { name, ranges, created_at, dropped }| {
                let dropped = json!({ "packets": dropped.packets, "bytes": dropped.bytes });
                json!({ "feed": name, "ranges": ranges, "created_at": created_at, "dropped": dropped })
            })
            .collect();
        output::json(&json!({ "feeds": feeds }));
        return Ok(Answer::Yes);
    }
    for ActiveFeed { name, ranges, created_at, dropped } in &feeds {
        let updated = created_at.map_or("?".to_owned(), output::time);
        output::line(&format!(
            "{name:<32} {ranges:>8} ranges, updated {updated}, {} packets dropped",
            dropped.packets
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
    let removed = context.write_down("this feed", |kept| kept.remove_feed(name)) || removed;
    if as_json {
        output::json(&json!({ "feed": name, "removed": removed }));
    } else {
        let word = if removed { "removed" } else { "there is no such feed" };
        output::line(&format!("{name}: {word}"));
    }
    Ok(Answer::from(removed))
}
