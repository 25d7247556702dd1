//! Near misses: the word that somebody probably meant.

/// The one of `words` that `found` was probably meant to be, if any is near enough.
pub(crate) fn nearest<'w>(
    found: &str,
    words: impl IntoIterator<Item = &'w str> + Clone,
) -> Option<&'w str> {
    let found = found.to_ascii_lowercase();
    // One slip for a short word, two for a longer one: more would offer strangers.
    let allowed = match found.chars().count() {
        0..=1 => 0,
        2..=4 => 1,
        _ => 2,
    };
    // Of two that are equally near, the one that begins alike.
    let likeness = |word: &str| strsim::jaro_winkler(&found, word);
    let near = words.clone().into_iter().filter_map(|word| {
        let distance = strsim::damerau_levenshtein(&found, &word.to_ascii_lowercase());
        (distance <= allowed).then_some((distance, word))
    });
    let nearest = near.min_by(|(distance, word), (other_distance, other)| {
        distance.cmp(other_distance).then_with(|| likeness(other).total_cmp(&likeness(word)))
    });
    // "input" for "in", "sshd" for "ssh".
    let longer = words.into_iter().filter(|word| word.len() > 1 && found.starts_with(*word));
    nearest.map(|(_, word)| word).or_else(|| longer.max_by_key(|word| word.len()))
}

/// The same as a JSON string.
pub(crate) fn nearest_text<'w>(
    found: &str,
    words: impl IntoIterator<Item = &'w str> + Clone,
) -> Option<String> {
    nearest(found, words).map(quoted)
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `"a", "b" or "c"`.
pub(crate) fn any_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(quoted).collect();
    match words.pop() {
        None => String::new(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
    }
}
