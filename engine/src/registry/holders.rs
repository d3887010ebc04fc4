//! Holders in memory: packed into chunks that are copied when they change.
//!
//! A table is a list of pages, a page a list of chunks, a chunk up to [`CHUNK_HOLDERS`] holders.
//! Cloning a table copies a short list of pages; changing one holder afterwards copies one page and
//! one chunk. So a published table never changes, whoever writes a snapshot reads at leisure, and a
//! change copies some kilobytes.
//!
//! # Why
//! A check waits for memory, not for the processor: each line that it touches among a million
//! holders costs 100 to 200 ns with the page walk. So all that a check needs of an ordinary holder
//! (up to eight cards and rights) stands in one record of 64 bytes, and a check waits twice: for the
//! index and for the record. Records that pointed to lists of cards and rights elsewhere made the
//! whole decision half as slow again; the rare facts that do not fit still stand in such a list, and
//! so do identifiers, which checks do not need.
//!
//! A chunk takes 4,096 bytes with the counters of its [`Arc`], so that no allocator rounds it up; that
//! and lists that grow by a few entries instead of doubling took a quarter off the memory of a holder.

use std::sync::Arc;

use crate::calendar::{Day, Validity};
use crate::holder::{Card, Holder, HolderIdentifier, Right};
use crate::identifier::{Digest, IdentifierKind};
use crate::ids::{CategoryId, HolderId, RegionCode};
use crate::limits::{CHUNK_HOLDERS, PAGE_CHUNKS};
use crate::registry::packed::{PackedFact, card_of, card_state};

/// Slots of a chunk; those behind the holders stay empty, so that a slot is found by shifts alone.
const CHUNK_SLOTS: usize = CHUNK_HOLDERS.next_power_of_two();
const PAGE_SLOTS: usize = CHUNK_SLOTS * PAGE_CHUNKS;

/// The place of a holder in the table; stable while the holder exists.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u32);

impl Slot {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The slot behind this one.
    pub fn next(self) -> Slot {
        Slot(self.0.saturating_add(1))
    }

    fn from_index(index: usize) -> Slot {
        Slot(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

/// All holders of a registry.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    pages: Vec<Arc<[Arc<Chunk>]>>,
    slot_count: usize,
}

impl Holders {
    /// Puts a holder into `slot`, which is used already or [`Holders::next_slot`].
    pub fn put(&mut self, slot: Slot, holder: &Holder) {
        self.slot_count = self.slot_count.max(slot.index().saturating_add(1));
        if let Some(chunk) = self.chunk_mut(slot) {
            chunk.put(slot.index() % CHUNK_SLOTS, Some(holder));
        }
    }

    /// Empties `slot`.
    pub fn clear(&mut self, slot: Slot) {
        if let Some(chunk) = self.chunk_mut(slot) {
            chunk.put(slot.index() % CHUNK_SLOTS, None);
        }
    }

    /// The holder in `slot`.
    #[inline]
    pub fn view(&self, slot: Slot) -> Option<HolderView<'_>> {
        let index = slot.index();
        let page = self.pages.get(index / PAGE_SLOTS)?;
        let chunk = page.get(index % PAGE_SLOTS / CHUNK_SLOTS)?;
        chunk.view(index % CHUNK_SLOTS)
    }

    /// The first slot that was never used.
    pub fn next_slot(&self) -> Slot {
        let at = self.slot_count % CHUNK_SLOTS;
        let skipped = if at < CHUNK_HOLDERS { 0 } else { CHUNK_SLOTS - at };
        Slot::from_index(self.slot_count.saturating_add(skipped))
    }

    /// Everybody, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, HolderView<'_>)> {
        self.iter_from(Slot(0))
    }

    /// Everybody in `first` and behind it, in the order of the slots.
    pub fn iter_from(&self, first: Slot) -> impl Iterator<Item = (Slot, HolderView<'_>)> {
        let slots = (first.index()..self.slot_count).map(Slot::from_index);
        slots.filter_map(|slot| Some((slot, self.view(slot)?)))
    }

    fn chunk_mut(&mut self, slot: Slot) -> Option<&mut Chunk> {
        let page = slot.index() / PAGE_SLOTS;
        while self.pages.len() <= page {
            let empty = Arc::new(Chunk::default());
            self.pages.push(std::iter::repeat_n(empty, PAGE_CHUNKS).collect());
        }
        let page = Arc::make_mut(self.pages.get_mut(page)?);
        let chunk = page.get_mut(slot.index() % PAGE_SLOTS / CHUNK_SLOTS)?;
        Some(Arc::make_mut(chunk))
    }
}

/// A holder, read in place. What a check does not need is not even looked at.
#[derive(Clone, Copy, Debug)]
pub struct HolderView<'a> {
    record: &'a Record,
    chunk: &'a Chunk,
    at: usize,
}

impl<'a> HolderView<'a> {
    /// The holder, unpacked.
    pub fn to_holder(&self) -> Holder {
        Holder {
            id: self.id(),
            region: RegionCode(self.record.region),
            closed: self.is_closed(),
            cards: self.cards().collect(),
            rights: self.rights().collect(),
            identifiers: self.identifiers().filter_map(|extra| extra.identifier()).collect(),
        }
    }

    /// Whose record this is.
    #[inline]
    pub fn id(&self) -> HolderId {
        HolderId(self.record.id)
    }

    /// Whether the holder is out of the programme.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.record.state & CLOSED != 0
    }

    /// Everything by which the holder is found.
    pub fn identifiers(&self) -> impl Iterator<Item = &'a Extra> + use<'a> {
        self.extras().iter().filter(|extra| extra.is_identifier())
    }

    fn extras(&self) -> &'a [Extra] {
        let start = self.chunk.extras_start(self.at);
        let extras = self.chunk.extras.get(range(start, self.record.extras_end));
        extras.unwrap_or_default()
    }

    /// The cards and rights that found no room in the record, among identifiers.
    #[inline]
    fn spilled(&self) -> &'a [Extra] {
        if self.record.state & SPILLED == 0 { &[] } else { self.extras() }
    }

    /// The plastics and chips.
    #[inline]
    pub fn cards(&self) -> impl Iterator<Item = Card> + use<'a> {
        let (cards, _) = self.record.facts();
        cards.iter().map(PackedFact::card).chain(self.spilled().iter().filter_map(Extra::card))
    }

    /// The categories that the holder has.
    #[inline]
    pub fn rights(&self) -> impl Iterator<Item = Right> + use<'a> {
        let (_, rights) = self.record.facts();
        rights.iter().map(PackedFact::right).chain(self.spilled().iter().filter_map(Extra::right))
    }

    /// Whether a check that named `card` may go on: the holder is in the programme and the card,
    /// where one was named, is active (catalogue §3.6, order 4).
    #[inline]
    pub fn is_active(&self, card: Option<u8>, today: Day) -> bool {
        let Some(card) = card else { return !self.is_closed() };
        let card = self.cards().nth(usize::from(card));
        !self.is_closed() && card.is_some_and(|card| card.is_active(today))
    }
}

/// An identifier, or a card or right that found no room in a record, in 18 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extra {
    /// A digest; of a card or right three numbers of 4 bytes.
    bytes: [u8; 16],
    /// That of an identifier, or one of the two below.
    kind: u8,
    /// The card of an identifier, or the state of a card.
    card: u8,
}

const KIND_CARD: u8 = 254;
const KIND_RIGHT: u8 = 255;
/// Stands for "leads to the holder, not to a card".
const NO_CARD: u8 = u8::MAX;

impl Extra {
    fn of_identifier(identifier: &HolderIdentifier) -> Extra {
        let card = identifier.card.unwrap_or(NO_CARD);
        Extra { bytes: identifier.digest.0, kind: identifier.kind as u8, card }
    }

    fn of_card(card: &Card) -> Extra {
        let bytes = bytes_of([0, card.issued.0, card.expires.0]);
        Extra { bytes, kind: KIND_CARD, card: card_state(card) }
    }

    fn of_right(right: &Right) -> Extra {
        let Validity { from, to } = right.validity;
        let bytes = bytes_of([right.category.0.cast_signed(), from.0, to.0]);
        Extra { bytes, kind: KIND_RIGHT, card: NO_CARD }
    }

    /// The keyed digest of an identifier.
    pub fn digest(&self) -> Digest {
        Digest(self.bytes)
    }

    fn is_identifier(&self) -> bool {
        !matches!(self.kind, KIND_CARD | KIND_RIGHT)
    }

    /// The identifier, unpacked; none of a card or right.
    pub fn identifier(&self) -> Option<HolderIdentifier> {
        let card = (self.card != NO_CARD).then_some(self.card);
        let kind = IdentifierKind::from_stored(self.kind)?;
        Some(HolderIdentifier { digest: self.digest(), kind, card })
    }

    fn card(&self) -> Option<Card> {
        let [_, issued, expires] = numbers_of(&self.bytes);
        (self.kind == KIND_CARD).then(|| card_of(self.card, Day(issued), Day(expires)))
    }

    fn right(&self) -> Option<Right> {
        let [category, from, to] = numbers_of(&self.bytes);
        let validity = Validity { from: Day(from), to: Day(to) };
        let right = Right { category: CategoryId(category.cast_unsigned()), validity };
        (self.kind == KIND_RIGHT).then_some(right)
    }
}

fn bytes_of(numbers: [i32; 3]) -> [u8; 16] {
    let [a, b, c] = numbers.map(|number| u128::from(number.cast_unsigned()));
    (a | b << 32 | c << 64).to_le_bytes()
}

fn numbers_of(bytes: &[u8; 16]) -> [i32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *bytes;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(i32::from_le_bytes)
}

/// What checks need of a holder, in one cache line: cards, then rights. Its extras begin where those
/// of the record before end.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Record {
    id: u64,
    extras_end: u16,
    region: u8,
    state: u8,
    card_count: u8,
    right_count: u8,
    facts: [PackedFact; INLINE_FACTS],
}

const INLINE_FACTS: usize = 8;
/// Bits of a record's state; an empty place has none.
const TAKEN: u8 = 1;
const CLOSED: u8 = 2;
const SPILLED: u8 = 4;

#[derive(Clone, Debug)]
struct Chunk {
    records: [Record; CHUNK_HOLDERS],
    extras: Vec<Extra>,
}

/// Entries by which a list grows.
const EXTRAS_STEP: usize = 8;

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk { records: [Record::default(); CHUNK_HOLDERS], extras: Vec::new() }
    }
}

impl Chunk {
    fn put(&mut self, at: usize, holder: Option<&Holder>) {
        if at >= CHUNK_HOLDERS {
            return;
        }
        let (mut record, extras) = holder.map(Record::of).unwrap_or_default();
        let (start, end) = (self.extras_start(at), self.extras_start(at + 1));
        let kept = self.extras.len().saturating_sub(range(start, end).len());
        let count = kept.saturating_add(extras.len());
        if count > self.extras.capacity() {
            let room = count.next_multiple_of(EXTRAS_STEP);
            self.extras.reserve_exact(room.saturating_sub(self.extras.len()));
        }
        let added = u16::try_from(extras.len()).unwrap_or(u16::MAX);
        self.extras.splice(range(start, end), extras);
        for known in self.records.iter_mut().skip(at) {
            known.extras_end =
                known.extras_end.saturating_sub(end).saturating_add(start).saturating_add(added);
        }
        if let Some(place) = self.records.get_mut(at) {
            record.extras_end = place.extras_end;
            *place = record;
        }
    }

    #[inline]
    fn view(&self, at: usize) -> Option<HolderView<'_>> {
        let record = self.records.get(at)?;
        (record.state != 0).then_some(HolderView { record, chunk: self, at })
    }

    fn extras_start(&self, at: usize) -> u16 {
        let before = at.checked_sub(1).and_then(|before| self.records.get(before));
        before.map_or(0, |record| record.extras_end)
    }
}

impl Record {
    /// The record of a holder, and what stands outside of it.
    fn of(holder: &Holder) -> (Record, Vec<Extra>) {
        let mut record = Record {
            id: holder.id.0,
            region: holder.region.0,
            state: TAKEN | if holder.closed { CLOSED } else { 0 },
            ..Record::default()
        };
        let mut places = record.facts.iter_mut();
        let card_count = fill(&mut places, holder.cards.iter().map_while(PackedFact::pack_card));
        let right_count = fill(&mut places, holder.rights.iter().map_while(PackedFact::pack_right));
        record.card_count = u8::try_from(card_count).unwrap_or_default();
        record.right_count = u8::try_from(right_count).unwrap_or_default();

        let cards = holder.cards.iter().skip(card_count).map(Extra::of_card);
        let rights = holder.rights.iter().skip(right_count).map(Extra::of_right);
        let identifiers = holder.identifiers.iter().map(Extra::of_identifier);
        let extras: Vec<Extra> = cards.chain(rights).chain(identifiers).collect();
        if extras.len() > holder.identifiers.len() {
            record.state |= SPILLED;
        }
        (record, extras)
    }

    /// The cards and the rights.
    #[inline]
    fn facts(&self) -> (&[PackedFact], &[PackedFact]) {
        let (cards, rest) = self.facts.split_at_checked(self.card_count.into()).unwrap_or_default();
        (cards, rest.get(..self.right_count.into()).unwrap_or_default())
    }
}

/// Puts as many facts as there is room for into `places`; returns how many.
fn fill(
    places: &mut std::slice::IterMut<'_, PackedFact>,
    facts: impl Iterator<Item = PackedFact>,
) -> usize {
    facts.zip(places).map(|(fact, place)| *place = fact).count()
}

#[inline]
fn range(start: u16, end: u16) -> std::ops::Range<usize> {
    usize::from(start)..usize::from(end)
}

/// The records of a chunk count entries in 16 bits.
const _: () = {
    use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
    let entries_max = CARDS_PER_HOLDER_MAX + RIGHTS_PER_HOLDER_MAX + IDENTIFIERS_PER_HOLDER_MAX;
    assert!(CHUNK_HOLDERS * entries_max <= u16::MAX as usize);
    assert!(CARDS_PER_HOLDER_MAX < NO_CARD as usize);
    assert!(size_of::<Record>() == 64);
    // The counters of an `Arc` take the line before it.
    assert!(size_of::<Chunk>() + align_of::<Chunk>() == 4_096);
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::holder::{CardKind, CardStatus};

    /// A holder whose lists have lengths derived from `id` and `version`.
    pub(crate) fn holder(id: u64, version: u64) -> Holder {
        let mix = id.wrapping_mul(31).wrapping_add(version.wrapping_mul(17));
        let count = |shift: u64| usize::try_from((mix >> shift) % 7).unwrap();
        let card = Card {
            kind: CardKind::Ecs,
            status: CardStatus::Active,
            issued: Day(1),
            expires: Day(i32::try_from(mix % 30_000).unwrap()),
        };
        let rights = (0..count(3)).map(|at| Right {
            category: CategoryId(u32::try_from(at).unwrap()),
            validity: Validity::UNLIMITED,
        });
        let identifiers = (0..count(1)).map(|at| {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&id.to_le_bytes());
            digest[8..]
                .copy_from_slice(&(u64::try_from(at).unwrap() << 32 | version).to_le_bytes());
            HolderIdentifier {
                digest: Digest(digest),
                kind: IdentifierKind::ClientCode,
                card: None,
            }
        });
        Holder {
            id: HolderId(id),
            region: RegionCode(14),
            closed: mix.is_multiple_of(7),
            cards: vec![card; count(2)],
            rights: rights.collect(),
            identifiers: identifiers.collect(),
        }
    }

    #[test]
    fn what_was_put_is_seen_and_old_tables_stay() {
        let mut table = Holders::default();
        let mut slots = Vec::new();
        for id in 0..5_000 {
            slots.push(table.next_slot());
            table.put(slots[slots.len() - 1], &holder(id, 0));
        }
        let slot = |index: u64| slots[usize::try_from(index).unwrap()];
        let before = table.clone();
        for id in (0..5_000).step_by(7) {
            table.put(slot(id), &holder(id, 1));
        }
        for id in (0..5_000).step_by(11) {
            table.clear(slot(id));
        }
        for id in 0..5_000 {
            assert_eq!(before.view(slot(id)).unwrap().to_holder(), holder(id, 0));
            let version = u64::from(id % 7 == 0);
            let expected = (id % 11 != 0).then(|| holder(id, version));
            assert_eq!(table.view(slot(id)).map(|view| view.to_holder()), expected);
        }
        assert!(table.view(Slot(u32::MAX)).is_none());
        assert_eq!(table.iter().count(), 5_000 - 5_000_usize.div_ceil(11));
    }
}
