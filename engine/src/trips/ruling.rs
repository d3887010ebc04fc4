//! Rulings: what a person decides of disputed trips (catalogue §6.6).
//!
//! A disputed trip is paid for only once it was accepted. A ruling may be changed until a claim with
//! the trip was handed in; a trip that is rejected after all leaves its draft, and what nobody was to
//! be paid for because of it is looked at again. How the trip stood when it came stays as it is.

use std::collections::HashMap;

use crate::calendar::Timestamp;
use crate::trips::book::TripBook;
use crate::trips::claim::ClaimState;
use crate::trips::trip::{Standing, TripName};

/// What somebody decides of a disputed trip.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruling {
    /// The trip.
    pub name: TripName,
    /// What of it.
    pub verdict: RulingVerdict,
    /// Why, for the carrier to read.
    pub reason: String,
}

/// Whether a disputed trip is paid for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RulingVerdict {
    /// It may be claimed.
    Accepted,
    /// It may not.
    Rejected,
}

/// A ruling that counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedRuling {
    /// What of the trip.
    pub verdict: RulingVerdict,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Rulings that were given together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RulingEvent {
    /// When.
    pub at: Timestamp,
    /// They, the last one of a trip counts.
    pub rulings: Vec<Ruling>,
    /// Those of the trips that were accepted before and are rejected now.
    pub revoked: Vec<TripName>,
}

/// What became of a ruling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RulingOutcome {
    /// Otherwise ruled before, and a claim with the trip was handed in.
    Claimed,
    /// The trip was not disputed when it came.
    NotDisputed,
    /// There is no such trip, or not any more.
    NotFound,
    /// It counts; one that says the same as before leaves the first reason.
    Ruled(RulingVerdict),
    /// It cannot be recorded now.
    Unavailable,
}

/// Decides which rulings count, each beside those before it.
#[derive(Debug, Default)]
pub struct RulingPlan {
    verdicts: HashMap<TripName, RulingVerdict>,
    rulings: Vec<Ruling>,
    revoked: Vec<TripName>,
}

impl RulingPlan {
    /// Takes a ruling.
    pub fn take(&mut self, book: &TripBook, ruling: Ruling) -> RulingOutcome {
        let Ruling { name, verdict, .. } = ruling;
        let Some(slot) = book.slot(name) else { return RulingOutcome::NotFound };
        if !matches!(slot.standing, Standing::Disputed(_)) {
            return RulingOutcome::NotDisputed;
        }
        let before = self.verdicts.get(&name).copied().or(slot.ruling);
        if before == Some(verdict) {
            return RulingOutcome::Ruled(verdict);
        }
        let claim = slot.claim().and_then(|id| book.claim(id));
        if claim.is_some_and(|claim| claim.state > ClaimState::Draft) {
            return RulingOutcome::Claimed;
        }
        self.verdicts.insert(name, verdict);
        self.revoked
            .extend(before.filter(|before| *before == RulingVerdict::Accepted).map(|_| name));
        self.rulings.push(ruling);
        RulingOutcome::Ruled(verdict)
    }

    /// What is to be recorded, in events of at most `rulings_max` rulings.
    pub fn into_events(self, at: Timestamp, rulings_max: usize) -> Vec<RulingEvent> {
        let chunks = self.rulings.chunks(rulings_max);
        let mut events: Vec<RulingEvent> = chunks
            .map(|rulings| RulingEvent { at, rulings: rulings.to_vec(), revoked: Vec::new() })
            .collect();
        // The last one: by then all of them are applied.
        if let Some(last) = events.last_mut() {
            last.revoked = self.revoked;
        }
        events
    }
}
