//! The table of transactions: an array in segments, found by id without hashing.
//!
//! Ids are handed out one after the other, so neighbours in time are neighbours in memory, an insert
//! touches memory that is in the cache, and forgetting the old means dropping whole segments.
//!
//! # Why
//! A hash map of the same entries cost a check over a microsecond: every insert missed the cache,
//! and each doubling moved all entries. Here an insert is one short lock and one store. Every slot
//! has a lock of its own (a std mutex: nobody awaits inside), so that two checks never wait for
//! each other and a shard never waits for a check.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use foldhash::fast::FixedState;

use crate::ids::TransactionId;
use crate::ledger::Entry;

const SEGMENT_SLOTS: u64 = 4_096;

type Slot = Mutex<Option<Entry>>;
type Segment = Arc<[Slot]>;

/// All transactions in memory.
pub struct Table {
    segments: DashMap<u64, Segment, FixedState>,
    count: AtomicUsize,
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        Table { segments: DashMap::with_hasher(FixedState::default()), count: AtomicUsize::new(0) }
    }

    /// Lets `change` see and change what is known of a transaction, alone; returns what it returns.
    pub fn with_slot<T>(
        &self,
        id: TransactionId,
        change: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> T {
        let segment = self.segment_or_new(id);
        let Some(mut slot) = slot(&segment, id) else { return change(&mut None) };
        let before = slot.is_some();
        let result = change(&mut slot);
        match (before, slot.is_some()) {
            (false, true) => self.count.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.count.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        result
    }

    /// Looks at what is known of a transaction, if anything is.
    pub fn look<T>(&self, id: TransactionId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        let segment = self.segments.get(&(id.0 / SEGMENT_SLOTS))?.value().clone();
        let slot = slot(&segment, id)?;
        slot.as_ref().map(look)
    }

    /// Keeps only what `keep` says; one transaction is locked at a time.
    pub fn retain(&self, mut keep: impl FnMut(TransactionId, &Entry) -> bool) {
        self.each_segment(|number, segment| {
            let mut left = 0;
            for (offset, slot) in (0..).zip(segment.iter()) {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                let id = TransactionId(number * SEGMENT_SLOTS + offset);
                let Some(entry) = slot.as_ref() else { continue };
                if keep(id, entry) {
                    left += 1;
                } else {
                    *slot = None;
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
            }
            left
        });
    }

    /// Drops the segments below `id` that have become empty.
    pub fn drop_empty_below(&self, id: TransactionId) {
        let first_kept = id.0 / SEGMENT_SLOTS;
        let vacant = |slot: &Slot| slot.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        self.segments
            .retain(|number, segment| *number >= first_kept || !segment.iter().all(vacant));
    }

    /// Calls `visit` for every transaction; one is locked at a time.
    pub fn for_each(&self, mut visit: impl FnMut(TransactionId, &Entry)) {
        self.each_segment(|number, segment| {
            for (offset, slot) in (0..).zip(segment.iter()) {
                let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = slot.as_ref() {
                    visit(TransactionId(number * SEGMENT_SLOTS + offset), entry);
                }
            }
        });
    }

    /// How many transactions there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn each_segment<T>(&self, mut visit: impl FnMut(u64, &Segment) -> T) {
        let mut numbers: Vec<u64> = self.segments.iter().map(|segment| *segment.key()).collect();
        numbers.sort_unstable();
        for number in numbers {
            let segment = self.segments.get(&number).map(|segment| segment.value().clone());
            segment.iter().for_each(|segment| {
                visit(number, segment);
            });
        }
    }

    fn segment_or_new(&self, id: TransactionId) -> Segment {
        let number = id.0 / SEGMENT_SLOTS;
        if let Some(segment) = self.segments.get(&number) {
            return segment.value().clone();
        }
        let vacant = || (0..SEGMENT_SLOTS).map(|_| Mutex::new(None)).collect();
        self.segments.entry(number).or_insert_with(vacant).value().clone()
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

fn slot(segment: &Segment, id: TransactionId) -> Option<MutexGuard<'_, Option<Entry>>> {
    let offset = usize::try_from(id.0 % SEGMENT_SLOTS).ok()?;
    Some(segment.get(offset)?.lock().unwrap_or_else(PoisonError::into_inner))
}
