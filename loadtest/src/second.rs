//! One second of a run.

use serde::{Deserialize, Serialize};

/// Lateness from which on a second says nothing about the server, nanoseconds at the 99th percentile.
pub const TAINTED_LATENESS_NS: u64 = 1_000_000;

/// What happened in one second. Requests are counted in the second in which they were due or, where
/// the field says so, in which they ended. Times are nanoseconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Second {
    /// Which one, from 0.
    pub second: u64,
    /// Requests that were due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Answers of every kind that came.
    pub answered: u64,
    /// Decided by devices on their own.
    #[serde(default)]
    pub offline: u64,
    /// Rightly answered after more than 3 s.
    pub slow: u64,
    /// Found to be unanswered.
    pub unanswered: u64,
    /// Answered only that the server cannot.
    pub refused: u64,
    /// Answered wrongly.
    pub wrong: u64,
    /// Under way at its end.
    pub in_flight: u64,
    /// Response times of the answers that came: median.
    pub response_p50: u64,
    /// 99th percentile.
    pub response_p99: u64,
    /// 99.9th percentile.
    pub response_p999: u64,
    /// The longest.
    pub response_max: u64,
    /// Lateness of the generator: 99th percentile.
    pub lateness_p99: u64,
    /// Processor time of the generator, percent of one core.
    pub generator_cpu_percent: f64,
    /// Processor time that the hypervisor gave to others, percent of the machine.
    pub steal_percent: f64,
}

impl Second {
    /// Adds the same second of another generator of this run. Times become those of the slower one,
    /// which none of the parts exceeds; the steal of one machine is the same for all.
    pub fn add(&mut self, other: &Second) {
        self.due += other.due;
        self.sent += other.sent;
        self.answered += other.answered;
        self.offline += other.offline;
        self.slow += other.slow;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.wrong += other.wrong;
        self.in_flight += other.in_flight;
        self.response_p50 = self.response_p50.max(other.response_p50);
        self.response_p99 = self.response_p99.max(other.response_p99);
        self.response_p999 = self.response_p999.max(other.response_p999);
        self.response_max = self.response_max.max(other.response_max);
        self.lateness_p99 = self.lateness_p99.max(other.lateness_p99);
        self.generator_cpu_percent += other.generator_cpu_percent;
        self.steal_percent = self.steal_percent.max(other.steal_percent);
    }

    /// Whether the generator was too late for this second to say anything about the server.
    pub fn is_tainted(&self) -> bool {
        self.lateness_p99 > TAINTED_LATENESS_NS
    }
}
