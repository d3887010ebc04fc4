//! The frames of a log from some position on, read segment by segment.
//!
//! It sees the log as it stood when the reading began, and stops where its durable part ended then.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::journal::{JournalError, Position, StoredFrame};

use crate::block::Place;
use crate::files::Files;
use crate::log::Catalog;
use crate::recovery::{SegmentPlace, block_error};
use crate::segment::{BlockError, SegmentReader, segment_path};

/// Iterates over the frames; ends after the first error.
pub struct LogFrames {
    files: Arc<dyn Files>,
    directory: PathBuf,
    from: Position,
    end: Position,
    waiting: VecDeque<SegmentPlace>,
    current: Option<Current>,
    bookmark: SharedBookmark,
}

/// Where the last reading ended, so that whoever follows the log need not look for it again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bookmark {
    position: Position,
    place: Place,
}

/// A bookmark that readings leave for the next one. A std lock: held for a copy only.
pub type SharedBookmark = Arc<Mutex<Option<Bookmark>>>;

struct Current {
    reader: SegmentReader,
    sequence: u64,
    /// Where the next segment begins: what stands here at or above it is void.
    limit: Position,
}

impl LogFrames {
    /// The frames that begin at `from` or later. Reads nothing yet.
    pub fn new(
        files: Arc<dyn Files>,
        directory: PathBuf,
        catalog: Catalog,
        from: Position,
        bookmark: SharedBookmark,
    ) -> LogFrames {
        let mut waiting = catalog.segments;
        while waiting.get(1).is_some_and(|next| next.first <= from) {
            waiting.pop_front();
        }
        LogFrames { files, directory, from, end: catalog.end, waiting, current: None, bookmark }
    }

    /// The next frame, `None` at the end.
    fn read(&mut self) -> Result<Option<StoredFrame>, JournalError> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(segment) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(self.begin(segment)?);
                continue;
            };
            let place = Place { sequence: current.sequence, offset: current.reader.offset() };
            let position = current.reader.position();
            if position >= current.limit {
                self.current = None;
                *lock(&self.bookmark) = Some(Bookmark { position, place });
                continue;
            }
            let frame = current.next(self.from).map_err(|error| block_error(place, error))?;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn begin(&self, segment: SegmentPlace) -> Result<Current, JournalError> {
        let file = match self.files.open(&segment_path(&self.directory, segment.sequence)) {
            Ok(file) => file,
            // It was there when the reading began, so the log has been truncated since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Truncated { wanted: self.from });
            }
            Err(error) => return Err(error.into()),
        };
        let mut reader = SegmentReader::new(file, segment.sequence, segment.first);
        let marked = lock(&self.bookmark)
            .filter(|mark| mark.position == self.from && mark.place.sequence == segment.sequence);
        if let Some(mark) = marked {
            reader.start_at(mark.place.offset, mark.position);
        }
        Ok(Current {
            reader,
            sequence: segment.sequence,
            limit: self.waiting.front().map_or(self.end, |next| next.first),
        })
    }
}

fn lock(bookmark: &SharedBookmark) -> MutexGuard<'_, Option<Bookmark>> {
    bookmark.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Iterator for LogFrames {
    type Item = Result<StoredFrame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.read();
        if frame.is_err() {
            self.waiting.clear();
            self.current = None;
        }
        frame.transpose()
    }
}

impl Current {
    /// The next frame; `None` if it begins below `from`.
    fn next(&mut self, from: Position) -> Result<Option<StoredFrame>, BlockError> {
        let header = self.reader.header()?;
        if header.first < from {
            self.reader.skip(&header);
            return Ok(None);
        }
        let frame = self.reader.take(&header)?;
        Ok(Some(StoredFrame { at: header.first, next: header.next(), frame }))
    }
}
