//! The identifier index: from a digest to the holder and card that it means.
//!
//! Open addressing in 4,096 tables that are copied when they change, so that a published index
//! never changes. A lookup reads one entry of a list that stays in the cache, then usually one line
//! of one table.
//!
//! # Why
//! One big table could not be published without copying a hundred megabytes or sharing it between
//! writer and readers. Tables of about a thousand entries cost a change some tens of kilobytes and
//! a lookup nothing that can be measured. Digests are pseudo-random under a secret key, so their
//! bytes serve as the hash.

use std::sync::Arc;

use crate::identifier::Digest;
use crate::registry::holders::Slot;

const TABLE_COUNT: usize = 4_096;
/// A table grows when it is seven eighths full.
const FULL_EIGHTHS: usize = 7;
const TABLE_BYTES_MIN: usize = 256;
/// The counts before the entries of a shared list.
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = size_of::<Entry>();

/// What an identifier leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// The holder.
    pub slot: Slot,
    /// The position among the holder's cards, or none where it leads to the holder as such.
    pub card: Option<u8>,
}

/// All identifiers of a registry.
#[derive(Clone, Debug)]
pub struct Index {
    tables: Box<[Table]>,
}

impl Index {
    /// Lets `digest` lead to `target`, whatever it led to before.
    pub fn insert(&mut self, digest: Digest, target: Target) {
        if let Some(table) = self.tables.get_mut(table_of(&digest)) {
            table.insert(Entry::new(digest, target));
        }
    }

    /// Lets `digest` lead nowhere.
    pub fn remove(&mut self, digest: &Digest) {
        if let Some(table) = self.tables.get_mut(table_of(digest)) {
            table.remove(digest);
        }
    }

    /// Where `digest` leads.
    #[inline]
    pub fn get(&self, digest: &Digest) -> Option<Target> {
        self.tables.get(table_of(digest))?.get(digest)
    }

    /// How many identifiers there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.used).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Index {
    fn default() -> Index {
        Index { tables: vec![Table::default(); TABLE_COUNT].into_boxed_slice() }
    }
}

fn table_of(digest: &Digest) -> usize {
    let [.., low, high] = digest.0;
    usize::from(u16::from_le_bytes([low, high])) % TABLE_COUNT
}

/// 21 bytes: digest, slot, and the card with "none" as 254 and "no entry" as 255. The slot stands as
/// bytes because a number would want three more for its alignment, twelve a holder.
#[derive(Clone, Copy, Debug)]
struct Entry {
    digest: Digest,
    slot: [u8; 4],
    card: u8,
}

const HOLDER_AS_SUCH: u8 = 254;
const VACANT: u8 = 255;

impl Entry {
    const NONE: Entry = Entry { digest: Digest([0; 16]), slot: [0; 4], card: VACANT };

    fn new(digest: Digest, target: Target) -> Entry {
        let slot = target.slot.0.to_le_bytes();
        Entry { digest, slot, card: target.card.unwrap_or(HOLDER_AS_SUCH) }
    }

    fn target(&self) -> Target {
        let card = (self.card != HOLDER_AS_SUCH).then_some(self.card);
        Target { slot: Slot(u32::from_le_bytes(self.slot)), card }
    }
}

#[derive(Clone, Debug, Default)]
struct Table {
    entries: Arc<[Entry]>,
    used: usize,
}

impl Table {
    fn insert(&mut self, entry: Entry) {
        if (self.used + 1) * 8 > self.entries.len() * FULL_EIGHTHS {
            self.grow();
        }
        let is_new = place(Arc::make_mut(&mut self.entries), entry);
        self.used += usize::from(is_new);
    }

    /// Takes an entry out and moves back those that only stood behind it because it was there.
    fn remove(&mut self, digest: &Digest) {
        if self.get(digest).is_none() {
            return;
        }
        self.used -= 1;
        let entries = Arc::make_mut(&mut self.entries);
        let length = entries.len();
        let after = |at: usize| if at + 1 == length { 0 } else { at + 1 };
        let mut hole = home(digest, length);
        while entries.get(hole).is_some_and(|entry| entry.digest != *digest) {
            hole = after(hole);
        }
        let mut at = after(hole);
        while let Some(entry) = entries.get(at).copied().filter(|entry| entry.card != VACANT) {
            // How far an entry stands behind its home, and behind the hole, around the end.
            let behind = |place: usize| if at >= place { at - place } else { at + length - place };
            if behind(home(&entry.digest, length)) >= behind(hole) {
                entries.get_mut(hole).into_iter().for_each(|place| *place = entry);
                hole = at;
            }
            at = after(at);
        }
        entries.get_mut(hole).into_iter().for_each(|place| *place = Entry::NONE);
    }

    #[inline]
    fn get(&self, digest: &Digest) -> Option<Target> {
        let home = home(digest, self.entries.len());
        let (wrapped, straight) = self.entries.split_at_checked(home)?;
        for entry in straight.iter().chain(wrapped) {
            if entry.card == VACANT {
                return None;
            }
            if entry.digest == *digest {
                return Some(entry.target());
            }
        }
        None
    }

    fn grow(&mut self) {
        let length = next_length(self.entries.len());
        let mut entries: Arc<[Entry]> = std::iter::repeat_n(Entry::NONE, length).collect();
        let fresh = Arc::make_mut(&mut entries);
        let kept = self.entries.iter().filter(|entry| entry.card != VACANT);
        for entry in kept {
            place(fresh, *entry);
        }
        self.entries = entries;
    }
}

/// The length of a table that has outgrown `length`. Allocators have four sizes between a power of
/// two and the next; a table takes all of one, for the rest would be lost anyway.
fn next_length(length: usize) -> usize {
    let wanted = (HEADER_BYTES + (length + 1) * ENTRY_BYTES).max(TABLE_BYTES_MIN);
    let step = (wanted / 2 + 1).next_power_of_two() / 4;
    (wanted.next_multiple_of(step) - HEADER_BYTES) / ENTRY_BYTES
}

/// Where the search for `digest` begins in a table of `length` entries.
#[inline]
fn home(digest: &Digest, length: usize) -> usize {
    let length = u128::try_from(length).unwrap_or_default();
    usize::try_from((u128::from(digest.spread()) * length) >> 64).unwrap_or_default()
}

/// Returns whether nothing was known of the digest before.
fn place(entries: &mut [Entry], entry: Entry) -> bool {
    let home = home(&entry.digest, entries.len());
    let (wrapped, straight) = entries.split_at_mut(home.min(entries.len()));
    let mut places = straight.iter_mut().chain(wrapped);
    let free = |place: &&mut Entry| place.card == VACANT || place.digest == entry.digest;
    let Some(place) = places.find(free) else { return false };
    let is_new = place.card == VACANT;
    *place = entry;
    is_new
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn digest(number: u64) -> Digest {
        let mixed = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Digest((mixed ^ (mixed >> 61)).to_le_bytes())
    }

    #[test]
    fn agrees_with_a_map_and_old_indexes_stay() {
        let mut index = Index::default();
        let mut model = BTreeMap::new();
        let target =
            |number: u64, card| Target { slot: Slot(u32::try_from(number).unwrap()), card };
        for number in 0..50_000 {
            index.insert(digest(number), target(number, None));
            model.insert(number, target(number, None));
        }
        let old = index.clone();
        for number in (0..50_000).step_by(3) {
            index.insert(digest(number), target(number + 1, Some(2)));
            model.insert(number, target(number + 1, Some(2)));
        }
        for number in (0..50_000).step_by(5) {
            index.remove(&digest(number));
            model.remove(&number);
        }
        assert_eq!(index.len(), model.len());
        assert_eq!(old.len(), 50_000);
        for number in 0..60_000 {
            assert_eq!(index.get(&digest(number)), model.get(&number).copied());
            let in_old = (number < 50_000).then(|| target(number, None));
            assert_eq!(old.get(&digest(number)), in_old);
        }
    }

    #[test]
    fn tables_fill_the_sizes_of_allocators() {
        let lengths = std::iter::successors(Some(0), |length| Some(next_length(*length)));
        let bytes: Vec<usize> = lengths.skip(1).map(|length| length * 21 + 16).take(8).collect();
        for (bytes, size) in bytes.iter().zip([256, 320, 384, 448, 512, 640, 768, 896]) {
            assert!((size - 20..=size).contains(bytes), "{bytes} of {size}");
        }
    }

    #[test]
    fn an_entry_takes_21_bytes() {
        assert_eq!(size_of::<Entry>(), 21);
    }
}
