//! The commands of `docs/recipe.md`, run word by word on an empty server.

use std::net::SocketAddr;

use nfguard_lab::DEFAULT_TIMEOUT;
use nfguard_tests::document;
use nfguard_tests::program;
use nfguard_tests::wait::TIMEOUT;

use crate::cells::{self, ATTACKER, CLIENT, HOST};
use crate::docker::poll;
use crate::engine::{Engine, Settings};
use crate::story;

/// The section of the recipe with the commands.
const SECTION: &str = "From an empty server";

/// A scratch layer over the folders of a server. Nothing of it stays.
const SCRATCH: &str = r#"
for folder in etc var; do
    mkdir -p /run/scratch/$folder /run/scratch/$folder-work
    upper=upperdir=/run/scratch/$folder,workdir=/run/scratch/$folder-work
    mount -t overlay overlay -o lowerdir=/$folder,$upper /$folder
done
# The jail for sshd, which Debian has, reads it.
touch /var/log/auth.log
"#;

/// A stand-in for `systemctl`, because the namespace has no systemd.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -e
case "$*" in
"restart docker")
    daemon=$(cat /run/docker.pid)
    kill "$daemon"
    while kill -0 "$daemon" 2> /dev/null; do sleep 0.1; done
    setsid dockerd --config-file /etc/docker/daemon.json $DOCKERD_OPTIONS \
        > /run/dockerd.log 2>&1 < /dev/null &
    until docker version > /dev/null 2>&1; do sleep 0.1; done
    ;;
"restart fail2ban")
    if fail2ban-client ping > /dev/null 2>&1; then fail2ban-client stop; fi
    fail2ban-client start
    ;;
*)
    echo "systemctl $*: the test does not know it" >&2
    exit 1
    ;;
esac
"#;

/// Returns the commands of the section.
fn recipe() -> String {
    let blocks = document::blocks("docs/recipe.md").into_iter();
    let blocks = blocks.filter(|it| it.section == SECTION && it.language == "sh");
    let commands: Vec<String> = blocks.map(|block| block.text).collect();
    assert!(commands.len() > 3, "{commands:?}");
    commands.concat()
}

#[test]
fn the_recipe_leads_from_an_empty_server_to_a_protected_one() {
    let world = story::world();
    let engine = Engine::start(&world.host, Settings { iptables: "nft", userland_proxy: true });
    engine.import("traefik:v3.6", &["/responder", "traefik"], &[]);
    engine.add_program("systemctl", SYSTEMCTL);
    engine.link_program("nfguard", &program::path());
    engine.script(SCRATCH);
    let printed = engine.script(&recipe());
    assert!(printed.contains("443/tcp"), "{printed}");

    for (client, host) in CLIENT.into_iter().zip(HOST) {
        for port in [80, 443] {
            let to = SocketAddr::new(host, port);
            let mut stream = cells::open(&world.internet, Some(client), to, TIMEOUT);
            let answer = stream.as_mut().and_then(|stream| cells::ask(stream, "/", TIMEOUT));
            let answer = answer.unwrap_or_else(|| panic!("{to} does not answer\n{printed}"));
            assert!(answer.contains(&format!("peer={client}")), "{answer}");
        }
        let hidden = world.host.serve_tcp(SocketAddr::new(host, 9000)).expect("a server");
        let to = hidden.address();
        assert!(cells::open(&world.internet, Some(client), to, DEFAULT_TIMEOUT).is_none());
    }
    // From now on, a password attacker is banned.
    let (attacker, to) = (ATTACKER[0], SocketAddr::new(HOST[0], 80));
    let mut stream = cells::open(&world.internet, Some(attacker), to, TIMEOUT).expect("it opens");
    for _ in 0..5 {
        cells::ask(&mut stream, "/admin", TIMEOUT).expect("not banned yet");
    }
    poll("a ban", || engine.script("nfguard bans").contains("fail2ban/traefik-auth"));
    assert_eq!(cells::ask(&mut stream, "/", DEFAULT_TIMEOUT), None);
    let mut other = cells::open(&world.internet, Some(CLIENT[0]), to, TIMEOUT).expect("it opens");
    assert!(cells::ask(&mut other, "/", TIMEOUT).is_some());
}
