//! What an answer to a check must be: catalogue §3.6, derived from the registry file alone.
//!
//! Usually exactly one answer is right. Two are where the server's clock and ours may stand on
//! different sides of midnight, and where it is uncertain whether a limited use is still free; never
//! is a right answer called wrong.

use validator::verdict::Verdict;

use crate::answer::{CheckAnswer, OfflineAnswer};
use crate::calendar::Day;
use crate::registry::Registry;
use crate::registry::directory::{Candidate, Limit, Offer};

/// A check, by the places of things in the registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Who asks.
    pub organization: u16,
    /// From which terminal, by id.
    pub terminal: u64,
    /// For which service, by id.
    pub service: u32,
    /// Whom the identifier leads to.
    pub person: Person,
}

/// Whom an identifier leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Person {
    /// A card of a holder.
    Card {
        /// The holder.
        holder: u32,
        /// The card.
        card: u32,
    },
    /// A holder, by the insurance number.
    Holder(u32),
    /// Nobody.
    Stranger,
}

impl Person {
    /// The holder, if there is one.
    pub fn holder(self) -> Option<u32> {
        match self {
            Person::Card { holder, .. } | Person::Holder(holder) => Some(holder),
            Person::Stranger => None,
        }
    }
}

/// How the server may decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// This category wins.
    Benefit(Candidate),
    /// This result code.
    Refused(u32),
}

/// How many places of a limit are taken: at least, and at most if there is a bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Taken {
    /// At least.
    pub least: u32,
    /// At most.
    pub most: Option<u32>,
}

/// A limit at which uses are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// Whose uses.
    pub holder: u32,
    /// Of what, by which category.
    pub link: u16,
    /// How often, over which span.
    pub limit: Limit,
    /// On which date.
    pub day: Day,
}

/// The organization or its terminal is unknown.
pub const ORGANIZATION_UNKNOWN: u32 = 7;
/// The service is not offered.
pub const SERVICE_UNKNOWN: u32 = 8;
/// Nobody has this identifier.
pub const HOLDER_NOT_FOUND: u32 = 2;
/// The card or the holder is not active.
pub const CARD_INACTIVE: u32 = 5;
/// No category wins.
pub const NO_BENEFIT: u32 = 1;
/// The server cannot decide.
pub const UNAVAILABLE: u32 = 6;

/// Every decision that is right on a date, the best first.
pub fn decisions(
    registry: &Registry,
    question: &Question,
    day: Day,
    taken: &impl Fn(Counted) -> Taken,
    right: &mut Vec<Decision>,
) {
    let offer = match offer(registry, question, day) {
        Ok(offer) => offer,
        Err(code) => return right.push(Decision::Refused(code)),
    };
    // `offer` refuses strangers, so there is a holder.
    let holder = question.person.holder().unwrap_or_default();
    for candidate in &offer.candidates {
        let category = registry.directory.categories.get(usize::from(candidate.category));
        let exists = category.is_some_and(|category| category.validity.covers(day));
        if !exists || !registry.holders.has(holder, candidate.category, day) {
            continue;
        }
        let Some(limit) = candidate.limit else {
            return right.push(Decision::Benefit(*candidate));
        };
        let Taken { least, most } = taken(Counted { holder, link: candidate.link, limit, day });
        if least >= limit.count {
            continue;
        }
        right.push(Decision::Benefit(*candidate));
        if most.is_some_and(|most| most < limit.count) {
            return;
        }
    }
    right.push(Decision::Refused(NO_BENEFIT));
}

/// Every decision that is right on a date however many limited uses are taken.
pub fn conceivable(registry: &Registry, question: &Question, day: Day, right: &mut Vec<Decision>) {
    let nothing_known = |_: Counted| Taken { least: 0, most: None };
    decisions(registry, question, day, &nothing_known, right);
}

/// Steps 1 to 4 of catalogue §3.6: the offer, or the result code.
fn offer<'r>(registry: &'r Registry, question: &Question, day: Day) -> Result<&'r Offer, u32> {
    let directory = &registry.directory;
    let organization = directory.organization(question.organization);
    let organization = organization.filter(|organization| organization.serves);
    let terminal = directory.terminal(question.terminal).filter(|terminal| terminal.is_active);
    let owner = terminal.and_then(|terminal| terminal.organization);
    let organization = organization
        .filter(|_| owner == Some(question.organization))
        .ok_or(ORGANIZATION_UNKNOWN)?;
    let service = directory.service(question.service);
    let offer = service.and_then(|service| organization.offer(service));
    let offer = offer.filter(|offer| offer.validity.covers(day)).ok_or(SERVICE_UNKNOWN)?;
    let holder = question.person.holder().ok_or(HOLDER_NOT_FOUND)?;
    let is_closed = registry.holders.holder(holder).is_none_or(|holder| holder.is_closed());
    let is_active = match question.person {
        Person::Card { card, .. } => {
            registry.holders.card(card).is_some_and(|card| card.is_active(day))
        }
        Person::Holder(_) | Person::Stranger => true,
    };
    if is_closed || !is_active { Err(CARD_INACTIVE) } else { Ok(offer) }
}

/// Whether a device may have decided so on its own on a date. Its registry counts no uses: where
/// those are limited it may grant or not.
pub fn foretells(
    registry: &Registry,
    question: &Question,
    day: Day,
    decided: &OfflineAnswer,
) -> bool {
    let mut right = Vec::new();
    conceivable(registry, question, day, &mut right);
    right.iter().any(|decision| allows(registry, decision, decided))
}

/// Whether a decision is one that a device may have made on its own. Why it denied is not told apart: its registry
/// holds neither strangers nor cards that are not active.
fn allows(registry: &Registry, decision: &Decision, decided: &OfflineAnswer) -> bool {
    match decision {
        Decision::Benefit(candidate) => {
            let category = registry.directory.categories.get(usize::from(candidate.category));
            decided.verdict == Verdict::Grant
                && category.map(|category| category.id) == decided.category
        }
        Decision::Refused(_) => decided.verdict != Verdict::Grant,
    }
}

/// Whether an answer says what a decision is. `success_code` is 0 unless the server is set otherwise
/// (C-10).
pub fn says(
    registry: &Registry,
    holder: Option<u32>,
    decision: &Decision,
    answer: &CheckAnswer<'_>,
    success_code: u32,
) -> bool {
    match decision {
        Decision::Benefit(candidate) => {
            let category = registry.directory.categories.get(usize::from(candidate.category));
            let holder = holder.and_then(|holder| registry.holders.holder(holder));
            let (Some(category), Some(holder)) = (category, holder) else { return false };
            let named = answer
                .benefit
                .as_ref()
                .is_some_and(|(id, name)| *id == category.id && name.as_ref() == category.name);
            answer.code == success_code
                && answer.transaction != 0
                && answer.holder == holder.id
                && named
        }
        Decision::Refused(code) => {
            answer.code == *code
                && (answer.transaction, answer.holder) == (0, 0)
                && answer.benefit.is_none()
        }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
