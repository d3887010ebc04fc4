//! The journal port: the log of a partition as the engine needs it, and the frame that it stores.
//!
//! A frame is one group commit. Whoever implements [`Journal`] stores frames in the order of their
//! appends, hands them back in the same order, and never mixes two owners. Nothing of files, nodes
//! or networks shows through: the embedded journal is the first implementation, a replicated log
//! can be the second.
//!
//! # Why
//! An append has three ends, not two. After a failed or timed out write nobody knows whether the
//! bytes are in the log; treating that as "not written" doubles confirmations, treating it as
//! "written" loses them. So [`AppendError::Unknown`] is an end of its own, and its only cure is to
//! take the partition again and read the log: the frame with this epoch and batch id is in it or not.

use std::fmt;

use crate::entries::Entries;
use crate::ids::PartitionId;
use crate::limits::FRAME_BYTES_MAX;

/// A place in the log of a partition: positions only grow, and nobody computes with them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position(u64);

impl Position {
    /// The beginning of every log.
    pub const ORIGIN: Position = Position(0);

    /// A position from its stored form. For journals and for what stores positions beside its data.
    pub const fn from_stored(stored: u64) -> Position {
        Position(stored)
    }

    /// The form in which positions are stored.
    pub const fn stored(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Counts the owners of a partition; a higher epoch fences all lower ones.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(pub u64);

/// Names a frame among those of its epoch.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BatchId(pub u64);

/// What an owner gets with a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tenure {
    /// The epoch of this ownership, above all before it.
    pub epoch: Epoch,
    /// Where the log ends: the expected position of the first append.
    pub end: Position,
}

/// A frame as it came back from the log.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// Where the frame begins.
    pub at: Position,
    /// Where the next one begins.
    pub next: Position,
    /// The frame, verified.
    pub frame: Frame,
}

/// The frames of a log from some position on, in order.
pub type Frames = Box<dyn Iterator<Item = Result<StoredFrame, JournalError>> + Send>;

/// The log of every partition of this node. All calls may block on the device.
pub trait Journal: Send + Sync + 'static {
    /// Takes `partition` for this process, fencing any owner before it. What a previous owner had
    /// written but not made durable is afterwards either durable or gone for good.
    fn acquire(&self, partition: PartitionId) -> Result<Tenure, JournalError>;

    /// Appends `frame` if the log ends at `expected`; returns the new end once it is durable.
    fn append(
        &self,
        partition: PartitionId,
        expected: Position,
        frame: &Frame,
    ) -> Result<Position, AppendError>;

    /// Reads the durable frames that begin at `from` or later. Frames appended meanwhile may or may
    /// not be among them. A `from` below the truncated part is [`JournalError::Truncated`].
    fn read(&self, partition: PartitionId, from: Position) -> Result<Frames, JournalError>;

    /// Allows everything below `below` to be dropped.
    fn truncate(&self, partition: PartitionId, below: Position) -> Result<(), JournalError>;
}

/// Why an append did not become durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another owner has the partition, or the log does not end at the expected position. Nothing
    /// was written.
    #[error("another owner holds the partition")]
    Fenced,
    /// The frame may or may not be in the log. The partition accepts nothing more until it is
    /// acquired again.
    #[error("the end of the append is unknown: {0}")]
    Unknown(#[source] std::io::Error),
}

/// Why the log could not be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A frame that was durable is damaged: an operator must decide, nothing is skipped.
    #[error("damaged log at {place}: {what}")]
    Damaged {
        /// Where, in the words of the implementation (for files: segment and offset).
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// Another process holds the partition.
    #[error("the partition is held by another process")]
    Held,
    /// The device or network failed.
    #[error("journal input/output failed")]
    Io(#[from] std::io::Error),
    /// The log was truncated above the wanted position.
    #[error("the log no longer reaches back to position {wanted}")]
    Truncated {
        /// The wanted position.
        wanted: Position,
    },
}

const FRAME_MAGIC: [u8; 4] = *b"eFR1";
const FRAME_HEADER_BYTES: usize = 32;

/// One group commit: its records between a header and their CRC.
///
/// Bytes, little-endian: magic and format version `eFR1` (4), CRC-32 of all that follows (4),
/// epoch (8), batch id (8), bytes of records (4), number of records (4), then each record as
/// length (4) and bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    /// Checks and takes the stored form of a frame.
    pub fn decode(bytes: Vec<u8>) -> Result<Frame, FrameError> {
        let frame = Frame { bytes };
        if frame.bytes.get(0..4) != Some(&FRAME_MAGIC) {
            return Err(FrameError::Version);
        }
        let length = frame.u32_at(24).zip(frame.bytes.len().checked_sub(FRAME_HEADER_BYTES));
        if !length.is_some_and(|(stated, held)| usize::try_from(stated).is_ok_and(|s| s == held)) {
            return Err(FrameError::Length);
        }
        if frame.u32_at(4) != Some(crc32fast::hash(frame.bytes.get(8..).unwrap_or_default())) {
            return Err(FrameError::Checksum);
        }
        let counted = frame.entries().try_fold(0, |count: u32, entry| entry.map(|_| count + 1));
        if counted != Ok(frame.record_count()) {
            return Err(FrameError::Records);
        }
        Ok(frame)
    }

    /// The stored form.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose frame this is.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.u64_at(8).unwrap_or_default())
    }

    /// Which of that owner's.
    pub fn batch(&self) -> BatchId {
        BatchId(self.u64_at(16).unwrap_or_default())
    }

    /// How many records it holds.
    pub fn record_count(&self) -> u32 {
        self.u32_at(28).unwrap_or_default()
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.entries().map_while(Result::ok)
    }

    fn entries(&self) -> Entries<'_> {
        Entries::of(self.bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default())
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64_at(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }
}

/// Gathers the records of the next frame.
#[derive(Debug)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    record_count: u32,
}

impl FrameBuilder {
    /// An empty frame.
    pub fn new() -> FrameBuilder {
        FrameBuilder { bytes: vec![0; FRAME_HEADER_BYTES], record_count: 0 }
    }

    /// Adds records that are already in their stored form (see [`crate::record::Record::push`]).
    pub fn extend(&mut self, records: &[u8], record_count: u32) {
        self.bytes.extend_from_slice(records);
        self.record_count = self.record_count.saturating_add(record_count);
    }

    /// Seals the frame and leaves the builder empty.
    pub fn finish(&mut self, epoch: Epoch, batch: BatchId) -> Frame {
        let mut bytes = std::mem::replace(&mut self.bytes, vec![0; FRAME_HEADER_BYTES]);
        let record_count = std::mem::take(&mut self.record_count);
        let length = bytes.len().saturating_sub(FRAME_HEADER_BYTES);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let mut header = [0; FRAME_HEADER_BYTES];
        let (magic, fields) = header.split_at_mut(8);
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = fields.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        put(0, &epoch.0.to_le_bytes());
        put(8, &batch.0.to_le_bytes());
        put(16, &length.to_le_bytes());
        put(20, &record_count.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(fields);
        crc.update(bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default());
        let crc = crc.finalize().to_le_bytes();
        for (place, byte) in magic.iter_mut().zip(FRAME_MAGIC.iter().chain(&crc)) {
            *place = *byte;
        }
        for (place, byte) in bytes.iter_mut().zip(header) {
            *place = byte;
        }
        Frame { bytes }
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Whether `more` bytes of records still fit.
    pub fn fits(&self, more: usize) -> bool {
        self.bytes.len().saturating_add(more) <= FRAME_BYTES_MAX
    }
}

impl Default for FrameBuilder {
    fn default() -> FrameBuilder {
        FrameBuilder::new()
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The CRC does not match.
    #[error("the checksum of the frame does not match")]
    Checksum,
    /// The stated length is not the held one.
    #[error("the frame is shorter or longer than it says")]
    Length,
    /// The records do not fill the frame as counted.
    #[error("the records of the frame do not add up")]
    Records,
    /// Not a frame, or one of a version that this program does not read.
    #[error("not a frame of a known version")]
    Version,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::push_entry;

    fn frame(records: &[&[u8]]) -> Frame {
        let mut builder = FrameBuilder::new();
        for record in records {
            let mut bytes = Vec::new();
            push_entry(&mut bytes, |out| out.extend_from_slice(record));
            builder.extend(&bytes, 1);
        }
        builder.finish(Epoch(7), BatchId(9))
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let frame = frame(&[b"first", b"", b"third"]);
        let back = Frame::decode(frame.bytes().to_vec()).unwrap();
        assert_eq!((back.epoch(), back.batch(), back.record_count()), (Epoch(7), BatchId(9), 3));
        assert_eq!(back.records().collect::<Vec<_>>(), [&b"first"[..], b"", b"third"]);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen() {
        let whole = frame(&[b"abc", b"defgh"]).bytes().to_vec();
        for at in 0..whole.len() {
            assert!(Frame::decode(whole[..at].to_vec()).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(Frame::decode(bytes).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
