//! What a jail takes for evidence.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};

use crate::address;
use crate::fail2ban::{Clock, Failure, Filter, Stamp, State};
use crate::record::{Client, Http, Origin, Record, Text};
use crate::status::StatusSet;
use crate::time::{Time, Zone};

/// Most memory of a compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 4 << 20;

/// The longest path that is judged, in bytes. No server has files with longer ones.
const MAX_PATH_BYTES: usize = 8 << 10;

/// What stands for the client's address in a pattern, and what it matches. The address is then read
/// strictly.
const CLIENT: &str = "<client>";
const CLIENT_PATTERN: &str =
    "(?P<client>[0-9]+(?:[.][0-9]+){3,}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)";

/// What stands for any text right before the client, and what it matches. It ends before the whole
/// address, of which it would otherwise take the first part.
const OPEN: [(&str, &str); 2] =
    [(".*<client>", "(?:.*[^0-9A-Fa-f:.]|)<client>"), (".+<client>", ".*[^0-9A-Fa-f:.]<client>")];

/// The group of a pattern whose text tells sessions apart.
const SESSION: &str = "session";

/// What a jail looks for.
#[derive(Clone, Debug)]
pub(crate) enum Looks {
    /// Requests.
    Http(Vec<HttpRule>),
    /// Texts.
    Text(Patterns),
    /// What a filter of Fail2Ban calls a failure.
    Filter(FilterRule),
    /// Bans by other jails.
    Bans,
}

/// A filter of Fail2Ban.
#[derive(Clone, Debug)]
pub(crate) struct FilterRule {
    pub(crate) filter: Arc<Filter>,
    /// Where the time of a line stands that does not come from the journal.
    pub(crate) stamp: Stamp,
    /// The time that the log is given is that of each line.
    pub(crate) has_clock: bool,
}

impl FilterRule {
    /// Returns the failures that are complete with a record.
    pub(crate) fn failures(&self, record: &Record<'_>, state: &mut State) -> Vec<Failure> {
        match record {
            Record::Raw(raw) => {
                // A log goes on for longer than a day; the line before is nearer than where it began.
                let last = state.last_time().filter(|_| self.stamp == Stamp::InLine);
                let last = last.filter(|_| !self.has_clock);
                let now = last.or(raw.written).unwrap_or(Time::END_OF_2000);
                let clock = Clock { now, zone: raw.zone, is_near: last.is_some() };
                self.filter.stamped_line(state, raw.line, self.stamp, &clock)
            }
            Record::Text(text) => {
                let clock = Clock { now: text.time, zone: &Zone::UTC, is_near: false };
                // The filter tells sessions apart by what stands before the message.
                let line = match &text.sender {
                    Some(sender) => [sender, b": ".as_slice(), &text.text].concat().into(),
                    None => Cow::Borrowed(&*text.text),
                };
                self.filter.stamped_line(state, &line, Stamp::Clock, &clock)
            }
            Record::Http(_) => Vec::new(),
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) time: Time,
    pub(crate) client: Client,
    pub(crate) counts: u32,
    pub(crate) mark: Option<Mark>,
}

/// What makes two pieces of evidence one, as a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mark {
    /// Of several with one value, only the last counts.
    Last(u64),
    /// Of one session, only those of one pattern count.
    Session(u64, u16),
}

impl Looks {
    /// Returns what the record is evidence of, if it is.
    pub(crate) fn find(&self, record: &Record<'_>) -> Option<Finding> {
        match (self, record) {
            (Looks::Http(rules), Record::Http(http)) => {
                let rule = rules.iter().find(|rule| rule.matches(http))?;
                let mark = rule.distinct.map(|field| Mark::Last(digest(field, &field.of(http))));
                let (time, client) = (http.time, http.client);
                Some(Finding { time, client, counts: rule.counts, mark })
            }
            (Looks::Text(patterns), Record::Text(text)) => {
                let (address, mark) = patterns.find(text)?;
                let client = Client { address, proxy: None };
                Some(Finding { time: text.time, client, counts: 1, mark })
            }
            _ => None,
        }
    }

    /// Returns the statuses without which nothing is found.
    pub(crate) fn statuses(&self) -> StatusSet {
        match self {
            Looks::Http(rules) => {
                let mut all = StatusSet::NONE;
                rules.iter().for_each(|rule| all.extend(&rule.statuses));
                all
            }
            Looks::Text(_) | Looks::Filter(_) | Looks::Bans => StatusSet::NONE,
        }
    }
}

/// Requests that are evidence. A rule matches if all that it says is true.
#[derive(Clone, Debug)]
pub(crate) struct HttpRule {
    pub(crate) statuses: StatusSet,
    pub(crate) methods: Option<Globs>,
    pub(crate) hosts: Option<Globs>,
    pub(crate) paths: Option<Globs>,
    pub(crate) user: Option<UserRule>,
    pub(crate) origin: Option<Origin>,
    pub(crate) counts: u32,
    pub(crate) distinct: Option<Field>,
}

/// Which users a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserRule {
    Present,
    Absent,
    Named(String),
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Path,
    User,
    Host,
}

impl Field {
    fn of<'h>(self, http: &'h Http<'_>) -> Cow<'h, [u8]> {
        let value = match self {
            Field::Path => return path(http.target.as_deref().unwrap_or_default()),
            Field::User => &http.user,
            Field::Host => &http.host,
        };
        Cow::Borrowed(value.as_deref().unwrap_or_default())
    }
}

impl HttpRule {
    fn matches(&self, http: &Http<'_>) -> bool {
        let globs = |globs: &Option<Globs>, text: Option<&[u8]>| match (globs, text) {
            (None, _) => true,
            (Some(globs), Some(text)) => globs.match_any(text),
            (Some(_), None) => false,
        };
        self.statuses.contains(http.status)
            && self.origin.is_none_or(|origin| http.origin == Some(origin))
            && match &self.user {
                None => true,
                Some(UserRule::Present) => http.user.is_some(),
                Some(UserRule::Absent) => http.user.is_none(),
                Some(UserRule::Named(name)) => http.user.as_deref() == Some(name.as_bytes()),
            }
            && globs(&self.methods, http.method.as_deref())
            && globs(&self.hosts, http.host.as_deref().map(without_port))
            && (self.paths.is_none()
                || globs(&self.paths, http.target.as_deref().map(path).as_deref()))
    }
}

/// Returns the host without its port.
fn without_port(host: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b':', host).filter(|at| {
        let port = host.get(at + 1..).unwrap_or_default();
        host.last() != Some(&b']') && port.iter().all(u8::is_ascii_digit)
    });
    end.and_then(|end| host.get(..end)).unwrap_or(host)
}

/// Returns the path of a target, percent-decoded, without scheme, host and query.
pub(crate) fn path(target: &[u8]) -> Cow<'_, [u8]> {
    let end = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
    let mut path = target.get(..end.min(MAX_PATH_BYTES)).unwrap_or_default();
    if !path.starts_with(b"/")
        && let Some(scheme) = memchr::memmem::find(path, b"://")
    {
        let after = path.get(scheme + 3..).unwrap_or_default();
        path = match memchr::memchr(b'/', after) {
            Some(at) => after.get(at..).unwrap_or_default(),
            None => b"/",
        };
    }
    if memchr::memchr(b'%', path).is_none() {
        return Cow::Borrowed(path);
    }
    let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut out = Vec::with_capacity(path.len());
    while let Some((first, rest)) = path.split_first() {
        let decoded = match (first, rest) {
            (b'%', [high, low, ..]) => hex(high).zip(hex(low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        out.push(decoded.unwrap_or(*first));
        path = rest.get(if decoded.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    Cow::Owned(out)
}

/// FNV-1a of the field and the value: a state that was saved is put back by other versions, too.
fn digest(field: Field, value: &[u8]) -> u64 {
    let field = match field {
        Field::Path => b'p',
        Field::User => b'u',
        Field::Host => b'h',
    };
    fold([&[field], value])
}

fn fold<const N: usize>(parts: [&[u8]; N]) -> u64 {
    parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Patterns with `*` for any text and `?` for any byte, compiled to one expression.
#[derive(Clone, Debug)]
pub(crate) struct Globs(Regex);

impl Globs {
    /// Compiles patterns. `any_case` is for what has no case, such as hosts.
    pub(crate) fn new<'g>(
        patterns: impl Iterator<Item = &'g str>,
        any_case: bool,
    ) -> Result<Self, String> {
        let each = patterns.map(|pattern| {
            let escaped = regex::escape(pattern);
            escaped.replace(r"\*", ".*").replace(r"\?", ".")
        });
        let text = format!("^(?:{})$", each.collect::<Vec<_>>().join("|"));
        let built = builder(&text).case_insensitive(any_case).build();
        built.map(Self).map_err(|error| explained(&error))
    }

    fn match_any(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

fn builder(text: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false).dot_matches_new_line(true).size_limit(MAX_PATTERN_BYTES);
    builder
}

fn explained(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        // The last line says what is wrong; those before it draw the place.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// Regular expressions, each with `<client>` once.
#[derive(Clone, Debug)]
pub(crate) struct Patterns {
    /// Tells in one pass over a text which expressions match.
    set: RegexSet,
    each: Vec<Regex>,
}

impl Patterns {
    /// Compiles expressions that [`Patterns::check`] has passed.
    pub(crate) fn new(expressions: &[String]) -> Result<Self, String> {
        let sources: Vec<String> = expressions.iter().map(|it| source(it)).collect();
        let mut set = RegexSetBuilder::new(&sources);
        set.unicode(false).dot_matches_new_line(true);
        let size = MAX_PATTERN_BYTES * sources.len().max(1);
        let set = set.size_limit(size).build().map_err(|error| explained(&error))?;
        let each = sources.iter().map(|source| builder(source).build());
        let each = each.collect::<Result<Vec<_>, _>>().map_err(|error| explained(&error))?;
        Ok(Self { set, each })
    }

    /// Returns what is wrong with an expression, if anything is.
    pub(crate) fn check(expression: &str) -> Option<String> {
        match expression.matches(CLIENT).count() {
            1 => builder(&source(expression)).build().err().map(|error| explained(&error)),
            0 => Some(format!("it has no {CLIENT}")),
            _ => Some(format!("it has {CLIENT} more than once")),
        }
    }

    fn find(&self, text: &Text<'_>) -> Option<(IpAddr, Option<Mark>)> {
        self.set.matches(&text.text).into_iter().find_map(|at| {
            let captures = self.each.get(at)?.captures(&text.text)?;
            let address = whole_address(&text.text, captures.name("client")?.range())?;
            // A client may choose its port, and not the process that serves it.
            let session = captures.name(SESSION).zip(text.sender.as_deref());
            let mark = session.map(|(session, sender)| {
                let session = fold([sender, b" ", session.as_bytes()]);
                Mark::Session(session, u16::try_from(at).unwrap_or(u16::MAX))
            });
            Some((address, mark))
        })
    }
}

/// Returns the address at a place of a text, unless it is a part of something longer.
fn whole_address(text: &[u8], range: Range<usize>) -> Option<IpAddr> {
    let found = text.get(range.clone())?;
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    let is_part = before.is_some_and(|byte| match found.contains(&b':') {
        true => byte.is_ascii_hexdigit(),
        false => byte.is_ascii_digit() || *byte == b'.',
    });
    // What follows an address may look like a part of it: `2001:db8::5: refused`.
    address::parse(found).filter(|_| !is_part).or_else(|| {
        let (last, rest) = found.split_last()?;
        ([b':', b'.'].contains(last) && !is_part).then(|| address::parse(rest))?
    })
}

/// Returns an expression as it is compiled: anchored at both ends, unless it begins or ends with `.*`.
fn source(expression: &str) -> String {
    let begin = if expression.starts_with(".*") { "" } else { "^" };
    // `\.*` is a row of points.
    let is_open = expression.strip_suffix(".*").is_some_and(|before| {
        before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0
    });
    let end = if is_open { "" } else { "$" };
    let is_open = |open: &str| {
        let before = expression.find(open).and_then(|at| expression.get(..at));
        before.is_some_and(|before| !before.ends_with('\\'))
    };
    let open = OPEN.into_iter().find(|(open, _)| is_open(open));
    let expression =
        open.map_or(expression.to_owned(), |(open, pattern)| expression.replace(open, pattern));
    format!("{begin}(?:{}){end}", expression.replace(CLIENT, CLIENT_PATTERN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_stay_what_they_are_and_differ_by_field() {
        assert_eq!(digest(Field::Path, b"/a"), 8_679_642_755_032_876_691);
        assert_ne!(digest(Field::Path, b"a"), digest(Field::User, b"a"));
    }

    #[test]
    fn a_path_is_decoded_and_has_no_query() {
        let decoded = |target: &str| String::from_utf8(path(target.as_bytes()).to_vec()).unwrap();
        assert_eq!(decoded("/%2egit/config?x=/a"), "/.git/config");
        assert_eq!(decoded("http://host/a%2"), "/a%2");
        assert_eq!(decoded("https://host"), "/");
        assert_eq!(decoded("/a%zz"), "/a%zz");
    }

    #[test]
    fn a_glob_is_whole_and_nothing_in_it_is_an_expression() {
        let globs = Globs::new(["/.git/*", "/a+b", "/x?"].into_iter(), false).unwrap();
        let found = |text: &str| globs.match_any(text.as_bytes());
        assert!(found("/.git/config") && found("/a+b") && found("/xy"));
        assert!(!found("/xgit/config") && !found("/aab") && !found("/.git") && !found("/x/.git/a"));
    }

    #[test]
    fn an_expression_is_anchored_unless_it_says_otherwise() {
        let found = |expression: &str, text: &str| {
            assert_eq!(Patterns::check(expression), None);
            let patterns = Patterns::new(&[expression.to_owned()]).unwrap();
            let time = Time::from_seconds(0).unwrap();
            patterns.find(&Text { time, text: text.as_bytes().into(), sender: None }).is_some()
        };
        assert!(found("failed from <client>", "failed from 203.0.113.5"));
        assert!(!found("failed from <client>", "failed from 203.0.113.5 x"));
        assert!(!found("failed from <client>", "x failed from 203.0.113.5"));
        assert!(found(".*failed from <client>.*", "x failed from 203.0.113.5 x"));
        assert!(!found("failed from <client>", "failed from 203.0.113.555"));
        assert!(found(".*failed from <client>.*", "x failed from 203.0.113.5: bad"));
        assert!(found(".*failed from <client>.*", "x failed from 2001:db8::5: bad"));
        assert!(!found(r"failed from <client>\.*", "failed from 203.0.113.5 x"));
        assert!(found(r"failed from <client> \.*", "failed from 203.0.113.5 ..."));
        assert!(found(r"failed from <client> \\.*", r"failed from 203.0.113.5 \x"));
        for text in ["denied for 203.0.113.5", "denied 203.0.113.5 bad", "denied (2001:db8::5)"] {
            assert!(found(".*denied.*<client>.*", text), "{text}");
            assert!(found(".*<client>.*", text), "{text}");
        }
        assert!(found("client:<client>:443", "client:203.0.113.5:443"));
        assert!(found("client:<client>", "client:2001:db8::5"));
        assert!(!found(r"denied \S*<client>", "denied x203.0.113.5"), "a part of an address");
        assert!(!found(".*<client>.*", "version 1.203.0.113.5"), "no address");
        assert!(Patterns::check("failed from").is_some());
        assert!(Patterns::check("(failed from <client>").is_some());
    }
}
