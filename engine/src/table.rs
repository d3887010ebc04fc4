//! The table of transactions: an array in segments, found by id without hashing.
//!
//! Ids are handed out one after the other, so neighbours in time are neighbours in memory, an insert
//! touches memory that is in the cache, and forgetting the old means dropping whole blocks of
//! segments.
//!
//! # Why
//! A hash map of the same entries cost a check over a microsecond: every insert missed the cache,
//! and each doubling moved all entries. Here an insert is one short lock and one store. Every slot
//! has a lock of its own (a std mutex: nobody awaits inside), so that two checks never wait for
//! each other and a shard never waits for a check.
//!
//! A segment is made when its first slot is asked for, so it is small: what fits the cache is still
//! there when the checks behind it fill it. The list has an entry for a block of segments only,
//! because adding one copies the list: with an entry for each segment of 4,096 slots, ten million
//! transactions had every 4,096th check copy thousands of counted references.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use crate::ids::TransactionId;
use crate::ledger::Entry;

const SEGMENT_SLOTS: u64 = 512;
const BLOCK_SEGMENTS: usize = 128;
const BLOCK_SLOTS: u64 = SEGMENT_SLOTS * BLOCK_SEGMENTS as u64;

type Slot = Mutex<Option<Entry>>;
type Segment = Box<[Slot]>;
type Block = Arc<[OnceLock<Segment>]>;
/// Blocks with their numbers, in order.
type Blocks = Vec<(u64, Block)>;

/// All transactions in memory.
pub struct Table {
    blocks: ArcSwap<Blocks>,
    /// Held to change the list. A std lock: nobody awaits inside.
    listing: Mutex<()>,
    count: AtomicUsize,
    open: AtomicUsize,
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        Table {
            blocks: ArcSwap::default(),
            listing: Mutex::default(),
            count: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// Lets `change` see and change what is known of a transaction, alone; returns what it returns.
    pub fn with_slot<T>(
        &self,
        id: TransactionId,
        change: impl FnOnce(&mut Option<Entry>) -> T,
    ) -> T {
        let mut blocks = self.blocks.load();
        if find(&blocks, id).is_none() {
            self.add_block(id);
            blocks = self.blocks.load();
        }
        let segment = find(&blocks, id).map(|segment| segment.get_or_init(vacant_segment));
        let Some(mut slot) = segment.and_then(|segment| slot(segment, id)) else {
            return change(&mut None);
        };
        let (was_known, was_open) = (slot.is_some(), is_open(&slot));
        let result = change(&mut slot);
        recount(&self.count, was_known, slot.is_some());
        recount(&self.open, was_open, is_open(&slot));
        result
    }

    /// Looks at what is known of a transaction, if anything is.
    pub fn look<T>(&self, id: TransactionId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        let blocks = self.blocks.load();
        let slot = slot(find(&blocks, id)?.get()?, id)?;
        slot.as_ref().map(look)
    }

    /// Keeps only what `keep` says; one transaction is locked at a time.
    pub fn retain(&self, mut keep: impl FnMut(TransactionId, &Entry) -> bool) {
        self.revise(|id, entry| keep(id, &entry).then_some(entry));
    }

    /// Puts what `revise` makes of it in the place of every transaction; one is locked at a time.
    pub fn revise(&self, mut revise: impl FnMut(TransactionId, Entry) -> Option<Entry>) {
        self.each_slot(|id, slot| {
            let was_open = is_open(slot);
            let Some(entry) = slot.take() else { return };
            *slot = revise(id, entry);
            recount(&self.count, true, slot.is_some());
            recount(&self.open, was_open, is_open(slot));
        });
    }

    /// Drops the blocks below `id` that have become empty.
    pub fn drop_empty_below(&self, id: TransactionId) {
        let first_kept = id.0 / BLOCK_SLOTS;
        let vacant = |slot: &Slot| slot.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        // Nothing comes back into blocks so old, so they are looked at before anybody has to wait.
        let blocks = self.blocks.load_full();
        let old = blocks.iter().filter(|(number, _)| *number < first_kept);
        let empty = old.filter(|(_, block)| {
            let mut slots = block.iter().filter_map(OnceLock::get).flatten();
            slots.all(vacant)
        });
        let empty: Vec<u64> = empty.map(|(number, _)| *number).collect();
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = Blocks::clone(&self.blocks.load());
        blocks.retain(|(number, _)| empty.binary_search(number).is_err());
        self.blocks.store(Arc::new(blocks));
    }

    /// Calls `visit` for every transaction; one is locked at a time.
    pub fn for_each(&self, mut visit: impl FnMut(TransactionId, &Entry)) {
        self.each_slot(|id, slot| {
            if let Some(entry) = slot.as_ref() {
                visit(id, entry);
            }
        });
    }

    /// How many transactions there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many of them are neither confirmed nor cancelled.
    pub fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn each_slot(&self, mut visit: impl FnMut(TransactionId, &mut Option<Entry>)) {
        for (number, block) in &*self.blocks.load_full() {
            for (segment, place) in block.iter().zip(0..) {
                let first = number * BLOCK_SLOTS + place * SEGMENT_SLOTS;
                for (slot, id) in segment.get().into_iter().flatten().zip(first..) {
                    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                    visit(TransactionId(id), &mut slot);
                }
            }
        }
    }

    #[cold]
    fn add_block(&self, id: TransactionId) {
        let _listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = self.blocks.load();
        let number = id.0 / BLOCK_SLOTS;
        let Err(place) = blocks.binary_search_by_key(&number, |(number, _)| *number) else {
            return;
        };
        let block = (0..BLOCK_SEGMENTS).map(|_| OnceLock::new()).collect();
        let (before, after) = blocks.split_at_checked(place).unwrap_or_default();
        let mut longer = Blocks::with_capacity(blocks.len() + 1);
        longer.extend_from_slice(before);
        longer.push((number, block));
        longer.extend_from_slice(after);
        self.blocks.store(Arc::new(longer));
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

#[cold]
fn vacant_segment() -> Segment {
    (0..SEGMENT_SLOTS).map(|_| Mutex::new(None)).collect()
}

fn is_open(slot: &Option<Entry>) -> bool {
    matches!(slot, Some(Entry::Open(_)))
}

fn recount(counter: &AtomicUsize, before: bool, after: bool) {
    match (before, after) {
        (false, true) => counter.fetch_add(1, Ordering::Relaxed),
        (true, false) => counter.fetch_sub(1, Ordering::Relaxed),
        _ => 0,
    };
}

fn find(blocks: &Blocks, id: TransactionId) -> Option<&OnceLock<Segment>> {
    let number = id.0 / BLOCK_SLOTS;
    let place = blocks.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    let (_, block) = blocks.get(place)?;
    block.get(usize::try_from(id.0 % BLOCK_SLOTS / SEGMENT_SLOTS).ok()?)
}

fn slot(segment: &Segment, id: TransactionId) -> Option<MutexGuard<'_, Option<Entry>>> {
    let offset = usize::try_from(id.0 % SEGMENT_SLOTS).ok()?;
    Some(segment.get(offset)?.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Timestamp;
    use crate::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TerminalId};
    use crate::transaction::Transaction;

    fn open(table: &Table, id: u64) {
        let transaction = Transaction {
            id: TransactionId(id),
            organization: OrganizationId(1),
            terminal: TerminalId(1),
            service: ServiceId(1),
            category: CategoryId(1),
            holder: HolderId(id),
            checked_at: Timestamp(0),
            discount_percent: None,
            limit_period: None,
        };
        table.with_slot(TransactionId(id), |slot| *slot = Some(Entry::Open(transaction)));
    }

    fn ids(table: &Table) -> Vec<u64> {
        let mut ids = Vec::new();
        table.for_each(|id, _| ids.push(id.0));
        ids
    }

    #[test]
    fn entries_stand_in_order_and_empty_blocks_are_dropped() {
        let table = Table::new();
        let last = 3 * BLOCK_SLOTS;
        for id in [last, 1, SEGMENT_SLOTS, BLOCK_SLOTS - 1, BLOCK_SLOTS, 1] {
            open(&table, id);
        }
        assert_eq!(ids(&table), [1, SEGMENT_SLOTS, BLOCK_SLOTS - 1, BLOCK_SLOTS, last]);
        assert_eq!((table.count(), table.open_count()), (5, 5));
        assert_eq!(table.look(TransactionId(BLOCK_SLOTS), |_| ()), Some(()));
        assert_eq!(table.look(TransactionId(2 * BLOCK_SLOTS), |_| ()), None);

        table.retain(|id, _| id.0 >= BLOCK_SLOTS);
        assert_eq!((ids(&table), table.count()), (vec![BLOCK_SLOTS, last], 2));
        table.drop_empty_below(TransactionId(last));
        let blocks: Vec<u64> = table.blocks.load().iter().map(|(number, _)| *number).collect();
        assert_eq!(blocks, [1, 3]);
    }
}
