//! Tables in the real kernel, compared with `nft`.

use std::net::UdpSocket;
use std::thread;

use nfguard_lab::Netns;
use nfguard_netlink::{
    Base, Chain, ChainPolicy, CmpOp, Counter, Element, Error, Expr, Header, Hook, Key, KeyType,
    MetaKey, Nft, Refusal, Reg, Rule, Set, Table, Transaction, Verdict, diff, load, text, unload,
};
use nfguard_tests::nft::{listed, nft};
use nfguard_tests::place::netns;
use nfguard_tests::tables::{self, AnyTable};
use proptest::prelude::*;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

const NAME: &str = "nfguard";
const COMMENT: &str = "made by a test";

fn kernel(netns: &Netns) -> Nft {
    netns.run(|| Nft::open().expect("netlink is there"))
}

fn read(netns: &Netns) -> Option<Table> {
    let snapshot = kernel(netns).table(NAME).expect("the table can be read");
    snapshot.loaded.map(|loaded| loaded.table.normalized())
}

fn ruleset(netns: &Netns) -> String {
    nft(netns, "list ruleset\n")
}

fn cases() -> ProptestConfig {
    // A virtual machine without hardware help takes a second for some of them.
    let cases =
        std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().expect("a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn failed(error: Error) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_table_loads_reads_back_and_loads_again_as_no_change(
        AnyTable(table) in tables::table(NAME, COMMENT),
    ) {
        let netns = netns();
        let mut kernel = kernel(&netns);
        let change = load(&mut kernel, &table).map_err(failed)?;
        prop_assert!(change.verified);
        let again = load(&mut kernel, &table).map_err(failed)?;
        prop_assert!(again.transaction.is_empty(), "{}", again.transaction);
    }

    #[test]
    fn any_table_turns_into_any_other(
        AnyTable(first) in tables::table(NAME, COMMENT),
        AnyTable(second) in tables::table(NAME, COMMENT),
    ) {
        let netns = netns();
        let mut kernel = kernel(&netns);
        load(&mut kernel, &first).map_err(failed)?;
        prop_assert!(load(&mut kernel, &second).map_err(failed)?.verified);
        prop_assert!(load(&mut kernel, &first).map_err(failed)?.verified);
        prop_assert!(unload(&mut kernel, &first).map_err(failed)?);
        prop_assert_eq!(ruleset(&netns), "");
    }

    #[test]
    fn nft_lists_our_table_and_our_text_alike(AnyTable(table) in tables::table(NAME, COMMENT)) {
        let (ours, theirs) = (netns(), netns());
        load(&mut kernel(&ours), &table).map_err(failed)?;
        nft(&theirs, &text::table(&table));
        let (ours, theirs) = (listed(&ours, NAME), listed(&theirs, NAME));
        // nft moves a match of a field beside that of the field before it.
        let words = |line: &str| {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        let mut lines = ours.lines().zip(theirs.lines());
        let differs = lines.find(|(ours, theirs)| words(ours) != words(theirs));
        let is_alike = differs.is_none() && ours.lines().count() == theirs.lines().count();
        prop_assert!(is_alike, "loaded, and loaded from text: {differs:#?}");
    }
}

fn source(set: &str) -> Vec<Expr> {
    let reg = Reg::FIRST;
    vec![
        Expr::Meta { key: MetaKey::Nfproto, reg },
        Expr::Cmp { reg, op: CmpOp::Eq, data: vec![2] },
        Expr::Payload { header: Header::Network, offset: 12, len: 4, reg },
        Expr::Lookup { reg, set: set.to_owned(), inverted: false },
        Expr::Verdict(Verdict::Drop),
    ]
}

fn go_to(chain: &str) -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Goto(chain.to_owned()))]
}

fn chain(name: &str, hook: Option<Hook>, rules: Vec<Vec<Expr>>) -> Chain {
    Chain {
        name: name.to_owned(),
        base: hook.map(|hook| Base { hook, priority: 0, policy: ChainPolicy::Accept }),
        comment: None,
        rules: rules.into_iter().map(|exprs| Rule { exprs, comment: None }).collect(),
    }
}

fn table(chains: Vec<Chain>) -> Table {
    let comment = Some(COMMENT.to_owned());
    Table { name: NAME.to_owned(), comment, chains, ..Table::default() }
}

/// Returns a table with an object of each kind. `variant` changes a rule and the elements of a set.
fn full_table(variant: u8) -> Table {
    let counter = |name: &str| Counter { name: name.to_owned(), comment: None };
    let set = Set { key: vec![KeyType::Ipv4Addr], size: Some(65_535), ..Set::default() };
    let fixed = Element::from(Key::Value(vec![192, 0, 2, variant]));
    let counted = vec![Expr::Counter("seen".to_owned())];
    let varied = [
        vec![Expr::Counter("other".to_owned())],
        vec![Expr::Counter("other".to_owned()), Expr::Verdict(Verdict::Accept)],
    ];
    Table {
        counters: vec![counter("seen"), counter("other")],
        sets: vec![
            Set {
                name: "recent".to_owned(),
                dynamic: true,
                timeout: Some(std::time::Duration::from_secs(3600)),
                ..set.clone()
            },
            Set { name: "fixed".to_owned(), elements: vec![fixed], ..set },
        ],
        ..table(vec![
            chain("later", None, vec![source("fixed"), source("recent")]),
            chain(
                "out",
                Some(Hook::Output),
                vec![counted, varied[usize::from(variant % 2)].clone(), go_to("later")],
            ),
        ])
    }
}

fn refusals(netns: &Netns, table: &Table) -> Vec<Refusal> {
    let refused = load(&mut kernel(netns), table);
    assert_eq!(read(netns), None, "nothing was changed");
    match refused {
        Err(Error::Refused(refusals)) => refusals,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn all_failures_of_a_load_name_their_operation_and_place() {
    let netns = netns();
    let rules = vec![source("admins"), go_to("nowhere"), vec![Expr::Counter("none".to_owned())]];
    let refusals = refusals(&netns, &table(vec![chain("c", None, rules)]));
    let places: Vec<_> = refusals.iter().map(|refusal| refusal.place.as_deref()).collect();
    assert_eq!(
        places,
        [
            Some("expression 4, lookup @admins"),
            Some("expression 1, goto nowhere"),
            Some("expression 1, counter none"),
        ]
    );
    let words = Error::Refused(refusals).to_string();
    assert!(words.contains(
        "add rule inet nfguard c ip saddr @admins drop: No such file or directory (os error 2)"
    ));
    assert!(words.contains("add rule inet nfguard c goto nowhere: "));
}

#[test]
fn a_loop_of_chains_is_refused() {
    let netns = netns();
    let loops = vec![
        chain("a", None, vec![go_to("b")]),
        chain("b", None, vec![go_to("a")]),
        chain("in", Some(Hook::Input), vec![go_to("a")]),
    ];
    let refusals = refusals(&netns, &table(loops));
    assert!(!refusals.is_empty());
}

#[test]
fn more_failures_than_the_receive_buffer_holds_are_still_a_refusal() {
    let netns = netns();
    let rules = vec![source("admins"); 1000];
    let refusals = refusals(&netns, &table(vec![chain("c", None, rules)]));
    assert!(refusals.len() >= 100, "only {} were told", refusals.len());
}

#[test]
fn a_commit_for_another_generation_changes_nothing() {
    let netns = netns();
    let mut kernel = kernel(&netns);
    let generation = kernel.generation().expect("a generation");
    nft(&netns, "add table inet other\n");
    let before = ruleset(&netns);
    let outcome = kernel.commit(&diff(None, &full_table(0)), Some(generation));
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
    assert_eq!(ruleset(&netns), before);
}

#[test]
fn a_foreign_table_of_our_name_stays_as_it_is() {
    for head in ["", "comment \"another's\"; "] {
        let netns = netns();
        nft(
            &netns,
            &format!(
                "table inet nfguard {{ {head}map m {{ type mark : verdict; }}; chain c {{ accept; }}; }}"
            ),
        );
        let before = ruleset(&netns);
        let mut kernel = kernel(&netns);
        let loaded = load(&mut kernel, &full_table(0));
        assert!(matches!(loaded, Err(Error::ForeignTable { .. })), "{loaded:?}");
        let unloaded = unload(&mut kernel, &full_table(0));
        assert!(matches!(unloaded, Err(Error::ForeignTable { .. })), "{unloaded:?}");
        assert_eq!(ruleset(&netns), before);
    }
}

#[test]
fn without_privilege_the_error_says_so() {
    let netns = netns();
    let (loaded, committed) = netns.run(|| {
        let mut rights = capabilities(None).expect("rights can be read");
        rights.effective -= CapabilitySet::NET_ADMIN;
        set_capabilities(None, rights).expect("rights can be given up");
        let mut kernel = Nft::open().expect("netlink is there");
        (load(&mut kernel, &full_table(0)), kernel.commit(&diff(None, &full_table(0)), None))
    });
    assert!(matches!(loaded, Err(Error::Permission)), "{loaded:?}");
    assert!(matches!(committed, Err(Error::Permission)), "{committed:?}");
    assert_eq!(ruleset(&netns), "");
}

/// Reports whether this process has rights over the machine, and not only over its own namespaces.
fn real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("/proc is mounted");
    map.split_whitespace().last() == Some("4294967295")
}

#[test]
fn a_table_too_large_for_the_send_buffer_changes_nothing() {
    if real_root() {
        // Real root may enlarge the buffer, see kernel_netlink_root.
        return;
    }
    let netns = netns();
    // The send buffer of a plain user may grow to twice this number. A key takes 16 bytes. Older
    // kernels do not show the setting in a namespace.
    let wmem_max = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
    let wmem_max = wmem_max.map_or(4 << 20, |text| text.trim().parse::<u32>().expect("a number"));
    let keys = (0..wmem_max / 8 + 1000).map(|key| Key::Value(key.to_be_bytes().to_vec()));
    let mut large = full_table(0);
    large.sets[1].elements = keys.map(Element::from).collect();
    large.sets[1].size = None;
    let before = ruleset(&netns);
    let outcome = load(&mut kernel(&netns), &large);
    assert!(matches!(outcome, Err(Error::TooLarge { .. })), "{outcome:?}");
    assert_eq!(ruleset(&netns), before);
}

#[test]
fn a_load_keeps_the_state_of_what_did_not_change() {
    let netns = netns();
    let mut kernel = kernel(&netns);
    load(&mut kernel, &full_table(0)).expect("loads");
    nft(&netns, "add element inet nfguard recent { 203.0.113.7 }\n");
    netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.send_to(b"x", "127.0.0.1:9").expect("sends");
    });
    let mut counts = || kernel_counts(&mut kernel);
    assert!(counts() > 0);

    let mut changed = full_table(1);
    changed.counters[1].comment = Some("new".to_owned());
    let before = counts();
    let change = load(&mut self::kernel(&netns), &changed).expect("loads");
    assert!(change.verified);
    assert!(counts() >= before);
    let listed = listed(&netns, NAME);
    assert!(listed.contains("203.0.113.7"), "{listed}");
    assert!(listed.contains("192.0.2.1") && !listed.contains("192.0.2.0"), "{listed}");
    assert_eq!(read(&netns), Some(changed.normalized()));
}

fn kernel_counts(kernel: &mut Nft) -> u64 {
    let loaded = kernel.table(NAME).expect("can be read").loaded.expect("is there");
    loaded.counts["seen"].packets
}

#[test]
fn a_manual_change_is_undone_by_the_next_load() {
    let by_hand = [
        "add rule inet nfguard out drop",
        "insert rule inet nfguard out tcp dport { 22, 80 } iifname { eth0, eth1 } drop",
        "add chain inet nfguard more",
        "add chain inet nfguard more { type filter hook input priority 0; policy drop; }",
        "add chain inet nfguard nat { type nat hook prerouting priority dstnat; }",
        "add map inet nfguard m { type ipv4_addr : verdict; elements = { 192.0.2.1 : goto later }; }",
        "add set inet nfguard more { type ifname; }",
        "add set inet nfguard more { type ipv4_addr . inet_service; flags interval; }",
        "add element inet nfguard fixed { 198.51.100.1 }",
        "delete element inet nfguard fixed { 192.0.2.0 }",
        "add counter inet nfguard more",
        "add quota inet nfguard more { over 1 mbytes; }",
        "flush chain inet nfguard out",
        "flush table inet nfguard",
        "add table inet nfguard { flags dormant; }",
        "add chain inet nfguard out { policy drop; }",
    ];
    let netns = netns();
    let meant = full_table(0);
    load(&mut kernel(&netns), &meant).expect("loads");
    let before = ruleset(&netns);
    for command in by_hand {
        nft(&netns, &format!("{command}\n"));
        assert_ne!(ruleset(&netns), before, "{command}");
        let change = load(&mut kernel(&netns), &meant)
            .unwrap_or_else(|error| panic!("after {command}: {error}"));
        assert!(change.verified && !change.transaction.is_empty(), "{command}");
        assert_eq!(sorted(&ruleset(&netns)), sorted(&before), "{command}");
    }
}

/// Sorts the lines of a listing, because nft lists replaced objects after all others.
fn sorted(listing: &str) -> Vec<&str> {
    let mut lines: Vec<_> = listing.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn two_loaders_at_once_end_with_one_of_their_tables_whole() {
    let netns = netns();
    let loaded = |variant: u8| {
        let mut kernel = kernel(&netns);
        let loaded = (0..200).filter(|_| match load(&mut kernel, &full_table(variant)) {
            Ok(_) => true,
            // The other loader was faster three times.
            Err(Error::Interrupted) => false,
            Err(error) => panic!("{error}"),
        });
        loaded.count()
    };
    let (one, two) = thread::scope(|scope| {
        let one = scope.spawn(|| loaded(0));
        let two = scope.spawn(|| loaded(1));
        (one.join().expect("ends"), two.join().expect("ends"))
    });
    assert!(one > 0 && two > 0, "{one} and {two} loads");
    let held = read(&netns).expect("a table is there");
    assert!([full_table(0).normalized(), full_table(1).normalized()].contains(&held), "{held:?}");
}

#[test]
fn a_reader_sees_the_old_table_or_the_new_one_and_nothing_between() {
    let netns = netns();
    let mut writer = kernel(&netns);
    load(&mut writer, &full_table(0)).expect("loads");
    let meant = [full_table(0).normalized(), full_table(1).normalized()];
    let seen = thread::scope(|scope| {
        let writes = scope.spawn(move || {
            for round in 1..=200 {
                load(&mut writer, &full_table(round % 2)).expect("no other program writes");
            }
        });
        let mut reader = kernel(&netns);
        let mut seen = 0;
        while !writes.is_finished() {
            match reader.table(NAME) {
                Ok(snapshot) => {
                    let table = snapshot.loaded.expect("the table stays").table.normalized();
                    assert!(meant.contains(&table), "{}", text::table(&table));
                    seen += 1;
                }
                Err(Error::Interrupted) => {}
                Err(error) => panic!("{error}"),
            }
        }
        writes.join().expect("all loads end well");
        seen
    });
    assert!(seen > 0, "the reader never got through");
}

#[test]
fn an_empty_transaction_sends_nothing_to_the_kernel() {
    let mut kernel = Nft::from_exchange(|_| panic!("asked"));
    kernel.commit(&Transaction::new(NAME), None).expect("nothing to do");
}
