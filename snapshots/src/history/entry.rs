//! The bytes of an archive file: its head, and its entries one after the other.
//!
//! Little-endian. The head (40 bytes): magic and version `eAF1` (4), CRC-32 of what follows (4),
//! partition (2), zeros (6), position where the file begins (8), where the file before it begins
//! (8) and its bytes (8), both 0 for the first. An entry: magic and version `eAE1` (4), CRC-32 of the rest of these 40 bytes
//! (4), position after which it begins (8), position up to which it is complete (8), position that
//! was known durable when it was written (8), bytes of the frame (4), zeros (4), and the frame.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use engine::ids::PartitionId;
use engine::journal::{Frame, Position};
use engine::limits::FRAME_BYTES_MAX;

use crate::history::archive::ArchiveError;

/// The settled transactions of a stretch of the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) head: EntryHead,
    pub(super) frame: Frame,
}

/// What stands before the frame of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryHead {
    /// Where the stretch begins.
    pub(super) from: Position,
    /// Where it ends: all that was settled below is in the archive.
    pub(super) through: Position,
    /// What was already fsynced when this was written. If the file is damaged below that, it was
    /// not a torn write.
    pub(super) durable: Position,
    /// Bytes of the frame.
    pub(super) frame_bytes: u32,
}

impl EntryHead {
    pub(super) fn encode(&self) -> [u8; ENTRY_HEAD_BYTES] {
        let mut fields = Vec::with_capacity(ENTRY_HEAD_BYTES);
        for position in [self.from, self.through, self.durable] {
            fields.extend_from_slice(&position.stored().to_le_bytes());
        }
        fields.extend_from_slice(&self.frame_bytes.to_le_bytes());
        seal(ENTRY_MAGIC, &fields)
    }

    /// The head in `bytes`, if there is a whole and right one.
    pub(super) fn decode(bytes: &[u8; ENTRY_HEAD_BYTES]) -> Option<EntryHead> {
        let fields = unseal(ENTRY_MAGIC, bytes)?;
        let (from, rest) = fields.split_first_chunk::<8>()?;
        let (through, rest) = rest.split_first_chunk::<8>()?;
        let (durable, rest) = rest.split_first_chunk::<8>()?;
        let (frame_bytes, _) = rest.split_first_chunk::<4>()?;
        let position = |stored: &[u8; 8]| Position::from_stored(u64::from_le_bytes(*stored));
        let frame_bytes = u32::from_le_bytes(*frame_bytes);
        let fits = usize::try_from(frame_bytes).is_ok_and(|bytes| bytes <= FRAME_BYTES_MAX);
        fits.then(|| EntryHead {
            from: position(from),
            through: position(through),
            durable: position(durable),
            frame_bytes,
        })
    }
}

/// What a file says about the one before it; all zero for the first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Predecessor {
    pub(super) begins: Position,
    pub(super) bytes: u64,
}

/// What a file says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileHead {
    pub(super) partition: PartitionId,
    pub(super) begins: Position,
    pub(super) previous: Predecessor,
}

impl FileHead {
    pub(super) fn encode(&self) -> [u8; FILE_HEAD_BYTES] {
        let mut fields = Vec::with_capacity(FILE_HEAD_BYTES);
        fields.extend_from_slice(&self.partition.0.to_le_bytes());
        fields.extend_from_slice(&[0; 6]);
        fields.extend_from_slice(&self.begins.stored().to_le_bytes());
        fields.extend_from_slice(&self.previous.begins.stored().to_le_bytes());
        fields.extend_from_slice(&self.previous.bytes.to_le_bytes());
        seal(FILE_MAGIC, &fields)
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEAD_BYTES]) -> Option<FileHead> {
        let fields = unseal(FILE_MAGIC, bytes)?;
        let (partition, rest) = fields.split_first_chunk::<2>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (begins, rest) = rest.split_first_chunk::<8>()?;
        let (previous_begins, rest) = rest.split_first_chunk::<8>()?;
        let (previous_bytes, _) = rest.split_first_chunk::<8>()?;
        Some(FileHead {
            partition: PartitionId(u16::from_le_bytes(*partition)),
            begins: Position::from_stored(u64::from_le_bytes(*begins)),
            previous: Predecessor {
                begins: Position::from_stored(u64::from_le_bytes(*previous_begins)),
                bytes: u64::from_le_bytes(*previous_bytes),
            },
        })
    }
}

/// Reads a file from its head to its end, verifying every byte.
#[derive(Debug)]
pub(super) struct EntryReader {
    file: BufReader<File>,
    path: PathBuf,
    offset: u64,
    head: FileHead,
    at: Position,
}

impl EntryReader {
    pub(super) fn open(path: &Path) -> Result<EntryReader, ArchiveError> {
        let mut file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        let mut bytes = [0; FILE_HEAD_BYTES];
        let head = match read_up_to(&mut file, &mut bytes)? {
            FILE_HEAD_BYTES => FileHead::decode(&bytes),
            _ => None,
        };
        let Some(head) = head else {
            let what = "the head of the file is not one of this version";
            return Err(ArchiveError::Damaged { file: path.to_owned(), offset: 0, what });
        };
        let offset = FILE_HEAD_BYTES as u64;
        Ok(EntryReader { file, path: path.to_owned(), offset, head, at: head.begins })
    }

    /// The next entry; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut bytes = [0; ENTRY_HEAD_BYTES];
        match read_up_to(&mut self.file, &mut bytes)? {
            0 => return Ok(None),
            ENTRY_HEAD_BYTES => {}
            _ => return Err(self.damaged("the file ends inside the head of an entry")),
        }
        let Some(head) = EntryHead::decode(&bytes) else {
            return Err(self.damaged("the head of an entry is wrong"));
        };
        if head.from != self.at || head.through < head.from {
            return Err(self.damaged("an entry does not follow the one before it"));
        }
        let mut frame = Vec::new();
        let wanted = u64::from(head.frame_bytes);
        self.file.by_ref().take(wanted).read_to_end(&mut frame)?;
        let Ok(frame) = Frame::decode(frame) else {
            return Err(self.damaged("the frame of an entry is wrong"));
        };
        self.at = head.through;
        self.offset = self.offset.saturating_add(ENTRY_HEAD_BYTES as u64).saturating_add(wanted);
        Ok(Some(Entry { head, frame }))
    }

    /// What the file says about itself.
    pub(super) fn head(&self) -> FileHead {
        self.head
    }

    /// Where in the file the next entry begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The position up to which the entries read so far are complete.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// That something is wrong at the present place.
    pub(super) fn damaged(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged { file: self.path.clone(), offset: self.offset, what }
    }
}

/// Whether `tail` holds a whole entry that was written after `end` was passed and fsynced.
pub(super) fn claims_durable_beyond(tail: &[u8], end: Position) -> bool {
    let mut rest = tail;
    while let Some(found) = rest.windows(ENTRY_MAGIC.len()).position(|bytes| bytes == ENTRY_MAGIC) {
        let candidate = rest.get(found..).unwrap_or_default();
        let claim = candidate.split_first_chunk().and_then(|(head, body)| {
            let head = EntryHead::decode(head)?;
            let frame = body.get(..usize::try_from(head.frame_bytes).ok()?)?;
            Frame::decode(frame.to_vec()).ok()?;
            Some(head.durable)
        });
        if claim.is_some_and(|durable| durable > end) {
            return true;
        }
        rest = candidate.get(1..).unwrap_or_default();
    }
    false
}

/// Fills `buffer` as far as the file goes; tells how far.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Magic, CRC and `fields`, zeros behind.
fn seal<const N: usize>(magic: [u8; 4], fields: &[u8]) -> [u8; N] {
    let mut sealed = [0; N];
    let Some((front, body)) = sealed.split_at_mut_checked(SEAL_BYTES) else { return sealed };
    for (place, byte) in body.iter_mut().zip(fields) {
        *place = *byte;
    }
    let crc = crc32fast::hash(body).to_le_bytes();
    for (place, byte) in front.iter_mut().zip(magic.iter().chain(&crc)) {
        *place = *byte;
    }
    sealed
}

/// The fields behind magic and CRC, if both are right.
fn unseal<const N: usize>(magic: [u8; 4], sealed: &[u8; N]) -> Option<&[u8]> {
    let (front, body) = sealed.split_at_checked(SEAL_BYTES)?;
    let crc = crc32fast::hash(body).to_le_bytes();
    front.iter().eq(magic.iter().chain(&crc)).then_some(body)
}

/// Bytes of the head of an entry.
pub(super) const ENTRY_HEAD_BYTES: usize = 40;
/// Bytes of the head of a file.
pub(super) const FILE_HEAD_BYTES: usize = 40;
const ENTRY_MAGIC: [u8; 4] = *b"eAE1";
const FILE_MAGIC: [u8; 4] = *b"eAF1";
const SEAL_BYTES: usize = 8;
const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_no_flipped_bit_goes_unseen() {
        let position = Position::from_stored;
        let entry = EntryHead {
            from: position(1),
            through: position(u64::MAX),
            durable: position(7),
            frame_bytes: 99,
        };
        let previous = Predecessor { begins: position(1 << 39), bytes: 5 };
        let file = FileHead { partition: PartitionId(3), begins: position(1 << 40), previous };
        assert_eq!(EntryHead::decode(&entry.encode()), Some(entry));
        assert_eq!(FileHead::decode(&file.encode()), Some(file));
        for bit in 0..ENTRY_HEAD_BYTES * 8 {
            let mut bytes = entry.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(EntryHead::decode(&bytes), None, "bit {bit}");
        }
        for bit in 0..FILE_HEAD_BYTES * 8 {
            let mut bytes = file.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHead::decode(&bytes), None, "bit {bit}");
        }
    }
}
