//! The rules for one trip by itself, pure: rights and registry at the tap, clock, late blocks.

use crate::calendar::Timestamp;
use crate::directory::Candidate;
use crate::ids::TransactionId;
use crate::ledger::{Entry, Ledger};
use crate::limits::{TRIP_FUTURE_SECONDS_MAX, TRIP_LATE_SECONDS};
use crate::registry::Registry;
use crate::transaction::Transaction;
use crate::trips::block::Blocks;
use crate::trips::evaluation::offset_of;
use crate::trips::registries::{
    HolderRegistries, RegistryLife, RegistryRight, RightAnswer, RightQuestion,
};
use crate::trips::trip::{Standing, Trip, TripMode, TripReason};

/// Seconds within which an old registry excuses a grant to a blocked card (catalogue §6.6).
const BLOCK_EXCUSE_SECONDS: i64 = 24 * 3_600;

/// What a carrier and its devices must keep to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TripRules {
    /// Seconds between two grants for one card at one stop; 0 switches the rule off.
    pub passback_seconds: i64,
    /// Seconds past its end during which a registry still grants.
    pub grace_seconds: i64,
}

impl Default for TripRules {
    fn default() -> TripRules {
        TripRules { passback_seconds: 420, grace_seconds: 0 }
    }
}

/// What a trip is judged by.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// The engine's clock.
    pub now: Timestamp,
    /// The registry as it is now.
    pub registry: &'a Registry,
    /// The rules.
    pub rules: TripRules,
    /// Since when cards are blocked.
    pub blocks: &'a Blocks,
    /// The transactions of online grants.
    pub ledger: &'a Ledger,
    /// The holder registries that devices had.
    pub registries: &'a dyn HolderRegistries,
}

/// How a trip of a terminal of its sender stands; none where that cannot be told now.
pub fn judge(trip: &Trip, circumstances: &Circumstances<'_>) -> Option<Standing> {
    if !trip.is_well_formed() {
        return Some(Standing::Rejected(TripReason::Malformed));
    }
    let (at, now) = (trip.at(), circumstances.now);
    if at > now.plus_seconds(TRIP_FUTURE_SECONDS_MAX) {
        return Some(Standing::Rejected(TripReason::Future));
    }
    if at < now.plus_seconds(-TRIP_LATE_SECONDS) {
        return Some(Standing::Disputed(TripReason::LateReview));
    }
    if !trip.is_use() {
        return Some(Standing::Accepted);
    }
    if let Some(standing) = judge_ticket(trip, circumstances.ledger) {
        return Some(standing);
    }
    if let Some(standing) = judge_online(trip, circumstances.ledger) {
        return Some(standing);
    }
    let question = RightQuestion {
        organization: trip.organization,
        version: trip.registry,
        identifier: &trip.identifier,
        service: trip.service,
        at,
    };
    Some(match circumstances.registries.right(&question) {
        RightAnswer::Unavailable => return None,
        RightAnswer::UnknownVersion => Standing::Disputed(TripReason::Registry),
        RightAnswer::NoneBuilt => judge_now(trip, circumstances),
        RightAnswer::Known(_, None) => no_right(trip, circumstances),
        RightAnswer::Known(life, Some(right)) => judge_right(trip, life, right, circumstances),
    })
}

/// Where the server may have granted it itself, and has forgotten, a person must look at it.
fn no_right(trip: &Trip, circumstances: &Circumstances<'_>) -> Standing {
    let was_given = |id| circumstances.ledger.was_given(id);
    match trip.transaction.filter(|_| trip.mode == TripMode::Online) {
        Some(id) if was_given(id) => Standing::Disputed(TripReason::NoRight),
        _ => Standing::Rejected(TripReason::NoRight),
    }
}

/// What the server itself granted needs no registry, as long as it remembers; a claim counts each
/// transaction once, whatever card its trips name.
fn judge_online(trip: &Trip, ledger: &Ledger) -> Option<Standing> {
    let id = trip.transaction.filter(|_| trip.mode == TripMode::Online)?;
    judge_granted(trip, id, ledger, |known| known.terminal == trip.name.terminal)
}

/// A ticket that needs no card: its number is the transaction in which the server granted it, to whoever
/// shows it at any terminal. What the server has forgotten a person must look at: the device has
/// verified a signature that the trip does not carry.
fn judge_ticket(trip: &Trip, ledger: &Ledger) -> Option<Standing> {
    if !trip.is_by_ticket() {
        return None;
    }
    let Some(id) = trip.granted_by().filter(|id| ledger.was_given(*id)) else {
        return Some(Standing::Rejected(TripReason::NoRight));
    };
    let known = judge_granted(trip, id, ledger, |_| true);
    Some(known.unwrap_or(Standing::Disputed(TripReason::NoRight)))
}

/// Judges by what the server granted; none where it does not remember.
fn judge_granted(
    trip: &Trip,
    id: TransactionId,
    ledger: &Ledger,
    is_there: impl Fn(&Transaction) -> bool,
) -> Option<Standing> {
    let is_same = |known: &Transaction| {
        known.organization == trip.organization
            && is_there(known)
            && known.service == trip.service
            && trip.category.is_none_or(|category| category == known.category)
    };
    let granted = ledger.with_entry(id, |entry| match entry {
        Entry::Cancelled(..) => None,
        Entry::Confirmed(confirmation, _) => Some(confirmation.transaction),
        Entry::Open(transaction) => Some(*transaction),
    })?;
    let Some(granted) = granted.filter(is_same) else {
        return Some(Standing::Rejected(TripReason::NoRight));
    };
    let is_right = granted.discount_percent.is_none_or(|known| known == trip.discount_percent);
    Some(match is_right && trip.benefit_is_right() {
        false => Standing::Disputed(TripReason::Amount),
        true => Standing::Accepted,
    })
}

fn judge_right(
    trip: &Trip,
    life: RegistryLife,
    right: RegistryRight,
    circumstances: &Circumstances<'_>,
) -> Standing {
    let Circumstances { rules, blocks, .. } = circumstances;
    let at = trip.at();
    let other = trip.category.is_some_and(|category| category != right.category);
    if other || (trip.companion && !right.companion) {
        return Standing::Rejected(TripReason::NoRight);
    }
    let old = at > life.built_at.plus_seconds(BLOCK_EXCUSE_SECONDS);
    if old && blocks.is_blocked(&trip.identifier, at) {
        return Standing::Disputed(TripReason::Blocked);
    }
    let begins = life.built_at.plus_seconds(-TRIP_FUTURE_SECONDS_MAX);
    if at < begins || at > life.valid_until.plus_seconds(rules.grace_seconds) {
        return Standing::Rejected(TripReason::Registry);
    }
    if trip.discount_percent != right.discount_percent || !trip.benefit_is_right() {
        return Standing::Disputed(TripReason::Amount);
    }
    Standing::Accepted
}

/// Judges by the registry as it is now, as if it had been built long before the tap. Rights have dates
/// of their own; a card that is inactive now was active until its block.
fn judge_now(trip: &Trip, circumstances: &Circumstances<'_>) -> Standing {
    let Circumstances { registry, blocks, .. } = circumstances;
    let day = trip.at().local_day(offset_of(registry, trip.organization));
    let no_right = Standing::Rejected(TripReason::NoRight);
    let Some(found) = registry.find(&trip.identifier) else { return no_right };
    let known = blocks.begins_after(&trip.identifier, trip.at())
        || blocks.is_blocked(&trip.identifier, trip.at());
    if !known && !found.holder.is_active(found.card, day) {
        return no_right;
    }
    let directory = registry.directory();
    let carrier = directory.compiled(trip.organization);
    let offer = carrier.and_then(|carrier| carrier.offer(trip.service));
    let Some(offer) = offer.filter(|offer| offer.validity.covers(day)) else {
        return no_right;
    };
    let holds = |candidate: &&Candidate| {
        let mut rights = found.holder.rights().filter(|one| one.category == candidate.category);
        rights.any(|right| right.validity.covers(day)) && candidate.validity.covers(day)
    };
    let Some(winner) = offer.candidates.iter().find(holds) else { return no_right };
    let category = directory.items().categories.get(&winner.category);
    let right = RegistryRight {
        category: winner.category,
        discount_percent: winner.discount_percent,
        companion: category.is_some_and(|category| category.with_companion),
    };
    let ends = Timestamp(i64::MAX);
    let life = RegistryLife { built_at: Timestamp(i64::MIN), valid_until: ends };
    judge_right(trip, life, right, circumstances)
}
