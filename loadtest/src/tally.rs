//! What is counted of requests.

use serde::{Deserialize, Serialize};

use crate::time::Nanos;

/// A right answer that takes longer counts as none (D0 §6.4, §7.4).
pub const SLOW: Nanos = Nanos::from_seconds(3);

/// What a request is, for counting.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Many checks in one call.
    Batch,
    /// A cancel.
    Cancel,
    /// A check.
    Check,
    /// A confirm.
    Confirm,
    /// A history request.
    History,
    /// A request that must be refused.
    Malformed,
    /// A confirm or cancel that was answered before, sent again.
    Repeat,
    /// A services request.
    Services,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 8] = [
        Kind::Batch,
        Kind::Cancel,
        Kind::Check,
        Kind::Confirm,
        Kind::History,
        Kind::Malformed,
        Kind::Repeat,
        Kind::Services,
    ];

    /// As documents write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Batch => "batch",
            Kind::Cancel => "cancel",
            Kind::Check => "check",
            Kind::Confirm => "confirm",
            Kind::History => "history",
            Kind::Malformed => "malformed",
            Kind::Repeat => "repeat",
            Kind::Services => "services",
        }
    }
}

/// What carried the identifier; the documents set the service level of each on its own
/// (D0 §6.4, §7.4).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// An `ecs` card.
    Ecs,
    /// No card is involved, or several.
    None,
    /// The insurance number.
    Snils,
    /// A social card.
    Social,
}

impl Carrier {
    /// Every carrier, in order.
    pub const ALL: [Carrier; 4] = [Carrier::Ecs, Carrier::None, Carrier::Snils, Carrier::Social];

    /// As documents and the server's metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Ecs => "ecs",
            Carrier::None => "none",
            Carrier::Snils => "snils",
            Carrier::Social => "social",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A device decided on its own, as it had to be: the link brought no answer in its time.
    Offline,
    /// Answered, but only that the server cannot: 429, 5xx, result code 6.
    Refused,
    /// Answered as it must be.
    Right,
    /// Not sent, or not answered by the end.
    Unanswered,
    /// Answered otherwise than it must be.
    Wrong,
}

/// The requests of one kind and carrier.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// Decided by a device on its own, rightly.
    #[serde(default)]
    pub offline: u64,
    /// Answered only that the server cannot.
    pub refused: u64,
    /// Answered rightly, whenever.
    pub right: u64,
    /// Those of `right` whose response time was above 3 s (D0 §6.4).
    pub slow: u64,
    /// Not answered.
    pub unanswered: u64,
    /// Answered wrongly.
    pub wrong: u64,
}

impl Tally {
    /// All requests that were due.
    pub fn due(&self) -> u64 {
        self.offline + self.refused + self.right + self.unanswered + self.wrong
    }

    /// Those that the contract calls not successful: later than 3 s, not answered, or answered only
    /// that the server cannot.
    pub fn slow_or_unanswered(&self) -> u64 {
        self.slow + self.unanswered + self.refused
    }

    /// The count of an outcome.
    pub fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Offline => &mut self.offline,
            Outcome::Refused => &mut self.refused,
            Outcome::Right => &mut self.right,
            Outcome::Unanswered => &mut self.unanswered,
            Outcome::Wrong => &mut self.wrong,
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.offline += other.offline;
        self.refused += other.refused;
        self.right += other.right;
        self.slow += other.slow;
        self.unanswered += other.unanswered;
        self.wrong += other.wrong;
    }
}
