//! The stored form of a holder: a fixed layout with little-endian numbers.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | number of this layout |
//! | 8 | id |
//! | 1 | region code |
//! | 1 | 1 if closed, else 0 |
//! | 1, 1, 2 | counts of cards, rights and identifiers |
//! | 10 per card | kind, status, first day, last day |
//! | 12 per right | category, first day, last day |
//! | 18 per identifier | kind, position of the card or 255, digest |
//!
//! A status is 0 for active, 1 for closed, 2 for replaced, and 2 + the number of who blocked it. The
//! layout tells its own length, so holders can stand one behind the other.
//!
//! # Why
//! Holders come by the million and a snapshot is mostly made of them. Nested MessagePack tuples take
//! several times as long to read and are hardly shorter: most of the bytes are digests.

use crate::calendar::{Day, Validity};
use crate::holder::{BlockedBy, Card, CardKind, CardStatus, Holder, HolderIdentifier, Right};
use crate::identifier::{Digest, IdentifierKind};
use crate::ids::{CategoryId, HolderId, RegionCode};
use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
use crate::registry::stored::StoredChangeError;
use crate::registry::stored::number::Numbered;

/// The layout that is written now; a changed one gets a new number and this one stays readable.
const LAYOUT: u8 = 1;
const HEAD_BYTES: usize = 15;
const CARD_BYTES: usize = 10;
const RIGHT_BYTES: usize = 12;
const IDENTIFIER_BYTES: usize = 18;
/// In the place of a card's position: the identifier leads to the holder as such.
const NO_CARD: u8 = u8::MAX;

const _: () = assert!(CARDS_PER_HOLDER_MAX < NO_CARD as usize);
const _: () = assert!(RIGHTS_PER_HOLDER_MAX <= u8::MAX as usize);
const _: () = assert!(IDENTIFIERS_PER_HOLDER_MAX <= u16::MAX as usize);

/// Appends the stored form of a holder that keeps the limits of its lists.
pub fn write_holder(holder: &Holder, out: &mut Vec<u8>) {
    let cards = within(&holder.cards, CARDS_PER_HOLDER_MAX);
    let rights = within(&holder.rights, RIGHTS_PER_HOLDER_MAX);
    let identifiers = within(&holder.identifiers, IDENTIFIERS_PER_HOLDER_MAX);
    out.reserve(
        HEAD_BYTES
            + cards.len() * CARD_BYTES
            + rights.len() * RIGHT_BYTES
            + identifiers.len() * IDENTIFIER_BYTES,
    );
    out.push(LAYOUT);
    out.extend_from_slice(&holder.id.0.to_le_bytes());
    out.extend_from_slice(&[holder.region.0, u8::from(holder.closed)]);
    out.push(u8::try_from(cards.len()).unwrap_or(u8::MAX));
    out.push(u8::try_from(rights.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&u16::try_from(identifiers.len()).unwrap_or(u16::MAX).to_le_bytes());
    for card in cards {
        out.extend_from_slice(&[card.kind.number(), status_number(card.status)]);
        out.extend_from_slice(&card.issued.0.to_le_bytes());
        out.extend_from_slice(&card.expires.0.to_le_bytes());
    }
    for right in rights {
        out.extend_from_slice(&right.category.0.to_le_bytes());
        out.extend_from_slice(&right.validity.from.0.to_le_bytes());
        out.extend_from_slice(&right.validity.to.0.to_le_bytes());
    }
    for identifier in identifiers {
        out.extend_from_slice(&[identifier.kind as u8, identifier.card.unwrap_or(NO_CARD)]);
        out.extend_from_slice(&identifier.digest.0);
    }
}

/// Reads one holder from the beginning of `bytes` and leaves there what follows it.
pub fn read_holder(bytes: &mut &[u8]) -> Result<Holder, StoredChangeError> {
    let [layout] = take(bytes)?;
    if layout != LAYOUT {
        return Err(StoredChangeError::UnknownLayout(layout));
    }
    let id = HolderId(u64::from_le_bytes(take(bytes)?));
    let [region, closed, card_count, right_count] = take(bytes)?;
    let identifier_count = u16::from_le_bytes(take(bytes)?);
    let within_limits = usize::from(card_count) <= CARDS_PER_HOLDER_MAX
        && usize::from(right_count) <= RIGHTS_PER_HOLDER_MAX
        && usize::from(identifier_count) <= IDENTIFIERS_PER_HOLDER_MAX;
    if !within_limits || closed > 1 {
        return Err(StoredChangeError::Holder);
    }
    let mut cards = Vec::with_capacity(usize::from(card_count));
    for _ in 0..card_count {
        cards.push(read_card(bytes)?);
    }
    let mut rights = Vec::with_capacity(usize::from(right_count));
    for _ in 0..right_count {
        let category = CategoryId(u32::from_le_bytes(take(bytes)?));
        let (from, to) = (read_day(bytes)?, read_day(bytes)?);
        rights.push(Right { category, validity: Validity { from, to } });
    }
    let mut identifiers = Vec::with_capacity(usize::from(identifier_count));
    for _ in 0..identifier_count {
        identifiers.push(read_identifier(bytes, card_count)?);
    }
    let (region, closed) = (RegionCode(region), closed == 1);
    Ok(Holder { id, region, closed, cards, rights, identifiers })
}

fn read_card(bytes: &mut &[u8]) -> Result<Card, StoredChangeError> {
    let [kind, status] = take(bytes)?;
    Ok(Card {
        kind: CardKind::from_number(kind).ok_or(StoredChangeError::Holder)?,
        status: status_from_number(status).ok_or(StoredChangeError::Holder)?,
        issued: read_day(bytes)?,
        expires: read_day(bytes)?,
    })
}

fn read_identifier(
    bytes: &mut &[u8],
    card_count: u8,
) -> Result<HolderIdentifier, StoredChangeError> {
    let [kind, card] = take(bytes)?;
    if card != NO_CARD && card >= card_count {
        return Err(StoredChangeError::Holder);
    }
    Ok(HolderIdentifier {
        kind: IdentifierKind::from_stored(kind).ok_or(StoredChangeError::Holder)?,
        card: (card != NO_CARD).then_some(card),
        digest: Digest(take(bytes)?),
    })
}

fn read_day(bytes: &mut &[u8]) -> Result<Day, StoredChangeError> {
    Ok(Day(i32::from_le_bytes(take(bytes)?)))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StoredChangeError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(StoredChangeError::Cut)?;
    *bytes = rest;
    Ok(*head)
}

fn status_number(status: CardStatus) -> u8 {
    match status {
        CardStatus::Active => 0,
        CardStatus::Closed => 1,
        CardStatus::Replaced => 2,
        CardStatus::Blocked(by) => 2 + by.number(),
    }
}

fn status_from_number(number: u8) -> Option<CardStatus> {
    match number {
        0 => Some(CardStatus::Active),
        1 => Some(CardStatus::Closed),
        2 => Some(CardStatus::Replaced),
        blocked => BlockedBy::from_number(blocked - 2).map(CardStatus::Blocked),
    }
}

/// The list, which parsing has kept within `length_max`; the rest of a longer one has no place.
fn within<T>(list: &[T], length_max: usize) -> &[T] {
    debug_assert!(list.len() <= length_max, "a list of a holder past its limit");
    list.get(..length_max).unwrap_or(list)
}
