//! Any answer of the kernel is a value or an error: tables, connections, sockets, routes, and the
//! tables of others. A table prints and encodes, and the tables of others say what they publish.
//! Any bytes of a log group are packets or an error, and any packet is read or refused.
//!
//! The input is a byte that says how to answer, then netlink messages. With an even byte, each
//! question gets the messages of the kind that it asks for. With an odd byte, each question gets
//! all bytes as they are.

use nfguard_netlink::{LoggedPacket, Nft, ParsedPacket, Rtnetlink, SockDiag, diff, text};

const HEADER: usize = 16;
const NFTABLES: u8 = 10;
const GENERATION: u8 = 16;
const DONE: u16 = 3;

/// Reads one input. It must not panic.
pub(crate) fn run(input: &[u8]) {
    let Some((how, messages)) = input.split_first() else { return };
    let _ = (LoggedPacket::read(messages), ParsedPacket::read(messages));
    let (raw, messages) = (how % 2 == 1, messages.to_vec());
    let exchange = || {
        let messages = messages.clone();
        move |question: &[u8]| Ok(answer(question, &messages, raw))
    };
    let mut nft = Nft::from_exchange(exchange());
    if let Ok(snapshot) = nft.table("nfguard")
        && let Some(loaded) = snapshot.loaded
    {
        let _ = text::table(&loaded.table);
        // Only the encoding matters here, not the answer to it.
        let _ = nft.commit(&diff(None, &loaded.table), None);
    }
    let _ = nft.connections(|_| true);
    let _ = SockDiag::from_exchange(exchange()).listening();
    let _ = SockDiag::from_exchange(exchange()).connections(|_| true);
    let mut rtnetlink = Rtnetlink::from_exchange(exchange());
    let _ = (
        rtnetlink.interfaces(),
        rtnetlink.addresses(),
        rtnetlink.routes(|_| true),
        rtnetlink.gateways(),
        rtnetlink.links(),
        rtnetlink.further_addresses(),
    );
    if let Ok(tables) = nft.foreign_tables(&[]) {
        tables.iter().for_each(|table| drop(table.published()));
    }
}

fn answer(question: &[u8], messages: &[u8], raw: bool) -> Vec<u8> {
    let (asked, seq) = (question[4], &question[8..12]);
    let mut answer = Vec::new();
    if asked == GENERATION {
        // The generation must not change, or no table would be read completely.
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
            // The number of the message that makes an object is one less than that of the question.
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
