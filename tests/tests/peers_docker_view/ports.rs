//! `status`: open ports and their owners, checked with packets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nfguard_tests::place::world_with_container;
use nfguard_tests::program::{Answer, command, nfguard};
use nfguard_tests::wait::TIMEOUT;
use serde_json::{Value, json};

use super::{BACKENDS, Backend, NOWHERE, Relay, json, load, reaches, rules, serve, socket_path};

/// 80 is published. No process listens at 443, a process listens at 2222, docker-proxy at 7000.
/// 9000 is published and not allowed.
const POLICY: &str = r#"{ "name": "web", "action": "allow", "proto": "tcp", "port": [80, 443, 2222, 7000] },
    { "name": "range", "action": "allow", "proto": "udp", "port": "6000-6005" }"#;

/// Returns the entry of a port such as `80/tcp`, by IP version if the two differ.
#[track_caller]
fn line<'a>(status: &'a Value, port: u16, protocol: &str, family: &str) -> &'a Value {
    let all = status["ports"].as_array().expect("a list");
    let found: Vec<&Value> = all
        .iter()
        .filter(|line| line["port"] == port && line["protocol"] == protocol)
        .filter(|line| line["families"].as_array().expect("a list").contains(&json!(family)))
        .collect();
    let [line] = found[..] else { panic!("{port}/{protocol}: {found:?}\n{status:#}") };
    line
}

#[test]
fn status_names_owner_and_exposure_of_each_port() {
    for backend in BACKENDS {
        let world = world_with_container();
        let host = &world.host;
        backend.load(host);
        let _servers = serve(&world);
        let listen = |at: &str| host.run(|| TcpListener::bind(at).expect("a listener"));
        let _listeners =
            ["0.0.0.0:2222", "[::1]:5432", "127.0.0.1:5432", "198.51.100.2:3333"].map(listen);
        let _udp = host.run(|| UdpSocket::bind("[::]:6003").expect("a socket"));
        let _relays = [
            Relay::listen(host, "[::]:7000", "172.17.0.2:7000"),
            Relay::listen(host, "0.0.0.0:9001", "172.17.0.2:9001"),
        ];
        let status = ["status", "--docker-socket", NOWHERE];
        let before = json(host, &status, 1);
        assert_eq!(line(&before, 9000, "tcp", "ipv4")["state"], "no-policy", "{backend:?}");
        let open =
            [80, 9000].map(|port| [false, true].map(|v6| reaches(&world, port, v6, TIMEOUT)));
        assert_eq!(open, [[true; 2]; 2], "{backend:?}: Docker publishes past everybody");

        load(host, POLICY);
        let status = json(host, &status, 0);
        assert_eq!(status["notes"], json!([]), "{backend:?}");
        let process = json!({ "kind": "process", "pid": std::process::id() });
        let relay =
            |port: u16| json!({ "kind": "docker-proxy", "address": "172.17.0.2", "port": port });
        let sent =
            |address: &str, port: u16| json!({ "kind": "dnat", "address": address, "port": port });
        let v6 = "2001:db8:d0c::2";
        for (port, family, state, answer) in [
            (80, "ipv4", "reachable", sent("172.17.0.2", 8080)),
            (80, "ipv6", "reachable", sent(v6, 8080)),
            (9000, "ipv4", "published-not-allowed", sent("172.17.0.2", 9000)),
            (9000, "ipv6", "published-not-allowed", sent(v6, 9000)),
            (443, "ipv4", "allowed-not-answered", json!({ "kind": "nothing" })),
            (443, "ipv6", "allowed-not-answered", json!({ "kind": "nothing" })),
            (2222, "ipv4", "reachable", process.clone()),
            (3333, "ipv4", "not-allowed", process.clone()),
            (7000, "ipv4", "reachable", relay(7000)),
            (7000, "ipv6", "reachable", relay(7000)),
            (9001, "ipv4", "published-not-allowed", relay(9001)),
        ] {
            let line = line(&status, port, "tcp", family);
            assert_eq!(line["state"], state, "{backend:?}: {line}");
            for (key, value) in answer.as_object().expect("an object") {
                assert_eq!(&line["answer"][key], value, "{backend:?}: {line}");
            }
            let expected = matches!(state, "reachable");
            assert_eq!(line["allowed"], expected || state == "allowed-not-answered", "{line}");
            let timeout = if expected { TIMEOUT } else { Duration::from_millis(500) };
            let reached = reaches(&world, port, family == "ipv6", timeout);
            assert_eq!(reached, expected, "{backend:?}: {line}");
        }
        assert_eq!(line(&status, 80, "tcp", "ipv4")["rule"], "web");
        assert_eq!(line(&status, 8088, "tcp", "ipv4")["state"], "local");
        assert_eq!(line(&status, 3333, "tcp", "ipv4")["address"], "198.51.100.2");
        // One socket in an allowed range answers over both IP versions.
        assert_eq!(line(&status, 6003, "udp", "ipv4")["state"], "reachable");
        assert_eq!(line(&status, 6003, "udp", "ipv6")["state"], "reachable");
        let all = status["ports"].as_array().expect("a list");
        for absent in [5432, 6000] {
            assert!(all.iter().all(|line| line["port"] != absent), "{status:#}");
        }
    }
}

#[test]
fn only_problems_stand_out() {
    let world = world_with_container();
    Backend::IptablesNft.load(&world.host);
    let _listener = world.host.run(|| TcpListener::bind("0.0.0.0:2222").expect("a listener"));
    load(&world.host, POLICY);
    let status = nfguard(&world.host, &["status", "--docker-socket", NOWHERE]);
    let marked = |line: &&str| line.contains("  ! ") || line.contains(" ! ");
    let marked: Vec<&str> = status.stdout.lines().filter(marked).collect();
    let words = |line: &&str| line.split_whitespace().next().map(str::to_owned);
    let names: Vec<String> = marked.iter().filter_map(words).collect();
    let expected = ["443/tcp", "6000-6005/udp", "7000/tcp", "9000/tcp", "9000/tcp"];
    assert_eq!(names, expected, "{}", status.stdout);
    let of = |name: &str| marked.iter().find(|line| line.starts_with(name)).copied();
    assert!(of("443/tcp").is_some_and(|line| line.contains("allowed, but nothing answers (web)")));
    assert!(of("9000/tcp").is_some_and(|line| line.contains("published, but not allowed")));
}

#[test]
fn a_socket_that_takes_ipv6_alone_does_not_answer_over_ipv4() {
    let world = world_with_container();
    load(&world.host, POLICY);
    let status = ["status", "--docker-socket", NOWHERE];
    for (setting, families) in [("0", json!(["ipv4", "ipv6"])), ("1", json!(["ipv6"]))] {
        world.host.sysctl("ipv6/bindv6only", setting).expect("a setting");
        let _listener = world.host.run(|| TcpListener::bind("[::]:2222").expect("a listener"));
        let status = json(&world.host, &status, 0);
        assert_eq!(line(&status, 2222, "tcp", "ipv6")["families"], families);
        assert!(reaches(&world, 2222, true, TIMEOUT));
        let timeout = if setting == "0" { TIMEOUT } else { Duration::from_millis(500) };
        assert_eq!(reaches(&world, 2222, false, timeout), setting == "0");
    }
}

#[test]
fn docker_is_asked_for_names_and_for_what_the_kernel_does_not_show() {
    let world = world_with_container();
    Backend::IptablesNft.load(&world.host);
    load(&world.host, POLICY);
    let (_folder, path) = socket_path();
    let refusal = "HTTP/1.0 500 Internal Server Error\r\n\r\n{\"message\":\"no\"}\n".to_owned();
    let docker = docker(&path, vec![containers(), refusal]);
    let path = path.to_str().expect("plain letters");
    let status = json(&world.host, &["status", "--docker-socket", path], 0);
    for family in ["ipv4", "ipv6"] {
        assert_eq!(line(&status, 80, "tcp", family)["answer"]["container"], "traefik");
    }
    // The address of the same container.
    assert_eq!(line(&status, 9000, "tcp", "ipv4")["answer"]["container"], "traefik");
    let udp = line(&status, 443, "udp", "ipv4");
    assert_eq!(udp["state"], "published-not-allowed", "{udp}");
    assert_eq!(udp["answer"]["port"], 8443, "{udp}");
    assert_eq!(status["notes"], json!([]));

    let status = json(&world.host, &["status", "--docker-socket", path], 0);
    let notes = status["notes"].to_string();
    assert!(notes.contains("500") && notes.contains(path), "{notes}");
    assert_eq!(line(&status, 80, "tcp", "ipv4")["answer"]["container"], Value::Null);
    let asked = docker.join().expect("no panic");
    assert!(
        asked.iter().all(|asked| asked.starts_with("GET /containers/json HTTP/1.0\r\n")),
        "{asked:?}"
    );

    // A stopped Docker leaves its socket. The other host never had Docker.
    for path in [path, NOWHERE] {
        let status = json(&world.host, &["status", "--docker-socket", path], 0);
        assert_eq!(status["notes"], json!([]), "{path}");
    }
}

/// Returns the answer of an engine about its containers.
fn containers() -> String {
    let head = "HTTP/1.0 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
                Server: Docker/20.10.24 (linux)\r\n\r\n";
    format!("{head}{}\n", rules::CONTAINERS_JSON)
}

/// Serves these answers, one for each connection, and returns the requests.
fn docker(path: &Path, answers: Vec<String>) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client asks");
            let (mut request, mut len) = ([0; 1024], 0);
            while !request[..len].ends_with(b"\r\n\r\n") {
                len += stream.read(&mut request[len..]).expect("a question");
            }
            asked.push(String::from_utf8_lossy(&request[..len]).into_owned());
            stream.write_all(answer.as_bytes()).expect("the client reads");
        }
        asked
    })
}

#[test]
fn docker_names_published_ports_where_no_program_lists_the_legacy_rules() {
    let world = world_with_container();
    Backend::IptablesLegacy.load(&world.host);
    load(&world.host, POLICY);
    let (_folder, path) = socket_path();
    let docker = docker(&path, vec![containers()]);
    let without_programs = |arguments: &[&str]| {
        let output = world.host.run(|| command(arguments).env("PATH", NOWHERE).output());
        let answer = Answer::from(output.expect("nfguard starts"));
        serde_json::from_str::<Value>(&answer.stdout).expect("JSON")
    };
    let path = path.to_str().expect("plain letters");
    let status = without_programs(&["status", "--json", "--docker-socket", path]);
    docker.join().expect("no panic");
    for (port, protocol, state) in [(80, "tcp", "reachable"), (443, "udp", "published-not-allowed")]
    {
        let line = line(&status, port, protocol, "ipv4");
        assert_eq!(line["state"], state, "{line}");
        assert_eq!(line["answer"]["address"], "172.17.0.2", "{line}");
    }
    assert_eq!(status["notes"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert!(status["notes"][0].as_str().is_some_and(|note| note.contains("iptables-legacy-save")));
    let doctor = ["doctor", "--json", "--docker-socket", NOWHERE, "--nftables-conf", NOWHERE];
    let found = without_programs(&doctor);
    assert_eq!(found["findings"][0]["code"], "legacy-iptables", "{found:#}");
}
