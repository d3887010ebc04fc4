//! What an engine keeps its state in, put together in one place.

use std::sync::Arc;

use engine::calendar::Clock;
use engine::engine::Ports;

use crate::settings::Settings;

/// Opens journal, snapshots and history below the data directory; blocks.
pub fn open(_settings: &Settings, _clock: Arc<dyn Clock>) -> Result<Ports, StorageError> {
    Err(StorageError::NotLinked)
}

/// Why there is no storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// This build has none.
    #[error("storage is not linked")]
    NotLinked,
}
