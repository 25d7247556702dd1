//! `jail`: tests, checks and shows jails.

mod expect;
mod report;
mod test;

use std::path::Path;

use nfguard_control::{Error, input};
use nfguard_jail::{Config, Problem, builtin};
use serde_json::{Value, json};

use crate::args::JailVerb;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

pub(crate) fn jail(verb: &JailVerb, as_json: bool) -> Done {
    match verb {
        JailVerb::Test(request) => test::test(request, as_json),
        JailVerb::Check { file } => check(file, as_json),
        JailVerb::Show { name } => show(name.as_deref(), as_json),
    }
}

/// Reads a file of jails, with its warnings.
fn read(path: &Path) -> Result<(Config, Vec<Problem>), Failure> {
    let text = input::read(path)?;
    Config::parse_with(&text, &mut read_filter)
        .map_err(|problems| Failure::Control(Error::Policy(path.display().to_string(), problems)))
}

/// Reads a filter of Fail2Ban, or a file that it includes.
fn read_filter(path: &str) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn check(path: &Path, as_json: bool) -> Done {
    let (config, warnings) = read(path)?;
    let name = path.display().to_string();
    output::problems(&name, &warnings, as_json);
    if !as_json {
        output::line(&format!("{name}: valid, {} jails", config.jails().len()));
    }
    Ok(Answer::Yes)
}

fn show(name: Option<&str>, as_json: bool) -> Done {
    let Some(name) = name else {
        let jails: Vec<Value> = builtin::names().filter_map(parsed).collect();
        if as_json {
            output::json(&json!({ "jails": jails }));
            return Ok(Answer::Yes);
        }
        for jail in &jails {
            let text = |key: &str| jail[key].as_str().unwrap_or_default().to_owned();
            output::line(&format!("{:<18} {}", text("name"), text("comment")));
        }
        return Ok(Answer::Yes);
    };
    Config::builtin(&[name]).map_err(|unknown| Failure::Usage(unknown.to_string()))?;
    // A file of jails is JSON in any case. As it was written: its keys in the order in which they are explained.
    let text = builtin::text(name).unwrap_or_default();
    let indented: Vec<String> = text.lines().map(|line| format!("    {line}")).collect();
    output::lines(&format!(
        "{{\n  \"version\": 1,\n  \"jails\": [\n{}\n  ]\n}}",
        indented.join("\n")
    ));
    Ok(Answer::Yes)
}

fn parsed(name: &str) -> Option<Value> {
    serde_json::from_str(builtin::text(name)?).ok()
}
