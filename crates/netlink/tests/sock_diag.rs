//! What the kernel answers about sockets, and what is read of it.

use nfguard_netlink::{Error, SockDiag};

#[test]
fn a_kernel_that_tells_nothing_of_sockets_does_not_say_that_there_are_none() {
    // `NLMSG_ERROR` with ENOENT, as where inet_diag is not built in.
    let mut sockets = SockDiag::from_exchange(|request| {
        let seq = &request[8..12];
        let error = [&(-2i32).to_ne_bytes()[..], &[0; 16]].concat();
        Ok([&36u32.to_ne_bytes()[..], &[2, 0, 0, 0], seq, &[0; 4], &error].concat())
    });
    assert!(matches!(sockets.listening(), Err(Error::Io(_))));
    let mut sockets = SockDiag::from_exchange(|request| {
        let seq = &request[8..12];
        Ok([&20u32.to_ne_bytes()[..], &[3, 0, 2, 0], seq, &[0; 8]].concat())
    });
    assert_eq!(sockets.listening().expect("a list"), []);
}
