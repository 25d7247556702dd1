//! Arguments of `never`.

use clap::Subcommand;
use nfguard_ban::Addresses;

use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum NeverChange {
    /// Add never-ban entries; no program can ban their addresses
    Add {
        /// 203.0.113.7, 203.0.113.0/24, 2001:db8::1, 2001:db8::/32; an IPv6 address without a
        /// prefix length is this address alone
        #[arg(required = true, value_parser = values::addresses)]
        networks: Vec<Addresses>,
        /// The reason; it is kept with the entries
        #[arg(long, default_value = "the operator says so")]
        reason: String,
    },
    /// Remove never-ban entries; exit status 1 if one is not on the list, or this host adds it by
    /// itself
    Remove {
        /// Addresses or prefixes exactly as in the list
        #[arg(required = true, value_parser = values::addresses)]
        networks: Vec<Addresses>,
    },
}
