//! Built-in jails. Each is a jail as a file says it.

/// Names of the built-in jails.
pub(crate) const NAMES: [&str; 8] = [
    "http-auth",
    "http-probe",
    "recidive",
    "sshd",
    "traefik-auth",
    "traefik-probe",
    "traefik-ratelimit",
    "traefik-trap",
];

const TEXTS: [&str; 8] = [
    include_str!("builtin/http-auth.json"),
    include_str!("builtin/http-probe.json"),
    include_str!("builtin/recidive.json"),
    include_str!("builtin/sshd.json"),
    include_str!("builtin/traefik-auth.json"),
    include_str!("builtin/traefik-probe.json"),
    include_str!("builtin/traefik-ratelimit.json"),
    include_str!("builtin/traefik-trap.json"),
];

/// Returns the names of the built-in jails.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// Returns a built-in jail as JSON.
pub fn text(name: &str) -> Option<&'static str> {
    NAMES.iter().zip(TEXTS).find(|(known, _)| **known == name).map(|(_, text)| text)
}
