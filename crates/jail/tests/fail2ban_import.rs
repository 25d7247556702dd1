//! Jails of Fail2Ban, made into a file of jails.

use nfguard_jail::Config;
use nfguard_jail::fail2ban::{Machine, Mistake, import};
use serde_json::{Value, json};

#[test]
fn jails_are_imported_and_what_is_not_is_told() {
    let files = [
        (
            "/f/jail.conf",
            "[DEFAULT]\nbantime = 1h\nfindtime = 600\nmaxretry = 5\nbackend = auto\nenabled = false\n\
             mode = normal\nfilter = %(__name__)s[mode=%(mode)s]\nignoreip = 192.0.2.0/24\n\
             [shop]\nport = 443\nlogpath = /var/log/shop.log\n    /var/log/shop-*.log\n\
             [sshd]\nbackend = systemd\n[off]\nlogpath = /x\n[bad]\nenabled = yes\nlogpath = /y\n",
        ),
        (
            "/f/jail.local",
            "[shop]\nenabled = true\nmode = aggressive\nmaxretry = 3\nbantime = 1d 12h\n\
             action = mail\n[sshd]\nenabled = true\nbantime.increment = true\n",
        ),
        ("/f/filter.d/shop.conf", "[Definition]\nfailregex = fail <HOST>\n"),
        (
            "/f/filter.d/sshd.conf",
            "[Definition]\nfailregex = fail <HOST>\njournalmatch = _SYSTEMD_UNIT=ssh.service + _COMM=sshd\n",
        ),
    ];
    let names = ["/f/jail.conf".to_owned(), "/f/jail.local".to_owned()];
    let mut read_file = |name: &str| {
        files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
    };
    let mut machine = Machine {
        read_file: &mut read_file,
        find_files: &mut |pattern| match pattern {
            "/var/log/shop-*.log" => vec!["/var/log/shop-a.log".to_owned()],
            _ => Vec::new(),
        },
        timezone: Some("Europe/Berlin".to_owned()),
    };
    let import = import("/f", &names, &mut machine).unwrap();
    assert!(Config::parse_with(&import.jails, &mut read_file).is_ok());
    let file: Value = serde_json::from_str(&import.jails).unwrap();
    let shop = |name: &str, log: &str| {
        json!({
            "name": name, "use": { "fail2ban": "/f/filter.d/shop.conf", "mode": "aggressive" },
            "log": { "file": log, "format": "text", "timezone": "Europe/Berlin" },
            "after": 3, "within": "10m", "ban": "1d12h", "mode": "observe",
        })
    };
    assert_eq!(
        file["jails"],
        json!([
            shop("shop", "/var/log/shop.log"),
            shop("shop-2", "/var/log/shop-a.log"),
            {
                "name": "sshd", "use": { "fail2ban": "/f/filter.d/sshd.conf" },
                "log": { "journal": { "unit": "ssh.service" } },
                "after": 5, "within": "10m", "ban": "1h", "again": { "times": 2, "up_to": "5217w6d" },
            },
        ])
    );
    let told: Vec<String> = import.not_carried_over.iter().map(ToString::to_string).collect();
    for part in [
        "/f/filter.d/bad.conf:1: no such file",
        "/f/jail.conf:9: [DEFAULT] ignoreip: write these into the policy's `never_ban`",
        "/f/jail.conf:11: [shop] port: a ban is for all ports",
        "/f/jail.conf:12: [shop] logpath: /var/log/shop-*.log is a pattern",
        "/f/jail.conf:12: [shop] logpath: 2 logs make 2 jails",
        "/f/jail.conf:19: [bad] the jail is left out",
        "/f/jail.local:6: [shop] action: mail is not carried over",
        "/f/jail.local:6: [shop] action: no action bans, so the jail observes",
        "/f/jail.conf:15: [sshd] backend: entries count by their unit alone, and not by _COMM=sshd",
        "/f/jail.local:9: [sshd] bantime.increment: bans by all jails count",
    ] {
        assert!(told.iter().any(|line| line.starts_with(part)), "{part}: {told:#?}");
    }
    assert_eq!(told.len(), 10, "{told:#?}");
}

/// Imports one file of jails, with a filter `shop` and one `recidive`.
fn imported(jails: &str) -> Result<(Value, Vec<String>), Vec<Mistake>> {
    let mut read_file = |name: &str| match name {
        "/f/jail.conf" => Some(jails.to_owned()),
        "/f/filter.d/shop.conf" => {
            Some("[Definition]\nword = fail\nfailregex = <word> <HOST>\n".to_owned())
        }
        _ => None,
    };
    let mut machine =
        Machine { read_file: &mut read_file, find_files: &mut |_| Vec::new(), timezone: None };
    let import = import("/f", &["/f/jail.conf".to_owned()], &mut machine)?;
    let checked = Config::parse_with(&import.jails, &mut read_file);
    assert!(checked.is_ok(), "{checked:?}");
    let file: Value = serde_json::from_str(&import.jails).expect("JSON");
    let told = import.not_carried_over.iter().map(ToString::to_string).collect();
    Ok((file["jails"].clone(), told))
}

/// What all jails have.
const BASE: &str =
    "filter = shop\nlogpath = /shop.log\nmaxretry = 3\nfindtime = 10m\nbantime = 1h\n";

/// Returns the files of a jail that has an option itself, and of one that has it from `[DEFAULT]`.
fn with(option: &str) -> [String; 2] {
    let key = option.split('=').next().unwrap_or_default();
    let base = BASE.lines().filter(|line| !line.starts_with(key));
    let base: String = base.map(|line| format!("{line}\n")).collect();
    [
        format!("[DEFAULT]\n{BASE}[shop]\nenabled = true\n{option}\n"),
        format!("[DEFAULT]\n{base}{option}\n[shop]\nenabled = true\n"),
    ]
}

#[test]
fn each_option_of_a_jail_is_carried_over_or_told() {
    for (option, key, value) in [
        ("logtimezone = UTC+0200", "/log/timezone", json!("+02:00")),
        ("failregex = lost <HOST>", "/use/set/failregex", json!("lost <HOST>")),
        ("ignoreregex = ^ok", "/use/set/ignoreregex", json!("^ok")),
        ("datepattern = EPOCH", "/use/set/datepattern", json!("EPOCH")),
        ("maxlines = 3", "/use/set/maxlines", json!("3")),
        ("filter = shop[word=lost]", "/use/set/word", json!("lost")),
        ("filter = shop[mode=hard]", "/use/mode", json!("hard")),
        ("bantime = 60*10", "/ban", json!("10m")),
        ("bantime = -1", "/ban", json!("5217w6d")),
        ("findtime = 2 weeks", "/within", json!("2w")),
        ("maxretry = 1", "/after", json!(1)),
        ("logpath = /a.log  head", "/log/file", json!("/a.log")),
        ("logpath = /a.log /b.log", "/log/file", json!("/a.log")),
        ("action = dummy", "/mode", json!("observe")),
        ("action =", "/mode", json!("observe")),
        ("action = iptables-allports[name=a]", "/mode", Value::Null),
        ("bantime.increment = yes", "/again/times", json!(2)),
        ("bantime.increment = yes\nbantime.maxtime = 1w", "/again/up_to", json!("1w")),
    ] {
        for text in with(option) {
            let (jails, told) = imported(&text).unwrap_or_else(|bad| panic!("{bad:?}"));
            let found = jails.pointer(&format!("/0{key}")).unwrap_or(&Value::Null);
            assert_eq!(*found, value, "{text}: {jails} {told:?}");
        }
    }
    for (option, message) in [
        ("logpath = /a.log tail", "logpath: /a.log: `tail` has no counterpart"),
        (
            "logpath = /a.log /b.log",
            "logpath: /a.log: one path a line; Fail2Ban does not read /b.log",
        ),
        ("port = ssh", "port: a ban is for all ports"),
        ("protocol = tcp", "protocol: a ban is for all protocols"),
        ("ignoreip = 127.0.0.1/8, 192.0.2.1", "never_ban`, which is for all jails: 192.0.2.1"),
        ("ignoreself = false", "ignoreself: "),
        ("ignorecommand = /bin/ask <ip>", "ignorecommand: "),
        ("ignorecache = key=\"<ip>\"", "ignorecache: "),
        ("usedns = warn", "usedns: no name is looked up"),
        ("logencoding = latin-1", "logencoding: logs are read as UTF-8"),
        ("bantime.rndtime = 5m", "bantime.rndtime: "),
        ("action = cloudflare[token=x]", "action: cloudflare is not carried over"),
        ("action = iptables[port=ssh]", "action: a ban is for all ports"),
        ("action = iptables-allports[name=a]\n  sendmail-whois[dest=me]", "action: sendmail-whois"),
        ("bantime.increment = true\nbantime.factor = 3", "bantime.factor: "),
        ("bantime.increment = true\nbantime.formula = x", "bantime.formula: "),
        ("bantime.increment = true\nbantime.multipliers = 1 5 30", "bantime.multipliers: "),
        ("bantime.increment = true", "bantime.increment: bans by all jails count"),
    ] {
        for (text, section) in with(option).into_iter().zip(["[shop]", "[DEFAULT]"]) {
            let (jails, told) = imported(&text).unwrap();
            assert_eq!(jails.as_array().map(Vec::len), Some(1), "{option}");
            let is_told = |line: &String| line.contains(message) && line.contains(section);
            assert!(told.iter().any(is_told), "{option} in {section}: {told:?}");
        }
    }
    let told = |more: &str| imported(&with(more)[0]).unwrap().1;
    assert!(told("maxretries = 9")[0].contains("[shop] maxretries: nothing is made of this"));
    // A variable is a part of what names it.
    assert_eq!(told("logpath = %(here)s\nhere = /a.log"), [""; 0]);
    // What does not change who is banned is not told.
    let without_effect = "usedns = no\nlogencoding = UTF-8\nmaxmatches = 9\nbackend = polling\n\
                          ignoreip = 127.0.0.1/8 ::1\nignoreself = true\nport = 0:65535\n\
                          bantime.multipliers = 1 2 4 8\naction = nftables";
    assert_eq!(told(without_effect), [""; 0]);
}

#[test]
fn a_jail_that_cannot_be_carried_over_is_left_out_alone() {
    for (more, message) in [
        ("maxretry = 0\n", "maxretry: expected a number from 1 to 10000"),
        ("maxretry = 100000\n", "maxretry: expected"),
        ("bantime = soon\n", "bantime: expected a time"),
        ("bantime = 0\n", "bantime: expected a time"),
        ("findtime = %(nothing)s\n", "findtime: `%(nothing)s` names no option"),
        ("logtimezone = Mars\n", "logtimezone: expected"),
        ("backend = systemd\n", "[b] backend: no unit is named"),
        ("failregex = (\n", "failregex"),
    ] {
        let text = format!("[DEFAULT]\n{BASE}[a]\nenabled = true\n[b]\nenabled = true\n{more}");
        let (jails, told) = imported(&text).unwrap();
        assert_eq!(jails.as_array().map(Vec::len), Some(1), "{more}: {jails}");
        assert_eq!(jails[0]["name"], "a");
        assert!(told.iter().any(|line| line.contains(message)), "{more}: {told:?}");
        assert!(told.iter().any(|line| line.contains("[b] the jail is left out")), "{told:?}");
    }
    let (jails, told) = imported(&with("logpath = /var/log/*/shop.log")[0]).unwrap();
    assert_eq!(jails, json!([]));
    for message in ["no file is there that matches", "left out", "no jail is enabled"] {
        assert!(told.iter().any(|line| line.contains(message)), "{message}: {told:?}");
    }
}

#[test]
fn repeated_bans_are_counted_without_a_log() {
    let text = format!(
        "[DEFAULT]\n{BASE}[recidive]\nenabled = true\nfilter = recidive\n\
         logpath = /var/log/fail2ban.log\nbantime = 1w\nfindtime = 1d\n"
    );
    let (jails, told) = imported(&text).unwrap();
    let expected = json!([{
        "name": "recidive", "use": "recidive", "after": 3, "within": "1d", "ban": "1w",
    }]);
    assert_eq!(jails, expected);
    assert!(told.len() == 1 && told[0].contains("the bans of all jails count here"), "{told:?}");
}

#[test]
fn what_is_imported_has_names_of_its_own() {
    let text = format!("[DEFAULT]\n{BASE}enabled = true\n[My Shop]\n[my-shop]\n");
    let (jails, told) = imported(&text).unwrap();
    let names: Vec<&str> =
        jails.as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["my-shop", "my-shop-2"]);
    assert!(told[0].contains("[My Shop] enabled: the jail is named my-shop"), "{told:?}");
    // What Fail2Ban does not start with is no file of jails.
    let twice = imported("[a]\nenabled = true\nenabled = true\n").unwrap_err();
    assert_eq!(twice[0].to_string(), "/f/jail.conf:3: option `enabled` stands in [a] twice");
    assert!(imported("").is_err());
}
