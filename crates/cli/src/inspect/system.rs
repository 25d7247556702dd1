//! What is to be known of this host beside its policy. Only ever read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use nfguard_host::{default_interfaces, source_address};
use nfguard_netlink::{Error, Family, Foreign, ListeningSocket, Nft, Published, SockDiag};

use crate::inspect::docker::{self, DockerPort};
use crate::commands::explain::{SOMEBODY_V4, SOMEBODY_V6};
use crate::inspect::iptables_legacy;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Tables of nf_tables that are not ours; those of iptables-nft are among them.
    pub(crate) nft: Vec<Foreign>,
    /// Tables of the legacy iptables.
    pub(crate) legacy: Vec<Foreign>,
    /// There are such tables that could not be read.
    pub(crate) legacy_unread: bool,
    pub(crate) listening: Vec<ListeningSocket>,
    /// Who holds a socket, by its inode.
    pub(crate) owners: BTreeMap<u32, Process>,
    /// What Docker says, where it was asked.
    pub(crate) docker: Vec<DockerPort>,
    /// The interfaces of default routes.
    pub(crate) uplinks: Vec<String>,
    /// What could not be seen, and what to do to see it.
    pub(crate) notes: Vec<String>,
}

/// A process that holds sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// To whom it relays, if it is Docker's.
    pub(crate) relays_to: Option<SocketAddr>,
}

/// What Docker's relay is called.
pub(crate) const PROXY: &str = "docker-proxy";

impl Host {
    pub(crate) fn look(kernel: &mut Nft, docker_socket: &Path) -> Result<Host, Error> {
        let mut host = Host { uplinks: default_interfaces(), ..Host::default() };
        match kernel.foreign(&[nfguard_policy::TABLE, &nfguard_ban::TABLE]) {
            Ok(tables) => host.nft = tables,
            Err(error @ (Error::Decode(_) | Error::Interrupted)) => {
                host.notes.push(format!("the tables of others cannot be read: {error}"));
            }
            Err(error) => return Err(error),
        }
        host.look_at_legacy();
        match SockDiag::open().and_then(|mut sockets| sockets.listening()) {
            Ok(listening) => host.listening = listening,
            Err(error) => host.notes.push(format!("who listens cannot be seen: {error}")),
        }
        host.owners = owners(&host.listening);
        match docker::ports(docker_socket) {
            Ok(ports) => host.docker = ports.unwrap_or_default(),
            Err(error) => host.notes.push(format!("{}: {error}", docker_socket.display())),
        }
        Ok(host)
    }

    /// All tables that are not ours.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Foreign> {
        self.nft.iter().chain(&self.legacy)
    }

    /// What address translation publishes.
    pub(crate) fn published(&self) -> Vec<Published> {
        self.tables().flat_map(Foreign::published).collect()
    }

    /// By which packets from outside come in.
    pub(crate) fn uplink(&self) -> &str {
        self.uplinks.first().map_or("eth0", String::as_str)
    }

    fn look_at_legacy(&mut self) {
        let programs = [
            ("/proc/net/ip_tables_names", "iptables-legacy-save", Family::Ip),
            ("/proc/net/ip6_tables_names", "ip6tables-legacy-save", Family::Ip6),
        ];
        for (names, program, family) in programs {
            // Only where there are tables: looking for one makes the kernel make it.
            let tables = match fs::read_to_string(names) {
                Ok(tables) => tables,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    self.notes.push(format!("{names}: {error}"));
                    continue;
                }
            };
            if tables.trim().is_empty() {
                continue;
            }
            let saved = Command::new(program).stdin(Stdio::null()).output();
            match saved {
                Ok(saved) if saved.status.success() => {
                    let text = String::from_utf8_lossy(&saved.stdout);
                    self.legacy.extend(iptables_legacy::parse(&text, family));
                }
                saved => {
                    let why = saved.map_or_else(
                        |error| error.to_string(),
                        |saved| String::from_utf8_lossy(&saved.stderr).trim().to_owned(),
                    );
                    self.legacy_unread = true;
                    self.notes.push(format!(
                        "the kernel holds rules of the legacy iptables, which only its own program \
                         can list: {program}: {why}"
                    ));
                }
            }
        }
    }
}

/// The address that the world knows this host by; one that stands for it where it has none.
pub(crate) fn own_address(is_v6: bool) -> IpAddr {
    use crate::commands::explain::{HOST_V4, HOST_V6};
    let (somebody, stand_in) = if is_v6 { (SOMEBODY_V6, HOST_V6) } else { (SOMEBODY_V4, HOST_V4) };
    source_address(somebody).unwrap_or(stand_in)
}

/// Which processes hold these sockets. Those of others are seen by root alone.
fn owners(listening: &[ListeningSocket]) -> BTreeMap<u32, Process> {
    let wanted: BTreeSet<u32> = listening.iter().map(|socket| socket.inode).collect();
    let mut owners = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in entries.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
    {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let Some(inode) = link.to_str().and_then(socket_inode) else { continue };
            if wanted.contains(&inode) {
                owners.entry(inode).or_insert_with(|| describe(id, &process.path()));
            }
        }
    }
    owners
}

fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn describe(id: u32, path: &Path) -> Process {
    let name = fs::read(path.join("comm")).unwrap_or_default();
    // A process names itself, and this is printed on somebody's terminal.
    let name = String::from_utf8_lossy(&name).replace(char::is_control, "");
    let command = fs::read(path.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    let relays_to = relays_to(&command.split('\0').collect::<Vec<_>>());
    Process { id, name, relays_to }
}

/// `docker-proxy -proto tcp -host-ip … -host-port … -container-ip … -container-port …`
fn relays_to(command: &[&str]) -> Option<SocketAddr> {
    let is_proxy = |program: &&&str| program.rsplit('/').next() == Some(PROXY);
    command.first().filter(is_proxy)?;
    let option = |name| command.iter().skip_while(|word| **word != name).nth(1);
    let address: IpAddr = option("-container-ip")?.parse().ok()?;
    Some(SocketAddr::new(address, option("-container-port")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_relay_says_in_its_command_line_whom_it_relays_to() {
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        let command = words(
            "/usr/sbin/docker-proxy -proto tcp -host-ip :: -host-port 80 -container-ip 172.17.0.2 \
             -container-port 8080 -use-listen-fd",
        );
        assert_eq!(relays_to(&command), "172.17.0.2:8080".parse().ok());
        assert_eq!(relays_to(&words("socat -container-ip 172.17.0.2 -container-port 80")), None);
        assert_eq!(relays_to(&words("docker-proxy -container-ip")), None);
    }
}
