//! The processor of a test and its children.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Has everything that this thread and its children do happen on one processor: a packet that has
/// come has then also gone. Of those there are, the one of this number, counted round.
///
/// # Panics
/// If the kernel does not let it.
pub fn stay_on_one(number: usize) {
    let allowed = sched_getaffinity(None).expect("can be read");
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    // Programs that run side by side begin at different processors.
    let number = number + std::process::id() as usize;
    let mut one = CpuSet::new();
    one.set(all[number % all.len()]);
    sched_setaffinity(None, &one).expect("can be set");
}
