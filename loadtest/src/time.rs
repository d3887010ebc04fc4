//! Instants of a run.

use std::ops::{Add, Sub};

/// Nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Nanos(pub u64);

impl Nanos {
    /// An instant that never comes.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Nanos {
        Nanos(millis.saturating_mul(1_000_000))
    }

    /// So many seconds.
    pub const fn from_seconds(seconds: u64) -> Nanos {
        Nanos(seconds.saturating_mul(1_000_000_000))
    }

    /// The second of the run that holds this instant, from 0.
    pub const fn second(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

impl Add for Nanos {
    type Output = Nanos;

    /// Never past [`Nanos::NEVER`].
    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }
}

impl Sub for Nanos {
    type Output = Nanos;

    /// Never before the start.
    fn sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

/// Where the time comes from: the machine's monotonic clock, or a test.
pub trait Clock {
    /// The present instant of the run.
    fn now(&self) -> Nanos;
}
