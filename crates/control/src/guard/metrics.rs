//! What has happened in numbers, as Prometheus reads them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use nfguard_netlink::{Counter as Named, Counts};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How many sources have a number of their own; the others have one together.
const SOURCES: usize = 100;

type Labels = Vec<(&'static str, String)>;

/// What is counted from the start of the guard on.
pub(super) struct Numbers {
    pub(super) repairs: u64,
    pub(super) restores: u64,
    pub(super) loads: u64,
    /// Of an answer, in seconds.
    pub(super) latency: Histogram,
}

impl Numbers {
    pub(super) fn new() -> Numbers {
        let latency = Histogram::new(exponential_buckets(10e-6, 4.0, 10));
        Numbers { repairs: 0, restores: 0, loads: 0, latency }
    }

    /// All of it as OpenMetrics text.
    pub(super) fn text(
        &self,
        counters: &[(&str, Vec<(Named, Counts)>)],
        sources: &BTreeMap<String, u64>,
        clients: usize,
        is_intact: bool,
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
        let mut by_number: Vec<_> = sources.iter().collect();
        by_number.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (at, (source, count)) in by_number.into_iter().enumerate() {
            let source = if at < SOURCES { source.clone() } else { "(others)".to_owned() };
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            bans.get_or_create(&vec![("source", source)]).inc_by(count);
        }
        all.register("bans", "Bans in force", bans);
        let number = |count: u64| {
            let counter = Counter::<u64, AtomicU64>::default();
            counter.inc_by(count);
            counter
        };
        all.register("loads", "Policies loaded while guarded", number(self.loads));
        all.register("drift_repairs", "Times the policy was put right", number(self.repairs));
        all.register("ban_restores", "Times the bans were put back", number(self.restores));
        let gauge = |value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            gauge
        };
        all.register("clients", "Clients of the API", gauge(clients.try_into().unwrap_or(0)));
        all.register("guarded", "1 if a policy is loaded and guarded", gauge(is_intact.into()));
        all.register("api_seconds", "Time to answer a line", self.latency.clone());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &all);
        text
    }
}

/// An answer to whatever was asked.
pub(super) fn http(text: &str) -> String {
    format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; \
         charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}
