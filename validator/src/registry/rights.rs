//! The rights of entries: lists that many entries share, kept once in a dictionary.

use engine::calendar::Day;
use engine::ids::{CategoryId, ServiceId};

use crate::registry::RegistryError;
use crate::registry::header::Fields;

/// Lists of a dictionary.
pub const LISTS_MAX: usize = 1 << 16;
/// Rights of a list.
pub const LIST_RIGHTS_MAX: usize = 4_096;

const COMPANION: u8 = 1;
const LIMITED: u8 = 2;
const OFFLINE: u8 = 4;

/// A right to a service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// To what.
    pub service: ServiceId,
    /// Through which category.
    pub category: CategoryId,
    /// The first date; [`Day::BEGINNING`] where it began before the registry did.
    pub valid_from: Day,
    /// The last date; [`Day::FOREVER`] where it does not end before the registry does.
    pub valid_to: Day,
    /// Size of the benefit, 0 to 100.
    pub discount_percent: u8,
    /// Whether a companion travels on the same right.
    pub companion: bool,
    /// Whether its uses are limited, which a device alone cannot count.
    pub limited: bool,
    /// Whether a device may grant it alone.
    pub offline: bool,
}

impl Right {
    /// Whether it gives `service` on `day`.
    pub fn covers(&self, service: ServiceId, day: Day) -> bool {
        self.service == service && self.valid_from <= day && day <= self.valid_to
    }

    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.service.0.to_le_bytes());
        out.extend_from_slice(&self.category.0.to_le_bytes());
        out.extend_from_slice(&self.valid_from.0.to_le_bytes());
        out.extend_from_slice(&self.valid_to.0.to_le_bytes());
        let flag = |bit, set: bool| if set { bit } else { 0 };
        let flags = flag(COMPANION, self.companion)
            | flag(LIMITED, self.limited)
            | flag(OFFLINE, self.offline);
        out.extend_from_slice(&[self.discount_percent, flags]);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Right, RegistryError> {
        let service = ServiceId(u32::from_le_bytes(fields.take()?));
        let category = CategoryId(u32::from_le_bytes(fields.take()?));
        let valid_from = Day(i32::from_le_bytes(fields.take()?));
        let valid_to = Day(i32::from_le_bytes(fields.take()?));
        let [discount_percent, flags] = fields.take()?;
        if discount_percent > 100 || flags > (COMPANION | LIMITED | OFFLINE) {
            return Err(RegistryError::Damaged("a right"));
        }
        let is = |bit| flags & bit != 0;
        let (companion, limited, offline) = (is(COMPANION), is(LIMITED), is(OFFLINE));
        Ok(Right {
            service,
            category,
            valid_from,
            valid_to,
            discount_percent,
            companion,
            limited,
            offline,
        })
    }
}

/// What a registry says of a card and a service on a date.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entitlement {
    /// The card is known and has no right to this service on this date.
    NoRight,
    /// It has this one. Where a device may not grant it alone, `offline` is false.
    Right(Right),
    /// Nobody entitled has this identifier.
    Unknown,
}

/// Which of `rights` wins: the first that a device may grant alone, else the first.
pub fn entitlement(rights: &[Right], service: ServiceId, day: Day) -> Entitlement {
    let covering = || rights.iter().filter(|right| right.covers(service, day));
    let best = covering().find(|right| right.offline).or_else(|| covering().next());
    best.map_or(Entitlement::NoRight, |right| Entitlement::Right(*right))
}

/// All lists of a registry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dictionary {
    lists: Vec<Box<[Right]>>,
}

impl Dictionary {
    /// The dictionary of these lists, in whatever order and however often they come.
    pub fn of(lists: impl IntoIterator<Item = Vec<Right>>) -> Result<Dictionary, RegistryError> {
        let mut lists: Vec<Box<[Right]>> = lists.into_iter().map(Vec::into_boxed_slice).collect();
        lists.sort_unstable();
        lists.dedup();
        let fits = |list: &[Right]| (1..=LIST_RIGHTS_MAX).contains(&list.len());
        if lists.len() > LISTS_MAX || !lists.iter().all(|list| fits(list)) {
            return Err(RegistryError::TooLarge);
        }
        Ok(Dictionary { lists })
    }

    /// Reads `count` lists, which are all of `bytes`.
    pub fn read(bytes: &[u8], count: u32) -> Result<Dictionary, RegistryError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // A list has a length at least, so this bounds the memory by the bytes that are there.
        if count > LISTS_MAX.min(bytes.len()) {
            return Err(RegistryError::Damaged("its dictionary"));
        }
        let mut fields = Fields { rest: bytes };
        let mut lists: Vec<Box<[Right]>> = Vec::with_capacity(count);
        for _ in 0..count {
            let length = u16::from_le_bytes(fields.take()?);
            let list = (0..length).map(|_| Right::read(&mut fields));
            let list = list.collect::<Result<Box<[Right]>, RegistryError>>()?;
            if list.is_empty() || lists.last().is_some_and(|last| *last >= list) {
                return Err(RegistryError::Damaged("its dictionary"));
            }
            lists.push(list);
        }
        if !fields.rest.is_empty() {
            return Err(RegistryError::Damaged("its dictionary"));
        }
        Ok(Dictionary { lists })
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for list in &self.lists {
            let length = u16::try_from(list.len()).unwrap_or(u16::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            list.iter().for_each(|right| right.push(&mut bytes));
        }
        bytes
    }

    /// The place of a list.
    pub fn place(&self, list: &[Right]) -> Option<u32> {
        let at = self.lists.binary_search_by(|known| (**known).cmp(list)).ok()?;
        u32::try_from(at).ok()
    }

    /// The list at a place.
    pub fn list(&self, place: u32) -> Option<&[Right]> {
        self.lists.get(usize::try_from(place).ok()?).map(|list| &**list)
    }

    /// How many lists there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.lists.len()).unwrap_or(u32::MAX)
    }
}
