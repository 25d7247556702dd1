//! Arguments of `guard`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use nfguard_control::guard::{Options, Scraped};
use nix::unistd::Group;

/// What to guard, and whom to tell.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct GuardRequest {
    /// The policy to load first; without it, what is loaded, or was last
    pub(crate) file: Option<PathBuf>,
    /// Where programs ask and ban
    #[arg(long, value_name = "PATH", default_value = "/run/nfguard/guard.sock")]
    pub(crate) socket: PathBuf,
    /// Who may connect, as chmod has it. With others' rights, strangers can read bans
    #[arg(long, value_name = "MODE", default_value = "0660", value_parser = parse_mode)]
    pub(crate) mode: u32,
    /// Who may ban besides root: a group, by name or number
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub(crate) group: Option<u32>,
    /// Where Prometheus reads: an address of this host alone, 127.0.0.1:9477, or the path of a
    /// socket
    #[arg(long, value_name = "ADDR:PORT|PATH", value_parser = parse_scraped)]
    pub(crate) metrics: Option<Scraped>,
}

impl GuardRequest {
    pub(crate) fn options(&self) -> Options {
        let GuardRequest { socket, mode, group, metrics, .. } = self.clone();
        Options { socket, mode, group, metrics }
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected three octal digits, such as 660".to_owned())
}

fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let group = Group::from_name(text).map_err(|error| error.to_string())?;
    Ok(group.ok_or_else(|| "there is no such group".to_owned())?.gid.as_raw())
}

fn parse_scraped(text: &str) -> Result<Scraped, String> {
    if text.contains('/') {
        return Ok(Scraped::File(text.into()));
    }
    let address: SocketAddr = text.parse().map_err(|_| "expected 127.0.0.1:9477, or a path")?;
    match address.ip().is_loopback() {
        true => Ok(Scraped::Tcp(address)),
        false => Err("others could read it: expected an address of this host alone".to_owned()),
    }
}
