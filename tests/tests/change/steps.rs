//! The system calls of one load, counted.

use std::collections::BTreeMap;

use super::{Place, read_calls, strace};

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
    let mut netlink = 0;
    for (name, rest) in read_calls(&trace) {
        if name == "socket" && rest.contains("NETLINK_NETFILTER") {
            netlink += 1;
        }
        assert!(!rest.contains(LISTS_SOCKETS), "only the first load asks for open connections");
        let path = rest.split('"').nth(1).unwrap_or_default();
        if name.starts_with("open") && path.starts_with("/proc/") && path.ends_with("/environ") {
            *environments.entry(path.to_owned()).or_default() += 1;
        }
    }
    assert!(!environments.is_empty(), "the ancestors are asked");
    assert!(environments.values().all(|count| *count == 1), "{environments:?}");
    // The policy's table and the ban table have one each.
    assert_eq!(netlink, 2, "sockets of nf_tables");
}

#[test]
fn a_first_load_that_cannot_list_the_open_connections_says_so_and_is_done() {
    let arguments = ["load", "{}/b.json"];
    let place = Place::new();
    let trace = place.path("trace");
    let trace_option = trace.to_str().expect("UTF-8").to_owned();
    let options = ["-o", &trace_option, "-e", "trace=socket"].map(str::to_owned);
    let run = |place: &Place, options: &[String]| {
        let output = place.netns.run(|| strace(place, options, &arguments).output());
        output.expect("strace is installed")
    };
    let complete = run(&place, &options);
    assert!(complete.status.success() && complete.stderr.is_empty(), "{complete:?}");
    let calls = read_calls(&trace);
    let calls = calls.iter().filter(|(name, _)| name == "socket");
    let lists = calls.enumerate().filter(|(_, (_, rest))| rest.contains(LISTS_SOCKETS));
    let lists: Vec<usize> = lists.map(|(index, _)| index + 1).collect();
    // Before the commit, and after it.
    let [first, _] = lists[..] else { panic!("{lists:?}") };

    let place = Place::new();
    let inject = format!("inject=socket:error=EPROTONOSUPPORT:when={first}");
    let options = ["-o", "/dev/null", "-e", "trace=socket", "-e", &inject].map(str::to_owned);
    let output = run(&place, &options);
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("connections that are open now may be cut"), "{stderr}");
    assert_eq!(place.table(), super::loaded_table("{}/b.json"));
}
