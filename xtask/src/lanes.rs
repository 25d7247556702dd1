//! Steps side by side.

use crate::output;
use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Steps that run one after the other, beside those of other lanes.
pub(crate) type Lane<'l> = Box<dyn FnOnce() + Send + 'l>;

/// Runs the lanes side by side, to the end of the last.
pub(crate) fn run(lanes: Vec<Lane<'_>>) {
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(|| {
                output::keep();
                lane();
            });
        }
    });
}

/// Lets the other lanes go first, where there are not processors enough for all. What this lane
/// starts does so too.
pub(crate) fn stand_back() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(number) = thread.file_name() {
        // Without it, all lanes are alike, which is no failure.
        let mut renice = Command::new("renice");
        renice.args(["-n", "3", "-p"]).arg(number).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = renice.status();
    }
}

/// Work that any of several lanes takes.
pub(crate) struct Job<'j> {
    /// What two jobs must not use at the same time, if anything.
    pub(crate) needs: Option<&'static str>,
    pub(crate) work: Box<dyn FnOnce() + Send + 'j>,
}

/// Jobs that wait for a lane, the first one first.
pub(crate) struct Queue<'j> {
    state: Mutex<State<'j>>,
    released: Condvar,
}

struct State<'j> {
    waiting: VecDeque<Job<'j>>,
    in_use: Vec<&'static str>,
}

impl<'j> Queue<'j> {
    pub(crate) fn new(jobs: Vec<Job<'j>>) -> Queue<'j> {
        let state = State { waiting: jobs.into(), in_use: Vec::new() };
        Queue { state: Mutex::new(state), released: Condvar::new() }
    }

    /// Takes job after job, until none is left.
    pub(crate) fn work(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.waiting.is_empty() {
            let is_free = |job: &Job<'_>| job.needs.is_none_or(|it| !state.in_use.contains(&it));
            let Some(at) = state.waiting.iter().position(is_free) else {
                state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(job) = state.waiting.remove(at) else { continue };
            state.in_use.extend(job.needs);
            drop(state);
            (job.work)();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.in_use.retain(|it| Some(*it) != job.needs);
            self.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Lane, Queue, run};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn two_jobs_that_need_the_same_run_one_after_the_other() {
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let done = Mutex::new(Vec::new());
        let job = |number: usize, needs| {
            let (at_work, most, done) = (&at_work, &most, &done);
            let work = Box::new(move || {
                if needs == Some("machine") {
                    most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(20));
                    at_work.fetch_sub(1, Ordering::SeqCst);
                }
                done.lock().expect("no panic").push(number);
            });
            Job { needs, work }
        };
        let queue = Queue::new(vec![
            job(0, Some("machine")),
            job(1, Some("machine")),
            job(2, None),
            job(3, Some("machine")),
            job(4, None),
        ]);
        run((0..3).map(|_| Box::new(|| queue.work()) as Lane<'_>).collect());
        drop(queue);
        let mut done = done.into_inner().expect("no panic");
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4]);
        assert_eq!(most.into_inner(), 1);
    }
}
