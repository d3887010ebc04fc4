//! Recovery: what the segments of a log say about it. Reads everything, changes nothing.
//!
//! It answers where the durable part ends, which frames above it are whole but perhaps only in the
//! page cache, and it tells a torn tail from damage: nothing written later claims a torn tail,
//! whereas bytes that were once durable are claimed by a later block, by the header of a later
//! segment, or by the memory of this process. See [`crate::journal`] for the cases.

use std::io;
use std::path::{Path, PathBuf};

use engine::ids::PartitionId;
use engine::journal::{Epoch, Frame, JournalError, Position};

use crate::block::{BlockHeader, Place, SECTOR_BYTES};
use crate::files::{Files, StoredFile};
use crate::segment::{
    BlockError, FIRST_BLOCK, SegmentHeader, SegmentReader, is_half_made, segment_path,
    segment_sequence,
};

/// Bytes looked through at once for what follows the last block.
const SEARCH_BYTES: usize = 64 << 10;

const _: () = assert!(SEARCH_BYTES.is_multiple_of(SECTOR_BYTES));

/// Which log is recovered.
#[derive(Clone, Copy)]
pub struct LogFiles<'a> {
    /// The file layer.
    pub files: &'a dyn Files,
    /// The directory of the log.
    pub directory: &'a Path,
    /// Whose log it is.
    pub partition: PartitionId,
}

/// A segment that holds a part of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentPlace {
    /// Its number.
    pub sequence: u64,
    /// The position of its first record.
    pub first: Position,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The segments that stay, oldest first.
    pub segments: Vec<SegmentPlace>,
    /// The highest epoch so far.
    pub epoch: Epoch,
    /// Everything below is durable; the next segment begins here.
    pub durable: Position,
    /// Whole frames above, in order, of which nobody knows whether the device has them.
    pub tail: Vec<Frame>,
    /// The number of the next segment. That of the last one if nothing in it is known durable: not
    /// even its header may be, so it is replaced.
    pub next_sequence: u64,
    /// The last segment that stays, and where its durable part ends.
    pub seal: Option<Place>,
    /// Files to remove: half-made segments, and one that was made ahead and is not begun.
    pub leftovers: Vec<PathBuf>,
}

/// Looks at a log. `remembered` is the end of what this process itself has seen durable.
pub fn recover(log: LogFiles, remembered: Option<Position>) -> Result<Recovered, JournalError> {
    let mut recovered = Recovered::default();
    let mut sequences = Vec::new();
    for name in log.files.list(log.directory)? {
        match segment_sequence(&name) {
            Some(sequence) => sequences.push(sequence),
            None if is_half_made(&name) => recovered.leftovers.push(log.directory.join(name)),
            None => {}
        }
    }
    sequences.sort_unstable();
    let (segments, spare) = headers(log, &sequences)?;
    if let Some(spare) = spare {
        recovered.leftovers.push(segment_path(log.directory, spare));
    }
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        check_sealed(log, segment, next)?;
        recovered.segments.push(place_of(segment));
    }
    let Some(last) = segments.last() else {
        recovered.next_sequence = 1;
        if remembered.is_some_and(|remembered| remembered > Position::ORIGIN) {
            return Err(damaged(Place { sequence: 1, offset: 0 }, "all segments are missing"));
        }
        return Ok(recovered);
    };
    recovered.epoch = last.epoch;
    let end = scan_last(log, last, remembered)?;
    recovered.durable = end.durable;
    recovered.tail = end.tail;
    if end.durable > last.first {
        recovered.segments.push(place_of(last));
        recovered.seal = Some(Place { sequence: last.sequence, offset: end.durable_offset });
        recovered.next_sequence = last.sequence + 1;
    } else {
        recovered.next_sequence = last.sequence;
    }
    Ok(recovered)
}

/// The error for damage at a place.
pub fn damaged(place: Place, what: &str) -> JournalError {
    let name = segment_path(Path::new(""), place.sequence);
    let place = format!("{} offset {}", name.display(), place.offset);
    JournalError::Damaged { place, what: what.to_owned() }
}

fn place_of(header: &SegmentHeader) -> SegmentPlace {
    SegmentPlace { sequence: header.sequence, first: header.first }
}

/// The headers of all segments that were begun, and the number of the one that was only made ahead.
fn headers(
    log: LogFiles,
    sequences: &[u64],
) -> Result<(Vec<SegmentHeader>, Option<u64>), JournalError> {
    let mut segments: Vec<SegmentHeader> = Vec::new();
    let mut spare = None;
    for (expected, sequence) in (*sequences.first().unwrap_or(&0)..).zip(sequences) {
        let start = Place { sequence: *sequence, offset: 0 };
        if *sequence != expected {
            return Err(damaged(Place { sequence: expected, offset: 0 }, "a segment is missing"));
        }
        // A segment is made ahead only after the header of the one before it is durable.
        if let Some(spare) = spare {
            let place = Place { sequence: spare, offset: 0 };
            return Err(damaged(place, "no segment header, yet a later segment exists"));
        }
        let file = log.files.open(&segment_path(log.directory, *sequence))?;
        let mut sector = vec![0; SECTOR_BYTES];
        let read = file.read_at(0, &mut sector)?;
        let Some(header) = SegmentHeader::decode(sector.get(..read).unwrap_or_default()) else {
            // The header is durable before the first block is written.
            if let Some(offset) = first_byte_after_header(&*file)? {
                let what = format!("no segment header, yet there are bytes at offset {offset}");
                return Err(damaged(start, &what));
            }
            spare = Some(*sequence);
            continue;
        };
        if (header.sequence, header.partition) != (*sequence, log.partition) {
            return Err(damaged(start, "the header of another segment"));
        }
        if segments.last().is_some_and(|b| b.epoch > header.epoch || b.first > header.first) {
            return Err(damaged(start, "a segment older than the one before it"));
        }
        segments.push(header);
    }
    match spare {
        Some(sequence) if segments.is_empty() => {
            Err(damaged(Place { sequence, offset: 0 }, "no segment has a header"))
        }
        _ => Ok((segments, spare)),
    }
}

/// Reads all blocks of a segment that `next` follows: they must reach exactly to it.
fn check_sealed(
    log: LogFiles,
    segment: &SegmentHeader,
    next: &SegmentHeader,
) -> Result<(), JournalError> {
    let file = log.files.open(&segment_path(log.directory, segment.sequence))?;
    let mut reader = SegmentReader::new(file, segment.sequence, segment.first);
    while reader.position() < next.first {
        let place = Place { sequence: segment.sequence, offset: reader.offset() };
        let frame = reader.header().and_then(|header| reader.take(&header));
        frame.map_err(|error| block_error(place, error))?;
    }
    if reader.position() > next.first {
        let place = Place { sequence: next.sequence, offset: 0 };
        return Err(damaged(place, "the segment begins inside a frame of the one before it"));
    }
    Ok(())
}

/// The error for a block that must be there and is not.
pub fn block_error(place: Place, error: BlockError) -> JournalError {
    match error {
        BlockError::Broken(what) => damaged(place, what),
        BlockError::Io(error) => JournalError::Io(error),
    }
}

struct End {
    durable: Position,
    durable_offset: u64,
    tail: Vec<Frame>,
}

/// Reads the last segment up to where its blocks end, and makes sure that nothing durable follows.
fn scan_last(
    log: LogFiles,
    last: &SegmentHeader,
    remembered: Option<Position>,
) -> Result<End, JournalError> {
    let file = log.files.open(&segment_path(log.directory, last.sequence))?;
    let mut reader = SegmentReader::new(file, last.sequence, last.first);
    let mut durable = last.first.max(remembered.unwrap_or_default());
    let mut blocks: Vec<(BlockHeader, Frame)> = Vec::new();
    let what = loop {
        let block = reader.header().and_then(|header| Ok((header, reader.take(&header)?)));
        match block {
            Ok((header, frame)) => {
                durable = durable.max(header.durable);
                blocks.push((header, frame));
                blocks.retain(|(header, _)| header.first >= durable);
            }
            Err(BlockError::Broken(what)) => break what,
            Err(BlockError::Io(error)) => return Err(error.into()),
        }
    };
    let stopped = Place { sequence: last.sequence, offset: reader.offset() };
    let claimed = later_claim(reader.file(), stopped, reader.position())?;
    if durable > reader.position() || claimed {
        return Err(damaged(stopped, what));
    }
    let durable_offset = blocks.first().map_or(stopped.offset, |(header, _)| header.offset);
    Ok(End { durable, durable_offset, tail: blocks.into_iter().map(|(_, frame)| frame).collect() })
}

/// Whether a block at `from` or after it says that something at or above `end` was durable.
fn later_claim(file: &dyn StoredFile, from: Place, end: Position) -> io::Result<bool> {
    let mut buffer = vec![0; SEARCH_BYTES];
    let mut offset = from.offset;
    loop {
        let read = file.read_at(offset, &mut buffer)?;
        let sectors = buffer.get(..read).unwrap_or_default().chunks(SECTOR_BYTES);
        for (at, sector) in (offset..).step_by(SECTOR_BYTES).zip(sectors) {
            let header = BlockHeader::decode(sector);
            if header.is_some_and(|header| {
                (header.sequence, header.offset) == (from.sequence, at) && header.durable > end
            }) {
                return Ok(true);
            }
        }
        if read < buffer.len() {
            return Ok(false);
        }
        offset += read as u64;
    }
}

fn first_byte_after_header(file: &dyn StoredFile) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; SEARCH_BYTES];
    let mut offset = FIRST_BLOCK;
    loop {
        let read = file.read_at(offset, &mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
            return Ok(Some(offset + at as u64));
        }
        if read < buffer.len() {
            return Ok(None);
        }
        offset += read as u64;
    }
}
