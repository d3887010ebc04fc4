//! What the link counts, in the text format of Prometheus. No label names a device.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use validator::link::message::Kind;

/// Upper bounds of the answer times but the last, which is infinite: 16 µs and each twice the one
/// before.
const BOUNDS: usize = 17;
const FIRST_BOUND_NANOS: u64 = 16_000;

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The certificate is over, or not begun.
    Expired,
    /// The terminal or its organization is not active.
    Inactive,
    /// Too many connections or handshakes.
    Overload,
    /// The certificate was revoked.
    Revoked,
    /// The handshake did not end in time or failed otherwise.
    Unfinished,
    /// No certificate of the authority.
    Unknown,
}

impl Refused {
    const ALL: [Refused; 6] = [
        Refused::Expired,
        Refused::Inactive,
        Refused::Overload,
        Refused::Revoked,
        Refused::Unfinished,
        Refused::Unknown,
    ];

    fn label(self) -> &'static str {
        match self {
            Refused::Expired => "expired",
            Refused::Inactive => "inactive",
            Refused::Overload => "overload",
            Refused::Revoked => "revoked",
            Refused::Unfinished => "unfinished",
            Refused::Unknown => "unknown",
        }
    }
}

/// The requests that are counted by kind, then everything else.
const KINDS: [(Kind, &str); 8] = [
    (Kind::Hello, "hello"),
    (Kind::Check, "check"),
    (Kind::Confirm, "confirm"),
    (Kind::Cancel, "cancel"),
    (Kind::TripBatch, "trip_batch"),
    (Kind::RegistryPull, "registry_pull"),
    (Kind::RegistryAck, "registry_ack"),
    (Kind::Ping, "ping"),
];

/// The counters of the link.
#[derive(Debug, Default)]
pub struct LinkMetrics {
    accepted: AtomicU64,
    resumed: AtomicU64,
    superseded: AtomicU64,
    retried: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    messages: [AtomicU64; KINDS.len() + 1],
    failures: AtomicU64,
    throttled: AtomicU64,
    pushes: AtomicU64,
    answers: Times,
}

#[derive(Debug, Default)]
struct Times {
    counts: [AtomicU64; BOUNDS + 1],
    nanos: AtomicU64,
}

impl LinkMetrics {
    /// Counts a connection that was let in; `resumed` where its session is an earlier one's.
    pub fn let_in(&self, resumed: bool) {
        add(&self.accepted, 1);
        add(&self.resumed, u64::from(resumed));
    }

    /// Counts a connection that was not.
    pub fn refused(&self, why: Refused) {
        if let Some(counter) = self.refused.get(why as usize) {
            add(counter, 1);
        }
    }

    /// Counts a handshake whose address had to be proven first.
    pub fn retried(&self) {
        add(&self.retried, 1);
    }

    /// Counts a connection that ended because its terminal connected anew.
    pub fn superseded(&self) {
        add(&self.superseded, 1);
    }

    /// Counts `count` messages of a kind.
    pub fn messages(&self, kind: Option<Kind>, count: u64) {
        let known = KINDS.iter().position(|(known, _)| Some(*known) == kind);
        if let Some(counter) = self.messages.get(known.unwrap_or(KINDS.len())) {
            add(counter, count);
        }
    }

    /// Counts a message that was answered with a failure.
    pub fn failed(&self) {
        add(&self.failures, 1);
    }

    /// Counts a pause of a device that sent too much.
    pub fn throttled(&self) {
        add(&self.throttled, 1);
    }

    /// Counts pushes.
    pub fn pushed(&self, count: u64) {
        add(&self.pushes, count);
    }

    /// Counts `count` answers that took `after` each.
    pub fn answered(&self, count: u64, after: Duration) {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let steps = (nanos / FIRST_BOUND_NANOS).checked_ilog2().map_or(0, |log| log + 1);
        let at = usize::try_from(steps).unwrap_or(BOUNDS).min(BOUNDS);
        if let Some(counter) = self.answers.counts.get(at) {
            add(counter, count);
        }
        add(&self.answers.nanos, nanos.saturating_mul(count));
    }

    /// Appends everything; `connections` are open now.
    pub fn print(&self, connections: usize, out: &mut String) {
        let mut gauge = Page { out };
        gauge.one("eligo_link_connections", "gauge", "Devices connected", to_u64(connections));
        gauge.one(
            "eligo_link_accepted_total",
            "counter",
            "Connections let in",
            get(&self.accepted),
        );
        gauge.one("eligo_link_resumed_total", "counter", "Sessions resumed", get(&self.resumed));
        gauge.one("eligo_link_retried_total", "counter", "Addresses proven", get(&self.retried));
        let help = "Connections ended by a newer one";
        gauge.one("eligo_link_superseded_total", "counter", help, get(&self.superseded));
        let help = "Connections not let in, by cause";
        gauge.head("eligo_link_refused_total", "counter", help);
        for (why, counter) in Refused::ALL.iter().zip(&self.refused) {
            gauge.labelled("eligo_link_refused_total", "cause", why.label(), get(counter));
        }
        gauge.head("eligo_link_messages_total", "counter", "Messages by kind");
        let labels = KINDS.iter().map(|(_, label)| *label).chain(["other"]);
        for (label, counter) in labels.zip(&self.messages) {
            gauge.labelled("eligo_link_messages_total", "kind", label, get(counter));
        }
        gauge.one("eligo_link_failures_total", "counter", "Failures answered", get(&self.failures));
        gauge.one("eligo_link_throttled_total", "counter", "Pauses", get(&self.throttled));
        gauge.one("eligo_link_pushes_total", "counter", "Pushes", get(&self.pushes));
        gauge.times("eligo_link_answer_seconds", "Time to answer", &self.answers);
    }
}

struct Page<'a> {
    out: &'a mut String,
}

// Writing into a string cannot fail.
impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _infallible = writeln!(self.out, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, key: &str, label: &str, value: u64) {
        let _infallible = writeln!(self.out, "{name}{{{key}=\"{label}\"}} {value}");
    }

    fn times(&mut self, name: &str, help: &str, times: &Times) {
        self.head(name, "histogram", help);
        let mut below = 0;
        for (at, counter) in times.counts.iter().enumerate() {
            below += get(counter);
            let power = i32::try_from(at).unwrap_or(i32::MAX);
            let bound = Duration::from_nanos(FIRST_BOUND_NANOS).as_secs_f64() * 2_f64.powi(power);
            let label = if at == BOUNDS { "+Inf".to_owned() } else { bound.to_string() };
            self.labelled(&format!("{name}_bucket"), "le", &label, below);
        }
        let seconds = Duration::from_nanos(get(&times.nanos)).as_secs_f64();
        let _infallible = writeln!(self.out, "{name}_sum {seconds}\n{name}_count {below}");
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_under_their_names() {
        for (at, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
        let metrics = LinkMetrics::default();
        metrics.messages(Some(Kind::Check), 3);
        metrics.messages(None, 1);
        metrics.refused(Refused::Revoked);
        metrics.answered(2, Duration::from_micros(20));
        metrics.answered(1, Duration::from_secs(100));
        let mut text = String::new();
        metrics.print(4, &mut text);
        let check = |line: &str| assert!(text.contains(line), "{line}\n{text}");
        check("eligo_link_connections 4\n");
        check("eligo_link_messages_total{kind=\"check\"} 3\n");
        check("eligo_link_messages_total{kind=\"other\"} 1\n");
        check("eligo_link_refused_total{cause=\"revoked\"} 1\n");
        check("eligo_link_answer_seconds_bucket{le=\"0.000016\"} 0\n");
        check("eligo_link_answer_seconds_bucket{le=\"0.000032\"} 2\n");
        check("eligo_link_answer_seconds_bucket{le=\"+Inf\"} 3\n");
        check("eligo_link_answer_seconds_count 3\n");
    }
}
