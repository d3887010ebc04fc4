//! How an engine is, in numbers.

use crate::calendar::Timestamp;
use crate::ids::RevisionId;
use crate::journal::Position;

/// Numbers for metrics and health.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// Whether everything that the engine promises is available.
    pub ready: bool,
    /// Holders in the registry.
    pub holders: usize,
    /// The registry's revision.
    pub revision: RevisionId,
    /// Transactions in memory.
    pub transactions: usize,
    /// Those of them that are neither confirmed nor cancelled.
    pub open_transactions: usize,
    /// The shards.
    pub shards: Vec<ShardStatus>,
    /// Everything below is durable.
    pub durable: Position,
    /// Frames appended since the start.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// When the last snapshot was begun: one since the start, else the one that the start has read.
    pub snapshot_at: Option<Timestamp>,
    /// Openings that were not journaled because too many waited.
    pub openings_dropped: u64,
    /// Trips in memory.
    pub trips: usize,
}

/// One shard.
#[derive(Clone, Copy, Debug)]
pub struct ShardStatus {
    /// Commands waiting.
    pub waiting: usize,
    /// Whether it takes commands.
    pub up: bool,
}
