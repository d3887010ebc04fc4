//! The log of one partition: who owns it, where it ends, and which segments hold it.
//!
//! The committer appends; any thread may read and truncate meanwhile. Locks are taken in the order
//! `maintenance`, `writer`, `catalog`; only `catalog` is ever taken by readers, and never while the
//! device works.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use engine::ids::PartitionId;
use engine::journal::{AppendError, Epoch, Frame, Frames, JournalError, Position, Tenure};

use crate::block::{BlockHeader, Place, push_block};
use crate::files::{FileLock, Files, StoredFile};
use crate::frames::{LogFrames, SharedBookmark};
use crate::maker::{OrderedSegment, SegmentMaker};
use crate::recovery::{LogFiles, Recovered, SegmentPlace, damaged, recover};
use crate::segment::{FIRST_BLOCK, NewSegment, SegmentHeader, make_segment, segment_path};
use crate::stats::{Append, JournalMeter};

/// What all logs of a node share.
pub struct Workshop {
    /// The file layer.
    pub files: Arc<dyn Files>,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Makes segments ahead.
    pub maker: SegmentMaker,
    /// Counts appends.
    pub meter: JournalMeter,
}

/// The log of one partition.
pub struct Log {
    workshop: Arc<Workshop>,
    partition: PartitionId,
    directory: PathBuf,
    /// Held by what removes or replaces segments, so that neither sees the other halfway.
    maintenance: Mutex<()>,
    /// Held through every append. Uncontended: there is one committer.
    writer: Mutex<Writer>,
    /// Held for a few instructions; `None` until the log was acquired.
    catalog: Mutex<Option<Catalog>>,
    bookmark: SharedBookmark,
}

#[derive(Default)]
struct Writer {
    lock: Option<Box<dyn FileLock>>,
    /// `None` before the first acquisition, and after an append whose end is unknown.
    active: Option<Active>,
    /// The segment that is being made ahead.
    next: Option<OrderedSegment>,
    /// The end of what this process has seen durable.
    durable: Option<Position>,
    buffer: Vec<u8>,
}

struct Active {
    file: Box<dyn StoredFile>,
    epoch: Epoch,
    place: Place,
    bytes: u64,
    end: Position,
}

/// Which segments hold the log, and where its durable part ends.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Oldest first, never empty.
    pub segments: VecDeque<SegmentPlace>,
    /// The end of the durable part.
    pub end: Position,
}

impl Log {
    /// The log of `partition` in `directory`. Touches nothing.
    pub fn new(workshop: Arc<Workshop>, partition: PartitionId, directory: PathBuf) -> Log {
        Log {
            workshop,
            partition,
            directory,
            maintenance: Mutex::default(),
            writer: Mutex::default(),
            catalog: Mutex::default(),
            bookmark: SharedBookmark::default(),
        }
    }

    /// See [`engine::journal::Journal::acquire`].
    pub fn acquire(&self) -> Result<Tenure, JournalError> {
        let files = &*self.workshop.files;
        let _maintenance = held(&self.maintenance);
        let mut writer = held(&self.writer);
        writer.active = None;
        *held(&self.bookmark) = None;
        if writer.lock.is_none() {
            files.make_directory(&self.directory)?;
            if let Some(parent) = self.directory.parent() {
                files.sync_directory(parent)?;
            }
            let lock = files.lock(&self.directory.join("lock"))?;
            writer.lock = Some(lock.ok_or(JournalError::Held)?);
        }
        if let Some(next) = writer.next.take() {
            // It is only waited for, so that it does not appear under our hands.
            drop(next.wait());
        }
        let log = LogFiles { files, directory: &self.directory, partition: self.partition };
        let recovered = recover(log, writer.durable)?;
        for leftover in &recovered.leftovers {
            files.remove(leftover)?;
        }
        let active = self.begin_tenure(&recovered)?;
        let tenure = Tenure { epoch: active.epoch, end: active.end };
        let mut segments = VecDeque::from(recovered.segments);
        segments
            .push_back(SegmentPlace { sequence: active.place.sequence, first: recovered.durable });
        *held(&self.catalog) = Some(Catalog { segments, end: active.end });
        writer.durable = Some(active.end);
        writer.next = Some(self.order_segment(active.place.sequence + 1));
        writer.active = Some(active);
        Ok(tenure)
    }

    /// See [`engine::journal::Journal::append`].
    pub fn append(&self, expected: Position, frame: &Frame) -> Result<Position, AppendError> {
        let mut writer = held(&self.writer);
        let Some(mut active) = writer.active.take() else {
            if writer.durable.is_none() {
                return Err(AppendError::Fenced);
            }
            let poisoned = io::Error::other("an earlier append failed, acquire the log again");
            return Err(AppendError::Unknown(poisoned));
        };
        if (active.epoch, active.end) != (frame.epoch(), expected) {
            writer.active = Some(active);
            return Err(AppendError::Fenced);
        }
        // Whatever fails from here on leaves no active segment: nothing is accepted any more.
        if let Err(error) = self.write(&mut writer, &mut active, frame) {
            self.workshop.meter.count_failure();
            return Err(AppendError::Unknown(error));
        }
        let end = active.end;
        writer.durable = Some(end);
        writer.active = Some(active);
        if let Some(catalog) = &mut *held(&self.catalog) {
            catalog.end = end;
        }
        Ok(end)
    }

    /// See [`engine::journal::Journal::truncate`].
    pub fn truncate(&self, below: Position) -> Result<(), JournalError> {
        let files = &*self.workshop.files;
        let _maintenance = held(&self.maintenance);
        self.catalog()?;
        loop {
            let oldest = held(&self.catalog).as_ref().and_then(|catalog| {
                let next = catalog.segments.get(1)?;
                catalog.segments.front().copied().filter(|_| next.first <= below)
            });
            let Some(oldest) = oldest else { return Ok(()) };
            match files.remove(&segment_path(&self.directory, oldest.sequence)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                // Gone already: an earlier call removed it, but could not sync the directory.
                Ok(()) | Err(_) => {}
            }
            // Each on its own: were they to vanish in another order, a gap would look like damage.
            files.sync_directory(&self.directory)?;
            if let Some(catalog) = &mut *held(&self.catalog) {
                catalog.segments.pop_front();
            }
        }
    }

    /// See [`engine::journal::Journal::read`].
    pub fn read(&self, from: Position) -> Result<Frames, JournalError> {
        let catalog = self.catalog()?;
        if catalog.segments.front().is_some_and(|oldest| oldest.first > from) {
            return Err(JournalError::Truncated { wanted: from });
        }
        if from > catalog.end {
            let sequence = catalog.segments.back().map_or(0, |last| last.sequence);
            let what = format!("the log ends at {}, below the wanted {from}", catalog.end);
            return Err(damaged(Place { sequence, offset: 0 }, &what));
        }
        let files = Arc::clone(&self.workshop.files);
        let (directory, bookmark) = (self.directory.clone(), Arc::clone(&self.bookmark));
        Ok(Box::new(LogFrames::new(files, directory, catalog, from, bookmark)))
    }

    fn catalog(&self) -> Result<Catalog, JournalError> {
        let unowned = || io::Error::new(io::ErrorKind::NotConnected, "the log was not acquired");
        Ok(held(&self.catalog).clone().ok_or_else(unowned)?)
    }

    /// Makes the segment of a new epoch, with the frames of unknown durability in it, and cuts them
    /// from where they were.
    fn begin_tenure(&self, recovered: &Recovered) -> io::Result<Active> {
        let epoch = Epoch(recovered.epoch.0 + 1);
        let (sequence, first) = (recovered.next_sequence, recovered.durable);
        let header = SegmentHeader { sequence, epoch, first, partition: self.partition };
        let mut contents = header.encode();
        let mut end = first;
        for frame in &recovered.tail {
            let place = Place { sequence, offset: contents.len() as u64 };
            let header = BlockHeader::of(frame, end, first, place);
            push_block(&mut contents, &header, frame);
            end = header.next();
        }
        let offset = contents.len() as u64;
        let bytes = self.workshop.segment_bytes.max(offset);
        let new = NewSegment { directory: self.directory.clone(), sequence, bytes, contents };
        let file = make_segment(&*self.workshop.files, &new)?;
        if let Some(seal) = recovered.seal {
            // Only to give space back: the new header has made what is cut here void already.
            let path = segment_path(&self.directory, seal.sequence);
            self.workshop.files.open(&path)?.set_length(seal.offset)?;
        }
        Ok(Active { file, epoch, place: Place { sequence, offset }, bytes, end })
    }

    fn write(&self, writer: &mut Writer, active: &mut Active, frame: &Frame) -> io::Result<()> {
        let header = BlockHeader::of(frame, active.end, active.end, active.place);
        if active.place.offset + header.byte_count() > active.bytes {
            self.rotate(writer, active, header.byte_count())?;
        }
        let header = BlockHeader { sequence: active.place.sequence, ..header };
        let header = BlockHeader { offset: active.place.offset, ..header };
        writer.buffer.clear();
        push_block(&mut writer.buffer, &header, frame);
        active.file.write_at(active.place.offset, &writer.buffer)?;
        let written_at = Instant::now();
        active.file.sync_data()?;
        let sync = written_at.elapsed();
        active.place.offset += header.byte_count();
        active.end = header.next();
        let append = Append { records: frame.record_count(), bytes: writer.buffer.len(), sync };
        self.workshop.meter.count(append);
        Ok(())
    }

    /// Goes on to the next segment. Its header is durable before the first block is written.
    fn rotate(&self, writer: &mut Writer, active: &mut Active, block: u64) -> io::Result<()> {
        let sequence = active.place.sequence + 1;
        let bytes = self.workshop.segment_bytes.max(FIRST_BLOCK + block);
        let ahead = writer.next.take().map(OrderedSegment::wait);
        let file = match ahead {
            Some(Ok(file)) if bytes == self.workshop.segment_bytes => file,
            // Too short for this frame, or making it failed a while ago, perhaps for want of space.
            _ => make_segment(&*self.workshop.files, &self.new_segment(sequence, bytes))?,
        };
        let (epoch, first) = (active.epoch, active.end);
        let header = SegmentHeader { sequence, epoch, first, partition: self.partition };
        file.write_at(0, &header.encode())?;
        file.sync_data()?;
        active.file = file;
        active.place = Place { sequence, offset: FIRST_BLOCK };
        active.bytes = bytes;
        if let Some(catalog) = &mut *held(&self.catalog) {
            catalog.segments.push_back(SegmentPlace { sequence, first });
        }
        writer.next = Some(self.order_segment(sequence + 1));
        Ok(())
    }

    fn order_segment(&self, sequence: u64) -> OrderedSegment {
        self.workshop.maker.order(self.new_segment(sequence, self.workshop.segment_bytes))
    }

    fn new_segment(&self, sequence: u64, bytes: u64) -> NewSegment {
        let directory = self.directory.clone();
        NewSegment { directory, sequence, bytes, contents: Vec::new() }
    }
}

/// The directory of a log among those of a journal.
pub fn log_directory(journal: &Path, partition: PartitionId) -> PathBuf {
    journal.join(format!("partition-{:05}", partition.0))
}

/// Takes a lock. A thread that panicked while it held one leaves nothing halfway: a writer without
/// an active segment accepts nothing, and a catalog changes in one step.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
