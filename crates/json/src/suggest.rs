//! Suggestions: the known word that an unknown word was probably meant to be.

/// Returns the word that `found` was probably meant to be, if one is near enough.
pub fn nearest<'w>(
    found: &str,
    words: impl IntoIterator<Item = &'w str> + Clone,
) -> Option<&'w str> {
    let found = found.to_ascii_lowercase();
    // One typing error in a short word, two in a longer word. A higher limit would suggest unrelated
    // words.
    let allowed = match found.chars().count() {
        0..=1 => 0,
        2..=4 => 1,
        _ => 2,
    };
    // Of two words at the same distance, the one with the same beginning wins.
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

/// Returns the nearest word as a JSON string.
pub fn nearest_text<'w>(
    found: &str,
    words: impl IntoIterator<Item = &'w str> + Clone,
) -> Option<String> {
    nearest(found, words).map(quoted)
}

/// Returns a text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns a list of words as `"a", "b" or "c"`.
pub fn any_of<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(quoted).collect();
    match words.pop() {
        None => String::new(),
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
    }
}
