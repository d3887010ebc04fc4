//! What the server counts, in the words of the glossary; read at `/metrics`.
//!
//! The handles of every method and outcome are resolved once, so that a request pays two atomic
//! additions and no look-up of a label.

use std::time::Duration;

use engine::calendar::Timestamp;
use engine::status::EngineStatus;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use snapshots::history::HistoryStats;
use snapshots::stats::JournalStats;

use crate::errors::ApiError;
use crate::kit::metrics::KitMetrics;
use crate::kit::registries::KitStatus;

/// What was called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// `/api/CancelTransaction`
    Cancel,
    /// `/api/CheckClientBenefits`
    Check,
    /// `/api/v2/checks`
    Checks,
    /// `/api/v2/claims` and what lies below
    Claims,
    /// `/api/ConfirmTransaction`
    Confirm,
    /// `/.well-known/openid-configuration`
    Discovery,
    /// `/.well-known/jwks.json`
    PublicKeys,
    /// `/api/v2/trips/rulings`
    Rulings,
    /// `/api/GetOrganizationServices`
    Services,
    /// `/api/v2/tickets`
    Tickets,
    /// `/connect/token`
    Token,
    /// `/api/GetTransactions`
    Transactions,
    /// `/api/v2/trips`
    Trips,
    /// Any other path.
    Unknown,
}

impl Call {
    const ALL: [Call; 14] = [
        Call::Cancel,
        Call::Check,
        Call::Checks,
        Call::Claims,
        Call::Confirm,
        Call::Discovery,
        Call::PublicKeys,
        Call::Rulings,
        Call::Services,
        Call::Tickets,
        Call::Token,
        Call::Transactions,
        Call::Trips,
        Call::Unknown,
    ];

    /// The call that a path names.
    pub fn at(path: &str) -> Call {
        match path {
            "/api/CheckClientBenefits" => Call::Check,
            "/api/ConfirmTransaction" => Call::Confirm,
            "/api/CancelTransaction" => Call::Cancel,
            "/api/GetOrganizationServices" => Call::Services,
            "/api/GetTransactions" => Call::Transactions,
            "/api/v2/checks" => Call::Checks,
            "/api/v2/tickets" => Call::Tickets,
            "/api/v2/trips" => Call::Trips,
            "/api/v2/trips/rulings" => Call::Rulings,
            path if path.starts_with("/api/v2/claims") => Call::Claims,
            "/connect/token" => Call::Token,
            "/.well-known/openid-configuration" => Call::Discovery,
            "/.well-known/jwks.json" => Call::PublicKeys,
            _ => Call::Unknown,
        }
    }

    /// What its metrics are told apart by. Only a check says what carries its identifier: confirms
    /// and cancels name a transaction, and a batch may hold several.
    fn carriers(self) -> &'static [Carrier] {
        match self {
            Call::Check => &[Carrier::Ecs, Carrier::None, Carrier::Snils, Carrier::Social],
            _ => &[Carrier::None],
        }
    }

    fn label(self) -> &'static str {
        match self {
            Call::Cancel => "cancel",
            Call::Check => "check",
            Call::Checks => "checks",
            Call::Claims => "claims",
            Call::Confirm => "confirm",
            Call::Discovery => "discovery",
            Call::PublicKeys => "public_keys",
            Call::Rulings => "rulings",
            Call::Services => "services",
            Call::Tickets => "tickets",
            Call::Token => "token",
            Call::Transactions => "transactions",
            Call::Trips => "trips",
            Call::Unknown => "unknown",
        }
    }
}

/// What carried the identifier; the documents set the service level of each on its own
/// (D0 §6.4, §7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// An `ecs` card.
    Ecs,
    /// None, several, or one that was not read.
    None,
    /// The insurance number.
    Snils,
    /// A social card.
    Social,
}

impl Carrier {
    fn label(self) -> &'static str {
        match self {
            Carrier::Ecs => "ecs",
            Carrier::None => "none",
            Carrier::Snils => "snils",
            Carrier::Social => "social",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// resultCode 5.
    CardInactive,
    /// As it was wished for.
    Done,
    /// resultCode 2.
    HolderNotFound,
    /// resultCode 1.
    NoBenefit,
    /// resultCode 7.
    OrganizationUnknown,
    /// resultCode 8.
    ServiceUnknown,
    /// No token was given out.
    TokenRefused,
    /// resultCode 6.
    Unavailable,
    /// An error of the transport.
    Error(ApiError),
}

impl Outcome {
    const RESULTS: [Outcome; 8] = [
        Outcome::CardInactive,
        Outcome::Done,
        Outcome::HolderNotFound,
        Outcome::NoBenefit,
        Outcome::OrganizationUnknown,
        Outcome::ServiceUnknown,
        Outcome::TokenRefused,
        Outcome::Unavailable,
    ];

    fn all() -> impl Iterator<Item = Outcome> {
        Outcome::RESULTS.into_iter().chain(ApiError::ALL.map(Outcome::Error))
    }

    fn index(self) -> usize {
        match self {
            Outcome::CardInactive => 0,
            Outcome::Done => 1,
            Outcome::HolderNotFound => 2,
            Outcome::NoBenefit => 3,
            Outcome::OrganizationUnknown => 4,
            Outcome::ServiceUnknown => 5,
            Outcome::TokenRefused => 6,
            Outcome::Unavailable => 7,
            Outcome::Error(error) => Outcome::RESULTS.len() + error as usize,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Outcome::CardInactive => "card_inactive",
            Outcome::Done => "done",
            Outcome::HolderNotFound => "holder_not_found",
            Outcome::NoBenefit => "no_benefit",
            Outcome::OrganizationUnknown => "organization_unknown",
            Outcome::ServiceUnknown => "service_unknown",
            Outcome::TokenRefused => "token_refused",
            Outcome::Unavailable => "result_unavailable",
            Outcome::Error(error) => error.wire().label,
        }
    }
}

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    /// By call, then by carrier.
    calls: Vec<Vec<CallMetrics>>,
    batch_items: IntCounter,
    fields_ignored: IntCounter,
    type3_confirms: IntCounter,
    engine: EngineMetrics,
    kit: KitMetrics,
}

struct CallMetrics {
    carrier: Carrier,
    outcomes: Vec<IntCounter>,
    seconds: Histogram,
}

/// What others count, and is copied when somebody asks.
pub struct Figures {
    /// Of the engine.
    pub engine: EngineStatus,
    /// Of its journal.
    pub journal: JournalStats,
    /// Of its history.
    pub history: HistoryStats,
    /// Of the registries of validators.
    pub kit: KitStatus,
}

/// What is copied from the engine and its storage.
struct EngineMetrics {
    ready: IntGauge,
    holders: IntGauge,
    revision: IntGauge,
    transactions: IntGauge,
    open_transactions: IntGauge,
    trips: IntGauge,
    waiting: IntGaugeVec,
    up: IntGaugeVec,
    frames: IntCounter,
    records: IntCounter,
    openings_dropped: IntCounter,
    snapshot_age: IntGauge,
    journal_bytes: IntCounter,
    journal_failed: IntCounter,
    journal_syncs: Counter,
    batch_records: IntGauge,
    sync_seconds: Gauge,
    history_records: IntCounter,
    history_behind: IntGauge,
    history_troubled: IntGauge,
}

impl Metrics {
    /// Fresh counters.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("eligo_requests_total", "Requests by method, carrier and outcome"),
            &["carrier", "method", "outcome"],
        )?;
        let mut buckets = prometheus::exponential_buckets(0.000_025, 2.0, 17)?;
        // What takes longer is not successful (D0 §6.4, §7.4).
        buckets.push(3.0);
        let latency = HistogramOpts::new("eligo_request_seconds", "Time to answer");
        let latency = HistogramVec::new(latency.buckets(buckets), &["carrier", "method"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        let metrics = |call: Call, carrier: Carrier| {
            let (by, method) = (carrier.label(), call.label());
            let outcomes = Outcome::all()
                .map(|outcome| requests.with_label_values(&[by, method, outcome.label()]));
            let outcomes = outcomes.collect();
            CallMetrics { carrier, outcomes, seconds: latency.with_label_values(&[by, method]) }
        };
        let calls = Call::ALL
            .map(|call| call.carriers().iter().map(|carrier| metrics(call, *carrier)).collect());
        Ok(Metrics {
            batch_items: counter(&registry, "eligo_batch_items_total", "Checks inside batches")?,
            fields_ignored: counter(
                &registry,
                "eligo_leniency_field_for_type_total",
                "Requests with fields that their connection type may not send",
            )?,
            type3_confirms: counter(
                &registry,
                "eligo_leniency_type3_confirm_total",
                "Confirms by organizations of connection type 3",
            )?,
            engine: EngineMetrics::new(&registry)?,
            kit: KitMetrics::new(&registry)?,
            calls: calls.into(),
            registry,
        })
    }

    /// Counts an answered call.
    pub fn answered(&self, call: Call, (carrier, outcome): (Carrier, Outcome), after: Duration) {
        let Some(by_carrier) = self.calls.get(call as usize) else { return };
        let Some(metrics) = by_carrier.iter().find(|one| one.carrier == carrier) else { return };
        if let Some(counter) = metrics.outcomes.get(outcome.index()) {
            counter.inc();
        }
        metrics.seconds.observe(after.as_secs_f64());
    }

    /// Counts an item of a batch; `lenient` where fields of it were ignored.
    pub fn item_checked(&self, lenient: bool) {
        self.batch_items.inc();
        if lenient {
            self.field_ignored();
        }
    }

    /// Counts a request with fields that were ignored (C-12).
    pub fn field_ignored(&self) {
        self.fields_ignored.inc();
    }

    /// Counts a confirm of connection type 3 (C-07).
    pub fn type3_confirmed(&self) {
        self.type3_confirms.inc();
    }

    /// Everything in the text format of Prometheus.
    pub fn print(&self, figures: &Figures, now: Timestamp) -> Result<String, prometheus::Error> {
        self.kit.take(&figures.kit, now);
        self.engine.take(&figures.engine, now);
        self.engine.take_journal(&figures.journal);
        self.engine.take_history(&figures.history);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl EngineMetrics {
    fn new(registry: &Registry) -> Result<EngineMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let by_shard = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["shard"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(EngineMetrics {
            ready: gauge("eligo_ready", "1 while everything promised is available")?,
            holders: gauge("eligo_holders", "Holders in the registry")?,
            revision: gauge("eligo_registry_revision", "Revision of the registry")?,
            transactions: gauge("eligo_transactions", "Transactions in memory")?,
            open_transactions: gauge(
                "eligo_open_transactions",
                "Transactions in memory that are neither confirmed nor cancelled",
            )?,
            trips: gauge("eligo_trips", "Trips in memory")?,
            waiting: by_shard("eligo_shard_waiting", "Commands that wait for a shard")?,
            up: by_shard("eligo_shard_up", "1 while a shard takes commands")?,
            frames: counter(registry, "eligo_journal_frames_total", "Frames appended")?,
            records: counter(registry, "eligo_journal_records_total", "Records appended")?,
            openings_dropped: counter(
                registry,
                "eligo_openings_dropped_total",
                "Opened transactions that were not journaled",
            )?,
            snapshot_age: gauge(
                "eligo_snapshot_age_seconds",
                "Age of the last snapshot, or -1 where there is none",
            )?,
            journal_bytes: counter(registry, "eligo_journal_bytes_total", "Bytes appended")?,
            journal_failed: counter(
                registry,
                "eligo_journal_failures_total",
                "Appends that did not become durable",
            )?,
            journal_syncs: registered(
                registry,
                Counter::new("eligo_journal_sync_seconds_total", "Time spent in syncs")?,
            )?,
            batch_records: gauge("eligo_journal_batch_records", "Records of the last frame")?,
            sync_seconds: registered(
                registry,
                Gauge::new("eligo_journal_sync_seconds", "Time of the last sync")?,
            )?,
            history_records: counter(
                registry,
                "eligo_history_records_total",
                "Settled transactions that can be found since the start",
            )?,
            history_behind: gauge(
                "eligo_history_behind",
                "1 while the history lacks something that is durable",
            )?,
            history_troubled: gauge(
                "eligo_history_troubled",
                "1 while something keeps the history from following",
            )?,
        })
    }

    fn take(&self, status: &EngineStatus, now: Timestamp) {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.ready.set(i64::from(status.ready));
        self.holders.set(whole(status.holders));
        self.revision.set(i64::try_from(status.revision.0).unwrap_or(i64::MAX));
        self.transactions.set(whole(status.transactions));
        self.open_transactions.set(whole(status.open_transactions));
        self.trips.set(whole(status.trips));
        for (shard, shard_status) in status.shards.iter().enumerate() {
            let shard = shard.to_string();
            self.waiting.with_label_values(&[&shard]).set(whole(shard_status.waiting));
            self.up.with_label_values(&[&shard]).set(i64::from(shard_status.up));
        }
        let raise = |counter: &IntCounter, to: u64| {
            counter.inc_by(to.saturating_sub(counter.get()));
        };
        raise(&self.frames, status.frames);
        raise(&self.records, status.records);
        raise(&self.openings_dropped, status.openings_dropped);
        let age = status.snapshot_at.map(|at| now.unix_seconds() - at.unix_seconds());
        self.snapshot_age.set(age.unwrap_or(-1));
    }

    fn take_journal(&self, stats: &JournalStats) {
        self.journal_bytes.inc_by(stats.bytes.saturating_sub(self.journal_bytes.get()));
        self.journal_failed.inc_by(stats.failed_appends.saturating_sub(self.journal_failed.get()));
        let syncs = Duration::from_nanos(stats.sync_ns).as_secs_f64();
        self.journal_syncs.inc_by((syncs - self.journal_syncs.get()).max(0.0));
        self.batch_records.set(i64::try_from(stats.last_records).unwrap_or(i64::MAX));
        self.sync_seconds.set(Duration::from_nanos(stats.last_sync_ns).as_secs_f64());
    }

    fn take_history(&self, stats: &HistoryStats) {
        let indexed = stats.indexed_count.saturating_sub(self.history_records.get());
        self.history_records.inc_by(indexed);
        self.history_behind.set(i64::from(stats.watermark < stats.told));
        self.history_troubled.set(i64::from(stats.trouble.is_some()));
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_and_outcome_has_its_own_counter() {
        for (at, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, at);
        }
        for (at, outcome) in Outcome::all().enumerate() {
            assert_eq!(outcome.index(), at);
        }
        let metrics = Metrics::new().unwrap();
        let unavailable = Outcome::Error(ApiError::Unavailable);
        let no_benefit = (Carrier::Social, Outcome::NoBenefit);
        metrics.answered(Call::Check, no_benefit, Duration::from_secs(3));
        metrics.answered(Call::Token, (Carrier::None, unavailable), Duration::ZERO);
        let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        let check = |line: &str| assert!(text.contains(line), "{line}");
        let social = "carrier=\"social\",method=\"check\"";
        check(&format!("eligo_requests_total{{{social},outcome=\"no_benefit\"}} 1"));
        check("eligo_requests_total{carrier=\"none\",method=\"token\",outcome=\"unavailable\"} 1");
        check(&format!("eligo_request_seconds_bucket{{{social},le=\"1.6384\"}} 0"));
        check(&format!("eligo_request_seconds_bucket{{{social},le=\"3\"}} 1"));
        check("eligo_request_seconds_count{carrier=\"ecs\",method=\"check\"} 0");
    }
}
