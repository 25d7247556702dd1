//! Raw netlink as the floor: a prepared message, sent and acknowledged.

use std::io::{Read as _, Write as _};

use nfguard_benches::Result;
use nfguard_netlink::Transaction;
use socket2::{Domain, Protocol, Socket, Type};

/// `AF_NETLINK` and `NETLINK_NETFILTER`.
const NETLINK: i32 = 16;
const NETFILTER: i32 = 12;

/// A prepared batch whose key is replaced for each send.
pub(crate) struct Raw {
    socket: Socket,
    bytes: Vec<u8>,
    /// The offsets of the key.
    places: Vec<usize>,
    answer: Vec<u8>,
}

impl Raw {
    /// Encodes a transaction. `key` is its placeholder.
    pub(crate) fn new(transaction: &Transaction, key: [u8; 4]) -> Result<Raw> {
        let bytes = transaction.to_bytes()?;
        let places: Vec<usize> =
            bytes.windows(4).enumerate().filter(|(_, at)| *at == key).map(|(at, _)| at).collect();
        if places.is_empty() {
            return Err("the key is not in the message".into());
        }
        let protocol = Protocol::from(NETFILTER);
        let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(protocol))?;
        Ok(Raw { socket, bytes, places, answer: vec![0; 16 * 1024] })
    }

    /// Sends the batch with this key, and waits for the acknowledgement.
    pub(crate) fn send(&mut self, key: [u8; 4]) -> Result<()> {
        for place in &self.places {
            if let Some(slot) = self.bytes.get_mut(*place..place + 4) {
                slot.copy_from_slice(&key);
            }
        }
        self.socket.write_all(&self.bytes)?;
        let len = self.socket.read(&mut self.answer)?;
        // The error number after the header of the acknowledgement.
        match self.answer.get(16..20) {
            Some([0, 0, 0, 0]) if len >= 20 => Ok(()),
            code => Err(format!("the kernel answers {code:?}").into()),
        }
    }
}
