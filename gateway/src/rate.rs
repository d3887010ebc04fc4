//! How many calls an organization may make: a bucket of tokens each, that fills at a steady rate.
//!
//! A call is let in while the bucket holds a token. A batch takes one for each of its checks and may
//! leave a debt, which is paid before the next call; so it is never too large to be let in.
//!
//! # Why
//! A bucket is one number, the instant at which it will be full again; taking a token moves it
//! forward by one compare-and-swap. The instants are those of the gateway's clock: should it be set
//! back further than a bucket can owe, the bucket counts as full.

use std::sync::atomic::{AtomicI64, Ordering};

use dashmap::DashMap;
use engine::calendar::Timestamp;
use engine::ids::OrganizationId;
use engine::limits::BATCH_CHECKS_MAX;

/// How fast and how much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Calls a second in the long run.
    pub per_second: u32,
    /// Calls at once after a pause.
    pub burst: u32,
}

/// The buckets of all organizations that have called.
pub struct RateLimits {
    token_nanos: i64,
    burst_nanos: i64,
    debt_nanos_max: i64,
    full_at_nanos: DashMap<OrganizationId, AtomicI64, foldhash::fast::FixedState>,
}

impl RateLimits {
    /// Full buckets.
    pub fn new(rate: Rate) -> RateLimits {
        let token_nanos = 1_000_000_000 / i64::from(rate.per_second.max(1));
        RateLimits {
            token_nanos,
            burst_nanos: token_nanos.saturating_mul(i64::from(rate.burst.max(1))),
            debt_nanos_max: token_nanos.saturating_mul(tokens(BATCH_CHECKS_MAX)),
            full_at_nanos: DashMap::with_hasher(foldhash::fast::FixedState::default()),
        }
    }

    /// Takes a token for a call at `now`; false where there is none.
    pub fn take(&self, organization: OrganizationId, now: Timestamp) -> bool {
        self.change(organization, now, |owed| {
            let after = owed.saturating_add(self.token_nanos);
            (after <= self.burst_nanos).then_some(after)
        })
    }

    /// Takes `count` more tokens for a call that was let in, if need be on credit.
    pub fn charge(&self, organization: OrganizationId, count: usize, now: Timestamp) {
        let more = self.token_nanos.saturating_mul(tokens(count));
        self.change(organization, now, |owed| {
            Some(
                owed.saturating_add(more).min(self.burst_nanos.saturating_add(self.debt_nanos_max)),
            )
        });
    }

    /// Changes how long a bucket needs to be full again, unless `change` refuses.
    fn change(
        &self,
        organization: OrganizationId,
        now: Timestamp,
        change: impl Fn(i64) -> Option<i64>,
    ) -> bool {
        let now = now.0.saturating_mul(1_000);
        let update = |full_at: i64| {
            let owed = full_at.saturating_sub(now).max(0);
            let is_set_back = owed > self.burst_nanos.saturating_add(self.debt_nanos_max);
            change(if is_set_back { 0 } else { owed }).map(|owed| now.saturating_add(owed))
        };
        let changed = |bucket: &AtomicI64| {
            bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).is_ok()
        };
        if let Some(bucket) = self.full_at_nanos.get(&organization) {
            return changed(&bucket);
        }
        changed(&self.full_at_nanos.entry(organization).or_default())
    }
}

fn tokens(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: OrganizationId = OrganizationId(1);
    const OTHER: OrganizationId = OrganizationId(2);

    fn at(millis: i64) -> Timestamp {
        Timestamp(1_700_000_000_000_000 + millis * 1_000)
    }

    /// How many of ten calls are let in.
    fn of_ten(limits: &RateLimits, organization: OrganizationId, millis: i64) -> usize {
        (0..10).filter(|_| limits.take(organization, at(millis))).count()
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let limits = RateLimits::new(Rate { per_second: 10, burst: 3 });
        let check =
            |millis, expected| assert_eq!(of_ten(&limits, ONE, millis), expected, "{millis}");
        check(0, 3);
        check(99, 0);
        check(100, 1);
        check(150, 0);
        check(350, 2);
        check(100_000, 3);
    }

    #[test]
    fn organizations_have_buckets_of_their_own() {
        let limits = RateLimits::new(Rate { per_second: 1, burst: 2 });
        assert_eq!(of_ten(&limits, ONE, 0), 2);
        assert_eq!(of_ten(&limits, OTHER, 0), 2);
    }

    #[test]
    fn a_batch_may_leave_a_debt() {
        let limits = RateLimits::new(Rate { per_second: 10, burst: 2 });
        assert!(limits.take(ONE, at(0)));
        limits.charge(ONE, 9, at(0));
        // Ten tokens were taken of two: eight are owed, and the ninth is the next call's.
        assert_eq!(of_ten(&limits, ONE, 899), 0);
        assert_eq!(of_ten(&limits, ONE, 900), 1);
        // No debt is larger than that of the largest batch.
        limits.charge(ONE, usize::MAX, at(900));
        assert_eq!(of_ten(&limits, ONE, 900), 0);
        assert_eq!(of_ten(&limits, ONE, 900 + 1_000_000), 0);
        assert_eq!(of_ten(&limits, ONE, 900 + 1_000_100), 1);
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let limits = RateLimits::new(Rate { per_second: 10, burst: 2 });
        assert_eq!(of_ten(&limits, ONE, 100_000_000), 2);
        assert_eq!(of_ten(&limits, ONE, 0), 2);
    }

    #[test]
    fn calls_at_once_take_no_token_twice() {
        let limits = RateLimits::new(Rate { per_second: 1, burst: 100 });
        let taken = std::thread::scope(|scope| {
            let take = || (0..50).filter(|_| limits.take(ONE, at(0))).count();
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(taken, 100);
    }
}
