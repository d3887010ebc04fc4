//! Cards and rights in six bytes each, where their dates and numbers allow it.

use crate::calendar::{Day, Validity};
use crate::holder::{BlockedBy, Card, CardKind, CardStatus, Right};
use crate::ids::CategoryId;

/// A date between 1950 and 2129, or one of the two unlimited ones.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PackedDay(pub u16);

/// 1949-12-31, so that 1950-01-01 is 1.
const DAY_ZERO: i32 = -7_306;

impl PackedDay {
    /// The date, if it can be packed.
    pub fn pack(day: Day) -> Option<PackedDay> {
        match day {
            Day::BEGINNING => Some(PackedDay(0)),
            Day::FOREVER => Some(PackedDay(u16::MAX)),
            Day(day) => {
                let packed = u16::try_from(day.checked_sub(DAY_ZERO)?).ok()?;
                (packed != 0 && packed != u16::MAX).then_some(PackedDay(packed))
            }
        }
    }

    /// The date.
    #[inline]
    pub fn unpack(self) -> Day {
        match self.0 {
            0 => Day::BEGINNING,
            u16::MAX => Day::FOREVER,
            packed => Day(i32::from(packed) + DAY_ZERO),
        }
    }
}

/// A card or a right in six bytes; which of the two, whoever keeps it knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PackedFact {
    /// The state of a card or the category of a right.
    word: u16,
    first: PackedDay,
    last: PackedDay,
}

impl PackedFact {
    /// A card, if its dates can be packed.
    pub fn pack_card(card: &Card) -> Option<PackedFact> {
        let (first, last) = (PackedDay::pack(card.issued)?, PackedDay::pack(card.expires)?);
        Some(PackedFact { word: card_state(card).into(), first, last })
    }

    /// A right, if its category and dates can be packed.
    pub fn pack_right(right: &Right) -> Option<PackedFact> {
        let Validity { from, to } = right.validity;
        let word = u16::try_from(right.category.0).ok()?;
        Some(PackedFact { word, first: PackedDay::pack(from)?, last: PackedDay::pack(to)? })
    }

    /// The card.
    #[inline]
    pub fn card(&self) -> Card {
        let [state, _] = self.word.to_le_bytes();
        card_of(state, self.first.unpack(), self.last.unpack())
    }

    /// The right.
    #[inline]
    pub fn right(&self) -> Right {
        let validity = Validity { from: self.first.unpack(), to: self.last.unpack() };
        Right { category: CategoryId(self.word.into()), validity }
    }
}

/// Kind and status of a card in one byte: the kind in the high four bits, the status in the low ones.
pub fn card_state(card: &Card) -> u8 {
    let kind = match card.kind {
        CardKind::Ecs => 0,
        CardKind::EskBank => 1,
        CardKind::EskNonfin => 2,
        CardKind::Resident => 3,
        CardKind::Social => 4,
        CardKind::Virtual => 5,
    };
    let status = match card.status {
        CardStatus::Active => 0,
        CardStatus::Closed => 1,
        CardStatus::Replaced => 2,
        CardStatus::Blocked(BlockedBy::Bank) => 3,
        CardStatus::Blocked(BlockedBy::Department) => 4,
        CardStatus::Blocked(BlockedBy::Holder) => 5,
        CardStatus::Blocked(BlockedBy::System) => 6,
    };
    kind << 4 | status
}

/// The card with this [`card_state`].
#[inline]
pub fn card_of(state: u8, issued: Day, expires: Day) -> Card {
    let kind = match state >> 4 {
        0 => CardKind::Ecs,
        1 => CardKind::EskBank,
        2 => CardKind::EskNonfin,
        3 => CardKind::Resident,
        4 => CardKind::Social,
        _ => CardKind::Virtual,
    };
    let status = match state & 0xf {
        0 => CardStatus::Active,
        1 => CardStatus::Closed,
        2 => CardStatus::Replaced,
        3 => CardStatus::Blocked(BlockedBy::Bank),
        4 => CardStatus::Blocked(BlockedBy::Department),
        5 => CardStatus::Blocked(BlockedBy::Holder),
        _ => CardStatus::Blocked(BlockedBy::System),
    };
    Card { kind, status, issued, expires }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packs_unpacks_the_same() {
        for day in (-8_000..60_000).chain([i32::MIN, i32::MAX, i32::MIN + 1, i32::MAX - 1]) {
            if let Some(packed) = PackedDay::pack(Day(day)) {
                assert_eq!(packed.unpack(), Day(day));
            }
        }
        assert_eq!(PackedDay::pack(Day::parse("1950-01-01").unwrap()), Some(PackedDay(1)));
        assert_eq!(PackedDay::pack(Day::parse("1949-12-31").unwrap()), None);
        assert_eq!(PackedDay::pack(Day::parse("2129-06-05").unwrap()), None);
        assert!(PackedDay::pack(Day::parse("2129-06-04").unwrap()).is_some());
    }
}
