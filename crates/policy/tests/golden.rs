//! Each policy in `policies/` compiles to the text in `golden/`, which a person has read.
//!
//! `UPDATE_GOLDEN=1` writes the text.

use std::path::{Path, PathBuf};
use std::{env, fs};

use nfguard_netlink::text;
use nfguard_policy::Policy;

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("can be read").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == ending)).collect();
    files.retain(|path| {
        let is_jails = path.file_name().is_some_and(|it| it.to_string_lossy().contains("jails"));
        !path.ends_with("policy.schema.json") && !is_jails
    });
    files.sort();
    files
}

#[test]
fn example_policies_compile_to_their_golden_text() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = here.join("tests/golden");
    let policies = files(&here.join("../../policies"), "json");
    assert!(policies.len() >= 4, "only {policies:?}");
    let mut wrong = Vec::new();
    for path in &policies {
        let (policy, _) = Policy::parse(&fs::read_to_string(path).expect("can be read"))
            .unwrap_or_else(|problems| panic!("{path:?}: {problems:#?}"));
        let compiled = text::table(&policy.compile());
        let name = path.with_extension("nft");
        let expected = golden.join(name.file_name().expect("a file has a name"));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&golden).expect("is writable");
            fs::write(&expected, &compiled).expect("is writable");
        }
        if fs::read_to_string(&expected).unwrap_or_default() != compiled {
            wrong.push(expected);
        }
    }
    assert!(wrong.is_empty(), "differ from what was compiled; UPDATE_GOLDEN=1 writes: {wrong:#?}");
    // A removed policy must not leave its text behind.
    let names = |files: &[PathBuf]| -> Vec<_> {
        files.iter().map(|path| path.file_stem().map(ToOwned::to_owned)).collect()
    };
    assert_eq!(names(&files(&golden, "nft")), names(&policies));
}
