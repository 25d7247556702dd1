//! The whole life of one Docker, and the checks at each step.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use nfguard_lab::{Netns, Server, World, veth};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::Value;

use crate::bans;
use crate::cells::{self, ATTACKER, CLIENT, Cell, EGRESS, From, Ground, HOST};
use crate::docker::{Docker, Kind};

/// The policy of a host with Traefik, and a second published port.
const POLICY: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "limit", "proto": "tcp", "port": "ssh" },
    { "name": "http", "action": "allow", "proto": "tcp", "port": 80 },
    { "name": "https", "action": "allow", "port": 443 },
    { "name": "backend", "action": "allow", "proto": "tcp", "port": 4443 },
    BACKEND
    { "name": "dns-out", "action": "allow", "direction": "out", "port": 53 },
    { "name": "ntp-out", "action": "allow", "direction": "out", "proto": "udp", "port": 123 },
    { "name": "web-out", "action": "allow", "direction": "out", "proto": "tcp", "port": [80, 443] }
] SWITCHES }"#;

pub(crate) fn policy(backend: &str, switches: &str) -> String {
    POLICY.replace("BACKEND", backend).replace("SWITCHES", switches)
}

pub(crate) fn load(world: &World, backend: &str, switches: &str) {
    let policy = TempFile::new("docker.json", &policy(backend, switches));
    let answer = nfguard(&world.host, &["load".as_ref(), policy.as_ref()]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

fn unload(world: &World) {
    let answer = nfguard(&world.host, &["unload", "--all"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
}

/// Makes a host with a neighbour on the internet that has a route to the containers.
pub(crate) fn world() -> World {
    let world = World::new().expect("run me with `cargo xtask netns-test`");
    // Docker sets both, except with the nftables backend.
    world.host.sysctl("ipv4/ip_forward", "1").expect("a setting");
    world.host.sysctl("ipv6/conf/all/forwarding", "1").expect("a setting");
    for network in [17, 18] {
        let route = world.internet.route([172, network, 0, 0].into(), 16, World::HOST_V4);
        route.expect("a route");
    }
    let containers = "2001:db8:d0c::".parse().expect("an address");
    world.internet.route(containers, 64, World::HOST_V6).expect("a route");
    world
}

/// Starts the servers on the internet, at every address.
fn servers(world: &World) -> Vec<Server> {
    let mut servers = Vec::new();
    for address in [World::INTERNET_V4, World::INTERNET_V6] {
        for (kind, port, _) in EGRESS {
            let address = SocketAddr::new(address, port);
            let server = match kind {
                Kind::Tcp => world.internet.serve_tcp(address),
                Kind::Udp => world.internet.serve_udp(address),
            };
            servers.push(server.expect("a server"));
        }
    }
    servers
}

/// Makes a machine on the bridge docker0 that Docker does not know.
fn add_bridge_machine(world: &World) -> Netns {
    let beside = Netns::new().expect("a namespace");
    veth(&world.host, "beside", &beside, "eth0").expect("a link");
    world.host.enslave("beside", "docker0").expect("a port");
    beside.address("eth0", [172, 17, 200, 7].into(), 16).expect("an address");
    let any = Ipv4Addr::UNSPECIFIED.into();
    beside.route(any, 0, [172, 17, 0, 1].into()).expect("a route");
    beside
}

/// Asserts the same rule for a process of the host. The containers come later.
fn assert_rule_for_host_process(world: &World) {
    load(world, "", "");
    for host in HOST {
        let allowed = world.host.serve_tcp(SocketAddr::new(host, 443)).expect("a server");
        let denied = world.host.serve_tcp(SocketAddr::new(host, 9000)).expect("a server");
        let reaches = |server: &Server, timeout| {
            let from = CLIENT.into_iter().find(|from| from.is_ipv4() == host.is_ipv4());
            cells::open(&world.internet, from, server.address(), timeout).is_some()
        };
        assert!(reaches(&allowed, TIMEOUT));
        assert!(!reaches(&denied, nfguard_lab::DEFAULT_TIMEOUT));
    }
    unload(world);
}

/// Runs the whole story: from a host without a policy to a host without a policy.
pub(crate) fn run(world: &World, docker: &dyn Docker) {
    assert_rule_for_host_process(world);
    let _servers = servers(world);
    docker.set_up();
    let beside = &add_bridge_machine(world);
    let ground = &Ground { world, beside, docker };

    // Docker alone, then Docker and bans.
    let cells = cells::all(docker);
    ground.assert_docker_alone("Docker alone", &cells);
    bans::assert_without_a_policy(ground);
    assert_seen_peers(world, docker);

    let untouched = rules(world, docker);
    let unchanged = |when| assert_same(&untouched, &rules(world, docker), when);
    load(world, "", "");
    unchanged("loaded");
    assert_our_chain_is_first(world);
    ground.assert_policy("nfguard after Docker", &cells);
    docker.check_health();
    bans::assert_on_every_path(ground);
    unchanged("banned and unbanned");

    // A load of other rules while containers run.
    let deny = r#"{ "action": "deny", "direction": "out", "in_interface": "br-backend",
        "proto": "tcp", "port": 80 },"#;
    load(world, deny, "");
    ground.assert_policy("one bridge may less", &without_http(&cells, "two"));
    assert_outgoing_to_banned(ground, deny);
    load(world, "", "");
    ground.assert_policy("loaded again", &cells);
    unchanged("loaded again");

    docker.restart();
    ground.assert_policy("Docker restarted", &cells::all(docker));
    docker.move_web();
    ground.assert_policy("a container moved", &cells::all(docker));
    docker.add_network();
    let mut more = cells::all(docker);
    more.extend(to_the_new_network(docker));
    ground.assert_policy("a network more", &more);
    docker.remove_network();
    ground.assert_policy("a network less", &cells::all(docker));
    bans::assert_on_every_path(ground);

    let before = rules(world, docker);
    unload(world);
    assert_same(&before, &rules(world, docker), "unloaded");
    let cells = cells::all(docker);
    ground.assert_docker_alone("unloaded", &cells);
    // nfguard starts first, with a ban in force before Docker starts.
    load(world, "", "");
    bans::ban(world, &ATTACKER);
    docker.restart();
    ground.assert_policy("nfguard before Docker", &cells::all(docker));
    ground.assert_stopped("a ban before Docker", &cells::published(docker, ATTACKER));
}

/// Returns the requests to the new network. Its container serves neighbours, and not the internet.
fn to_the_new_network(docker: &dyn Docker) -> [Cell; 2] {
    let (four, _) = docker.address("four");
    [
        (From::Internet(CLIENT[0]), SocketAddr::new(HOST[0], 9444), false),
        (From::Host, SocketAddr::new(four, 8443), true),
    ]
    .map(|(from, to, wanted)| {
        let to = to.to_string();
        Cell { from, kind: Kind::Tcp, to, wanted, open: true }
    })
}

/// Changes the expected outcomes where one container may not reach port 80.
fn without_http(cells: &[Cell], container: &str) -> Vec<Cell> {
    let mut cells = cells.to_vec();
    let to = SocketAddr::new(World::INTERNET_V4, 80).to_string();
    let is_it = |cell: &&mut Cell| {
        cell.to == to && matches!(cell.from, From::Container(name) if name == container)
    };
    cells.iter_mut().find(is_it).expect("it is asked").wanted = false;
    cells
}

/// Asserts the peer that a container sees: the client behind NAT, or the bridge behind
/// docker-proxy.
fn assert_seen_peers(world: &World, docker: &dyn Docker) {
    let peer = |from: IpAddr, to: SocketAddr| {
        let mut stream = cells::open(&world.internet, Some(from), to, TIMEOUT).expect("it opens");
        let answer = cells::ask(&mut stream, "/", TIMEOUT).expect("an answer");
        answer.rsplit_once("peer=").expect("a peer").1.trim().to_owned()
    };
    for (from, host) in CLIENT.into_iter().zip(HOST) {
        if host.is_ipv6() && !docker.translates_ipv6() {
            continue;
        }
        assert_eq!(peer(from, SocketAddr::new(host, 443)), from.to_string());
    }
    if docker.has_proxy() {
        assert_eq!(peer(CLIENT[1], SocketAddr::new(HOST[1], 4443)), "172.18.0.1");
    }
}

/// Asserts that packets to a banned address go out, unless the policy drops them.
fn assert_outgoing_to_banned(ground: &Ground<'_>, backend: &str) {
    let banned: IpAddr = [192, 0, 2, 66].into();
    let other: IpAddr = [192, 0, 2, 67].into();
    bans::ban(ground.world, &[banned]);
    for from in [From::Container("web"), From::Host] {
        assert!(bans::is_sent_to(ground, from, banned), "{from:?}: not asked for");
    }
    load(ground.world, backend, r#", "ban_outgoing": true"#);
    for from in [From::Container("web"), From::Container("two"), From::Host] {
        assert!(!bans::is_sent_to(ground, from, banned), "{from:?}: sent to a banned address");
        assert!(bans::is_sent_to(ground, from, other), "{from:?}: not sent to another");
    }
    load(ground.world, backend, "");
    assert!(bans::is_sent_to(ground, From::Container("web"), banned), "switched off again");
    bans::unban(ground.world, &[banned]);
}

/// Returns all foreign rules, byte for byte, without their counters.
fn rules(world: &World, docker: &dyn Docker) -> Vec<String> {
    let saved = docker.rules();
    let saved = saved.lines().filter(|line| !line.starts_with('#')).map(|line| {
        // `:FORWARD DROP [12:720]`
        let counted = line.starts_with(':').then(|| line.split_once(" [")).flatten();
        counted.map_or(line, |(chain, _)| chain)
    });
    // Handles reveal a replaced rule.
    let list = ["-a", "-s", "list", "ruleset"];
    let listing = world.host.run(|| Command::new("nft").args(list).output().expect("nft starts"));
    let listing = "\n".to_owned() + &String::from_utf8(listing.stdout).expect("text");
    let tables = listing.split("\ntable ").filter(|table| !table.contains("inet nfguard"));
    let lines = saved.chain(tables.flat_map(str::lines)).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

fn assert_same(before: &[String], after: &[String], when: &str) {
    let differ = before.iter().zip(after).find(|(before, after)| before != after);
    assert!(differ.is_none() && before.len() == after.len(), "Docker's rules, {when}: {differ:?}");
}

/// Asserts that our chain comes before every foreign chain of the forward hook.
fn assert_our_chain_is_first(world: &World) {
    let chains = world.host.run(|| Command::new("nft").args(["-j", "list", "chains"]).output());
    let chains: Value = serde_json::from_slice(&chains.expect("nft starts").stdout).expect("JSON");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for chain in chains["nftables"].as_array().expect("a list").iter().map(|it| &it["chain"]) {
        if chain["hook"] != "forward" {
            continue;
        }
        let priority = chain["prio"].as_i64().expect("a priority");
        let is_ours = chain["table"].as_str().is_some_and(|table| table.starts_with("nfguard"));
        if is_ours { ours.push(priority) } else { others.push(priority) }
    }
    // nft does not list legacy iptables. Its filter table always has priority 0.
    others.push(0);
    let last = ours.iter().max().expect("we have one");
    assert!(others.iter().all(|other| last < other), "{ours:?}, {others:?}");
}

/// Asserts that no process runs in the namespace of the host.
pub(crate) fn assert_no_process_is_left(host: &Netns) {
    let id = format!("net:[{}]", host.id());
    let processes = std::fs::read_dir("/proc").expect("proc").flatten().filter(|entry| {
        let netns = std::fs::read_link(entry.path().join("ns/net"));
        netns.is_ok_and(|link| link.to_string_lossy() == id)
    });
    let processes: Vec<_> = processes.map(|entry| entry.path()).collect();
    assert!(processes.is_empty(), "{processes:?}");
}
