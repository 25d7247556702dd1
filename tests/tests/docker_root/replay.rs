//! The nftables backend of Docker without an engine. Debian packages no engine with this backend.
//! The test loads its ruleset, makes its bridges and containers, and runs the real docker-proxy.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nfguard_lab::{Netns, veth};
use nfguard_netlink::{Connection, Nft, protocol};
use nfguard_tests::nft::nft;

use crate::docker::{self, Docker, Kind};

const RULES: &str = include_str!("../../fixtures/docker29.nft");

/// The rules of a second network.
const OTHER: &str = r#"table ip docker-bridges {
    chain in__br-other {
        ct state established,related counter accept
        ip daddr 172.19.0.2 tcp dport 8443 counter accept
        counter drop comment "UNPUBLISHED PORT DROP"
    }
    chain published {
        iifname != "br-other" tcp dport 9444 counter dnat to 172.19.0.2:8443
    }
}
add element ip docker-bridges filter-forward-in-jumps { "br-other" : jump in__br-other }
"#;

pub(crate) struct Replay<'w> {
    host: &'w Netns,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    containers: Vec<Container>,
    proxies: Vec<Program>,
}

struct Container {
    name: &'static str,
    netns: Netns,
    addresses: (IpAddr, Option<IpAddr>),
    _server: Program,
}

/// A program that is killed on drop.
struct Program(Child);

impl Program {
    fn start(netns: &Netns, command: &mut Command) -> Program {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Program(netns.run(|| command.spawn().expect("it starts")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'w> Replay<'w> {
    pub(crate) fn new(host: &'w Netns) -> Replay<'w> {
        for (bridge, network) in [("docker0", 17), ("br-backend", 18)] {
            make_bridge(host, bridge, network);
        }
        let gate6 = "2001:db8:d0c::1".parse().expect("an address");
        host.address("docker0", gate6, 64).expect("an address");
        Replay { host, state: Mutex::default() }
    }

    /// Starts a container with this last byte of its address.
    fn run(&self, name: &'static str, bridge: &str, [network, number]: [u8; 2], ports: &[&str]) {
        let netns = Netns::new().expect("a namespace");
        let link = format!("v-{name}");
        veth(self.host, &link, &netns, "eth0").expect("a link");
        self.host.enslave(&link, bridge).expect("a port");
        let v4 = IpAddr::from([172, network, 0, number]);
        netns.address("eth0", v4, 16).expect("an address");
        let any: IpAddr = [0; 4].into();
        netns.route(any, 0, [172, network, 0, 1].into()).expect("a route");
        let v6 = (bridge == "docker0").then(|| {
            let gate: IpAddr = "2001:db8:d0c::1".parse().expect("an address");
            let v6: IpAddr = format!("2001:db8:d0c::{number:x}").parse().expect("an address");
            netns.address("eth0", v6, 64).expect("an address");
            netns.route("::".parse().expect("an address"), 0, gate).expect("a route");
            v6
        });
        let mut serve = Command::new(docker::responder());
        let server = Program::start(&netns, serve.arg("serve").args(ports));
        let container = Container { name, netns, addresses: (v4, v6), _server: server };
        self.state.lock().expect("no panic").containers.push(container);
    }

    fn run_web(&self, number: u8) {
        self.run("web", "docker0", [17, number], &["8080", "8443", "8444", "9000", "9100"]);
    }

    fn remove(&self, name: &str) {
        self.state.lock().expect("no panic").containers.retain(|container| container.name != name);
        // The kernel removes the link with the namespace, but later. The name is needed again.
        let link = format!("v-{name}");
        let delete = ["link", "delete", link.as_str()];
        let deleted = self.host.run(|| Command::new("ip").args(delete).output());
        deleted.expect("ip starts");
        // The engine does the same, or flows of datagrams would go to the old address.
        let is_udp = |connection: &Connection| connection.original.protocol == protocol::UDP;
        let mut kernel = self.host.run(|| Nft::open().expect("netlink is there"));
        kernel.forget_connections(is_udp).expect("forgotten");
    }

    /// Loads the rules and starts the relays, as after a start of Docker.
    fn start(&self) {
        self.state.lock().expect("no panic").proxies.clear();
        let ((web, web6), (two, _)) = (self.address("web"), self.address("two"));
        let web6 = web6.expect("it has one");
        let old = "table ip docker-bridges {}; delete table ip docker-bridges;
            table ip6 docker-bridges {}; delete table ip6 docker-bridges;";
        let rules = [("$web6", web6), ("$web", web), ("$two", two)]
            .iter()
            .fold(RULES.to_owned(), |rules, (name, is)| rules.replace(name, &is.to_string()));
        nft(self.host, &format!("{old}\n{rules}"));
        let mut proxies = Vec::new();
        for (protocol, port, to) in [
            ("tcp", 80, [(web, 8080), (web6, 8080)]),
            ("tcp", 443, [(web, 8443), (web6, 8443)]),
            ("udp", 443, [(web, 8444), (web6, 8444)]),
            ("tcp", 9000, [(web, 9000), (web6, 9000)]),
            ("udp", 9000, [(web, 9000), (web6, 9000)]),
            ("tcp", 4443, [(two, 8443), (two, 8443)]),
            ("tcp", 9443, [(two, 8443), (two, 8443)]),
        ] {
            for (any, (to, inner)) in ["0.0.0.0", "::"].into_iter().zip(to) {
                let script = format!(
                    "exec docker-proxy -proto {protocol} -host-ip {any} -host-port {port} \
                     -container-ip {to} -container-port {inner} 3>/dev/null"
                );
                proxies.push(Program::start(self.host, Command::new("sh").args(["-c", &script])));
            }
        }
        self.state.lock().expect("no panic").proxies = proxies;
    }
}

fn make_bridge(host: &Netns, bridge: &str, network: u8) {
    host.bridge(bridge).expect("a bridge");
    host.address(bridge, [172, network, 0, 1].into(), 16).expect("an address");
}

impl Docker for Replay<'_> {
    fn has_proxy(&self) -> bool {
        true
    }

    fn translates_ipv6(&self) -> bool {
        true
    }

    fn lets_neighbours_route_to_published_ports(&self) -> bool {
        false
    }

    fn address(&self, container: &str) -> (IpAddr, Option<IpAddr>) {
        let state = self.state.lock().expect("no panic");
        let found = state.containers.iter().find(|one| one.name == container);
        found.expect("it runs").addresses
    }

    fn reaches(&self, container: &str, kind: Kind, to: &str, milliseconds: u32) -> bool {
        // The replay has no name service, which is part of the engine.
        let (name, port) = to.rsplit_once(':').expect("a port");
        let to = match name {
            "two" | "three" => {
                let port = port.parse().expect("a port");
                SocketAddr::new(self.address(name).0, port).to_string()
            }
            _ => to.to_owned(),
        };
        let mut ask = Command::new(docker::responder());
        ask.args([kind.word(), &to, &milliseconds.to_string()]).stdout(Stdio::null());
        let child = {
            let state = self.state.lock().expect("no panic");
            let found = state.containers.iter().find(|one| one.name == container);
            found.expect("it runs").netns.run(|| ask.spawn())
        };
        child.expect("it starts").wait().expect("it ends").success()
    }

    fn set_up(&self) {
        self.run_web(2);
        self.run("two", "br-backend", [18, 2], &["8443", "9100"]);
        self.run("three", "br-backend", [18, 3], &["8443"]);
        self.start();
    }

    fn restart(&self) {
        self.start();
    }

    fn move_web(&self) {
        self.remove("web");
        self.run_web(9);
        self.start();
    }

    fn add_network(&self) {
        make_bridge(self.host, "br-other", 19);
        self.run("four", "br-other", [19, 2], &["8443"]);
        nft(self.host, OTHER);
    }

    fn remove_network(&self) {
        self.remove("four");
        self.start();
        let delete = ["link", "delete", "br-other"];
        let deleted = self.host.run(|| Command::new("ip").args(delete).output());
        assert!(deleted.expect("ip starts").status.success());
    }

    fn rules(&self) -> String {
        // nft lists all rules here.
        String::new()
    }

    fn check_health(&self) {}
}
