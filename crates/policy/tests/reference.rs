//! `docs/policy.md` is the schema as a page, and its examples are policies.
//!
//! `UPDATE_GOLDEN=1` writes the page.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use nfguard_policy::{Policy, schema};
use serde_json::Value;

const INTRO: &str = "\
# The policy file

This page lists every key. It is made from [the schema](../policies/policy.schema.json), with which
editors complete keys. `UPDATE_GOLDEN=1 cargo test -p nfguard-policy` writes this page.

A policy is one JSON object. It may have comments (`// …` and `/* … */`) and trailing commas; everything
else is strict JSON. `nfguard check FILE` shows the place of every mistake, and what was probably meant.
Four rules hold everywhere:

- The kernel tries the rules in order. The first rule that matches a new connection decides. If no rule
  matches, `default` decides. An established connection continues.
- A key that a rule leaves out matches everything. A rule without addresses is for IPv4 and IPv6.
- A list matches if one of its elements matches. A rule matches if all its keys match.
- Each rule and each group has a unique name.
";

/// Each object of the language: its name in the schema, its heading, its place in the example, and the
/// example.
const SECTIONS: [(&str, &str, &str, &str); 11] = [
    ("", "The policy", "", include_str!("reference/policy.json")),
    ("DefaultsFile", "`default`", "/default", include_str!("reference/default.json")),
    ("groups", "`groups`", "/groups", include_str!("reference/groups.json")),
    ("builtin", "`builtin`", "/builtin", include_str!("reference/builtin.json")),
    ("ContainersFile", "`containers`", "/containers", include_str!("reference/containers.json")),
    ("LogFile", "`log`", "/log", include_str!("reference/log.json")),
    ("RateFile", "`rate` of a log", "/log/rate", include_str!("reference/log.json")),
    ("ScanFile", "`scan`", "/scan", include_str!("reference/scan.json")),
    ("RuleFile", "A rule", "/rules/*", include_str!("reference/rules.json")),
    ("LimitFile", "`limit` of a rule", "/rules/*/limit", include_str!("reference/limit.json")),
    ("RuleLogFile", "`log` of a rule", "/rules/*/log", include_str!("reference/rule-log.json")),
];

/// Values that many keys have: their names in the schema.
const VALUES: [&str; 6] = ["peer", "prefix", "port", "protocol", "icmp-type", "interface"];

/// The most words that a cell of a table lists without an introduction.
const MAX_WORDS: usize = 5;

fn reference(schema: &Value) -> String {
    let mut page = INTRO.to_owned();
    for (at, (name, heading, _, example)) in SECTIONS.iter().enumerate() {
        let object = definition(schema, name);
        let _ = write!(page, "\n## {heading}\n\n");
        if let Some(about) = object["description"].as_str() {
            let _ = write!(page, "{about}\n\n");
        }
        match object["properties"].as_object() {
            Some(keys) => page += &table(schema, object, keys),
            None => {
                let [name, of] = [&object["propertyNames"], &object["additionalProperties"]];
                let name = name["pattern"].as_str().expect("a pattern");
                let of = kind(schema, of);
                let _ =
                    writeln!(page, "Each key is a name that matches `{name}`; its value is {of}.");
            }
        }
        let is_shown = SECTIONS.iter().take(at).any(|(.., shown)| shown == example);
        if !is_shown {
            let _ = write!(page, "\n```json\n{example}```\n");
        }
    }
    page += "\n## Values\n";
    for name in VALUES {
        let value = definition(schema, name);
        let about = value["description"].as_str().expect("a description");
        let (title, forms) = (first_upper(&title(name)), first_upper(&kind_here(schema, value)));
        let _ = write!(page, "\n### {title}\n\n{about}\n\n{forms}.\n");
    }
    page
}

fn definition<'s>(schema: &'s Value, name: &str) -> &'s Value {
    if name.is_empty() { schema } else { &schema["definitions"][name] }
}

fn table(schema: &Value, object: &Value, keys: &serde_json::Map<String, Value>) -> String {
    let required = object["required"].as_array();
    let is_required = |key: &str| required.is_some_and(|all| all.iter().any(|it| it == key));
    let mut table = "| Key | Value | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    let (first, then): (Vec<_>, Vec<_>) = keys.iter().partition(|(key, _)| is_required(key));
    for (key, value) in first.into_iter().chain(then) {
        let default = match value.get("default") {
            Some(default) => format!("`{default}`"),
            None if is_required(key) => "must be given".to_owned(),
            None => String::new(),
        };
        let about = value["description"].as_str().expect("each key has a description");
        let words = words(schema, value).map(|words| format!(" {words}")).unwrap_or_default();
        let kind = kind(schema, value);
        let _ = writeln!(table, "| `{key}` | {kind} | {default} | {about}{words} |");
    }
    table
}

/// Returns the description of an enum's words.
fn words<'s>(schema: &'s Value, value: &Value) -> Option<&'s str> {
    let name = name(&value["allOf"][0])?;
    let target = definition(schema, name);
    target.get("enum")?;
    target["description"].as_str()
}

fn name(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.strip_prefix("#/definitions/")
}

/// Returns what a value can be, with a link to its section.
fn kind(schema: &Value, value: &Value) -> String {
    let Some(name) = name(value) else { return kind_here(schema, value) };
    if VALUES.contains(&name) {
        return format!("[{}](#{})", title(name), anchor(&title(name)));
    }
    let section = SECTIONS.iter().find(|(section, ..)| *section == name);
    if let Some((_, heading, ..)) = section {
        return format!("[an object](#{})", anchor(heading));
    }
    kind_here(schema, definition(schema, name))
}

fn kind_here(schema: &Value, value: &Value) -> String {
    let list = |key: &str| value[key].as_array().map(Vec::as_slice);
    if let Some([one]) = list("allOf") {
        return kind(schema, one);
    }
    if let Some([one, list]) = list("anyOf")
        && list["items"] == *one
    {
        return format!("{}, or a list of them", kind(schema, one));
    }
    if let Some(several) = list("anyOf") {
        let kinds: Vec<_> = several.iter().map(|one| kind(schema, one)).collect();
        return kinds.join("; or ");
    }
    if let Some(words) = list("enum") {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        return match words.len() {
            ..=MAX_WORDS => words.join(" or "),
            _ => format!("one of {}", words.join(", ")),
        };
    }
    if let Some(one) = value.get("const") {
        return format!("`{one}`");
    }
    let number = |key: &str| value[key].as_u64();
    match value["type"].as_str() {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("array") => format!("a list of {}", kind(schema, &value["items"])),
        Some("integer") => match (number("minimum"), number("maximum")) {
            (Some(low), Some(high)) => format!("a number from {low} to {high}"),
            other => panic!("a number without bounds: {other:?}"),
        },
        Some("string") => match (value["pattern"].as_str(), value["examples"].as_array()) {
            (_, Some(examples)) => {
                let examples: Vec<_> = examples.iter().map(|it| format!("`{it}`")).collect();
                format!("text like {}", examples.join(", "))
            }
            (Some(pattern), None) if value.get("maxLength").is_none() => {
                format!("text that matches `{pattern}`")
            }
            _ => "text".to_owned(),
        },
        Some("object") => {
            let keys = value["properties"].as_object().into_iter().flatten();
            let keys: Vec<_> =
                keys.map(|(key, of)| format!("`{key}`: {}", kind(schema, of))).collect();
            format!("an object with {}", keys.join(" and "))
        }
        other => panic!("nothing is known of the type {other:?}"),
    }
}

fn title(name: &str) -> String {
    match name {
        "icmp-type" => "an ICMP type".to_owned(),
        "interface" => "an interface".to_owned(),
        other => format!("a {other}"),
    }
}

/// Returns the anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || " -".contains(*it));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn first_upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|it| it.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[test]
fn the_reference_in_the_documentation_is_made_of_the_schema() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    let page = reference(&schema);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &page).expect("is writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run again with UPDATE_GOLDEN=1 to write docs/policy.md");
}

/// Returns the values at a path in which `*` stands for each element.
fn places<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in path.split('/').skip(1) {
        found = found
            .into_iter()
            .flat_map(|value| match step {
                "*" => value.as_array().into_iter().flatten().collect(),
                key => value.get(key).into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    found
}

#[test]
fn each_example_is_a_policy_and_shows_every_key_of_its_section() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    for (name, heading, path, example) in SECTIONS {
        let (_, warnings) =
            Policy::parse(example).unwrap_or_else(|problems| panic!("{heading}: {problems:#?}"));
        assert_eq!(warnings, [], "{heading}");
        let example: Value = serde_json::from_str(example).expect("JSON");
        let places = places(&example, path);
        assert!(!places.is_empty(), "{heading}");
        let keys = definition(&schema, name)["properties"].as_object();
        for key in keys.into_iter().flat_map(|keys| keys.keys()) {
            let is_shown = places.iter().any(|place| place.get(key).is_some());
            assert!(is_shown, "{heading}: the example has no {key:?}");
        }
    }
}

#[test]
fn everything_that_the_schema_defines_has_its_place_on_the_page() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    let page = reference(&schema);
    let all = schema["definitions"].as_object().expect("definitions");
    for (name, definition) in all {
        let Some(keys) = definition["properties"].as_object() else { continue };
        // An object with a single key is described where it is used.
        let is_there = SECTIONS.iter().any(|(section, ..)| section == name) || keys.len() == 1;
        assert!(is_there, "no section for {name}");
        for key in keys.keys() {
            assert!(page.contains(&format!("`{key}`")), "{name}: {key}");
        }
    }
    // Its links lead somewhere.
    let headings: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| anchor(line.trim_start_matches(['#', ' '])))
        .collect();
    let links: Vec<_> =
        page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 20, "{links:?}");
    let lost: Vec<_> = links.iter().filter(|link| !headings.iter().any(|it| it == *link)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
