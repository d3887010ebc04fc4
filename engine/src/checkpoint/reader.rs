//! Reads a snapshot: a state from its parts.

use crate::calendar::{Day, Timestamp};
use crate::decide::LimitKey;
use crate::directory::DirectoryItems;
use crate::entries::{CutEntry, Entries};
use crate::ids::{CategoryId, HolderId, RevisionId, ServiceId, TerminalId, TransactionId};
use crate::ledger::BatchMark;
use crate::record::{Record, RecordError};
use crate::recovery::{Extent, Recovered};
use crate::registry::change::RegistryChange;
use crate::registry::references::apply_change;
use crate::registry::stored::{StoredChangeError, read_change};
use crate::snapshot::{SnapshotError, SnapshotPart, SnapshotParts};
use crate::transaction::LimitPeriod;
use crate::trips::book::TripBookError;
use crate::trips::ruling::RulingEvent;
use crate::trips::stored::{
    StoredTripError, read_blocks, read_claim_event, read_forgotten, read_rulings,
};
use crate::trips::trip::{TripName, TripReason, TripSeq};

use super::{
    KIND_BLOCKS, KIND_CLAIMS, KIND_COUNTERS, KIND_DIRECTORY, KIND_HOLDERS, KIND_MARKS,
    KIND_RULINGS, KIND_SPENT_PLACES, KIND_TRANSACTIONS, KIND_TRIPS, StoredCounters, StoredPlace,
};

/// Builds a state from the parts of a snapshot.
pub struct SnapshotReader<'a> {
    state: &'a mut Recovered,
    extent: Extent,
    items: DirectoryItems,
    revision: RevisionId,
    directory_is_built: bool,
}

impl<'a> SnapshotReader<'a> {
    /// A reader into an empty state.
    pub fn new(state: &'a mut Recovered, extent: Extent) -> SnapshotReader<'a> {
        let revision = RevisionId::default();
        let items = DirectoryItems::default();
        SnapshotReader { state, extent, items, revision, directory_is_built: false }
    }

    /// Reads all parts.
    pub fn read(mut self, parts: SnapshotParts) -> Result<(), StoredStateError> {
        for part in parts {
            self.read_part(&part?)?;
        }
        self.build_directory();
        if !self.state.writer.find_restored() {
            return Err(StoredStateError::RepeatedHolder);
        }
        self.state.writer.commit(self.revision);
        self.state.trips.settle();
        Ok(())
    }

    fn read_part(&mut self, part: &SnapshotPart) -> Result<(), StoredStateError> {
        if part.kind == KIND_COUNTERS {
            let stored: StoredCounters = unpack(&part.bytes)?;
            self.revision = RevisionId(stored.revision);
            self.state.ledger.reserve_ids(TransactionId(stored.reserved));
            self.state.last_import = stored.last_import;
            self.state.snapshot_at = stored.begun.map(Timestamp);
            return Ok(());
        }
        if (KIND_CLAIMS..=KIND_RULINGS).contains(&part.kind) {
            return if self.extent.has_trips() { self.read_trip_part(part) } else { Ok(()) };
        }
        let registry_is_wanted = self.extent == Extent::Whole;
        for entry in Entries::of(&part.bytes) {
            let entry = entry?;
            match part.kind {
                KIND_DIRECTORY if registry_is_wanted => {
                    apply_change(&mut self.items, &read_change(entry)?);
                }
                KIND_HOLDERS if registry_is_wanted => self.read_holder(entry)?,
                KIND_BLOCKS if registry_is_wanted => {
                    self.state.blocks.apply(&read_blocks(entry)?);
                }
                KIND_DIRECTORY | KIND_HOLDERS | KIND_BLOCKS => {}
                KIND_TRANSACTIONS | KIND_SPENT_PLACES if !self.extent.has_ledger() => {}
                KIND_TRANSACTIONS => match Record::read(entry)? {
                    Record::Event(event) => self.state.ledger.apply(&event, BatchMark::default()),
                    _ => return Err(StoredStateError::UnknownPart(part.kind)),
                },
                KIND_SPENT_PLACES => self.read_place(entry)?,
                kind => return Err(StoredStateError::UnknownPart(kind)),
            }
        }
        Ok(())
    }

    fn read_trip_part(&mut self, part: &SnapshotPart) -> Result<(), StoredStateError> {
        let book = &mut self.state.trips;
        if part.kind == KIND_TRIPS {
            return Ok(book.apply_trips(&part.bytes)?);
        }
        for entry in Entries::of(&part.bytes) {
            let entry = entry?;
            match part.kind {
                KIND_CLAIMS => book.restore_claim(&read_claim_event(entry)?),
                KIND_MARKS => {
                    let (terminal, seq, reason): (u64, u64, u8) = unpack(entry)?;
                    let name = TripName { terminal: TerminalId(terminal), seq: TripSeq(seq) };
                    let reason = TripReason::from_number(reason);
                    book.restore_mark(name, reason.ok_or(StoredTripError::Value)?);
                }
                KIND_RULINGS => {
                    let RulingEvent { at, rulings, .. } = read_rulings(entry)?;
                    rulings.iter().for_each(|ruling| book.restore_ruling(ruling, at));
                }
                _ => {
                    let (terminal, first, last) = read_forgotten(entry)?;
                    book.restore_forgotten(terminal, first, last);
                }
            }
        }
        Ok(())
    }

    fn read_holder(&mut self, entry: &[u8]) -> Result<(), StoredStateError> {
        self.build_directory();
        let RegistryChange::Holder(_, Some(holder)) = read_change(entry)? else {
            return Err(StoredStateError::UnknownPart(KIND_HOLDERS));
        };
        self.state.writer.restore_holder(&holder);
        Ok(())
    }

    fn read_place(&mut self, entry: &[u8]) -> Result<(), StoredStateError> {
        let (holder, service, category, first, last, id): StoredPlace = unpack(entry)?;
        let key = LimitKey {
            holder: HolderId(holder),
            service: ServiceId(service),
            category: CategoryId(category),
            period: LimitPeriod { first: Day(first), last: Day(last) },
        };
        self.state.ledger.restore_spent(key, TransactionId(id));
        Ok(())
    }

    fn build_directory(&mut self) {
        if !std::mem::replace(&mut self.directory_is_built, true) {
            self.state.writer.restore_directory(std::mem::take(&mut self.items));
        }
    }
}

fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoredStateError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoredStateError::Record(error.into()))
}

/// Why stored state cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum StoredStateError {
    /// A change of the registry cannot be read.
    #[error("a stored change of the registry cannot be read")]
    Change(#[from] StoredChangeError),
    /// An import that was once accepted contradicts the state.
    #[error("a recorded import contradicts the registry")]
    ContradictoryImport,
    /// A part ends in the middle of an entry.
    #[error("a part ends in the middle of an entry")]
    CutPart(#[from] CutEntry),
    /// Parts of a committed import are not in the log.
    #[error("parts of a committed import are missing")]
    IncompleteImport,
    /// A record cannot be read.
    #[error("a stored record cannot be read")]
    Record(#[source] RecordError),
    /// A holder stands in the snapshot more than once.
    #[error("a holder stands in the snapshot more than once")]
    RepeatedHolder,
    /// The snapshot itself cannot be read.
    #[error("the snapshot cannot be read")]
    Snapshot(#[from] SnapshotError),
    /// A trip, claim or block cannot be read.
    #[error("a stored trip, claim or block cannot be read")]
    Trip(#[from] StoredTripError),
    /// A list of trips cannot be read.
    #[error("a stored list of trips cannot be read")]
    Trips(#[from] TripBookError),
    /// Written by a newer program.
    #[error("a part of the unknown kind {0}")]
    UnknownPart(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{numbered, pack};
    use crate::entries::push_entry;
    use crate::ledger::LedgerSettings;
    use crate::registry::holders::tests::holder;
    use crate::registry::stored::write_change;

    /// Reads a snapshot of these holders whose counters do not say when it was begun.
    fn read(ids: &[u64]) -> Result<Recovered, StoredStateError> {
        let counters = pack(&(7_u64, 0_u64, 3_u64));
        let mut holders = Vec::new();
        for id in ids {
            let change = RegistryChange::Holder(HolderId(*id), Some(holder(*id, 0)));
            push_entry(&mut holders, |out| write_change(&change, out));
        }
        let parts = numbered(KIND_COUNTERS, vec![counters])
            .chain(numbered(KIND_HOLDERS, vec![holders]))
            .map(Ok);
        let settings =
            LedgerSettings { checked_ttl_seconds: 1, transactions_max: 1, shard_count: 1 };
        let mut state = Recovered::empty(settings);
        let parts: Vec<_> = parts.collect();
        SnapshotReader::new(&mut state, Extent::Whole).read(Box::new(parts.into_iter()))?;
        Ok(state)
    }

    #[test]
    fn an_older_snapshot_is_read_and_a_holder_who_stands_in_it_twice_is_an_error() {
        let state = read(&[1, 2]).unwrap();
        assert_eq!((state.last_import, state.snapshot_at), (3, None));
        assert_eq!(state.writer.registry().id(), RevisionId(7));
        assert!(state.writer.holder(HolderId(2)).is_some());
        assert!(matches!(read(&[1, 2, 1]), Err(StoredStateError::RepeatedHolder)));
    }
}
