//! Texts that the kernel keeps and nft prints in quotes.

/// Longest comment of a rule, in bytes. nft reads at most 128 with the NUL.
pub(crate) const MAX_COMMENT_BYTES: usize = 127;

/// Returns a text that nft can print in quotes, cut to `max_bytes`. nft has no escapes, so quotes
/// become apostrophes.
pub(crate) fn clean(text: &str, max_bytes: usize) -> String {
    let text: String = text
        .chars()
        .map(|char| match char {
            '"' => '\'',
            char if char.is_control() => ' ',
            char => char,
        })
        .collect();
    let end = (0..=max_bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}
