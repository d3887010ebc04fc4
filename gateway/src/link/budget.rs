//! How many messages a device may send: a bucket of tokens that fills at a steady rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The bucket of one device: the nanosecond of its life at which it will be full again.
#[derive(Debug)]
pub struct MessageBudget {
    begun: Instant,
    token_nanos: u64,
    burst_nanos: u64,
    full_at_nanos: AtomicU64,
}

impl MessageBudget {
    /// A full bucket; a rate of 0 never empties it.
    pub fn new(per_second: u32, burst: u32) -> MessageBudget {
        let token_nanos = 1_000_000_000_u64.checked_div(u64::from(per_second)).unwrap_or(0);
        MessageBudget {
            begun: Instant::now(),
            token_nanos,
            burst_nanos: token_nanos.saturating_mul(u64::from(burst.max(1))),
            full_at_nanos: AtomicU64::new(0),
        }
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        self.token_nanos > 0
    }

    /// Takes up to `wanted` tokens at `now`; returns how many there were.
    pub fn take(&self, wanted: u32, now: Instant) -> u32 {
        if !self.is_limited() {
            return wanted;
        }
        let since = now.saturating_duration_since(self.begun).as_nanos();
        let now = u64::try_from(since).unwrap_or(u64::MAX);
        let mut taken = 0;
        // The update succeeds: it never declines.
        let _updated =
            self.full_at_nanos.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                let owed = at.saturating_sub(now);
                let free = self.burst_nanos.saturating_sub(owed) / self.token_nanos.max(1);
                taken = wanted.min(u32::try_from(free).unwrap_or(u32::MAX));
                let more = self.token_nanos.saturating_mul(u64::from(taken));
                Some(now.saturating_add(owed).saturating_add(more))
            });
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let budget = MessageBudget::new(10, 5);
        let begun = budget.begun;
        let check = |millis, wanted, expected| {
            let now = begun + Duration::from_millis(millis);
            assert_eq!(budget.take(wanted, now), expected, "{millis}");
        };
        check(0, 3, 3);
        check(0, 3, 2);
        check(50, 1, 0);
        check(100, 3, 1);
        check(60_000, 9, 5);
        assert_eq!(MessageBudget::new(0, 1).take(1_000_000, begun), 1_000_000);
    }
}
