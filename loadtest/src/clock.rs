//! The machine's monotonic clock.

use std::time::Instant;

use crate::time::{Clock, Nanos};

/// Counts from when it was started; copies count from the same instant.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic(Instant);

impl Monotonic {
    /// Starts a run now.
    pub fn start() -> Monotonic {
        Monotonic(Instant::now())
    }

    /// As if the run had begun a minute ago.
    #[cfg(test)]
    pub fn started_before() -> Monotonic {
        Monotonic(Instant::now() - std::time::Duration::from_secs(60))
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Nanos {
        // 584 years fit.
        Nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
