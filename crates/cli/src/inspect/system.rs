//! Facts of this host besides its policy. They are only read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nfguard_control::child;
use nfguard_netlink::{
    Error, Family, ForeignTable, ListeningSocket, Nft, Published, Rtnetlink, SockDiag, protocol,
};

use crate::inspect::docker::{self, DockerPort};
use crate::inspect::network::Network;
use crate::inspect::{iptables_legacy, namespaces};

/// The facts.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// The tables of other programs in nf_tables, those of iptables-nft included.
    pub(crate) nft: Vec<ForeignTable>,
    /// The tables of the legacy iptables.
    pub(crate) legacy: Vec<ForeignTable>,
    /// Whether there are legacy tables that could not be read.
    pub(crate) legacy_unread: bool,
    pub(crate) listening: Vec<ListeningSocket>,
    /// The process of each socket, by the socket's inode.
    pub(crate) owners: BTreeMap<u32, Process>,
    /// The ports that Docker publishes, if its socket can be read.
    pub(crate) docker: Vec<DockerPort>,
    pub(crate) network: Network,
    /// What could not be read, with the remedy.
    pub(crate) notes: Vec<String>,
}

/// A process with sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// The address to which it relays, if it is Docker's relay.
    pub(crate) relays_to: Option<SocketAddr>,
}

/// Longest time that a program may take to list rules.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);

/// The program name of Docker's relay.
pub(crate) const PROXY: &str = "docker-proxy";

impl Host {
    pub(crate) fn read(kernel: &mut Nft, docker_socket: &Path) -> Result<Host, Error> {
        let mut rtnetlink = Rtnetlink::open()?;
        let mut host = Host { network: Network::read(&mut rtnetlink)?, ..Host::default() };
        match kernel.foreign_tables(&[nfguard_policy::TABLE, nfguard_ban::TABLE]) {
            Ok(tables) => host.nft = tables,
            Err(error @ (Error::Decode(_) | Error::Interrupted)) => {
                host.notes.push(format!("the tables of other programs cannot be read: {error}"));
            }
            Err(error) => return Err(error),
        }
        host.read_legacy_tables();
        let listed = SockDiag::open()
            .and_then(|mut sockets| Ok((sockets.listening()?, sockets.unlisted().clone())));
        match listed {
            Ok((listening, unlisted)) => {
                host.listening = listening;
                let names = [(protocol::TCP, "tcp"), (protocol::UDP, "udp")].into_iter();
                let names = names.filter(|(number, _)| unlisted.contains(number));
                host.notes.extend(names.map(|(_, name)| {
                    format!(
                        "the listening sockets of {name} cannot be read: {name}_diag is missing"
                    )
                }));
            }
            Err(error) => host.notes.push(format!("the listening sockets cannot be read: {error}")),
        }
        let mut namespaces = Vec::new();
        host.owners = owners(&host.listening, &mut namespaces);
        host.network.keep_sharing(namespaces::sharing_links(namespaces));
        match docker::ports(docker_socket) {
            Ok(ports) => host.docker = ports.unwrap_or_default(),
            Err(error) => host.notes.push(format!("{}: {error}", docker_socket.display())),
        }
        let receivers = host.receivers();
        host.network.ask_ways(&mut rtnetlink, receivers)?;
        Ok(host)
    }

    /// Returns the addresses to which published ports lead.
    fn receivers(&self) -> Vec<IpAddr> {
        let translated = self.published().into_iter().map(|sent| sent.to);
        let of_docker = self.docker.iter().flat_map(|port| port.addresses.iter().copied());
        let relayed = self.owners.values().filter_map(|owner| owner.relays_to);
        translated.chain(of_docker).chain(relayed.map(|to| to.ip())).collect()
    }

    /// Returns all tables of other programs.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &ForeignTable> {
        self.nft.iter().chain(&self.legacy)
    }

    /// Returns the ports that address translation publishes.
    pub(crate) fn published(&self) -> Vec<Published> {
        self.tables().flat_map(ForeignTable::published).collect()
    }

    fn read_legacy_tables(&mut self) {
        let programs = [
            ("/proc/net/ip_tables_names", "iptables-legacy-save", Family::Ip),
            ("/proc/net/ip6_tables_names", "ip6tables-legacy-save", Family::Ip6),
        ];
        for (names, program, family) in programs {
            // The legacy program runs only where there are tables: to look for one creates it.
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
            let saved = child::output(&mut Command::new(program), PROGRAM_TIMEOUT);
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
                        "the kernel holds rules of the legacy iptables, and only its own program can \
                         list them: {program}: {why}"
                    ));
                }
            }
        }
    }
}

/// Returns the processes that hold these sockets, and adds the network namespaces that a process holds
/// open. Only root sees those of other users.
fn owners(listening: &[ListeningSocket], namespaces: &mut Vec<PathBuf>) -> BTreeMap<u32, Process> {
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
            if link.as_os_str().as_encoded_bytes().starts_with(b"net:[") {
                namespaces.push(descriptor.path());
            }
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
    // A process chooses its own name, and a terminal shows it.
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
    fn the_command_line_of_dockers_relay_has_the_address_to_which_it_relays() {
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
