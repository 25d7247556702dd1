//! The rate at which `nfguard jail test` reads logs, beside Debian's fail2ban-regex on the same lines.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use nfguard_benches::{Program, Result, child, children, enter, header, millis, table};
use nfguard_lab::Netns;

/// Lines for nfguard, and for fail2ban-regex, whose time grows with them. The first argument
/// overrides the first.
const LINES: usize = 1_000_000;
const PEER_LINES: usize = 20_000;
const RESULTS: &str = "benches/results/jails.md";

/// Sources of which each has one piece of evidence in a window: as many as are remembered, and more, for
/// which the memory stays as it is.
const SOURCES: [usize; 3] = [65_536, 262_144, 1_048_576];
/// Runs of a start, of which the median counts.
const START_RUNS: usize = 9;

/// Where Debian has the filters of Fail2Ban.
const FILTERS: &str = "/etc/fail2ban/filter.d";
/// Filters of Debian for the start, each with the journal as its log.
const STARTED_FILTERS: [&str; 10] = [
    "apache-auth",
    "asterisk",
    "dovecot",
    "dropbear",
    "exim",
    "nginx-http-auth",
    "postfix",
    "proftpd",
    "sshd",
    "vsftpd",
];

/// What is read, as which jail, and by which expression of fail2ban-regex.
struct Work {
    name: &'static str,
    reader: Reader,
    /// One line in this number is evidence.
    evidence_in: usize,
    line: fn(usize, bool) -> String,
}

/// How both programs read lines.
enum Reader {
    /// A built-in jail, and an expression or a filter that finds the same.
    Jail(&'static str, &'static str),
    /// A filter of Debian's package, in both.
    Filter(&'static str),
}

const TRAEFIK_JSON: Reader = Reader::Jail(
    "traefik-auth",
    r#"^\{"ClientAddr":"[^"]+","ClientHost":"<HOST>".*"DownstreamStatus":401,.*$"#,
);
const TRAEFIK_CLF: Reader =
    Reader::Jail("traefik-auth", r#"^<HOST> - \S+ \[\] "[A-Z]+ .*" 401 .*$"#);

const WORK: [Work; 7] = [
    Work {
        name: "Traefik JSON, 5 % evidence",
        reader: TRAEFIK_JSON,
        evidence_in: 20,
        line: traefik_json,
    },
    Work {
        name: "Traefik JSON, all evidence",
        reader: TRAEFIK_JSON,
        evidence_in: 1,
        line: traefik_json,
    },
    Work {
        name: "Traefik common, 5 % evidence",
        reader: TRAEFIK_CLF,
        evidence_in: 20,
        line: traefik_clf,
    },
    Work {
        name: "Traefik common, all evidence",
        reader: TRAEFIK_CLF,
        evidence_in: 1,
        line: traefik_clf,
    },
    Work {
        name: "sshd, 5 % evidence",
        reader: Reader::Jail("sshd", "sshd"),
        evidence_in: 20,
        line: sshd,
    },
    Work {
        name: "Fail2Ban's filter nginx-http-auth (linear), 5 % evidence",
        reader: Reader::Filter("nginx-http-auth"),
        evidence_in: 20,
        line: nginx,
    },
    Work {
        name: "Fail2Ban's filter sshd (look-around), 5 % evidence",
        reader: Reader::Filter("sshd"),
        evidence_in: 20,
        line: sshd,
    },
];

fn main() -> Result<()> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some((verb, rest)) = arguments.split_first()
        && verb == child::VERB
    {
        println!("{}", child::measure(rest)?);
        return Ok(());
    }
    enter()?;
    let lines = env::args().nth(1).map_or(Ok(LINES), |lines| lines.parse())?;
    let nfguard = PathBuf::from(env::var_os("NFGUARD_BIN").ok_or("NFGUARD_BIN is not set")?);
    let dir = env::temp_dir().join(format!("nfguard-bench-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = all(&nfguard, &dir, lines);
    fs::remove_dir_all(&dir)?;
    done
}

fn all(nfguard: &Path, dir: &Path, lines: usize) -> Result<()> {
    let fail2ban = Path::new("fail2ban-regex");
    let programs = [Program(nfguard, &["--version"]), Program(fail2ban, &["--version"])];
    let mut page = format!(
        "# Reading logs\n\nMade by `cargo xtask bench jails`: {lines} lines for nfguard, and the first \
         {PEER_LINES} of them for fail2ban-regex; whole processes. CPU is the time in user and \
         kernel.\n\n{}\n",
        header(&programs),
    );
    let mut rows = Vec::new();
    for work in &WORK {
        let ours = log(dir, work, lines)?;
        let mut command = Command::new(nfguard);
        command.args(["jail", "test", "--json"]);
        let expression = match work.reader {
            Reader::Jail(jail, expression) => {
                command.args(["--jail", jail]);
                expression.to_owned()
            }
            Reader::Filter(name) => {
                let path = format!("{FILTERS}/{name}.conf");
                command.args(["--now", "2026-11-18T00:00:00Z", "--fail2ban", &path]);
                path
            }
        };
        let ours = rate(command.arg(&ours), lines)?;
        let theirs = log(dir, work, PEER_LINES.min(lines))?;
        let mut command = Command::new(fail2ban);
        let theirs = rate(command.arg(&theirs).arg(&expression), PEER_LINES.min(lines))?;
        let times = format!("{:.0}", ours / theirs);
        rows.push(vec![work.name.to_owned(), whole(ours), whole(theirs), times]);
    }
    let head = ["Lines", "nfguard, lines a CPU second", "fail2ban-regex", "times"];
    let _ = write!(page, "{}\n{}", table(&head, &rows), start_and_memory(nfguard, dir)?);
    print!("{page}");
    Ok(fs::write(RESULTS, page)?)
}

/// Measures a start with twenty jails, and the memory that many sources take.
fn start_and_memory(nfguard: &Path, dir: &Path) -> Result<String> {
    let netns = Netns::new()?;
    let nfguard = nfguard.to_str().ok_or("the path of nfguard is no UTF-8")?;
    let path = |name: &str| dir.join(name).display().to_string();
    let (jails, log) = (path("jails.json"), path("log"));
    fs::write(&jails, twenty_jails())?;
    let start = [nfguard, "jail", "test", "--file", &jails, "/dev/null"];
    let runs = (0..START_RUNS).map(|_| child::run(&netns, None, &start));
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    runs.sort_unstable_by_key(|run| run.wall);
    let median = runs.get(START_RUNS / 2).copied().unwrap_or_default();
    let mut rows = vec![vec![
        "start with 20 jails: ten built in, ten filters of Debian's Fail2Ban".to_owned(),
        millis(median.wall),
        millis(median.user + median.system),
        megabytes(median.memory),
    ]];
    for sources in SOURCES {
        let line = |at: usize| {
            let host = format!("203.{}.{}.{}", at >> 16, at >> 8 & 255, at & 255);
            traefik_json_of(&host, &time_of_day(at / 20), at, true) + "\n"
        };
        fs::write(&log, (0..sources).map(line).collect::<String>())?;
        let read = [nfguard, "jail", "test", "--json", "--jail", "traefik-auth", &log];
        let run = child::run(&netns, None, &read)?;
        rows.push(vec![
            format!("{sources} sources with one piece of evidence in a window"),
            millis(run.wall),
            millis(run.user + run.system),
            megabytes(run.memory),
        ]);
    }
    Ok(table(&["Work", "time", "CPU", "memory, MB"], &rows))
}

fn twenty_jails() -> String {
    let http = ["traefik-auth", "traefik-ratelimit", "traefik-probe", "traefik-trap"];
    let http = http.map(|name| format!(r#"{{"use":"{name}","log":"/var/log/traefik.log"}}"#));
    let others = ["http-auth", "http-probe"].into_iter().flat_map(|name| {
        ["a", "b"].map(|site| {
            format!(r#"{{"use":"{name}","name":"{name}-{site}","log":"/var/log/{site}.log"}}"#)
        })
    });
    let own = ["sshd", "recidive"].map(|name| format!(r#"{{"use":"{name}"}}"#));
    let filters = STARTED_FILTERS.map(|name| {
        let name_and_log = format!(r#""name":"fail2ban-{name}","log":"/var/log/{name}.log""#);
        format!(r#"{{"use":{{"fail2ban":"{FILTERS}/{name}.conf"}},{name_and_log}}}"#)
    });
    let all: Vec<String> = http.into_iter().chain(others).chain(own).chain(filters).collect();
    format!(r#"{{"version":1,"jails":[{}]}}"#, all.join(","))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Returns the lines that a program reads in a second of the processor.
fn rate(command: &mut Command, lines: usize) -> Result<f64> {
    let before = children()?;
    let status =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let cpu = children()?.saturating_sub(before);
    if !status.success() {
        return Err(format!("{}: {status}", command.get_program().display()).into());
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let lines = lines as f64;
    Ok(lines / cpu.as_secs_f64())
}

fn whole(rate: f64) -> String {
    format!("{rate:.0}")
}

fn log(dir: &Path, work: &Work, lines: usize) -> Result<PathBuf> {
    let path = dir.join("log");
    let each = (0..lines).map(|at| (work.line)(at, at % work.evidence_in == 0) + "\n");
    fs::write(&path, each.collect::<String>())?;
    Ok(path)
}

/// Addresses of many sources.
fn host(at: usize) -> String {
    format!("203.0.{}.{}", at / 250 % 250, at % 250)
}

/// Times a hundredth of a second apart.
fn time_of_day(at: usize) -> String {
    let second = at / 100;
    format!("{:02}:{:02}:{:02}", second / 3600 % 24, second / 60 % 60, second % 60)
}

fn traefik_json(at: usize, is_evidence: bool) -> String {
    traefik_json_of(&host(at), &time_of_day(at), at, is_evidence)
}

fn traefik_json_of(host: &str, time: &str, at: usize, is_evidence: bool) -> String {
    let (user, status, origin) = match is_evidence {
        true => ("admin", 401, ""),
        false => ("-", 200, "\"OriginContentSize\":17,\"OriginStatus\":200,"),
    };
    format!(
        "{{\"ClientAddr\":\"{host}:40001\",\"ClientHost\":\"{host}\",\"ClientPort\":\"40001\",\
         \"ClientUsername\":\"{user}\",\"DownstreamContentSize\":17,\"DownstreamStatus\":{status},\
         \"Duration\":1200345,{origin}\"Overhead\":1200345,\"RequestAddr\":\"www.example.com\",\
         \"RequestContentSize\":0,\"RequestCount\":{at},\"RequestHost\":\"www.example.com\",\
         \"RequestMethod\":\"GET\",\"RequestPath\":\"/static/{at}.js\",\"RequestPort\":\"-\",\
         \"RequestProtocol\":\"HTTP/2.0\",\"RequestScheme\":\"https\",\"RetryAttempts\":0,\
         \"RouterName\":\"web@docker\",\"StartLocal\":\"2026-11-18T{time}.000000001Z\",\
         \"StartUTC\":\"2026-11-18T{time}.000000001Z\",\"entryPointName\":\"websecure\",\
         \"level\":\"info\",\"msg\":\"\",\"time\":\"2026-11-18T{time}Z\"}}"
    )
}

fn traefik_clf(at: usize, is_evidence: bool) -> String {
    let (user, status, service) = match is_evidence {
        true => ("admin", 401, "-"),
        false => ("-", 200, "http://172.18.0.2:80"),
    };
    format!(
        "{} - {user} [18/Nov/2026:{} +0000] \"GET /static/{at}.js HTTP/1.1\" {status} 17 \"-\" \
         \"curl/8.5.0\" {at} \"web@docker\" \"{service}\" 1ms",
        host(at),
        time_of_day(at),
    )
}

fn sshd(at: usize, is_evidence: bool) -> String {
    let (host, time) = (host(at), time_of_day(at));
    match is_evidence {
        true => format!(
            "Nov 18 {time} host sshd[{at}]: Failed password for root from {host} port 50000 ssh2"
        ),
        false => format!(
            "Nov 18 {time} host sshd[{at}]: Accepted publickey for deploy from {host} port 51000 \
             ssh2: ED25519 SHA256:AAAA"
        ),
    }
}

fn nginx(at: usize, is_evidence: bool) -> String {
    let (host, time) = (host(at), time_of_day(at));
    let what = match is_evidence {
        true => "user \"admin\": password mismatch".to_owned(),
        false => format!("open() \"/srv/www/{at}.js\" failed (2: No such file or directory)"),
    };
    format!(
        "2026/11/18 {time} [error] 12#12: *{at} {what}, client: {host}, server: www.example.com, \
         request: \"GET /{at}.js HTTP/1.1\", host: \"www.example.com\""
    )
}
