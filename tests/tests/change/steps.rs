//! The system calls of one load, counted.

use std::collections::BTreeMap;

use super::{Place, read_calls, strace};

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
