//! A segment: one file of a log, its header, how it is made, and how its blocks are read.
//!
//! A segment is named by its sequence number (`segment-00000000000000000001.log`) and begins with
//! a header of one sector; blocks follow without gaps (see [`crate::block`]), and zeros after the
//! last. Bytes of the header, little-endian:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | magic and format version `eSG1` |
//! | 4 | 4 | CRC-32 of the sector from byte 8 on |
//! | 8 | 8 | sequence number |
//! | 16 | 8 | epoch in which the segment was begun |
//! | 24 | 8 | position of its first record |
//! | 32 | 2 | partition |
//! | 34 | 478 | zeros |
//!
//! A header says two things about the segments before it: everything below its first position was
//! durable when it was written, and everything in them at or above that position is void.

use std::io;
use std::path::{Path, PathBuf};

use engine::ids::PartitionId;
use engine::journal::{Epoch, Frame, Position};

use crate::block::{BLOCK_BYTES_MAX, BlockHeader, SECTOR_BYTES};
use crate::files::{Files, StoredFile};

/// Where the first block of a segment begins.
pub const FIRST_BLOCK: u64 = SECTOR_BYTES as u64;

const MAGIC: [u8; 4] = *b"eSG1";
const HEADER_FIELDS: usize = 26;

/// Bytes of one write of zeros into a new segment.
const ZEROS_STEP_BYTES: usize = 1 << 20;
/// Bytes of zeros between two syncs: more at once would hold up the syncs of the committer.
const ZEROS_SYNC_BYTES: u64 = 8 << 20;
/// Bytes that a reader asks for at once.
const READ_BYTES: usize = 128 << 10;

const _: () = assert!(ZEROS_SYNC_BYTES.is_multiple_of(ZEROS_STEP_BYTES as u64));

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    /// Its number among the segments of the log.
    pub sequence: u64,
    /// The epoch in which it was begun.
    pub epoch: Epoch,
    /// The position of its first record.
    pub first: Position,
    /// Whose log it belongs to.
    pub partition: PartitionId,
}

impl SegmentHeader {
    /// The stored form: one sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(SECTOR_BYTES);
        fields.extend_from_slice(&self.sequence.to_le_bytes());
        fields.extend_from_slice(&self.epoch.0.to_le_bytes());
        fields.extend_from_slice(&self.first.stored().to_le_bytes());
        fields.extend_from_slice(&self.partition.0.to_le_bytes());
        fields.resize(SECTOR_BYTES - 8, 0);
        let mut sector = Vec::with_capacity(SECTOR_BYTES);
        sector.extend_from_slice(&MAGIC);
        sector.extend_from_slice(&crc32fast::hash(&fields).to_le_bytes());
        sector.extend_from_slice(&fields);
        sector
    }

    /// Reads a header from `sector`; `None` if there is none or it is damaged.
    pub fn decode(sector: &[u8]) -> Option<SegmentHeader> {
        let (magic, rest) = sector.split_first_chunk::<4>()?;
        let (crc, fields) = rest.split_first_chunk::<4>()?;
        if *magic != MAGIC || u32::from_le_bytes(*crc) != crc32fast::hash(fields) {
            return None;
        }
        let words = fields.get(..HEADER_FIELDS)?.chunks_exact(8);
        let partition = words.remainder().try_into().ok().map(u16::from_le_bytes)?;
        let mut words = words.filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
        Some(SegmentHeader {
            sequence: words.next()?,
            epoch: Epoch(words.next()?),
            first: Position::from_stored(words.next()?),
            partition: PartitionId(partition),
        })
    }
}

/// The path of a segment in the directory of its log.
pub fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("segment-{sequence:020}.log"))
}

/// The sequence number in the name of a segment; `None` if it is the name of something else.
pub fn segment_sequence(name: &Path) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix("segment-")?.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Whether a name is that of a segment which was not finished.
pub fn is_half_made(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "making")
}

/// A segment to be made.
#[derive(Clone, Debug)]
pub struct NewSegment {
    /// The directory of the log.
    pub directory: PathBuf,
    /// The number of the segment.
    pub sequence: u64,
    /// Its length.
    pub bytes: u64,
    /// What it begins with; the rest is zeros. Empty for one that is made ahead.
    pub contents: Vec<u8>,
}

/// Makes a segment, durable with its name. It appears under its name only when its bytes are
/// durable, so a segment is never half there. Returns it open.
pub fn make_segment(files: &dyn Files, new: &NewSegment) -> io::Result<Box<dyn StoredFile>> {
    let path = segment_path(&new.directory, new.sequence);
    let half_made = path.with_extension("making");
    let file = files.create(&half_made)?;
    let zeros = vec![0; usize::try_from(new.bytes).unwrap_or(usize::MAX).min(ZEROS_STEP_BYTES)];
    let mut offset = 0;
    while offset < new.bytes {
        let left = usize::try_from(new.bytes - offset).unwrap_or(usize::MAX);
        let step = zeros.get(..left).unwrap_or(&zeros);
        file.write_at(offset, step)?;
        offset += step.len() as u64;
        if offset.is_multiple_of(ZEROS_SYNC_BYTES) {
            file.sync_data()?;
        }
    }
    if !new.contents.is_empty() {
        file.write_at(0, &new.contents)?;
    }
    file.sync_data()?;
    files.rename(&half_made, &path)?;
    files.sync_directory(&new.directory)?;
    Ok(file)
}

/// Reads the blocks of a segment one after the other, holding a part of it as long as the longest block at most.
pub struct SegmentReader {
    file: Box<dyn StoredFile>,
    sequence: u64,
    offset: u64,
    position: Position,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl SegmentReader {
    /// A reader of the blocks of a segment whose first record is at `first`.
    pub fn new(file: Box<dyn StoredFile>, sequence: u64, first: Position) -> SegmentReader {
        let buffer = Vec::new();
        SegmentReader {
            file,
            sequence,
            offset: FIRST_BLOCK,
            position: first,
            buffer,
            buffer_at: FIRST_BLOCK,
        }
    }

    /// The header of the next block. Reading it again gives it again.
    pub fn header(&mut self) -> Result<BlockHeader, BlockError> {
        let (sequence, offset, position) = (self.sequence, self.offset, self.position);
        let bytes = self.bytes(SECTOR_BYTES)?;
        let header = BlockHeader::decode(bytes).ok_or(BlockError::Broken("no block header"))?;
        if (header.sequence, header.offset, header.first) != (sequence, offset, position) {
            return Err(BlockError::Broken("a block of another place"));
        }
        Ok(header)
    }

    /// The frame behind `header`, which is that of the next block; goes on to the one after it.
    pub fn take(&mut self, header: &BlockHeader) -> Result<Frame, BlockError> {
        let block_bytes = usize::try_from(header.byte_count()).unwrap_or(usize::MAX);
        let frame_bytes = usize::try_from(header.frame_bytes).unwrap_or(usize::MAX);
        let bytes = self.bytes(block_bytes)?.get(crate::block::BLOCK_HEADER_BYTES..);
        let bytes = bytes.and_then(|bytes| bytes.get(..frame_bytes));
        let bytes = bytes.ok_or(BlockError::Broken("a block beyond the end of the segment"))?;
        let frame = Frame::decode(bytes.to_vec())
            .map_err(|_| BlockError::Broken("the frame does not match its checksum"))?;
        if (frame.epoch(), frame.record_count()) != (header.epoch, header.record_count) {
            return Err(BlockError::Broken("the frame is not the one of its block header"));
        }
        self.skip(header);
        Ok(frame)
    }

    /// Begins at a block that an earlier reading ended in front of; its header is checked as ever.
    pub fn start_at(&mut self, offset: u64, position: Position) {
        self.offset = offset;
        self.position = position;
        self.buffer.clear();
        self.buffer_at = offset;
    }

    /// Goes on to the block after the one of `header` without looking at its frame.
    pub fn skip(&mut self, header: &BlockHeader) {
        self.offset = self.offset.saturating_add(header.byte_count());
        self.position = header.next();
    }

    /// Where the next block begins in the segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the next block begins in the log.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The file, to look at what follows the last block.
    pub fn file(&self) -> &dyn StoredFile {
        &*self.file
    }

    /// `count` bytes at the offset, or all that are left.
    fn bytes(&mut self, count: usize) -> io::Result<&[u8]> {
        debug_assert!(count <= BLOCK_BYTES_MAX, "no block is longer");
        let held_from = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX);
        if self.buffer.len().saturating_sub(held_from) < count {
            self.buffer.drain(..held_from.min(self.buffer.len()));
            let held = self.buffer.len();
            self.buffer_at = self.offset;
            self.buffer.resize(held + READ_BYTES.max(count), 0);
            let wanted = self.buffer.get_mut(held..).unwrap_or_default();
            let read = self.file.read_at(self.offset + held as u64, wanted)?;
            self.buffer.truncate(held + read);
        }
        let from = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX);
        let held = self.buffer.get(from..).unwrap_or_default();
        Ok(held.get(..count).unwrap_or(held))
    }
}

/// Why there is no block where one was looked for.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The bytes are not a block. At the end of a log that is how it ends.
    #[error("{0}")]
    Broken(&'static str),
    /// The device failed.
    #[error("reading a segment failed")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_of_a_header_goes_unseen() {
        let header = SegmentHeader {
            sequence: 9,
            epoch: Epoch(3),
            first: Position::from_stored(1_000),
            partition: PartitionId(7),
        };
        let whole = header.encode();
        assert_eq!((whole.len(), SegmentHeader::decode(&whole)), (SECTOR_BYTES, Some(header)));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(SegmentHeader::decode(&bytes), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn only_names_of_segments_are_names_of_segments() {
        let name = segment_path(Path::new(""), 12);
        assert_eq!(segment_sequence(&name), Some(12));
        for other in ["lock", "segment-12.log", "segment-00000000000000000012.making"] {
            assert_eq!(segment_sequence(Path::new(other)), None, "{other}");
        }
        assert!(is_half_made(&name.with_extension("making")));
    }
}
