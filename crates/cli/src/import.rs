//! The verb: files in, a policy file out.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

use super::assemble::Refusal;
use super::{Config, Import, Text, settings, ufw};
use crate::args::UfwRequest;
use crate::failure::Failure;
use crate::state::replace;
use crate::{Answer, Done, output};

pub(crate) fn run(request: &UfwRequest, as_json: bool) -> Done {
    let config = read(request)?;
    let import = ufw(&config, !request.no_containers).map_err(|refusal| match refusal {
        Refusal::Input(message) => Failure::Usage(message),
        Refusal::Policy(problems) => {
            Failure::Policy(request.folder.display().to_string(), problems)
        }
    })?;
    let output = request.output.as_deref().filter(|path| *path != Path::new(output::STANDARD));
    if let Some(path) = output {
        replace(path, import.text.as_bytes()).map_err(Failure::file(path))?;
    }
    let Import { text, rules, findings } = import;
    if as_json {
        let policy: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut answer = json!({
            "policy": policy,
            "rules": rules,
            "not_carried_over": findings.lost,
            "notes": findings.notes,
        });
        if let Some(path) = output {
            answer["file"] = json!(path.display().to_string());
        }
        output::json(&answer);
    } else {
        for note in &findings.notes {
            output::warning(&format!("note: {note}"));
        }
        for lost in &findings.lost {
            output::warning(&format!("not carried over: {lost}"));
        }
        match output {
            Some(path) => output::line(&format!("{}: {rules} rules", path.display())),
            None => output::line(text.trim_end()),
        }
    }
    Ok(Answer::from(findings.lost.is_empty()))
}

fn read(request: &UfwRequest) -> Result<Config, Failure> {
    let folder = &request.folder;
    let beside = || folder.parent().unwrap_or(Path::new("/")).join("default/ufw");
    let defaults = text(&request.defaults.clone().unwrap_or_else(beside))?;
    let is_off = |(_, word): (usize, String)| !word.eq_ignore_ascii_case("yes");
    let without_v6 = settings::value(&defaults, "IPV6").is_some_and(is_off);
    let family = |name: &str| -> Result<[Text; 2], Failure> {
        let v6 = folder.join(format!("{name}6.rules"));
        // UFW does not read it then.
        let v6 = if without_v6 { Text::default() } else { text(&v6)? };
        Ok([text(&folder.join(format!("{name}.rules")))?, v6])
    };
    let sysctl = settings::value(&defaults, "IPT_SYSCTL").map(|(_, path)| path);
    Ok(Config {
        conf: text(&folder.join("ufw.conf"))?,
        user: family("user")?,
        before: family("before")?,
        after: family("after")?,
        sysctl: sysctl
            .and_then(|path| Path::new(&path).file_name().map(|name| folder.join(name)))
            .and_then(|path| text(&path).ok()),
        profiles: profiles(&folder.join("applications.d"))?,
        scripts: ["before.init", "after.init"]
            .map(|name| folder.join(name))
            .iter()
            .filter(|path| is_executable(path))
            .map(|path| path.display().to_string())
            .collect(),
        defaults,
    })
}

/// Comments may be in any encoding.
fn text(path: &Path) -> Result<Text, Failure> {
    Ok(Text { name: path.display().to_string(), text: output::read_list(path)? })
}

/// In the order in which UFW reads them: of two profiles of one name the last counts.
fn profiles(folder: &Path) -> Result<Vec<Text>, Failure> {
    const LEFT_OUT: [&str; 6] =
        [".dpkg-new", ".dpkg-old", ".dpkg-dist", ".rpmnew", ".rpmsave", "~"];
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Failure::file(folder))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(Failure::file(folder))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_left_out = LEFT_OUT.iter().any(|end| name.ends_with(end));
        path.is_file() && !name.starts_with('.') && !is_left_out
    });
    paths.sort();
    paths.iter().map(|path| text(path)).collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}
