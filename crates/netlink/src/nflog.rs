//! Packets that rules log to NFLOG groups (nfnetlink_log).

mod packet;
#[cfg(feature = "socket")]
mod receiver;

pub use packet::LoggedPacket;
#[cfg(feature = "socket")]
pub use receiver::{Nflog, NflogEvent};
