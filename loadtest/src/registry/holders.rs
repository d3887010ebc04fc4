//! Holders in little memory: flat lists, identifiers inside, dates in two bytes.

use crate::calendar::{Day, Validity};
use crate::registry::directory::{Directory, FieldError, validity};
use crate::registry::line::HolderLine;
use crate::request::Identifier;

/// Bytes of the longest identifier: a social card's number and series.
const TEXT_BYTES: usize = 27;
const NUMBER_BYTES: usize = 19;
const SNILS_BYTES: usize = 11;

/// The sampled holders.
#[derive(Clone, Default)]
pub struct Holders {
    holders: Vec<Holder>,
    cards: Vec<Card>,
    rights: Vec<Right>,
}

/// A holder; no `Debug`, because an identifier is personal.
#[derive(Clone, Copy)]
pub struct Holder {
    /// The id that the server answers.
    pub id: u64,
    first_card: u32,
    first_right: u32,
    snils: [u8; SNILS_BYTES],
    is_closed: bool,
}

/// A card that a check can name.
#[derive(Clone, Copy)]
pub struct Card {
    text: [u8; TEXT_BYTES],
    length: u8,
    kind: CardKind,
    is_active: bool,
    expires: PackedDay,
}

/// What a check names the card by, and what the card is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CardKind {
    /// A client code.
    Code,
    /// A client code on a social card.
    SocialCode,
    /// Number and series.
    SocialNumber,
}

/// A category of a holder.
#[derive(Clone, Copy)]
struct Right {
    category: u16,
    from: PackedDay,
    to: PackedDay,
}

/// Days since 1970 from 1 to 65,534, which is in 2149; the two others are the ends of time. No run
/// takes place outside, so nothing is lost.
#[derive(Clone, Copy)]
struct PackedDay(u16);

impl PackedDay {
    fn pack(day: Day) -> PackedDay {
        PackedDay(u16::try_from(day.0.max(0)).unwrap_or(u16::MAX))
    }

    fn day(self) -> Day {
        match self.0 {
            0 => Day::BEGINNING,
            u16::MAX => Day::FOREVER,
            day => Day(i32::from(day)),
        }
    }
}

impl Holders {
    /// Room for so many.
    pub fn with_capacity(count: usize) -> Holders {
        Holders { holders: Vec::with_capacity(count), ..Holders::default() }
    }

    /// Takes a holder; categories that the directory does not know are left out.
    pub(crate) fn push(
        &mut self,
        line: &HolderLine<'_>,
        directory: &Directory,
    ) -> Result<(), FieldError> {
        let place = |count: usize| u32::try_from(count).map_err(|_| FieldError("id"));
        let holder = Holder {
            id: line.id,
            first_card: place(self.cards.len())?,
            first_right: place(self.rights.len())?,
            snils: snils(line.snils.as_deref())?,
            is_closed: line.status.as_deref() == Some("closed"),
        };
        for card in line.cards.iter().flatten() {
            let expires = card.expires.as_deref().map_or(Some(Day::FOREVER), Day::parse);
            let expires = PackedDay::pack(expires.ok_or(FieldError("expires"))?);
            let is_active = card.status.as_deref().is_none_or(|status| status == "active");
            let mut push = |text: &[&str], kind| {
                let packed = pack(text).map(|(text, length)| Card {
                    text,
                    length,
                    kind,
                    is_active,
                    expires,
                });
                // A code with too many letters beyond ASCII is never asked for.
                self.cards.extend(packed);
            };
            if let Some(code) = card.client_code.as_deref() {
                let social = card.card_type == "social";
                push(&[code], if social { CardKind::SocialCode } else { CardKind::Code });
            }
            if let (Some(number), Some(series)) = (card.number.as_deref(), card.series.as_deref()) {
                if number.len() != NUMBER_BYTES {
                    return Err(FieldError("number"));
                }
                push(&[number, series], CardKind::SocialNumber);
            }
        }
        for right in line.categories.iter().flatten() {
            let Validity { from, to } =
                validity(right.valid_from.as_deref(), right.valid_to.as_deref())?;
            if let Some(category) = directory.category(right.category) {
                let (from, to) = (PackedDay::pack(from), PackedDay::pack(to));
                self.rights.push(Right { category, from, to });
            }
        }
        self.holders.push(holder);
        Ok(())
    }

    /// Gives back what was reserved and not needed.
    pub fn shrink(&mut self) {
        self.holders.shrink_to_fit();
        self.cards.shrink_to_fit();
        self.rights.shrink_to_fit();
    }

    /// Takes a holder out of the sample: nothing of it is ever asked for again.
    pub fn forget(&mut self, id: u64) {
        for place in 0..self.holders.len() {
            if self.holders.get(place).is_some_and(|holder| holder.id == id) {
                let cards = self.card_range(place);
                self.cards.get_mut(cards).into_iter().flatten().for_each(|card| card.length = 0);
                if let Some(holder) = self.holders.get_mut(place) {
                    holder.snils = [0; SNILS_BYTES];
                }
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// A holder by its place.
    pub fn holder(&self, place: u32) -> Option<&Holder> {
        self.holders.get(usize::try_from(place).ok()?)
    }

    /// The places of a holder's cards.
    pub fn cards_of(&self, place: u32) -> impl Iterator<Item = u32> + '_ {
        let range = usize::try_from(place).map(|place| self.card_range(place)).unwrap_or_default();
        let places = range.filter_map(|card| u32::try_from(card).ok());
        places.filter(|card| self.card(*card).is_some_and(|card| card.length > 0))
    }

    /// A card by its place.
    pub fn card(&self, place: u32) -> Option<&Card> {
        self.cards.get(usize::try_from(place).ok()?)
    }

    /// Whether a holder has a category on a date.
    pub fn has(&self, place: u32, category: u16, day: Day) -> bool {
        let Ok(place) = usize::try_from(place) else { return false };
        let first = |holder: &Holder| usize::try_from(holder.first_right).ok();
        let begin = self.holders.get(place).and_then(first).unwrap_or_default();
        let end = self.holders.get(place + 1).and_then(first).unwrap_or(self.rights.len());
        let rights = self.rights.get(begin..end).unwrap_or_default();
        rights.iter().any(|right| {
            right.category == category && right.from.day() <= day && day <= right.to.day()
        })
    }

    fn card_range(&self, place: usize) -> std::ops::Range<usize> {
        let first = |holder: &Holder| usize::try_from(holder.first_card).ok();
        let begin = self.holders.get(place).and_then(first).unwrap_or_default();
        let end = self.holders.get(place + 1).and_then(first).unwrap_or(self.cards.len());
        begin..end
    }
}

impl Holder {
    /// The insurance number, if there is one.
    pub fn snils(&self) -> Option<&str> {
        let is_given = self.snils.first().is_some_and(|digit| *digit != 0);
        is_given.then(|| std::str::from_utf8(&self.snils).ok())?
    }

    /// Whether the holder is out of the programme.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl Card {
    /// A client code that stands in no registry.
    pub fn stranger_code(code: &str) -> Option<Card> {
        Card::stranger(&[code], CardKind::Code)
    }

    /// A social card that stands in no registry.
    pub fn stranger_card(number: &str, series: &str) -> Option<Card> {
        Card::stranger(&[number, series], CardKind::SocialNumber)
    }

    fn stranger(text: &[&str], kind: CardKind) -> Option<Card> {
        let (text, length) = pack(text)?;
        Some(Card { text, length, kind, is_active: false, expires: PackedDay(0) })
    }

    /// What it is.
    pub fn kind(&self) -> CardKind {
        self.kind
    }

    /// Whether it may be used on a date.
    pub fn is_active(&self, day: Day) -> bool {
        self.is_active && day <= self.expires.day()
    }

    /// What a check names it by.
    pub fn identifier(&self) -> Identifier<'_> {
        let bytes = self.text.get(..usize::from(self.length)).unwrap_or_default();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        match self.kind {
            CardKind::Code | CardKind::SocialCode => Identifier::ClientCode(text),
            CardKind::SocialNumber => {
                let (number, series) = text.split_at_checked(NUMBER_BYTES).unwrap_or_default();
                Identifier::SocialCard(number, series)
            }
        }
    }
}

fn pack(parts: &[&str]) -> Option<([u8; TEXT_BYTES], u8)> {
    let mut text = [0; TEXT_BYTES];
    let mut length = 0;
    for part in parts {
        text.get_mut(length..length + part.len())?.copy_from_slice(part.as_bytes());
        length += part.len();
    }
    Some((text, u8::try_from(length).ok()?))
}

/// The eleven digits of an insurance number, which people also write with hyphens and spaces.
fn snils(written: Option<&str>) -> Result<[u8; SNILS_BYTES], FieldError> {
    let mut digits = [0; SNILS_BYTES];
    let Some(written) = written else { return Ok(digits) };
    let mut given = written.bytes().filter(|byte| !matches!(byte, b' ' | b'-'));
    for digit in &mut digits {
        *digit = given.next().filter(u8::is_ascii_digit).ok_or(FieldError("snils"))?;
    }
    if given.next().is_some() { Err(FieldError("snils")) } else { Ok(digits) }
}
