//! Holders in memory: packed into chunks that are copied when they change.
//!
//! A table is a list of pages, a page a list of chunks, a chunk up to [`CHUNK_HOLDERS`] holders with
//! their cards, rights and identifiers behind each other. Cloning a table copies a short list of
//! pages; changing one holder afterwards copies one page and one chunk. So a published table never
//! changes, whoever writes a snapshot reads at leisure, and a change copies some kilobytes.
//!
//! # Why
//! A check touches the head of a holder, then cards and rights. Heads stand inside the chunk and the
//! rest in three arrays of it, so that a check waits for memory three times (index, head, rights)
//! and a holder with two cards, three rights and three identifiers takes about 130 bytes. A boxed
//! list per holder and kind was half as big again and one more wait.

use std::sync::Arc;

use crate::calendar::Day;
use crate::holder::{Card, Holder, HolderIdentifier, Right};
use crate::ids::{HolderId, RegionCode};
use crate::limits::{CHUNK_HOLDERS, PAGE_CHUNKS};

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
    /// Whose record this is.
    pub id: HolderId,
    /// Where the holder lives.
    pub region: RegionCode,
    /// Whether the holder is out of the programme.
    pub closed: bool,
    /// The plastics and chips.
    pub cards: &'a [Card],
    /// The categories that the holder has.
    pub rights: &'a [Right],
    /// Everything by which the holder is found.
    pub identifiers: &'a [PackedIdentifier],
}

impl HolderView<'_> {
    /// The holder, unpacked.
    pub fn to_holder(&self) -> Holder {
        Holder {
            id: self.id,
            region: self.region,
            closed: self.closed,
            cards: self.cards.to_vec(),
            rights: self.rights.to_vec(),
            identifiers: self.identifiers.iter().filter_map(PackedIdentifier::unpack).collect(),
        }
    }

    /// Whether a check that named `card` may go on: the holder is in the programme and the card,
    /// where one was named, is active (catalogue §3.6, order 4).
    #[inline]
    pub fn is_active(&self, card: Option<u8>, today: Day) -> bool {
        let Some(card) = card else { return !self.closed };
        let card = self.cards.get(usize::from(card));
        !self.closed && card.is_some_and(|card| card.is_active(today))
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

/// Where the lists of a holder end; they begin where those of the holder before it end.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    id: u64,
    cards_end: u16,
    rights_end: u16,
    identifiers_end: u16,
    region: u8,
    state: u8,
}

const EMPTY: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

#[derive(Clone, Debug, Default)]
struct Chunk {
    heads: [Head; CHUNK_HOLDERS],
    cards: Vec<Card>,
    rights: Vec<Right>,
    identifiers: Vec<PackedIdentifier>,
}

impl Chunk {
    fn put(&mut self, at: usize, holder: Option<&Holder>) {
        let (start, end) = (self.start(at), self.head(at));
        let cards = holder.map(|holder| holder.cards.as_slice()).unwrap_or_default();
        let rights = holder.map(|holder| holder.rights.as_slice()).unwrap_or_default();
        let identifiers = holder.map(|holder| holder.identifiers.as_slice()).unwrap_or_default();
        let identifiers = identifiers.iter().map(PackedIdentifier::pack);
        let range = |start: u16, end: u16| usize::from(start)..usize::from(end);
        self.cards.splice(range(start.cards_end, end.cards_end), cards.iter().copied());
        self.rights.splice(range(start.rights_end, end.rights_end), rights.iter().copied());
        self.identifiers.splice(range(start.identifiers_end, end.identifiers_end), identifiers);

        let moved = |old: u16, from: u16, to: u16, count: usize| {
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            old.saturating_sub(to).saturating_add(from).saturating_add(count)
        };
        for head in self.heads.iter_mut().skip(at) {
            head.cards_end = moved(head.cards_end, start.cards_end, end.cards_end, cards.len());
            head.rights_end =
                moved(head.rights_end, start.rights_end, end.rights_end, rights.len());
            head.identifiers_end = moved(
                head.identifiers_end,
                start.identifiers_end,
                end.identifiers_end,
                holder.map_or(0, |holder| holder.identifiers.len()),
            );
        }
        if let Some(head) = self.heads.get_mut(at) {
            head.id = holder.map_or(0, |holder| holder.id.0);
            head.region = holder.map_or(0, |holder| holder.region.0);
            head.state = match holder {
                None => EMPTY,
                Some(holder) if holder.closed => CLOSED,
                Some(_) => OPEN,
            };
        }
    }

    fn shrink(&mut self) {
        self.cards.shrink_to_fit();
        self.rights.shrink_to_fit();
        self.identifiers.shrink_to_fit();
    }

    #[inline]
    fn view(&self, at: usize) -> Option<HolderView<'_>> {
        let (start, end) = (self.start(at), self.heads.get(at)?);
        if end.state == EMPTY {
            return None;
        }
        let range = |start: u16, end: u16| usize::from(start)..usize::from(end);
        Some(HolderView {
            id: HolderId(end.id),
            region: RegionCode(end.region),
            closed: end.state == CLOSED,
            cards: self.cards.get(range(start.cards_end, end.cards_end))?,
            rights: self.rights.get(range(start.rights_end, end.rights_end))?,
            identifiers: self.identifiers.get(range(start.identifiers_end, end.identifiers_end))?,
        })
    }

    fn head(&self, at: usize) -> Head {
        self.heads.get(at).copied().unwrap_or_default()
    }

    #[inline]
    fn start(&self, at: usize) -> Head {
        at.checked_sub(1).map(|before| self.head(before)).unwrap_or_default()
    }
}

/// The heads of a chunk count entries in 16 bits.
const _: () = {
    use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
    assert!(CHUNK_HOLDERS * IDENTIFIERS_PER_HOLDER_MAX <= u16::MAX as usize);
    assert!(CHUNK_HOLDERS * CARDS_PER_HOLDER_MAX <= u16::MAX as usize);
    assert!(CHUNK_HOLDERS * RIGHTS_PER_HOLDER_MAX <= u16::MAX as usize);
    assert!(CARDS_PER_HOLDER_MAX < NO_CARD as usize);
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
        let count = |shift: u64| usize::try_from((mix >> shift) % 5).unwrap();
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
