//! A block: one frame of the engine as it stands in a segment, behind a header of its own.
//!
//! A block begins at a multiple of [`SECTOR_BYTES`] and is filled up to one with zeros, so that no
//! sector that holds acknowledged bytes is ever written again. Bytes of the header, little-endian:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | magic and format version `eBL1` |
//! | 4 | 4 | CRC-32 of the header from byte 8 on |
//! | 8 | 4 | bytes of the frame |
//! | 12 | 4 | records of the frame |
//! | 16 | 8 | position of the first record |
//! | 24 | 8 | the position below which all was known durable when the block was written |
//! | 32 | 8 | epoch of the frame |
//! | 40 | 8 | sequence number of the segment |
//! | 48 | 8 | offset of the block in the segment |
//! | 56 | 8 | zeros |
//! | 64 | .. | the frame, which carries a CRC of its own |

use engine::journal::{Epoch, Frame, Position};
use engine::limits::FRAME_BYTES_MAX;

/// The unit that a device writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Bytes before the frame.
pub const BLOCK_HEADER_BYTES: usize = 64;

/// Bytes of the longest block.
pub const BLOCK_BYTES_MAX: usize =
    (BLOCK_HEADER_BYTES + FRAME_BYTES_MAX).next_multiple_of(SECTOR_BYTES);

const MAGIC: [u8; 4] = *b"eBL1";

/// What stands before a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockHeader {
    /// Bytes of the frame.
    pub frame_bytes: u32,
    /// Records of the frame.
    pub record_count: u32,
    /// Where the frame begins in the log.
    pub first: Position,
    /// Everything below was durable when the block was written.
    pub durable: Position,
    /// Whose frame it is.
    pub epoch: Epoch,
    /// The segment that the block was written to.
    pub sequence: u64,
    /// Where in the segment.
    pub offset: u64,
}

impl BlockHeader {
    /// The header of `frame` at `place`.
    pub fn of(frame: &Frame, first: Position, durable: Position, place: Place) -> BlockHeader {
        BlockHeader {
            frame_bytes: u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX),
            record_count: frame.record_count(),
            first,
            durable,
            epoch: frame.epoch(),
            sequence: place.sequence,
            offset: place.offset,
        }
    }

    /// Reads a header from the beginning of `bytes`; `None` if there is none or it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<BlockHeader> {
        let header: &[u8; BLOCK_HEADER_BYTES] = bytes.first_chunk()?;
        let (magic, fields) = header.split_first_chunk::<4>()?;
        let (crc, fields) = fields.split_first_chunk::<4>()?;
        if *magic != MAGIC || u32::from_le_bytes(*crc) != crc32fast::hash(fields) {
            return None;
        }
        let (frame_bytes, fields) = fields.split_first_chunk::<4>()?;
        let (record_count, fields) = fields.split_first_chunk::<4>()?;
        let words = fields.chunks_exact(8).filter_map(|word| word.try_into().ok());
        let mut words = words.map(u64::from_le_bytes);
        let header = BlockHeader {
            frame_bytes: u32::from_le_bytes(*frame_bytes),
            record_count: u32::from_le_bytes(*record_count),
            first: Position::from_stored(words.next()?),
            durable: Position::from_stored(words.next()?),
            epoch: Epoch(words.next()?),
            sequence: words.next()?,
            offset: words.next()?,
        };
        (header.byte_count() <= BLOCK_BYTES_MAX as u64).then_some(header)
    }

    /// Bytes of the whole block.
    pub fn byte_count(&self) -> u64 {
        let bytes = BLOCK_HEADER_BYTES as u64 + u64::from(self.frame_bytes);
        bytes.next_multiple_of(SECTOR_BYTES as u64)
    }

    /// Where the next block begins in the log. A frame without records takes a position as well,
    /// so that no two frames share one.
    pub fn next(&self) -> Position {
        let records = u64::from(self.record_count).max(1);
        Position::from_stored(self.first.stored().saturating_add(records))
    }

    fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut fields = Vec::with_capacity(BLOCK_HEADER_BYTES);
        fields.extend_from_slice(&self.frame_bytes.to_le_bytes());
        fields.extend_from_slice(&self.record_count.to_le_bytes());
        for word in [
            self.first.stored(),
            self.durable.stored(),
            self.epoch.0,
            self.sequence,
            self.offset,
            0,
        ] {
            fields.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&fields).to_le_bytes();
        let mut header = [0; BLOCK_HEADER_BYTES];
        for (place, byte) in header.iter_mut().zip(MAGIC.iter().chain(&crc).chain(&fields)) {
            *place = *byte;
        }
        header
    }
}

/// A place in the files of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Sequence number of the segment.
    pub sequence: u64,
    /// Offset in it.
    pub offset: u64,
}

/// Appends the block of `frame` to `bytes`, which must end at a sector.
pub fn push_block(bytes: &mut Vec<u8>, header: &BlockHeader, frame: &Frame) {
    debug_assert!(bytes.len().is_multiple_of(SECTOR_BYTES), "a block begins at a sector");
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(frame.bytes());
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_of_a_header_goes_unseen() {
        let header = BlockHeader {
            frame_bytes: 1_000,
            record_count: 3,
            first: Position::from_stored(70),
            durable: Position::from_stored(69),
            epoch: Epoch(4),
            sequence: 2,
            offset: 512,
        };
        let whole = header.encode();
        assert_eq!(BlockHeader::decode(&whole), Some(header));
        assert_eq!((header.byte_count(), header.next()), (1_536, Position::from_stored(73)));
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole;
                bytes[at] ^= 1 << bit;
                assert_eq!(BlockHeader::decode(&bytes), None, "byte {at} bit {bit}");
            }
            assert_eq!(BlockHeader::decode(&whole[..at]), None, "cut at {at}");
        }
    }
}
