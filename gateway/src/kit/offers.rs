//! What the rights of a class are worth at one organization.

use std::collections::BTreeSet;

use engine::calendar::Day;
use engine::directory::{Candidate, CompiledOffer, Directory};
use engine::ids::{CategoryId, OrganizationId};
use validator::registry::rights::Right;

use crate::kit::population::ClassRight;
use crate::kit::{ContentSettings, Window};

/// What a window leaves of dates that reach over all of it.
const ALWAYS: Option<(Day, Day)> = Some((Day::BEGINNING, Day::FOREVER));

/// The offers of one organization that a registry speaks of.
#[derive(Debug)]
pub struct Offers<'a> {
    directory: &'a Directory,
    offers: Vec<&'a CompiledOffer>,
    limited_offline: bool,
}

impl<'a> Offers<'a> {
    /// The offers of an organization that serves; none where there is nothing to write a registry of.
    pub fn of(
        directory: &'a Directory,
        organization: OrganizationId,
        settings: &ContentSettings,
    ) -> Option<Offers<'a>> {
        let compiled = directory.compiled(organization).filter(|known| known.serves)?;
        let services = &directory.items().services;
        let wanted = |offer: &&CompiledOffer| {
            let service = services.get(&offer.service).and_then(|item| item.present());
            service.is_some_and(|service| settings.kinds.contains(&service.kind))
        };
        let offers: Vec<&CompiledOffer> = compiled.offers.iter().filter(wanted).collect();
        let limited_offline = settings.limited_offline;
        (!offers.is_empty()).then_some(Offers { directory, offers, limited_offline })
    }

    /// The categories that can win one of them.
    pub fn categories(&self) -> BTreeSet<CategoryId> {
        let candidates = self.offers.iter().flat_map(|offer| &offer.candidates);
        candidates.map(|candidate| candidate.category).collect()
    }

    /// The rights of a class: service by service, within each in the order in which they win.
    pub fn rights(&self, class: &[ClassRight], window: Window) -> Vec<Right> {
        let mut rights = Vec::new();
        for offer in &self.offers {
            for candidate in &offer.candidates {
                let first = rights.len();
                rights.extend(self.won(offer, candidate, class, window));
                // Nothing behind a right that always holds can ever win.
                let always = |right: &Right| {
                    right.offline && window.clip(right.valid_from, right.valid_to) == ALWAYS
                };
                if rights.iter().skip(first).any(always) {
                    break;
                }
            }
        }
        rights
    }

    fn won(
        &self,
        offer: &CompiledOffer,
        candidate: &Candidate,
        class: &[ClassRight],
        window: Window,
    ) -> impl Iterator<Item = Right> {
        let category = self.directory.items().categories.get(&candidate.category);
        let companion = category.is_some_and(|category| category.with_companion);
        let limited = candidate.limit.is_some();
        let offline = !limited || self.limited_offline;
        let held = class.iter().filter(|right| right.category == candidate.category);
        held.filter_map(move |right| {
            let from = right.from.max(candidate.validity.from).max(offer.validity.from);
            let to = right.to.min(candidate.validity.to).min(offer.validity.to);
            let (valid_from, valid_to) = window.clip(from, to)?;
            Some(Right {
                service: offer.service,
                category: candidate.category,
                valid_from,
                valid_to,
                discount_percent: candidate.discount_percent,
                companion,
                limited,
                offline,
            })
        })
    }
}
