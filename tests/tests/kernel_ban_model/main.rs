//! Random sequences of all ban operations. The test compares them with a plain model, with the view
//! of the library, and with the verdicts of packets.

mod model;
mod packets;
mod run;
mod steps;

use std::cell::RefCell;
use std::time::Instant;

use nfguard_ban::TABLE;
use nfguard_tests::nft::nft;
use nfguard_tests::program::time_box;
use nfguard_tests::{processor, property};
use proptest::test_runner::{TestCaseError, TestError};

use packets::Ground;
use run::{Run, Seen, Trouble};
use steps::Action;

/// The events that many sequences together must meet.
const ALL: [&str; 17] = [
    "added",
    "extended",
    "kept",
    "lists",
    "replaced bans of a source",
    "extended by request",
    "unbanned",
    "nothing to unban",
    "unbanned by its owner",
    "banned by others still",
    "nothing of this owner",
    "shared",
    "flushed",
    "refused",
    "expired",
    "passed",
    "dropped",
];

fn run_sequence(ground: &mut Ground, seen: &mut Seen, actions: &[Action]) -> Result<(), String> {
    let mut run = Run::new(ground, seen);
    let mut outcome = Ok(());
    for (number, action) in actions.iter().enumerate() {
        match run.take(action) {
            Ok(()) => {}
            Err(Trouble::TooLate) => {
                run.count_event("too late");
                break;
            }
            Err(Trouble::Wrong(what)) => {
                let table = nft(&run.ground.host, &format!("list table inet {TABLE}\n"));
                outcome = Err(format!(
                    "step {number}, {action:?}: {what}\nthe model: {:#?}\n{table}",
                    run.model
                ));
                break;
            }
        }
    }
    nft(&run.ground.host, &format!("delete table inet {TABLE}\n"));
    outcome
}

#[test]
fn any_order_of_operations_agrees_with_the_model() {
    processor::stay_on_one(0);
    let ground = RefCell::new(Ground::new());
    let counts = RefCell::new((Seen::new(), 0_u32));
    let start = Instant::now();
    let mut runner = property::runner(64, 500);
    let outcome = runner.run(&steps::actions(), |actions| {
        let (seen, sequences) = &mut *counts.borrow_mut();
        if *sequences >= 10 && start.elapsed() > time_box() {
            return Ok(());
        }
        *sequences += 1;
        run_sequence(&mut ground.borrow_mut(), seen, &actions).map_err(TestCaseError::fail)
    });
    let (seen, sequences) = counts.into_inner();
    eprintln!("{sequences} sequences: {seen:?}");
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, actions)) => panic!("{actions:#?}\n{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let often = |what| seen.get(what).is_some_and(|times| *times >= 3);
    let rare: Vec<_> = ALL.iter().filter(|what| !often(**what)).collect();
    assert!(sequences < 50 || rare.is_empty(), "too few of {rare:?}: {seen:?}");
}
