//! How long to wait before the next attempt.

use crate::random::Random;

/// Doubles with every failure; half of each wait is chance, so that a fleet does not come back as one.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first_ms: u64,
    last_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Waits between about `first_ms` and `last_ms`.
    pub const fn new(first_ms: u64, last_ms: u64) -> Backoff {
        Backoff { first_ms, last_ms, failures: 0 }
    }

    /// Takes a failure, and tells how long to wait.
    pub fn failed(&mut self, random: &mut Random) -> u64 {
        let factor = 1_u64.checked_shl(self.failures.min(32)).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        let wait_ms = self.first_ms.saturating_mul(factor).min(self.last_ms);
        wait_ms / 2 + random.below(wait_ms / 2 + 1)
    }

    /// Takes a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last() {
        let (mut random, mut backoff) = (Random::new(1), Backoff::new(1_000, 60_000));
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let wait_ms = backoff.failed(&mut random);
            assert!((expected / 2..=expected).contains(&wait_ms), "{wait_ms}");
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut random) <= 1_000);
    }
}
