//! The ports that Docker publishes for its containers, read from Docker's socket.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nfguard_api::local_socket::LocalAddress;
use serde::Deserialize;

/// A port of a running container that its host publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DockerPort {
    pub(crate) container: String,
    /// The transport protocol's number.
    pub(crate) protocol: u8,
    /// The address of the host at which Docker publishes it.
    pub(crate) on: IpAddr,
    pub(crate) port: u16,
    /// The container's own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The port at which the container listens.
    pub(crate) inner: u16,
}

/// A local daemon answers at once, or hangs: the time for all of its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer for a thousand containers has about two megabytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Returns the published ports of all running containers; `None` if there is no socket, or this
/// process may not read it.
///
/// # Errors
/// The socket exists and its answer is not Docker's.
pub(crate) fn ports(socket: &Path) -> io::Result<Option<Vec<DockerPort>>> {
    let start = Instant::now();
    let mut stream = match LocalAddress::File(socket.to_owned()).connect(REQUEST_TIMEOUT) {
        Ok(stream) => stream,
        // The socket stays when Docker stops.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    // HTTP 1.0: the answer ends with the connection, and has no chunks.
    stream.write_all(b"GET /containers/json HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 64 * 1024];
    while answer.len() < MAX_ANSWER_BYTES {
        let left = REQUEST_TIMEOUT.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(part.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Then no time is left.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    parse(&answer).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    names: Vec<String>,
    ports: Vec<Port>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP")]
    ip: Option<IpAddr>,
    private_port: u16,
    public_port: Option<u16>,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: std::collections::BTreeMap<String, Network>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "IPAddress", default)]
    v4: String,
    #[serde(rename = "GlobalIPv6Address", default)]
    v6: String,
}

fn parse(answer: &[u8]) -> Result<Vec<DockerPort>, String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the answer is {status:?}"));
    }
    let containers: Vec<Container> =
        serde_json::from_str(body).map_err(|error| error.to_string())?;
    Ok(containers.into_iter().flat_map(published).collect())
}

fn published(container: Container) -> Vec<DockerPort> {
    let name = container.names.first().map(|name| name.trim_start_matches('/'));
    let networks = container.network_settings.map(|settings| settings.networks).unwrap_or_default();
    let addresses = networks.values().flat_map(|network| [&network.v4, &network.v6]);
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    let port = |port: &Port| {
        Some(DockerPort {
            container: name.unwrap_or_default().to_owned(),
            protocol: nfguard_policy::protocol_number(&port.r#type)?,
            on: port.ip?,
            port: port.public_port?,
            addresses: addresses.clone(),
            inner: port.private_port,
        })
    };
    container.ports.iter().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_says_yes_and_lists_containers_is_one() {
        for bad in [
            &b""[..],
            b"HTTP/1.0 403 Forbidden\r\n\r\n[]",
            b"HTTP/1.0 200 OK\r\n\r\n{}",
            b"\xff\xfe\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n[]\n"), Ok(Vec::new()));
    }

    #[test]
    fn a_container_in_the_hosts_own_network_publishes_nothing() {
        let text = br#"HTTP/1.0 200 OK

[{"Id":"1","Names":["/web"],"Ports":[{"PrivatePort":80,"Type":"tcp"}],"NetworkSettings":{"Networks":{"host":{"IPAddress":""}}}}]"#;
        let text = String::from_utf8_lossy(text).replace('\n', "\r\n");
        assert_eq!(parse(text.as_bytes()), Ok(Vec::new()));
    }
}
