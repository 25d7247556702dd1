//! The end of a line of Traefik's common format: ` 331 "web@docker" "http://172.18.0.2:80" 1ms`.

use std::ops::Range;

/// What a line ends with. A line without it was not written to its end.
pub(super) struct Tail {
    /// Where the User-Agent ends, with its quote.
    pub(super) start: usize,
    /// The number of the request, if the log has it.
    pub(super) number: Option<u64>,
    /// Where the URL of the service stands. It is `-` if no service was asked.
    pub(super) service: Range<usize>,
}

impl Tail {
    /// Reads the end of a line from the right, where no client has a say.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        let rest = line.strip_suffix(b"ms")?;
        let rest = trim_digits(rest)?;
        let rest = rest.strip_suffix(b" ")?;
        let (service, rest) = field_at_end(rest)?;
        let rest = rest.strip_suffix(b" ")?;
        let (_, rest) = field_at_end(rest)?;
        let rest = rest.strip_suffix(b" ")?;
        let (number, rest) = match rest.strip_suffix(b" -") {
            Some(before) => (None, before),
            None => {
                let before = trim_digits(rest)?;
                let digits = rest.get(before.len()..)?;
                (Some(decimal(digits)?), before.strip_suffix(b" ")?)
            }
        };
        (rest.last() == Some(&b'"')).then_some(Self { start: rest.len(), number, service })
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, byte| {
        number.checked_mul(10)?.checked_add(u64::from(byte.checked_sub(b'0')?))
    })
}

fn trim_digits(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().rposition(|byte| !byte.is_ascii_digit())? + 1;
    (end < text.len()).then(|| text.get(..end))?
}

/// Returns where the string in quotes stands with which a text ends, and what is before it. Traefik before
/// 2.2 writes `-` without quotes if there is none.
fn field_at_end(text: &[u8]) -> Option<(Range<usize>, &[u8])> {
    if let Some(before) = text.strip_suffix(b"-")
        && before.ends_with(b" ")
    {
        return Some((before.len()..text.len(), before));
    }
    let inner = text.strip_suffix(b"\"")?;
    let quote = memchr::memrchr(b'"', inner)?;
    Some((quote + 1..inner.len(), inner.get(..quote)?))
}
