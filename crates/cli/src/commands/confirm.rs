//! `confirm`: keeps what `load --confirm` loaded.

use nfguard_control::ban_table;
use nfguard_control::context::Context;
use nfguard_control::history::LoadOutcome;
use nfguard_control::rollback::{self, Confirmed, Proof, proof_phrase, proof_word};
use serde_json::json;

use crate::output::bans::{print_spared_peer, spared_peer_to_json};
use crate::output::{self, Answer, Done};

const TOO_LATE: &str = "too late: the rules from before the load are back";
const NOTHING: &str = "no load waits to be confirmed: if one did, its rules were confirmed \
                       already, or the rules from before it are back";

pub(crate) fn confirm(context: &Context, as_json: bool) -> Done {
    let (why, proof) = match rollback::confirm(context.connection())? {
        Confirmed::Yes(proof) => {
            context.history.settle(&LoadOutcome::Confirmed(proof_phrase(proof).to_owned()));
            (None, Some(proof))
        }
        Confirmed::TooLate => (Some(TOO_LATE), None),
        Confirmed::Nothing => {
            let last = context.history.entries().pop();
            let rolled_back = last.is_some_and(|last| last.outcome == LoadOutcome::RolledBack);
            (Some(if rolled_back { TOO_LATE } else { NOTHING }), None)
        }
    };
    // The operator is in, and stays in.
    if let Err(error) = ban_table::note_login(context) {
        output::warning(&format!("the peer of your SSH session could be banned: {error}"));
    }
    if as_json {
        output::json(&json!({
            "ssh_peer": spared_peer_to_json(context),
            "confirmed": proof.is_some(),
            "connection": proof.map(proof_word),
            "proves_access": proof == Some(Proof::New),
            "reason": why,
        }));
    } else if let Some(proof) = proof {
        output::line(&format!("confirmed {}", proof_phrase(proof)));
        print_spared_peer(context);
    }
    if let (Some(why), false) = (why, as_json) {
        output::warning(why);
    }
    Ok(Answer::from(proof.is_some()))
}
