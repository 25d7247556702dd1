//! Expressions that write log lines.

use nfguard_netlink::{Expr, Limit, Log, LogTo as NftLogTo};

use crate::log_prefix::{self, MAX_PREFIX_BYTES};
use crate::policy::{LogTarget, LogTo, RateUnit, Verdict};
use nfguard_netlink::comment::clean;

/// Returns the expressions that log a packet, at the rate of the target. `counter` is the name of the
/// rule's counter.
pub(super) fn log_line(target: &LogTarget, verdict: Verdict, counter: &str) -> Vec<Expr> {
    let rate = target.rate.map(|rate| {
        let seconds = match rate.per {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
            RateUnit::Day => 86_400,
        };
        let (packets, burst) = (u64::from(rate.packets), rate.burst);
        Expr::Limit(Limit { packets, seconds, burst })
    });
    let (prefix, to) = match target.to {
        LogTo::Kernel => (clean(&target.prefix, MAX_PREFIX_BYTES), NftLogTo::Kernel),
        LogTo::Group(group) => {
            let prefix = log_prefix::compose(&target.prefix, verdict, counter);
            (prefix, NftLogTo::Group(group))
        }
    };
    rate.into_iter().chain([Expr::Log(Log { prefix, to })]).collect()
}
