//! Checks that were granted: open ones wait for their think time to pass, settled ones are
//! remembered for a while so that they can be repeated. Both lists have a limit; past it an open
//! check is left to itself, and a settled one takes the place of another.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::numbers::{Numbers, mix};
use crate::places::PlaceKey;
use crate::tally::Carrier;
use crate::time::Nanos;

/// Open checks that wait.
pub const OPEN_MAX: usize = 1 << 16;
/// Settled checks that are remembered.
pub const SETTLED_MAX: usize = 1 << 12;

/// An open check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Open {
    /// As the server named it.
    pub transaction: u64,
    /// The limited use that it holds for sure.
    pub place: Option<PlaceKey>,
    /// Whose, by place in the sample.
    pub holder: u32,
    /// By whom, by place.
    pub organization: u16,
    /// What was granted, by place.
    pub category: u16,
    /// Of what, by place.
    pub service: u16,
    /// Whose card it was.
    pub carrier: Carrier,
    /// Whether a confirm was sent before and not answered.
    pub is_retried: bool,
}

/// What is paid, kopecks: the full price and what is left of it. Derived from the transaction, so
/// that a repeat says the same.
pub fn amounts(transaction: u64) -> Option<(u32, u32)> {
    let mut numbers = Numbers::of(transaction, 0);
    let price = u32::try_from(numbers.below(200_000)).unwrap_or_default() + 2;
    let percent = u32::try_from(numbers.below(101)).unwrap_or_default();
    (!mix(transaction).is_multiple_of(8)).then_some((price, price / 100 * percent))
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Nanos,
    number: u64,
    open: Open,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Waiting {}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

/// Open checks, by when they are due.
#[derive(Default)]
pub struct OpenChecks {
    waiting: BinaryHeap<Reverse<Waiting>>,
    count: u64,
}

impl OpenChecks {
    /// Lets a check wait, unless too many do.
    pub fn push(&mut self, open: Open, due: Nanos) {
        if self.waiting.len() < OPEN_MAX {
            self.count += 1;
            self.waiting.push(Reverse(Waiting { due, number: self.count, open }));
        }
    }

    /// The check that was due first, if its time has come.
    pub fn pop(&mut self, now: Nanos) -> Option<Open> {
        let is_due = self.waiting.peek().is_some_and(|first| first.0.due <= now);
        is_due.then(|| self.waiting.pop()).flatten().map(|first| first.0.open)
    }
}

/// A settled check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settled {
    /// What was settled.
    pub open: Open,
    /// Cancelled, or else confirmed.
    pub is_cancelled: bool,
}

/// Settled checks, some of those of late.
#[derive(Default)]
pub struct SettledChecks(Vec<Settled>);

impl SettledChecks {
    /// Remembers one.
    pub fn push(&mut self, settled: Settled, numbers: &mut Numbers) {
        if self.0.len() < SETTLED_MAX {
            return self.0.push(settled);
        }
        let place = numbers.place(self.0.len());
        if let Some(old) = self.0.get_mut(place) {
            *old = settled;
        }
    }

    /// One of them.
    pub fn pick(&self, numbers: &mut Numbers) -> Option<Settled> {
        numbers.pick(&self.0).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(transaction: u64) -> Open {
        Open {
            transaction,
            place: None,
            holder: 0,
            organization: 0,
            category: 0,
            service: 0,
            carrier: Carrier::Ecs,
            is_retried: false,
        }
    }

    #[test]
    fn open_checks_wait_for_their_time() {
        let mut checks = OpenChecks::default();
        for transaction in [3, 1, 2] {
            checks.push(open(transaction), Nanos(10 * transaction));
        }
        assert_eq!(checks.pop(Nanos(9)), None);
        assert_eq!(checks.pop(Nanos(10)), Some(open(1)));
        assert_eq!(checks.pop(Nanos(10)), None);
        assert_eq!(checks.pop(Nanos(30)), Some(open(2)));
        assert_eq!(checks.pop(Nanos(30)), Some(open(3)));
        (0..=2 * OPEN_MAX as u64).for_each(|number| checks.push(open(number), Nanos(0)));
        assert_eq!(checks.waiting.len(), OPEN_MAX);
    }

    #[test]
    fn amounts_are_in_order() {
        let mut without = 0;
        for transaction in 1..10_000 {
            match amounts(transaction) {
                Some((price, discounted)) => assert!(discounted <= price && price > 0),
                None => without += 1,
            }
        }
        assert!((1_000..1_500).contains(&without), "{without}");
    }
}
