//! The system calls of one load, counted.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use nfguard_lab::veth;
use nfguard_netlink::Nft;
use nfguard_tests::place::netns;
use nfguard_tests::program::Answer;
use nfguard_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

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
    let place = Place::new();
    let answer = place.netns.run(|| {
        // The kernel refuses this thread, and the program that it starts.
        refuse_lists_of_sockets();
        place.command(&["load", "{}/b.json"]).output().expect("nfguard starts")
    });
    let answer = Answer::from(answer);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert_eq!(place.table(), super::loaded_table("{}/b.json"));
    assert!(answer.stderr.contains("connections that are open now may be cut"), "{answer:?}");
}

/// Has the kernel refuse the sockets of this thread that list sockets, as one without that protocol.
fn refuse_lists_of_sockets() {
    let is = |argument, value: i32| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let both = [is(0, libc::AF_NETLINK), is(2, libc::NETLINK_SOCK_DIAG)];
    let both = both.into_iter().collect::<Result<_, _>>().expect("two arguments");
    let rules = [(libc::SYS_socket, vec![SeccompRule::new(both).expect("a rule")])];
    let refusal = SeccompAction::Errno(libc::EPROTONOSUPPORT.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, refusal, arch);
    let filter: BpfProgram = filter.and_then(BpfProgram::try_from).expect("a filter");
    seccompiler::apply_filter(&filter).expect("the kernel takes it");
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
