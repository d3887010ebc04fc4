//! Recovery: the state of a partition from its newest readable snapshot and the log behind it.
//!
//! Live and recovery run the same code: transactions change in [`Ledger::apply`], the registry in
//! [`crate::import::apply_parts`].

use std::collections::BTreeMap;

use crate::calendar::Timestamp;
use crate::checkpoint::{SnapshotReader, StoredStateError};
use crate::ids::PartitionId;
use crate::import::apply_parts;
use crate::journal::{Frame, Journal, JournalError, Position};
use crate::ledger::{BatchMark, Ledger, LedgerSettings};
use crate::record::{ImportCommitted, Record, RecordError};
use crate::registry::writer::RegistryWriter;
use crate::snapshot::{SnapshotError, SnapshotStore};
use crate::trips::block::{BlockChange, Blocks};
use crate::trips::book::TripBook;
use crate::trips::stored::read_blocks;

/// What recovery reads from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The log.
    pub journal: &'a dyn Journal,
    /// Where replay begins.
    pub snapshots: &'a dyn SnapshotStore,
    /// Whose state.
    pub partition: PartitionId,
}

/// The state of a partition.
pub struct Recovered {
    /// The registry, ready to be written on.
    pub writer: RegistryWriter,
    /// The transactions.
    pub ledger: Ledger,
    /// The highest number of an import in the log.
    pub last_import: u64,
    /// When the snapshot was begun that the state was read from; none where there was none.
    pub snapshot_at: Option<Timestamp>,
    /// Since when cards are blocked.
    pub blocks: Blocks,
    /// The trips and claims.
    pub trips: TripBook,
}

/// Which part of the state is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// The transactions only.
    Ledger,
    /// The trips and claims only.
    Trips,
    /// All of it.
    Whole,
}

impl Extent {
    /// Whether trips and claims are wanted.
    pub fn has_trips(self) -> bool {
        self != Extent::Ledger
    }

    /// Whether transactions are wanted.
    pub fn has_ledger(self) -> bool {
        self != Extent::Trips
    }
}

/// Reads the state. A snapshot that cannot be read is passed over for the one before it, and more
/// of the log is replayed.
pub fn recover(
    sources: Sources<'_>,
    settings: LedgerSettings,
    extent: Extent,
) -> Result<Recovered, RecoveryError> {
    let mut first_error = None;
    for info in sources.snapshots.list(sources.partition)? {
        let mut state = Recovered::empty(settings);
        let parts = sources.snapshots.read(sources.partition, info.generation);
        let loaded = parts
            .map_err(StoredStateError::Snapshot)
            .and_then(|parts| SnapshotReader::new(&mut state, extent).read(parts));
        match loaded {
            Ok(()) => return replay(sources, info.replay_from, state, extent),
            Err(error) => {
                let generation = info.generation.0;
                tracing::warn!(generation, %error, "a snapshot cannot be read, trying the one before");
                first_error.get_or_insert(error);
            }
        }
    }
    let replayed = replay(sources, Position::ORIGIN, Recovered::empty(settings), extent);
    match (replayed, first_error) {
        (Err(RecoveryError::Journal(JournalError::Truncated { .. })), Some(error)) => {
            Err(RecoveryError::State(error))
        }
        (replayed, _) => replayed,
    }
}

fn replay(
    sources: Sources<'_>,
    from: Position,
    mut state: Recovered,
    extent: Extent,
) -> Result<Recovered, RecoveryError> {
    let mut imports = Imports::default();
    for stored in sources.journal.read(sources.partition, from)? {
        let stored = stored?;
        replay_frame(&stored.frame, &mut state, &mut imports, extent)
            .map_err(|source| RecoveryError::Record { at: stored.at, source })?;
    }
    state.ledger.skip_reserved_ids();
    Ok(state)
}

fn replay_frame(
    frame: &Frame,
    state: &mut Recovered,
    imports: &mut Imports,
    extent: Extent,
) -> Result<(), StoredStateError> {
    for record in frame.records() {
        match Record::read(record)? {
            Record::Event(event) if extent.has_ledger() => {
                state.ledger.apply(&event, BatchMark::default());
            }
            Record::Trips(list) if extent.has_trips() => state.trips.apply_trips(&list.bytes)?,
            Record::Claim(event) if extent.has_trips() => state.trips.apply_claim(&event),
            Record::Rulings(event) if extent.has_trips() => state.trips.apply_rulings(&event),
            Record::TripsSwept(at) if extent.has_trips() => state.trips.apply_sweep(at),
            Record::Event(_)
            | Record::Trips(_)
            | Record::Claim(_)
            | Record::Rulings(_)
            | Record::TripsSwept(_) => {}
            Record::Blocks(part) => {
                if extent == Extent::Whole {
                    let blocks = imports.blocks.entry(part.import).or_default();
                    blocks.extend(read_blocks(&part.bytes)?);
                }
            }
            Record::IdsReserved(through) => state.ledger.reserve_ids(through),
            Record::ImportPart(part) => {
                state.last_import = state.last_import.max(part.import);
                if extent == Extent::Whole {
                    let parts = imports.parts.entry(part.import).or_default();
                    // A part that was written again after an unknown end replaces itself.
                    let index = usize::try_from(part.index).unwrap_or(usize::MAX);
                    parts.truncate(index);
                    parts.push(part.bytes);
                }
            }
            Record::ImportCommitted(commit) => {
                let parts = imports.parts.remove(&commit.import).unwrap_or_default();
                let blocks = imports.blocks.remove(&commit.import).unwrap_or_default();
                if extent == Extent::Whole {
                    replay_import(state, commit, &parts)?;
                    state.blocks.apply(&blocks);
                }
            }
        }
    }
    Ok(())
}

/// What of imports is read before their commit.
#[derive(Default)]
struct Imports {
    parts: BTreeMap<u64, Vec<Vec<u8>>>,
    blocks: BTreeMap<u64, Vec<BlockChange>>,
}

fn replay_import(
    state: &mut Recovered,
    commit: ImportCommitted,
    parts: &[Vec<u8>],
) -> Result<(), StoredStateError> {
    if commit.revision <= state.writer.registry().id() {
        return Ok(());
    }
    if u32::try_from(parts.len()).ok() != Some(commit.part_count) {
        return Err(StoredStateError::IncompleteImport);
    }
    apply_parts(&mut state.writer, parts)?;
    state.writer.commit(commit.revision);
    Ok(())
}

impl Recovered {
    /// The state before anything has happened.
    pub fn empty(settings: LedgerSettings) -> Recovered {
        Recovered {
            writer: RegistryWriter::default(),
            ledger: Ledger::new(settings),
            last_import: 0,
            snapshot_at: None,
            blocks: Blocks::default(),
            trips: TripBook::default(),
        }
    }
}

/// Why a partition cannot be recovered; an operator must look.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The log cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] JournalError),
    /// A frame holds what cannot be replayed.
    #[error("the frame at position {at} cannot be replayed")]
    Record {
        /// Where.
        at: Position,
        /// Why.
        source: StoredStateError,
    },
    /// The snapshots cannot be listed.
    #[error("the snapshots cannot be listed")]
    Snapshots(#[from] SnapshotError),
    /// No snapshot can be read, and the log does not reach back to the beginning.
    #[error("no snapshot can be read, and the journal was cut")]
    State(#[source] StoredStateError),
}

impl From<RecordError> for StoredStateError {
    fn from(error: RecordError) -> StoredStateError {
        StoredStateError::Record(error)
    }
}
