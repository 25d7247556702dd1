//! The guide's policy for guests of LXD, libvirt and Podman, with a DHCP server and a resolver on the
//! host's bridge, as LXD and libvirt run them.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::{fs, path::Path};

use nfguard_lab::{DEFAULT_TIMEOUT, Netns, Probe, World, veth};
use nfguard_tests::document::blocks;
use nfguard_tests::nft::nft;
use nfguard_tests::wait::{TIMEOUT, wait_until};

use super::{BRIDGE, HTTPS, Hosted, codes, load, policy, reaches};

/// The port of a service of the guest.
const SERVICE: u16 = 8080;

/// dnsmasq, as LXD and libvirt run it for a bridge.
struct Dnsmasq {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Dnsmasq {
    fn at(netns: &Netns, bridge: &str) -> Dnsmasq {
        let folder = tempfile::tempdir().expect("a folder");
        let leases = folder.path().join("leases").display().to_string();
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let process = netns.run(|| {
            let mut dnsmasq = Command::new("dnsmasq");
            dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
            dnsmasq.args(["--no-ping", "--bind-interfaces", "--except-interface=lo"]);
            dnsmasq.arg(format!("--interface={bridge}"));
            dnsmasq.arg("--dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0,1h");
            dnsmasq.arg(format!("--dhcp-leasefile={leases}"));
            dnsmasq.arg("--address=/name.example/198.51.100.1");
            dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
        });
        let dnsmasq = Dnsmasq { process: process.expect("dnsmasq is installed"), _folder: folder };
        wait_until("the resolver listens", || {
            netns.run(|| UdpSocket::bind((IpAddr::from(BRIDGE), 53)).is_err())
        });
        dnsmasq
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // The process has ended if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has a guest ask for an address, and use what it gets. Tries are a second apart.
fn lease(guest: &Netns, tries: u32) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
                ip address add $ip/24 dev $interface && ip route add default via $router\n";
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made a program");
    let tries = tries.to_string();
    let output = guest.run(|| {
        let mut client = Command::new("busybox");
        client.args(["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-T", "1", "-t", &tries, "-s"]);
        client.arg(Path::new(&script)).output()
    });
    output.expect("busybox is installed")
}

/// Reports whether a guest gets the address of a name from the host.
fn resolves(guest: &Netns) -> bool {
    let output = guest.run(|| {
        let mut lookup = Command::new("busybox");
        lookup.args(["nslookup", "-type=a", "name.example", "10.77.0.1"]).output()
    });
    String::from_utf8_lossy(&output.expect("busybox is installed").stdout).contains("198.51.100.1")
}

/// Returns the policy that the guide has for guests.
fn of_the_guide() -> String {
    let all = blocks("docs/guide.md").into_iter();
    let mut found = all.filter(|block| block.section == "Guests" && block.language == "json");
    found.next().expect("a policy").text
}

/// Makes a host whose bridge has a guest without an address, and masquerades what the guest sends.
fn without_address(bridge: &str) -> Hosted {
    let hosted = Hosted::bare();
    let host = hosted.host();
    host.bridge(bridge).expect("a bridge");
    host.address(bridge, BRIDGE.into(), 24).expect("an address");
    veth(host, "veth1", &hosted.guest, "eth0").expect("a link");
    host.enslave("veth1", bridge).expect("a port");
    hosted.world.internet.route([10, 77, 0, 0].into(), 24, World::HOST_V4).expect("a route");
    nft(
        host,
        "table ip guests { chain postrouting { type nat hook postrouting priority srcnat;
            ip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 masquerade; }; }\n",
    );
    hosted
}

/// Returns the address of the guest.
fn address(guest: &Netns) -> IpAddr {
    let output = guest.run(|| Command::new("ip").args(["-4", "-o", "address", "show"]).output());
    let text = String::from_utf8(output.expect("ip is installed").stdout).expect("text");
    let word = text.split_whitespace().find(|word| word.starts_with("10.77.0."));
    let word = word.unwrap_or_else(|| panic!("no address: {text}"));
    word.split('/').next().expect("an address").parse().expect("an address")
}

#[test]
fn guests_of_lxd_libvirt_and_podman_get_a_lease_and_names_and_reach_out_by_the_guides_policy() {
    for bridge in ["lxdbr0", "virbr0", "podman0"] {
        let hosted = without_address(bridge);
        let (host, guest, internet) = (hosted.host(), &hosted.guest, &hosted.world.internet);
        let _dnsmasq = Dnsmasq::at(host, bridge);
        load(host, &of_the_guide());
        if bridge == "podman0" {
            // Podman gives addresses itself; its resolver is on the bridge too.
            guest.address("eth0", [10, 77, 0, 100].into(), 24).expect("an address");
            guest.route(super::ANY_V4, 0, BRIDGE.into()).expect("a route");
        } else {
            let leased = lease(guest, 20);
            assert!(leased.status.success(), "{bridge}: {leased:?}");
            assert_eq!(codes(host), [""; 0], "{bridge}");
        }
        assert!(resolves(guest), "{bridge}");
        // Out by masquerade: the far end sees the host.
        let to = SocketAddr::new(World::INTERNET_V4, HTTPS);
        let stream = Probe::tcp(guest, to).timeout(TIMEOUT).connect();
        let mut seen = String::new();
        let stream = stream.unwrap_or_else(|outcome| panic!("{bridge}: {outcome}"));
        BufReader::new(stream).read_line(&mut seen).expect("a line");
        assert!(seen.starts_with(&format!("{}:", World::HOST_V4)), "{bridge}: {seen}");
        // Not by a port that no rule allows, and from outside neither the guest nor what the host has
        // for it.
        let other = SocketAddr::new(World::INTERNET_V4, SERVICE);
        let _other = internet.serve_tcp(other).expect("a server");
        reaches(guest, other, false);
        let service = SocketAddr::new(address(guest), SERVICE);
        let _service = guest.serve_tcp(service).expect("a server");
        reaches(host, service, true);
        reaches(internet, service, false);
        let asks = |timeout| {
            let resolver = SocketAddr::new(BRIDGE.into(), 53);
            Probe::tcp(internet, resolver).timeout(timeout).connect().is_ok()
        };
        assert!(!asks(DEFAULT_TIMEOUT), "{bridge}: the resolver");
        let unload = nfguard_tests::program::nfguard(host, &["unload"]);
        assert_eq!(unload.status, Some(0), "{unload:?}");
        reaches(internet, service, true);
        assert!(asks(TIMEOUT), "{bridge}: the resolver");
    }
}

#[test]
fn guests_whose_bridge_has_no_rules_get_no_lease_and_doctor_says_so() {
    let hosted = without_address("lxdbr0");
    let (host, guest) = (hosted.host(), &hosted.guest);
    let _dnsmasq = Dnsmasq::at(host, "lxdbr0");
    let containers = r#""containers": { "interfaces": ["lxdbr0"] },"#;
    load(host, &policy(containers, ""));
    let leased = lease(guest, 2);
    assert!(!leased.status.success(), "{leased:?}");
    let what = super::only(host, "guest-service-refused");
    for words in ["lxdbr0", "67/udp (dnsmasq)", "53/udp (dnsmasq)"] {
        assert!(what.contains(words), "{what}");
    }
    // One half helps one half.
    let dhcp = r#"{ "action": "allow", "proto": "udp", "port": 67, "in_interface": "lxdbr0" },"#;
    load(host, &policy(containers, dhcp));
    let leased = lease(guest, 20);
    assert!(leased.status.success(), "{leased:?}");
    let what = super::only(host, "guest-service-refused");
    assert!(what.contains("53/udp") && !what.contains("67/udp"), "{what}");
}
