//! `nftnl` and `mnl`: Rust above the C libraries that nft itself uses.
//!
//! Their safe functions know no timeout of an element.

use std::net::Ipv4Addr;

use mnl::{Bus, Socket, cb_run};
use nftnl::set::Set;
use nftnl::{Batch, MsgType, ProtoFamily, Table, default_batch_page_size, nft_nlmsg_maxsize};

use crate::{Add, ROOM, Result, UNTIMED};

pub(crate) fn open() -> Result<Add> {
    let socket = Socket::new(Bus::Netfilter)?;
    let table = Table::new(c"peers", ProtoFamily::Inet);
    let mut buffer = vec![0; usize::try_from(nft_nlmsg_maxsize())?];
    Ok(Box::new(move |addresses| add(&socket, &table, &mut buffer, addresses)))
}

fn add(socket: &Socket, table: &Table, buffer: &mut [u8], addresses: &[Ipv4Addr]) -> Result<()> {
    let mut set = Set::new_named(c"b", 0, table, ProtoFamily::Inet);
    for address in addresses {
        set.add(address);
    }
    // Several pages would not be one transaction, so all messages must fit one page.
    let page = if addresses.len() * UNTIMED < usize::try_from(default_batch_page_size())? {
        default_batch_page_size()
    } else {
        u32::try_from(2 * ROOM)?
    };
    let mut batch = Batch::with_page_size(page);
    batch.add_iter(set.elems_iter(), MsgType::Add);
    let batch = batch.finalize();
    socket.send_all(&batch)?;
    let mut expected = batch.sequence_numbers();
    while !expected.is_empty() {
        for message in socket.recv(buffer)? {
            let number = expected.next().ok_or("one answer too many")?;
            cb_run(message?, number, socket.portid())?;
        }
    }
    Ok(())
}
