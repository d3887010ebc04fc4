//! What survives a power cut: the journal, the snapshots and the history of eligo.

pub mod block;
pub mod files;
pub mod frames;
pub mod generation;
pub mod history;
pub mod journal;
pub mod log;
pub mod maker;
pub mod recovery;
pub mod segment;
pub mod sled_snapshots;
pub mod stats;
