//! The snapshot port: where the state of a partition is kept so that its log can be cut.
//!
//! A snapshot is a sequence of small parts and the position from which the log must be replayed on
//! top of it. It may already hold effects of later frames (parts are taken while shards go on
//! working): replaying an event twice changes nothing, see invariant 6.

use crate::ids::PartitionId;
use crate::journal::Position;

/// One small piece of a snapshot (a few kilobytes; at most 64 KiB).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotPart {
    /// What the piece holds, in the words of the engine.
    pub kind: u8,
    /// Its number among those of its kind.
    pub index: u32,
    /// The piece, in a versioned form of the engine's.
    pub bytes: Vec<u8>,
}

/// Names a snapshot of a partition; later ones are greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Generation(pub u64);

/// A snapshot that was once complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SnapshotInfo {
    /// Its name.
    pub generation: Generation,
    /// Where replay begins.
    pub replay_from: Position,
}

/// The parts of a snapshot in the order of (kind, index), each verified; the last step verifies the
/// digest of the whole.
pub type SnapshotParts = Box<dyn Iterator<Item = Result<SnapshotPart, SnapshotError>> + Send>;

/// Keeps at least the two newest complete snapshots of every partition. All calls may block.
pub trait SnapshotStore: Send + Sync + 'static {
    /// Stores a snapshot and makes it the newest once all of it is durable and reads back right.
    /// An error among `parts` gives it up, and so does [`SnapshotStore::stop`]. On success older
    /// generations beyond the two newest are dropped.
    fn put(
        &self,
        partition: PartitionId,
        replay_from: Position,
        parts: &mut dyn Iterator<Item = Result<SnapshotPart, SnapshotError>>,
    ) -> Result<SnapshotInfo, SnapshotError>;

    /// The complete snapshots, newest first.
    fn list(&self, partition: PartitionId) -> Result<Vec<SnapshotInfo>, SnapshotError>;

    /// Reads a snapshot.
    fn read(
        &self,
        partition: PartitionId,
        generation: Generation,
    ) -> Result<SnapshotParts, SnapshotError>;

    /// Ends a [`SnapshotStore::put`] in hand soon, and every later one, with
    /// [`SnapshotError::Stopped`], unless it is done before. What is complete stays.
    fn stop(&self);
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The engine gave the snapshot up, for example because the journal failed meanwhile.
    #[error("the snapshot was given up: {0}")]
    Abandoned(&'static str),
    /// What is stored is not what was written.
    #[error("damaged snapshot: {0}")]
    Damaged(String),
    /// The device failed.
    #[error("snapshot input/output failed")]
    Io(#[from] std::io::Error),
    /// The store was stopped meanwhile. The snapshot may be complete all the same.
    #[error("the snapshot was given up: the store was stopped")]
    Stopped,
}
