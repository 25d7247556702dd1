//! `nfguard import fail2ban` on Debian's own configuration, with jails as people post them; and
//! `nfguard jail test` with a filter.

use std::fs;
use std::path::Path;
use std::process::Command;

use nfguard_tests::program::{Answer, command};
use serde_json::{Value, json};

/// A file `jail.local`, the filters that come with it, what is made of it, and parts of what is told.
struct Posted {
    jail_local: &'static str,
    filters: &'static [(&'static str, &'static str)],
    jails: Value,
    told: &'static [&'static str],
}

/// Makes a folder of Debian's configuration with the files of a post.
fn folder(posted: &Posted) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new("/etc/fail2ban/.");
    assert!(source.join("jail.conf").exists(), "`cargo xtask setup` installs Fail2Ban");
    let copied = Command::new("cp").arg("-r").arg(source).arg(folder.path()).status();
    assert!(copied.is_ok_and(|status| status.success()));
    // Debian enables this one; a post says by itself what it enables.
    let _ = fs::remove_file(folder.path().join("jail.d/defaults-debian.conf"));
    fs::write(folder.path().join("jail.local"), posted.jail_local).expect("is writable");
    for (name, text) in posted.filters {
        fs::write(folder.path().join("filter.d").join(name), text).expect("is writable");
    }
    folder
}

fn run(arguments: &[&str]) -> Answer {
    let output = command(arguments).env("TZ", "UTC").output();
    output.expect("the program starts").into()
}

/// The jails, with paths of the folder as those of /etc/fail2ban.
fn jails(folder: &Path, text: &str) -> Value {
    let text = text.replace(&folder.display().to_string(), "/etc/fail2ban");
    serde_json::from_str::<Value>(&text).expect("JSON")["jails"].clone()
}

fn filter(name: &str) -> String {
    format!("/etc/fail2ban/filter.d/{name}.conf")
}

/// What people have posted, as far as it matters here. The comment before each names its place.
fn posts() -> Vec<Posted> {
    let text = |file: &str| json!({ "file": file, "format": "text" });
    vec![
        // fail2ban/fail2ban#2429: the jail has another name than its filter
        Posted {
            jail_local: "[DEFAULT]\nignoreip = 127.0.0.1/8\nbantime  = 1800\nfindtime  = 600\n\
                         maxretry = 10\n[ssh]\nenabled  = true\nport     = ssh\nfilter   = sshd\n\
                         logpath  = /var/log/auth.log\n[apache-badbots]\n\
                         logpath = /var/log/auth.log              \nenabled = true\n",
            filters: &[],
            jails: json!([
                { "name": "apache-badbots", "use": { "fail2ban": filter("apache-badbots") },
                  "log": text("/var/log/auth.log"), "after": 1, "within": "10m", "ban": "2d" },
                { "name": "ssh", "use": { "fail2ban": filter("sshd") },
                  "log": text("/var/log/auth.log"), "after": 10, "within": "10m", "ban": "30m" },
            ]),
            told: &["[ssh] port: a ban is for all ports", "[DEFAULT] protocol: "],
        },
        // fail2ban/fail2ban#2204: the action is that of before 0.9, without its variables
        Posted {
            jail_local: "[sshd]\nenabled = true\nport     = ssh\nfilter   = sshd\n\
                         action  = iptables[name=SSH, port=ssh, protocol=tcp]\n\
                         \x20   sendmail-whois[name=SSH, dest=root, sender=fail2ban@example.com]\n\
                         logpath = /var/log/auth.log\nbackend = auto\nmaxretry = 3\nbantime = -1\n",
            filters: &[],
            jails: json!([
                { "name": "sshd", "use": { "fail2ban": filter("sshd") },
                  "log": text("/var/log/auth.log"), "after": 3, "within": "10m", "ban": "5217w6d" },
            ]),
            told: &[
                "[sshd] action: sendmail-whois is not carried over",
                "[sshd] bantime: each ban has an end",
            ],
        },
        // fail2ban/fail2ban#3000: one more log beside those of the distribution
        Posted {
            jail_local: "[sshd]\nenabled = true\nbackend = polling\nmode = aggressive\n\
                         logpath = %(known/logpath)s\n          /var/log/btmp\n",
            filters: &[],
            jails: json!([
                { "name": "sshd", "use": { "fail2ban": filter("sshd"), "mode": "aggressive" },
                  "log": text("/var/log/auth.log"), "after": 5, "within": "10m", "ban": "10m" },
                { "name": "sshd-2", "use": { "fail2ban": filter("sshd"), "mode": "aggressive" },
                  "log": text("/var/log/btmp"), "after": 5, "within": "10m", "ban": "10m" },
            ]),
            told: &["[sshd] logpath: 2 logs make 2 jails"],
        },
        // an installer for Traefik and sshd: the journal for all, mails, a filter that is gone since 0.11,
        // repeated offenders
        Posted {
            jail_local: "[DEFAULT]\nbantime = 3600\nfindtime = 600\nmaxretry = 3\n\
                         destemail = root@localhost\nsendername = Fail2Ban\n\
                         action = %(action_mwl)s\nbackend = systemd\n\
                         [sshd]\nenabled = true\nport = 2222\nfilter = sshd\n\
                         logpath = /var/log/auth.log\n\
                         [sshd-ddos]\nenabled = true\nfilter = sshd-ddos\nmaxretry = 10\n\
                         [recidive]\nenabled = true\nfilter = recidive\n\
                         logpath = /var/log/fail2ban.log\nbantime = 86400\nfindtime = 86400\n\
                         maxretry = 2\n\
                         [traefik-auth]\nenabled = true\nport = http,https\nfilter = traefik-auth\n\
                         backend = auto\nlogpath = /var/log/traefik/access.log\n",
            filters: &[(
                "traefik-auth.conf",
                "[Definition]\nfailregex = ^<HOST> - \\S+ \\[\\] \"[A-Z]+ .*\" 401 .*$\nignoreregex =\n",
            )],
            jails: json!([
                { "name": "recidive", "use": "recidive", "after": 2, "within": "1d", "ban": "1d" },
                { "name": "sshd", "use": { "fail2ban": filter("sshd") },
                  "log": { "journal": { "unit": ["ssh.service", "sshd.service"] } },
                  "after": 3, "within": "10m", "ban": "1h" },
                { "name": "traefik-auth", "use": { "fail2ban": filter("traefik-auth") },
                  "log": text("/var/log/traefik/access.log"),
                  "after": 3, "within": "10m", "ban": "1h" },
            ]),
            told: &[
                "[DEFAULT] action: sendmail-whois-lines is not carried over",
                "filter.d/sshd-ddos.conf:1: no such file",
                "[sshd-ddos] the jail is left out",
                "[sshd] backend: entries count by their unit alone, and not by _COMM=sshd",
                "[recidive] filter: the bans of all jails count here",
            ],
        },
        // a file of mailinabox's kind, and one with bans that grow: random parts, multipliers, bans by ufw
        Posted {
            jail_local: "[DEFAULT]\nbantime.increment = true\nbantime = 1h\nbantime.rndtime = 15m\n\
                         bantime.factor = 1\nbantime.multipliers = 1 2 4 12 24 72 336 840\n\
                         bantime.maxtime = 5w\nbanaction = ufw\nusedns = no\nprotocol = all\n\
                         ignoreip = 127.0.0.1/8\n\x20  10.1.1.0/24 2001:db8::/32\n\
                         [postfix-aggressive]\nenabled = true\nmode    = aggressive\n\
                         filter  = postfix[mode=aggressive]\nport    = smtp,465,submission\n\
                         logpath = /var/log/mail.log\nbackend = auto\nmaxretry = 100\n\
                         findtime = 15m\n",
            filters: &[],
            jails: json!([
                { "name": "postfix-aggressive",
                  "use": { "fail2ban": filter("postfix"), "mode": "aggressive" },
                  "log": text("/var/log/mail.log"), "after": 100, "within": "15m", "ban": "1h",
                  "again": { "times": 2, "up_to": "5w" } },
            ]),
            told: &[
                "[DEFAULT] bantime.rndtime: a ban has no random part",
                "[DEFAULT] bantime.multipliers: ",
                "[DEFAULT] bantime.increment: bans by all jails count",
                "[DEFAULT] ignoreip: write these into the policy's `never_ban`, which is for all jails: \
                 10.1.1.0/24 2001:db8::/32",
            ],
        },
        // linuxserver/docker-swag: logs of the container, a zone, an expression of the jail's own
        Posted {
            jail_local: "[DEFAULT]\nbanaction = iptables-allports\nbantime  = 8640000\n\
                         findtime  = 60*10\nmaxretry = 5\nlogtimezone = UTC+0100\n\
                         [nginx-http-auth]\nenabled = true\nfilter = nginx-http-auth\n\
                         port = http,https\nbackend = auto\nlogpath = /config/log/nginx/error.log\n\
                         [nginx-badbots]\nenabled = true\nport = http,https\nbackend = auto\n\
                         filter = nginx-badbots\nlogpath = /config/log/nginx/*.log\nmaxretry = 2\n\
                         [nginx-deny]\nenabled = true\nbackend = auto\nfilter = nginx-http-auth\n\
                         failregex = access forbidden by rule, client: <HOST>,\n\
                         logpath = /config/log/nginx/error.log\naction = cloudflare-apiv4\n",
            filters: &[(
                "nginx-badbots.conf",
                "[Definition]\nbots = EvilBot|WorseBot\nfailregex = ^<HOST> .*\"(?:%(bots)s)\"$\n",
            )],
            jails: json!([
                { "name": "nginx-deny",
                  "use": { "fail2ban": filter("nginx-http-auth"),
                           "set": { "failregex": "access forbidden by rule, client: <HOST>," } },
                  "log": { "file": "/config/log/nginx/error.log", "format": "text",
                           "timezone": "+01:00" },
                  "after": 5, "within": "10m", "ban": "14w2d" },
                { "name": "nginx-http-auth", "use": { "fail2ban": filter("nginx-http-auth") },
                  "log": { "file": "/config/log/nginx/error.log", "format": "text",
                           "timezone": "+01:00" },
                  "after": 5, "within": "10m", "ban": "14w2d" },
            ]),
            told: &[
                "[nginx-badbots] logpath: /config/log/nginx/*.log is a pattern, and no file is there",
                "[nginx-badbots] the jail is left out",
                "[nginx-deny] action: cloudflare-apiv4 is not carried over",
            ],
        },
    ]
}

#[test]
fn what_people_have_posted_becomes_jails_that_are_valid() {
    for posted in posts() {
        let folder = folder(&posted);
        let from = folder.path().display().to_string();
        let file = folder.path().join("jails.json");
        let out = file.display().to_string();

        let answer = run(&["import", "fail2ban", &from, "-o", &out]);
        assert_eq!(answer.status, Some(1), "{}", answer.stderr);
        let count = posted.jails.as_array().expect("a list").len();
        assert_eq!(answer.stdout, format!("{out}: {count} jails\n"));
        for part in posted.told {
            let is_told = |line: &str| line.contains("not carried over: ") && line.contains(part);
            assert!(answer.stderr.lines().any(is_told), "{part} in\n{}", answer.stderr);
        }
        let written = fs::read_to_string(&file).expect("a file");
        assert_eq!(jails(folder.path(), &written), posted.jails, "{written}");

        let checked = run(&["jail", "check", &out]);
        assert_eq!(checked.status, Some(0), "{}", checked.stderr);
        assert!(checked.stdout.contains(&format!("valid, {count} jails")), "{}", checked.stdout);

        let plain = run(&["import", "fail2ban", &from]);
        assert_eq!((plain.status, &plain.stdout), (Some(1), &written));
        let as_json = run(&["--json", "import", "fail2ban", &from]);
        assert_eq!(as_json.status, Some(1));
        assert_eq!(jails(folder.path(), &as_json.stdout), posted.jails);
        let object: Value = serde_json::from_str(&as_json.stdout).expect("JSON");
        let told = object["not_carried_over"].as_array().expect("a list").len();
        assert_eq!(told, answer.stderr.lines().count(), "{}", answer.stderr);
    }
}

#[test]
fn debians_own_jail_is_carried_over_and_jail_d_is_read_in_its_order() {
    let posted = Posted {
        jail_local: "[sshd]\nmaxretry = 4\nusedns = no\nprotocol = all\nport = all\n",
        filters: &[],
        jails: Value::Null,
        told: &[],
    };
    let folder = folder(&posted);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("jail.d/10-on.conf"), "[sshd]\nenabled = true\nmaxretry = 9\nbantime = 2h\n")
        .expect("is writable");
    fs::write(at("jail.d/20-off.conf"), "[sshd]\nbantime = 3h\nfindtime = 1h\n")
        .expect("is writable");
    fs::write(at("jail.d/30-last.local"), "[sshd]\nbackend = polling\nbantime = 4h\n")
        .expect("is writable");
    fs::write(at("jail.d/40.txt"), "no file of jails").expect("is writable");
    let from = folder.path().display().to_string();
    let answer = run(&["import", "fail2ban", &from]);
    // Everything is carried over.
    assert_eq!((answer.status, answer.stderr.as_str()), (Some(0), ""));
    let expected = json!([{
        "name": "sshd", "use": { "fail2ban": filter("sshd") },
        "log": { "file": "/var/log/auth.log", "format": "text" },
        "after": 4, "within": "1h", "ban": "4h",
    }]);
    assert_eq!(jails(folder.path(), &answer.stdout), expected);

    fs::write(at("jail.local"), "[sshd]\nmaxretry = 4\nmaxretry = 5\n").expect("is writable");
    let answer = run(&["import", "fail2ban", &from]);
    assert_eq!((answer.status, answer.stdout.as_str()), (Some(2), ""));
    assert!(answer.stderr.contains("jail.local:3: option `maxretry`"), "{}", answer.stderr);
    let answer = run(&["import", "fail2ban", "/no/such/folder"]);
    assert_eq!(answer.status, Some(2), "{}", answer.stderr);
}

#[test]
fn a_filter_is_tested_with_options_and_a_time_from_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let [filter, log] = ["slow.conf", "log"].map(|name| folder.path().join(name));
    let text = "[Definition]\nword = bad\nfailregex = ^<word> from <HOST>$\n  \
                ^(?=(a+)+b)(a|aa)+\\1c <HOST>$\n";
    fs::write(&filter, text).expect("is writable");
    let lines = format!("worse from 192.0.2.1\n{}bc 192.0.2.1\n", "a".repeat(5000));
    fs::write(&log, lines).expect("is writable");
    let [filter, log] = [filter, log].map(|path| path.display().to_string());
    let now = "2026-11-30T10:00:00Z";
    let start = ["jail", "test", "--json", "--lines", "--fail2ban", &filter];
    let own = ["--no-stamp", "--now", now, "--set", "word=worse", &log];
    let answer = run(&[start.as_slice(), &own].concat());
    assert_eq!(answer.status, Some(0), "{}", answer.stderr);
    assert!(
        answer.stderr.contains("slow.conf:4: failregex 2 needs look-around"),
        "{}",
        answer.stderr
    );
    let told = answer.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let told: Vec<Value> = told.collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((&told[0]["event"], &told[0]["time"]), (&json!("evidence"), &json!(now)));
    assert_eq!(told[1], json!({ "schema": 1, "event": "limit", "line": 2, "jail": "slow" }));
    assert_eq!((&told[2]["event"], &told[2]["limits_reached"]), (&json!("summary"), &json!(1)));
}
