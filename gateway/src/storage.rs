//! What an engine keeps its state in, put together in one place.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use engine::calendar::Clock;
use engine::journal::{Journal, JournalError};
use engine::start::Ports;
use snapshots::history::{HistoryOpenError, HistoryOptions, StoredHistory};
use snapshots::journal::{EmbeddedJournal, JournalOptions};
use snapshots::sled_snapshots::SledSnapshots;

use crate::background;
use crate::settings::Settings;

/// Opened storage: the ports of the engine, and those among them that have figures.
pub struct Storage {
    /// What the engine is started with.
    pub ports: Ports,
    /// The journal among the ports.
    pub journal: Arc<EmbeddedJournal>,
    /// The history among the ports.
    pub history: Arc<StoredHistory>,
}

/// Opens journal, snapshots and history below the data directory; blocks.
pub fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Storage, StorageError> {
    let directory = &settings.data_dir;
    let partition = settings.engine.partition;
    let journal = EmbeddedJournal::open(&directory.join("journal"), JournalOptions::default())?;
    let journal = Arc::new(journal);
    let tenure = journal.acquire(partition)?;
    let snapshots = open_snapshots(directory.join("snapshots"))?;
    let shared: Arc<dyn Journal> = Arc::<EmbeddedJournal>::clone(&journal);
    let options = HistoryOptions::default();
    let history =
        StoredHistory::open(&directory.join("history"), Arc::clone(&shared), partition, options)?;
    let history = Arc::new(history);
    let ports = Ports {
        clock,
        history: Arc::<StoredHistory>::clone(&history),
        journal: shared,
        snapshots: Arc::new(snapshots),
        tenure,
    };
    Ok(Storage { ports, journal, history })
}

/// Opens the snapshots with all threads of theirs in the background.
fn open_snapshots(directory: PathBuf) -> io::Result<SledSnapshots> {
    let opening = background::spawn("opening", move || SledSnapshots::open(&directory))?;
    opening.join().map_err(|_panic| io::Error::other("the thread that opens snapshots panicked"))?
}

/// Why there is no storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The history cannot be opened.
    #[error("the history cannot be opened")]
    History(#[from] HistoryOpenError),
    /// Files cannot be made or opened.
    #[error("the data directory cannot be used")]
    Io(#[from] io::Error),
    /// The journal cannot be taken.
    #[error("the journal cannot be taken")]
    Journal(#[from] JournalError),
}
