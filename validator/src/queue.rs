//! The trips that the server does not have yet, on disk.
//!
//! # Promises
//! - A trip that [`TripQueue::append`] returned for is on disk and stays there until it is settled,
//!   through the death of the process and a loss of power. All trips of a call become durable with
//!   one sync of the file; nobody may answer a grant before.
//! - A sequence number is never used for two trips, even where the end of a file was lost: numbers are
//!   taken from a durably reserved range, and a restart skips the rest of it.
//! - Nothing is dropped: at [`TRIPS_MAX`] trips, or when the oldest is [`AGE_DAYS_MAX`] days old, or
//!   when the disk is full, `append` fails, and the device must refuse. What the server will not take
//!   is put aside ([`refused`]). A file that cannot be read holds up no other: it stays where it is,
//!   is counted, and tried again.
//!
//! All times are the server's: a device's own clock may be years behind at its start.
//!
//! # Why
//! *Settling is not durable at once.* A trip that is sent again is a duplicate, which the server
//! answers; so a settled trip costs no write, and a file is removed once all of its trips are settled.
//!
//! *Settled files stay for a while* ([`RETAINED_MS`]): what was granted at a stop within the last
//! minutes is read from them after a restart, and needs no file of its own.
//!
//! *A start begins a new file.* What a power cut left at the end of the last one is never written over.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use serde_bytes::ByteArray;

use crate::files::{self, Files};
use crate::queue::refused::Refused;
use crate::queue::segment::{Contents, Entry, EntryError, MAGIC, Segment};

pub mod refused;
pub mod segment;

/// Trips that the queue holds.
pub const TRIPS_MAX: usize = 100_000;
/// Days that a trip may wait.
pub const AGE_DAYS_MAX: i64 = 30;
/// Trips of one file.
pub const SEGMENT_TRIPS_MAX: usize = 256;
/// How long the trips of the past are still readable, for the rules of a stop.
pub const RETAINED_MS: i64 = 2 * 3_600_000;
/// Numbers reserved at a time.
const RESERVED_NUMBERS: u64 = 1_024;
/// Spoiled files that are kept.
const ASIDE_FILES_MAX: usize = 16;
/// Numbers skipped where the reservation was lost.
const LOST_NUMBERS: u64 = 1 << 20;
const MS_PER_DAY: i64 = 86_400_000;
/// 2025-01-01: a trip from before was recorded while the clock was not set, and has no age.
const CLOCK_SET_MS: i64 = 1_735_689_600_000;

/// The queue; see the head of the module.
pub struct TripQueue {
    files: Arc<dyn Files>,
    sealed: VecDeque<Segment>,
    active: Option<Segment>,
    /// A file whose end may hold trips that were refused: it is cut before anything else is written.
    uncut: Option<Segment>,
    refused: Refused,
    /// Files that could not be read at the start.
    unread_files: usize,
    next: u64,
    reserved: u64,
    pending: usize,
}

impl TripQueue {
    /// Opens the queue of a directory, new or as it was left.
    pub fn open(files: Arc<dyn Files>, now_ms: i64) -> Result<(TripQueue, Recovered), QueueError> {
        let mut recovered = Recovered::default();
        let mut sealed = VecDeque::new();
        let mut names = files.list().map_err(QueueError::from_disk)?;
        names.sort_unstable();
        let refused = Refused::open(&*files).unwrap_or_else(|_unreadable| {
            recovered.unread_files += 1;
            Refused::default()
        });
        let mut renamed = BTreeMap::new();
        let mut last = None;
        for name in names.iter().filter(|name| Segment::is_name(name)) {
            last = last.max(Segment::first_of(name));
            let Ok((mut segment, contents)) = Segment::open(&*files, name) else {
                recovered.unread_files += 1;
                continue;
            };
            last = last.max(Some(segment.last));
            segment.pending.retain(|seq, _| !refused.has(*seq));
            for entry in contents.entries.iter().filter(|entry| entry.renumbered > 0) {
                let newest = renamed.entry(entry.name()).or_insert(entry.trip.seq);
                *newest = entry.trip.seq.max(*newest);
            }
            recovered.note(contents, now_ms);
            sealed.push_back(segment);
        }
        let reserved = read_reserved(&*files).map_err(QueueError::from_disk)?;
        recovered.numbers_lost = reserved.is_none() && last.is_some();
        let next = match (reserved, last) {
            (Some(reserved), last) => reserved.max(last.map_or(1, |last| last.saturating_add(1))),
            (None, Some(last)) => last.saturating_add(LOST_NUMBERS),
            (None, None) => 1,
        };
        let pending = sealed.iter().map(|segment: &Segment| segment.pending.len()).sum();
        let mut queue = TripQueue {
            files,
            sealed,
            active: None,
            uncut: None,
            refused,
            unread_files: recovered.unread_files,
            next,
            reserved: next,
            pending,
        };
        queue.settle_superseded(&renamed);
        queue.clean(now_ms);
        Ok((queue, recovered))
    }

    /// Records trips, all or none, and gives them their numbers; durable when this returns.
    pub fn append(&mut self, entries: Vec<Entry>, now_ms: i64) -> Result<Vec<u64>, QueueError> {
        self.check_room(entries.len(), now_ms)?;
        self.append_again(entries)
    }

    /// Records trips of the queue under other numbers, for which there is always room: the caller
    /// settles the old ones next.
    pub fn append_again(&mut self, mut entries: Vec<Entry>) -> Result<Vec<u64>, QueueError> {
        self.cut_refused()?;
        let first = self.next;
        let count = entries.len() as u64;
        self.reserve(first.saturating_add(count))?;
        self.next = first.saturating_add(count);
        let mut bytes = Vec::new();
        for (entry, seq) in entries.iter_mut().zip(first..) {
            entry.trip.seq = seq;
            entry.write(&mut bytes).map_err(|EntryError| QueueError::TooLong)?;
        }
        let mut segment = self.take_active(first, entries.len());
        if let Err(error) = self.write(&segment, &bytes) {
            self.uncut = Some(segment);
            // What cannot be cut now is cut before the next append.
            let _ = self.cut_refused();
            return Err(QueueError::from_disk(error));
        }
        if segment.length == 0 {
            segment.length = MAGIC.len() as u64;
        }
        segment.length += bytes.len() as u64;
        entries.iter().for_each(|entry| segment.note(&entry.trip));
        self.pending += entries.len();
        self.active = Some(segment);
        Ok((first..self.next).collect())
    }

    /// The server has answered for good: the trip need not be sent again.
    pub fn settle(&mut self, seq: u64) {
        let segments = self.sealed.iter_mut().chain(&mut self.uncut).chain(&mut self.active);
        let settled =
            segments.map(|segment| usize::from(segment.pending.remove(&seq).is_some())).sum();
        self.pending = self.pending.saturating_sub(settled);
    }

    /// The server will not take these trips: they are put aside, durably, and need not be sent again.
    pub fn refuse(&mut self, entries: &[Entry]) -> Result<(), QueueError> {
        self.refused.put(&*self.files, entries)?;
        entries.iter().for_each(|entry| self.settle(entry.trip.seq));
        Ok(())
    }

    /// Makes numbers begin again at `next`, where that is further on: another device used this
    /// terminal's numbers up to there.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Removes files of which nothing is needed any more; one that cannot be read is put aside for a
    /// person to look at. What cannot be removed now is removed later.
    pub fn clean(&mut self, now_ms: i64) {
        let files = &*self.files;
        self.sealed.retain(|segment| {
            let past = segment.newest_ms.abs_diff(now_ms) > RETAINED_MS.unsigned_abs();
            if !segment.pending.is_empty() || (segment.trips > 0 && !past) {
                return true;
            }
            let gone = match segment.spoiled {
                true => put_aside(files, &segment.name),
                false => files::remove_if_there(files, &segment.name),
            };
            gone.is_err()
        });
    }

    /// Up to `trips_max` of the oldest trips that are not settled, with numbers above `after`. Those
    /// in files that cannot be read now are passed over.
    pub fn pending(&mut self, after: u64, trips_max: usize) -> Pending {
        let mut found = Pending::default();
        let segments = self.sealed.iter_mut().chain(&mut self.uncut).chain(&mut self.active);
        for segment in segments {
            let left = trips_max.saturating_sub(found.entries.len());
            if left == 0 {
                break;
            }
            if segment.pending.range(after.saturating_add(1)..).next().is_none() {
                continue;
            }
            let contents = Contents::read(&*self.files, &segment.name);
            segment.unreadable = contents.is_err();
            match contents {
                Ok(contents) => {
                    let waiting = contents.entries.into_iter().filter(|entry| {
                        entry.trip.seq > after && segment.pending.contains_key(&entry.trip.seq)
                    });
                    found.entries.extend(waiting.take(left));
                }
                Err(error) => found.unreadable = Some(QueueError::from_disk(error)),
            }
        }
        found
    }

    /// Trips that are not settled.
    pub fn len(&self) -> usize {
        self.pending
    }

    /// Trips that the server will not take.
    pub fn refused(&self) -> usize {
        self.refused.count()
    }

    /// Files that cannot be read.
    pub fn unreadable_files(&self) -> usize {
        self.unread_files + self.segments().filter(|segment| segment.unreadable).count()
    }

    /// Whether all trips are settled.
    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Whether one more trip would be refused for its number or the age of the oldest.
    pub fn check_room(&self, trips: usize, now_ms: i64) -> Result<(), QueueError> {
        if self.pending.saturating_add(trips) > TRIPS_MAX {
            return Err(QueueError::Full);
        }
        let pending = self.segments().flat_map(|segment| segment.pending.values());
        let oldest_ms = pending.copied().find(|at_ms| *at_ms >= CLOCK_SET_MS).unwrap_or(now_ms);
        if now_ms.saturating_sub(oldest_ms) > AGE_DAYS_MAX * MS_PER_DAY {
            return Err(QueueError::TooOld);
        }
        Ok(())
    }

    /// All files, oldest first.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().chain(&self.uncut).chain(&self.active)
    }

    /// Settles trips that are there under a later number too, as they were before a restart.
    fn settle_superseded(&mut self, renamed: &BTreeMap<ByteArray<16>, u64>) {
        if renamed.is_empty() {
            return;
        }
        for segment in &mut self.sealed {
            // What cannot be read is passed over when it is to be sent.
            let contents = Contents::read(&*self.files, &segment.name).unwrap_or_default();
            for entry in contents.entries {
                if renamed.get(&entry.name()).is_some_and(|newest| *newest > entry.trip.seq) {
                    let settled = segment.pending.remove(&entry.trip.seq);
                    self.pending -= usize::from(settled.is_some());
                }
            }
        }
    }

    /// The file that the next `trips` trips go to, sealing the one before where they do not fit.
    fn take_active(&mut self, first: u64, trips: usize) -> Segment {
        match self.active.take() {
            Some(active) if active.trips.saturating_add(trips) <= SEGMENT_TRIPS_MAX => active,
            full => {
                self.sealed.extend(full);
                Segment::new(first)
            }
        }
    }

    fn write(&self, segment: &Segment, records: &[u8]) -> io::Result<()> {
        if segment.length > 0 {
            self.files.append(&segment.name, records)?;
            return self.files.sync(&segment.name);
        }
        self.files.append(&segment.name, &[&MAGIC[..], records].concat())?;
        self.files.sync(&segment.name)?;
        self.files.sync_directory()
    }

    /// Cuts what a failed write may have left, so that a refused trip is not found by the next start.
    fn cut_refused(&mut self) -> Result<(), QueueError> {
        let Some(segment) = &self.uncut else { return Ok(()) };
        let cut = if segment.length == 0 {
            let removed = files::remove_if_there(&*self.files, &segment.name);
            removed.and_then(|()| self.files.sync_directory())
        } else {
            let cut = self.files.truncate(&segment.name, segment.length);
            cut.and_then(|()| self.files.sync(&segment.name))
        };
        cut.map_err(QueueError::from_disk)?;
        self.sealed.extend(self.uncut.take().filter(|segment| segment.length > 0));
        Ok(())
    }

    /// Makes the numbers below `end` this queue's own.
    fn reserve(&mut self, end: u64) -> Result<(), QueueError> {
        if end <= self.reserved {
            return Ok(());
        }
        let reserved = end.saturating_add(RESERVED_NUMBERS);
        let number = reserved.to_le_bytes();
        let crc = crc32fast::hash(&number).to_le_bytes();
        files::replace(&*self.files, NUMBERS, &[&number[..], &crc].concat())
            .map_err(QueueError::from_disk)?;
        self.reserved = reserved;
        Ok(())
    }
}

/// What [`TripQueue::pending`] found.
#[derive(Debug, Default)]
pub struct Pending {
    /// The trips.
    pub entries: Vec<Entry>,
    /// Why some file was passed over, if one was.
    pub unreadable: Option<QueueError>,
}

/// What [`TripQueue::open`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Trips within [`RETAINED_MS`], oldest first, settled or not.
    pub recent: Vec<Entry>,
    /// Bytes at the ends of files that a power cut left unfinished.
    pub torn_bytes: usize,
    /// Records that cannot be read although later ones can: the disk loses data.
    pub spoiled: usize,
    /// Files that cannot be read at all; they stay for the next start.
    pub unread_files: usize,
    /// Whether the reservation of numbers was lost, and a wide range was skipped in its place.
    pub numbers_lost: bool,
}

impl Recovered {
    fn note(&mut self, contents: Contents, now_ms: i64) {
        self.torn_bytes += contents.torn_bytes;
        self.spoiled += contents.spoiled;
        self.recent.extend(
            contents.entries.into_iter().filter(|entry| {
                entry.trip.server_ms().abs_diff(now_ms) <= RETAINED_MS.unsigned_abs()
            }),
        );
    }
}

/// Why trips cannot be recorded or read.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(io::Error),
    /// There is no space left.
    #[error("the disk is full")]
    DiskFull,
    /// As many trips wait as may.
    #[error("{TRIPS_MAX} trips wait for the server")]
    Full,
    /// As many trips are put aside as may.
    #[error("{} refused trips wait for a person", refused::REFUSED_TRIPS_MAX)]
    RefusedFull,
    /// A text of the trip is too long.
    #[error("the trip is too long to be recorded")]
    TooLong,
    /// The oldest trip waits too long.
    #[error("a trip waits for the server for more than {AGE_DAYS_MAX} days")]
    TooOld,
}

impl QueueError {
    fn from_disk(error: io::Error) -> QueueError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => QueueError::DiskFull,
            _ => QueueError::Disk(error),
        }
    }
}

/// The end of the reserved numbers; none where it was never written or cannot be read.
fn read_reserved(files: &dyn Files) -> io::Result<Option<u64>> {
    let bytes = match files::read(files, NUMBERS, 64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let Some((number, crc)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    let whole = crc == crc32fast::hash(number).to_le_bytes();
    Ok(whole.then(|| u64::from_le_bytes(*number)))
}

/// Keeps a file out of the queue's way, and only the newest [`ASIDE_FILES_MAX`] of such.
fn put_aside(files: &dyn Files, name: &str) -> io::Result<()> {
    files.rename(name, &format!("{ASIDE}{name}"))?;
    let mut aside = files.list()?;
    aside.retain(|name| name.starts_with(ASIDE));
    aside.sort_unstable();
    let surplus = aside.len().saturating_sub(ASIDE_FILES_MAX);
    aside.iter().take(surplus).try_for_each(|name| files::remove_if_there(files, name))
}

const ASIDE: &str = "spoiled-";
const NUMBERS: &str = "trip-numbers";

#[cfg(test)]
mod tests;
