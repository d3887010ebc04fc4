//! The directory of one snapshot generation: its names, its digest, its copies, and the marker that
//! makes it complete. Knows nothing of what stores the parts in it.
//!
//! The marker `generation-00000000000000000007.complete` is a MessagePack array (version 1,
//! generation, replay position, number of parts, digest of the parts, and the path, length and
//! BLAKE3 of every file in the directory) followed by its own BLAKE3. It is written under another
//! name, synced, renamed, and the directory synced; it exists only when every byte that it speaks of
//! is durable.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use engine::journal::Position;
use engine::snapshot::{Generation, SnapshotError, SnapshotInfo};

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
/// Bytes copied or hashed at once.
const STEP_BYTES: usize = 256 << 10;
/// Bytes freed at once.
const FREED_BYTES: u64 = 1 << 20;
/// Between two leisurely steps.
const REST: Duration = Duration::from_millis(5);
/// Bytes of a marker; one with many more files than we ever write is not ours.
const MARKER_BYTES_MAX: u64 = 16 << 20;

/// What a complete generation is known by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Marker {
    version: u8,
    generation: u64,
    replay_from: u64,
    /// Number of its parts.
    pub part_count: u64,
    /// The digest of its parts.
    pub digest: Hash,
    files: Vec<FileDigest>,
}

/// One file of a generation.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct FileDigest {
    path: PathBuf,
    bytes: u64,
    hash: Hash,
}

/// What is to be sealed.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// The name and the replay position.
    pub info: SnapshotInfo,
    /// Number of parts.
    pub part_count: u64,
    /// The digest of the parts.
    pub digest: Hash,
}

impl Marker {
    /// The marker of a generation whose directory holds `files`.
    pub fn new(contents: Contents, files: Vec<FileDigest>) -> Marker {
        Marker {
            version: VERSION,
            generation: contents.info.generation.0,
            replay_from: contents.info.replay_from.stored(),
            part_count: contents.part_count,
            digest: contents.digest,
            files,
        }
    }

    /// Reads the marker of `generation`.
    pub fn read(partition: &Path, generation: Generation) -> Result<Marker, SnapshotError> {
        let mut bytes = Vec::new();
        let file = File::open(marker_path(partition, generation))?;
        file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes)?;
        let unreadable = || SnapshotError::Damaged("the marker cannot be read".to_owned());
        let (body, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or_else(unreadable)?;
        if blake3::hash(body) != *hash {
            return Err(unreadable());
        }
        let marker: Marker = rmp_serde::from_slice(body).map_err(|_| unreadable())?;
        if (marker.version, marker.generation) != (VERSION, generation.0) {
            return Err(SnapshotError::Damaged("the marker of something else".to_owned()));
        }
        Ok(marker)
    }

    /// Makes the generation complete.
    pub fn write(&self, partition: &Path) -> Result<(), SnapshotError> {
        let body =
            rmp_serde::to_vec(self).map_err(|error| SnapshotError::Io(io::Error::other(error)))?;
        let path = marker_path(partition, Generation(self.generation));
        let half_made = path.with_extension("sealing");
        let mut file = File::create(&half_made)?;
        file.write_all(&body)?;
        file.write_all(blake3::hash(&body).as_bytes())?;
        file.sync_all()?;
        fs::rename(&half_made, &path)?;
        sync_directory(partition)?;
        Ok(())
    }

    /// The generation in the words of the engine.
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            generation: Generation(self.generation),
            replay_from: Position::from_stored(self.replay_from),
        }
    }

    /// Whether `files` are those of the generation, byte for byte.
    pub fn check(&self, files: &[FileDigest]) -> Result<(), SnapshotError> {
        if files == self.files {
            return Ok(());
        }
        let strange = files.iter().find(|file| !self.files.contains(file));
        let strange = strange.or_else(|| self.files.iter().find(|file| !files.contains(file)));
        let path = strange.map(|file| file.path.display().to_string()).unwrap_or_default();
        Err(SnapshotError::Damaged(format!("file `{path}` is not as it was written")))
    }
}

/// How the device is used, in steps of some hundred kilobytes.
#[derive(Clone, Copy, Debug)]
pub enum Pace<'a> {
    /// Nobody else is there yet.
    Hurried,
    /// Between two steps others get their turn; once this is raised there is no further step.
    Leisurely(&'a AtomicBool),
}

impl Pace<'_> {
    /// Called between two steps; an error if there is to be no further one.
    pub fn rest(self) -> Result<(), SnapshotError> {
        let Pace::Leisurely(stopped) = self else { return Ok(()) };
        if stopped.load(Ordering::Acquire) {
            return Err(SnapshotError::Stopped);
        }
        std::thread::sleep(REST);
        Ok(())
    }
}

/// The directory of a generation.
pub fn generation_path(partition: &Path, generation: Generation) -> PathBuf {
    partition.join(format!("generation-{:020}", generation.0))
}

/// The marker of a generation.
pub fn marker_path(partition: &Path, generation: Generation) -> PathBuf {
    generation_path(partition, generation).with_extension("complete")
}

/// The generation that a name belongs to, whatever its extension.
pub fn generation_of(name: &Path) -> Option<Generation> {
    let digits = name.file_stem()?.to_str()?.strip_prefix("generation-")?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Generation))?
}

/// The markers of the complete generations, newest first. One that cannot be read is as good as
/// none: without it nobody knows what the generation must hold.
pub fn markers(partition: &Path) -> Result<Vec<Marker>, SnapshotError> {
    let mut markers = Vec::new();
    for (generation, path) in names(partition)? {
        if path != marker_path(partition, generation) {
            continue;
        }
        match Marker::read(partition, generation) {
            Ok(marker) => markers.push(marker),
            // Removed meanwhile by a newer generation.
            Err(SnapshotError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(SnapshotError::Io(error)) => return Err(SnapshotError::Io(error)),
            Err(error) => {
                tracing::error!(generation = generation.0, %error, "a snapshot is left out");
            }
        }
    }
    markers.sort_unstable_by_key(|marker| std::cmp::Reverse(marker.info().generation));
    Ok(markers)
}

/// Everything that belongs to some generation.
pub fn names(partition: &Path) -> io::Result<Vec<(Generation, PathBuf)>> {
    let entries = match fs::read_dir(partition) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(generation_of(&path).map(|generation| (generation, path)));
    }
    Ok(names)
}

/// The newest generation of which anything is there.
pub fn newest_name(partition: &Path) -> io::Result<Option<Generation>> {
    Ok(names(partition)?.into_iter().map(|(generation, _)| generation).max())
}

/// The files in a directory and below, each with its digest.
pub fn digest_tree(directory: &Path, pace: Pace<'_>) -> Result<Vec<FileDigest>, SnapshotError> {
    walk(directory, pace, &mut |_, _| Ok(Box::new(io::sink())))
}

/// Copies a directory and what is below; returns the digests of what was copied.
pub fn copy_tree(
    directory: &Path,
    copy: &Path,
    pace: Pace<'_>,
) -> Result<Vec<FileDigest>, SnapshotError> {
    walk(directory, pace, &mut |path, is_directory| {
        let path = copy.join(path);
        if is_directory {
            fs::create_dir(path)?;
            return Ok(Box::new(io::sink()));
        }
        Ok(Box::new(File::create(path)?))
    })
}

/// Makes the files in a directory durable, and the directories. A file that vanishes meanwhile was
/// removed late by who wrote it, and is no part of the rest.
pub fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let synced = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => sync_tree(&path),
            Ok(_) => File::open(&path).and_then(|file| file.sync_all()),
            Err(error) => Err(error),
        };
        match synced {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    sync_directory(directory)
}

/// Empties the files in a directory, a step at a time: a device that is told of much freed space at
/// once does nothing else meanwhile.
pub fn shrink_tree(directory: &Path, pace: Pace<'_>) -> Result<(), SnapshotError> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            shrink_tree(&entry.path(), pace)?;
            continue;
        }
        let file = File::options().write(true).open(entry.path())?;
        let mut bytes = file.metadata()?.len();
        while bytes > 0 {
            bytes = bytes.saturating_sub(FREED_BYTES);
            file.set_len(bytes)?;
            pace.rest()?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Where the bytes of a file go; called for directories as well, which have none.
type Sink<'a> = dyn FnMut(&Path, bool) -> io::Result<Box<dyn Write>> + 'a;

fn walk(root: &Path, pace: Pace<'_>, sink: &mut Sink) -> Result<Vec<FileDigest>, SnapshotError> {
    let mut digests = Vec::new();
    let mut directories = vec![PathBuf::new()];
    let mut buffer = vec![0; STEP_BYTES];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let is_directory = entry.file_type()?.is_dir();
            let mut copy = sink(&path, is_directory)?;
            if is_directory {
                directories.push(path);
                continue;
            }
            let mut file = File::open(entry.path())?;
            let mut hasher = blake3::Hasher::new();
            let mut bytes = 0;
            loop {
                let count = file.read(&mut buffer)?;
                let read = buffer.get(..count).unwrap_or_default();
                if read.is_empty() {
                    break;
                }
                hasher.update(read);
                copy.write_all(read)?;
                bytes += count as u64;
                pace.rest()?;
            }
            digests.push(FileDigest { path, bytes, hash: *hasher.finalize().as_bytes() });
        }
    }
    digests.sort_unstable();
    Ok(digests)
}
