//! A jail of each format.

/// The keys of a log, for each format that a jail may read.
pub(crate) const FORMATS: [&str; 11] = [
    r#""format":"traefik""#,
    r#""format":"traefik-clf""#,
    r#""format":"traefik-json""#,
    r#""format":"clf""#,
    r#""format":"caddy""#,
    r#""format":"http""#,
    r#""format":"text""#,
    r#""format":"sshd""#,
    r#""format":"journal""#,
    r#""format":"docker-json","inside":"traefik""#,
    r#""format":"docker-json","inside":"text""#,
];

/// Returns keys of a jail that finds evidence in a log with these.
pub(crate) fn looks(format: &str) -> &'static str {
    let is = |word: &str| format.contains(&format!("\"{word}\""));
    match ["text", "sshd", "journal"].into_iter().any(is) {
        true => r#""match":".*from <client>.*""#,
        false => r#""evidence":[{"status":401},{"status":"4xx","distinct":"path"}]"#,
    }
}
