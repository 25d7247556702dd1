//! What opening the bans asks of the kernel, and how often.

mod fake_kernel;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_kernel::Log;
use ipnetwork::IpNetwork;
use nfguard_ban::{Ban, BanOutcome, Bans, NeverBan, NeverBanKind};

/// A list with an entry for each never-ban set.
fn never_ban() -> NeverBan {
    let networks = ["192.0.2.1", "198.51.100.0/24", "198.51.100.16/28", "2001:db8::1"];
    let nested = ["2001:db8:1::/48", "2001:db8:1:1::/64"];
    networks.iter().chain(&nested).fold(NeverBan::default(), |list, text| {
        let network: IpNetwork = text.parse().expect("a network");
        list.with(network, NeverBanKind::by_hand(text))
    })
}

#[test]
fn opening_asks_for_each_never_ban_set_and_each_chain_once() {
    let log = Arc::new(Mutex::new(Log::default()));
    drop(Bans::from_nft(fake_kernel::connect(&log), never_ban()).expect("made"));
    log.lock().expect("no panic").forget_requests();

    let bans = Bans::from_nft(fake_kernel::connect(&log), NeverBan::default()).expect("opened");
    let log = log.lock().expect("no panic");
    let mut elements: Vec<_> =
        log.requests.iter().filter(|request| request.starts_with("elements ")).collect();
    elements.sort();
    assert_eq!(
        elements,
        [
            "elements never/v4",
            "elements never/v4/prefixes",
            "elements never/v4/within",
            "elements never/v6",
            "elements never/v6/prefixes",
            "elements never/v6/within",
        ]
    );
    let mut once = log.requests.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), log.requests.len(), "nothing is asked twice: {:?}", log.requests);
    assert_eq!(log.transactions, 0, "all is as it should be");
    for entry in never_ban().entries() {
        assert!(bans.never_ban().entries().contains(entry), "{entry:?}");
    }
}

#[test]
fn a_ban_whose_set_is_present_is_one_transaction_and_no_request() {
    let log = Arc::new(Mutex::new(Log::default()));
    let mut bans = Bans::from_nft(fake_kernel::connect(&log), NeverBan::default()).expect("made");
    let mut ban = |text: &str| {
        let target = bans.admit(text.parse().expect("a target")).expect("admitted");
        let duration = Some(Duration::from_secs(60));
        let (source, reason) = ("test", "once");
        let ban = Ban { target, port: None, duration, source, reason, created_at: None };
        bans.ban(&ban).expect("banned")
    };
    assert_eq!(ban("203.0.113.7"), BanOutcome::Added);
    log.lock().expect("no panic").forget_requests();
    assert_eq!(ban("203.0.113.8"), BanOutcome::Added);
    let log = log.lock().expect("no panic");
    assert_eq!((log.requests.len(), log.transactions), (0, 1));
}
