//! `try`: tests a policy with real packets in temporary network namespaces.
//!
//! A user namespace gives this process rights over its own network namespaces and over nothing else.
//! One network namespace is the host, one the internet, one a container.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nfguard_ban::scan;
use nfguard_lab::{
    DEFAULT_TIMEOUT, Probe, ProbeOutcome, Refusal, Server, World, enter_user_namespace, run_all,
};
use nfguard_netlink::eval::{Fate, Memory};
use nfguard_netlink::{IpVersion, Key, Nft, Table, protocol};
use nfguard_policy::{Flow, FlowPath, Payload, Sample, SampleHosts, explain};
use serde_json::{Value, json};

use crate::output::failure::Failure;
use crate::output::{self, Answer, BAD, Done, GOOD, PLAIN, fate_word};

/// Timeout of a probe that should pass. A slow machine needs it; a probe that passes returns at once.
const PASSING_TIMEOUT: Duration = Duration::from_secs(30);
/// An address of the world's internet (RFC 5737, RFC 3849).
const REMOTE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(203, 0, 113, 7), Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7));
/// Ports to which the container connects: most policies allow the first, few the second.
const CONTAINER_OUT_PORTS: [u16; 2] = [443, 25];
/// A port of the container that is not published.
const CONTAINER_IN_PORT: u16 = 8080;

pub(crate) fn r#try(path: &Path, as_json: bool) -> Done {
    let file = output::read_policy(path, as_json)?;
    let table = without_scan_bans(file.seal().table);
    let world = world().map_err(Failure::Try)?;
    world.host.run(|| nfguard_netlink::load(&mut Nft::open()?, &table))?;

    let hosts = sample_hosts().map_err(Failure::Try)?;
    let mut samples = file.policy.samples(&hosts);
    samples.extend(container_samples());
    let rows = run(&world, &table, &samples).map_err(Failure::Try)?;

    let wrong = rows.iter().filter(|row| !row.agrees()).count();
    if as_json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        output::json(
            &json!({ "file": file.name, "warnings": file.warnings, "agrees": wrong == 0, "probes": rows }),
        );
    } else {
        print(&rows);
        let passed = rows.iter().filter(|row| row.observed.passed()).count();
        let stopped = rows.len() - passed;
        output::line("");
        output::line(&format!(
            "{}: {passed} kinds of connection passed and {stopped} were stopped, in a temporary \
             network namespace; the firewall of this machine was not changed",
            file.name
        ));
        if wrong > 0 {
            output::styled(BAD, &format!("{wrong} did not end as `explain` predicts"));
        }
    }
    Ok(Answer::from(wrong == 0))
}

/// Returns the table with a never-ban entry for all addresses: the probes look like a scan.
fn without_scan_bans(mut table: Table) -> Table {
    for version in IpVersion::ALL {
        let bytes = version.address_bytes();
        let name = scan::set("never", version);
        let all = Key::Range(vec![0; bytes], vec![u8::MAX; bytes]);
        let never = table.sets.iter_mut().find(|set| set.name == name);
        never.into_iter().for_each(|set| set.elements = vec![all.clone().into()]);
    }
    table
}

/// Creates the network namespaces, in a user namespace if the kernel allows one. Root needs none.
fn world() -> io::Result<World> {
    match enter_user_namespace() {
        Ok(()) => World::with_container(),
        Err(refused) => World::with_container().map_err(|_| refused),
    }
}

/// Returns the addresses of the two ends.
fn sample_hosts() -> io::Result<SampleHosts> {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (World::HOST_V4, World::HOST_V6) else {
        return Err(io::Error::other("the addresses of the host have the wrong IP versions"));
    };
    Ok(SampleHosts { host: (v4, v6), remote: REMOTE, interface: "eth0".to_owned() })
}

/// Connections from the container, and to the container past its published ports.
fn container_samples() -> Vec<Sample> {
    let pairs = [(World::CONTAINER_V4, REMOTE.0.into()), (World::CONTAINER_V6, REMOTE.1.into())];
    let sample = |source, destination, port, in_interface: &str, out_interface: &str| Sample {
        flow: Flow {
            path: FlowPath::Forward,
            source,
            destination,
            payload: Payload::Ports { protocol: protocol::TCP, source: 40_000, destination: port },
            in_interface: in_interface.to_owned(),
            out_interface: out_interface.to_owned(),
        },
        rule: None,
        times: 1,
    };
    pairs
        .into_iter()
        .flat_map(|(container, far): (IpAddr, IpAddr)| {
            let outs =
                CONTAINER_OUT_PORTS.map(|port| sample(container, far, port, "docker0", "eth0"));
            let past = sample(far, container, CONTAINER_IN_PORT, "eth0", "docker0");
            outs.into_iter().chain([past])
        })
        .collect()
}

/// One line of the output: a connection, tried once or several times.
struct Row {
    flow: Flow,
    rule: Option<String>,
    /// The first and the last attempt with this result, if it was tried more than once.
    nth: Option<(u8, u8)>,
    expected: Fate,
    decided_by: String,
    observed: ProbeOutcome,
}

/// Runs all probes: single connections in parallel, then the connections of each limit in turn.
fn run(world: &World, table: &Table, samples: &[Sample]) -> io::Result<Vec<Row>> {
    let servers = serve(world, samples)?;
    let mut memory = Memory::default();
    let (once, repeated): (Vec<&Sample>, Vec<&Sample>) =
        samples.iter().partition(|sample| sample.times == 1);

    let expected: Vec<_> =
        once.iter().map(|sample| explain(table, &sample.flow, &mut memory)).collect();
    let probes: Vec<Probe<'_>> = once
        .iter()
        .zip(&expected)
        .map(|(sample, expected)| probe(world, &sample.flow, expected.fate, true))
        .collect();
    let mut rows: Vec<Row> = Vec::new();
    for ((sample, expected), observed) in once.iter().zip(&expected).zip(run_all(&probes)) {
        rows.push(row(sample, None, expected, observed));
    }
    for sample in repeated {
        for nth in 1..=sample.times {
            let expected = explain(table, &sample.flow, &mut memory);
            // Each attempt is a new connection: the kernel chooses its source port.
            let observed = probe(world, &sample.flow, expected.fate, false).run();
            let row = row(sample, Some((nth, nth)), &expected, observed);
            let alike = |last: &&mut Row| {
                (&last.flow, last.expected, &last.observed)
                    == (&row.flow, row.expected, &row.observed)
            };
            match rows.last_mut().filter(alike) {
                Some(last) => {
                    last.nth = last.nth.map(|(from, _)| (from, nth));
                    last.decided_by = row.decided_by;
                }
                None => rows.push(row),
            }
        }
    }
    drop(servers);
    Ok(rows)
}

fn row(
    sample: &Sample,
    nth: Option<(u8, u8)>,
    expected: &nfguard_policy::Explanation<'_>,
    observed: ProbeOutcome,
) -> Row {
    let decided_by = expected.deciding().map_or_else(String::new, |(_, decision)| {
        let comment = decision.rule.and_then(|(_, rule)| rule.comment.clone());
        comment.unwrap_or_else(|| decision.chain.to_owned())
    });
    let (flow, rule) = (sample.flow.clone(), sample.rule.clone());
    Row { flow, rule, nth, expected: expected.fate, decided_by, observed }
}

/// Starts a server at the far end of each connection, and adds the addresses of both ends.
fn serve(world: &World, samples: &[Sample]) -> io::Result<Vec<Server>> {
    let mut servers = Vec::new();
    let mut done = BTreeSet::new();
    let mut own = BTreeSet::new();
    for Sample { flow, .. } in samples {
        let (near, far) = match flow.path {
            FlowPath::Out => (&world.host, &world.internet),
            _ => (&world.internet, &world.host),
        };
        if flow.path != FlowPath::Forward {
            for (netns, address, side) in [(near, flow.source, 0), (far, flow.destination, 1)] {
                if own.insert((address, flow.path == FlowPath::Out, side)) && !is_known(address) {
                    let prefix = if address.is_ipv4() { 32 } else { 128 };
                    netns.own_prefix(address, prefix)?;
                }
            }
        }
        let far = match (flow.path, world.container.as_ref()) {
            (FlowPath::Forward, _) if flow.in_interface == "docker0" => &world.internet,
            (FlowPath::Forward, Some(container)) => container,
            _ => far,
        };
        let Payload::Ports { protocol, destination, .. } = flow.payload else { continue };
        let address = SocketAddr::new(flow.destination, destination);
        if !done.insert((far.id(), protocol, address)) {
            continue;
        }
        servers.push(match protocol {
            protocol::UDP => far.serve_udp(address)?,
            _ => far.serve_tcp(address)?,
        });
    }
    Ok(servers)
}

/// Tells whether the namespaces have this address from the start.
fn is_known(address: IpAddr) -> bool {
    [World::HOST_V4, World::HOST_V6, REMOTE.0.into(), REMOTE.1.into()].contains(&address)
}

fn probe<'w>(world: &'w World, flow: &Flow, expected: Fate, fixed_port: bool) -> Probe<'w> {
    let netns = match (flow.path, world.container.as_ref()) {
        (FlowPath::Out, _) => &world.host,
        (FlowPath::Forward, Some(container)) if flow.in_interface == "docker0" => container,
        _ => &world.internet,
    };
    let probe = match flow.payload {
        Payload::Ports { protocol, source, destination } => {
            let to = SocketAddr::new(flow.destination, destination);
            let probe = match protocol {
                protocol::UDP => Probe::udp(netns, to),
                _ => Probe::tcp(netns, to),
            };
            if fixed_port { probe.source_port(source) } else { probe }
        }
        Payload::Icmp { .. } | Payload::Protocol(_) => Probe::ping(netns, flow.destination),
    };
    let timeout = if expected == Fate::Accept { PASSING_TIMEOUT } else { DEFAULT_TIMEOUT };
    probe.from(flow.source).timeout(timeout)
}

impl Row {
    /// Tells whether the observed outcome is the expected one. For a packet that the rules of this
    /// host drop on its way out, the system call fails.
    fn agrees(&self) -> bool {
        match (self.expected, &self.observed) {
            (Fate::Accept, observed) => observed.passed(),
            (Fate::Drop, ProbeOutcome::TimedOut | ProbeOutcome::Refused(Refusal::NotPermitted)) => {
                true
            }
            (Fate::Drop, _) => false,
            (Fate::Reject(_), ProbeOutcome::Refused(_)) => true,
            (Fate::Reject(_), _) => false,
        }
    }

    fn direction(&self) -> &'static str {
        match (self.flow.path, self.flow.in_interface.as_str()) {
            (FlowPath::Out, _) => "out",
            (FlowPath::Forward, "docker0") => "container out",
            (FlowPath::Forward, _) => "to container",
            (FlowPath::In | FlowPath::Published(_), _) => "in",
        }
    }

    fn connection(&self) -> String {
        let connection = match self.flow.payload {
            Payload::Ports { protocol, destination, .. } => {
                let name = if protocol == protocol::UDP { "udp" } else { "tcp" };
                format!("{destination}/{name}")
            }
            Payload::Icmp { .. } | Payload::Protocol(_) => "ping".to_owned(),
        };
        match self.nth {
            Some((from, to)) if from != to => format!("{connection} {from} to {to}"),
            Some((nth, _)) => format!("{connection} no. {nth}"),
            None => connection,
        }
    }

    fn json(&self) -> Value {
        json!({
            "direction": self.direction(),
            "connection": self.connection(),
            "from": self.flow.source.to_string(),
            "to": self.flow.destination.to_string(),
            "rule": self.rule,
            "expected": fate_word(self.expected),
            "observed": self.observed.to_string(),
            "decided_by": self.decided_by,
            "agrees": self.agrees(),
        })
    }
}

fn print(rows: &[Row]) {
    output::line(&format!(
        "  {:<13} {:<14} {:<20} {:<20} {:<8} {:<14} decided by",
        "direction", "connection", "from", "to", "expected", "observed"
    ));
    for row in rows {
        let (mark, style) = if row.agrees() { ("✓", GOOD) } else { ("✗", BAD) };
        let rest = format!(
            " {:<13} {:<14} {:<20} {:<20} {:<8} {:<14} {}",
            row.direction(),
            row.connection(),
            row.flow.source.to_string(),
            row.flow.destination.to_string(),
            fate_word(row.expected),
            row.observed.to_string(),
            row.decided_by,
        );
        output::spans(&[(style, mark), (PLAIN, &rest)]);
    }
}
