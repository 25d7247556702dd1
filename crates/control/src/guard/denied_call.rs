//! Takes note of the system calls that the sandbox denies, for the log.
//!
//! The kernel sends `SIGSYS` in place of a denied call. The handler notes the number of the call and
//! has it return `EPERM`, so the guard runs on.

#![allow(unsafe_code, reason = "a signal handler that sets the result of a system call")]

use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// One bit for each number of a system call. Numbers from 512 on share the last bit.
static DENIED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
/// The bits of the calls that were returned by [`take_new`].
static TAKEN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

/// Installs the handler. Call it before the filter of the sandbox is in force.
pub(super) fn install() -> io::Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::SigAction(note), flags, SigSet::empty());
    // SAFETY: the handler only stores atomics and writes into the context that the kernel gives it.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// Returns the numbers of the calls that were denied for the first time.
pub(super) fn take_new() -> Vec<u32> {
    let mut new = Vec::new();
    for (at, (denied, taken)) in (0..).zip(DENIED.iter().zip(&TAKEN)) {
        let bits = denied.load(Ordering::Relaxed);
        let unseen = bits & !taken.fetch_or(bits, Ordering::Relaxed);
        new.extend((0..64).filter(|bit| unseen >> bit & 1 == 1).map(|bit| at * 64 + bit));
    }
    new
}

/// Handles `SIGSYS`. The register that holds the result of a call holds its number here on x86-64.
extern "C" fn note(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with `SA_SIGINFO`, the kernel passes the context of the interrupted thread, which
    // nothing else uses meanwhile.
    let context = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    let number = mem::replace(&mut context.gregs[libc::REG_RAX as usize], -i64::from(libc::EPERM));
    #[cfg(target_arch = "aarch64")]
    let number = {
        context.regs[0] = -i64::from(libc::EPERM) as u64;
        context.regs[8]
    };
    let bit = number.clamp(0, 511) as usize;
    DENIED[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
}
