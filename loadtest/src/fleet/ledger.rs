//! The trips of one device: recorded, uploaded, answered.
//!
//! Every trip that was recorded must be answered, exactly as is foretold. What was sent and not
//! answered is sent again, and may then be a duplicate; what was answered and is sent again on
//! purpose must be one.

use std::collections::VecDeque;

use engine::identifier::Digest;
use serde_bytes::ByteArray;
use validator::trip::{Trip, TripEvent, TripMode, TripResult, TripStatus};
use validator::verdict::Verdict;

use crate::fleet::figures::TripFigures;

/// Trips that wait on one device; what comes then is not recorded, as on a device that is full.
pub const TRIPS_MAX: usize = 100_000;
/// What a journey costs, kopecks; any percentage of it is a whole number.
const TARIFF_KOPECKS: u64 = 3_000;

/// One use of a right, as small as it can be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tap {
    /// The card.
    pub digest: Digest,
    /// For which service.
    pub service: u32,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The holder registry of the device, 0 for none.
    pub registry: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// The category, where one was granted.
    pub category: Option<u32>,
    /// Size of the benefit, percent.
    pub discount: u8,
    /// The transaction, where the server decided.
    pub transaction: Option<u64>,
}

/// A recorded trip.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sequence: u64,
    tap: Tap,
    /// Sent before, without an answer.
    is_sent: bool,
    /// Answered before, and sent on purpose.
    is_answered: bool,
}

/// The trips of one device.
#[derive(Debug)]
pub struct Ledger {
    last: u64,
    waiting: VecDeque<Entry>,
    under_way: Vec<Entry>,
    figures: TripFigures,
    /// The first trip that was answered wrongly, in words that are nobody's.
    fault: Option<String>,
}

impl Ledger {
    /// An empty one; `first` is above every number that the terminal has used before.
    pub fn new(first: u64) -> Ledger {
        let (waiting, under_way) = (VecDeque::new(), Vec::new());
        Ledger { last: first, waiting, under_way, figures: TripFigures::default(), fault: None }
    }

    /// Records a trip, unless the device is full.
    pub fn record(&mut self, tap: Tap) {
        if self.waiting.len() + self.under_way.len() >= TRIPS_MAX {
            self.figures.refused += 1;
            return;
        }
        self.last += 1;
        self.figures.recorded += 1;
        let (is_sent, is_answered) = (false, false);
        self.waiting.push_back(Entry { sequence: self.last, tap, is_sent, is_answered });
    }

    /// The next trips to send, at most so many; one call at a time.
    pub fn next_batch(&mut self, count: usize) -> Vec<Trip> {
        self.put_back();
        let count = count.min(self.waiting.len());
        self.under_way.extend(self.waiting.drain(..count));
        self.under_way.iter().map(|entry| trip(entry.sequence, &entry.tap)).collect()
    }

    /// There is no answer: the trips wait again.
    pub fn put_back(&mut self) {
        for entry in self.under_way.drain(..).rev() {
            self.waiting.push_front(Entry { is_sent: true, ..entry });
        }
    }

    /// The answers to the trips under way; whether more may be sent at once. `repeats` says whether
    /// a trip is sent once more.
    pub fn settle(&mut self, results: &[TripResult], mut repeats: impl FnMut() -> bool) -> bool {
        if results.len() != self.under_way.len() {
            let (came, sent) = (results.len(), self.under_way.len());
            self.wrong(|| format!("{came} results came for {sent} trips"));
            self.put_back();
            return false;
        }
        let put_off = self.figures.put_off;
        for (entry, result) in std::mem::take(&mut self.under_way).into_iter().zip(results) {
            if result.status == TripStatus::Unavailable {
                self.figures.put_off += 1;
                self.waiting.push_back(Entry { is_sent: true, ..entry });
                continue;
            }
            self.judge(&entry, result);
            if !entry.is_answered && repeats() {
                self.figures.repeated += 1;
                self.waiting.push_back(Entry { is_answered: true, ..entry });
            }
        }
        self.figures.put_off == put_off
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// What became of the trips, those that still wait counted as lost; the first fault.
    pub fn finish(&mut self) -> (TripFigures, Option<String>) {
        self.put_back();
        let lost = self.waiting.iter().filter(|entry| !entry.is_answered).count();
        self.figures.lost = u64::try_from(lost).unwrap_or(u64::MAX);
        (self.figures, self.fault.take())
    }

    fn judge(&mut self, entry: &Entry, result: &TripResult) {
        let expected = expected(&entry.tap);
        let (status, reason) = (result.status, result.reason);
        let may_be_known = entry.is_sent || entry.is_answered;
        let figures = &mut self.figures;
        if result.seq != entry.sequence {
            return self.wrong(|| "a result came for another trip".to_owned());
        }
        match status {
            // What became of the first one is told as long as it is known.
            TripStatus::Duplicate if result.first.is_some_and(|first| first != expected) => {
                self.wrong(|| format!("had been {expected:?}; is said to be {:?}", result.first));
            }
            TripStatus::Duplicate if entry.is_answered => {}
            TripStatus::Duplicate if may_be_known => figures.duplicate += 1,
            _ if entry.is_answered && status != TripStatus::Conflict => figures.doubled += 1,
            TripStatus::Accepted if status == expected => figures.accepted += 1,
            TripStatus::Disputed if status == expected => figures.disputed += 1,
            TripStatus::Rejected if status == expected => figures.rejected += 1,
            _ => {
                self.wrong(|| format!("had to be {expected:?}; came {status:?} ({reason:?})"));
            }
        }
    }

    fn wrong(&mut self, words: impl FnOnce() -> String) {
        self.figures.wrong += 1;
        self.fault.get_or_insert_with(|| format!("trip: {}", words()));
    }
}

/// What must become of a trip that was decided by the rules.
fn expected(tap: &Tap) -> TripStatus {
    let needs_registry = tap.transaction.is_none() && tap.verdict == Verdict::Grant;
    // A grant without any registry is one that a person must look at.
    if needs_registry && tap.registry == 0 { TripStatus::Disputed } else { TripStatus::Accepted }
}

fn trip(seq: u64, tap: &Tap) -> Trip {
    let is_grant = tap.verdict == Verdict::Grant;
    let mode = if tap.transaction.is_some() { TripMode::Online } else { TripMode::Offline };
    let discount = if is_grant { tap.discount } else { 0 };
    Trip {
        seq,
        terminal: None,
        trip_id: None,
        event: if is_grant { TripEvent::Boarding } else { TripEvent::Check },
        mode,
        at_ms: tap.at_ms,
        clock_offset_ms: 0,
        service: tap.service,
        route: "7".to_owned(),
        vehicle: String::new(),
        from_stop: String::new(),
        to_stop: String::new(),
        id_hash: ByteArray::new(tap.digest.0),
        registry_version: tap.registry,
        verdict: tap.verdict,
        category: tap.category.filter(|_| is_grant),
        companion: false,
        tariff: TARIFF_KOPECKS,
        discount,
        benefit: TARIFF_KOPECKS / 100 * u64::from(discount),
        ticket: String::new(),
        tx: tap.transaction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Tap = Tap {
        digest: Digest([1; 16]),
        service: 1,
        at_ms: 0,
        registry: 3,
        verdict: Verdict::Grant,
        category: Some(2),
        discount: 50,
        transaction: None,
    };

    fn ledger(trips: u64) -> Ledger {
        let mut ledger = Ledger::new(10);
        (0..trips).for_each(|_| ledger.record(GRANT));
        ledger
    }

    /// Sends all that waits and answers every trip like this.
    fn answer(ledger: &mut Ledger, status: TripStatus, repeats: bool) {
        let trips = ledger.next_batch(usize::MAX);
        let result = |trip: &Trip| TripResult { seq: trip.seq, status, reason: None, first: None };
        let results: Vec<TripResult> = trips.iter().map(result).collect();
        ledger.settle(&results, || repeats);
    }

    #[test]
    fn what_is_accepted_is_done_with() {
        let mut ledger = ledger(3);
        let sequences: Vec<u64> = ledger.next_batch(2).iter().map(|trip| trip.seq).collect();
        assert_eq!(sequences, [11, 12]);
        ledger.put_back();
        answer(&mut ledger, TripStatus::Accepted, false);
        assert!(ledger.is_empty());
        let (figures, fault) = ledger.finish();
        assert_eq!((figures.recorded, figures.accepted, figures.lost), (3, 3, 0));
        assert_eq!(fault, None);
    }

    #[test]
    fn a_trip_without_an_answer_may_be_a_duplicate_and_a_new_one_may_not() {
        let mut early = ledger(1);
        drop(early.next_batch(1));
        answer(&mut early, TripStatus::Duplicate, false);
        assert_eq!(early.finish().0.duplicate, 1);
        let mut new = ledger(1);
        answer(&mut new, TripStatus::Duplicate, false);
        assert_eq!(new.finish().0.wrong, 1);
    }

    #[test]
    fn a_repeat_must_be_a_duplicate() {
        for (status, doubled) in [(TripStatus::Duplicate, 0), (TripStatus::Accepted, 1)] {
            let mut ledger = ledger(1);
            answer(&mut ledger, TripStatus::Accepted, true);
            assert!(!ledger.is_empty());
            answer(&mut ledger, status, true);
            let (figures, _) = ledger.finish();
            assert_eq!((figures.repeated, figures.doubled, figures.lost), (1, doubled, 0));
            assert_eq!((figures.accepted, figures.wrong), (1, 0));
        }
    }

    #[test]
    fn what_is_put_off_or_never_answered_is_lost() {
        let mut ledger = ledger(2);
        answer(&mut ledger, TripStatus::Unavailable, false);
        assert_eq!(ledger.next_batch(1).len(), 1);
        let (figures, _) = ledger.finish();
        assert_eq!((figures.put_off, figures.lost), (2, 2));
    }

    #[test]
    fn other_answers_are_wrong() {
        for status in [TripStatus::Conflict, TripStatus::Disputed, TripStatus::Rejected] {
            let mut ledger = ledger(1);
            answer(&mut ledger, status, false);
            let (figures, fault) = ledger.finish();
            assert_eq!(figures.wrong, 1);
            assert!(fault.unwrap().contains("Accepted"));
        }
        let mut short = ledger(2);
        drop(short.next_batch(2));
        short.settle(&[], || false);
        assert_eq!(short.finish().0.lost, 2);
    }

    #[test]
    fn a_grant_without_a_registry_must_be_disputed() {
        let mut ledger = Ledger::new(0);
        ledger.record(Tap { registry: 0, ..GRANT });
        answer(&mut ledger, TripStatus::Disputed, false);
        assert_eq!(ledger.finish().0.disputed, 1);
    }
}
