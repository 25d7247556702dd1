//! Runs, their times, and their medians.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nfguard_lab::Netns;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Result;

const SETTLE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// From start to end.
    pub wall: Duration,
    /// Time of the processors in the process and all that it started and waited for.
    pub cpu: Duration,
}

/// All runs of one variant.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// The middle one of the times; zero if there are none.
    #[must_use]
    pub fn median(&self) -> Duration {
        middle(self.0.iter().map(|sample| sample.wall).collect())
    }

    /// The middle one of the processors' times; zero if there are none.
    #[must_use]
    pub fn median_cpu(&self) -> Duration {
        middle(self.0.iter().map(|sample| sample.cpu).collect())
    }

    /// The shortest time; zero if there are none.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.0.iter().map(|sample| sample.wall).min().unwrap_or_default()
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs variants `0..variants` in turns, each `runs` times and each time in a new network
/// namespace. Namespaces are made before and ended after all measuring.
///
/// # Errors
/// The first that `one` gives, or a namespace cannot be made.
pub fn in_turns(
    runs: usize,
    variants: usize,
    mut one: impl FnMut(usize, &Netns) -> Result<Sample>,
) -> Result<Vec<Samples>> {
    let namespaces =
        (0..runs * variants).map(|_| Netns::new()).collect::<std::io::Result<Vec<_>>>()?;
    let mut samples = vec![Samples::default(); variants];
    for (turn, netns) in namespaces.iter().enumerate() {
        // The order changes, so that none always follows the same one.
        let variant = (turn + turn / variants) % variants;
        let sample = one(variant, netns)?;
        if let Some(samples) = samples.get_mut(variant) {
            samples.0.push(sample);
        }
    }
    // The kernel takes namespaces down in the background, which the next runs would feel.
    drop(namespaces);
    std::thread::sleep(SETTLE);
    Ok(samples)
}

/// Runs a program to its end inside the namespace.
///
/// # Errors
/// It does not start, or it fails; then its own words.
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

/// The processors' time of all that was started and waited for.
///
/// # Errors
/// The kernel does not tell.
pub fn children() -> Result<Duration> {
    Ok(processors(&getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn processors(usage: &Usage) -> Duration {
    let time = |value: TimeVal| {
        let micros = value.tv_sec().saturating_mul(1_000_000).saturating_add(value.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Times work of this thread. The kernel counts a thread's own time too coarsely for short work,
/// so its processor time is taken to be all of it.
///
/// # Errors
/// That of the work.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Sample)> {
    let start = Instant::now();
    let value = work()?;
    let wall = start.elapsed();
    Ok((value, Sample { wall, cpu: wall }))
}
