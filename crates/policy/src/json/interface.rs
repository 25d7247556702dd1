//! Names of interfaces: their reading, what was probably meant by a wrong one, and their schema.
//!
//! The kernel gives an interface any name of at most 15 bytes without white space, `/` and `:`. Names
//! with other marks do not occur, but such texts do: they are the wildcards, lists and negations of
//! other programs, or copies of what `ip link` prints. As a name, such a text would be valid and never
//! match. So a name has only letters, digits and a few marks.

use ipnetwork::IpNetwork;
use schemars::json_schema;

use crate::json::document::{Pointer, Problems};
use crate::json::reader::{FromJson, Node, schema, shown};
use crate::json::suggest::quoted;
use crate::policy::Interface;

const EXPECTED: &str = "an interface's name of at most 15 bytes, or its beginning and \"*\"";

/// Longest name of an interface in the kernel, in bytes.
const MAX_NAME_BYTES: usize = 15;

/// The marks that a name has besides letters and digits.
const MARKS: &str = "._-~=#&";

/// Words by which other programs mean every interface. The kernel keeps two of them for its settings.
const EVERY_INTERFACE: [&str; 5] = ["*", "+", "any", "all", "default"];

impl FromJson for Interface {
    fn from_json(node: Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text(problems, EXPECTED)?;
        let parsed = parse(text);
        if parsed.is_none() {
            let (why, meant) = explain(text);
            let names: Vec<String> = meant.iter().map(|name| quoted(name)).collect();
            let suggestion = match names.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                all if matches!(node.pointer, Pointer::Index(..)) => Some(all.join(", ")),
                all => Some(format!("[{}]", all.join(", "))),
            };
            let message = format!("found {}; expected {EXPECTED}: {why}", shown(text));
            node.error_suggesting(problems, message, suggestion);
        }
        parsed
    }
}

schema!(Interface as "interface": |_| {
    json_schema!({
        "description": "An interface's name, or its beginning and `*`. An alternative name (`altname`) \
                        of an interface does not match.",
        "type": "string",
        "pattern": "^[A-Za-z0-9._~=#&-]{1,15}\\*?$",
        "not": { "enum": EVERY_INTERFACE },
        "examples": ["eth0", "wg*"],
    })
});

fn parse(text: &str) -> Option<Interface> {
    let (name, wildcard) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.chars().all(is_name_char)
        && !matches!(text, "." | "..")
        && !means_every_interface(text)
        && text.parse::<IpNetwork>().is_err();
    fits.then(|| Interface { name: name.to_owned(), wildcard })
}

fn means_every_interface(text: &str) -> bool {
    EVERY_INTERFACE.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn is_name_char(found: char) -> bool {
    found.is_ascii_alphanumeric() || MARKS.contains(found)
}

/// Says why a text is no name, and which names were probably meant.
fn explain(text: &str) -> (String, Vec<String>) {
    let bare = text.trim_matches(|found: char| found.is_whitespace() || "\"'`".contains(found));
    let one = |name: &str| parse(name).map(|_| name.to_owned()).into_iter().collect::<Vec<_>>();
    let because = |why: &str, meant| (why.to_owned(), meant);
    if bare.is_empty() {
        return because("it is empty", Vec::new());
    }
    if means_every_interface(bare) {
        return because("to match any interface, leave the key out", Vec::new());
    }
    if bare != text && parse(bare).is_some() {
        return because("it has quotes or white space around it", one(bare));
    }
    if bare.starts_with(['!', '^']) || bare.starts_with("not ") {
        let why =
            "a rule cannot exclude an interface; write a rule for that interface before this one";
        return because(why, Vec::new());
    }
    if bare.parse::<IpNetwork>().is_ok() {
        return because("it is an address; use \"from\" or \"to\"", Vec::new());
    }
    if let Some((start, _)) = bare.split_once(['[', '{', '?', '%']) {
        return because("the only wildcard is one \"*\" at the end", one(&format!("{start}*")));
    }
    let is_between = |found: char| found.is_whitespace() || ",;|".contains(found);
    let parts: Vec<&str> = bare.split(is_between).filter(|part| !part.is_empty()).collect();
    if let [_, _, ..] = parts.as_slice() {
        let names = parts.iter().map(|part| match parse(part) {
            Some(_) => Some((*part).to_owned()),
            None => explain(part).1.into_iter().next(),
        });
        let why = "several interfaces are an array of names";
        return because(why, names.collect::<Option<_>>().unwrap_or_default());
    }
    if let Some((name, _)) = bare.split_once('@') {
        return because("`ip link` prints the name before the \"@\"", one(name));
    }
    if let Some(start) = bare.strip_suffix('+') {
        return because("the wildcard of iptables is \"*\" here", one(&format!("{start}*")));
    }
    if let Some((start, _)) = bare.split_once('*') {
        return because("the only wildcard is one \"*\" at the end", one(&format!("{start}*")));
    }
    if let Some((name, _)) = bare.split_once(':') {
        let why = "a name has no \":\"; what stands behind it is the label of an address, which \
                   \"from\" and \"to\" match";
        return because(why, one(name));
    }
    match bare.chars().find(|found| !is_name_char(*found)) {
        Some(found) => (format!("the character {found:?} is not allowed"), Vec::new()),
        None if bare.len() > MAX_NAME_BYTES => (format!("it has {} bytes", bare.len()), Vec::new()),
        None => because("the kernel refuses it", Vec::new()),
    }
}
