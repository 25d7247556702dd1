//! `bans`: lists the active bans.

use nfguard_ban::Bans;
use nfguard_control::context::Context;
use nfguard_control::persistence;
use serde_json::{Value, json};

use crate::args::BansRequest;
use crate::output::{self, Answer, Done};

pub(crate) fn bans(request: &BansRequest, context: &Context, as_json: bool) -> Done {
    if request.prepare {
        let mut bans = persistence::open(context)?;
        if let Some(source) = &request.source {
            bans.forget_ended(source)?;
        }
        return Ok(Answer::Yes);
    }
    let mut bans = Bans::open_existing(context.never_ban()?)?;
    if request.ready {
        let is_ended = match (&mut bans, &request.source) {
            (Some(bans), Some(source)) => bans.is_ended(source)?,
            _ => false,
        };
        let ready = bans.is_some() && !is_ended;
        if as_json {
            output::json(&json!({ "ready": ready }));
        }
        return Ok(Answer::from(ready));
    }
    if request.count {
        return count(bans, as_json);
    }
    list(bans, request.source.as_deref(), context, as_json)
}

fn list(bans: Option<Bans>, source: Option<&str>, context: &Context, as_json: bool) -> Done {
    let all = match (bans, source) {
        (None, _) => Vec::new(),
        (Some(mut bans), None) => persistence::list(&mut bans, context)?,
        (Some(mut bans), Some(source)) => bans.list_of(source)?,
    };
    if as_json {
        let all: Vec<Value> = all.iter().map(output::bans::to_json).collect();
        output::json(&json!({ "bans": all }));
    } else {
        output::bans::print_list(&all);
    }
    Ok(Answer::Yes)
}

fn count(bans: Option<Bans>, as_json: bool) -> Done {
    let count = bans.map_or(Ok(0), |mut bans| bans.count())?;
    if as_json {
        output::json(&json!({ "count": count }));
    } else {
        output::line(&count.to_string());
    }
    Ok(Answer::Yes)
}
