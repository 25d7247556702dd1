//! The digest of a load, written into the table itself: the kernel alone tells whether it still
//! holds what was loaded.

use std::path::Path;

use nfguard_netlink::{Chain, Table, comment, diff};
use sha2::{Digest as _, Sha256};

/// The chain whose comment is the stamp. It has no rules and nothing jumps to it.
const CHAIN: &str = "loaded";

/// Longest name of a file, in bytes: with the digest and a space before it, nft still reads the
/// comment.
const NAME: usize = 60;

/// Adds the file's name and the digest to the table.
pub(crate) fn stamp(mut table: Table, digest: &str, file: &Path) -> Table {
    let name = file.file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy());
    let name = comment::clean(&name, NAME);
    let comment = format!("{digest} {name}");
    table.chains.push(Chain { name: CHAIN.to_owned(), comment: Some(comment), ..Chain::default() });
    table
}

/// Returns the name of the file that was loaded, and whether the table is intact.
pub fn verify(table: &Table) -> (String, bool) {
    let comment = table.chain(CHAIN).and_then(|chain| chain.comment.clone()).unwrap_or_default();
    let (stamped, name) = comment.split_once(' ').unwrap_or_default();
    let intact = !table.dormant && digest(&bare(table.clone())) == stamped;
    (name.to_owned(), intact)
}

/// Returns the digest of the load; `None` if it was removed from the table.
pub fn digest_when_loaded(table: &Table) -> Option<&str> {
    let comment = table.chain(CHAIN)?.comment.as_deref()?;
    comment.split_once(' ').map(|(digest, _)| digest)
}

/// Returns the table without the stamp.
pub fn bare(mut table: Table) -> Table {
    table.chains.retain(|chain| chain.name != CHAIN);
    table
}

/// Returns the SHA-256 of all that the kernel is told of the table, in an order of its own. Text would
/// not do: other programs may put things there that nft has no words for.
pub fn digest(table: &Table) -> String {
    let bytes = diff(None, &table.clone().normalized()).to_bytes().unwrap_or_default();
    sha256(&bytes)
}

/// Returns the SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_of_wide_characters_is_cut_to_what_nft_reads() {
        let table = Table::default();
        let own = digest(&table);
        let table = stamp(table, &own, Path::new(&"日".repeat(50)));
        let comment = table.chain(CHAIN).and_then(|chain| chain.comment.clone()).unwrap();
        assert!(comment.len() <= 127, "{} bytes", comment.len());
        assert_eq!(verify(&table), ("日".repeat(20), true));
    }
}
