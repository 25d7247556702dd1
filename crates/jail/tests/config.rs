//! `jails.json`: mistakes, the schema, the reference page, and the built-in jails.
//!
//! `UPDATE_GOLDEN=1` writes the expected problems, the schema and the page.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use nfguard_jail::{Config, Jail, builtin, schema};
use serde_json::{Map, Value};

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Compares a text with a file, or writes it.
fn assert_golden(path: &Path, text: &str) {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, text).expect("is writable");
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(written == text, "{} is not\n{text}\nUPDATE_GOLDEN=1 writes it", path.display());
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    for name in ["values", "meaning", "syntax"] {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let problems = Config::parse(&text).unwrap_err();
        let told: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        assert_golden(&folder.join(format!("{name}.txt")), &told);
    }
}

#[test]
fn a_built_in_jail_is_a_jail_that_a_file_can_say() {
    for name in builtin::names() {
        let config = Config::builtin(&[name]).unwrap();
        assert_eq!(config.jails().iter().map(Jail::name).collect::<Vec<_>>(), [name]);
        let said = format!("{{\"version\":1,\"jails\":[{}]}}", builtin::text(name).unwrap());
        let (said, warnings) =
            Config::parse(&said).unwrap_or_else(|bad| panic!("{name}: {bad:#?}"));
        assert!(warnings.is_empty() && said.jails().len() == 1, "{name}");
    }
    let unknown = Config::builtin(&["traefik-aut"]).unwrap_err().to_string();
    assert!(unknown.contains("did you mean \"traefik-auth\"?"), "{unknown}");
}

#[test]
fn the_smallest_useful_file_and_that_of_the_example_are_valid() {
    let smallest = r#"{"version":1,"jails":[
        {"use":"traefik-auth","log":"/var/log/traefik/access.log"},{"use":"sshd"}]}"#;
    let example = fs::read_to_string(repository("policies/traefik-jails.json")).unwrap();
    for text in [smallest, &example] {
        let (config, warnings) = Config::parse(text).unwrap_or_else(|bad| panic!("{bad:#?}"));
        assert_eq!((config.jails().len(), warnings.len()), (2, 0));
    }
}

#[test]
fn schema_and_reference_are_those_of_the_code() {
    assert_golden(&repository("policies/jails.schema.json"), &schema());
    assert_golden(&repository("docs/jails.md"), &page());
}

const INTRO: &str = include_str!("reference/intro.md");

/// Objects of the file: their names in the schema, and their headings.
const SECTIONS: [(&str, &str); 7] = [
    ("", "The file"),
    ("JailFile", "A jail"),
    ("Fail2banFile", "`use` with a filter of Fail2Ban"),
    ("LogFile", "`log`"),
    ("JournalFile", "`journal` of a log"),
    ("EvidenceFile", "`evidence`"),
    ("AgainFile", "`again`"),
];

fn page() -> String {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    let mut page = INTRO.to_owned();
    for (name, heading) in SECTIONS {
        let object = if name.is_empty() { &schema } else { &schema["definitions"][name] };
        let about = object["description"].as_str().expect("a description");
        let _ = write!(page, "\n## {heading}\n\n{about}\n\n");
        page += "| Key | Value | Default | Meaning |\n|---|---|---|---|\n";
        for (key, value) in object["properties"].as_object().expect("keys") {
            let default = value.get("default").map(|it| format!("`{it}`")).unwrap_or_default();
            let about = value["description"].as_str().expect("a description");
            let _ = writeln!(page, "| `{key}` | {} | {default} | {about} |", kind(&schema, value));
        }
    }
    page += "\n## Values\n\n| Value | Meaning |\n|---|---|\n";
    let definitions = schema["definitions"].as_object().expect("definitions");
    for (name, value) in definitions {
        if let Some(about) = value["description"].as_str()
            && value.get("properties").is_none()
        {
            let _ = writeln!(page, "| {name} | {about}{} |", words(value));
        }
    }
    page += "\n## Built-in jails\n\n| Name | Meaning |\n|---|---|\n";
    for name in builtin::names() {
        let jail: Value = serde_json::from_str(builtin::text(name).expect("a jail")).expect("JSON");
        let _ = writeln!(page, "| `{name}` | {} |", jail["comment"].as_str().expect("a comment"));
    }
    page
}

fn words(value: &Value) -> String {
    let words = value["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    if words.is_empty() { String::new() } else { format!(" One of {}.", words.join(", ")) }
}

/// Returns what a value can be.
fn kind(schema: &Value, value: &Value) -> String {
    if let Some(name) = value["$ref"].as_str().and_then(|it| it.strip_prefix("#/definitions/")) {
        if let Some((_, heading)) = SECTIONS.iter().find(|(section, _)| *section == name) {
            let kept = heading.chars().filter(|it| it.is_alphanumeric() || *it == ' ');
            let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
            return format!("[an object](#{anchor})");
        }
        let target = &schema["definitions"][name];
        return match target["description"] {
            Value::String(_) => format!("[{name}](#values)"),
            _ => kind(schema, target),
        };
    }
    if let Some([one]) = value["allOf"].as_array().map(Vec::as_slice) {
        return kind(schema, one);
    }
    if let Some(several) = value["anyOf"].as_array() {
        let kinds: Vec<String> = several.iter().map(|one| kind(schema, one)).collect();
        return kinds.join(" or ");
    }
    if let Some(one) = value.get("const") {
        return format!("`{one}`");
    }
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    match (object.get("type").and_then(Value::as_str), value.get("items")) {
        (Some("array"), Some(items)) => format!("a list of {}", kind(schema, items)),
        (Some("integer" | "number"), _) => {
            format!("a number from {} to {}", value["minimum"], value["maximum"])
        }
        _ => "text".to_owned(),
    }
}
