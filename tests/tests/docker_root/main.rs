//! A policy and bans beside a real Docker Engine, with real packets.

mod attack;
mod bans;
mod cells;
mod docker;
mod engine;
mod recipe;
mod replay;
mod story;

use engine::{Engine, Settings};

fn run(settings: Settings) {
    let world = story::world();
    let engine = Engine::start(&world.host, settings);
    story::tell(&world, &engine);
    let (cgroup, folder) = (engine.cgroup().to_owned(), engine.folder().to_owned());
    assert!(!docker::cgroups(&cgroup).is_empty(), "containers have control groups");
    drop(engine);
    story::nothing_is_left(&world.host);
    assert_eq!(docker::cgroups(&cgroup), [""; 0].map(std::path::PathBuf::from));
    assert!(!folder.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc");
    let folder = folder.to_str().expect("a path");
    assert!(!mounts.contains(folder) && !mounts.contains("/docker/"), "{mounts}");
}

#[test]
fn all_holds_beside_iptables_over_nft_with_docker_proxy() {
    run(Settings { iptables: "nft", userland_proxy: true });
}

#[test]
fn all_holds_beside_iptables_over_nft_without_docker_proxy() {
    run(Settings { iptables: "nft", userland_proxy: false });
}

#[test]
fn all_holds_beside_legacy_iptables_with_docker_proxy() {
    run(Settings { iptables: "legacy", userland_proxy: true });
}

#[test]
fn all_holds_beside_docker_s_own_nftables() {
    let world = story::world();
    let replay = replay::Replay::new(&world.host);
    story::tell(&world, &replay);
    drop(replay);
    story::nothing_is_left(&world.host);
}
