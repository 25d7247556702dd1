//! `import ufw`: reads UFW's files, writes a policy file.

pub(crate) mod fail2ban;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nfguard_control::Error;
use nfguard_control::input::STANDARD;
use nfguard_control::saved_bans::replace;
use nfguard_netlink::{ForeignTable, Nft, PerIpVersion, Published};
use nfguard_policy::{TABLE, keep_comments};
use nfguard_ufw::{ContainerBridges, ImportError, SourceFile, UfwConfig};
use serde_json::{Value, json};

use crate::args::UfwRequest;
use crate::input;
use crate::output::failure::Failure;
use crate::output::{self, Answer, Done};

/// Endings of files in `applications.d` that UFW does not read.
const IGNORED_ENDINGS: [&str; 6] =
    [".dpkg-new", ".dpkg-old", ".dpkg-dist", ".rpmnew", ".rpmsave", "~"];

pub(crate) fn import(request: &UfwRequest, as_json: bool) -> Done {
    let config = read_config(request)?;
    let bridges =
        if request.no_containers { ContainerBridges::Absent } else { ContainerBridges::Docker };
    let import = nfguard_ufw::import(&config, bridges).map_err(|error| match error {
        ImportError::Policy(problems) => {
            Error::Policy(request.folder.display().to_string(), problems).into()
        }
        error => Failure::Usage(error.to_string()),
    })?;
    let output = request.output.as_deref().filter(|path| *path != Path::new(STANDARD));
    if let Some(path) = output {
        // A policy that is replaced may have comments.
        let old = nfguard_control::input::read(path).unwrap_or_default();
        let text = keep_comments(&old, &import.policy);
        replace(path, text.as_bytes()).map_err(Failure::file(path))?;
    }
    if as_json {
        let policy: Value = serde_json::from_str(&import.policy).unwrap_or_default();
        let mut answer = json!({
            "policy": policy,
            "rules": import.rules,
            "not_carried_over": import.not_carried_over,
            "notes": import.notes,
        });
        if let Some(path) = output {
            answer["file"] = json!(path.display().to_string());
        }
        output::json(&answer);
    } else {
        for note in &import.notes {
            output::warning(&format!("note: {note}"));
        }
        for missing in &import.not_carried_over {
            output::warning(&format!("not carried over: {missing}"));
        }
        match output {
            Some(path) => output::line(&format!("{}: {} rules", path.display(), import.rules)),
            None => output::lines(import.policy.trim_end()),
        }
    }
    Ok(Answer::from(import.not_carried_over.is_empty()))
}

fn read_config(request: &UfwRequest) -> Result<UfwConfig, Failure> {
    let folder = &request.folder;
    let beside = || folder.parent().unwrap_or(Path::new("/")).join("default/ufw");
    let defaults = read_file(&request.defaults.clone().unwrap_or_else(beside))?;
    let without_v6 = nfguard_ufw::ipv6_is_off(&defaults);
    let per_version = |name: &str| -> Result<PerIpVersion<SourceFile>, Failure> {
        let v6 = folder.join(format!("{name}6.rules"));
        // UFW reads none of these files without IPv6, and starts without its own rules for IPv6.
        let is_absent = without_v6 || name == "user" && !v6.exists();
        let text = if is_absent { String::new() } else { input::read_list(&v6)? };
        let v6 = SourceFile { name: v6.display().to_string(), text };
        Ok(PerIpVersion { v4: read_file(&folder.join(format!("{name}.rules")))?, v6 })
    };
    Ok(UfwConfig {
        conf: read_file(&folder.join("ufw.conf"))?,
        user_rules: per_version("user")?,
        before_rules: per_version("before")?,
        after_rules: per_version("after")?,
        sysctl: nfguard_ufw::sysctl_path(&defaults)
            .and_then(|path| Path::new(&path).file_name().map(|name| folder.join(name)))
            .and_then(|path| read_file(&path).ok()),
        profiles: read_profiles(&folder.join("applications.d"))?,
        scripts: ["before.init", "after.init"]
            .map(|name| folder.join(name))
            .iter()
            .filter(|path| is_executable(path))
            .map(|path| path.display().to_string())
            .collect(),
        published: if is_of_this_host(folder) { published() } else { Vec::new() },
        defaults,
    })
}

/// Returns whether the files are those of the UFW of this host, so that the kernel's rules belong to
/// them.
fn is_of_this_host(folder: &Path) -> bool {
    fs::canonicalize(folder).is_ok_and(|folder| folder == Path::new("/etc/ufw"))
}

/// Returns the ports that Docker and others forward; none if the kernel does not say.
fn published() -> Vec<Published> {
    let tables = Nft::open().and_then(|mut nft| nft.foreign_tables(&[TABLE]));
    tables.unwrap_or_default().iter().flat_map(ForeignTable::published).collect()
}

/// Reads a file whose comments may be in any encoding.
fn read_file(path: &Path) -> Result<SourceFile, Failure> {
    Ok(SourceFile { name: path.display().to_string(), text: input::read_list(path)? })
}

/// Reads the profiles in the order in which UFW reads them.
fn read_profiles(folder: &Path) -> Result<Vec<SourceFile>, Failure> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Failure::file(folder))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(Failure::file(folder))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ignored = IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending));
        path.is_file() && !name.starts_with('.') && !is_ignored
    });
    paths.sort();
    paths.iter().map(|path| read_file(path)).collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
}
