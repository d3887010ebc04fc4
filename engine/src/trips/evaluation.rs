//! Which trips a claim may take: what can only be told of all trips together.
//!
//! All accepted uses of the cards in question, whoever reported them and whatever claim has them, are
//! looked at in the order in which they happened. A use counts unless it comes too soon after another
//! one of the same card at the same stop (but one companion may follow each holder), past the usage
//! limit of its category, or with a ticket or transaction that was counted before. So the order in
//! which trips were uploaded before a claim was drawn up cannot matter. What is in a claim already
//! counts in any case: of a trip that comes after it, only whether it may be claimed beside those.
//!
//! Limits count by holder as far as the present registry knows the card, else by card.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::calendar::{Day, Timestamp, UtcOffset};
use crate::directory::Limit;
use crate::identifier::Digest;
use crate::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TransactionId};
use crate::registry::Registry;
use crate::trips::book::{Slot, TripBook, card_of};
use crate::trips::claim::{ClaimLine, Period};
use crate::trips::judge::TripRules;
use crate::trips::trip::{Trip, TripName, TripReason};

/// What a claim takes, and what nobody is paid for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Evaluation {
    /// The trips to claim, in the order in which they happened.
    pub lines: Vec<ClaimLine>,
    /// The others of the same period, and why they do not count.
    pub marks: Vec<(TripName, TripReason)>,
}

/// For whom, and by what.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The carrier.
    pub organization: OrganizationId,
    /// The dates.
    pub period: Period,
    /// The registry, for limits and holders.
    pub registry: &'a Registry,
    /// The rules.
    pub rules: TripRules,
}

/// Looks at everything that a claim of this scope may take.
pub fn evaluate(book: &TripBook, scope: &Scope<'_>) -> Evaluation {
    let offset = offset_of(scope.registry, scope.organization);
    let is_candidate = |slot: &Slot| {
        slot.counts()
            && slot.claim().is_none()
            && slot.organization == scope.organization
            && scope.period.covers(slot.at, offset)
    };
    let candidates = book.slots().filter(|slot| is_candidate(slot));
    let mut uses: Vec<Use> =
        candidates.filter_map(|slot| Use::of(slot, true, scope.registry)).collect();
    let cards = cards_of(&uses, scope.registry);
    let others = book
        .slots()
        .filter(|slot| slot.counts() && cards.contains(&slot.card) && !is_candidate(slot));
    uses.extend(others.filter_map(|slot| Use::of(slot, false, scope.registry)));
    uses.extend(claimed_elsewhere(book, scope, &cards, &uses));
    uses.sort_by_key(|each| (each.at, each.name));
    let mut counted = Counted::default();
    // What is claimed was counted once, whatever has come since.
    for each in uses.iter().filter(|each| each.is_claimed) {
        counted.count(each);
    }
    let mut evaluation = Evaluation::default();
    for each in &uses {
        let refused = (!each.is_claimed).then(|| counted.judge(each, scope.rules)).flatten();
        if refused.is_none() && !each.is_claimed {
            counted.count(each);
        }
        match (each.is_candidate, refused) {
            (false, _) => {}
            (true, Some(reason)) => evaluation.marks.push((each.name, reason)),
            (true, None) if each.line.amount.0 > 0 => evaluation.lines.push(each.line),
            (true, None) => {}
        }
    }
    evaluation
}

/// The cards of these uses; where one is limited, all cards of its holder.
fn cards_of(uses: &[Use], registry: &Registry) -> HashSet<u32> {
    let mut cards: HashSet<u32> = uses.iter().map(|each| card_of(&each.card)).collect();
    for each in uses.iter().filter(|each| each.limit.is_some()) {
        let Some(found) = registry.find(&each.card) else { continue };
        let identifiers = found.holder.identifiers().filter_map(|extra| extra.identifier());
        cards.extend(identifiers.map(|identifier| card_of(&identifier.digest)));
    }
    cards
}

/// The uses in claims that name another card and the transaction of one of `uses`: it was paid for
/// once.
fn claimed_elsewhere(
    book: &TripBook,
    scope: &Scope<'_>,
    cards: &HashSet<u32>,
    uses: &[Use],
) -> Vec<Use> {
    let wanted: HashSet<TransactionId> = uses.iter().flat_map(Use::transactions).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let is_claimed = |slot: &&Slot| {
        slot.claim().is_some()
            && slot.organization == scope.organization
            && !cards.contains(&slot.card)
    };
    let claimed = book.slots().filter(is_claimed);
    claimed
        .filter_map(|slot| Use::of(slot, false, scope.registry))
        .filter(|each| each.transactions().any(|id| wanted.contains(&id)))
        .collect()
}

/// The clock on a carrier's wall.
pub fn offset_of(registry: &Registry, organization: OrganizationId) -> UtcOffset {
    registry.directory().compiled(organization).map(|known| known.utc_offset).unwrap_or_default()
}

/// Whose uses a limit counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Whose {
    Card(Digest),
    Holder(HolderId),
}

/// One accepted use.
struct Use {
    name: TripName,
    at: Timestamp,
    card: Digest,
    stop: Option<u64>,
    companion: bool,
    ticket: Option<u64>,
    transaction: Option<TransactionId>,
    /// What it may be of a sale that does not say, see [`Trip::sold_by`].
    sale: Option<TransactionId>,
    /// Whether anybody may have shown the ticket.
    by_ticket: bool,
    limit: Option<(LimitedUse, Limit)>,
    line: ClaimLine,
    is_candidate: bool,
    is_claimed: bool,
}

/// What uses are counted by.
type LimitedUse = (Whose, ServiceId, CategoryId, Day);

impl Use {
    fn of(slot: &Slot, is_candidate: bool, registry: &Registry) -> Option<Use> {
        let trip = slot.recorded()?.trip;
        debug_assert_eq!(card_of(&trip.identifier), slot.card);
        Some(Use {
            name: slot.name,
            at: slot.at,
            card: trip.identifier,
            // Whoever shows a ticket may be anybody: two of them are no repeat.
            stop: (!trip.is_by_ticket()).then(|| stop_of(&trip)),
            companion: trip.companion,
            ticket: ticket_of(&trip),
            transaction: trip.granted_by(),
            sale: trip.sold_by(),
            by_ticket: trip.is_by_ticket(),
            limit: limit_of(&trip, slot.at, registry),
            line: ClaimLine { name: slot.name, amount: trip.reimbursement() },
            is_candidate,
            is_claimed: slot.claim().is_some(),
        })
    }

    /// Those under which it may have been paid for.
    fn transactions(&self) -> impl Iterator<Item = TransactionId> {
        self.transaction.into_iter().chain(self.sale)
    }
}

/// Where a tap was: the stop, without one the vehicle, without either the terminal.
fn stop_of(trip: &Trip) -> u64 {
    let mut hasher = SipHasher24::new();
    match (trip.texts.from_stop.as_str(), trip.texts.vehicle.as_str()) {
        ("", "") => hasher.write_u64(trip.name.terminal.0),
        ("", vehicle) => hasher.write(vehicle.as_bytes()),
        (stop, _) => hasher.write(stop.as_bytes()),
    }
    hasher.finish()
}

/// A ticket is paid for once, when it is issued or when its holder boards.
fn ticket_of(trip: &Trip) -> Option<u64> {
    if trip.texts.ticket.is_empty() {
        return None;
    }
    let mut hasher = SipHasher24::new();
    hasher.write_u32(trip.organization.0);
    hasher.write(&trip.identifier.0);
    hasher.write(trip.texts.ticket.as_bytes());
    Some(hasher.finish())
}

fn limit_of(trip: &Trip, at: Timestamp, registry: &Registry) -> Option<(LimitedUse, Limit)> {
    // The check that gave the ticket has taken its place already.
    let category = trip.category.filter(|_| !trip.is_by_ticket())?;
    let carrier = registry.directory().compiled(trip.organization)?;
    let offer = carrier.offer(trip.service)?;
    let candidate = offer.candidates.iter().find(|candidate| candidate.category == category)?;
    let limit = candidate.limit?;
    let (first, _) = at.local_day(carrier.utc_offset).period(limit.period);
    let whose =
        registry.holder_id(&trip.identifier).map_or(Whose::Card(trip.identifier), Whose::Holder);
    (!trip.companion).then_some(((whose, trip.service, category, first), limit))
}

/// What was counted so far.
#[derive(Default)]
struct Counted {
    /// When holders tapped, by card and stop.
    taps: HashMap<(Digest, u64), BTreeSet<Timestamp>>,
    /// The same for companions.
    companions: HashMap<(Digest, u64), BTreeSet<Timestamp>>,
    tickets: HashSet<u64>,
    transactions: HashSet<TransactionId>,
    /// Transactions whose tickets were shown by whoever had them.
    shown: HashSet<TransactionId>,
    /// Transactions whose tickets were sold, where the sale does not say so itself.
    sold: HashSet<TransactionId>,
    uses: HashMap<LimitedUse, u32>,
}

impl Counted {
    fn count(&mut self, each: &Use) {
        let taps = if each.companion { &mut self.companions } else { &mut self.taps };
        if let Some(stop) = each.stop {
            taps.entry((each.card, stop)).or_default().insert(each.at);
        }
        self.tickets.extend(each.ticket);
        self.transactions.extend(each.transaction);
        self.shown.extend(each.transaction.filter(|_| each.by_ticket));
        self.sold.extend(each.sale);
        if let Some((key, _)) = each.limit {
            *self.uses.entry(key).or_default() += 1;
        }
    }

    /// Why a use does not count.
    fn judge(&self, each: &Use, rules: TripRules) -> Option<TripReason> {
        let used = each.ticket.is_some_and(|ticket| self.tickets.contains(&ticket))
            || each.transaction.is_some_and(|id| self.transactions.contains(&id))
            || each.transaction.is_some_and(|id| each.by_ticket && self.sold.contains(&id))
            || each.sale.is_some_and(|id| self.shown.contains(&id));
        if used || self.is_too_soon(each, rules.passback_seconds) {
            return Some(TripReason::Repeat);
        }
        let (key, limit) = each.limit?;
        let spent = self.uses.get(&key).copied().unwrap_or_default();
        (spent >= limit.count).then_some(TripReason::Limit)
    }

    /// A holder must keep the interval to other taps of the card there; a companion needs the tap of
    /// a holder within the interval before, which no other companion has used.
    fn is_too_soon(&self, each: &Use, interval: i64) -> bool {
        let Some(stop) = each.stop.filter(|_| interval > 0) else { return false };
        let place = (each.card, stop);
        let (from, until) =
            (each.at.plus_seconds(1 - interval), each.at.plus_seconds(interval - 1));
        let near = |taps: &HashMap<_, BTreeSet<Timestamp>>, until| {
            taps.get(&place).map_or(0, |taps| taps.range(from..=until).count())
        };
        if each.companion {
            return near(&self.taps, each.at) <= near(&self.companions, until);
        }
        near(&self.taps, until) > 0
    }
}
