//! Packets made in the kernel: an XDP program writes a source address into a packet, and the
//! kernel's own test run puts it into the stack as if the interface had received it
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18, `Documentation/bpf/bpf_prog_run.rst`).
//!
//! This costs about 95 ns a packet. A sender of packets would cost more than the measured path.

#![allow(unsafe_code, reason = "bpf(2) has no wrapper that runs a program on live frames")]

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nfguard_benches::Result;

/// `BPF_PROG_LOAD` and `BPF_PROG_TEST_RUN`, `BPF_PROG_TYPE_XDP`, `BPF_F_TEST_XDP_LIVE_FRAMES`
/// of `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const TYPE_XDP: u32 = 6;
const LIVE_FRAMES: u32 = 2;
/// The number of frames that the kernel puts into the stack at once, like the NAPI budget of a
/// network card.
const BATCH_SIZE: u32 = 64;

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The part of `union bpf_attr` that runs a program.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A source of packets.
pub(crate) struct Generator {
    program: OwnedFd,
    frame: Vec<u8>,
    ifindex: u32,
}

/// The properties of the packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packets {
    /// The lowest source address. Packets come at random from `sources` addresses from it on.
    pub(crate) first: Ipv4Addr,
    pub(crate) sources: u32,
    pub(crate) to: Ipv4Addr,
    /// The source and destination ports of UDP.
    pub(crate) ports: (u16, u16),
    /// Whether the packets go to random ports.
    pub(crate) scattered: bool,
}

impl Generator {
    /// Makes a generator for the interface of this index and address in the namespace of this
    /// thread.
    pub(crate) fn new(ifindex: u32, mac: [u8; 6], packets: Packets) -> Result<Generator> {
        let frame = frame(mac, packets);
        let program = load(&program(packets, &frame))?;
        Ok(Generator { program, frame, ifindex })
    }

    /// Makes the interface receive `count` packets, and returns the processor time of this thread.
    /// The whole path of a packet runs on this thread, and the load of neighbours does not count.
    pub(crate) fn run(&self, count: u32) -> Result<Duration> {
        let data_size_in = u32::try_from(self.frame.len())?;
        let context =
            Context { data_end: data_size_in, ingress_ifindex: self.ifindex, ..Context::default() };
        let attributes = Run {
            program: u32::try_from(self.program.as_raw_fd())?,
            data_size_in,
            data_in: self.frame.as_ptr() as u64,
            repeat: count,
            context_size_in: u32::try_from(size_of::<Context>())?,
            context_in: (&raw const context) as u64,
            flags: LIVE_FRAMES,
            batch_size: BATCH_SIZE,
            ..Run::default()
        };
        let start = thread_time();
        // SAFETY: the frame and the context outlive the call, and their sizes are with them.
        unsafe { bpf(PROG_TEST_RUN, &attributes) }?;
        Ok(thread_time().saturating_sub(start))
    }
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

/// Calls bpf(2).
///
/// # Safety
/// The pointers in the attributes must point to the data that this command expects.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: pointer and size belong to one value. The caller promises the rest.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(0))
    }
}

fn load(program: &[Instruction]) -> Result<OwnedFd> {
    let license = c"MIT";
    let mut log = vec![0_u8; 64 * 1024];
    let attributes = Load {
        kind: TYPE_XDP,
        count: u32::try_from(program.len())?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len())?,
        log: log.as_mut_ptr() as u64,
    };
    // SAFETY: program, licence and log outlive the call, and their sizes are with them.
    let loaded = unsafe { bpf(PROG_LOAD, &attributes) };
    let fd = loaded.map_err(|error| {
        let log = String::from_utf8_lossy(&log);
        format!("the XDP program is refused: {error}\n{}", log.trim_end_matches('\0'))
    })?;
    // SAFETY: the call succeeded, so the descriptor is open and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const HEADER: usize = 14;
const CHECKSUM: usize = HEADER + 10;
const SOURCE: usize = HEADER + 12;
const END: usize = HEADER + 20;
const PORT: usize = END + 2;

/// Returns a frame of Ethernet, IPv4 and UDP with four bytes of data, without source address and
/// checksums.
fn frame(mac: [u8; 6], packets: Packets) -> Vec<u8> {
    let mut frame = [mac.as_slice(), &[2, 0, 0, 0, 0, 1], &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0]);
    frame.extend(packets.to.octets());
    frame.extend(packets.ports.0.to_be_bytes());
    frame.extend(packets.ports.1.to_be_bytes());
    frame.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

/// Returns a program that writes the whole packet, because the kernel reuses packets as they are.
/// It picks a source address, and writes it and the checksum of the header into the packet.
fn program(packets: Packets, frame: &[u8]) -> Vec<Instruction> {
    let word = |pair: &[u8]| pair.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    let header = frame.get(HEADER..END).unwrap_or_default();
    let sum: u32 = header.chunks(2).map(word).sum();
    let number = |number: u32| number.cast_signed();
    let at = |offset: usize| i16::try_from(offset).unwrap_or(0);

    // r6: the context. r7: the source address. r8: a port. r2: the packet. r4, r5: the checksum.
    // Opcodes of RFC 9669.
    let mut program = vec![
        op(0xbf, 6, 1, 0, 0),                               // r6 = r1
        op(0x85, 0, 0, 0, 7),                               // r0 = bpf_get_prandom_u32()
        op(0xbc, 8, 0, 0, 0),                               // w8 = w0
        op(0x85, 0, 0, 0, 7),                               // r0 = bpf_get_prandom_u32()
        op(0xbc, 7, 0, 0, 0),                               // w7 = w0
        op(0x94, 7, 0, 0, number(packets.sources)),         // w7 %= sources
        op(0x04, 7, 0, 0, number(packets.first.to_bits())), // w7 += first
        op(0x61, 2, 6, 0, 0),                               // r2 = data
        op(0x61, 3, 6, 4, 0),                               // r3 = data_end
        op(0xbf, 4, 2, 0, 0),                               // r4 = r2
        op(0x07, 4, 0, 0, i32::from(at(frame.len()))),      // r4 += the frame's length
        op(0x2d, 4, 3, 0, 0),                               // if r4 > r3: pass
    ];
    for (index, word) in frame.chunks(4).enumerate() {
        // *(u32 *)(r2 + 4 * index) = word, and the rest as a u16
        let (code, value) = match *word {
            [a, b, c, d] => (0x62, i32::from_ne_bytes([a, b, c, d])),
            [a, b] => (0x6a, u16::from_ne_bytes([a, b]).into()),
            _ => unreachable!("the frame is made of halves of words"),
        };
        program.push(op(code, 2, 0, at(4 * index), value));
    }
    program.extend([
        op(0xbc, 5, 7, 0, 0),           // w5 = w7
        op(0x74, 5, 0, 0, 16),          // w5 >>= 16
        op(0xbc, 4, 7, 0, 0),           // w4 = w7
        op(0x54, 4, 0, 0, 0xffff),      // w4 &= 0xffff
        op(0x0c, 5, 4, 0, 0),           // w5 += w4
        op(0x04, 5, 0, 0, number(sum)), // w5 += the rest of the header
    ]);
    for _ in 0..2 {
        program.extend([
            op(0xbc, 4, 5, 0, 0),      // w4 = w5
            op(0x74, 4, 0, 0, 16),     // w4 >>= 16
            op(0x54, 5, 0, 0, 0xffff), // w5 &= 0xffff
            op(0x0c, 5, 4, 0, 0),      // w5 += w4
        ]);
    }
    program.extend([
        op(0xa4, 5, 0, 0, 0xffff),       // w5 ^= 0xffff
        op(0xdc, 5, 0, 0, 16),           // r5 = be16(r5)
        op(0x6b, 2, 5, at(CHECKSUM), 0), // *(u16 *)(r2 + CHECKSUM) = r5
        op(0xdc, 7, 0, 0, 32),           // r7 = be32(r7)
        op(0x63, 2, 7, at(SOURCE), 0),   // *(u32 *)(r2 + SOURCE) = r7
    ]);
    if packets.scattered {
        program.push(op(0x6b, 2, 8, at(PORT), 0)); // *(u16 *)(r2 + PORT) = r8
    }
    program.extend([
        op(0xb7, 0, 0, 0, 2), // r0 = XDP_PASS
        op(0x95, 0, 0, 0, 0), // exit
    ]);
    // The number of instructions after the length test, up to `r0 = XDP_PASS`.
    let skip = i16::try_from(program.len() - 12 - 2).unwrap_or(0);
    if let Some(test) = program.get_mut(11) {
        test.offset = skip;
    }
    program
}

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}
