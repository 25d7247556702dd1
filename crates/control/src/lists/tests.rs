//! The forms in which publishers and other programs really write lists, with addresses for documentation.

use std::io::Write as _;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// What was read of a list: each entry as text, the problems, and the summary.
struct Outcome {
    entries: Vec<String>,
    details: Vec<Details>,
    bad: Vec<String>,
    summary: Summary,
}

fn options() -> Options<'static> {
    Options { column: None, set: None, now: UNIX_EPOCH + Duration::from_secs(1_764_450_000) }
}

fn read_with(bytes: &[u8], options: &Options<'_>) -> Result<Outcome, String> {
    let (mut entries, mut details, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let summary = read(bytes, options, &mut |at, entry| match entry {
        Ok(entry) => {
            entries.push(text_of(entry.addresses));
            details.push(entry.details.map(|details| *details).unwrap_or_default());
        }
        Err(problem) => bad.push(format!("{at}: {problem}")),
    })?;
    Ok(Outcome { entries, details, bad, summary })
}

fn text_of(addresses: Addresses) -> String {
    match addresses {
        Addresses::One(address) => address.to_string(),
        Addresses::Prefix(prefix) => prefix.to_string(),
        Addresses::Range(first, last) => format!("{first}-{last}"),
    }
}

fn good(text: &str) -> Outcome {
    let outcome =
        read_with(text.as_bytes(), &options()).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_eq!(outcome.bad, [""; 0], "{text}");
    outcome
}

/// Returns why a list is refused: as a whole, or one of its lines.
fn refusal(text: &str, options: &Options<'_>) -> String {
    match read_with(text.as_bytes(), options) {
        Ok(outcome) => outcome.bad.first().cloned().unwrap_or_default(),
        Err(why) => why,
    }
}

const PUBLISHED: [(&str, &str, &[&str]); 29] = [
    ("FireHOL netset", include_str!("samples/firehol.netset"), &["192.0.2.0/24", "198.51.100.7"]),
    ("Spamhaus DROP", include_str!("samples/drop.txt"), &["192.0.2.0/24", "198.51.100.0/25"]),
    (
        "Spamhaus DROP in JSON",
        include_str!("samples/drop_v4.json"),
        &["192.0.2.0/24", "198.51.100.0/25"],
    ),
    ("DShield", include_str!("samples/dshield_block.txt"), &["192.0.2.0/24", "198.51.100.0/24"]),
    ("Feodo Tracker, CSV", include_str!("samples/feodo.csv"), &["192.0.2.7", "198.51.100.7"]),
    ("Feodo Tracker, JSON", include_str!("samples/feodo.json"), &["192.0.2.7"]),
    (
        "Tor, exit-addresses",
        include_str!("samples/exit-addresses"),
        &["192.0.2.7", "198.51.100.7", "198.51.100.8"],
    ),
    (
        "blocklist.de",
        "192.0.2.7\n2001:db8::7\n198.51.100.7\n",
        &["192.0.2.7", "2001:db8::7", "198.51.100.7"],
    ),
    (
        "Emerging Threats",
        include_str!("samples/emerging-Block-IPs.txt"),
        &["192.0.2.0/24", "198.51.100.7"],
    ),
    ("AbuseIPDB, JSON", include_str!("samples/abuseipdb.json"), &["192.0.2.7", "2001:db8::7"]),
    ("AWS", include_str!("samples/aws.json"), &["192.0.2.0/24", "2001:db8::/32"]),
    ("Google", include_str!("samples/goog.json"), &["192.0.2.0/24", "2001:db8::/32"]),
    ("Cloudflare", include_str!("samples/cloudflare.json"), &["192.0.2.0/24", "2001:db8::/32"]),
    (
        "GitHub",
        include_str!("samples/github_meta.json"),
        &["198.51.100.0/24", "2001:db8::/32", "192.0.2.0/24"],
    ),
    (
        "Cloudflare with its partner in China",
        include_str!("samples/cloudflare_jdcloud.json"),
        &["192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24", "2001:db8:1::/48"],
    ),
    (
        "AbuseIPDB, plain",
        "192.0.2.7\n2001:db8::7\n198.51.100.7",
        &["192.0.2.7", "2001:db8::7", "198.51.100.7"],
    ),
    ("Azure", include_str!("samples/azure.json"), &["192.0.2.0/24", "2001:db8::/32"]),
    ("Fastly", include_str!("samples/fastly.json"), &["192.0.2.0/24", "2001:db8::/32"]),
    (
        "P2P",
        "# list\nExample, Inc: a site:192.0.2.0-192.0.2.255\nOther:198.51.100.7-198.51.100.9\n",
        &["192.0.2.0/24", "198.51.100.7-198.51.100.9"],
    ),
    (
        "DAT of eMule",
        "192.000.002.000 - 192.000.002.255 , 000 , Example\n198.051.100.007 - 198.051.100.009 , 200 , Let in\n",
        &["192.0.2.0/24"],
    ),
    (
        "BruteForceBlocker",
        "# IP\t\tLast Reported\n192.0.2.7\t\t# 2026-09-29 12:02:10\t\t26\t2855073\n",
        &["192.0.2.7"],
    ),
    ("AlienVault reputation", "192.0.2.7#4#2#Malicious Host#US##37.75,-97.82#3\n", &["192.0.2.7"]),
    (
        "a number of reports, of which one is too large for a length",
        "192.0.2.0 24\n198.51.100.9 33\n",
        &["192.0.2.0", "198.51.100.9"],
    ),
    (
        "addresses and netmasks",
        "192.0.2.9 255.255.255.0\n198.51.100.0 255.255.255.128\n",
        &["192.0.2.0/24", "198.51.100.0/25"],
    ),
    (
        "IPsum: a number of lists beside each",
        "# IPsum\n192.0.2.7\t9\n198.51.100.9\t8\n",
        &["192.0.2.7", "198.51.100.9"],
    ),
    (
        "GeoLite2 networks",
        "network,geoname_id,registered_country_geoname_id\n192.0.2.0/24,1,2\n",
        &["192.0.2.0/24"],
    ),
    (
        "start and end by name",
        "start_ip,end_ip,country\n192.0.2.0,192.0.2.255,XX\n",
        &["192.0.2.0/24"],
    ),
    (
        "address and netmask",
        "192.0.2.0 255.255.255.0\n198.51.100.0 255.255.255.128\n",
        &["192.0.2.0/24", "198.51.100.0/25"],
    ),
    (
        "Postfix CIDR map",
        "[2001:db8::]/32 REJECT\n192.0.2.0/24 REJECT spam\n",
        &["2001:db8::/32", "192.0.2.0/24"],
    ),
];

#[test]
fn each_published_form_is_read_and_named() {
    for (form, text, expected) in PUBLISHED {
        let outcome = good(text);
        assert_eq!(outcome.entries, expected, "{form}");
        assert!(!outcome.summary.form.is_empty(), "{form}");
        assert_eq!(outcome.summary.entries, expected.len() as u64, "{form}");
        // As servers and editors change it.
        assert_eq!(
            good(&format!("\u{feff}{}", text.replace('\n', "\r\n"))).entries,
            expected,
            "{form}"
        );
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).expect("memory");
        let packed = packed.finish().expect("memory");
        assert_eq!(read_with(&packed, &options()).expect("gzip").entries, expected, "{form}");
        assert!(
            read_with(&packed[..packed.len() - 9], &options()).is_err(),
            "{form}, not all of it"
        );
    }
}

#[test]
fn a_text_that_is_no_list_or_could_mean_two_things_is_refused_with_its_reason() {
    for (text, why) in [
        ("<!DOCTYPE html>\n<html><body>192.0.2.7</body></html>\n", "web page"),
        ("\n  <?xml version=\"1.0\"?><rss/>\n", "web page"),
        ("404: Not Found\n", "no address"),
        ("Rate limit exceeded\n", "no address"),
        ("{\"message\":\"API rate limit exceeded\"}\n", "no addresses"),
        (
            "{\"errors\":[{\"detail\":\"Daily rate limit of 5 requests exceeded\",\"status\":429}]}",
            "no addresses",
        ),
        ("{\"prefixes\":[{\"ip_prefix\":\"192.0.2.0/24\"},", "not all of it"),
        ("PK\u{3}\u{4}rest", "zip"),
        ("192.0.2.7 198.51.100.9\n", "two addresses"),
        ("192.0.2.7,198.51.100.9,443\n", "two addresses"),
        ("192.0.2.7;198.51.100.9\n", "two addresses"),
        ("192.0.2.0\t192.0.2.255\n", "two addresses"),
        ("192.0.2.0 24\n198.51.100.0 25\n", "may mean 192.0.2.0/24"),
        ("192.0.2.0,24,XX\n198.51.100.7\n", "may mean 192.0.2.0/24"),
        ("192.0.2.0 24\n198.51.100.9 25\n", "may mean 192.0.2.0/24"),
        ("198.51.100.9 25\n192.0.2.0 24\n203.0.113.7 8\n", "may mean 192.0.2.0/24"),
        ("198.51.100.9 25\n203.0.113.7 24\n", "may mean 198.51.100.0/25"),
        ("2001:db8:7::7 48\n2001:db8::9 32\n", "may mean 2001:db8:7::/48"),
        ("192.0.2.0 24\n198.51.100.9 n/a\n", "may mean 192.0.2.0/24"),
        ("192.0.2.0 /24\n", "no address"),
        ("192.0.2.0;24\n198.51.100.0;25\n", "may mean 192.0.2.0/24"),
        ("192.0.2.0;/24\n", "a length apart"),
        ("192.0.2.7\n192.0.2.0 255.255.255.0\nx\n", "may mean 192.0.2.0/24"),
        ("192.0.2.0-\n", "no address"),
        ("192.0.2\n", "four numbers"),
        ("192.0.2.*\n", "in place of `*`"),
        ("192.0.2.010\n", "octal"),
        ("!192.0.2.7\n", "no address"),
        ("ALL: 192.0.2.7\n", "no address"),
        ("deny 192.0.2.7;\nallow 198.51.100.7;\n", "no address"),
        ("-A INPUT -s 192.0.2.7/32 -j DROP\n", "no address"),
        ("16777216,16777471,XX\n", "no address"),
        ("ripencc|XX|ipv4|192.0.2.0|256|20260101|allocated\n", "no address"),
        ("src_ip,dst_ip\n192.0.2.7,198.51.100.7\n", "--column"),
        ("first,second\n192.0.2.7,4\n", "--column"),
        ("[{\"host\":\"192.0.2.7\"}]", "--column: host"),
        (
            "create friends hash:ip family inet\nadd friends 192.0.2.7\ncreate foes hash:ip family inet\nadd foes 198.51.100.7\n",
            "--set",
        ),
        ("create foes hash:net family inet\nadd foes 192.0.2.0/24 nomatch\n", "exception"),
        (
            "create foes hash:ip,port family inet\nadd foes 192.0.2.7,tcp:80\n",
            "more than addresses",
        ),
        (
            "table inet t {\n\tset a {\n\t\ttype ipv4_addr . inet_service\n\t\telements = { 192.0.2.7 . 80 }\n\t}\n}\n",
            "more than addresses",
        ),
        (
            "table inet t {\n\tset a {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.7,\n",
            "not all of the file",
        ),
    ] {
        let found = refusal(text, &options());
        assert!(found.contains(why), "{found:?} for {text}");
    }
    let utf16: Vec<u8> = "192.0.2.7\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&[0xff, 0xfe], utf16.as_slice()].concat();
    for bytes in [utf16, marked] {
        assert!(read_with(&bytes, &options()).err().expect("refused").contains("UTF-16"));
    }
}

#[test]
fn a_named_column_or_key_is_taken_and_a_name_that_is_not_there_is_refused() {
    let with = |column| Options { column: Some(column), ..options() };
    let csv = "when,SRC_ip,dst_ip\n2026-01-01,192.0.2.7,198.51.100.7\n";
    let sslbl = "# Firstseen,DstIP,DstPort\n2026-01-01 00:00:00,192.0.2.7,443\n";
    for (text, column, expected) in [
        (csv, "src_ip", "192.0.2.7"),
        (csv, "DST_IP", "198.51.100.7"),
        (sslbl, "DstIP", "192.0.2.7"),
        ("2026-01-01,192.0.2.7,x\n", "2", "192.0.2.7"),
        ("192.0.2.0 24\n", "1", "192.0.2.0"),
        ("{\"hosts\":[{\"host\":\"192.0.2.7\",\"gateway\":\"192.0.2.1\"}]}", "host", "192.0.2.7"),
        (include_str!("samples/github_meta.json"), "hooks", "192.0.2.0/24"),
    ] {
        let outcome = read_with(text.as_bytes(), &with(column)).expect(text);
        assert_eq!((outcome.entries, outcome.bad), (vec![expected.to_owned()], vec![]), "{text}");
    }
    for text in [csv, "192.0.2.7\n", include_str!("samples/github_meta.json")] {
        assert!(refusal(text, &with("nothing")).contains("nothing"), "{text}");
    }
}

/// Returns each ban as text: addresses, seconds that are left, source, reason.
fn bans(text: &str, options: &Options<'_>) -> (Vec<String>, Summary) {
    let outcome = read_with(text.as_bytes(), options).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_eq!(outcome.bad, [""; 0], "{text}");
    let bans = outcome.entries.iter().zip(&outcome.details).map(|(addresses, details)| {
        let left = match details.duration {
            None => "?".to_owned(),
            Some(None) => "ever".to_owned(),
            Some(Some(left)) => left.as_secs().to_string(),
        };
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{addresses} {left} {} {}", word(&details.source), word(&details.reason))
            .trim()
            .to_owned()
    });
    (bans.collect(), outcome.summary)
}

#[test]
fn bans_of_other_tools_come_with_the_time_that_is_left_and_those_that_are_over_are_counted() {
    let (found, summary) = bans(include_str!("samples/ipset.save"), &options());
    assert_eq!(
        found,
        [
            "192.0.2.7 299 ipset/f2b-sshd a comment",
            "198.51.100.0/24 ever ipset/f2b-sshd",
            "203.0.113.7 600 ipset/f2b-sshd",
        ]
    );
    assert_eq!(summary.form, "`ipset save`");
    for text in [include_str!("samples/nft.set"), include_str!("samples/nft.json")] {
        let (found, _) = bans(text, &options());
        assert_eq!(
            found,
            [
                "192.0.2.7 3542 nft/blackhole why, really",
                "198.51.100.0/24 ever nft/blackhole",
                "203.0.113.1-203.0.113.9 ever nft/blackhole",
            ],
            "{text}"
        );
    }
    for text in [include_str!("samples/cscli.json"), include_str!("samples/cscli.csv")] {
        let (found, summary) = bans(text, &options());
        assert_eq!(
            found,
            [
                "192.0.2.7 14385 crowdsec crowdsecurity/ssh-bf",
                "198.51.100.0/24 600 crowdsec manual 'ban' from 'x'",
            ],
            "{text}"
        );
        let left_out: Vec<_> = summary.left_out.into_iter().collect();
        assert_eq!(summary.over, 1);
        assert_eq!(
            left_out,
            [
                ("decisions about no addresses", 1),
                ("decisions other than bans", 1),
                ("simulated decisions", 1)
            ]
        );
    }
    for text in [
        "duration,scope,value\n24h,ip,192.0.2.7\n1h,range,198.51.100.0/24\n0h,ip,203.0.113.1\n",
        "value,duration\n192.0.2.7,24h\n198.51.100.0/24,1h\n203.0.113.1,0s\n",
        "[{\"duration\":\"24h\",\"value\":\"192.0.2.7\"},{\"duration\":\"1h\",\"scope\":\"range\",\"value\":\"198.51.100.0/24\"},\
          {\"duration\":\"-1s\",\"value\":\"203.0.113.1\"}]",
    ] {
        let (found, summary) = bans(text, &options());
        assert_eq!(found, ["192.0.2.7 86400 crowdsec", "198.51.100.0/24 3600 crowdsec"], "{text}");
        assert_eq!(summary.over, 1, "{text}");
    }
    // What `cscli decisions import` reads has a reason, and not the scenario of a decision.
    for text in [
        r#"[{"duration":"24h","reason":"my_scenario","scope":"ip","type":"ban","value":"192.0.2.7"}]"#,
        "duration,reason,scope,type,value\n24h,my_scenario,ip,ban,192.0.2.7\n",
    ] {
        assert_eq!(bans(text, &options()).0, ["192.0.2.7 86400 crowdsec my_scenario"], "{text}");
    }
    let (found, _) = bans("value,duration\n2001:db8::7,24h\n", &options());
    assert_eq!(found, ["2001:db8::7 86400 crowdsec"]);
    let (found, summary) = bans("null", &options());
    assert_eq!((found.len(), summary.form.as_str()), (0, "decisions of CrowdSec"));
    let (found, _) = bans("1764440000|100|4|192.0.2.7\n1764440001|100|6|2001:db8::7\n", &options());
    assert_eq!(
        found,
        [
            "192.0.2.7 ever sshguard on sshguard's blacklist",
            "2001:db8::7 ever sshguard on sshguard's blacklist",
        ]
    );
    let (found, summary) = bans(
        "{\"target\":\"192.0.2.7\",\"until\":1764450060,\"source\":\"a\"}\n\
         {\"target\":\"192.0.2.8\",\"until\":1764449999}\n{\"target\":\"192.0.2.9\",\"for\":\"1h30m\"}\n\
         {\"target\":\"192.0.2.10\",\"for\":-1}\n{\"target\":\"192.0.2.11\",\"expires_in_seconds\":0}\n\
         {\"target\":\"192.0.2.12\",\"expires_in_seconds\":-7.5}\n{\"target\":\"192.0.2.13\"}\n",
        &options(),
    );
    assert_eq!(found, ["192.0.2.7 60 a", "192.0.2.9 5400", "192.0.2.10 ever", "192.0.2.13 ?"]);
    assert_eq!(summary.over, 3);
}

#[test]
fn one_set_of_several_is_taken_by_its_name() {
    let text = "create friends hash:ip family inet\nadd friends 192.0.2.7\ncreate foes hash:ip family inet\nadd foes 198.51.100.7\n";
    let with = |set| Options { set: Some(set), ..options() };
    assert_eq!(bans(text, &with("foes")).0, ["198.51.100.7 ever ipset/foes"]);
    assert!(refusal(text, &with("nothing")).contains("friends, foes"));
    let text = "define a = { 192.0.2.7 }\nadd element inet t b { 198.51.100.7 timeout 1h, 198.51.100.9 }\n";
    assert_eq!(bans(text, &with("b")).0, ["198.51.100.7 3600 nft/b", "198.51.100.9 ever nft/b"]);
}

/// Each entry ends at the same time; its comment has the words of options.
#[test]
fn the_comment_of_an_entry_says_nothing_of_its_options() {
    for comment in
        ["timeout of login", "nomatch", "x timeout 0", "expires never", "say \\\"timeout 0\\\" now"]
    {
        let text = format!(
            "create foes hash:ip family inet timeout 600 comment\nadd foes 192.0.2.7 comment \"{comment}\"\n\
             add foes 192.0.2.8 timeout 600 comment \"{comment}\"\n"
        );
        let expected = |at| format!("192.0.2.{at} 600 ipset/foes {comment}");
        assert_eq!(bans(&text, &options()).0, [expected(7), expected(8)]);
        for options_of in [
            format!("timeout 10m comment \"{comment}\""),
            format!("comment \"{comment}\" timeout 10m"),
        ] {
            let text = format!("add element inet t foes {{ 192.0.2.7 {options_of} }}\n");
            let expected = format!("192.0.2.7 600 nft/foes {comment}");
            assert_eq!(bans(&text, &options()).0, [expected]);
        }
    }
    let text = "create timeout hash:ip timeout 60\nadd timeout 192.0.2.7\n";
    assert_eq!(bans(text, &options()).0, ["192.0.2.7 60 ipset/timeout"]);
}

#[test]
fn a_list_of_bans_with_comments_is_read_with_the_place_of_each_problem() {
    let text = "# feed\n203.0.113.7\n\n 203.0.113.0/24 ; why\nnonsense\n{\"target\": \"::1\"}\n";
    let outcome = read_with(text.as_bytes(), &options()).expect("a list");
    assert_eq!(outcome.entries, ["203.0.113.7", "203.0.113.0/24", "::1"]);
    assert!(outcome.bad.len() == 1 && outcome.bad[0].starts_with("line 5: "), "{:?}", outcome.bad);
    let good = "{\n  \"bans\": [\n    {\n      \"target\": \"192.0.2.1\"\n    },\n    \
                {\n      \"target\": \"x\"\n    }\n  ]\n}";
    let places = |text: &str| {
        let bad = read_with(text.as_bytes(), &options()).expect("a list").bad;
        bad.iter()
            .map(|problem| problem.split(':').next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(places(good), ["entry 2"]);
    assert_eq!(places(&good[..60]), ["line 6"]);
    assert_eq!(places(&good.replace("x\"", "x\", \"expiry\": 1")), ["line 7"]);
    assert_eq!(places(r#"{"bans":[{"expiry":1}]}"#), ["line 1"]);
    for wrong in [r#""expiry": 1"#, r#""port": "0""#, r#""for": 0"#, r#""for": 60, "until": 1"#] {
        assert_eq!(
            places(&format!("{{ \"target\": \"192.0.2.1\", {wrong} }}\n192.0.2.2\n")),
            ["line 1"],
            "{wrong}"
        );
    }
    let old = r#"{"target": "192.0.2.1", "since": 1764450000}"#;
    assert_eq!(good_details(old).created_at, Some(1_764_450_000));
}

fn good_details(text: &str) -> Details {
    good(text).details.remove(0)
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        start in 0..PUBLISHED.len(), cut in 0..600_usize, at in 0..600_usize, byte: u8, tail in ".{0,60}",
    ) {
        let mut bytes = PUBLISHED[start].1.as_bytes().to_vec();
        bytes.truncate(cut);
        if let Some(changed) = bytes.get_mut(at) {
            *changed = byte;
        }
        bytes.extend_from_slice(tail.as_bytes());
        let _ = read_with(&bytes, &options());
        let _ = read_with(tail.as_bytes(), &options());
    }

    #[test]
    fn text_of_the_words_of_all_forms_makes_no_reader_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "-", ",", "\n", "\t", " ", ";", "#", "|", "{", "}", "[", "]",
            "\"", ":", "add", "create", "set", "table", "elements = {", "timeout", "comment", "expires", "1h", "24",
            "255.255.255.0", "ip", "start", "end", "\"target\":", "\"cidr\":", "\"bans\":[", "nomatch", "hash:ip", "null",
        ]), 0..40),
    ) {
        let text: String = words.concat();
        if let Ok(outcome) = read_with(text.as_bytes(), &options()) {
            // What is accepted is the same when it is written as ranges and read again.
            let again = outcome.entries.join("\n");
            let read_again = read_with(again.as_bytes(), &options()).map(|it| it.entries);
            proptest::prop_assert_eq!(read_again, Ok(outcome.entries));
        }
    }
}
