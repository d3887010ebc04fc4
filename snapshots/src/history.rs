//! The stored history: confirmed and cancelled transactions of years, far more than memory holds.
//!
//! A thread of its own, the follower, reads the log of a partition, appends what was settled to an
//! archive of plain files (the durable truth once the log is cut) and inserts it into an index
//! (derived, rebuilt from archive and log whenever it is lost or does not open). A question names
//! the position that its answer must include; it waits for the follower, at most until its deadline.
//!
//! Promises: an answer holds everything settled below the wanted position, once; the log is never
//! allowed to be cut above what the archive has fsynced; damage is named, never skipped; nothing
//! of the holders is logged. It does not know what may be confirmed, nor who may ask.
//!
//! In its directory: `lock`, `archive/` and `index/`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::history::{Freshness, History, HistoryError, HistoryPage, Page, Settled, Span};
use engine::ids::{HolderId, OrganizationId, PartitionId, TransactionId};
use engine::journal::{Journal, JournalError, Position};

use crate::generation::sync_directory;
use crate::history::archive::{Archive, ArchiveError};
use crate::history::follower::{Follower, Subject};
use crate::history::index::{Index, IndexError, IndexOptions};
use crate::history::limits::{ARCHIVE_FILE_BYTES, INDEX_CACHE_BYTES, SHUTDOWN_WAIT, TAIL_RECORDS};
use crate::history::progress::Progress;

pub mod archive;
mod entry;
mod follower;
mod index;
pub mod limits;
mod progress;
mod tail;

/// The history of one partition. Dropping it makes the index and the archive durable and ends the
/// follower.
pub struct StoredHistory {
    progress: Arc<Progress>,
    follower: Option<JoinHandle<()>>,
    /// Held as long as the files are ours.
    _lock: File,
}

/// How a history is kept.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// Bytes after which a new archive file is begun.
    pub archive_file_bytes: u64,
    /// Bytes of blocks that the index keeps in memory.
    pub index_cache_bytes: u64,
    /// Settled transactions kept in memory before they are written into the index.
    pub tail_records: usize,
}

impl Default for HistoryOptions {
    fn default() -> HistoryOptions {
        HistoryOptions {
            archive_file_bytes: ARCHIVE_FILE_BYTES,
            index_cache_bytes: INDEX_CACHE_BYTES,
            tail_records: TAIL_RECORDS,
        }
    }
}

/// Figures for metrics.
#[derive(Clone, Debug)]
pub struct HistoryStats {
    /// Questions up to here are answered at once.
    pub watermark: Position,
    /// How far the log was told to be durable; above the watermark while the history lags.
    pub told: Position,
    /// Settled transactions indexed since the start, rebuilding included.
    pub indexed_count: u64,
    /// What keeps the history from following, if anything does.
    pub trouble: Option<String>,
}

impl StoredHistory {
    /// Opens or creates the history of `partition` in `directory` and begins to follow. The
    /// partition must have been acquired. The index is opened, or rebuilt, behind the return:
    /// questions wait for it.
    pub fn open(
        directory: &Path,
        journal: Arc<dyn Journal>,
        partition: PartitionId,
        options: HistoryOptions,
    ) -> Result<StoredHistory, HistoryOpenError> {
        let archive_directory = directory.join("archive");
        fs::create_dir_all(&archive_directory)?;
        // The journal is cut on the word of what is kept here.
        for made in std::iter::once(directory).chain(directory.parent()) {
            sync_directory(made)?;
        }
        let lock = File::options().create(true).append(true).open(directory.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => HistoryOpenError::Io(error),
            TryLockError::WouldBlock => HistoryOpenError::Held,
        })?;
        let archive = Archive::open(&archive_directory, partition, options.archive_file_bytes)?;
        // A log that no longer reaches back to the archive's end is found here, not at the first
        // question.
        journal.read(partition, archive.end())?.next().transpose()?;
        let progress = Arc::new(Progress::new(archive.durable()));
        let subject = Subject {
            journal,
            partition,
            index_directory: directory.join("index"),
            index_options: IndexOptions {
                cache_bytes: options.index_cache_bytes,
                tail_records: options.tail_records,
            },
        };
        let follower = Follower::new(subject, archive, Arc::clone(&progress));
        let name = format!("history-{partition}");
        let follower = std::thread::Builder::new().name(name).spawn(move || follower.run())?;
        progress.set_follower(follower.thread().clone());
        Ok(StoredHistory { progress, follower: Some(follower), _lock: lock })
    }

    /// Figures for metrics.
    pub fn stats(&self) -> HistoryStats {
        HistoryStats {
            watermark: self.progress.watermark(),
            told: self.progress.told(),
            indexed_count: self.progress.indexed(),
            trouble: self.progress.trouble(),
        }
    }

    fn ask<T>(
        &self,
        freshness: Freshness,
        question: impl FnOnce(&Index) -> Result<T, IndexError>,
    ) -> Result<T, HistoryError> {
        let index = self.progress.fresh_index(freshness)?;
        question(&index).map_err(|error| {
            if matches!(error, IndexError::Late) {
                return HistoryError::Late;
            }
            if !error.is_passing() {
                self.progress.suspect();
            }
            HistoryError::Broken(error.to_string())
        })
    }
}

impl History for StoredHistory {
    fn of_holder(
        &self,
        holder: HolderId,
        span: Span,
        page: Page,
        freshness: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        self.ask(freshness, |index| index.of_holder(holder, span, page, freshness.deadline))
    }

    fn of_organization(
        &self,
        organization: OrganizationId,
        span: Span,
        page: Page,
        freshness: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        self.ask(freshness, |index| {
            index.of_organization(organization, span, page, freshness.deadline)
        })
    }

    fn settled(
        &self,
        transaction: TransactionId,
        freshness: Freshness,
    ) -> Result<Option<Settled>, HistoryError> {
        self.ask(freshness, |index| index.settled(transaction))
    }

    fn follow(&self, end: Position) {
        self.progress.tell(end);
    }

    fn kept(&self) -> Position {
        self.progress.kept()
    }
}

impl Drop for StoredHistory {
    fn drop(&mut self) {
        self.progress.stop();
        let Some(follower) = self.follower.take() else { return };
        // A store that waits for a full disk would keep the whole process from ending.
        let until = Instant::now() + SHUTDOWN_WAIT;
        while !follower.is_finished() {
            if Instant::now() >= until {
                tracing::error!("the follower of the history did not end in time");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if follower.join().is_err() {
            tracing::error!("the follower of the history panicked");
        }
    }
}

/// Why a history could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HistoryOpenError {
    /// The archive is damaged or cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Another process has it open.
    #[error("the history is held by another process")]
    Held,
    /// The device failed, or there is no thread to be had.
    #[error("history input/output failed: {0}")]
    Io(#[from] io::Error),
    /// The log cannot be read, or no longer reaches back to where the archive ends.
    #[error("the log of the history cannot be read: {0}")]
    Journal(#[from] JournalError),
}
