//! The log of a jail: where it is, and its format.

use nfguard_json::document::Problems;
use nfguard_json::reader::Field;

use crate::address::canonical;
use crate::config::file::{JournalFile, LogFile, LogOrPath};
use crate::config::texts;
use crate::config::values::FormatWord;
use crate::jail::{Log, Place};
use crate::read::{Format, LineFormat, Vouched};
use crate::time::Zone;

/// Returns the log of a jail that has this key, on top of a built-in jail with that log.
pub(super) fn log(
    given: Option<&LogOrPath>,
    base: Option<&LogOrPath>,
    has_patterns: bool,
    pointer: &str,
    problems: &mut Problems,
) -> Option<Log> {
    let base = match base {
        Some(LogOrPath::Log(log)) => Some(log),
        _ => None,
    };
    let usual = base.and_then(|log| log.format.given().copied());
    let usual_vouched = base.and_then(|log| log.journal.given()).map(vouched);
    let file = match given {
        Some(LogOrPath::Log(file)) => file,
        Some(LogOrPath::Path(path)) => {
            let format = line_format(usual, has_patterns, pointer, problems)?;
            return Some(Log {
                place: Place::File(path.clone()),
                format,
                zone: Zone::UTC,
                trusted_proxies: Vec::new(),
                vouched: usual_vouched.unwrap_or_default(),
            });
        }
        None => {
            let place = if usual_vouched.is_some() { Place::Journal } else { Place::Unsaid };
            let format = line_format(usual, has_patterns, pointer, problems)?;
            let vouched = usual_vouched.unwrap_or_default();
            let trusted_proxies = Vec::new();
            return Some(Log { place, format, zone: Zone::UTC, trusted_proxies, vouched });
        }
    };
    let place = place(file, pointer, problems);
    let format = format(file, usual, has_patterns, pointer, problems)?;
    let trusted = file.trusted_proxies.given().map_or(&[][..], |list| &list.0);
    let is_common = |line| matches!(line, LineFormat::Traefik | LineFormat::TraefikClf);
    if let Format::Lines(line) | Format::DockerJson(line) = format
        && is_common(line)
        && !trusted.is_empty()
    {
        // `traefik` may be JSON, which says all of it.
        let message = "Traefik's common format does not say through which proxy a request came: no ban is \
                       told to be one that cannot hold, and who forwards a list of addresses with ` - ` in \
                       it is judged by none; write the log as JSON";
        problems.warn(format!("{pointer}/trusted_proxies"), message);
    }
    let vouched = match file.journal.given().map(vouched) {
        Some(own) => Vouched {
            units: if own.units.is_empty() {
                usual_vouched.clone().unwrap_or_default().units
            } else {
                own.units
            },
            uid: own.uid.or(usual_vouched.and_then(|it| it.uid)),
        },
        None => usual_vouched.unwrap_or_default(),
    };
    Some(Log {
        place,
        format,
        zone: file.timezone.given().map_or(Zone::UTC, |zone| zone.0.clone()),
        trusted_proxies: trusted.iter().flatten().map(|prefix| canonical(prefix.0)).collect(),
        vouched,
    })
}

fn place(file: &LogFile, pointer: &str, problems: &mut Problems) -> Place {
    let places = [
        file.file.given().map(|path| Place::File(path.0.clone())),
        file.container.given().map(|name| Place::Container(name.0.clone())),
        file.journal.given().map(|_| Place::Journal),
    ];
    let mut given = places.into_iter().flatten();
    let first = given.next().unwrap_or(Place::Unsaid);
    if given.next().is_some() {
        let message =
            "found more than one of \"file\", \"container\" and \"journal\"; expected one";
        problems.error(pointer, message, None);
    }
    first
}

fn vouched(file: &JournalFile) -> Vouched {
    let units = file.unit.given().map_or(Vec::new(), texts);
    Vouched { units, uid: file.uid.given().map(|uid| uid.0) }
}

/// Returns the format of a log that says nothing but its path.
fn line_format(
    usual: Option<FormatWord>,
    has_patterns: bool,
    pointer: &str,
    problems: &mut Problems,
) -> Option<Format> {
    match usual {
        Some(FormatWord::Journal) => Some(Format::Journal),
        Some(FormatWord::Sshd) => Some(Format::Sshd),
        Some(word) => within_lines(word).map(Format::Lines),
        None if has_patterns => Some(Format::Lines(LineFormat::Text)),
        None => {
            problems.error(
                pointer,
                "the key \"format\" is missing: write the log as an object",
                None,
            );
            None
        }
    }
}

fn within_lines(word: FormatWord) -> Option<LineFormat> {
    Some(match word {
        FormatWord::Traefik => LineFormat::Traefik,
        FormatWord::TraefikJson => LineFormat::TraefikJson,
        FormatWord::TraefikClf => LineFormat::TraefikClf,
        FormatWord::Clf => LineFormat::Clf,
        FormatWord::Caddy => LineFormat::Caddy,
        FormatWord::Http => LineFormat::Http,
        FormatWord::Text => LineFormat::Text,
        FormatWord::DockerJson | FormatWord::Journal | FormatWord::Sshd => return None,
    })
}

fn format(
    file: &LogFile,
    usual: Option<FormatWord>,
    has_patterns: bool,
    pointer: &str,
    problems: &mut Problems,
) -> Option<Format> {
    if file.format.is_bad() || file.inside.is_bad() {
        return None;
    }
    let word = match (file.format.given().copied(), &file.container, &file.journal) {
        (Some(word), ..) => Some(word),
        (None, Field::Given(_), _) => Some(FormatWord::DockerJson),
        (None, _, Field::Given(_)) => Some(FormatWord::Journal),
        (None, ..) => usual,
    };
    if !matches!(word, Some(FormatWord::DockerJson)) && file.inside.given().is_some() {
        let message = "only \"docker-json\" has a format inside";
        problems.error(format!("{pointer}/inside"), message, None);
    }
    if word != Some(FormatWord::DockerJson) {
        let format = line_format(word, has_patterns, pointer, problems)?;
        if file.journal.given().is_some() && !matches!(format, Format::Journal | Format::Sshd) {
            let message = "the journal has the format \"journal\"";
            problems.error(format!("{pointer}/format"), message, Some("\"journal\"".to_owned()));
        }
        return Some(format);
    }
    let inside = file.inside.given().copied().or(usual.filter(|it| within_lines(*it).is_some()));
    let inside = inside.or(has_patterns.then_some(FormatWord::Text));
    let Some(inside) = inside else {
        problems.error(pointer, "the key \"inside\" is missing: the format of the lines", None);
        return None;
    };
    let line = within_lines(inside);
    if line.is_none() {
        let message = "found a format that is no format of lines; expected \"traefik\", \
                       \"traefik-json\", \"traefik-clf\", \"clf\", \"caddy\", \"http\" or \"text\"";
        problems.error(format!("{pointer}/inside"), message, None);
    }
    line.map(Format::DockerJson)
}
