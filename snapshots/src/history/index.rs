//! The index over the archive, in fjall. All of fjall is behind this file.
//!
//! Four keyspaces, keys big-endian so that their order is the order of the numbers:
//! - `holders`: holder (8), instant (8), transaction (8) -> the confirmation as the log holds it;
//! - `organizations`: organization (4), instant (8), transaction (8) -> holder (8);
//! - `transactions`: transaction (8) -> holder (8), instant (8);
//! - `tombstones`: transaction (8) -> the cancellation as the log holds it.
//!
//! A fifth, `facts`, keeps the form and the watermark: everything settled below it is inside and
//! fsynced. What was settled last is in the tail, in memory, until there is enough of it for a
//! sorted run of each keyspace; after a crash it is read from the archive again. Nothing is ever
//! removed and the same record gives the same keys, so any stretch may be inserted again. A confirmation and a cancellation of one transaction do not meet in the log; if
//! they did, the confirmation would be told, in whichever order they came.
//!
//! The index promises nothing that the archive does not: whatever is wrong with it, it is deleted
//! and rebuilt. A panic inside the store ends at this file and counts as an error.
//!
//! # Why
//! fjall, by `cargo bench -p benches --bench history_store` with 10 M confirmations, at most 150 s
//! of loading each, on two cores that others used too (times in µs, p50/p99):
//!
//! | | fjall 3.1 | redb 4.6 | sled 0.34.7 |
//! |---|---|---|---|
//! | loaded | 10 M | 6.3 M | 2.9 M |
//! | thousand records/s | 70 | 42 | 20 |
//! | disk bytes a record | 130 | 295 | 738 |
//! | memory, peak MiB | 232 | 76 | 9,086 |
//! | opening again, ms | 328 | 0 | 16,120 |
//! | a holder's year | 33/3,071 | 5/45 | 39/5,587 |
//! | an organization's month with its total | 6,739/62,815 | 1,519/12,663 | 64,351/2,803,711 |
//! | one transaction | 42/4,271 | 8/22 | 29/4,079 |
//!
//! In another run, 3 M with both under the same load, fjall took 63 and redb 28. redb answers
//! faster, and each of these answers is fast enough; but it must follow the peaks of confirming and
//! be rebuilt in minutes, and there fjall is ahead by a factor of two, which grows with the size
//! (redb's batches slow down as its trees leave the cache), at half the disk. sled is out by each
//! line, and has no batch over several trees.
//!
//! Inserting one by one, through fjall's log and skip lists, took 10 µs a record, a third of a core
//! at the peak of confirming. A sorted run goes straight into a file and takes a fraction of that; a
//! question pays for it with a walk through the tail.
//!
//! fjall with a single worker took 2.3 GiB of memory and 78 s to open again, so it gets two. It
//! flushes its keyspaces one by one, and cuts its own log at some kinds of damage without a word. So only
//! the watermark goes through that log: it is written after the runs below it, which are fsynced when
//! they are finished, and one that did not survive leads to no more than inserting again.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use engine::calendar::Timestamp;
use engine::history::{HistoryPage, Page, Settled, Span};
use engine::ids::{HolderId, OrganizationId, TransactionId};
use engine::journal::Position;
use engine::record::{Record, RecordError};
use engine::transaction::{Confirmation, Event};

use crate::history::limits::{INDEX_LOG_BYTES, KEYS_BETWEEN_CLOCK_LOOKS};
use crate::history::tail::Tail;

/// How an index is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexOptions {
    /// Bytes of blocks kept in memory.
    pub(super) cache_bytes: u64,
    /// Records after which the tail is written out.
    pub(super) tail_records: usize,
}

/// The open index; one writer.
pub(super) struct Index {
    /// A std lock: the writer holds it to add or forget, those who ask to go through it once.
    tail: RwLock<Tail>,
    tail_records: usize,
    database: Database,
    holders: Keyspace,
    organizations: Keyspace,
    transactions: Keyspace,
    tombstones: Keyspace,
    facts: Keyspace,
}

impl Index {
    /// Opens the index in `directory`; one that does not open is deleted and begun anew.
    pub(super) fn open_or_begin(
        directory: &Path,
        options: IndexOptions,
    ) -> Result<Index, IndexError> {
        let error = match guarded(|| Index::open(directory, options)) {
            Ok(index) => return Ok(index),
            Err(error) => error,
        };
        if error.is_passing() {
            return Err(error);
        }
        tracing::warn!(%error, "the index of the history does not open and is rebuilt");
        Index::delete(directory)?;
        guarded(|| Index::open(directory, options))
    }

    /// Deletes the index. Nobody may have it open.
    pub(super) fn delete(directory: &Path) -> Result<(), IndexError> {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::Store(error.into()))
            }
            _ => Ok(()),
        }
    }

    fn open(directory: &Path, options: IndexOptions) -> Result<Index, IndexError> {
        fs::create_dir_all(directory).map_err(fjall::Error::Io)?;
        // With two workers, fjall keeps one of them for writing buffers out.
        let database = Database::builder(directory)
            .cache_size(options.cache_bytes)
            .max_journaling_size(INDEX_LOG_BYTES)
            .worker_threads(2)
            .open()?;
        let keyspace = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let holders = keyspace("holders")?;
        let organizations = keyspace("organizations")?;
        let transactions = keyspace("transactions")?;
        let tombstones = keyspace("tombstones")?;
        let facts = keyspace("facts")?;
        match facts.get(FORM_KEY)? {
            None if transactions.is_empty()? => facts.insert(FORM_KEY, FORM)?,
            Some(form) if *form == FORM => {}
            _ => return Err(IndexError::Form),
        }
        Ok(Index {
            tail: RwLock::default(),
            tail_records: options.tail_records,
            database,
            holders,
            organizations,
            transactions,
            tombstones,
            facts,
        })
    }

    /// Inserts settled transactions; tells whether all that was ever inserted is now fsynced.
    pub(super) fn insert(&self, events: &[Event]) -> Result<bool, IndexError> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner).extend(events);
        let tail = self.tail();
        if tail.len() < self.tail_records {
            return Ok(false);
        }
        guarded(|| self.write_out(&tail))?;
        drop(tail);
        // Until here a question may find a record both in the tail and in a run.
        self.tail.write().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(true)
    }

    /// Writes a sorted run for each keyspace. What another one leads to goes first.
    fn write_out(&self, tail: &Tail) -> Result<(), IndexError> {
        let places = tail.confirmations().iter().map(|found| (Place::of(found), found));
        let mut places: Vec<(Place, &Confirmation)> = places.collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        places.dedup_by_key(|(place, _)| *place);
        let stored = |event| {
            let mut stored = Vec::new();
            Record::Event(event).write(&mut stored);
            stored
        };
        let held = places
            .iter()
            .map(|(place, found)| (place.holder_key().to_vec(), stored(Event::Confirmed(**found))));
        write_run(&self.holders, held)?;
        let by_organization = |(place, found): &(Place, &Confirmation)| {
            (found.transaction.organization, place.at, place.transaction)
        };
        places.sort_unstable_by_key(by_organization);
        let given = places.iter().map(|(place, found)| {
            let key = place.organization_key(found.transaction.organization);
            (key.to_vec(), place.holder.0.to_be_bytes().to_vec())
        });
        write_run(&self.organizations, given)?;
        places.sort_unstable_by_key(|(place, _)| place.transaction);
        places.dedup_by_key(|(place, _)| place.transaction);
        let confirmed = places.iter().map(|(place, _)| {
            (place.transaction.0.to_be_bytes().to_vec(), place.stored().to_vec())
        });
        write_run(&self.transactions, confirmed)?;
        let cancelled = tail.cancellations().map(|cancellation| {
            let key = cancellation.transaction.0.to_be_bytes();
            (key.to_vec(), stored(Event::Cancelled(*cancellation)))
        });
        write_run(&self.tombstones, cancelled)
    }

    /// Says that all up to `watermark` is inside and fsynced.
    pub(super) fn note_watermark(&self, watermark: Position) -> Result<(), IndexError> {
        guarded(|| {
            self.facts.insert(WATERMARK_KEY, watermark.stored().to_be_bytes())?;
            Ok(self.database.persist(PersistMode::SyncAll)?)
        })
    }

    /// Everything settled below is inside.
    pub(super) fn watermark(&self) -> Result<Position, IndexError> {
        guarded(|| {
            let Some(stored) = self.facts.get(WATERMARK_KEY)? else { return Ok(Position::ORIGIN) };
            let stored = stored.first_chunk().ok_or(IndexError::Form)?;
            Ok(Position::from_stored(u64::from_be_bytes(*stored)))
        })
    }

    /// The confirmations of a holder.
    pub(super) fn of_holder(
        &self,
        holder: HolderId,
        span: Span,
        page: Page,
        deadline: Instant,
    ) -> Result<HistoryPage, IndexError> {
        let bound = |at| key::<16>(&[&holder.0.to_be_bytes(), &ordered(at)]);
        let Some(range) = range(span, bound) else { return Ok(HistoryPage::default()) };
        let tail = self.tail().of_holder(holder, span);
        guarded(|| {
            let walk = Walk::new(page, deadline);
            walk.page(tail, self.holders.range(range).rev(), |_, stored| confirmation(stored))
        })
    }

    /// The confirmations that an organization gave.
    pub(super) fn of_organization(
        &self,
        organization: OrganizationId,
        span: Span,
        page: Page,
        deadline: Instant,
    ) -> Result<HistoryPage, IndexError> {
        let bound = |at| key::<12>(&[&organization.0.to_be_bytes(), &ordered(at)]);
        let Some(range) = range(span, bound) else { return Ok(HistoryPage::default()) };
        let tail = self.tail().of_organization(organization, span);
        guarded(|| {
            let walk = Walk::new(page, deadline);
            walk.page(tail, self.organizations.range(range).rev(), |place, holder| {
                let stored = self.holders.get(key::<24>(&[holder, place]))?;
                confirmation(&stored.ok_or(IndexError::Missing)?)
            })
        })
    }

    /// What became of one transaction.
    pub(super) fn settled(&self, id: TransactionId) -> Result<Option<Settled>, IndexError> {
        let recent = self.tail().settled(id);
        if let Some(Settled::Confirmed(_)) = recent {
            return Ok(recent);
        }
        guarded(|| {
            let transaction = id.0.to_be_bytes();
            if let Some(place) = self.transactions.get(transaction)? {
                let stored = self.holders.get(key::<24>(&[&place, &transaction]))?;
                let stored = stored.ok_or(IndexError::Missing)?;
                return Ok(Some(Settled::Confirmed(confirmation(&stored)?)));
            }
            if recent.is_some() {
                return Ok(recent);
            }
            let Some(stored) = self.tombstones.get(transaction)? else { return Ok(None) };
            match Record::read(&stored)? {
                Record::Event(Event::Cancelled(cancellation)) => {
                    Ok(Some(Settled::Cancelled(cancellation)))
                }
                _ => Err(IndexError::Form),
            }
        })
    }

    fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the store; a panic while it closes is only logged.
    pub(super) fn close(self) {
        let closed = guarded(|| {
            drop(self);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "the index of the history did not close in order");
        }
    }
}

/// Why the index has no answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not one of this version.
    #[error("the index is not of a known form")]
    Form,
    /// The answer would have come after its deadline.
    #[error("the index was not searched in time")]
    Late,
    /// A place leads nowhere.
    #[error("the index lacks a confirmation that it names")]
    Missing,
    /// The store panicked.
    #[error("the store of the index panicked")]
    Panicked,
    /// A stored record cannot be read.
    #[error("the index holds a wrong record: {0}")]
    Record(#[from] RecordError),
    /// The store failed.
    #[error("the store of the index failed: {0}")]
    Store(#[from] fjall::Error),
}

impl IndexError {
    /// Whether this speaks of the moment and not of what is stored: rebuilding would not help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            IndexError::Late | IndexError::Record(_) => true,
            IndexError::Store(fjall::Error::Locked | fjall::Error::Poisoned) => true,
            IndexError::Store(fjall::Error::Io(error))
            | IndexError::Store(fjall::Error::Storage(fjall::LsmError::Io(error))) => {
                is_of_the_device(error)
            }
            _ => false,
        }
    }
}

/// What finds a confirmation.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    holder: HolderId,
    at: Timestamp,
    transaction: TransactionId,
}

impl Place {
    fn of(confirmation: &Confirmation) -> Place {
        Place {
            holder: confirmation.transaction.holder,
            at: confirmation.confirmed_at,
            transaction: confirmation.transaction.id,
        }
    }

    fn holder_key(&self) -> [u8; 24] {
        key(&[&self.stored(), &self.transaction.0.to_be_bytes()])
    }

    fn organization_key(&self, organization: OrganizationId) -> [u8; 20] {
        let transaction = self.transaction.0.to_be_bytes();
        key(&[&organization.0.to_be_bytes(), &ordered(self.at), &transaction])
    }

    fn stored(&self) -> [u8; 16] {
        key(&[&self.holder.0.to_be_bytes(), &ordered(self.at)])
    }
}

/// Counts what a question passes and knows which of it is on the page.
struct Walk {
    first: u64,
    size: u64,
    total: u64,
    deadline: Instant,
}

impl Walk {
    fn new(page: Page, deadline: Instant) -> Walk {
        let size = u64::from(page.size);
        Walk { first: page.index.saturating_mul(size), size, total: 0, deadline }
    }

    /// One page of what is in the tail or stored, both newest first; what is in both counts once.
    /// `read` makes a confirmation of the place in a key and its value.
    fn page(
        mut self,
        tail: Vec<Confirmation>,
        stored: impl Iterator<Item = Guard>,
        read: impl Fn(&[u8], &[u8]) -> Result<Confirmation, IndexError>,
    ) -> Result<HistoryPage, IndexError> {
        let mut items = Vec::new();
        let mut tail = tail.into_iter().peekable();
        for found in stored {
            let (key, value) = found.into_inner()?;
            let place = key.last_chunk::<16>().ok_or(IndexError::Form)?;
            while let Some(newer) = tail.next_if(|found| place_of(found) > *place) {
                if self.step()? {
                    items.push(newer);
                }
            }
            tail.next_if(|found| place_of(found) == *place);
            if self.step()? {
                items.push(read(place, &value)?);
            }
        }
        for older in tail {
            if self.step()? {
                items.push(older);
            }
        }
        Ok(HistoryPage { items, total: self.total })
    }

    /// Counts one more; whether it is on the page.
    fn step(&mut self) -> Result<bool, IndexError> {
        let passed = self.total;
        self.total += 1;
        let look = passed > 0 && passed.is_multiple_of(KEYS_BETWEEN_CLOCK_LOOKS);
        if look && self.deadline.saturating_duration_since(Instant::now()) == Duration::ZERO {
            return Err(IndexError::Late);
        }
        Ok(passed.checked_sub(self.first).is_some_and(|place| place < self.size))
    }
}

/// Whether an error speaks of the device or the process and not of the files. Whatever else a file
/// operation of the store meets, files that are missing or that are there too many (as a crash
/// while the index is begun leaves them), is cured by beginning anew.
fn is_of_the_device(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds = [
        Kind::Interrupted,
        Kind::OutOfMemory,
        Kind::PermissionDenied,
        Kind::QuotaExceeded,
        Kind::ReadOnlyFilesystem,
        Kind::ResourceBusy,
        Kind::StorageFull,
        Kind::TimedOut,
    ];
    // These have no kind: EIO, ENFILE, EMFILE.
    kinds.contains(&error.kind()) || matches!(error.raw_os_error(), Some(5 | 23 | 24))
}

/// Writes items, in the order of their keys, as files of their own; fsynced.
fn write_run(
    keyspace: &Keyspace,
    items: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<(), IndexError> {
    let mut items = items.peekable();
    if items.peek().is_none() {
        // A run without items would leave an empty file behind.
        return Ok(());
    }
    let mut run = keyspace.start_ingestion()?;
    for (key, value) in items {
        run.write(key, value)?;
    }
    Ok(run.finish()?)
}

fn range<const N: usize>(
    span: Span,
    bound: impl Fn(Timestamp) -> [u8; N],
) -> Option<std::ops::Range<[u8; N]>> {
    (span.from < span.until).then(|| bound(span.from)..bound(span.until))
}

fn confirmation(stored: &[u8]) -> Result<Confirmation, IndexError> {
    match Record::read(stored)? {
        Record::Event(Event::Confirmed(confirmation)) => Ok(confirmation),
        _ => Err(IndexError::Form),
    }
}

/// The end of every key that leads to a confirmation: instant and transaction.
fn place_of(confirmation: &Confirmation) -> [u8; 16] {
    key(&[&ordered(confirmation.confirmed_at), &confirmation.transaction.id.0.to_be_bytes()])
}

/// An instant as bytes in the order of time, those before 1970 included.
fn ordered(at: Timestamp) -> [u8; 8] {
    (at.0.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Joins the parts of a key.
fn key<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    for (place, byte) in key.iter_mut().zip(parts.iter().copied().flatten()) {
        *place = *byte;
    }
    key
}

fn guarded<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    // After a panic the index is closed and opened again, so nothing half done is used.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(IndexError::Panicked))
}

const FORM: [u8; 4] = *b"eHI1";
const FORM_KEY: &[u8] = b"form";
const WATERMARK_KEY: &[u8] = b"watermark";

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: IndexOptions = IndexOptions { cache_bytes: 8 << 20, tail_records: 10 };

    #[test]
    fn instants_are_ordered_across_1970() {
        let instants = [i64::MIN, -1, 0, 1, i64::MAX].map(|at| ordered(Timestamp(at)));
        assert!(instants.is_sorted());
    }
    #[test]
    fn an_index_that_a_crash_left_half_begun_is_begun_anew() {
        // The store's own log was there, the file that says of which version it is not yet. That
        // was taken for an error of the device and tried again for ever.
        let home = tempfile::tempdir().unwrap();
        Index::open(home.path(), OPTIONS).ok().unwrap().close();
        fs::remove_file(home.path().join("version")).unwrap();
        let error = guarded(|| Index::open(home.path(), OPTIONS)).err().unwrap();
        assert!(!error.is_passing(), "{error}");
        let index = Index::open_or_begin(home.path(), OPTIONS).unwrap();
        assert_eq!(index.watermark().unwrap(), Position::ORIGIN);
    }
}
