//! The follower: the thread that carries settled transactions from the log into the archive and
//! the index.
//!
//! It owns the archive and, alone, writes the index. It promises: a record is in the archive before
//! it is in the index, the archive is fsynced before the index says so, and nothing is skipped. If
//! it dies nothing is lost; the next one goes on where the archive ends. Every error is retried:
//! journal errors from the same place, archive errors after cutting what is not fsynced, index
//! errors with the index opened again and caught up from the archive.
//!
//! Under load it works in batches and rests [`REST`](crate::history::limits::REST) whenever it
//! reached the end of the log; a waiting question ends the rest at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::ids::PartitionId;
use engine::journal::{BatchId, Epoch, FrameBuilder, Journal, JournalError, Position};
use engine::record::{Record, RecordError};
use engine::transaction::Event;

use crate::history::archive::{Archive, ArchiveError};
use crate::history::index::{Index, IndexError, IndexOptions};
use crate::history::limits::{
    BATCH_RECORDS_MAX, CHECKPOINT_AFTER, ERRORS_TOLERATED, RETRY_AFTER_MAX, RETRY_AFTER_MIN,
    UNSYNCED_BYTES_MAX,
};
use crate::history::progress::{Progress, Trouble};

/// What the follower works with.
pub(super) struct Follower {
    journal: Arc<dyn Journal>,
    partition: PartitionId,
    archive: Archive,
    index_directory: PathBuf,
    index_options: IndexOptions,
    /// Up to where the index is written out, where its watermark does not say so yet.
    written_out: Option<Position>,
    progress: Arc<Progress>,
    /// Up to where the log was read; at or beyond the end of the archive.
    position: Position,
    /// Where the archive ended at the start: a log that ends before is another one.
    began: Position,
    /// When what was written must be fsynced.
    due: Option<Instant>,
    /// Whether the archive must be cut back to what is fsynced.
    torn: bool,
    /// Whether the index holds all that the archive does; until then nothing is read from the log.
    caught_up: bool,
    /// Whether the index must be deleted before it is opened.
    spoiled: bool,
    errors: u32,
}

/// What a follower is made for.
pub(super) struct Subject {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) partition: PartitionId,
    pub(super) index_directory: PathBuf,
    pub(super) index_options: IndexOptions,
}

impl Follower {
    pub(super) fn new(subject: Subject, archive: Archive, progress: Arc<Progress>) -> Follower {
        Follower {
            journal: subject.journal,
            partition: subject.partition,
            position: archive.end(),
            began: archive.end(),
            archive,
            index_directory: subject.index_directory,
            index_options: subject.index_options,
            written_out: None,
            progress,
            due: None,
            torn: false,
            caught_up: false,
            spoiled: false,
            errors: 0,
        }
    }

    /// Follows until it is asked to stop.
    pub(super) fn run(mut self) {
        while !self.progress.is_stopping() {
            match self.guarded(Follower::step) {
                Ok(progressed) => {
                    self.recovered();
                    self.progress.rest(progressed, self.due);
                }
                Err(error) => self.failed(&error),
            }
        }
        if self.due.is_some()
            && let Err(error) = self.guarded(Follower::checkpoint)
        {
            tracing::warn!(%error, "the history was closed without a checkpoint");
        }
        self.close_index();
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Follower) -> Result<T, FollowError>,
    ) -> Result<T, FollowError> {
        // A panic is treated like an error of everything that may have been half done.
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or(Err(FollowError::Panicked))
    }

    /// One round: puts in order what an error left behind, then reads the log to its end. Tells
    /// whether it found anything.
    fn step(&mut self) -> Result<bool, FollowError> {
        if self.torn {
            self.archive.retreat()?;
            self.torn = false;
            self.position = self.archive.end();
        }
        if self.progress.take_suspicion() {
            tracing::warn!("the index of the history gave a wrong answer and is rebuilt");
            self.spoiled = true;
            self.close_index();
        }
        let index = match self.progress.index() {
            Some(index) if self.caught_up => index,
            _ => self.open_index()?,
        };
        let progressed = self.read_log(&index)?;
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.checkpoint()?;
        }
        Ok(progressed)
    }

    /// Opens the index and brings it up to the end of the archive.
    fn open_index(&mut self) -> Result<Arc<Index>, FollowError> {
        if self.spoiled {
            Index::delete(&self.index_directory)?;
            self.spoiled = false;
        }
        self.written_out = None;
        let index = Index::open_or_begin(&self.index_directory, self.index_options)?;
        let index = Arc::new(index);
        let mut watermark = index.watermark()?;
        self.progress.publish(Arc::clone(&index), watermark);
        let mut entries = self.archive.entries_from(watermark);
        let mut settled = Vec::new();
        while let Some(entry) = entries.next()? {
            if self.progress.is_stopping() {
                return Err(FollowError::Stopped);
            }
            settled.clear();
            for record in entry.frame.records() {
                let at = entry.head.from;
                settled.extend(settlement(record, at)?);
            }
            watermark = entry.head.through;
            self.insert(&index, &settled, watermark)?;
            self.note_written_out(&index)?;
        }
        self.caught_up = true;
        Ok(index)
    }

    fn read_log(&mut self, index: &Index) -> Result<bool, FollowError> {
        let told = self.progress.told();
        if told > Position::ORIGIN && told < self.began {
            return Err(FollowError::Foreign { told, began: self.began });
        }
        if told <= self.position && !self.progress.is_asked() {
            return Ok(false);
        }
        let began = self.position;
        let mut gathered = Gathered::default();
        for stored in self.journal.read(self.partition, self.position)? {
            let stored = stored?;
            if !gathered.builder.fits(stored.frame.bytes().len())
                || gathered.settled.len() >= BATCH_RECORDS_MAX
            {
                self.commit(&mut gathered, index)?;
            }
            for record in stored.frame.records() {
                let Some(event) = settlement(record, stored.at)? else { continue };
                engine::entries::push_entry(&mut gathered.record, |out| {
                    out.extend_from_slice(record);
                });
                gathered.builder.extend(&gathered.record, 1);
                gathered.record.clear();
                gathered.settled.push(event);
            }
            gathered.named = (stored.frame.epoch(), stored.frame.batch());
            gathered.through = Some(stored.next);
            if self.progress.is_stopping() {
                break;
            }
        }
        self.commit(&mut gathered, index)?;
        // Below what was told durable there is no frame any more: the log is complete up to there.
        if self.position == began && told > self.position && !self.progress.is_stopping() {
            gathered.through = Some(told);
            self.commit(&mut gathered, index)?;
        }
        Ok(self.position > began)
    }

    /// Archives and indexes what was gathered.
    fn commit(&mut self, gathered: &mut Gathered, index: &Index) -> Result<(), FollowError> {
        let Some(through) = gathered.through.take() else { return Ok(()) };
        if !gathered.settled.is_empty() {
            let (epoch, batch) = gathered.named;
            let frame = gathered.builder.finish(epoch, batch);
            self.archive.append(through, &frame)?;
            self.progress.keep(self.archive.durable());
        }
        // Should the insert fail, the archive is ahead of the index.
        self.position = through;
        self.insert(index, &gathered.settled, through)?;
        gathered.settled.clear();
        self.due.get_or_insert_with(|| Instant::now() + CHECKPOINT_AFTER);
        if self.archive.unsynced_bytes() >= UNSYNCED_BYTES_MAX {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Fsyncs the archive and says so.
    fn checkpoint(&mut self) -> Result<(), FollowError> {
        if self.position > self.archive.end() {
            // Nothing was settled in this stretch, yet the log may be cut up to here.
            let empty = FrameBuilder::new().finish(Epoch::default(), BatchId::default());
            self.archive.append(self.position, &empty)?;
        }
        self.archive.sync()?;
        self.progress.keep(self.archive.durable());
        if let Some(index) = self.progress.index() {
            self.note_written_out(&index)?;
        }
        self.due = None;
        Ok(())
    }

    /// Gives the index what was settled up to `through`.
    fn insert(
        &mut self,
        index: &Index,
        settled: &[Event],
        through: Position,
    ) -> Result<(), FollowError> {
        if index.insert(settled)? {
            self.written_out = Some(through);
        }
        let count = u64::try_from(settled.len()).unwrap_or(u64::MAX);
        self.progress.advance(through, count);
        Ok(())
    }

    /// Moves the watermark of the index to where it was written out, once the archive is fsynced
    /// that far.
    fn note_written_out(&mut self, index: &Index) -> Result<(), FollowError> {
        let durable = self.archive.durable();
        if let Some(watermark) = self.written_out.take_if(|through| *through <= durable) {
            index.note_watermark(watermark)?;
        }
        Ok(())
    }

    /// Takes the index back and closes it once nobody reads it.
    fn close_index(&mut self) {
        self.caught_up = false;
        let Some(mut index) = self.progress.withdraw() else { return };
        loop {
            match Arc::try_unwrap(index) {
                Ok(index) => return index.close(),
                Err(shared) => index = shared,
            }
            // Those who read have deadlines.
            std::thread::sleep(RETRY_AFTER_MIN);
        }
    }

    fn recovered(&mut self) {
        self.errors = 0;
        if let Some(trouble) = self.progress.set_trouble(None) {
            tracing::info!(cause = %trouble.cause, "the history follows the log again");
        }
    }

    /// Notes what must be put in order, says it once for every cause, and waits.
    fn failed(&mut self, error: &FollowError) {
        match error {
            FollowError::Stopped => return,
            FollowError::Archive(_) => self.torn = true,
            FollowError::Index(error) => {
                // After a panic the store may still be whole; opening it will tell.
                self.spoiled |= !error.is_passing() && !matches!(error, IndexError::Panicked);
                self.close_index();
            }
            FollowError::Panicked => {
                self.torn = true;
                self.close_index();
            }
            FollowError::Foreign { .. } | FollowError::Journal(_) | FollowError::Record { .. } => {}
        }
        if !self.caught_up {
            self.close_index();
        }
        self.errors = self.errors.saturating_add(1);
        let cause = error.to_string();
        let lasting = self.errors > ERRORS_TOLERATED;
        let before = self.progress.set_trouble(Some(Trouble { cause: cause.clone(), lasting }));
        if before.is_none_or(|before| before.cause != cause) {
            tracing::error!(position = %self.position, %cause, "the history cannot follow the log");
        }
        let doublings = self.errors.saturating_sub(1).min(16);
        let pause = RETRY_AFTER_MIN.saturating_mul(1 << doublings).min(RETRY_AFTER_MAX);
        self.progress.back_off(pause);
    }
}

/// Settled records that wait to be archived as one.
#[derive(Default)]
struct Gathered {
    builder: FrameBuilder,
    settled: Vec<Event>,
    /// Epoch and batch of the last frame they came from.
    named: (Epoch, BatchId),
    /// Up to where the log was read.
    through: Option<Position>,
    /// One record in its stored form, kept for its memory.
    record: Vec<u8>,
}

/// The event in a record of the frame at `at`, if it settles a transaction.
fn settlement(record: &[u8], at: Position) -> Result<Option<Event>, FollowError> {
    if !Record::is_settlement(record) {
        return Ok(None);
    }
    match Record::read(record).map_err(|error| FollowError::Record { at, error })? {
        Record::Event(event) => Ok(Some(event)),
        _ => Ok(None),
    }
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the log ends at {told}, but the history had followed it up to {began}")]
    Foreign { told: Position, began: Position },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the log cannot be read: {0}")]
    Journal(#[from] JournalError),
    #[error("the follower panicked")]
    Panicked,
    #[error("the log holds {error} in the frame at {at}")]
    Record { at: Position, error: RecordError },
    #[error("the history is closing")]
    Stopped,
}

const _: () = assert!(CHECKPOINT_AFTER.as_millis() > Duration::ZERO.as_millis());
