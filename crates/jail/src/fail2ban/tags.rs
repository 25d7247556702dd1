//! Puts expressions in the place of tags such as `<HOST>` and `<F-USER>`.

/// An IPv4 address, also as IPv6 writes it. What looks like one is judged by who uses it.
const IP4: &str = r"(?:::(?i:ffff):)?(?P<ip4>[0-9]{1,3}(?:[.][0-9]{1,3}){3})";
/// An IPv6 address.
const IP6: &str = r"(?P<ip6>(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f]{0,4})";
/// The name of a host: labels with points between them. It is never looked up.
const DNS: &str = r"(?P<dns>[\w-]+(?:[.][\w-]+)*)";
/// The length of a prefix.
const CIDR: &str = "(?P<cidr>[0-9]{1,3})";
/// An identifier: whatever has no blank in it.
const ID: &str = r"(?P<fid>[^\s]+)";
/// A port, by its number or its name.
const PORT: &str = "(?P<fport>[0-9A-Za-z_-]+)";

/// The beginning of the names of groups for the lines that stand between those of a match.
const GAP: &str = "gap_";

/// Tells whether the group of this name is for lines that stand between those of a match.
pub(super) fn is_gap(name: &str) -> bool {
    name.starts_with(GAP)
}

/// Replaces the tags in an expression. Tags that have no meaning stay as they are.
pub(super) fn expand(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 128);
    let mut rest = expression;
    let mut gaps = 0;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find('>').unwrap_or(0);
        let tag = rest.get(1..end).unwrap_or_default();
        let replacement = if tag == "SKIPLINES" {
            // As few whole lines as may be, and then the line break before the line that goes on.
            gaps += 1;
            Some(format!(r"(?P<{GAP}{gaps}>(?:\n[^\n]*)*?)\n"))
        } else if out.ends_with("(?P") || out.ends_with("(?") {
            None
        } else {
            standard(tag).or_else(|| free(tag))
        };
        match replacement {
            Some(replacement) => {
                out.push_str(&replacement);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Returns what looks like a tag of an option, such as `<mdre-extra>`, where each tag that an option gives
/// has been replaced.
pub(super) fn not_given(expression: &str) -> impl Iterator<Item = &str> {
    expression.match_indices('<').filter_map(|(at, _)| {
        let end = at + expression[at..].find('>')? + 1;
        let name = &expression[at + 1..end - 1];
        let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte));
        let is_group = expression[..at].ends_with("(?P") || expression[..at].ends_with("(?");
        (is_name && !is_group).then(|| &expression[at..end])
    })
}

/// Returns the expression of `<HOST>`, `<F-ADDR/>` and the like.
fn standard(tag: &str) -> Option<String> {
    let name = match tag.strip_prefix("F-") {
        Some(name) => name.strip_suffix('/').filter(|name| *name != "HOST")?,
        None => tag,
    };
    Some(match name {
        "HOST" => format!(r"(?:\[?(?:{IP4}|{IP6})\]?|{DNS})"),
        "ADDR" => format!(r"\[?(?:{IP4}|{IP6})\]?"),
        "SUBNET" => format!(r"\[?(?:{IP4}|{IP6})(?:/{CIDR})?\]?"),
        "IP4" => IP4.to_owned(),
        "IP6" => IP6.to_owned(),
        "DNS" => DNS.to_owned(),
        "CIDR" => CIDR.to_owned(),
        "ID" if tag.starts_with("F-") => ID.to_owned(),
        "PORT" if tag.starts_with("F-") => PORT.to_owned(),
        _ => return None,
    })
}

/// Returns the beginning of a group for `<F-NAME>`, and its end for `</F-NAME>`.
fn free(tag: &str) -> Option<String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    if tag.strip_prefix("/F-").is_some_and(is_name) {
        return Some(")".to_owned());
    }
    let name = tag.strip_prefix("F-").filter(|name| is_name(name))?;
    Some(match name {
        "ID" => "(?P<fid>".to_owned(),
        "PORT" => "(?P<fport>".to_owned(),
        _ => format!("(?P<{}>", name.to_ascii_lowercase()),
    })
}
