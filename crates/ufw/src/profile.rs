//! Application profiles: whether they still have the ports of the rules that were made from them.

use std::collections::BTreeMap;

use crate::config::SourceFile;
use crate::diagnostic::Diagnostics;
use crate::merge::MergedRule;
use crate::tuple::Endpoint;

/// The profiles of `applications.d`, by name.
#[derive(Debug, Default)]
pub(crate) struct Profiles(BTreeMap<String, Profile>);

#[derive(Debug, Default)]
struct Profile {
    title: String,
    /// Labels as [`label`] writes them.
    ports: Vec<String>,
}

impl Profiles {
    /// Reads all files. Of two profiles with one name, the last counts.
    pub(crate) fn read(files: &[SourceFile]) -> Self {
        let mut profiles = BTreeMap::new();
        for file in files {
            let mut name = None;
            for line in file.text.lines() {
                let line = line.trim();
                if let Some(section) =
                    line.strip_prefix('[').and_then(|line| line.strip_suffix(']'))
                {
                    name = Some(section.to_owned());
                    profiles.insert(section.to_owned(), Profile::default());
                } else if let (Some((key, value)), Some(name)) =
                    (line.split_once(['=', ':']), &name)
                {
                    let profile: &mut Profile = profiles.entry(name.clone()).or_default();
                    match key.trim() {
                        "title" => profile.title = value.trim().to_owned(),
                        "ports" => profile.ports = value.split('|').map(ports_label).collect(),
                        _ => {}
                    }
                }
            }
        }
        Self(profiles)
    }

    /// Returns the title of a profile that has one.
    pub(crate) fn title(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|profile| profile.title.as_str()).filter(|title| !title.is_empty())
    }

    /// Notes each rule whose profile has disappeared or changed. UFW keeps the ports of its rules.
    pub(crate) fn compare(&self, rules: &[MergedRule], file: &str, diagnostics: &mut Diagnostics) {
        for MergedRule { tuple, .. } in rules {
            for Endpoint { app, ports, .. } in [&tuple.spec.destination, &tuple.spec.source] {
                let Some(app) = app else { continue };
                let is_current = self.0.get(app).is_some_and(|profile| {
                    profile.ports.contains(&label(&tuple.spec.protocol, ports))
                });
                if !is_current {
                    let message = format!(
                        "the profile {app:?} is gone or has other ports now; the rule keeps the \
                         ports that UFW uses until `ufw app update`"
                    );
                    diagnostics.note(file, tuple.line, message);
                }
            }
        }
    }
}

/// Returns the label of ports as a profile writes them, such as `80,443/tcp`.
fn ports_label(text: &str) -> String {
    let (list, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "any"));
    let ranges: Vec<(u16, u16)> = list
        .split(',')
        .filter_map(|item| {
            let (low, high) = item.split_once(':').unwrap_or((item, item));
            Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
        })
        .collect();
    label(protocol, &ranges)
}

/// Returns a text that is equal for equal protocols and ports.
fn label(protocol: &str, ports: &[(u16, u16)]) -> String {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    format!("{protocol}/{sorted:?}")
}
