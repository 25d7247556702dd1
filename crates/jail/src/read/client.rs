//! Who the client is, if a proxy speaks for it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::address;
use crate::record::Client;

/// Returns the client of a request that came from `peer` and has `forwarded`, a list of addresses as
/// in `X-Forwarded-For`. Only a trusted proxy is believed. Of the list, the last address that is no
/// trusted proxy is the client: what stands before it is what the client says.
pub(crate) fn client(peer: IpAddr, forwarded: Option<&[u8]>, trusted: &[IpNetwork]) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|prefix| prefix.contains(address));
    let direct = Client { address: peer, proxy: None };
    if !is_trusted(peer) {
        return direct;
    }
    let Some(list) = forwarded else { return direct };
    let mut nearest = direct;
    for entry in list.rsplit(|byte| *byte == b',') {
        // What is no address was not written by the proxy before it.
        let Some(address) = address::parse(entry.trim_ascii()) else { break };
        nearest = Client { address, proxy: Some(peer) };
        if !is_trusted(address) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let of = |peer: &str, list: Option<&str>| {
            let client = client(peer.parse().unwrap(), list.map(str::as_bytes), &trusted);
            (client.address.to_string(), client.proxy.is_some())
        };
        assert_eq!(of("10.0.0.1", Some("198.51.100.9, 203.0.113.5")).0, "203.0.113.5");
        assert_eq!(of("10.0.0.1", Some("203.0.113.5, 10.0.0.2")), ("203.0.113.5".into(), true));
        assert_eq!(of("10.0.0.1", Some("x, 10.0.0.2")), ("10.0.0.2".into(), true));
        assert_eq!(of("10.0.0.1", Some("203.0.113.5, x")), ("10.0.0.1".into(), false));
        assert_eq!(of("192.0.2.1", Some("203.0.113.5")), ("192.0.2.1".into(), false));
        assert_eq!(of("10.0.0.1", None), ("10.0.0.1".into(), false));
    }
}
