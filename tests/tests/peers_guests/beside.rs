//! Guests that share the host's interface, whose packets pass no hook of the host.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command};

use nfguard_lab::{Netns, World};

use super::{Hosted, NOWHERE, codes, load, only, policy, reaches, run};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 77));

/// A process in a namespace, which ends with the value.
struct Holder(Child);

impl Holder {
    fn of(netns: &Netns) -> Holder {
        Holder(netns.run(|| Command::new("sleep").arg("600").spawn()).expect("a process"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The process has ended if this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_macvlan_container_is_named_because_no_rule_reaches_it() {
    let hosted = Hosted::bare();
    let (host, guest) = (hosted.host(), &hosted.guest);
    // The host's own macvlan has its packets pass the host's hooks.
    run(host, "ip", "link add shim0 link eth0 type macvlan mode bridge");
    run(host, "ip", "link set shim0 up");
    load(host, &policy("", ""));
    assert_eq!(codes(host), [""; 0]);

    let holder = Holder::of(guest);
    run(host, "ip", "link add mv0 link eth0 address 02:00:00:00:00:77 type macvlan mode bridge");
    run(host, "ip", &format!("link set mv0 netns {}", holder.0.id()));
    guest.up("mv0").expect("a link");
    guest.address("mv0", ADDRESS, 24).expect("an address");
    let to = SocketAddr::new(ADDRESS, 80);
    let _server = guest.serve_tcp(to).expect("a server");
    let what = only(host, "beside-the-hooks");
    for words in ["eth0", "macvlan", "mv0"] {
        assert!(what.contains(words), "{what}");
    }
    // It is as the finding says: neither policy nor bans, for packets that a host would drop.
    let of_host = SocketAddr::new(World::HOST_V4, 80);
    let _other = host.serve_tcp(of_host).expect("a server");
    reaches(&hosted.world.internet, to, true);
    reaches(&hosted.world.internet, of_host, false);

    // Without the right to look into other namespaces, the interface's own list tells of it.
    let bare = host.run(|| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-all,+net_admin", "--inh-caps", "-all,+net_admin"]);
        command.arg(nfguard_tests::program::path()).args(["status", "--json"]);
        command.args(["--docker-socket", NOWHERE]).env("NFGUARD_STATE_DIR", "").output()
    });
    let bare = String::from_utf8(bare.expect("setpriv is installed").stdout).expect("text");
    assert!(bare.contains("macvlan with the address 02:00:00:00:00:77"), "{bare}");

    guest.run(|| Command::new("ip").args(["link", "delete", "mv0"]).status()).expect("ip");
    assert_eq!(codes(host), [""; 0], "it is gone");
}

#[test]
fn a_virtual_machine_on_the_hosts_interface_is_named() {
    let hosted = Hosted::bare();
    let host = hosted.host();
    load(host, &policy("", ""));
    assert_eq!(codes(host), [""; 0]);
    run(host, "ip", "link add macvtap0 link eth0 type macvtap mode bridge");
    let what = only(host, "beside-the-hooks");
    assert!(what.contains("macvtap macvtap0 of a virtual machine"), "{what}");
}
