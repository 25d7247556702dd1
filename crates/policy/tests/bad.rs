//! Files with mistakes in `tests/bad`, each beside its expected problems.
//!
//! `UPDATE_GOLDEN=1` writes the expected problems.

use std::fs;
use std::path::Path;

use nfguard_policy::Policy;

#[test]
fn bad_files_give_the_problems_beside_them() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bad"));
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let problems = match Policy::parse(&fs::read_to_string(&path).unwrap()) {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems,
        };
        assert!(!problems.is_empty(), "{} is no bad file", path.display());
        let found: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        let golden = path.with_extension("txt");
        if update {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != found {
            wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", path.display()));
        }
    }
    assert!(count > 0);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
