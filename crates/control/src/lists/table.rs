//! Lists with columns: which of them has the addresses.
//!
//! The names in the first line decide, or `--column`. Without either, the first column has to hold the
//! addresses, and no other column any. What could be the end of a range or the length of a prefix is
//! never left out in silence.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, NetworkSize};
use nfguard_ban::Addresses;

use super::{At, Details, Options, Reader, cut, is_comment, line, some_names};

/// Names of columns that hold addresses or prefixes.
const ADDRESS_NAMES: [&str; 24] = [
    "ip",
    "ips",
    "ip_address",
    "ipaddress",
    "ip address",
    "ip_addr",
    "address",
    "addr",
    "ipv4",
    "ipv6",
    "network",
    "networks",
    "net",
    "cidr",
    "prefix",
    "ip_prefix",
    "ip_range",
    "iprange",
    "range",
    "subnet",
    "dst_ip",
    "dstip",
    "src_ip",
    "srcip",
];
/// Names of columns that hold the first and the last address of a range.
const RANGE_NAMES: [(&str, &str); 8] = [
    ("start", "end"),
    ("first", "last"),
    ("from", "to"),
    ("start_ip", "end_ip"),
    ("ip_start", "ip_end"),
    ("range_start", "range_end"),
    ("ip_range_start", "ip_range_end"),
    ("begin", "end"),
];
/// Names of columns that hold the length of a prefix, or a netmask.
const LENGTH_NAMES: [&str; 8] =
    ["mask", "netmask", "bits", "masklen", "prefixlen", "prefix_length", "cidr_bits", "mask_bits"];

/// Which columns hold what, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Columns {
    /// Addresses, prefixes or ranges.
    Addresses(usize),
    /// The first and the last address of a range.
    Range(usize, usize),
    /// An address, and the length of its prefix or its netmask.
    Prefix(usize, usize),
    /// The decisions of CrowdSec, by the numbers of their columns.
    CrowdSec(CrowdSec),
}

/// The columns of what `cscli decisions list -o raw` prints and `cscli decisions import` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CrowdSec {
    target: usize,
    left: usize,
    scope: Option<usize>,
    action: Option<usize>,
    reason: Option<usize>,
    simulated: Option<usize>,
}

/// The layout of a table.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    separator: Separator,
    /// The line with the names of the columns, from 1.
    header: Option<usize>,
    columns: Columns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separator {
    Char(char),
    Spaces,
}

impl Separator {
    /// Returns the separator of a line; `None` if it has one field.
    fn of(line: &str) -> Option<Separator> {
        let found = [',', '\t', '|', ';'].into_iter().find(|it| split(line, *it).len() > 1);
        let spaces = || line.split_whitespace().nth(1).map(|_| Separator::Spaces);
        found.map(Separator::Char).or_else(spaces)
    }

    fn fields(self, line: &str) -> Vec<&str> {
        match self {
            Separator::Char(separator) => split(line, separator),
            Separator::Spaces => line.split_whitespace().collect(),
        }
    }
}

fn unquoted(field: &str) -> &str {
    let field = field.trim();
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field).trim()
}

/// Splits a line at a separator that does not stand in quotes, and takes the quotes away.
fn split(line: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    let fields = line.split(|character: char| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    });
    fields.map(unquoted).collect()
}

fn is_address(text: &str) -> bool {
    text.parse::<Addresses>().is_ok()
}

/// Returns the lines that are no comment, with their numbers from 1.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !is_comment(line))
}

impl Layout {
    /// Finds the layout; `None` if the lines are no table.
    ///
    /// # Errors
    /// Why the columns say nothing, or two things.
    pub(super) fn of(text: &str, options: &Options<'_>) -> Result<Option<Layout>, String> {
        let mut all = rows(text);
        let Some((number, first)) = all.next() else { return Ok(None) };
        if let Some(layout) = Layout::by_names(text, number, first, options)? {
            return Ok(Some(layout));
        }
        let by_number = options.column.and_then(|column| column.parse::<usize>().ok());
        if let Some(column) = by_number.and_then(|number| number.checked_sub(1)) {
            let separator = Separator::of(first).unwrap_or(Separator::Spaces);
            let columns = Columns::Addresses(column);
            return Ok(Some(Layout { separator, header: None, columns }));
        }
        if let Some(column) = options.column {
            return Err(format!("no line names a column {column:?}, and it is no number"));
        }
        Layout::by_contents(text, first)
    }

    /// Finds the columns by the names in the first line, or in a comment before it.
    fn by_names(
        text: &str,
        number: usize,
        first: &str,
        options: &Options<'_>,
    ) -> Result<Option<Layout>, String> {
        let before = (1..).zip(text.lines().map(str::trim)).take(number - 1);
        let comments = before.map(|(at, line)| (at, line.trim_start_matches(['#', ';', ' '])));
        let named = |separator: Separator, line: &str| -> Vec<String> {
            let names = separator.fields(line).into_iter();
            names.map(str::to_ascii_lowercase).collect()
        };
        if let Some(column) = options.column.map(str::to_ascii_lowercase) {
            for (at, line) in comments.chain([(number, first)]) {
                let Some(separator) = Separator::of(line) else { continue };
                let index = named(separator, line).iter().position(|name| *name == column);
                // A comment that names a column stands right before the first row.
                let header = if at == number { Some(number) } else { None };
                if let Some(index) = index {
                    let separator = match header {
                        Some(_) => separator,
                        None => Separator::of(first).unwrap_or(separator),
                    };
                    let columns = Columns::Addresses(index);
                    return Ok(Some(Layout { separator, header, columns }));
                }
            }
            return Ok(None);
        }
        let Some(separator) = Separator::of(first) else { return Ok(None) };
        let is_other = line::is_tor(first) || line::sshguard(first).is_some();
        let mut words = first.split([' ', ',', '\t', '|', ';', '"']);
        let has_value = words.any(|word| is_address(word) || word.contains(['/', ':']));
        if is_other || line::dat(first).is_some() || has_value {
            return Ok(None);
        }
        let names = named(separator, first);
        let second = rows(text).nth(1).map(|(_, line)| line);
        // A header alone is one too; words alone are none.
        let is_table = second.is_none_or(|line| separator.fields(line).len() > 1);
        match by_name(&names)? {
            Some(columns) if is_table => {
                Ok(Some(Layout { separator, header: Some(number), columns }))
            }
            None if is_table && second.is_some() && separator != Separator::Spaces => Err(format!(
                "none of the columns {} is known to hold addresses; name one with --column",
                some_names(&names)
            )),
            _ => Ok(None),
        }
    }

    /// Finds the columns by what they hold.
    fn by_contents(text: &str, first: &str) -> Result<Option<Layout>, String> {
        let is_other = line::is_tor(first) || line::sshguard(first).is_some();
        if is_other
            || line::dat(first).is_some()
            || line::p2p(first).is_some()
            || first.starts_with('{')
        {
            return Ok(None);
        }
        let first_value = line::value(first);
        let separator = rows(text)
            .map(|(_, line)| line::value(line))
            .find_map(|line| if is_address(line) { None } else { Separator::of(line) });
        let Some(separator) = separator else { return Ok(None) };
        let fields = separator.fields(first_value);
        let table = |columns| Ok(Some(Layout { separator, header: None, columns }));
        match fields[..] {
            [start, end, bits, ..] if is_block(start, end, bits) => table(Columns::Range(0, 1)),
            [start, mask, ..] if length(start, mask).is_some() && mask.contains('.') => {
                table(Columns::Prefix(0, 1))
            }
            _ => {
                check_numbers(text, separator)?;
                match (separator, fields.first()) {
                    (Separator::Char(_), Some(first)) if is_address(first) => {
                        table(Columns::Addresses(0))
                    }
                    _ => Ok(None),
                }
            }
        }
    }
}

/// Finds the columns by their names.
fn by_name(names: &[String]) -> Result<Option<Columns>, String> {
    let find = |wanted: &str| names.iter().position(|name| name == wanted);
    let listed = || Some((find("ip")?, find("action")?, find("expiration")?));
    let columns = match (listed(), find("value"), find("duration")) {
        (Some((target, action, left)), ..) => Some((target, left, Some(action))),
        (None, Some(target), Some(left)) => Some((target, left, find("type"))),
        _ => None,
    };
    if let Some((target, left, action)) = columns {
        let (scope, reason, simulated) = (find("scope"), find("reason"), find("simulated"));
        let columns = CrowdSec { target, left, scope, action, reason, simulated };
        return Ok(Some(Columns::CrowdSec(columns)));
    }
    let range = RANGE_NAMES.iter().find_map(|(start, end)| Some((find(start)?, find(end)?)));
    if let Some((start, end)) = range {
        return Ok(Some(Columns::Range(start, end)));
    }
    let is_address_name = |(_, name): &(usize, &String)| ADDRESS_NAMES.contains(&name.as_str());
    let known: Vec<(usize, &String)> = names.iter().enumerate().filter(is_address_name).collect();
    match known[..] {
        [] => Ok(None),
        [(at, _)] => {
            let length = names.iter().position(|name| LENGTH_NAMES.contains(&name.as_str()));
            Ok(Some(length.map_or(Columns::Addresses(at), |length| Columns::Prefix(at, length))))
        }
        _ => {
            let names: Vec<&str> = known.iter().map(|(_, name)| name.as_str()).collect();
            Err(format!(
                "the columns {} all may hold addresses; name one with --column",
                names.join(", ")
            ))
        }
    }
}

/// Refuses a list whose second column may be the length of a prefix: every number fits the address
/// before it. A number of reports does not, but for a few addresses by chance.
fn check_numbers(text: &str, separator: Separator) -> Result<(), String> {
    let mut example = None;
    for (_, line) in rows(text) {
        let fields = separator.fields(line::value(line));
        let [address, number, ..] = fields[..] else { continue };
        let Some(prefix) = length(address, number) else { return Ok(()) };
        if prefix.size() != NetworkSize::V4(1) && prefix.size() != NetworkSize::V6(1) {
            example.get_or_insert_with(|| (cut(line), prefix));
        }
    }
    match example {
        Some((line, prefix)) => Err(format!(
            "{line:?} may mean {prefix} or one address; write {prefix}, or name the column with --column 1"
        )),
        None => Ok(()),
    }
}

/// Returns the prefix of an address and a length or netmask beside it, unless it has host bits.
fn length(address: &str, length: &str) -> Option<IpNetwork> {
    let address: IpAddr = address.parse().ok()?;
    let length = match length.parse::<Ipv4Addr>() {
        Ok(mask) if mask.octets()[0] >= 128 => ipnetwork::ipv4_mask_to_prefix(mask).ok()?,
        Ok(_) => return None,
        Err(_) => length.parse().ok().filter(|length| *length > 0)?,
    };
    let network = IpNetwork::new(address, length).ok()?;
    (network.network() == address).then_some(network)
}

/// Tells whether the addresses are the ends of a prefix of this length, as in DShield's list.
fn is_block(first: &str, last: &str, bits: &str) -> bool {
    let ends = || Some((first.parse::<IpAddr>().ok()?, last.parse::<IpAddr>().ok()?));
    let Some((first, last)) = ends() else { return false };
    let network = bits.parse().ok().and_then(|bits| IpNetwork::new(first, bits).ok());
    network.is_some_and(|block| (block.network(), block.broadcast()) == (first, last))
}

/// Reads a table, and returns its form in words.
pub(super) fn read(reader: &mut Reader<'_>, text: &str, layout: &Layout) -> String {
    for (number, line) in rows(text) {
        if Some(number) == layout.header {
            continue;
        }
        let line = if layout.separator == Separator::Char(';') { line } else { comment_cut(line) };
        let fields = layout.separator.fields(line);
        let at = At::Line(number);
        let result = match &layout.columns {
            Columns::Addresses(column) => {
                one(&fields, *column, layout.header.is_some(), reader.options)
            }
            Columns::Range(start, end) => {
                both(&fields, *start, *end).map(|(start, end)| format!("{start}-{end}"))
            }
            Columns::Prefix(address, bits) => {
                both(&fields, *address, *bits).map(|(address, bits)| format!("{address}/{bits}"))
            }
            Columns::CrowdSec(columns) => {
                crowdsec(reader, at, &fields, columns);
                continue;
            }
        };
        match result {
            Ok(text) => reader.addresses(at, &text, None),
            Err(problem) => reader.bad(at, format!("{:?} {problem}", cut(line))),
        }
    }
    match &layout.columns {
        Columns::Addresses(column) => format!("a table with addresses in column {}", column + 1),
        Columns::Range(start, end) => {
            format!("a table with ranges in columns {} and {}", start + 1, end + 1)
        }
        Columns::Prefix(address, bits) => {
            format!("a table with prefixes in columns {} and {}", address + 1, bits + 1)
        }
        Columns::CrowdSec(_) => "decisions of CrowdSec".to_owned(),
    }
}

/// Cuts a comment after the fields.
fn comment_cut(line: &str) -> &str {
    let comment = line.find(" #").or_else(|| line.find("\t#"));
    comment.and_then(|at| line.get(..at)).map_or(line, str::trim_end)
}

fn field<'a>(fields: &[&'a str], column: usize) -> Result<&'a str, String> {
    fields
        .get(column)
        .copied()
        .filter(|field| !field.is_empty())
        .ok_or_else(|| format!("has no column {}", column + 1))
}

fn both<'a>(fields: &[&'a str], one: usize, other: usize) -> Result<(&'a str, &'a str), String> {
    Ok((field(fields, one)?, field(fields, other)?))
}

/// Returns the field with the addresses. Unless a column was named, no other field may have some.
fn one(
    fields: &[&str],
    column: usize,
    has_names: bool,
    options: &Options<'_>,
) -> Result<String, String> {
    let text = field(fields, column)?;
    let is_chosen = options.column.is_some() || has_names;
    let others = fields.iter().enumerate().filter(|(at, _)| *at != column);
    if !is_chosen
        && others.into_iter().any(|(_, field)| is_address(field) || line::is_length(field))
    {
        return Err(
            "has two addresses, or a length apart; name the column with --column".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// Reads a decision.
fn crowdsec(reader: &mut Reader<'_>, at: At, fields: &[&str], columns: &CrowdSec) {
    let get = |column: usize| fields.get(column).copied().unwrap_or_default();
    let target = match columns.scope.map(get).filter(|scope| !scope.is_empty()) {
        Some(scope) => format!("{scope}:{}", get(columns.target)),
        None => get(columns.target).to_owned(),
    };
    let decision = Decision {
        target: &target,
        action: columns.action.map(get).unwrap_or_default(),
        left: get(columns.left),
        reason: columns.reason.map(get).unwrap_or_default(),
        is_simulated: columns.simulated.map(get) == Some("true"),
    };
    decision.read(reader, at);
}

/// A decision of CrowdSec.
pub(super) struct Decision<'a> {
    /// `Ip:192.0.2.1`, `Range:192.0.2.0/24`, or another scope; without one, it is an address.
    pub(super) target: &'a str,
    /// Empty: a ban.
    pub(super) action: &'a str,
    /// The time that is left, as Go writes it.
    pub(super) left: &'a str,
    pub(super) reason: &'a str,
    pub(super) is_simulated: bool,
}

impl Decision<'_> {
    pub(super) fn read(&self, reader: &mut Reader<'_>, at: At) {
        let is_word = |scope: &str| scope.bytes().all(|byte| byte.is_ascii_alphabetic());
        // The colons of an IPv6 address are none of a scope.
        let is_address = self.target.parse::<Addresses>().is_ok();
        let scoped = self.target.split_once(':').filter(|(scope, _)| is_word(scope) && !is_address);
        let (scope, value) = scoped.unwrap_or(("ip", self.target));
        if self.is_simulated {
            return reader.leave_out("simulated decisions");
        }
        if !["", "ban"].contains(&self.action) {
            return reader.leave_out("decisions other than bans");
        }
        if !["ip", "range"].contains(&scope.to_ascii_lowercase().as_str()) {
            return reader.leave_out("decisions about no addresses");
        }
        let Some(left) = go_milliseconds(self.left) else {
            return reader.bad(
                at,
                format!("{:?} is no time that is left; expected 3h59m30s", cut(self.left)),
            );
        };
        let details = Details {
            source: Some("crowdsec".to_owned()),
            reason: Some(self.reason.to_owned()),
            ..Details::default()
        };
        reader.timed(at, value, Some(left), details);
    }
}

/// Reads a time as Go writes it, `3h59m45.100387557s`, in milliseconds. It may be negative.
fn go_milliseconds(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut all = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, after) = rest.split_at(end);
        let units = [
            ("ms", 1.0),
            ("µs", 1e-3),
            ("us", 1e-3),
            ("ns", 1e-6),
            ("h", 3.6e6),
            ("m", 6e4),
            ("s", 1e3),
        ];
        let (unit, milliseconds) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        all += number.parse::<f64>().ok()? * milliseconds;
        rest = after.strip_prefix(unit)?;
    }
    // A ban that has less than a millisecond left is over.
    Some(sign * all as i128)
}
