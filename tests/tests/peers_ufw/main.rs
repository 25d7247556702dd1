//! Policies, compared with the real `ufw`.

mod cases;
mod limit;
mod packets;
mod pairs;
mod refusals;
mod shots;
mod sockets;
mod write_up;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nfguard_lab::Netns;
use nfguard_tests::place::world;
use nfguard_tests::program::nfguard;

fn traefik() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/traefik.json")
}

fn needs_namespaces(error: &std::io::Error) -> ! {
    panic!("{error}\nrun me with `cargo xtask netns-test`")
}

fn nfguard_load(netns: &Netns, policy: impl AsRef<OsStr>) {
    let answer = nfguard(netns, &[OsStr::new("load"), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:#?}");
}
