//! `IPV6=no`: what passes is what passes with UFW.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::Command;

use nfguard_lab::{Netns, World};
use nfguard_tests::fate::{self, Fate, Shot, Way};
use nfguard_tests::program::{TempFile, nfguard};
use nfguard_tests::ufw::ufw_without_ipv6;
use nfguard_tests::wait::wait_until;

use crate::original::Folder;
use crate::{import, needs_namespaces};

/// Returns a packet of each direction to a port, for both IP versions.
fn shots(port: u16) -> Vec<Shot> {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let from_net = [format!("203.0.113.{port}"), format!("2001:db8:a:{port}::1")];
    let from_host = [format!("198.51.100.{}", 100 + port), format!("2001:db8:1::{port}:1")];
    let routed = [format!("192.0.2.{port}"), format!("2001:db8:b:{port}::1")];
    let mut shots = Vec::new();
    for (way, sources, destinations) in [
        (Way::In, &from_net, [World::HOST_V4, World::HOST_V6]),
        (Way::Out, &from_host, [World::INTERNET_V4, World::INTERNET_V6]),
        (Way::Route, &routed, [World::CONTAINER_V4, World::CONTAINER_V6]),
    ] {
        for (from, to) in sources.iter().zip(destinations) {
            shots.push(Shot {
                text: format!("{way:?} {port} from {from}"),
                way,
                via_container: false,
                protocol: 6,
                ports: (40_000, port),
                from: address(from),
                to,
                times: 1,
            });
        }
    }
    shots
}

/// Has a namespace know its neighbour without a question, which would be IPv6 that is denied.
fn knows_neighbour(netns: &Netns, own: u8, neighbour: IpAddr, number: u8) {
    let script = format!(
        "ip link set eth0 address 02:00:00:00:00:0{own}
         ip neigh replace {neighbour} lladdr 02:00:00:00:00:0{number} dev eth0 nud permanent"
    );
    let done = netns.run(|| Command::new("sh").args(["-ec", &script]).status());
    assert!(done.expect("sh is there").success(), "{script}");
}

#[test]
fn without_ipv6_the_same_packets_pass_as_with_ufw() {
    let commands = ["allow 22/tcp", "route allow 22/tcp", "allow out 22/tcp"];
    let [judge, ours] =
        [(); 2].map(|()| World::with_container().unwrap_or_else(|error| needs_namespaces(&error)));
    for world in [&judge, &ours] {
        knows_neighbour(&world.host, 2, World::INTERNET_V6, 1);
        knows_neighbour(&world.internet, 1, World::HOST_V6, 2);
    }
    ufw_without_ipv6(&judge.host, &commands);
    let folder = Folder::new_installation();
    folder.ufw(&commands.map(str::to_owned));
    folder.change("sed -i 's/^IPV6=.*/IPV6=no/' default/ufw");
    let policy = TempFile::new("imported.json", "");
    import(&ours.host, folder.path(), policy.path());
    let answer = nfguard(&ours.host, &["load".as_ref(), policy.path().as_os_str()]);
    assert_eq!(answer.status, Some(0), "{answer:#?}");

    let shots: Vec<Shot> = [22, 80].into_iter().flat_map(shots).collect();
    let [by_ufw, by_us] = [&judge, &ours].map(|world| {
        fate::send(world, &shots);
        let mut fates = None;
        wait_until("every packet arrives", || {
            fates = fate::fates(world, &shots);
            fates.is_some()
        });
        fates.expect("they arrived")
    });
    for ((shot, (by_ufw, _)), (by_us, _)) in shots.iter().zip(by_ufw).zip(by_us) {
        assert_eq!(by_us, by_ufw, "{}", shot.text);
        let is_let = shot.from.is_ipv4() && (shot.ports.1 == 22 || shot.way == Way::Out);
        assert_eq!(by_us == Fate::Pass, is_let, "{}", shot.text);
    }
    // What the host says to itself stays.
    let listener = ours.host.run(|| TcpListener::bind("[::1]:0").expect("binds"));
    let to = listener.local_addr().expect("bound");
    ours.host.run(|| TcpStream::connect(to).expect("::1 answers"));
}
