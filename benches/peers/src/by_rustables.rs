//! `rustables`: its own encoder.
//!
//! It knows no timeout of an element, and opens a socket for each batch.

use rustables::set::SetBuilder;
use rustables::{Batch, MsgType, ProtocolFamily, Table};

use crate::{Add, Result, UNTIMED};

/// The elements of a message. With more, the length of their attribute overflows.
const IN_A_MESSAGE: usize = 65_000 / UNTIMED;

pub(crate) fn open() -> Result<Add> {
    let table = Table::new(ProtocolFamily::Inet).with_name("peers");
    Ok(Box::new(move |addresses| {
        let mut batch = Batch::new();
        for part in addresses.chunks(IN_A_MESSAGE) {
            let mut set = SetBuilder::new("b", &table)?;
            for address in part {
                set.add(address);
            }
            let (_, elements) = set.finish();
            batch.add(&elements, MsgType::Add);
        }
        Ok(batch.send()?)
    }))
}
