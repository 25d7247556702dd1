//! The system calls of one load, counted.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use nfguard_lab::veth;
use nfguard_netlink::Nft;
use nfguard_tests::place::netns;
use nfguard_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Place, read_calls, strace};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 9);
/// The protocol by which the kernel lists sockets.
const LISTS_SOCKETS: &str = "NETLINK_SOCK_DIAG";

#[test]
fn a_load_reads_each_ancestor_once_and_talks_to_the_kernel_over_few_sockets() {
    let place = Place::new();
    place.prepare("{}/a.json");
    let trace = place.path("trace");
    let trace_option = trace.to_str().expect("UTF-8").to_owned();
    let options = ["-o", &trace_option, "-e", "trace=open,openat,socket"].map(str::to_owned);
    let arguments = ["load", "{}/b.json"];
    let output = place.netns.run(|| {
        // As from a login without SSH: all ancestors are asked.
        let mut strace = strace(&place, &options, &arguments);
        strace.env_remove("SSH_CONNECTION").env_remove("SSH_CLIENT").output()
    });
    let output = output.expect("strace is installed");
    assert!(output.status.success(), "{output:?}");
    let mut environments = BTreeMap::<String, u32>::new();
    let (mut netlink, mut lists) = (0, 0);
    for (name, rest) in read_calls(&trace) {
        if name == "socket" && rest.contains("NETLINK_NETFILTER") {
            netlink += 1;
        }
        lists += usize::from(rest.contains(LISTS_SOCKETS));
        let path = rest.split('"').nth(1).unwrap_or_default();
        if name.starts_with("open") && path.starts_with("/proc/") && path.ends_with("/environ") {
            *environments.entry(path.to_owned()).or_default() += 1;
        }
    }
    assert!(!environments.is_empty(), "the ancestors are asked");
    assert!(environments.values().all(|count| *count == 1), "{environments:?}");
    // The policy's table and the ban table have one each.
    assert_eq!(netlink, 2, "sockets of nf_tables");
    // Those of SSH logins. Only the first load asks for all.
    assert!(lists <= 1, "{lists} lists of sockets");
}

#[test]
fn a_first_load_that_cannot_list_the_open_connections_says_so_and_is_done() {
    let load = |inject: &str| {
        let place = Place::new();
        let trace = place.path("trace");
        let trace_option = trace.to_str().expect("UTF-8");
        let options = ["-o", trace_option, "-e", "trace=socket", "-e", inject].map(str::to_owned);
        let run = || strace(&place, &options, &["load", "{}/b.json"]).output();
        let output = place.netns.run(run).expect("strace is installed");
        let calls = read_calls(&trace).into_iter().filter(|(name, _)| name == "socket");
        (place, output, calls.map(|(_, rest)| rest).collect::<Vec<_>>())
    };
    let lists = |call: &String| call.contains(LISTS_SOCKETS);
    // What a load reads before may be read again, if it changed meanwhile: then another socket is hit.
    // A load may list the sockets of SSH logins before it lists all.
    let mut nth = 0;
    for _ in 0..20 {
        let (_, complete, calls) = load("trace=socket");
        assert!(complete.status.success() && complete.stderr.is_empty(), "{complete:?}");
        let of_lists = |calls: &[String]| {
            let all = (0..calls.len()).filter(|at| lists(&calls[*at]));
            all.collect::<Vec<_>>()
        };
        let at = of_lists(&calls)[nth];
        let inject = format!("inject=socket:error=EPROTONOSUPPORT:when={}", at + 1);
        let (place, output, calls) = load(&inject);
        if of_lists(&calls).get(nth) != Some(&at) {
            continue;
        }
        assert!(calls[at].contains("INJECTED"), "{calls:?}");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(place.table(), super::loaded_table("{}/b.json"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("connections that are open now may be cut") {
            return;
        }
        nth += 1;
        assert!(nth < 2, "{stderr}");
    }
    panic!("no load opens its sockets in the same order twice");
}

#[test]
fn a_connection_that_opens_during_the_first_load_is_known_too() {
    let place_with_connection = || {
        let (place, peer) = (Place::new(), netns());
        veth(&place.netns, "eth0", &peer, "eth0").expect("a link");
        place.netns.address("eth0", [192, 0, 2, 1].into(), 24).expect("an address");
        peer.address("eth0", SERVER.ip(), 24).expect("an address");
        let server = peer.serve_tcp(SERVER).expect("a server");
        let socket = connected(&place);
        (place, (peer, server, socket))
    };
    let arguments = ["load", "{}/b.json"];
    let (place, _connection) = place_with_connection();
    let trace = place.path("trace");
    let trace_option = trace.to_str().expect("UTF-8").to_owned();
    let options = ["-o", &trace_option, "-e", "trace=sendto"].map(str::to_owned);
    let complete = place.netns.run(|| strace(&place, &options, &arguments).output());
    assert!(complete.expect("strace is installed").status.success());
    let tells = |(_, rest): &(String, String)| rest.contains("IPCTNL_MSG_CT_NEW");
    let told = read_calls(&trace).iter().position(tells).expect("the kernel is told") + 1;

    // The load stops between the two times that it tells the kernel.
    let (place, _connection) = place_with_connection();
    let inject = format!("inject=sendto:signal=SIGSTOP:when={}", told + 1);
    let options = ["-o", "/dev/null", "-e", "trace=sendto", "-e", &inject].map(str::to_owned);
    let start = || strace(&place, &options, &arguments).spawn().expect("strace is installed");
    let mut load = place.netns.run(start);
    wait_until("the first connection is known", || tracked(&place) == 1);
    assert!(place.table().is_none(), "the load is under way");
    let _other = connected(&place);
    let children = format!("/proc/{0}/task/{0}/children", load.id());
    wait_until("the load ends", || {
        let children = fs::read_to_string(&children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGCONT);
        }
        load.try_wait().expect("it is ours").is_some()
    });
    assert!(place.table().is_some());
    assert_eq!(tracked(&place), 2);
}

fn connected(place: &Place) -> TcpStream {
    place.netns.run(|| TcpStream::connect(SERVER)).expect("a connection")
}

/// Returns the number of connections that the kernel tracks.
fn tracked(place: &Place) -> usize {
    let list = || Nft::open()?.connections(|_| true);
    place.netns.run(list).expect("a list").len()
}
