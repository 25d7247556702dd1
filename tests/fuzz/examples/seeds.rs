//! Writes the seeds of `netlink_decode`: the messages of each example
//! policy. Run this program when the encoding changes:
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds`
//!
//! The seed `others` has the answer of Linux 6.18 about tables of iptables-nft 1.8.9 and nft 1.0.6.
//! It does not change.

use nfguard_netlink::{Error, Nft, diff};
use nfguard_policy::Policy;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(folder.join("../../policies"))? {
        let path = entry?.path();
        let Ok((policy, _)) = Policy::parse(&fs::read_to_string(&path)?) else { continue };
        let name = path.file_stem().ok_or("a file without a name")?.to_owned();
        let seed = folder.join("seeds/netlink_decode").join(name);
        let mut kernel = Nft::from_exchange(move |bytes| {
            fs::write(&seed, [&[0], bytes].concat())?;
            Ok(Vec::new())
        });
        match kernel.commit(&diff(None, &policy.compile()), None) {
            // The kernel gives no answer here.
            Ok(()) | Err(Error::AnswerLost) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
