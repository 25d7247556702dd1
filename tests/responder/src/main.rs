//! The one program of the container image of the tests. It is linked statically and has no
//! dependency, so that the image is this one file.
//!
//! ```text
//! responder serve [--log FILE] PORT…    HTTP over TCP, and an echo over UDP, on each port
//! responder traefik OPTION…             the same, with the options of Traefik
//! responder tcp HOST:PORT MILLISECONDS  sends a request and prints the answer
//! responder udp HOST:PORT MILLISECONDS  sends a datagram and prints the answer
//! ```
//!
//! The server answers with the address of its peer, and writes an access log like Traefik.
#![allow(clippy::print_stdout, reason = "what it prints is its answer")]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve", "--log", log, ports @ ..] => serve(Some(log), ports),
        ["serve", ports @ ..] => serve(None, ports),
        ["traefik", options @ ..] => {
            let of = |option: &str, end: &str| {
                let values = options.iter().filter_map(|text| text.strip_prefix(option));
                values.filter_map(|text| Some(text.split_once(end)?.1)).collect::<Vec<_>>()
            };
            let log = of("--accesslog.filepath", "=");
            serve(log.first().copied(), &of("--entrypoints.", ".address=:"))
        }
        [kind @ ("tcp" | "udp"), to, timeout] => ask(kind, to, timeout),
        _ => Err(io::Error::other("usage: responder serve|tcp|udp …")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(log: Option<&str>, ports: &[&str]) -> io::Result<()> {
    let open = |path| OpenOptions::new().create(true).append(true).open(path);
    let log = Arc::new(log.map(open).transpose()?);
    for port in ports {
        let port: u16 = port.parse().map_err(io::Error::other)?;
        // IPv4 and IPv6, if the host has both.
        let listener =
            TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
        let socket =
            UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port)))?;
        let log = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                // A peer may close at any time.
                thread::spawn(move || converse(&stream, log.as_ref().as_ref()));
            }
        });
        thread::spawn(move || echo(&socket));
    }
    loop {
        thread::park();
    }
}

fn converse(mut stream: &TcpStream, log: Option<&File>) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let peer = (peer.ip().to_canonical(), peer.port());
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        let (user, status) = match path {
            "/admin" => ("admin", 401),
            "/wp-login.php" => ("-", 404),
            _ => ("-", 200),
        };
        if let Some(mut log) = log {
            let line = format!(
                "{} - {user} [{}] \"GET {path} HTTP/1.1\" {status} 17 \"-\" \"-\" 7 \
                 \"web@docker\" \"http://127.0.0.1:8080\" 1ms\n",
                peer.0,
                date(SystemTime::now()),
            );
            log.write_all(line.as_bytes())?;
        }
        let body = format!("peer={}\n", peer.0);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn echo(socket: &UdpSocket) {
    let mut datagram = [0; 2048];
    loop {
        // A firewall may drop the answer. The test reports it.
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), from);
        }
    }
}

fn ask(kind: &str, to: &str, timeout: &str) -> io::Result<()> {
    let timeout = Duration::from_millis(timeout.parse().map_err(io::Error::other)?);
    let to = to.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut answer = [0; 1024];
    let length = if kind == "tcp" {
        let mut stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        stream.read(&mut answer)?
    } else {
        let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        socket.recv(&mut answer)?
    };
    print!("{}", String::from_utf8_lossy(answer.get(..length).unwrap_or_default()));
    if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Returns the time as `26/Nov/2026:10:07:31 +0000`.
fn date(time: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = "";
    for (name, days) in MONTHS.iter().zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        month = name;
        if day < days {
            break;
        }
        day -= days;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000", day + 1)
}
