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

use arc_swap::ArcSwap;

use crate::ids::TransactionId;
use crate::ledger::Entry;

const SEGMENT_SLOTS: u64 = 4_096;

type Slot = Mutex<Option<Entry>>;
type Segment = Arc<[Slot]>;
/// Segments with their numbers, in order.
type Segments = Vec<(u64, Segment)>;

/// All transactions in memory.
pub struct Table {
    segments: ArcSwap<Segments>,
    /// Held to change the list. A std lock: nobody awaits inside.
    listing: Mutex<()>,
    count: AtomicUsize,
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        Table {
            segments: ArcSwap::default(),
            listing: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// Lets `change` see and change what is known of a transaction, alone; returns what it returns.
    pub fn with_slot<T>(
        &self,
        id: TransactionId,
        change: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> T {
        let mut segments = self.segments.load();
        if find(&segments, id).is_none() {
            self.add_segment(id);
            segments = self.segments.load();
        }
        let slot = find(&segments, id).and_then(|segment| slot(segment, id));
        let Some(mut slot) = slot else { return change(&mut None) };
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
        let segments = self.segments.load();
        let slot = slot(find(&segments, id)?, id)?;
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
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut segments = Segments::clone(&self.segments.load());
        segments.retain(|(number, segment)| *number >= first_kept || !segment.iter().all(vacant));
        self.segments.store(Arc::new(segments));
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
        for (number, segment) in &*self.segments.load_full() {
            visit(*number, segment);
        }
    }

    fn add_segment(&self, id: TransactionId) {
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut segments = Segments::clone(&self.segments.load());
        let number = id.0 / SEGMENT_SLOTS;
        let Err(place) = segments.binary_search_by_key(&number, |(number, _)| *number) else {
            return;
        };
        let vacant = (0..SEGMENT_SLOTS).map(|_| Mutex::new(None)).collect();
        segments.insert(place, (number, vacant));
        self.segments.store(Arc::new(segments));
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

fn find(segments: &Segments, id: TransactionId) -> Option<&Segment> {
    let number = id.0 / SEGMENT_SLOTS;
    let place = segments.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    segments.get(place).map(|(_, segment)| segment)
}

fn slot(segment: &Segment, id: TransactionId) -> Option<MutexGuard<'_, Option<Entry>>> {
    let offset = usize::try_from(id.0 % SEGMENT_SLOTS).ok()?;
    Some(segment.get(offset)?.lock().unwrap_or_else(PoisonError::into_inner))
}
