//! A policy and bans beside a real Docker Engine, with real packets.

mod attack;
mod bans;
mod cells;
mod docker;
mod engine;
mod guarded;
mod recipe;
mod replay;
mod story;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use docker::Docker as _;
use engine::{Engine, Settings};

fn run_story(settings: Settings) {
    let world = story::world();
    let engine = Engine::start(&world.host, settings);
    story::run(&world, &engine);
    let (cgroup, folder) = places(&engine);
    drop(engine);
    assert_nothing_is_left(&world.host, &cgroup, folder);
}

/// Returns the places where an engine leaves remains.
fn places(engine: &Engine<'_>) -> (String, PathBuf) {
    assert!(!docker::cgroups(engine.cgroup()).is_empty(), "containers have control groups");
    (engine.cgroup().to_owned(), engine.folder().to_owned())
}

fn assert_nothing_is_left(host: &nfguard_lab::Netns, cgroup: &str, folder: PathBuf) {
    story::assert_no_process_is_left(host);
    assert_eq!(docker::cgroups(cgroup), Vec::<PathBuf>::new());
    assert!(!folder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let folder = folder.to_str().expect("a path");
    assert!(!mounts.contains(folder), "{mounts}");
}

#[test]
fn policy_and_bans_hold_beside_iptables_over_nft_with_docker_proxy() {
    run_story(Settings { iptables: "nft", userland_proxy: true });
}

#[test]
fn policy_and_bans_hold_beside_iptables_over_nft_without_docker_proxy() {
    run_story(Settings { iptables: "nft", userland_proxy: false });
}

#[test]
fn policy_and_bans_hold_beside_legacy_iptables_with_docker_proxy() {
    run_story(Settings { iptables: "legacy", userland_proxy: true });
}

#[test]
fn policy_and_bans_hold_beside_dockers_own_nftables() {
    let world = story::world();
    let replay = replay::Replay::new(&world.host);
    story::run(&world, &replay);
    drop(replay);
    story::assert_no_process_is_left(&world.host);
}

#[test]
fn an_engine_and_its_containers_end_with_a_test_that_fails() {
    let world = story::world();
    let mut left = None;
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let settings = Settings { iptables: "nft", userland_proxy: true };
        let engine = Engine::start(&world.host, settings);
        engine.set_up();
        left = Some(places(&engine));
        // Unwinds as a panic does, without its message.
        resume_unwind(Box::new(()));
    }));
    assert!(failed.is_err());
    let (cgroup, folder) = left.expect("it started");
    assert_nothing_is_left(&world.host, &cgroup, folder);
}
