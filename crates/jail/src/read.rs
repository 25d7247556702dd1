//! Readers: each makes records of the bytes of a log.

mod caddy;
mod clf;
mod client;
mod combined;
mod docker;
mod journal;
mod text;
mod traefik_json;

use ipnetwork::IpNetwork;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use crate::frame::{Line, Lines, without_leader};
use crate::read::clf::{Kind, Settings};
use crate::read::docker::{Joined, Pieces, Stream};
use crate::read::journal::{Export, Outcome};
use crate::read::text::Stamped;
use crate::read::traefik_json::Look;
use crate::record::{Http, Raw, Record, Text};
use crate::status::StatusSet;
use crate::time::{Time, Zone};

pub use journal::Vouched;

/// Programs whose syslog lines are sshd's.
const SSHD_PROGRAMS: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// The format of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// The journal, in JSON or in the export form.
    Journal,
    /// sshd's messages: the journal, or lines of syslog.
    Sshd,
    /// Docker's `json-file` around lines of another format.
    DockerJson(LineFormat),
    /// Lines.
    Lines(LineFormat),
}

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LineFormat {
    /// Traefik's access log, in JSON or in the common format, as its first record is.
    Traefik,
    /// Traefik's access log in JSON.
    TraefikJson,
    /// Traefik's access log in the common format.
    TraefikClf,
    /// The common or the combined format.
    Clf,
    /// Caddy's access log in JSON.
    Caddy,
    /// The common or the combined format, or Caddy's JSON, as the first record is.
    Http,
    /// Text with its time at its beginning.
    Text,
    /// Lines that a filter of Fail2Ban reads, their times included.
    Raw,
}

/// How a log is read.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) format: Format,
    pub(crate) zone: Zone,
    pub(crate) trusted: Vec<IpNetwork>,
    pub(crate) vouched: Vouched,
    /// Statuses that a jail watches.
    pub(crate) watched: StatusSet,
    pub(crate) finder: Finder<'static>,
    /// A time near which the log was written, for times without a year.
    pub(crate) known: Option<Time>,
}

/// What is remembered of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// How far the log is read, in bytes.
    pub(crate) position: u64,
    pub(crate) counts: ReadCounts,
    form: Option<Form>,
    lines: Lines,
    export: Export,
    stdout: StreamMemory,
    stderr: StreamMemory,
}

impl Progress {
    /// Goes on after a gap: what follows is not the rest of a line or of a record.
    fn skip(&mut self) {
        self.forget_halves();
        self.streams().for_each(|stream| stream.clf.skip());
        if self.form == Some(Form::Export) {
            // A message may look like entries, and nothing tells where one ends.
            self.form = Some(Form::Cut);
        }
    }

    /// Begins at the beginning of a new file of the log, whose form may be another.
    pub(crate) fn restart(&mut self) {
        self.forget_halves();
        self.position = 0;
        self.form = None;
        for stream in self.streams() {
            stream.clf.restart();
            stream.form = None;
        }
    }

    fn forget_halves(&mut self) {
        self.lines = Lines::default();
        self.export = Export::default();
        self.streams().for_each(|stream| stream.pieces = Pieces::default());
    }

    fn streams(&mut self) -> impl Iterator<Item = &mut StreamMemory> {
        [&mut self.stdout, &mut self.stderr].into_iter()
    }
}

/// What was read of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Lines.
    pub lines: u64,
    /// Lines that are records of the log's format, whether or not they are about a jail.
    pub records: u64,
    /// Lines that are too long to be judged.
    pub too_long: u64,
    /// Records that may be of one client or of another, and so are evidence against none.
    pub unclear: u64,
}

/// A form that the log itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Form {
    Json,
    Export,
    /// An export that is entered in its middle. It is not read.
    Cut,
    Plain,
}

/// What is remembered of the lines of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct StreamMemory {
    form: Option<Form>,
    clf: clf::Memory,
    pieces: Pieces,
    /// The time of the last line whose time has no year.
    last: Option<Time>,
}

impl StreamMemory {
    /// Notes a time by which the next one without a year gets its own. A time with a year is no such
    /// time: it may stand in what the line quotes.
    fn note(&mut self, stamped: &Stamped<'_>) {
        if !stamped.has_year {
            self.last = Some(stamped.text.time);
        }
    }
}

/// A record, the line with which it is complete, and the line where it begins.
pub(crate) struct Found<'r, 'a> {
    pub(crate) record: &'r Record<'a>,
    pub(crate) line: u64,
    pub(crate) begun: u64,
}

/// Takes records.
pub(crate) type Sink<'s> = dyn FnMut(Found<'_, '_>) + 's;

impl Reader {
    /// Reads bytes that begin at a position of the log. What is read already is left out.
    pub(crate) fn read(
        &self,
        progress: &mut Progress,
        position: u64,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) {
        let known = progress.position.saturating_sub(position);
        let new = usize::try_from(known).ok().and_then(|known| bytes.get(known..));
        let Some(new) = new.filter(|new| !new.is_empty()) else { return };
        if position > progress.position {
            progress.skip();
        }
        progress.position = position.saturating_add(bytes.len() as u64);
        self.read_new(progress, new, sink);
    }

    fn read_new(&self, progress: &mut Progress, new: &[u8], sink: &mut Sink<'_>) {
        let mut rest = new;
        match progress.form {
            Some(Form::Export) => return self.read_export(progress, rest, sink),
            Some(Form::Cut) => return,
            _ => {}
        }
        // A journal in JSON is told by the first line that is an object; what is before it may be half
        // a line or the zeros of a crash.
        let mut lines = std::mem::take(&mut progress.lines);
        if progress.form.is_none() && matches!(self.format, Format::Journal | Format::Sshd) {
            while let Some(end) = memchr::memchr(b'\n', rest) {
                let (line, after) = rest.split_at(end + 1);
                lines.read(line, &mut |line| self.read_line(progress, line, sink));
                rest = after;
                if progress.form == Some(Form::Export) {
                    progress.lines = lines;
                    return self.read_new(progress, rest, sink);
                }
                if progress.form.is_some() {
                    break;
                }
            }
        }
        lines.read(rest, &mut |line| self.read_line(progress, line, sink));
        progress.lines = lines;
    }

    /// Takes the last line as whole, though it has no end.
    pub(crate) fn finish(&self, progress: &mut Progress, sink: &mut Sink<'_>) {
        if matches!(progress.form, Some(Form::Export | Form::Cut)) {
            // An entry ends with an empty line. Without one it is half an entry.
            progress.export = Export::default();
            return;
        }
        let mut lines = std::mem::take(&mut progress.lines);
        lines.finish(&mut |line| self.read_line(progress, line, sink));
        progress.lines = lines;
        self.end_doubts(progress, true, sink);
    }

    /// Takes what has come as all that has been written: no record goes on.
    pub(crate) fn settle(&self, progress: &mut Progress, sink: &mut Sink<'_>) {
        self.end_doubts(progress, false, sink);
    }

    fn end_doubts(&self, progress: &mut Progress, is_end: bool, sink: &mut Sink<'_>) {
        for stream in progress.streams() {
            let mut each = self.each(sink);
            stream.clf.settle(is_end, &mut each);
        }
    }

    /// Returns what hands over requests with a status that is watched.
    fn each<'s>(&'s self, sink: &'s mut Sink<'_>) -> impl FnMut(Http<'_>, u64, u64) {
        |http, line, begun| {
            if self.watched.contains(http.status) {
                sink(Found { record: &Record::Http(http), line, begun });
            }
        }
    }

    /// Returns what a line of the journal tells of its form.
    fn form(&self, line: &[u8]) -> Option<Form> {
        let is_export = || {
            let key = memchr::memchr(b'=', line).and_then(|end| line.get(..end));
            let is_key = |key: &[u8]| {
                let is_upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                !key.is_empty() && key.iter().all(|byte| is_upper(byte) || *byte == b'_')
            };
            // A process's own message does not begin an entry.
            key.is_some_and(|key| key.starts_with(b"_") && is_key(key))
        };
        match line.first()? {
            b'{' if journal::read_json(line).is_some() => Some(Form::Json),
            b'_' if is_export() => Some(Form::Export),
            _ => None,
        }
    }

    fn read_export(&self, progress: &mut Progress, bytes: &[u8], sink: &mut Sink<'_>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (after, entry) = progress.export.read(rest, &mut progress.counts.lines);
            rest = after;
            if let Some(entry) = entry {
                self.read_entry(progress, entry.record(&self.vouched), sink);
            }
        }
    }

    fn read_entry(&self, progress: &mut Progress, entry: Option<Outcome>, sink: &mut Sink<'_>) {
        let Some(outcome) = entry else { return };
        progress.counts.records += 1;
        if let Outcome::Vouched(text) = outcome {
            let line = progress.counts.lines;
            sink(Found { record: &Record::Text(text), line, begun: line });
        }
    }

    fn read_line(&self, progress: &mut Progress, line: Line<'_>, sink: &mut Sink<'_>) {
        progress.counts.lines += 1;
        let Line::Text(line) = line else {
            progress.counts.too_long += 1;
            return;
        };
        let line = without_leader(line);
        if progress.form.is_none() && matches!(self.format, Format::Journal | Format::Sshd) {
            progress.form = self.form(line);
            if progress.form == Some(Form::Export) {
                progress.export.begin(line);
                return;
            }
        }
        match (self.format, progress.form) {
            (Format::Journal | Format::Sshd, Some(Form::Json)) => {
                let entry = journal::read_json(line).and_then(|it| it.record(&self.vouched));
                self.read_entry(progress, entry, sink);
            }
            (Format::Journal, _) => {}
            (Format::Sshd, _) => self.read_syslog(progress, line, sink),
            (Format::DockerJson(inside), _) => {
                let Some(piece) = docker::read(line) else {
                    // It may have been a piece of any line.
                    progress.stdout.pieces = Pieces::default();
                    progress.stderr.pieces = Pieces::default();
                    return;
                };
                let memory = match piece.stream {
                    Stream::Stdout => &mut progress.stdout,
                    Stream::Stderr => &mut progress.stderr,
                };
                match memory.pieces.join(piece.text) {
                    Joined::Part => {}
                    Joined::TooLong => progress.counts.too_long += 1,
                    Joined::Line(line) => {
                        let line = line.strip_suffix(b"\r").unwrap_or(&line);
                        let written = piece.time;
                        self.read_inner(inside, memory, &mut progress.counts, line, written, sink);
                    }
                }
            }
            (Format::Lines(format), _) => {
                let Progress { stdout, counts, .. } = progress;
                self.read_inner(format, stdout, counts, line, None, sink);
            }
        }
    }

    fn read_syslog(&self, progress: &mut Progress, line: &[u8], sink: &mut Sink<'_>) {
        let known = progress.stdout.last.max(self.known);
        let Some(stamped) = text::read(line, &self.zone, None, known) else { return };
        progress.counts.records += 1;
        progress.stdout.note(&stamped);
        // From here on, an object is what someone wrote into a line.
        progress.form = Some(Form::Plain);
        let Text { time, text, .. } = stamped.text;
        let Some((message, sender)) = text::syslog_message(&text, &SSHD_PROGRAMS) else { return };
        let sender = sender.map(<[u8]>::to_vec);
        let record = Record::Text(Text { time, text: message.into(), sender });
        let line = progress.counts.lines;
        sink(Found { record: &record, line, begun: line });
    }

    fn read_inner(
        &self,
        format: LineFormat,
        memory: &mut StreamMemory,
        counts: &mut ReadCounts,
        line: &[u8],
        written: Option<Time>,
        sink: &mut Sink<'_>,
    ) {
        let number = counts.lines;
        match (format, memory.form) {
            (LineFormat::Text, _) => {
                let known = memory.last.max(self.known);
                let Some(stamped) = text::read(line, &self.zone, written, known) else { return };
                counts.records += 1;
                memory.note(&stamped);
                let record = Record::Text(stamped.text);
                return sink(Found { record: &record, line: number, begun: number });
            }
            (LineFormat::Raw, _) => {
                counts.records += 1;
                let written = written.or(self.known);
                let record = Record::Raw(Raw { line, written, zone: &self.zone });
                return sink(Found { record: &record, line: number, begun: number });
            }
            (LineFormat::TraefikJson | LineFormat::Caddy, _)
            | (LineFormat::Traefik | LineFormat::Http, Some(Form::Json)) => {
                self.read_json(format, counts, line, sink);
                return;
            }
            (LineFormat::Http, None) if line.first() == Some(&b'{') => {
                if self.read_json(format, counts, line, sink) {
                    memory.form = Some(Form::Json);
                }
                return;
            }
            (LineFormat::Clf | LineFormat::Http, _) => {
                if let Some(http) = combined::read(line, &self.trusted) {
                    memory.form = Some(Form::Plain);
                    counts.records += 1;
                    self.each(sink)(http, number, number);
                }
                return;
            }
            (LineFormat::TraefikClf, _) | (LineFormat::Traefik, Some(_)) => {}
            (LineFormat::Traefik, None) => {
                if line.first() == Some(&b'{') && self.read_json(format, counts, line, sink) {
                    memory.form = Some(Form::Json);
                    return;
                }
                if !clf::is_like(line) {
                    return;
                }
                memory.form = Some(Form::Plain);
            }
        }
        let settings = Settings { trusted: &self.trusted, watched: &self.watched };
        let kind = memory.clf.read(line, number, &settings, &mut self.each(sink));
        counts.records += u64::from(kind != Kind::Other);
        counts.unclear += u64::from(kind == Kind::Unclear);
    }

    /// Reads a line, and returns whether it is a record.
    fn read_json(
        &self,
        format: LineFormat,
        counts: &mut ReadCounts,
        line: &[u8],
        sink: &mut Sink<'_>,
    ) -> bool {
        match traefik_json::look(line, &self.finder, &self.watched) {
            Look::Nothing => return false,
            Look::Unwatched => {}
            Look::Watched => {
                let read = match format {
                    LineFormat::Caddy | LineFormat::Http => caddy::read,
                    _ => traefik_json::read,
                };
                let Some(http) = read(line, &self.zone, &self.trusted) else { return false };
                if self.watched.contains(http.status) {
                    let line = counts.lines;
                    sink(Found { record: &Record::Http(http), line, begun: line });
                }
            }
        }
        counts.records += 1;
        true
    }
}

/// Returns what finds the statuses of a log in JSON.
pub(crate) fn finder(format: Format) -> Finder<'static> {
    let (Format::Lines(line) | Format::DockerJson(line)) = format else { return Finder::new("") };
    Finder::new(match line {
        LineFormat::Caddy | LineFormat::Http => caddy::STATUS_KEY,
        _ => traefik_json::STATUS_KEY,
    })
}
