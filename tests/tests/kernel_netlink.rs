//! Tables in the real kernel, with `nft` as the judge.

use nfguard_lab::Netns;
use nfguard_netlink::{Kernel, load, text};
use nfguard_tests::nft::{listed, nft};
use nfguard_tests::tables::{self, AnyTable};
use proptest::prelude::*;

const NAME: &str = "nfguard";
const COMMENT: &str = "made by a test";

fn netns() -> Netns {
    Netns::new().unwrap_or_else(|error| panic!("{error}\nrun me with `cargo xtask netns-test`"))
}

fn kernel(netns: &Netns) -> Kernel {
    netns.run(|| Kernel::open().expect("netlink is there"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_table_loads_reads_back_and_loads_again_as_no_change(AnyTable(table) in tables::table(NAME, COMMENT)) {
        let netns = netns();
        let mut kernel = kernel(&netns);
        let change = load(&mut kernel, &table).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(change.verified);
        let again = load(&mut kernel, &table).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(again.transaction.is_empty(), "{}", again.transaction);
    }

    #[test]
    fn nft_lists_our_table_and_our_text_alike(AnyTable(table) in tables::table(NAME, COMMENT)) {
        let (ours, theirs) = (netns(), netns());
        load(&mut kernel(&ours), &table).map_err(|error| TestCaseError::fail(error.to_string()))?;
        nft(&theirs, &text::table(&table));
        let (ours, theirs) = (listed(&ours, NAME), listed(&theirs, NAME));
        let differs = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        prop_assert!(ours == theirs, "loaded, and loaded from text: {differs:#?}");
    }
}
