//! Trips that the server will not take, put aside for a person.
//!
//! One file, `refused-trips`, in the format of a segment; its entries bear their
//! [`super::segment::Refusal`]. It is written anew as a whole, so that a power cut leaves it as it was
//! or as it shall be, and it is never emptied by the device: at [`REFUSED_TRIPS_MAX`] nothing more is
//! put aside, and trips stay in the queue. A file that somebody has taken away begins again.

use std::collections::BTreeSet;
use std::io;

use serde_bytes::ByteArray;

use crate::files::{self, Files};
use crate::queue::QueueError;
use crate::queue::segment::{Contents, Entry, EntryError, MAGIC, SEGMENT_BYTES_MAX};

/// Trips that are put aside.
pub const REFUSED_TRIPS_MAX: usize = 4_096;

/// What was put aside.
#[derive(Debug, Default)]
pub struct Refused {
    numbers: BTreeSet<u64>,
    /// A trip may come again under another number.
    names: BTreeSet<ByteArray<16>>,
}

impl Refused {
    /// Looks at what is there.
    pub fn open(files: &dyn Files) -> io::Result<Refused> {
        let mut refused = Refused::default();
        refused.note(&Contents::of(&read(files)?).entries);
        Ok(refused)
    }

    /// Puts trips aside, all or none; durable when this returns.
    pub fn put(&mut self, files: &dyn Files, entries: &[Entry]) -> Result<(), QueueError> {
        let mut entries = entries.to_vec();
        entries.retain(|entry| !self.names.contains(&entry.name()));
        if entries.is_empty() {
            return Ok(());
        }
        if self.count().saturating_add(entries.len()) > REFUSED_TRIPS_MAX {
            return Err(QueueError::RefusedFull);
        }
        let mut bytes = read(files).map_err(QueueError::from_disk)?;
        if bytes.is_empty() {
            bytes.extend_from_slice(&MAGIC);
        }
        for entry in &entries {
            entry.write(&mut bytes).map_err(|EntryError| QueueError::TooLong)?;
        }
        if bytes.len() as u64 > SEGMENT_BYTES_MAX {
            return Err(QueueError::RefusedFull);
        }
        files::replace(files, NAME, &bytes).map_err(QueueError::from_disk)?;
        self.note(&entries);
        Ok(())
    }

    /// Whether the trip with this number was put aside.
    pub fn has(&self, seq: u64) -> bool {
        self.numbers.contains(&seq)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn note(&mut self, entries: &[Entry]) {
        self.numbers.extend(entries.iter().map(|entry| entry.trip.seq));
        self.names.extend(entries.iter().map(Entry::name));
    }
}

fn read(files: &dyn Files) -> io::Result<Vec<u8>> {
    match files::read(files, NAME, SEGMENT_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

const NAME: &str = "refused-trips";
