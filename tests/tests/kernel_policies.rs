//! Every file in `policies/` loads, and `nft` lists the same rules.

use std::fs;
use std::path::{Path, PathBuf};

use nfguard_lab::Netns;
use nfguard_netlink::{Nft, Table, load, text};
use nfguard_policy::Policy;
use nfguard_tests::nft::{nft, try_nft};
use nfguard_tests::place::netns;
use nfguard_tests::program::nfguard;

/// Returns the name and the compiled table of each policy.
fn policies() -> Vec<(PathBuf, Table)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"));
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut policies: Vec<(PathBuf, Table)> = files
        .map(|file| file.expect("can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| !path.ends_with("policy.schema.json"))
        .filter(|path| !path.file_name().is_some_and(|it| it.to_string_lossy().contains("jails")))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("can be read");
            let (policy, _) = Policy::parse(&text)
                .unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
            (path, policy.compile())
        })
        .collect();
    policies.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(policies.len() >= 4, "only {} policies in {folder:?}", policies.len());
    policies
}

fn list(netns: &Netns) -> String {
    nft(netns, "list table inet nfguard\n")
}

fn kernel(netns: &Netns) -> Nft {
    netns.run(|| Nft::open().expect("netlink is there"))
}

#[test]
fn every_policy_loads_and_loads_again_as_no_change() {
    for (path, table) in policies() {
        let name = path.display();
        let netns = netns();
        let mut kernel = kernel(&netns);
        let change = load(&mut kernel, &table).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(change.verified && !change.transaction.is_empty(), "{name}");
        let held = kernel.table("nfguard").expect("reads").loaded.expect("is there").table;
        assert_eq!(held.normalized(), table.clone().normalized(), "{name}");
        let listed = list(&netns);
        let again = load(&mut kernel, &table).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(again.verified && again.transaction.is_empty(), "{name}: {}", again.transaction);
        assert_eq!(list(&netns), listed, "{name}");
    }
}

#[test]
fn every_policy_loads_by_the_program_and_again_as_no_change() {
    for (path, _) in policies() {
        let netns = netns();
        let run = |verb: &str| nfguard(&netns, &[verb.as_ref(), path.as_os_str()]);
        let loaded = run("load");
        assert_eq!((loaded.status, loaded.stderr.as_str()), (Some(0), ""), "{path:?}: {loaded:?}");
        assert!(loaded.stdout.contains("loaded into table inet nfguard"), "{loaded:?}");
        assert!(loaded.stdout.contains("and read back"), "{loaded:?}");
        let listed = list(&netns);
        let again = run("load");
        assert_eq!(again.status, Some(0), "{again:?}");
        assert!(again.stdout.contains("nothing changed"), "{again:?}");
        assert_eq!(run("diff").status, Some(0));
        assert_eq!(nfguard(&netns, &["status"]).status, Some(0));
        assert_eq!(list(&netns), listed);
    }
}

#[test]
fn nft_lists_each_policy_and_its_text_alike() {
    for (path, table) in policies() {
        let (ours, theirs) = (netns(), netns());
        load(&mut kernel(&ours), &table).expect("loads");
        nft(&theirs, &text::table(&table));
        let (ours, theirs) = (list(&ours), list(&theirs));
        assert_eq!(sorted(&ours), sorted(&theirs), "{}\n{ours}\n{theirs}", path.display());
        // nft has no other form for a mark and for the bytes of a link's header.
        let ours = ours.replace("mark 0x0", "mark 0").replace("mark != 0x0", "mark != 0");
        let ours = ours.replace("@ll,96,8 != 0xff", "");
        for odd in ["[invalid", "unknown", "0x"] {
            assert!(!ours.contains(odd), "{}: {odd} in\n{ours}", path.display());
        }
    }
}

#[test]
fn the_nft_listing_of_each_policy_loads_as_the_same_rules() {
    for (path, table) in policies() {
        let (ours, again) = (netns(), netns());
        load(&mut kernel(&ours), &table).expect("loads");
        let listed = nft(&ours, "list ruleset\n");
        nft(&again, &listed);
        let relisted = nft(&again, "list ruleset\n");
        assert_eq!(
            with_equal_rejections(&relisted),
            with_equal_rejections(&listed),
            "{}",
            path.display()
        );
        let third = netns();
        nft(&third, &relisted);
        assert_eq!(nft(&third, "list ruleset\n"), relisted, "{}", path.display());
    }
}

#[test]
fn nft_refuses_text_with_a_mistake() {
    let (_, table) = policies().remove(0);
    let broken = text::table(&table).replacen("accept", "akzept", 1);
    assert!(!try_nft(&netns(), &broken).status.success());
}

/// Replaces the notations of rejections. nft prints a rejection of either IP version as `reject`,
/// and reads it as a rejection of the IP version of its rule. The packet is the same.
fn with_equal_rejections(listing: &str) -> String {
    ["icmp", "icmpv6"].iter().fold(listing.to_owned(), |text, family| {
        text.replace(&format!("reject with {family} port-unreachable"), "reject")
    })
}

/// Sorts the blocks of a listing, which nft prints in the order of their creation.
fn sorted(listing: &str) -> Vec<&str> {
    let mut blocks: Vec<&str> = listing.split("\n\n").collect();
    blocks.sort_unstable();
    blocks
}
