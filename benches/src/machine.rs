//! The machine and the programs of a measurement.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A program whose version is part of the result.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a>(pub &'a Path, pub &'a [&'a str]);

impl Program<'_> {
    fn version(self) -> String {
        let output = Command::new(self.0).args(self.1).output();
        let text = output.map_or_else(
            |error| format!("{}: {error}", self.0.display()),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        );
        text.lines().next().unwrap_or_default().trim().to_owned()
    }
}

/// Returns processor, kernel, programs and load of the machine as a list in Markdown.
#[must_use]
pub fn header(programs: &[Program<'_>]) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let mut lines = vec![
        format!("{model}, {processors} processors; load average at the start {load}"),
        format!("Linux {}", kernel.trim()),
    ];
    lines.extend(programs.iter().map(|program| program.version()));
    lines.iter().map(|line| format!("- {line}\n")).collect()
}
