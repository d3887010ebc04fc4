//! Everybody who may be entitled: identifiers of cards, each with the class of its rights.
//!
//! Millions of cards have few different sets of rights once their dates are cut to the days that a
//! registry lives for, so whatever depends on an organization is worked out for classes, not cards.

use std::collections::{BTreeSet, HashMap};

use engine::calendar::Day;
use engine::holder::CardStatus;
use engine::identifier::IdentifierKind;
use engine::ids::CategoryId;
use engine::registry::Registry;
use engine::registry::holders::HolderView;
use validator::registry::ShortDigest;

use crate::kit::Window;

/// Categories that a card has, with their dates as a [`Window`] cuts them; ascending.
pub type Class = Box<[ClassRight]>;

/// A category and its dates.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClassRight {
    /// Which.
    pub category: CategoryId,
    /// The first date.
    pub from: Day,
    /// The last date.
    pub to: Day,
}

/// The identifiers of all cards that have any right.
#[derive(Debug, Default)]
pub struct Population {
    /// Ascending, each once, with the place of its class.
    pub members: Vec<(ShortDigest, u32)>,
    /// The classes.
    pub classes: Vec<Class>,
    /// Identifiers that were left out because another one has the same 56 bits.
    pub collisions: usize,
}

impl Population {
    /// Goes over all holders once.
    pub fn gather(
        registry: &Registry,
        window: Window,
        categories: &BTreeSet<CategoryId>,
    ) -> Population {
        let mut gathering = Gathering { window, categories, known: HashMap::default() };
        let mut members = Vec::new();
        for (_, holder) in registry.holders().iter() {
            if !holder.is_closed() {
                gathering.add(&holder, &mut members);
            }
        }
        members.sort_unstable();
        let before = members.len();
        drop_shared(&mut members);
        let mut classes: Vec<(Class, u32)> = gathering.known.into_iter().collect();
        classes.sort_unstable_by_key(|(_, place)| *place);
        Population {
            collisions: before - members.len(),
            members,
            classes: classes.into_iter().map(|(class, _)| class).collect(),
        }
    }
}

struct Gathering<'a> {
    window: Window,
    categories: &'a BTreeSet<CategoryId>,
    known: HashMap<Class, u32, foldhash::fast::RandomState>,
}

impl Gathering<'_> {
    fn add(&mut self, holder: &HolderView<'_>, members: &mut Vec<(ShortDigest, u32)>) {
        let rights = holder.rights().filter(|right| self.categories.contains(&right.category));
        let mut rights: Vec<ClassRight> = rights
            .filter_map(|right| {
                let (from, to) = self.window.clip(right.validity.from, right.validity.to)?;
                Some(ClassRight { category: right.category, from, to })
            })
            .collect();
        if rights.is_empty() {
            return;
        }
        rights.sort_unstable();
        rights.dedup();
        let cards: Vec<Option<u32>> = holder
            .cards()
            .map(|card| {
                let active = card.status == CardStatus::Active;
                if active { self.class(&rights, card.expires) } else { None }
            })
            .collect();
        for extra in holder.identifiers() {
            let Some(identifier) = extra.identifier() else { continue };
            // A SNILS leads to a person and is digested with a key that no device has.
            let card = identifier.card.filter(|_| identifier.kind != IdentifierKind::Snils);
            let class = card.and_then(|card| cards.get(usize::from(card)).copied().flatten());
            if let Some(class) = class {
                members.push((ShortDigest::of(&identifier.digest), class));
            }
        }
    }

    /// The class of a card with these rights that ends on `expires`.
    fn class(&mut self, rights: &[ClassRight], expires: Day) -> Option<u32> {
        if expires >= self.window.last {
            return self.place(rights);
        }
        let cut = rights.iter().filter_map(|right| {
            let (from, to) = self.window.clip(right.from, right.to.min(expires))?;
            Some(ClassRight { from, to, ..*right })
        });
        let cut: Vec<ClassRight> = cut.collect();
        self.place(&cut)
    }

    fn place(&mut self, rights: &[ClassRight]) -> Option<u32> {
        if rights.is_empty() {
            return None;
        }
        if let Some(place) = self.known.get(rights) {
            return Some(*place);
        }
        let place = u32::try_from(self.known.len()).ok()?;
        self.known.insert(rights.into(), place);
        Some(place)
    }
}

/// Drops all that share their digest with a neighbour: none of them may have the other's rights.
fn drop_shared(members: &mut Vec<(ShortDigest, u32)>) {
    let mut shared: Vec<ShortDigest> = members
        .windows(2)
        .filter_map(|pair| match pair {
            [(one, _), (other, _)] if one == other => Some(*one),
            _ => None,
        })
        .collect();
    shared.dedup();
    if !shared.is_empty() {
        members.retain(|(digest, _)| shared.binary_search(digest).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_shares_a_digest_is_left_out() {
        let digest = |number| ShortDigest::from_number(number).unwrap();
        let mut members: Vec<(ShortDigest, u32)> =
            [1, 2, 2, 3, 5, 5, 5, 6].map(|number| (digest(number), 0)).into();
        drop_shared(&mut members);
        assert_eq!(members, [1, 3, 6].map(|number| (digest(number), 0)));
    }
}
