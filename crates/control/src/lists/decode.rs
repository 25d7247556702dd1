//! From the bytes of a file to its text.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;

/// The longest text of a compressed list. The largest published lists have some 20 MB.
const MAX_TEXT_BYTES: u64 = 128 * 1024 * 1024;

const SQLITE: &[u8] = b"SQLite format 3\0";

/// How files begin that are no text.
const FORMATS_REFUSED: [(&[u8], &str); 8] = [
    (b"PK\x03\x04", "a zip archive; expected a text, or gzip"),
    (b"BZh", "compressed with bzip2; expected a text, or gzip"),
    (b"\xfd7zXZ", "compressed with xz; expected a text, or gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; expected a text, or gzip"),
    (b"\xff\xfe", "text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (b"%PDF", "a PDF document"),
    (SQLITE, "an SQLite database; `nfguard import bans` reads that of Fail2Ban"),
];

/// Tells whether these are the bytes of an SQLite database.
#[must_use]
pub fn is_sqlite(bytes: &[u8]) -> bool {
    bytes.starts_with(SQLITE)
}

/// Returns the text, or says what the bytes are. Comments may have any encoding.
pub(super) fn text(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let bytes = match bytes.starts_with(b"\x1f\x8b") {
        true => Cow::Owned(unpacked(bytes, MAX_TEXT_BYTES)?),
        false => Cow::Borrowed(bytes),
    };
    if let Some((_, what)) = FORMATS_REFUSED.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(format!("this is {what}"));
    }
    if bytes.contains(&0) {
        return Err("this is no text, or text in UTF-16: it has bytes that are zero".to_owned());
    }
    let text = match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    };
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Cow::Owned(text) => Cow::Owned(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()),
    };
    if text.trim_start().starts_with('<') {
        return Err(
            "this is a web page or XML, and no list: perhaps an error of the server".to_owned()
        );
    }
    Ok(text)
}

fn unpacked(bytes: &[u8], max_bytes: u64) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut decoder = MultiGzDecoder::new(bytes).take(max_bytes + 1);
    decoder
        .read_to_end(&mut text)
        .map_err(|error| format!("gzip, truncated or damaged: {error}"))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > max_bytes) {
        return Err(format!("gzip with more than {} MB of text", max_bytes / 1024 / 1024));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_small_file_that_unpacks_to_a_large_one_is_refused() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&vec![b'\n'; 2 * 1024 * 1024]).expect("memory");
        let packed = packed.finish().expect("memory");
        assert!(packed.len() < 10_000);
        let why = unpacked(&packed, 1024 * 1024).expect_err("refused");
        assert!(why.contains("more than 1 MB"), "{why}");
        assert!(unpacked(&packed, 2 * 1024 * 1024).is_ok());
    }
}
