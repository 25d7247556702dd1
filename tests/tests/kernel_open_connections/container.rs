//! Connections that the host forwards.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::thread;

use nfguard_lab::{Netns, World};
use nfguard_netlink::protocol;
use nfguard_tests::place::world_with_container;
use nfguard_tests::wait::wait_until;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use super::pair::{Port, udp};
use super::{DENIED, STRANGER, VISITOR, assert_all_open, assert_tracked, load};

const CONTAINER: [IpAddr; 2] = [World::CONTAINER_V4, World::CONTAINER_V6];

/// A process that waits, as that of a container does.
struct Sleeper(Child);

impl Sleeper {
    fn start(netns: &Netns, command: &str, arguments: &[&str]) -> Sleeper {
        let start = || Command::new(command).args(arguments).spawn().expect("it starts");
        Sleeper(netns.run(start))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_of_a_routed_container_continue_and_no_user_can_invent_one() {
    let world = world_with_container();
    let (host, internet) = (&world.host, &world.internet);
    let container = world.container.as_ref().expect("a container");
    let _process = Sleeper::start(container, "sleep", &["600"]);
    let (mut pairs, mut ports) = (Vec::new(), Vec::new());
    for (inside, visitor) in CONTAINER.into_iter().zip(VISITOR) {
        for kind in [protocol::TCP, protocol::UDP] {
            let at = SocketAddr::new(inside, 80);
            let port = Port::open(container, kind, at);
            pairs.extend([(); 2].map(|()| port.connect(internet, visitor, container, at)));
            ports.push(port);
            let at = SocketAddr::new(visitor, DENIED);
            let port = Port::open(internet, kind, at);
            pairs.extend([(); 2].map(|()| port.connect(container, inside, internet, at)));
            ports.push(port);
        }
    }

    // Sockets with an address of the host, with one that the container has not, and in a namespace
    // of a user without privilege.
    let to = SocketAddr::new(STRANGER[0], 9);
    container.address("lo", World::HOST_V4, 32).expect("an address");
    let hosts = udp(container, SocketAddr::new(World::HOST_V4, 22));
    let transparent = container.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_ip_transparent_v4(true).expect("permitted");
        socket.bind(&SocketAddr::from(([172, 17, 0, 9], 22)).into()).expect("bound");
        UdpSocket::from(socket)
    });
    let user = Sleeper::start(internet, "unshare", &["-U", "-r", "-n", "sleep", "600"]);
    let of_user = |kind: &str| format!("/proc/{}/ns/{kind}", user.0.id());
    let inode = |path: String| fs::metadata(path).map(|it| it.ino()).unwrap_or_default();
    wait_until("the user has a namespace", || {
        inode(of_user("net")) != internet.id()
            && inode(of_user("user")) != inode("/proc/self/ns/user".to_owned())
    });
    let namespace = File::open(of_user("net")).expect("it can be looked into");
    let inside = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("it can be entered");
        let set = "ip link set lo up && ip address add 172.17.0.8/32 dev lo \
                   && ip route add default dev lo";
        assert!(Command::new("sh").args(["-c", set]).status().expect("sh starts").success());
        UdpSocket::bind("172.17.0.8:22").expect("bound")
    };
    let invented = thread::scope(|scope| scope.spawn(inside).join()).expect("no panic");
    for socket in [&hosts, &transparent, &invented] {
        socket.connect(to).expect("connected");
    }

    load(host);
    assert_tracked(host, &pairs);
    assert_all_open(&pairs);
}
