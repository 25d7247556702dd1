//! `jail test`: reads a log as jails would.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use nfguard_control::input::STANDARD;
use nfguard_jail::fail2ban::{Filter, Stamp};
use nfguard_jail::{Config, Event, Jails, LogId};

use crate::args::JailTestRequest;
use crate::commands::jail::{expect, read, read_filter, report};
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

/// Microseconds since 1970 of the year that a time without one has, if nothing tells its year.
const YEAR_2000: std::ops::Range<i64> = 946_684_800_000_000..978_307_200_000_000;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) fn test(request: &JailTestRequest, as_json: bool) -> Done {
    let config = config(request, as_json)?.with_one_place();
    let expected = request.expect.as_deref().map(expect::read).transpose()?;
    let mut jails = Jails::new(config, request.never.clone());
    let log = open(&request.log)?;
    if let Some(time) = request.now {
        jails = jails.with_time(time);
    }
    let mut is_without_year = false;
    let mut report = report::Report::new(as_json, request.lines);
    let mut found = expect::Found::default();
    let lines = run(&mut jails, log, &mut |event| {
        report.event(event);
        let time = match event {
            Event::Evidence(taken) => Some(taken.time),
            Event::Ban(ban) => Some(ban.since),
            _ => None,
        };
        is_without_year |= time.is_some_and(|time| YEAR_2000.contains(&time.micros()));
        if expected.is_some() {
            found.add(event);
        }
    })
    .map_err(Failure::file(&request.log))?;
    report.summary(&jails, lines);
    if is_without_year && request.now.is_none() {
        output::warning(
            "times without a year are in 2000; --now TIME says when the log was written",
        );
    }
    let Some(expected) = expected else { return Ok(Answer::Yes) };
    let differences = expected.differences(&found);
    differences.iter().for_each(|difference| output::warning(difference));
    Ok(differences.is_empty().into())
}

fn config(request: &JailTestRequest, as_json: bool) -> Result<Config, Failure> {
    if let Some(path) = &request.fail2ban {
        return filter_config(request, &path.display().to_string());
    }
    let Some(path) = &request.file else {
        let config = Config::builtin(&request.jail);
        return config.map_err(|unknown| Failure::Usage(unknown.to_string()));
    };
    let (config, warnings) = read(path)?;
    if !as_json {
        output::problems(&path.display().to_string(), &warnings, false);
    }
    if request.jail.is_empty() {
        return Ok(config);
    }
    config.only(&request.jail).map_err(|unknown| Failure::Usage(unknown.to_string()))
}

fn filter_config(request: &JailTestRequest, path: &str) -> Result<Config, Failure> {
    let options = request.set.iter().cloned().collect();
    let filter = Filter::read(path, &options, &mut read_filter).map_err(|mistakes| {
        let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failure::Usage(mistakes.join("\n"))
    })?;
    for note in filter.notes() {
        output::warning(&note.to_string());
    }
    for told in filter.backtracking() {
        output::warning(&format!("{told}: it does not run in linear time"));
    }
    let stamp = if request.no_stamp { Stamp::Clock } else { Stamp::InLine };
    Ok(Config::of_filter(path, filter, stamp, request.timezone.clone().unwrap_or_default()))
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new(STANDARD) {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(Failure::file(path))?;
    Ok(Box::new(file))
}

/// Reads a log, and returns how many lines it has.
fn run(jails: &mut Jails, log: Box<dyn Read>, each: &mut dyn FnMut(&Event)) -> io::Result<u64> {
    let logs: Vec<LogId> = jails.logs().map(|(id, _)| id).collect();
    let mut reader = BufReader::with_capacity(PIECE_BYTES, log);
    let (mut position, mut lines, mut is_line) = (0, 0, false);
    loop {
        let piece = reader.fill_buf()?;
        let count = piece.len();
        if count == 0 {
            break;
        }
        lines += memchr::memchr_iter(b'\n', piece).count() as u64;
        is_line = piece.last() != Some(&b'\n');
        // Readers of different formats take turns, line by line, so that events are in order.
        let step = |rest: &[u8]| match logs.as_slice() {
            [_] => rest.len(),
            _ => rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1),
        };
        let mut rest = piece;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(step(rest));
            for id in &logs {
                jails.read(*id, position, part, &mut |event| each(&event));
            }
            position += part.len() as u64;
            rest = after;
        }
        reader.consume(count);
    }
    for id in &logs {
        jails.finish(*id, &mut |event| each(&event));
    }
    Ok(lines + u64::from(is_line))
}
