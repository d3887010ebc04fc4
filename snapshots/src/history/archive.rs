//! The archive: the settled transactions of a partition, for good, after the log has dropped them.
//!
//! Append-only files, each named by the position where it begins. What `Archive::durable` tells
//! is fsynced; only that far may the log be dropped. A torn end is cut when the archive is opened:
//! it was never told durable, so the log still has it. Damage below is an error that names file
//! and offset, and nothing is skipped. Earlier files are checked at opening by their heads and
//! lengths, and byte by byte when they are read.
//!
//! It does not know what the records mean, nor the log.
//!
//! # Why
//! The index cannot be the only place of the confirmations: it is someone else's format, and a
//! store that opens empty after a power cut would be a lost year. The log cannot either: it is cut
//! below the snapshots. A plain file of checked frames is the least that can be trusted, and it
//! rebuilds any index.
//!
//! After a failed write or fsync nobody knows what of the unsynced end is on the device, and a
//! second fsync would only pretend. So `Archive::retreat` cuts all of it, and it is read from the
//! log again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use engine::ids::PartitionId;
use engine::journal::{Frame, Position};

use crate::history::entry::{
    ENTRY_HEAD_BYTES, Entry, EntryHead, EntryReader, FILE_HEAD_BYTES, FileHead, Predecessor,
    claims_durable_beyond,
};

/// The open archive of a partition; one writer.
#[derive(Debug)]
pub(super) struct Archive {
    directory: PathBuf,
    partition: PartitionId,
    file_bytes: u64,
    /// Where each file begins, in order.
    files: Vec<Position>,
    file: File,
    length: u64,
    end: Position,
    durable_length: u64,
    durable: Position,
}

impl Archive {
    /// Opens or creates the archive in `directory`. A new file is begun after `file_bytes`.
    pub(super) fn open(
        directory: &Path,
        partition: PartitionId,
        file_bytes: u64,
    ) -> Result<Archive, ArchiveError> {
        fs::create_dir_all(directory)?;
        let mut files = list(directory)?;
        if files.is_empty() {
            let head =
                FileHead { partition, begins: Position::ORIGIN, previous: Predecessor::default() };
            create(directory, head)?;
            files.push(Position::ORIGIN);
        }
        check_chain(directory, partition, &files)?;
        let last = path_of(directory, files.last().copied().unwrap_or_default());
        let (length, end) = cut_torn_end(&last)?;
        let file = OpenOptions::new().append(true).open(&last)?;
        // What a killed process wrote may be in memory only.
        file.sync_all()?;
        Ok(Archive {
            directory: directory.to_owned(),
            partition,
            file_bytes,
            files,
            file,
            length,
            end,
            durable_length: length,
            durable: end,
        })
    }

    /// Appends the settled records of the log from [`Archive::end`] up to `through`. Not durable
    /// before [`Archive::sync`].
    pub(super) fn append(&mut self, through: Position, frame: &Frame) -> Result<(), ArchiveError> {
        if self.length >= self.file_bytes {
            self.rotate()?;
        }
        let frame_bytes = u32::try_from(frame.bytes().len()).unwrap_or(u32::MAX);
        let head = EntryHead { from: self.end, through, durable: self.durable, frame_bytes };
        let mut bytes = Vec::with_capacity(ENTRY_HEAD_BYTES + frame.bytes().len());
        bytes.extend_from_slice(&head.encode());
        bytes.extend_from_slice(frame.bytes());
        self.file.write_all(&bytes)?;
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.end = through;
        Ok(())
    }

    /// Makes everything appended durable.
    pub(super) fn sync(&mut self) -> Result<(), ArchiveError> {
        self.file.sync_data()?;
        self.durable_length = self.length;
        self.durable = self.end;
        Ok(())
    }

    /// Cuts everything that is not durable, after an error.
    pub(super) fn retreat(&mut self) -> Result<(), ArchiveError> {
        self.file.set_len(self.durable_length)?;
        self.file.sync_all()?;
        self.length = self.durable_length;
        self.end = self.durable;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), ArchiveError> {
        self.sync()?;
        let begins = self.end;
        let last = self.files.last().copied().unwrap_or_default();
        let previous = Predecessor { begins: last, bytes: self.length };
        let head = FileHead { partition: self.partition, begins, previous };
        create(&self.directory, head)?;
        self.file = OpenOptions::new().append(true).open(path_of(&self.directory, begins))?;
        self.files.push(begins);
        self.length = FILE_HEAD_BYTES as u64;
        self.durable_length = self.length;
        Ok(())
    }

    /// Everything settled below is in the archive.
    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// Everything settled below is in the archive and fsynced.
    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    /// How much is not fsynced yet.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.length.saturating_sub(self.durable_length)
    }

    /// The entries that tell of anything at `position` or later, in order.
    pub(super) fn entries_from(&self, position: Position) -> Entries {
        let after = self.files.partition_point(|begins| *begins <= position);
        let files = self.files.get(after.saturating_sub(1)..).unwrap_or_default();
        let mut paths: Vec<PathBuf> =
            files.iter().map(|begins| path_of(&self.directory, *begins)).collect();
        paths.reverse();
        Entries { paths, reader: None, position, at: None }
    }
}

/// The entries of several files.
#[derive(Debug)]
pub(super) struct Entries {
    /// The files not yet begun, last first.
    paths: Vec<PathBuf>,
    reader: Option<EntryReader>,
    position: Position,
    at: Option<Position>,
}

impl Entries {
    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.paths.pop() else { return Ok(None) };
                let reader = EntryReader::open(&path)?;
                if self.at.is_some_and(|at| at != reader.at()) {
                    return Err(reader.damaged("the file does not follow the one before it"));
                }
                self.reader = Some(reader);
                continue;
            };
            match reader.next()? {
                Some(entry) if entry.head.through > self.position => return Ok(Some(entry)),
                Some(_) => {}
                None => {
                    self.at = Some(reader.at());
                    self.reader = None;
                }
            }
        }
    }
}

/// Why the archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What was durable is damaged: an operator must decide, nothing is skipped.
    #[error("damaged archive at `{}` offset {offset}: {what}", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The device failed.
    #[error("archive input/output failed: {0}")]
    Io(#[from] io::Error),
}

/// The files of the archive in order. A file that was never finished is removed.
fn list(directory: &Path) -> Result<Vec<Position>, ArchiveError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == UNFINISHED {
            fs::remove_file(&path)?;
        } else if let Some(begins) = name.strip_suffix(SUFFIX).and_then(|text| text.parse().ok()) {
            files.push(Position::from_stored(begins));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Creates a file with its head, durable as a whole or not at all.
fn create(directory: &Path, head: FileHead) -> Result<(), ArchiveError> {
    let unfinished = directory.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&head.encode())?;
    file.sync_all()?;
    fs::rename(&unfinished, path_of(directory, head.begins))?;
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Checks that no file is missing, cut or of somebody else, by heads and lengths.
fn check_chain(
    directory: &Path,
    partition: PartitionId,
    files: &[Position],
) -> Result<(), ArchiveError> {
    let mut previous = Predecessor::default();
    for begins in files {
        let path = path_of(directory, *begins);
        let reader = EntryReader::open(&path)?;
        if reader.head() != (FileHead { partition, begins: *begins, previous }) {
            return Err(ArchiveError::Damaged {
                file: path,
                offset: 0,
                what: "the head does not fit the name, the partition or the file before",
            });
        }
        previous = Predecessor { begins: *begins, bytes: fs::metadata(&path)?.len() };
    }
    Ok(())
}

/// Reads the last file; cuts an end that a crash tore. Tells its length and where it ends.
fn cut_torn_end(path: &Path) -> Result<(u64, Position), ArchiveError> {
    let mut reader = EntryReader::open(path)?;
    let torn = loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok((reader.offset(), reader.at())),
            Err(ArchiveError::Io(error)) => return Err(error.into()),
            Err(damage) => break damage,
        }
    };
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(reader.offset()))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    if claims_durable_beyond(&tail, reader.at()) {
        return Err(torn);
    }
    tracing::warn!(position = %reader.at(), bytes = tail.len(), "cut the torn end of the archive");
    file.set_len(reader.offset())?;
    file.sync_all()?;
    Ok((reader.offset(), reader.at()))
}

fn path_of(directory: &Path, begins: Position) -> PathBuf {
    directory.join(format!("{:020}{SUFFIX}", begins.stored()))
}

const SUFFIX: &str = ".archive";
const UNFINISHED: &str = "next.unfinished";

#[cfg(test)]
mod tests {
    use engine::journal::{BatchId, Epoch, FrameBuilder};

    use super::*;

    #[test]
    fn a_torn_end_is_cut_wherever_it_was_torn() {
        let home = tempfile::tempdir().unwrap();
        let mut archive = open(home.path()).unwrap();
        fill(&mut archive, 1..=3);
        archive.sync().unwrap();
        let durable = archive.length;
        fill(&mut archive, 4..=5);
        drop(archive);
        let path = path_of(home.path(), Position::ORIGIN);
        let whole = fs::read(&path).unwrap();
        for length in durable..=whole.len() as u64 {
            for garbage in [0, 100] {
                let mut bytes = whole[..length as usize].to_vec();
                bytes.resize(bytes.len() + garbage, 0);
                fs::write(&path, &bytes).unwrap();
                let mut archive = open(home.path()).unwrap();
                let end = archive.end().stored();
                assert!((3..=5).contains(&end), "{end} after a tear at {length}");
                assert_eq!(archive.durable().stored(), end);
                assert_eq!(stored(&archive, 0), (1..=end).collect::<Vec<_>>());
                fill(&mut archive, end + 1..=7);
                assert_eq!(stored(&archive, 2), (3..=7).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn pages_of_the_end_may_be_lost_in_any_order() {
        // What was not fsynced may reach the device last part first.
        let home = tempfile::tempdir().unwrap();
        let mut archive = open(home.path()).unwrap();
        fill(&mut archive, 1..=2);
        archive.sync().unwrap();
        let durable = usize::try_from(archive.length).unwrap();
        fill(&mut archive, 3..=5);
        drop(archive);
        let path = path_of(home.path(), Position::ORIGIN);
        let mut bytes = fs::read(&path).unwrap();
        bytes[durable + 5..durable + 20].fill(0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(open(home.path()).unwrap().end(), Position::from_stored(2));
    }

    #[test]
    fn damage_below_the_end_is_named() {
        let home = tempfile::tempdir().unwrap();
        let mut archive = open(home.path()).unwrap();
        fill(&mut archive, 1..=3);
        archive.sync().unwrap();
        let durable = usize::try_from(archive.length).unwrap();
        fill(&mut archive, 4..=4);
        drop(archive);
        let path = path_of(home.path(), Position::ORIGIN);
        let whole = fs::read(&path).unwrap();
        for at in 0..durable {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            match open(home.path()) {
                Err(ArchiveError::Damaged { file, offset, .. }) => {
                    assert_eq!(file, path);
                    let offset = usize::try_from(offset).unwrap();
                    assert!(offset <= at && at - offset < 100, "{offset} for damage at {at}");
                }
                other => panic!("damage at {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn files_follow_each_other() {
        let home = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(home.path(), PARTITION, 200).unwrap();
        fill(&mut archive, 1..=20);
        assert!(archive.files.len() > 3);
        for from in 0..=20 {
            assert_eq!(stored(&archive, from), (from + 1..=20).collect::<Vec<_>>());
        }
        let second = path_of(home.path(), archive.files[1]);
        drop(archive);
        fs::write(home.path().join(UNFINISHED), b"torn").unwrap();
        open(home.path()).unwrap();
        fs::remove_file(second).unwrap();
        assert!(matches!(open(home.path()), Err(ArchiveError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn a_retreat_leaves_what_is_durable() {
        let home = tempfile::tempdir().unwrap();
        let mut archive = open(home.path()).unwrap();
        fill(&mut archive, 1..=2);
        archive.sync().unwrap();
        fill(&mut archive, 3..=4);
        archive.retreat().unwrap();
        assert_eq!(archive.end(), Position::from_stored(2));
        fill(&mut archive, 3..=3);
        assert_eq!(stored(&archive, 0), [1, 2, 3]);
    }

    const PARTITION: PartitionId = PartitionId(1);

    fn open(directory: &Path) -> Result<Archive, ArchiveError> {
        Archive::open(directory, PARTITION, 1 << 20)
    }

    /// One entry for each number, of one record.
    fn fill(archive: &mut Archive, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let mut bytes = Vec::new();
            engine::entries::push_entry(&mut bytes, |out| {
                out.extend_from_slice(&number.to_le_bytes())
            });
            let mut builder = FrameBuilder::new();
            builder.extend(&bytes, 1);
            let frame = builder.finish(Epoch(1), BatchId(number));
            archive.append(Position::from_stored(number), &frame).unwrap();
        }
    }

    fn stored(archive: &Archive, from: u64) -> Vec<u64> {
        let mut entries = archive.entries_from(Position::from_stored(from));
        let mut numbers = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            for record in entry.frame.records() {
                numbers.push(u64::from_le_bytes(record.try_into().unwrap()));
            }
        }
        numbers
    }
}
