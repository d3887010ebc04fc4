//! Uploads, rulings and claims: what must come of them, kept in plain sets.

use std::collections::{BTreeMap, BTreeSet};

use engine::calendar::Clock;
use engine::ids::OrganizationId;
use engine::trips::book::TripBook;
use engine::trips::claim::{ClaimError, ClaimOrder, Period};
use engine::trips::clerk::UploadScope;
use engine::trips::ruling::{Ruling, RulingOutcome, RulingVerdict};
use engine::trips::trip::{Standing, Trip, TripName, TripOutcome, TripState};
use rand::Rng;
use rand::seq::{IndexedRandom, IteratorRandom};

use crate::simulation::story::Story;

/// Trips that a device may report again.
const TRIPS_MAX: usize = 300;

/// What was acknowledged.
#[derive(Default)]
pub struct Travel {
    /// Every trip that was ever reported.
    sent: Vec<Trip>,
    /// How each stood when it was acknowledged.
    standings: BTreeMap<TripName, Standing>,
    /// What was last decided of disputed trips, as far as that is known.
    rulings: BTreeMap<TripName, RulingVerdict>,
}

impl Story {
    /// Devices report some trips, old ones and new ones.
    pub(crate) fn upload(&mut self) {
        if self.has_failed {
            return;
        }
        let terminals: Vec<(u64, u32)> =
            self.town.terminals.iter().map(|(id, (owner, _))| (*id, *owner)).collect();
        let Some((terminal, owner)) = terminals.first().copied() else { return };
        let count = self.random.random_range(1..12);
        let mut trips = Vec::new();
        for _ in 0..count {
            let known = self.travel.sent.len();
            if known == TRIPS_MAX || (known > 0 && self.random.random_bool(0.3)) {
                trips.push(self.travel.sent[self.random.random_range(0..known)].clone());
                continue;
            }
            let seq = u64::try_from(known).unwrap() + 1;
            let question = self.question();
            let check = question.check();
            let mut trip = crate::trips::trip(seq, "2025-06-02T03:00:00Z", check.identifier);
            (trip.service, trip.category, trip.benefit.0) = (check.service, None, 0);
            trip.discount_percent = *[100, 50, 10].choose(&mut self.random).unwrap();
            trip.name.terminal.0 = terminal;
            trip.organization = OrganizationId(owner);
            trip.device_at = self.clock.now().plus_seconds(self.random.random_range(-5_000..400));
            if self.random.random_bool(0.3) {
                trip.verdict = engine::trips::trip::TripVerdict::DenyUnknown;
            }
            self.travel.sent.push(trip.clone());
            trips.push(trip);
        }
        let organization = trips[0].organization;
        let scope = UploadScope { organization, terminal: None };
        let registry = self.node.partition.registry_full();
        let names: Vec<TripName> = trips.iter().map(|trip| trip.name).collect();
        let outcomes = self.node.upload(&registry, self.clock.now(), (scope, trips));
        self.note(|| format!("upload of {count} trips: {outcomes:?}"));
        self.notice_failure();
        for (name, outcome) in names.into_iter().zip(outcomes) {
            let known = self.travel.standings.get(&name).copied();
            match outcome {
                TripOutcome::Recorded(standing) => {
                    assert_eq!(known, None, "{name:?} was recorded twice");
                    self.travel.standings.insert(name, standing);
                }
                TripOutcome::Duplicate(Some(standing)) => {
                    assert!(known.is_none_or(|known| known == standing), "{name:?} {known:?}");
                    self.travel.standings.insert(name, standing);
                }
                TripOutcome::Refused(_) | TripOutcome::Unavailable => {}
                other => panic!("{other:?} for {name:?}"),
            }
        }
    }

    /// The ministry decides on some trip.
    fn rule(&mut self) {
        let Some(name) = self.travel.standings.keys().copied().choose(&mut self.random) else {
            return;
        };
        let verdict =
            *[RulingVerdict::Accepted, RulingVerdict::Rejected].choose(&mut self.random).unwrap();
        let registry = self.node.partition.registry_full();
        let ruling = Ruling { name, verdict, reason: "act".to_owned() };
        let outcomes = self.node.rule(&registry, self.clock.now(), vec![ruling]);
        self.note(|| format!("{verdict:?} {name:?}: {outcomes:?}"));
        self.notice_failure();
        let is_disputed = matches!(self.travel.standings.get(&name), Some(Standing::Disputed(_)));
        match outcomes.as_slice() {
            [RulingOutcome::Ruled(_)] => {
                assert!(is_disputed);
                self.travel.rulings.insert(name, verdict);
            }
            [RulingOutcome::Unavailable] => {
                self.travel.rulings.remove(&name);
            }
            [RulingOutcome::Claimed] => assert!(is_disputed),
            [RulingOutcome::NotDisputed] => assert!(!is_disputed),
            other => panic!("{other:?} for {name:?}"),
        }
    }

    /// A carrier draws up a claim, or hands one in, or the ministry decides on a trip.
    pub(crate) fn claim(&mut self) {
        if self.has_failed {
            return;
        }
        if self.random.random_bool(0.5) {
            return self.rule();
        }
        let Some(trip) = self.travel.sent.first() else { return };
        let organization = trip.organization;
        let today = self.today();
        let period = Period {
            first: engine::calendar::Day(today - 300),
            last: engine::calendar::Day(today + 60),
        };
        let draft = {
            let book = self.node.clerk().book().read().unwrap();
            book.claims().last().map(|claim| claim.id)
        };
        let order = match draft {
            Some(id) if self.random.random_bool(0.3) => ClaimOrder::Submit(organization, id),
            _ => ClaimOrder::Draft(organization, period),
        };
        let registry = self.node.partition.registry_full();
        let result = self.node.order(&registry, self.clock.now(), order.clone());
        self.note(|| format!("{order:?}: {result:?}"));
        self.notice_failure();
        if let Err(ClaimError::NoSuchTrip) = result {
            panic!("{order:?}: {result:?}");
        }
    }

    fn notice_failure(&mut self) {
        if self.node.partition.has_failed() && !self.has_failed {
            self.failed();
        }
    }

    /// Whatever was acknowledged is in this book, once; claims hold what they say.
    pub(crate) fn audit_trips(&self, book: &TripBook) {
        for (name, standing) in &self.travel.standings {
            let slot = book.slot(*name).unwrap_or_else(|| panic!("{name:?} is lost"));
            assert_eq!(slot.standing, *standing);
        }
        for (name, verdict) in &self.travel.rulings {
            assert_eq!(book.slot(*name).unwrap().ruling, Some(*verdict), "{name:?}");
        }
        assert_eq!(book.slots().count(), book.trip_count());
        assert!(book.trip_count() <= self.travel.sent.len());
        let mut claimed = BTreeSet::new();
        for claim in book.claims() {
            let sum: u64 = claim.lines.iter().map(|line| line.amount.0).sum();
            assert_eq!(claim.totals.total.0, sum);
            for line in &claim.lines {
                assert!(claimed.insert(line.name), "{:?} is claimed twice", line.name);
                let slot = book.slot(line.name).unwrap();
                assert_eq!(slot.claim(), Some(claim.id));
                assert_eq!(slot.state(), TripState::Accepted, "{:?}", line.name);
            }
        }
    }
}
