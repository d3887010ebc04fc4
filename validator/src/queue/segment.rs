//! One file of the trip queue, byte by byte.
//!
//! Eight bytes `ELGTRIP1`, then records until the end: length of the body (4), CRC-32 of the body (4),
//! both little-endian, then the body, a MessagePack map of an [`Entry`]. The name is
//! `trips-` and the first sequence number in 20 digits.

use std::collections::BTreeMap;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::files::{self, Files};
use crate::link::message::Confirm;
use crate::trip::Trip;

/// What a file begins with.
pub const MAGIC: [u8; 8] = *b"ELGTRIP1";
/// Bytes of the largest file that is read.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of the largest record's body.
const BODY_BYTES_MAX: usize = 4_096;
const RECORD_HEADER_BYTES: usize = 8;

/// A recorded trip and what the device must still know of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The trip; its sequence number is given by the queue.
    pub trip: Trip,
    /// What the server must hear before it gets the trip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// Whether a companion may follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_companion: bool,
    /// How often the trip got another number, because the server knew another trip by the one it had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub renumbered: u8,
    /// Why the server will not take the trip, where it was put aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Why the server will not take a trip.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It knows other trips by all the numbers that this one was given.
    Conflict,
    /// It cannot read it.
    Malformed,
    /// The terminal is not one of the carrier's.
    Terminal,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Entry {
    /// The trip's id, or the UUID (version 8) that it gets with another number: of the same trip
    /// always the same.
    pub fn name(&self) -> ByteArray<16> {
        if let Some(name) = self.trip.trip_id {
            return name;
        }
        let bytes = rmp_serde::to_vec_named(&self.trip).unwrap_or_default();
        let hash = digest(&SHA256, &bytes);
        let mut name: [u8; 16] = hash.as_ref().first_chunk().copied().unwrap_or_default();
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut name;
        *version = *version & 0x0f | 0x80;
        *variant = *variant & 0x3f | 0x80;
        ByteArray::new(name)
    }

    /// Appends the record of this entry.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let body = rmp_serde::to_vec_named(self).map_err(|_| EntryError)?;
        if body.len() > BODY_BYTES_MAX {
            return Err(EntryError);
        }
        let length = u32::try_from(body.len()).map_err(|_| EntryError)?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(&body);
        Ok(())
    }
}

/// The entry is too long for a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the trip is too long to be recorded")]
pub struct EntryError;

/// One file, as the queue remembers it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Its durable bytes.
    pub length: u64,
    /// Trips in it.
    pub trips: usize,
    /// Those that are not settled: number and time, by the server's clock.
    pub pending: BTreeMap<u64, i64>,
    /// The highest sequence number in it.
    pub last: u64,
    /// Whether some of it cannot be read, so that a person may want to look at it.
    pub spoiled: bool,
    /// Whether it could not be read when that was last tried.
    pub unreadable: bool,
    /// When its newest trip was, by the server's clock.
    pub newest_ms: i64,
}

impl Segment {
    /// An empty file that begins with the trip `first`; it does not exist yet.
    pub fn new(first: u64) -> Segment {
        Segment {
            name: format!("{PREFIX}{first:020}"),
            length: 0,
            trips: 0,
            pending: BTreeMap::new(),
            last: 0,
            spoiled: false,
            unreadable: false,
            newest_ms: i64::MIN,
        }
    }

    /// Whether `name` is that of a segment.
    pub fn is_name(name: &str) -> bool {
        Segment::first_of(name).is_some()
    }

    /// The first sequence number of the segment with this name.
    pub fn first_of(name: &str) -> Option<u64> {
        let digits = name.strip_prefix(PREFIX)?;
        let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    }

    /// Reads what is there of a file.
    pub fn open(files: &dyn Files, name: &str) -> io::Result<(Segment, Contents)> {
        let contents = Contents::read(files, name)?;
        let mut segment = Segment { name: name.to_owned(), ..Segment::new(0) };
        segment.length = files.length(name)?;
        segment.spoiled =
            contents.spoiled > 0 || (contents.entries.is_empty() && contents.torn_bytes > 0);
        contents.entries.iter().for_each(|entry| segment.note(&entry.trip));
        Ok((segment, contents))
    }

    /// Takes note of a trip that is in the file.
    pub fn note(&mut self, trip: &Trip) {
        self.trips += 1;
        self.pending.insert(trip.seq, trip.server_ms());
        self.last = self.last.max(trip.seq);
        self.newest_ms = self.newest_ms.max(trip.server_ms());
    }
}

/// What can be read of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// Entries in their order.
    pub entries: Vec<Entry>,
    /// Records in between that cannot be read.
    pub spoiled: usize,
    /// Bytes at the end after the last record that can be read.
    pub torn_bytes: usize,
}

impl Contents {
    /// Reads a file as far as it goes.
    pub fn read(files: &dyn Files, name: &str) -> io::Result<Contents> {
        Ok(Contents::of(&files::read(files, name, SEGMENT_BYTES_MAX)?))
    }

    /// Reads the bytes of a file as far as they go.
    pub fn of(bytes: &[u8]) -> Contents {
        let mut contents = Contents::default();
        let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
            contents.torn_bytes = bytes.len();
            return contents;
        };
        let mut unread = 0;
        contents.torn_bytes = rest.len();
        while let Some((body, crc, after)) = next_record(rest) {
            rest = after;
            let entry =
                (crc32fast::hash(body) == crc).then(|| rmp_serde::from_slice(body).ok()).flatten();
            let Some(entry) = entry else {
                unread += 1;
                continue;
            };
            contents.entries.push(entry);
            contents.spoiled += std::mem::take(&mut unread);
            contents.torn_bytes = rest.len();
        }
        contents
    }
}

/// The body of the record at the beginning of `bytes`, its CRC, and what follows.
fn next_record(bytes: &[u8]) -> Option<(&[u8], u32, &[u8])> {
    let header = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    if length == 0 || length > BODY_BYTES_MAX {
        return None;
    }
    let rest = bytes.get(RECORD_HEADER_BYTES..)?;
    let (body, after) = rest.split_at_checked(length)?;
    Some((body, u32::from_le_bytes([c0, c1, c2, c3]), after))
}

const PREFIX: &str = "trips-";
