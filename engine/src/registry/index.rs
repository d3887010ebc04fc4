//! The identifier index: from a digest to the holder and card that it means.
//!
//! Open addressing in 4,096 tables that are copied when they change, so that a published index
//! never changes. A lookup reads one entry of a list that stays in the cache, then usually one line
//! of one table.
//!
//! # Why
//! One big table could not be published without copying a hundred megabytes or sharing it between
//! writer and readers. Tables of about a thousand entries cost a change some ten kilobytes and
//! a lookup nothing that can be measured.
//!
//! Digests are pseudo-random under a secret key, so their bytes serve as the hash, and an entry keeps
//! seven of them: with the twelve bits that choose the table, two of ten million identifiers meet
//! with a chance of one in six million, and an import would refuse the second one. Entries of 12
//! bytes, five to a cache line, take 20 bytes off every holder beside those of 16, and these had
//! taken a tenth off the decision beside whole digests.

use std::sync::Arc;

use crate::identifier::Digest;
use crate::registry::holders::Slot;

const TABLE_COUNT: usize = 4_096;
/// A table grows when it is seven eighths full.
const FULL_EIGHTHS: usize = 7;
/// All tables grow when they are this full on average: only few of them are seven eighths full.
const AVERAGE_SIXTEENTHS: usize = 13;
const TABLE_ENTRIES_MIN: usize = 8;
/// Bytes of the counters of an [`Arc`].
const ARC_BYTES: usize = 16;

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
    /// The index of all these identifiers; of two that are the same the later one counts.
    ///
    /// Each table is made once, of entries that were gathered for it: inserted one by one, a million
    /// holders waited for memory three million times and made each table two dozen times.
    pub fn of(all: impl Iterator<Item = (Digest, Target)>) -> Index {
        let mut gathered: Vec<Vec<Entry>> = vec![Vec::new(); TABLE_COUNT];
        for (digest, target) in all {
            if let Some(entries) = gathered.get_mut(table_of(&digest)) {
                entries.push(Entry::new(&digest, target));
            }
        }
        let count: usize = gathered.iter().map(Vec::len).sum();
        let length = settled_length(count);
        let tables = gathered.into_iter().map(|entries| Table::of(&entries, length));
        Index { tables: tables.collect() }
    }

    /// Lets `digest` lead to `target`, whatever it led to before.
    pub fn insert(&mut self, digest: Digest, target: Target) {
        if let Some(table) = self.tables.get_mut(table_of(&digest)) {
            table.insert(Entry::new(&digest, target));
        }
    }

    /// Lets `digest` lead nowhere.
    pub fn remove(&mut self, digest: &Digest) {
        if let Some(table) = self.tables.get_mut(table_of(digest)) {
            table.remove(fingerprint_of(digest));
        }
    }

    /// Makes tables grow that most others have outgrown; worth it after many changes. Those few would
    /// keep the memory that the others gave up in pieces, of which the system takes nothing back.
    pub fn settle(&mut self) {
        let length = settled_length(self.len());
        for table in self.tables.iter_mut().filter(|table| table.entries.len() < length) {
            table.resize(length);
        }
    }

    /// Where `digest` leads.
    #[inline]
    pub fn get(&self, digest: &Digest) -> Option<Target> {
        self.tables.get(table_of(digest))?.get(fingerprint_of(digest))
    }

    /// Brings what lookups of these digests will read into the cache.
    ///
    /// A lookup branches on what it has read; where that is guessed wrongly the next one begins only
    /// when this one's wait for memory is over. Here nothing depends on what is read.
    #[inline]
    pub fn touch<'d>(&self, digests: impl Iterator<Item = &'d Digest>) {
        let read = digests.fold(0, |read, digest| {
            let entries = self.tables.get(table_of(digest)).map_or(&[][..], |table| &table.entries);
            let entry = entries.get(home(fingerprint_of(digest), entries.len()));
            read | entry.map_or(0, |entry| entry.slot)
        });
        std::hint::black_box(read);
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

/// Seven bytes of the digest.
#[inline]
fn fingerprint_of(digest: &Digest) -> u64 {
    digest.spread() >> (u64::BITS - FINGERPRINT_BITS)
}

const FINGERPRINT_BITS: u32 = 56;

/// 12 bytes: the fingerprint in the first word and above the lowest byte of the second one, in this
/// byte the card with "none" as 254 and "no entry" as 255, and the slot.
#[derive(Clone, Copy, Debug)]
struct Entry {
    fingerprint_low: u32,
    fingerprint_high_and_card: u32,
    slot: u32,
}

const HOLDER_AS_SUCH: u8 = 254;
const VACANT: u8 = 255;

impl Entry {
    /// No entry: vacant.
    const NONE: Entry = Entry {
        fingerprint_low: 0,
        fingerprint_high_and_card: u32::from_le_bytes([VACANT, 0, 0, 0]),
        slot: 0,
    };

    fn new(digest: &Digest, target: Target) -> Entry {
        let card = target.card.unwrap_or(HOLDER_AS_SUCH);
        let [a, b, c, d, e, f, g, _] = fingerprint_of(digest).to_le_bytes();
        Entry {
            fingerprint_low: u32::from_le_bytes([a, b, c, d]),
            fingerprint_high_and_card: u32::from_le_bytes([card, e, f, g]),
            slot: target.slot.0,
        }
    }

    #[inline]
    fn fingerprint(&self) -> u64 {
        u64::from(self.fingerprint_high_and_card >> 8) << 32 | u64::from(self.fingerprint_low)
    }

    #[inline]
    fn card(&self) -> u8 {
        let [card, ..] = self.fingerprint_high_and_card.to_le_bytes();
        card
    }

    fn target(&self) -> Target {
        let card = self.card();
        Target { slot: Slot(self.slot), card: (card != HOLDER_AS_SUCH).then_some(card) }
    }
}

#[derive(Clone, Debug, Default)]
struct Table {
    entries: Arc<[Entry]>,
    used: usize,
}

impl Table {
    /// A table of these entries, at least so long.
    fn of(all: &[Entry], length_min: usize) -> Table {
        let mut table = Table::default();
        let room = (all.len() * 8).div_ceil(FULL_EIGHTHS);
        table.resize(length_of(room).max(length_min));
        all.iter().for_each(|entry| table.insert(*entry));
        table
    }

    fn insert(&mut self, entry: Entry) {
        if (self.used + 1) * 8 > self.entries.len() * FULL_EIGHTHS {
            self.grow();
        }
        let known = self.get(entry.fingerprint()).is_some();
        place(Arc::make_mut(&mut self.entries), entry);
        self.used += usize::from(!known);
    }

    /// Takes an entry out and moves back those that only stood behind it because it was there.
    fn remove(&mut self, fingerprint: u64) {
        if self.get(fingerprint).is_none() {
            return;
        }
        self.used -= 1;
        let entries = Arc::make_mut(&mut self.entries);
        let length = entries.len();
        let after = |at: usize| if at + 1 == length { 0 } else { at + 1 };
        let mut hole = home(fingerprint, length);
        while entries.get(hole).is_some_and(|entry| entry.fingerprint() != fingerprint) {
            hole = after(hole);
        }
        let mut at = after(hole);
        while let Some(entry) = entries.get(at).copied().filter(|entry| entry.card() != VACANT) {
            // How far an entry stands behind its home, and behind the hole, around the end.
            let behind = |place: usize| if at >= place { at - place } else { at + length - place };
            if behind(home(entry.fingerprint(), length)) >= behind(hole) {
                entries.get_mut(hole).into_iter().for_each(|place| *place = entry);
                hole = at;
            }
            at = after(at);
        }
        entries.get_mut(hole).into_iter().for_each(|place| *place = Entry::NONE);
    }

    #[inline]
    fn get(&self, fingerprint: u64) -> Option<Target> {
        let home = home(fingerprint, self.entries.len());
        let (wrapped, straight) = self.entries.split_at_checked(home)?;
        for entry in straight.iter().chain(wrapped) {
            if entry.card() == VACANT {
                return None;
            }
            if entry.fingerprint() == fingerprint {
                return Some(entry.target());
            }
        }
        None
    }

    fn grow(&mut self) {
        self.resize(length_of((self.entries.len() + 1).max(TABLE_ENTRIES_MIN)));
    }

    fn resize(&mut self, length: usize) {
        let mut entries: Arc<[Entry]> = std::iter::repeat_n(Entry::NONE, length).collect();
        let fresh = Arc::make_mut(&mut entries);
        let kept = self.entries.iter().filter(|entry| entry.card() != VACANT);
        kept.for_each(|entry| place(fresh, *entry));
        self.entries = entries;
    }
}

/// How long every table of an index of so many identifiers is at least.
fn settled_length(count: usize) -> usize {
    length_of(count / TABLE_COUNT * 16 / AVERAGE_SIXTEENTHS)
}

/// The length of a table with room for `length` entries that wastes no memory: allocators have four
/// sizes between two powers of two.
fn length_of(length: usize) -> usize {
    let bytes = ARC_BYTES + length * size_of::<Entry>();
    let bytes = bytes.next_multiple_of(bytes.next_power_of_two() / 8);
    (bytes - ARC_BYTES) / size_of::<Entry>()
}

/// Where the search for `fingerprint` begins in a table of `length` entries.
#[inline]
fn home(fingerprint: u64, length: usize) -> usize {
    let length = u128::try_from(length).unwrap_or_default();
    usize::try_from((u128::from(fingerprint) * length) >> FINGERPRINT_BITS).unwrap_or_default()
}

fn place(entries: &mut [Entry], entry: Entry) {
    let fingerprint = entry.fingerprint();
    let home = home(fingerprint, entries.len());
    let (wrapped, straight) = entries.split_at_mut(home.min(entries.len()));
    let mut places = straight.iter_mut().chain(wrapped);
    let free = |place: &&mut Entry| place.card() == VACANT || place.fingerprint() == fingerprint;
    if let Some(place) = places.find(free) {
        *place = entry;
    }
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
    fn lengths_fill_what_an_allocator_gives() {
        let check = |length, expected| assert_eq!(length_of(length), expected);
        check(0, 0);
        check(8, 8);
        check(9, 9);
        check(1_000, 1_022);
        check(1_022, 1_022);
        check(1_023, 1_193);
    }

    #[test]
    fn settled_tables_hold_the_same() {
        let mut index = Index::default();
        let target =
            |number: u64| Target { slot: Slot(u32::try_from(number).unwrap()), card: None };
        for count in [1, 5_000, 50_000] {
            (0..count).for_each(|number| index.insert(digest(number), target(number)));
            index.settle();
            let twice = (0..count).map(|number| (digest(number), target(count)));
            let made =
                Index::of(twice.chain((0..count).map(|number| (digest(number), target(number)))));
            for index in [&index, &made] {
                assert_eq!(index.len(), usize::try_from(count).unwrap());
                assert!(
                    (0..count).all(|number| index.get(&digest(number)) == Some(target(number)))
                );
            }
        }
    }

    #[test]
    fn an_entry_takes_12_bytes() {
        assert_eq!(size_of::<Entry>(), 12);
    }
}
