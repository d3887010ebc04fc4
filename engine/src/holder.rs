//! A holder with cards, rights and identifiers: one line of a registry file, made canonical.

use crate::calendar::{Day, Validity};
use crate::identifier::{Digest, IdentifierKind};
use crate::ids::{CategoryId, HolderId, RegionCode};

/// A holder as imported, stored and handed around; in memory holders live packed, see
/// [`crate::registry::holders`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// Whose record this is.
    pub id: HolderId,
    /// Where the holder lives.
    pub region: RegionCode,
    /// Whether the holder is out of the programme.
    pub closed: bool,
    /// The plastics and chips.
    pub cards: Vec<Card>,
    /// The categories that the holder has.
    pub rights: Vec<Right>,
    /// Everything by which the holder or one of the cards is found; each digest once.
    pub identifiers: Vec<HolderIdentifier>,
}

impl Holder {
    /// The identifiers that a device may grant something to: those of cards that nobody has blocked
    /// or withdrawn, whatever the date; none of a holder who is out of the programme.
    pub fn usable_identifiers(&self) -> impl Iterator<Item = Digest> {
        let is_usable = |card: &Card| card.status == CardStatus::Active;
        let identifiers = self.identifiers.iter().filter(move |identifier| {
            let card = identifier.card.and_then(|card| self.cards.get(usize::from(card)));
            !self.closed && card.is_some_and(is_usable)
        });
        identifiers.map(|identifier| identifier.digest)
    }
}

/// One plastic or chip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Card {
    /// What it is.
    pub kind: CardKind,
    /// Whether it may be used.
    pub status: CardStatus,
    /// First date, information only.
    pub issued: Day,
    /// Last valid date.
    pub expires: Day,
}

impl Card {
    /// Whether the card may be used on `today`.
    pub fn is_active(&self, today: Day) -> bool {
        self.status == CardStatus::Active && today <= self.expires
    }
}

/// What a card is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CardKind {
    /// Card of the unified digital service (D0).
    Ecs,
    /// Unified social card of a bank (D3).
    EskBank,
    /// Unified social card without a bank account (D3).
    EskNonfin,
    /// Resident card (D2, D4): at most one active per holder.
    Resident,
    /// Social card (D0).
    Social,
    /// A card without plastic.
    Virtual,
}

/// Whether a card may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CardStatus {
    /// It may.
    Active,
    /// Blocked, and by whom.
    Blocked(BlockedBy),
    /// Gone for good.
    Closed,
    /// Another card took its place.
    Replaced,
}

/// Who blocked a card (C-34).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockedBy {
    /// The bank.
    Bank,
    /// The department.
    Department,
    /// The holder.
    Holder,
    /// This system.
    System,
}

/// A category that a holder has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Right {
    /// Which.
    pub category: CategoryId,
    /// On which dates.
    pub validity: Validity,
}

/// One way to find a holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HolderIdentifier {
    /// The keyed digest.
    pub digest: Digest,
    /// What was digested.
    pub kind: IdentifierKind,
    /// The position among the holder's cards, or none where it leads to the holder as such.
    pub card: Option<u8>,
}
