//! The processor of a test and its children.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds this thread and its children to one processor. A packet that has arrived has then also
/// passed all hooks. `number` selects the processor, modulo the count of processors.
///
/// # Panics
/// If the kernel refuses the binding.
pub fn stay_on_one(number: usize) {
    let allowed = sched_getaffinity(None).expect("can be read");
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    // Programs that run side by side begin at different processors.
    let number = number + std::process::id() as usize;
    let mut one = CpuSet::new();
    one.set(all[number % all.len()]);
    sched_setaffinity(None, &one).expect("can be set");
}
