//! Any answer of the kernel is a table or an error, and connections, sockets and others' tables or
//! an error; a table prints and encodes, and others' tables say what they publish. What is told of
//! logged packets is packets or an error, and a packet is one or none.
//!
//! The input is a byte that says how to answer, then netlink messages. An even
//! byte: each question gets the messages of the kind it asks for. An odd one:
//! each question gets all bytes as they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nfguard_netlink::{Nft, LoggedPacket, ParsedPacket, diff, text};

const HEADER: usize = 16;
const NFTABLES: u8 = 10;
const GENERATION: u8 = 16;
const DONE: u16 = 3;

fuzz_target!(|input: &[u8]| {
    let Some((how, messages)) = input.split_first() else { return };
    let _ = (LoggedPacket::read(messages), ParsedPacket::read(messages));
    let (raw, messages) = (how % 2 == 1, messages.to_vec());
    let mut kernel = Nft::from_exchange(move |question| Ok(answer(question, &messages, raw)));
    if let Ok(snapshot) = kernel.table("nfguard")
        && let Some(loaded) = snapshot.loaded
    {
        let _ = text::table(&loaded.table);
        // Only the bytes are of interest; the answer to them is noise.
        let _ = kernel.commit(&diff(None, &loaded.table), None);
    }
    let _ = kernel.connections(|_| true);
    let _ = kernel.listening();
    if let Ok(tables) = kernel.foreign(&[]) {
        tables.iter().for_each(|table| drop(table.published()));
    }
});

fn answer(question: &[u8], messages: &[u8], raw: bool) -> Vec<u8> {
    let (asked, seq) = (question[4], &question[8..12]);
    let mut answer = Vec::new();
    if asked == GENERATION {
        // Always the same, or no table would ever be read whole.
        let body = [10, 0, 0, 1, 8, 0, 1, 0, 0, 0, 0, 7];
        push(&mut answer, u16::from_le_bytes([GENERATION - 1, NFTABLES]), seq, &body);
    } else if raw {
        answer.extend_from_slice(messages);
        let mut start = 0;
        while let Some(header) = answer.get_mut(start..start + HEADER) {
            header[8..12].copy_from_slice(seq);
            start += length(header).max(HEADER);
        }
    } else {
        let mut rest = messages;
        while rest.len() >= HEADER {
            let end = length(rest).clamp(HEADER, rest.len());
            // The message that makes an object is the one before that which asks for it.
            if rest[4] == asked.wrapping_sub(1) {
                push(&mut answer, u16::from_le_bytes([rest[4], NFTABLES]), seq, &rest[HEADER..end]);
            }
            rest = &rest[end.next_multiple_of(4).min(rest.len())..];
        }
    }
    push(&mut answer, DONE, seq, &[0; 4]);
    answer
}

fn length(message: &[u8]) -> usize {
    u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize
}

fn push(out: &mut Vec<u8>, kind: u16, seq: &[u8], body: &[u8]) {
    let length = u32::try_from(HEADER + body.len()).expect("inputs are short");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend([2, 0]);
    out.extend_from_slice(seq);
    out.extend([0; 4]);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(4), 0);
}
