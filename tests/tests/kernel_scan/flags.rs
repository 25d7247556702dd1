//! Scans with illegal TCP flags: one packet bans.

use nfguard_lab::packet::{ACK, FIN, PSH, RST, SYN, URG};

use nfguard_tests::program::nfguard;

use crate::{Ground, OTHER_SOURCE, SOURCE, SOURCE_V6, USUAL};

#[test]
fn the_first_packet_with_illegal_flags_bans() {
    let mut ground = Ground::new(USUAL);
    let illegal = [
        0,
        FIN,
        FIN | PSH | URG,
        PSH,
        URG,
        SYN | FIN,
        SYN | FIN | ACK,
        SYN | RST,
        FIN | SYN | RST | PSH | ACK | URG,
    ];
    for (number, flags) in illegal.into_iter().enumerate() {
        for source in [format!("192.0.2.{}", number + 10), format!("2001:db8:{}::1", number + 10)] {
            // The flags ban on open and closed ports alike.
            ground.tcp(&source, if number % 2 == 0 { 80 } else { 9 }, flags);
            assert!(ground.is_banned(&source), "{flags:#x} from {source}");
        }
    }
}

#[test]
fn acks_without_a_connection_count_as_closed_ports() {
    let mut ground = Ground::new(USUAL);
    for source in [SOURCE, SOURCE_V6] {
        for port in 1000..1006 {
            assert!(!ground.is_banned(source), "{port}");
            ground.tcp(source, port, ACK);
        }
        assert!(ground.is_banned(source));
    }
}

#[test]
fn flags_of_ordinary_traffic_do_not_ban() {
    let mut ground = Ground::new(USUAL);
    // The remains of connections that this host has forgotten. Of outgoing connections, ACKs
    // remain, too.
    let to_any = [RST, RST | ACK, FIN | ACK, SYN | ACK, PSH | ACK, FIN | PSH | ACK, URG | ACK];
    let all = to_any.map(|flags| (flags, 1000)).into_iter().chain([(ACK, 2000)]);
    for (flags, first) in all {
        for port in first..first + 10 {
            ground.tcp(SOURCE, port, flags);
            ground.tcp(SOURCE_V6, port, flags);
        }
    }
    assert!(!ground.is_banned(SOURCE) && !ground.is_banned(SOURCE_V6));
    assert_eq!(ground.count("scan/closed"), 0);
}

#[test]
fn illegal_flags_do_not_ban_where_the_check_is_off() {
    let mut ground = Ground::new(r#"{ "illegal_flags": false }"#);
    for port in 1000..1010 {
        ground.tcp(SOURCE, port, FIN | PSH | URG);
        ground.tcp(SOURCE, port, 0);
    }
    assert!(!ground.is_banned(SOURCE));
}

#[test]
fn a_source_that_scans_again_is_banned_longer() {
    let mut ground = Ground::new(r#"{ "ban_seconds": 2, "again_seconds": 3600 }"#);
    ground.tcp(SOURCE, 9, 0);
    assert!(ground.find("again", SOURCE).is_some());
    ground.wait_until("the first ban is over", |ground| !ground.is_banned(SOURCE));
    ground.tcp(SOURCE, 9, 0);
    let ban = ground.find("banned", SOURCE).expect("is banned again");
    assert_eq!(ban.element.timeout.map(|timeout| timeout.as_secs()), Some(3600));
    // A source from long ago is forgotten, too.
    ground.tcp(OTHER_SOURCE, 9, 0);
    ground.wait_until("the first ban is over", |ground| !ground.is_banned(OTHER_SOURCE));
    assert_eq!(nfguard(&ground.world.host, &["unban", OTHER_SOURCE]).status, Some(1), "it is over");
    assert!(ground.find("again", OTHER_SOURCE).is_none());
}
