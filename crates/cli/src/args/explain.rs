//! Arguments of `explain`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};

use super::values;

// A connection to explain.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("way").required(true))]
pub(crate) struct ExplainRequest {
    /// The policy; `-` is standard input
    pub(crate) file: PathBuf,

    /// To this host
    #[arg(long = "in", group = "way")]
    pub(crate) input: bool,
    /// From this host
    #[arg(long, group = "way")]
    pub(crate) out: bool,
    /// Through this host
    #[arg(long, group = "way")]
    pub(crate) forward: bool,
    /// To a port that this host publishes for a container; the container listens at PORT
    #[arg(long, group = "way", value_name = "PORT")]
    pub(crate) published: Option<u16>,

    /// The source: an address, or an address and a port [default: a documentation address]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = values::address_and_port)]
    pub(crate) from: Option<(IpAddr, Option<u16>)>,
    #[arg(long, value_name = "[ADDR:]PORT/PROTO", help = TO_HELP)]
    pub(crate) to: String,
    /// The interface on which the packets arrive
    #[arg(long, default_value = "eth0", value_name = "NAME")]
    pub(crate) iif: String,
    /// The interface on which the packets leave, after routing rules, marks and NAT
    #[arg(long, default_value = "eth0", value_name = "NAME")]
    pub(crate) oif: String,
    /// The packets have this mark
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) mark: u32,
    /// A rule of another program keeps the packets out of connection tracking (`notrack`)
    #[arg(long)]
    pub(crate) untracked: bool,
    /// The routing tables lead to the source by another interface: the source is forged, or answers take
    /// another way
    #[arg(long)]
    pub(crate) no_return_path: bool,
    /// Explain the Nth of several such connections at once, for rules that limit
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) nth: u32,
}

/// Not a doc comment: there brackets are links.
const TO_HELP: &str = "The destination: 443/tcp, 203.0.113.7:53/udp, [2001:db8::1]:22/tcp, \
echo-request, 203.0.113.7, gre";
