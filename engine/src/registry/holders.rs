//! Holders in memory: packed into chunks that are copied when they change.
//!
//! A table is a list of pages, a page a list of chunks, a chunk up to [`CHUNK_HOLDERS`] holders with
//! their cards, rights and identifiers behind each other. Cloning a table copies a short list of
//! pages; changing one holder afterwards copies one page and one chunk. So a published table never
//! changes, whoever writes a snapshot reads at leisure, and a change copies some kilobytes.
//!
//! # Why
//! A check waits for memory, not for the processor: each line that it touches among a million
//! holders costs 100 to 200 ns with the page walk. So all that a check needs of an ordinary holder
//! (up to four cards and four rights) stands in one [`Record`] of 64 bytes, and a check waits twice:
//! for the index and for the record. Records that pointed to lists of cards and rights elsewhere
//! made the whole decision half as slow again; the rare holder that does not fit still has them.
//! Identifiers, which checks do not need, stand in another list.

use std::sync::Arc;

use crate::calendar::Day;
use crate::holder::{Card, Holder, HolderIdentifier, Right};
use crate::ids::{HolderId, RegionCode};
use crate::limits::{CHUNK_HOLDERS, PAGE_CHUNKS};
use crate::registry::packed::{PackedCard, PackedDay, PackedRight};

const PAGE_HOLDERS: usize = CHUNK_HOLDERS * PAGE_CHUNKS;

/// The place of a holder in the table; stable while the holder exists.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u32);

impl Slot {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
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
    /// Puts a holder into `slot`, which is at most [`Holders::slot_count`].
    pub fn put(&mut self, slot: Slot, holder: &Holder) {
        self.slot_count = self.slot_count.max(slot.index().saturating_add(1));
        if let Some(chunk) = self.chunk_mut(slot) {
            chunk.put(slot.index() % CHUNK_HOLDERS, Some(holder));
        }
    }

    /// Empties `slot`.
    pub fn clear(&mut self, slot: Slot) {
        if let Some(chunk) = self.chunk_mut(slot) {
            chunk.put(slot.index() % CHUNK_HOLDERS, None);
        }
    }

    /// Gives back memory that growing left over; worth it after many changes.
    pub fn shrink(&mut self) {
        for page in &mut self.pages {
            let Some(chunks) = Arc::get_mut(page) else { continue };
            chunks.iter_mut().filter_map(Arc::get_mut).for_each(Chunk::shrink);
        }
        self.pages.shrink_to_fit();
    }

    /// The holder in `slot`.
    #[inline]
    pub fn view(&self, slot: Slot) -> Option<HolderView<'_>> {
        let index = slot.index();
        let page = self.pages.get(index / PAGE_HOLDERS)?;
        let chunk = page.get(index % PAGE_HOLDERS / CHUNK_HOLDERS)?;
        chunk.view(index % CHUNK_HOLDERS)
    }

    /// One more than the highest slot ever used.
    pub fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// All slots that hold somebody.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, HolderView<'_>)> {
        let slots = (0..self.slot_count).map(Slot::from_index);
        slots.filter_map(|slot| Some((slot, self.view(slot)?)))
    }

    fn chunk_mut(&mut self, slot: Slot) -> Option<&mut Chunk> {
        let page = slot.index() / PAGE_HOLDERS;
        while self.pages.len() <= page {
            let empty = Arc::new(Chunk::default());
            self.pages.push(std::iter::repeat_n(empty, PAGE_CHUNKS).collect());
        }
        let page = Arc::make_mut(self.pages.get_mut(page)?);
        let chunk = page.get_mut(slot.index() % PAGE_HOLDERS / CHUNK_HOLDERS)?;
        Some(Arc::make_mut(chunk))
    }
}

/// A holder, read in place.
#[derive(Clone, Copy, Debug)]
pub struct HolderView<'a> {
    record: &'a Record,
    spilled: &'a [Fact],
    /// Everything by which the holder is found.
    pub identifiers: &'a [PackedIdentifier],
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
            identifiers: self.identifiers.iter().filter_map(PackedIdentifier::unpack).collect(),
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
        self.record.state == CLOSED
    }

    /// The plastics and chips.
    #[inline]
    pub fn cards(&self) -> impl Iterator<Item = Card> + use<'a> {
        let inline = self.record.cards.iter().take(usize::from(self.record.inline_cards));
        let spilled = self.spilled.iter().filter_map(Fact::card);
        inline.map(PackedCard::unpack).chain(spilled)
    }

    /// The categories that the holder has.
    #[inline]
    pub fn rights(&self) -> impl Iterator<Item = Right> + use<'a> {
        let inline = self.record.rights.iter().take(usize::from(self.record.inline_rights));
        let spilled = self.spilled.iter().filter_map(Fact::right);
        inline.map(PackedRight::unpack).chain(spilled)
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

/// An identifier in 18 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PackedIdentifier {
    digest: crate::identifier::Digest,
    kind: u8,
    card: u8,
}

/// Stands for "leads to the holder, not to a card".
const NO_CARD: u8 = u8::MAX;

impl PackedIdentifier {
    fn pack(identifier: &HolderIdentifier) -> PackedIdentifier {
        let kind = identifier.kind as u8;
        PackedIdentifier {
            digest: identifier.digest,
            kind,
            card: identifier.card.unwrap_or(NO_CARD),
        }
    }

    /// The identifier as it was given.
    pub fn unpack(&self) -> Option<HolderIdentifier> {
        Some(HolderIdentifier {
            digest: self.digest,
            kind: crate::identifier::IdentifierKind::from_stored(self.kind)?,
            card: self.card(),
        })
    }

    /// The keyed digest.
    pub fn digest(&self) -> &crate::identifier::Digest {
        &self.digest
    }

    /// The position among the holder's cards, or none where it leads to the holder as such.
    pub fn card(&self) -> Option<u8> {
        (self.card != NO_CARD).then_some(self.card)
    }
}

/// What checks need of a holder, in 64 bytes. Spilled facts and identifiers begin where those of
/// the record before end.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    id: u64,
    spilled_end: u16,
    identifiers_end: u16,
    region: u8,
    state: u8,
    inline_cards: u8,
    inline_rights: u8,
    cards: [PackedCard; INLINE_FACTS],
    rights: [PackedRight; INLINE_FACTS],
}

const INLINE_FACTS: usize = 4;
const EMPTY: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

#[derive(Clone, Debug)]
struct Chunk {
    records: [Record; CHUNK_HOLDERS],
    spilled: Vec<Fact>,
    identifiers: Vec<PackedIdentifier>,
}

impl Chunk {
    fn put(&mut self, at: usize, holder: Option<&Holder>) {
        let (start, end) = (self.start(at), self.record(at));
        let mut record = holder.map(Record::of).unwrap_or_default();
        let spilled = holder.map(|holder| record.left_out(holder)).unwrap_or_default();
        let identifiers = holder.map(|holder| holder.identifiers.as_slice()).unwrap_or_default();
        let spilled_count = spilled.len();
        self.spilled.splice(range(start.spilled_end, end.spilled_end), spilled);
        let replaced = range(start.identifiers_end, end.identifiers_end);
        self.identifiers.splice(replaced, identifiers.iter().map(PackedIdentifier::pack));

        let moved = |old: u16, from: u16, to: u16, count: usize| {
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            old.saturating_sub(to).saturating_add(from).saturating_add(count)
        };
        for known in self.records.iter_mut().skip(at) {
            let (from, to) = (start.spilled_end, end.spilled_end);
            known.spilled_end = moved(known.spilled_end, from, to, spilled_count);
            let (from, to) = (start.identifiers_end, end.identifiers_end);
            known.identifiers_end = moved(known.identifiers_end, from, to, identifiers.len());
        }
        if let Some(place) = self.records.get_mut(at) {
            record.spilled_end = place.spilled_end;
            record.identifiers_end = place.identifiers_end;
            *place = record;
        }
    }

    /// Copies lists that have room to spare: an allocator that is asked to shrink one leaves it where
    /// it is, with its room.
    fn shrink(&mut self) {
        if self.spilled.capacity() > self.spilled.len() {
            self.spilled = self.spilled.to_vec();
        }
        if self.identifiers.capacity() > self.identifiers.len() {
            self.identifiers = self.identifiers.to_vec();
        }
    }

    #[inline]
    fn view(&self, at: usize) -> Option<HolderView<'_>> {
        let record = self.records.get(at)?;
        if record.state == EMPTY {
            return None;
        }
        let start = match at.checked_sub(1) {
            Some(before) => self.records.get(before)?,
            None => &Record::BLANK,
        };
        let spilled = range(start.spilled_end, record.spilled_end);
        let identifiers = range(start.identifiers_end, record.identifiers_end);
        Some(HolderView {
            record,
            spilled: self.spilled.get(spilled)?,
            identifiers: self.identifiers.get(identifiers)?,
        })
    }

    fn record(&self, at: usize) -> Record {
        self.records.get(at).copied().unwrap_or_default()
    }

    fn start(&self, at: usize) -> Record {
        at.checked_sub(1).map(|before| self.record(before)).unwrap_or_default()
    }
}

impl Default for Chunk {
    fn default() -> Chunk {
        let records = [Record::BLANK; CHUNK_HOLDERS];
        Chunk { records, spilled: Vec::new(), identifiers: Vec::new() }
    }
}

impl Record {
    const BLANK: Record = Record {
        id: 0,
        spilled_end: 0,
        identifiers_end: 0,
        region: 0,
        state: EMPTY,
        inline_cards: 0,
        inline_rights: 0,
        cards: [PackedCard { state: 0, issued: PackedDay(0), expires: PackedDay(0) }; INLINE_FACTS],
        rights: [PackedRight { category: 0, from: PackedDay(0), to: PackedDay(0) }; INLINE_FACTS],
    };

    /// The record with the first cards and rights, as many as there is room for up to the first
    /// that cannot be packed.
    fn of(holder: &Holder) -> Record {
        let mut record = Record {
            id: holder.id.0,
            region: holder.region.0,
            state: if holder.closed { CLOSED } else { OPEN },
            ..Record::default()
        };
        let cards = holder.cards.iter().map_while(PackedCard::pack);
        for (place, card) in record.cards.iter_mut().zip(cards) {
            *place = card;
            record.inline_cards += 1;
        }
        let rights = holder.rights.iter().map_while(PackedRight::pack);
        for (place, right) in record.rights.iter_mut().zip(rights) {
            *place = right;
            record.inline_rights += 1;
        }
        record
    }

    /// The cards and rights of the holder that did not get into its record.
    fn left_out(&self, holder: &Holder) -> Vec<Fact> {
        let cards = holder.cards.iter().skip(usize::from(self.inline_cards));
        let rights = holder.rights.iter().skip(usize::from(self.inline_rights));
        cards.copied().map(Fact::Card).chain(rights.copied().map(Fact::Right)).collect()
    }
}

/// A card or a right that found no room in a record.
#[derive(Clone, Copy, Debug)]
enum Fact {
    Card(Card),
    Right(Right),
}

impl Fact {
    fn card(&self) -> Option<Card> {
        if let Fact::Card(card) = self { Some(*card) } else { None }
    }

    fn right(&self) -> Option<Right> {
        if let Fact::Right(right) = self { Some(*right) } else { None }
    }
}

#[inline]
fn range(start: u16, end: u16) -> std::ops::Range<usize> {
    usize::from(start)..usize::from(end)
}

/// The records of a chunk count entries in 16 bits.
const _: () = {
    use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
    assert!(CHUNK_HOLDERS * IDENTIFIERS_PER_HOLDER_MAX <= u16::MAX as usize);
    assert!(CHUNK_HOLDERS * (CARDS_PER_HOLDER_MAX + RIGHTS_PER_HOLDER_MAX) <= u16::MAX as usize);
    assert!(CARDS_PER_HOLDER_MAX < NO_CARD as usize);
    assert!(size_of::<Record>() == 64);
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::calendar::Validity;
    use crate::holder::{CardKind, CardStatus};
    use crate::identifier::{Digest, IdentifierKind};
    use crate::ids::CategoryId;

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
        let slot = |index: u64| Slot(u32::try_from(index).unwrap());
        for id in 0..5_000 {
            table.put(slot(id), &holder(id, 0));
        }
        let before = table.clone();
        for id in (0..5_000).step_by(7) {
            table.put(slot(id), &holder(id, 1));
        }
        for id in (0..5_000).step_by(11) {
            table.clear(slot(id));
        }
        table.shrink();
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
