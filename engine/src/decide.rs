//! The decision: which benefit, if any, this person has for this service here and now.
//!
//! Pure: a registry, a check, an instant and what is known of limits go in; a decision comes out.
//! The order of evaluation is fixed (catalogue §3.6), and [`explain`] judges categories by the same
//! function as [`decide`], so that it cannot tell another story.

use crate::calendar::{Day, Timestamp};
use crate::command::{Check, CheckAnswer, Refusal};
use crate::directory::{Candidate, CompiledOffer};
use crate::ids::{CategoryId, HolderId, ServiceId};
use crate::registry::holders::HolderView;
use crate::registry::{Found, Registry};
use crate::transaction::LimitPeriod;

/// Checks whose holders are looked up together.
pub const LOOKUPS_TOGETHER: usize = 16;

/// What a check is answered with, before anything is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The benefit of highest priority.
    Benefit(Benefit),
    /// There is none, and why.
    Refused(Refusal),
}

/// A benefit that wins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Benefit {
    /// Whose.
    pub holder: HolderId,
    /// Which.
    pub category: CategoryId,
    /// Its size, 0 to 100.
    pub discount_percent: u8,
    /// The place that it takes, where its uses are limited.
    pub limit: Option<LimitedPlace>,
}

/// A place among the limited uses of a period.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LimitedPlace {
    /// Where it counts.
    pub key: LimitKey,
    /// How many places there are.
    pub count: u32,
}

/// What uses are counted by (C-45).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LimitKey {
    /// Whose uses.
    pub holder: HolderId,
    /// Of what.
    pub service: ServiceId,
    /// By which right.
    pub category: CategoryId,
    /// When.
    pub period: LimitPeriod,
}

/// What the decision must know of limited uses.
pub trait Places {
    /// Whether one of the places is neither spent nor held at `now`.
    fn has_free(&self, place: &LimitedPlace, now: Timestamp) -> bool;
}

/// Why each category of an offer wins or loses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Explanation {
    /// The refusal, when it came before any category was looked at.
    pub refusal: Option<Refusal>,
    /// The categories of the offer, the best first.
    pub categories: Vec<(CategoryId, Verdict)>,
}

/// What became of one category.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The category does not exist on this date.
    CategoryNotValid,
    /// All uses of the period are spent or held.
    LimitReached,
    /// The holder does not have it.
    NotHeld,
    /// The holder has it, but not on this date.
    NotValidToday,
    /// A better category won.
    Outranked,
    /// This one is answered.
    Wins,
}

/// What else is known of a benefit that was granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    /// Its size, 0 to 100.
    pub discount_percent: u8,
    /// The last date of the right; [`Day::FOREVER`] where it has no end.
    pub valid_to: Day,
    /// Whether a companion travels on the same right.
    pub with_companion: bool,
}

/// The terms of a benefit that `registry` gives at `now`.
#[inline]
pub fn terms(
    registry: &Registry,
    check: &Check,
    category: CategoryId,
    now: Timestamp,
) -> Option<Terms> {
    let found = registry.find(&check.identifier);
    let question = question(offered(registry, check, now).ok()?, check, found).ok()?;
    let mut candidates = question.offer.candidates.iter();
    let candidate = candidates.find(|candidate| candidate.category == category)?;
    Some(question.terms(candidate))
}

/// Decides a check.
#[inline]
pub fn decide(
    registry: &Registry,
    check: &Check,
    now: Timestamp,
    places: &impl Places,
) -> Decision {
    // Asked for first and looked at last: the memory that it waits for arrives meanwhile.
    let found = registry.find(&check.identifier);
    match offered(registry, check, now).and_then(|offered| question(offered, check, found)) {
        Ok(question) => question.decision(question.winner(places, now)),
        Err(refusal) => Decision::Refused(refusal),
    }
}

/// Decides many checks; calls `take` with each one, its decision and the terms of a benefit, in
/// order.
///
/// Looking up a group before deciding it lets their waits for memory overlap, which halves the time
/// of a check. Neighbours mostly come from one terminal for one service, which is looked up once.
pub fn decide_all<P: Places>(
    registry: &Registry,
    checks: &[Check],
    now: Timestamp,
    places: &P,
    mut take: impl FnMut(&Check, Decision, Option<Terms>),
) {
    let mut last: Option<(&Check, Result<Offered, Refusal>)> = None;
    for group in checks.chunks(LOOKUPS_TOGETHER) {
        let mut found = [None; LOOKUPS_TOGETHER];
        registry.find_all(group.iter().map(|check| &check.identifier), &mut found);
        for (check, found) in group.iter().zip(found) {
            let known = last.filter(|(like, _)| is_offered_alike(like, check));
            let (_, offered) = known.unwrap_or_else(|| (check, offered(registry, check, now)));
            last = Some((check, offered));
            match offered.and_then(|offered| question(offered, check, found)) {
                Ok(question) => {
                    let won = question.winner(places, now);
                    let terms = won.map(|candidate| question.terms(candidate));
                    take(check, question.decision(won), terms);
                }
                Err(refusal) => take(check, Decision::Refused(refusal), None),
            }
        }
    }
}

/// Tells the whole story of a check.
pub fn explain(
    registry: &Registry,
    check: &Check,
    now: Timestamp,
    places: &impl Places,
) -> Explanation {
    let found = registry.find(&check.identifier);
    let offered = offered(registry, check, now);
    let question = match offered.and_then(|offered| question(offered, check, found)) {
        Ok(question) => question,
        Err(refusal) => return Explanation { refusal: Some(refusal), categories: Vec::new() },
    };
    let mut won = false;
    let categories = question.offer.candidates.iter().map(|candidate| {
        let verdict = match question.judge(candidate, places, now) {
            Verdict::Wins if won => Verdict::Outranked,
            verdict => verdict,
        };
        won |= verdict == Verdict::Wins;
        (candidate.category, verdict)
    });
    let categories = categories.collect();
    let refusal = (!won).then_some(Refusal::NoBenefit);
    Explanation { refusal, categories }
}

impl Explanation {
    /// The same story as it was when the check was answered. Between the two, only places of limited
    /// uses were taken or given back, the first of them by the check itself.
    pub fn of_answer(mut self, answer: &CheckAnswer) -> Explanation {
        let won = match answer {
            CheckAnswer::Granted(granted) => Some(granted.category),
            CheckAnswer::Refused(Refusal::NoBenefit) => None,
            CheckAnswer::Refused(_) | CheckAnswer::Unavailable => return self,
        };
        let mut is_decided = false;
        for (category, verdict) in &mut self.categories {
            if Some(*category) == won {
                is_decided = true;
                *verdict = Verdict::Wins;
            } else if matches!(verdict, Verdict::Wins | Verdict::Outranked) {
                *verdict = if is_decided { Verdict::Outranked } else { Verdict::LimitReached };
            }
        }
        self.refusal = won.is_none().then_some(Refusal::NoBenefit);
        self
    }
}

/// A check whose organization, service, holder and card are in order.
struct Question<'a> {
    offer: &'a CompiledOffer,
    holder: HolderView<'a>,
    service: ServiceId,
    today: Day,
}

/// What a terminal offers today.
#[derive(Clone, Copy)]
struct Offered<'a> {
    offer: &'a CompiledOffer,
    today: Day,
}

/// Whether two checks of one moment ask the same terminal for the same service.
#[inline]
fn is_offered_alike(one: &Check, other: &Check) -> bool {
    one.terminal == other.terminal
        && one.service == other.service
        && one.organization == other.organization
}

/// Steps 1 and 2 of catalogue §3.6, in their order.
#[inline]
fn offered<'a>(
    registry: &'a Registry,
    check: &Check,
    now: Timestamp,
) -> Result<Offered<'a>, Refusal> {
    let directory = registry.directory();
    let terminal = directory.terminal(check.terminal).filter(|terminal| terminal.active);
    if terminal.is_none_or(|terminal| terminal.organization != check.organization) {
        return Err(Refusal::OrganizationUnknown);
    }
    let organization = directory.compiled(check.organization);
    let organization =
        organization.filter(|known| known.serves).ok_or(Refusal::OrganizationUnknown)?;
    let today = now.local_day(organization.utc_offset);
    let offer = organization.offer(check.service).filter(|offer| offer.validity.covers(today));
    let offer = offer.ok_or(Refusal::ServiceUnknown)?;
    Ok(Offered { offer, today })
}

/// Steps 3 and 4.
#[inline]
fn question<'a>(
    Offered { offer, today }: Offered<'a>,
    check: &Check,
    found: Option<Found<'a>>,
) -> Result<Question<'a>, Refusal> {
    let Found { holder, card } = found.ok_or(Refusal::HolderNotFound)?;
    if !holder.is_active(card, today) {
        return Err(Refusal::CardInactive);
    }
    Ok(Question { offer, holder, service: check.service, today })
}

impl<'a> Question<'a> {
    /// Step 5 for all categories: the best that wins.
    #[inline]
    fn winner(&self, places: &impl Places, now: Timestamp) -> Option<&'a Candidate> {
        let mut candidates = self.offer.candidates.iter();
        candidates.find(|candidate| self.judge(candidate, places, now) == Verdict::Wins)
    }

    #[inline]
    fn decision(&self, winner: Option<&Candidate>) -> Decision {
        match winner {
            Some(candidate) => Decision::Benefit(self.benefit(candidate)),
            None => Decision::Refused(Refusal::NoBenefit),
        }
    }

    #[inline]
    fn terms(&self, candidate: &Candidate) -> Terms {
        let rights = self.holder.rights().filter(|right| right.category == candidate.category);
        let valid = rights.map(|right| right.validity).filter(|held| held.covers(self.today));
        let last = valid.map(|held| held.to).max().unwrap_or(self.today);
        Terms {
            discount_percent: candidate.discount_percent,
            valid_to: last.min(candidate.validity.to),
            with_companion: candidate.with_companion,
        }
    }

    /// Step 5 for one category, as if no better one had won.
    #[inline]
    fn judge(&self, candidate: &Candidate, places: &impl Places, now: Timestamp) -> Verdict {
        let mut held = false;
        let mut valid = false;
        for right in self.holder.rights() {
            if right.category == candidate.category {
                held = true;
                valid |= right.validity.covers(self.today);
            }
        }
        if !held {
            return Verdict::NotHeld;
        }
        if !valid {
            return Verdict::NotValidToday;
        }
        if !candidate.validity.covers(self.today) {
            return Verdict::CategoryNotValid;
        }
        match self.place(candidate) {
            Some(place) if !places.has_free(&place, now) => Verdict::LimitReached,
            _ => Verdict::Wins,
        }
    }

    fn benefit(&self, candidate: &Candidate) -> Benefit {
        Benefit {
            holder: self.holder.id(),
            category: candidate.category,
            discount_percent: candidate.discount_percent,
            limit: self.place(candidate),
        }
    }

    fn place(&self, candidate: &Candidate) -> Option<LimitedPlace> {
        let limit = candidate.limit?;
        let (first, last) = self.today.period(limit.period);
        let key = LimitKey {
            holder: self.holder.id(),
            service: self.service,
            category: candidate.category,
            period: LimitPeriod { first, last },
        };
        Some(LimitedPlace { key, count: limit.count })
    }
}
