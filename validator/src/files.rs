//! The disk as a device uses it: one directory of small files, as a port.
//!
//! Only what [`Files::sync`] and [`Files::sync_directory`] returned for survives a power cut; of the
//! rest any part may. [`directory::Directory`] is the real one, [`memory::MemoryFiles`] keeps live and
//! durable bytes apart for tests and simulations.

use std::io;

pub mod directory;
pub mod memory;

/// One directory. Names are plain: no separators.
pub trait Files: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Bytes of a file.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Fills `into` from `offset` of a file; an error where the file ends before.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Adds to the end of a file, which is made if it is missing.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file.
    fn truncate(&self, name: &str, length: u64) -> io::Result<()>;

    /// Makes the bytes of a file durable.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Gives a file another name; a file that has it already is gone then.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The whole of a file that has at most `bytes_max` bytes.
pub fn read(files: &dyn Files, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let length = files.length(name)?;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too long"));
    }
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    files.read_at(name, 0, &mut bytes)?;
    Ok(bytes)
}

/// Gives a file new contents: after a power cut it has the old or the new ones, whole.
pub fn replace(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.new");
    remove_if_there(files, &fresh)?;
    files.append(&fresh, bytes)?;
    files.sync(&fresh)?;
    files.rename(&fresh, name)?;
    files.sync_directory()
}

/// Removes a file that may be missing.
pub fn remove_if_there(files: &dyn Files, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
