//! Application profiles: whether they still say what the rules that were made of them do.

use std::collections::BTreeMap;

use super::merge::Merged;
use super::tuple::End;
use super::{Findings, Text};

/// The title and the ports of each profile.
#[derive(Debug, Default)]
pub(super) struct Profiles(BTreeMap<String, Profile>);

#[derive(Debug, Default)]
struct Profile {
    title: String,
    /// Each as `PROTO/PORTS`.
    ports: Vec<String>,
}

impl Profiles {
    pub(super) fn read(files: &[Text]) -> Self {
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
                        "ports" => profile.ports = value.split('|').map(ports).collect(),
                        _ => {}
                    }
                }
            }
        }
        Self(profiles)
    }

    pub(super) fn title(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|profile| profile.title.as_str()).filter(|title| !title.is_empty())
    }

    /// Notes rules whose profile is gone or has changed: UFW goes on with the ports in its rules.
    pub(super) fn compare(&self, rules: &[Merged], file: &str, findings: &mut Findings) {
        for Merged { tuple, .. } in rules {
            for End { app, ports, .. } in [&tuple.what.to, &tuple.what.from] {
                let Some(app) = app else { continue };
                let is_known = self.0.get(app).is_some_and(|profile| {
                    profile.ports.contains(&label(&tuple.what.proto, ports))
                });
                if !is_known {
                    let message = format!(
                        "the profile {app:?} is gone or has other ports now; the rule keeps those \
                         that UFW uses, as long as nobody says `ufw app update`"
                    );
                    findings.note(file, tuple.line, message);
                }
            }
        }
    }
}

/// `80,443/tcp` as `tcp/80,443`.
fn ports(text: &str) -> String {
    let (list, proto) = text.trim().split_once('/').unwrap_or((text.trim(), "any"));
    let mut items: Vec<(u16, u16)> = list
        .split(',')
        .filter_map(|item| {
            let (low, high) = item.split_once(':').unwrap_or((item, item));
            Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
        })
        .collect();
    items.sort_unstable();
    label(proto, &items)
}

fn label(proto: &str, ports: &[(u16, u16)]) -> String {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    format!("{proto}/{sorted:?}")
}
