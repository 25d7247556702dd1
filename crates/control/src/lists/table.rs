//! Lists with columns: which of them has the addresses.
//!
//! The names in the first line decide, or `--column`. Without either, the first column has to hold the
//! addresses, and no other column any. What could be the end of a range or the length of a prefix is
//! never left out in silence.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, NetworkSize};
use nfguard_ban::Addresses;

use super::crowdsec::Decision;
use super::{At, Options, Reader, cut, is_comment, line, some_names};

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
            [start, mask, ..]
                if start.parse::<IpAddr>().is_ok()
                    && mask.contains('.')
                    && bits(mask).is_some() =>
            {
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

/// No list has a prefix of fewer bits with an address of a host inside it; a count of reports often is
/// as small.
const MIN_BITS_BESIDE_HOST: u32 = 16;

/// Refuses a list whose second column may be the length of a prefix. A number that is too large for a
/// length proves that it is none.
fn check_numbers(text: &str, separator: Separator) -> Result<(), String> {
    let (mut prefix, mut beside_host, mut is_count) = (None, None, false);
    for (_, line) in rows(text) {
        let fields = separator.fields(line::value(line));
        let [address, number, ..] = fields[..] else { continue };
        let (Ok(address), Some(bits)) = (address.parse::<IpAddr>(), bits(number)) else { continue };
        let Some(network) = prefix_of(address, bits) else { return Ok(()) };
        let is_one = [NetworkSize::V4(1), NetworkSize::V6(1)].contains(&network.size());
        if network.network() == address {
            prefix = prefix.or((!is_one).then(|| (cut(line), network)));
        } else if bits < MIN_BITS_BESIDE_HOST {
            is_count = true;
        } else {
            beside_host = beside_host.or(Some((cut(line), network)));
        }
    }
    match prefix.or(beside_host.filter(|_| !is_count)) {
        Some((line, prefix)) => Err(format!(
            "{line:?} may mean {prefix} or one address; write {prefix}, or name the column with --column 1"
        )),
        None => Ok(()),
    }
}

/// Returns the number of bits that a length or a netmask names.
fn bits(text: &str) -> Option<u32> {
    match text.parse::<Ipv4Addr>() {
        Ok(mask) => {
            ipnetwork::ipv4_mask_to_prefix(mask).ok().filter(|bits| *bits > 0).map(u32::from)
        }
        Err(_) => text.parse().ok().filter(|bits| *bits > 0),
    }
}

/// Returns the prefix of this length that an address is in.
fn prefix_of(address: IpAddr, bits: u32) -> Option<IpNetwork> {
    let around = IpNetwork::new(address, u8::try_from(bits).ok()?).ok()?;
    IpNetwork::new(around.network(), around.prefix()).ok()
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
