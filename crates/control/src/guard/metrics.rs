//! The metrics, as Prometheus reads them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use nfguard_ban::ActiveFeed;
use nfguard_netlink::{Counter as NamedCounter, Counts};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Most sources with a number of their own; the others share one.
const MAX_SOURCES: usize = 100;

type Labels = Vec<(&'static str, String)>;

/// What is counted from the start of the guard on.
pub(super) struct Metrics {
    pub(super) repairs: u64,
    pub(super) restores: u64,
    pub(super) loads: u64,
    /// Time to answer a request, in seconds.
    pub(super) answer_seconds: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let answer_seconds = Histogram::new(exponential_buckets(10e-6, 4.0, 10));
        Metrics { repairs: 0, restores: 0, loads: 0, answer_seconds }
    }

    /// Returns all metrics as OpenMetrics text.
    pub(super) fn text(
        &self,
        counters: &[(&str, Vec<(NamedCounter, Counts)>)],
        bans_by_source: &BTreeMap<String, u64>,
        feeds: &[ActiveFeed],
        clients: usize,
        is_guarded: bool,
    ) -> String {
        let mut all = Registry::with_prefix("nfguard");
        let packets = Family::<Labels, Counter<u64, AtomicU64>>::default();
        let bytes = Family::<Labels, Counter<u64, AtomicU64>>::default();
        for (table, counters) in counters {
            for (counter, counts) in counters {
                let labels =
                    vec![("table", (*table).to_owned()), ("counter", counter.name.clone())];
                packets.get_or_create(&labels).inc_by(counts.packets);
                bytes.get_or_create(&labels).inc_by(counts.bytes);
            }
        }
        all.register("packets", "Packets that a rule has counted", packets);
        all.register("bytes", "Bytes that a rule has counted", bytes);
        let bans = Family::<Labels, Gauge>::default();
        let mut by_count: Vec<_> = bans_by_source.iter().collect();
        by_count.sort_by_key(|(_, count)| Reverse(**count));
        for (at, (source, count)) in by_count.into_iter().enumerate() {
            let source = if at < MAX_SOURCES { source.clone() } else { "(others)".to_owned() };
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            bans.get_or_create(&vec![("source", source)]).inc_by(count);
        }
        all.register("bans", "Bans in force", bans);
        let ranges = Family::<Labels, Gauge>::default();
        for feed in feeds {
            let count = i64::try_from(feed.ranges).unwrap_or(i64::MAX);
            ranges.get_or_create(&vec![("feed", feed.name.clone())]).set(count);
        }
        all.register("feed_ranges", "Ranges of addresses in a published list", ranges);
        let counter = |count: u64| {
            let counter = Counter::<u64, AtomicU64>::default();
            counter.inc_by(count);
            counter
        };
        all.register("loads", "Policies loaded while guarded", counter(self.loads));
        all.register("drift_repairs", "Times the policy was repaired", counter(self.repairs));
        all.register("ban_restores", "Times the bans were restored", counter(self.restores));
        let gauge = |value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        all.register("clients", "Clients of the API", gauge(clients.try_into().unwrap_or(0)));
        all.register("guarded", "1 if a policy is loaded and guarded", gauge(is_guarded.into()));
        all.register("api_seconds", "Time to answer a request", self.answer_seconds.clone());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &all);
        text
    }
}

/// Returns the answer over HTTP, whatever was asked.
pub(super) fn http(text: &str) -> String {
    format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; \
         charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}
