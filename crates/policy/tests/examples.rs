//! Every file in `policies/` that is not about jails is a policy, and the schema there fits the code.

use std::fs;
use std::path::PathBuf;

use nfguard_policy::{Policy, schema};

fn policies() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"))
}

#[test]
fn example_policies_have_no_problems_and_explain_themselves() {
    let mut count = 0;
    for entry in fs::read_dir(policies()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".json") || name == "policy.schema.json" || name.contains("jails") {
            continue;
        }
        let (policy, warnings) = Policy::parse(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        assert_eq!(warnings, [], "{name}");
        assert!(policy.comment().is_some(), "{name} has a comment");
        assert!(policy.rules().all(|rule| rule.comment.is_some()), "{name}: every rule has one");
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn the_schema_in_the_folder_is_that_of_the_code() {
    let path = policies().join("policy.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, schema()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == schema(),
        "run again with UPDATE_GOLDEN=1 to write policies/policy.schema.json"
    );
}
