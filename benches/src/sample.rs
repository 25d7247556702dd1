//! Runs, their times, and their medians.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nfguard_lab::Netns;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Result;

const SETTLE_TIME: Duration = Duration::from_secs(2);

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The time from start to end.
    pub wall: Duration,
    /// The processor time of the process and of the children that it has waited for.
    pub cpu: Duration,
}

/// The runs of a variant.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

impl FromIterator<Sample> for Samples {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Samples {
        Samples(samples.into_iter().collect())
    }
}

impl Samples {
    /// Returns the median of the times, or zero without runs.
    #[must_use]
    pub fn median(&self) -> Duration {
        median_of(self.0.iter().map(|sample| sample.wall).collect())
    }

    /// Returns the median of the processor times, or zero without runs.
    #[must_use]
    pub fn median_cpu(&self) -> Duration {
        median_of(self.0.iter().map(|sample| sample.cpu).collect())
    }

    /// Returns the shortest time, or zero without runs.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.0.iter().map(|sample| sample.wall).min().unwrap_or_default()
    }
}

fn median_of(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs variants `0..variants` in turns, each `runs` times and each time in a new network
/// namespace. Namespaces are made before and ended after all measuring.
///
/// # Errors
/// The first error of `one`, or a namespace cannot be made.
pub fn in_turns(
    runs: usize,
    variants: usize,
    mut one: impl FnMut(usize, &Netns) -> Result<Sample>,
) -> Result<Vec<Samples>> {
    let namespaces =
        (0..runs * variants).map(|_| Netns::new()).collect::<std::io::Result<Vec<_>>>()?;
    let mut samples = vec![Samples::default(); variants];
    for (turn, netns) in namespaces.iter().enumerate() {
        // The order changes, so that no variant always follows the same one.
        let variant = (turn + turn / variants) % variants;
        let sample = one(variant, netns)?;
        if let Some(samples) = samples.get_mut(variant) {
            samples.0.push(sample);
        }
    }
    // The kernel removes namespaces in the background, which would slow the next runs.
    drop(namespaces);
    std::thread::sleep(SETTLE_TIME);
    Ok(samples)
}

/// Runs a program in a namespace and returns its times.
///
/// # Errors
/// The program does not start, or it fails. The error has its output.
pub fn run(netns: &Netns, command: &mut Command) -> Result<Sample> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    netns.run(|| {
        let before = children()?;
        let start = Instant::now();
        let output = command.output().map_err(|error| format!("{name}: {error}"))?;
        let wall = start.elapsed();
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{name} {}: {}", output.status, words.trim()).into());
        }
        Ok(Sample { wall, cpu: children()?.saturating_sub(before) })
    })
}

/// Returns the processor time of all children that this process has waited for.
///
/// # Errors
/// The kernel refuses the question.
pub fn children() -> Result<Duration> {
    Ok(processor_time(&getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn processor_time(usage: &Usage) -> Duration {
    let time = |value: TimeVal| {
        let micros = value.tv_sec().saturating_mul(1_000_000).saturating_add(value.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Measures work of this thread. The kernel counts the time of a thread too coarsely for short
/// work, so the whole time counts as processor time.
///
/// # Errors
/// The error of the work.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Sample)> {
    let start = Instant::now();
    let value = work()?;
    let wall = start.elapsed();
    Ok((value, Sample { wall, cpu: wall }))
}
