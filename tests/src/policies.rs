//! Policies for tests of a boot.

/// Opens 443, and 22 as all do.
pub const GOOD: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "web", "action": "allow", "port": 443 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;

/// Opens 8443 in its place.
pub const OTHER: &str = r#"{ "version": 1, "rules": [
    { "name": "ssh", "action": "limit", "port": 22 },
    { "name": "other", "action": "allow", "port": 8443 },
    { "action": "allow", "direction": "out", "port": 53 } ] }"#;

/// Is none.
pub const BROKEN: &str = r#"{ "version": 1, "rules": [ { "action": "alow", "port": 443 } ] }"#;
