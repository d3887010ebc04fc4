//! A list of byte strings in one buffer: each behind its length in four bytes, little-endian.
//!
//! Frames, parts of imports and parts of snapshots are such lists.

const LENGTH_BYTES: usize = 4;

/// Appends an entry; `write` fills in its bytes.
pub fn push_entry(list: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = list.len();
    list.extend_from_slice(&[0; LENGTH_BYTES]);
    write(list);
    let length = list.len() - start - LENGTH_BYTES;
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = list.get_mut(start..start + LENGTH_BYTES) {
        place.copy_from_slice(&length);
    }
}

/// The entries of a list; the last item is an error where the list ends inside an entry.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The entries of `list`.
    pub fn of(list: &'a [u8]) -> Entries<'a> {
        Entries { rest: list }
    }

    fn split(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>()?;
        rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], CutEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = self.split();
        self.rest = split.map(|(_, rest)| rest).unwrap_or_default();
        Some(split.map(|(entry, _)| entry).ok_or(CutEntry))
    }
}

/// A list ends in the middle of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a list ends in the middle of an entry")]
pub struct CutEntry;
