//! What a snapshot holds, and how it is taken; how it is read stands in `reader`.
//!
//! A snapshot is taken from published views: nothing stops while it is written. It may therefore
//! hold effects of events behind the position that replay begins at, which replaying them does not
//! change (invariant 6); and it is sealed only after all of them are durable (invariant 7).

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use crate::directory::DirectoryItems;
use crate::entries::push_entry;
use crate::ledger::{Entry, Ledger};
use crate::partition::Partition;
use crate::record::Record;
use crate::registry::Registry;
use crate::registry::change::RegistryChange;
use crate::registry::holders::Slot;
use crate::registry::stored::write_change;
use crate::snapshot::{SnapshotError, SnapshotPart};
use crate::transaction::{Event, LimitPeriod};
use crate::trips::block::Blocks;
use crate::trips::book::TripBook;
use crate::trips::claim::{ClaimEvent, ClaimState, Refusal};
use crate::trips::ruling::{RecordedRuling, Ruling, RulingEvent};
use crate::trips::stored::{
    BLOCK_BYTES, write_blocks, write_claim_event, write_forgotten, write_rulings,
};
use crate::trips::trip::TripName;

pub use self::reader::{SnapshotReader, StoredStateError};

mod reader;

const KIND_COUNTERS: u8 = 1;
const KIND_DIRECTORY: u8 = 2;
const KIND_HOLDERS: u8 = 3;
const KIND_TRANSACTIONS: u8 = 4;
const KIND_SPENT_PLACES: u8 = 5;
const KIND_BLOCKS: u8 = 6;
/// Claims come before the trips that they hold, so that none of these is missing.
const KIND_CLAIMS: u8 = 7;
const KIND_TRIPS: u8 = 8;
const KIND_MARKS: u8 = 9;
/// Numbers that are used come behind the trips, so that none that leaves memory meanwhile is missing.
const KIND_FORGOTTEN: u8 = 10;
const KIND_RULINGS: u8 = 11;

/// Bytes after which a part is full; far below the page size at which sled changes its ways.
const PART_BYTES: usize = 6 << 10;
/// Lines of a claim in one entry.
const CLAIM_LINES: usize = 256;
/// Refusals of a claim in one entry.
const CLAIM_REFUSALS: usize = 8;
/// Bytes of most holders.
const HOLDER_BYTES: usize = 512;

/// The first part.
#[derive(Deserialize, Serialize)]
struct StoredCounters {
    revision: u64,
    reserved: u64,
    last_import: u64,
    /// When the snapshot was begun, in the time of the engine; older ones do not say.
    #[serde(default)]
    begun: Option<i64>,
}

type StoredPlace = (u64, u32, u32, i32, i32, u64);

/// What imports have made.
pub struct Imported {
    /// The registry.
    pub registry: Arc<Registry>,
    /// The blocks that came with it.
    pub blocks: Blocks,
    /// The number of the last import.
    pub last_import: u64,
}

/// The parts of a snapshot of `partition` with what was imported, and the trips of `book`, in order.
/// `seal` is called behind the last one and must return only when everything captured is durable.
pub fn parts(
    partition: Arc<Partition>,
    imported: Imported,
    book: Arc<RwLock<TripBook>>,
    seal: impl FnOnce() -> Result<(), SnapshotError>,
) -> impl Iterator<Item = Result<SnapshotPart, SnapshotError>> {
    let Imported { registry, blocks, last_import } = imported;
    let ledger_partition = partition.clone();
    let sealed_partition = partition.clone();
    let before = standing(&partition);
    let holders = HolderParts { registry: registry.clone(), next: Slot(0), index: 0 };
    let first = std::iter::once_with(move || {
        let stored = StoredCounters {
            revision: registry.id().0,
            reserved: partition.ledger().reserved_through().0,
            last_import,
            begun: Some(partition.now().0),
        };
        let directory = directory_entries(registry.directory().items());
        let counters = std::iter::once(pack(&stored));
        numbered(KIND_COUNTERS, counters.collect())
            .chain(numbered(KIND_DIRECTORY, group(directory)))
    });
    let ledger = std::iter::once_with(move || {
        let ledger = ledger_partition.ledger();
        numbered(KIND_TRANSACTIONS, group(transaction_entries(ledger)))
            .chain(numbered(KIND_SPENT_PLACES, group(place_entries(ledger))))
    });
    let sealed = std::iter::once_with(move || {
        seal()?;
        // What was undone after it was captured never becomes durable.
        let is_whole = before.is_some() && standing(&sealed_partition) == before;
        is_whole.then_some(()).ok_or(SnapshotError::Abandoned("a shard was recovered meanwhile"))
    });
    let sealed = sealed.filter_map(|sealed| sealed.err().map(Err));
    let trips = std::iter::once_with(move || trip_parts(&blocks, book));
    first
        .flatten()
        .chain(holders)
        .chain(ledger.flatten())
        .chain(trips.flatten())
        .map(Ok)
        .chain(sealed)
}

/// Changes whenever something that was applied may never become durable; none while it is known that
/// something is left of a worker that was abandoned.
fn standing(partition: &Partition) -> Option<(u64, Vec<u64>)> {
    let generations = partition.shards().iter().map(|shard| shard.generation_in_charge());
    Some((partition.ledger().undoings(), generations.collect::<Option<_>>()?))
}

/// Blocks, claims, trips, marks, used numbers and rulings, each captured when it is asked for.
fn trip_parts(
    blocks: &Blocks,
    book: Arc<RwLock<TripBook>>,
) -> impl Iterator<Item = SnapshotPart> + use<> {
    let mut all = Vec::new();
    write_blocks(&blocks.changes().collect::<Vec<_>>(), &mut all);
    let chunk_bytes = PART_BYTES / BLOCK_BYTES * BLOCK_BYTES;
    let blocks = all.chunks(chunk_bytes).map(|chunk| group(vec![chunk.to_vec()]).concat());
    let blocks = numbered(KIND_BLOCKS, blocks.collect());
    let claims = group(claim_entries(&read(&book)));
    let (trips, behind) = (book.clone(), book);
    let mut next = 0;
    let trips = std::iter::from_fn(move || {
        let (list, at) = read(&trips).stored_from(next, PART_BYTES)?;
        next = at;
        Some(list)
    });
    let trips = (0..).zip(trips.filter(|list| !list.is_empty()));
    let trips = trips.map(|(index, bytes)| SnapshotPart { kind: KIND_TRIPS, index, bytes });
    let behind = std::iter::once_with(move || {
        let book = read(&behind);
        numbered(KIND_MARKS, group(mark_entries(&book)))
            .chain(numbered(KIND_FORGOTTEN, group(forgotten_entries(&book))))
            .chain(numbered(KIND_RULINGS, group(ruling_entries(&book))))
    });
    blocks.chain(numbered(KIND_CLAIMS, claims)).chain(trips).chain(behind.flatten())
}

/// The events that lead to each claim; entries stay small.
fn claim_entries(book: &TripBook) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let mut push = |event: &ClaimEvent| {
        let mut stored = Vec::new();
        write_claim_event(event, &mut stored);
        entries.push(stored);
    };
    for claim in book.claims() {
        let (id, at) = (claim.id, claim.changed_at);
        let (organization, period) = (claim.organization, claim.period);
        push(&ClaimEvent::Created { id, organization, period, at: claim.created_at });
        for lines in claim.lines.chunks(CLAIM_LINES) {
            push(&ClaimEvent::Extended { id, lines: lines.to_vec(), marks: Vec::new() });
        }
        let refusal =
            |(name, reason): (&TripName, &String)| Refusal { name: *name, reason: reason.clone() };
        let refusals: Vec<Refusal> = claim.refusals.iter().map(refusal).collect();
        let states: &[ClaimState] = &[
            ClaimState::Submitted,
            ClaimState::Processed,
            ClaimState::Accepted,
            ClaimState::PartlyRefused,
            ClaimState::Paid,
        ];
        for state in states.iter().filter(|state| **state <= claim.state) {
            match state {
                ClaimState::Draft => {}
                ClaimState::Submitted => push(&ClaimEvent::Submitted { id, at }),
                ClaimState::Processed => {
                    push(&ClaimEvent::Processed { id, at, refusals: Vec::new() });
                    for refusals in refusals.chunks(CLAIM_REFUSALS) {
                        push(&ClaimEvent::Processed { id, at, refusals: refusals.to_vec() });
                    }
                }
                ClaimState::Accepted | ClaimState::PartlyRefused => {
                    push(&ClaimEvent::Decided { id, at });
                }
                ClaimState::Paid => push(&ClaimEvent::Paid { id, at }),
            }
        }
        if claim.is_archived {
            push(&ClaimEvent::Archived { id, totals: claim.totals });
        }
    }
    entries
}

fn mark_entries(book: &TripBook) -> Vec<Vec<u8>> {
    let marked = book.slots().filter_map(|slot| Some((slot.name, slot.mark?)));
    marked.map(|(name, mark)| pack(&(name.terminal.0, name.seq.0, mark.number()))).collect()
}

fn forgotten_entries(book: &TripBook) -> Vec<Vec<u8>> {
    let entry = |(terminal, first, last)| {
        let mut stored = Vec::new();
        write_forgotten(terminal, first, last, &mut stored);
        stored
    };
    book.forgotten().map(entry).collect()
}

fn ruling_entries(book: &TripBook) -> Vec<Vec<u8>> {
    let entry = |(name, known): (TripName, &RecordedRuling)| {
        let ruling = Ruling { name, verdict: known.verdict, reason: known.reason.clone() };
        let event = RulingEvent { at: known.at, rulings: vec![ruling], revoked: Vec::new() };
        let mut stored = Vec::new();
        write_rulings(&event, &mut stored);
        stored
    };
    book.rulings().map(entry).collect()
}

fn read(book: &RwLock<TripBook>) -> RwLockReadGuard<'_, TripBook> {
    book.read().unwrap_or_else(PoisonError::into_inner)
}

fn numbered(kind: u8, parts: Vec<Vec<u8>>) -> impl Iterator<Item = SnapshotPart> {
    (0..).zip(parts).map(move |(index, bytes)| SnapshotPart { kind, index, bytes })
}

/// Packs entries into parts, each entry behind its length.
fn group(entries: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for entry in entries {
        if parts.last().is_none_or(|part| part.len() + entry.len() > PART_BYTES) {
            parts.push(Vec::with_capacity(PART_BYTES));
        }
        if let Some(part) = parts.last_mut() {
            push_entry(part, |out| out.extend_from_slice(&entry));
        }
    }
    parts
}

/// Directory entries as changes; a deleted one is followed by its deletion.
fn directory_entries(items: &DirectoryItems) -> Vec<Vec<u8>> {
    let mut changes = Vec::new();
    let regions = items.regions.iter();
    changes.extend(regions.map(|(id, region)| RegistryChange::Region(*id, Some(region.clone()))));
    for (id, area) in &items.areas {
        changes.push(RegistryChange::Area(*id, Some(area.value.clone())));
        changes.extend(area.deleted.then_some(RegistryChange::Area(*id, None)));
    }
    let categories = items.categories.iter();
    changes.extend(
        categories.map(|(id, category)| RegistryChange::Category(*id, Some(category.clone()))),
    );
    for (id, service) in &items.services {
        changes.push(RegistryChange::Service(*id, Some(service.value.clone())));
        changes.extend(service.deleted.then_some(RegistryChange::Service(*id, None)));
    }
    for (id, organization) in &items.organizations {
        changes.push(RegistryChange::Organization(*id, Some(organization.value.clone())));
        changes.extend(organization.deleted.then_some(RegistryChange::Organization(*id, None)));
    }
    let offers = items.offers.iter();
    changes.extend(offers.map(|(id, offer)| RegistryChange::Offer(*id, Some(offer.clone()))));
    let terminals = items.terminals.iter();
    changes.extend(terminals.map(|(id, known)| RegistryChange::Terminal(*id, Some(*known))));
    changes
        .iter()
        .map(|change| {
            let mut stored = Vec::new();
            write_change(change, &mut stored);
            stored
        })
        .collect()
}

fn transaction_entries(ledger: &Ledger) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    ledger.for_each_entry(|_, entry| {
        let event = match entry {
            Entry::Cancelled(cancellation, _) => Event::Cancelled(*cancellation),
            Entry::Confirmed(confirmation, _) => Event::Confirmed(**confirmation),
            Entry::Open(transaction) => Event::Opened(*transaction),
        };
        let mut stored = Vec::new();
        Record::Event(event).write(&mut stored);
        entries.push(stored);
    });
    entries
}

fn place_entries(ledger: &Ledger) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    ledger.for_each_spent(|key, id| {
        let LimitPeriod { first, last } = key.period;
        let stored: StoredPlace =
            (key.holder.0, key.service.0, key.category.0, first.0, last.0, id.0);
        entries.push(pack(&stored));
    });
    entries
}

fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // Writing integers to memory cannot fail; a reader would refuse the empty form.
    rmp_serde::to_vec(value).unwrap_or_default()
}

/// Holders, grouped into parts when they are asked for.
struct HolderParts {
    registry: Arc<Registry>,
    next: Slot,
    index: u32,
}

impl Iterator for HolderParts {
    type Item = SnapshotPart;

    fn next(&mut self) -> Option<SnapshotPart> {
        let mut bytes = Vec::with_capacity(PART_BYTES + HOLDER_BYTES);
        for (slot, holder) in self.registry.holders().iter_from(self.next) {
            if bytes.len() > PART_BYTES {
                break;
            }
            let change = RegistryChange::Holder(holder.id(), Some(holder.to_holder()));
            push_entry(&mut bytes, |out| write_change(&change, out));
            self.next = slot.next();
        }
        let index = self.index;
        self.index += 1;
        (!bytes.is_empty()).then_some(SnapshotPart { kind: KIND_HOLDERS, index, bytes })
    }
}
