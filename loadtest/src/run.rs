//! Everything that a run brought: the JSON document that the other commands read.

use hdrhistogram::{AdditionError, Histogram};
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::downtime::Availability;
use crate::faults::Injected;
use crate::fleet::figures::FleetFigures;
use crate::histogram;
use crate::objective::Terms;
use crate::second::Second;
use crate::tally::{Carrier, Kind, Tally};
use crate::target::Sampled;
use crate::transport::Connections;

/// The version of the document.
pub const FORMAT: u32 = 1;
/// Wrong answers that are told in words.
pub const WRONG_ANSWERS_MAX: usize = 20;

/// A run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Open or closed.
    pub load: Load,
    /// Whether the processors of the tester's machine never slept.
    #[serde(default)]
    pub is_kept_awake: bool,
    /// When it began, RFC 3339, UTC.
    pub begun: String,
    /// How long requests were due, seconds.
    pub duration_seconds: f64,
    /// Whether it was ended before its plan.
    #[serde(default)]
    pub is_ended_early: bool,
    /// Requests by kind and carrier, in that order.
    pub tallies: Vec<Tallied>,
    /// Response and service of the requests that were answered rightly, the malformed ones apart;
    /// lateness of all that were due.
    pub times: Times,
    /// Response times by kind.
    pub kinds: Vec<KindTimes>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// What became of the connections.
    pub connections: Connections,
    /// The first wrong answers, without personal data: what was asked, what had to come, what came.
    pub wrong_answers: Vec<String>,
    /// What the tester itself could not do, so that the run proves less.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// What a caller beside the load saw.
    #[serde(default)]
    pub availability: Option<Availability>,
    /// The history compared with what was acknowledged.
    #[serde(default)]
    pub audit: Option<Audit>,
    /// What devices did beside checks, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetFigures>,
    /// What was done to the server on purpose.
    #[serde(default)]
    pub faults: Vec<Injected>,
    /// The server's own figures.
    #[serde(default)]
    pub target: Option<Sampled>,
    /// What it is judged by.
    #[serde(default)]
    pub terms: Terms,
}

/// Whether the rate follows the plan or the answers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// The next request waits for the answer to the last one; hides a stall.
    Closed,
    /// Requests are due when the plan says so.
    Open,
}

/// The tally of one kind and carrier.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tallied {
    /// Of which kind.
    pub kind: Kind,
    /// By which carrier.
    pub carrier: Carrier,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Three distributions, nanoseconds, as base64 of the compressed V2 form of HdrHistogram in JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Times {
    /// From the instant when the request was due to its answer.
    #[serde(with = "crate::histogram")]
    pub response: Histogram<u64>,
    /// From its sending to its answer.
    #[serde(with = "crate::histogram")]
    pub service: Histogram<u64>,
    /// From the instant when it was due to when the generator came to it.
    #[serde(with = "crate::histogram")]
    pub lateness: Histogram<u64>,
}

impl Times {
    /// Empty ones.
    pub fn new() -> Times {
        Times { response: histogram::new(), service: histogram::new(), lateness: histogram::new() }
    }

    /// Adds others; fails only on times beyond [`histogram::LONGEST_NS`], which none of ours holds.
    pub fn add(&mut self, other: &Times) -> Result<(), AdditionError> {
        self.response.add(&other.response)?;
        self.service.add(&other.service)?;
        self.lateness.add(&other.lateness)
    }
}

impl Default for Times {
    fn default() -> Times {
        Times::new()
    }
}

/// The response times of one kind, nanoseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KindTimes {
    /// Of which kind.
    pub kind: Kind,
    /// How long.
    #[serde(with = "crate::histogram")]
    pub response: Histogram<u64>,
}
