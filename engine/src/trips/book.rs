//! All trips and claims in memory, live and in recovery changed by the same `apply`.
//!
//! A trip is kept in its stored form behind a slot of 72 bytes that says what finding, claiming and
//! forgetting it need; some 200 bytes together. What is settled for long leaves memory with a sweep;
//! that its number was used is remembered as spans of numbers, which mostly join into one a terminal.
//!
//! Applying anything again, or over a state that has it already, changes nothing (invariant 6):
//! which trips a claim holds is stored with the claim alone, and a claim only moves forward.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::calendar::Timestamp;
use crate::entries::{CutEntry, Entries, push_entry};
use crate::ids::{Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId};
use crate::trips::claim::{Claim, ClaimEvent, ClaimId, ClaimLine, ClaimState, Refusal};
use crate::trips::forgotten::Forgotten;
use crate::trips::ruling::{RecordedRuling, Ruling, RulingEvent, RulingVerdict};
use crate::trips::stored::{StoredTripError, read_trip};
use crate::trips::trip::{
    RecordedTrip, Standing, Trip, TripKey, TripName, TripReason, TripSeq, TripState,
};

mod sweep;

/// All trips and claims.
#[derive(Debug, Default)]
pub struct TripBook {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    names: HashTable<u32>,
    /// Names are chosen by senders: the hash is keyed at random, and nothing depends on its order.
    hasher: RandomState,
    keys: HashMap<TripKey, TripName>,
    forgotten: Forgotten,
    claims: BTreeMap<ClaimId, Claim>,
    rulings: BTreeMap<TripName, RecordedRuling>,
}

/// What is looked at often of a trip.
#[derive(Debug)]
pub struct Slot {
    /// Its name.
    pub name: TripName,
    /// Its content, see [`crate::trips::trip::Trip::content`].
    pub content: u64,
    /// When it happened.
    pub at: Timestamp,
    /// When it came.
    pub received_at: Timestamp,
    stored: Box<[u8]>,
    /// The carrier.
    pub organization: OrganizationId,
    /// A part of the digest: other cards mostly have another one.
    pub card: u32,
    claim: u32,
    /// How it stood when it came.
    pub standing: Standing,
    /// What a person decided of it, where it was disputed.
    pub ruling: Option<RulingVerdict>,
    /// Why no claim can take it any more.
    pub mark: Option<TripReason>,
    /// Whether something was used that a carrier can be paid for.
    pub is_use: bool,
}

impl Slot {
    /// The trip itself.
    pub fn recorded(&self) -> Option<RecordedTrip> {
        // It could be read when it came in.
        read_trip(&self.stored).ok()
    }

    /// The claim that has it.
    pub fn claim(&self) -> Option<ClaimId> {
        (self.claim != 0).then(|| ClaimId(self.claim.into()))
    }

    /// Whether it may count as a use when a claim is drawn up.
    pub fn counts(&self) -> bool {
        self.is_use && self.mark.is_none() && self.state() == TripState::Accepted
    }

    /// How it stands now.
    pub fn state(&self) -> TripState {
        match (self.standing, self.ruling) {
            (Standing::Rejected(_), _) => TripState::Rejected,
            (Standing::Disputed(_), None) => TripState::Disputed,
            (Standing::Disputed(_), Some(RulingVerdict::Rejected)) => TripState::Rejected,
            (Standing::Accepted, _) | (_, Some(RulingVerdict::Accepted)) => TripState::Accepted,
        }
    }
}

impl TripBook {
    /// Enters recorded trips, each an entry of `list`; those that are there already stay as they are.
    pub fn apply_trips(&mut self, list: &[u8]) -> Result<(), TripBookError> {
        Entries::of(list).try_for_each(|entry| self.apply_trip(entry?))
    }

    fn apply_trip(&mut self, stored: &[u8]) -> Result<(), TripBookError> {
        let RecordedTrip { trip, standing, received_at } = read_trip(stored)?;
        if self.slot(trip.name).is_some() || self.forgotten.contains(trip.name) {
            return Ok(());
        }
        let slot = Slot {
            name: trip.name,
            content: trip.content(),
            at: trip.at(),
            received_at,
            stored: stored.into(),
            organization: trip.organization,
            card: card_of(&trip.identifier),
            claim: 0,
            standing,
            ruling: None,
            mark: None,
            is_use: trip.is_use(),
        };
        if let Some(key) = trip.key {
            self.keys.entry(key).or_insert(trip.name);
        }
        let hash = self.hasher.hash_one(trip.name);
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.slots.get_mut(index(at)) {
            *place = Some(slot);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |at: &u32| slot_at(slots, *at).map_or(0, |slot| hasher.hash_one(slot.name));
        self.names.insert_unique(hash, at, rehash);
        Ok(())
    }

    /// Applies an event of a claim.
    pub fn apply_claim(&mut self, event: &ClaimEvent) {
        match event {
            ClaimEvent::Created { id, organization, period, at } => {
                let claim = || Claim::new(*id, *organization, *period, *at);
                self.claims.entry(*id).or_insert_with(claim);
            }
            ClaimEvent::Extended { id, lines, marks } => self.extend(*id, lines, marks),
            ClaimEvent::Submitted { id, at } => {
                self.with_claim(*id, |claim| claim.advance(ClaimState::Submitted, *at));
            }
            ClaimEvent::Processed { id, at, refusals } => {
                self.with_claim(*id, |claim| {
                    if !claim.is_archived {
                        refuse(claim, refusals);
                    }
                    claim.advance(ClaimState::Processed, *at);
                });
            }
            ClaimEvent::Decided { id, at } => {
                self.with_claim(*id, |claim| {
                    if claim.state < ClaimState::Accepted {
                        claim.advance(claim.decision(), *at);
                    }
                });
            }
            ClaimEvent::Paid { id, at } => {
                self.with_claim(*id, |claim| claim.advance(ClaimState::Paid, *at));
            }
            ClaimEvent::Archived { id, totals } => {
                self.with_claim(*id, |claim| {
                    claim.archive();
                    claim.totals = *totals;
                });
            }
        }
    }

    /// Applies rulings.
    pub fn apply_rulings(&mut self, event: &RulingEvent) {
        let mut rejected: BTreeMap<ClaimId, BTreeSet<TripName>> = BTreeMap::new();
        for ruling in &event.rulings {
            let name = ruling.name;
            let Some(slot) = self.slot_mut(name) else { continue };
            slot.ruling = Some(ruling.verdict);
            slot.mark = None;
            let claim = slot.claim().filter(|_| ruling.verdict == RulingVerdict::Rejected);
            if let Some(claim) = claim {
                rejected.entry(claim).or_default().insert(name);
            }
            self.rulings.insert(name, recorded(ruling, event.at));
        }
        for (id, names) in rejected {
            self.release(id, &names);
        }
        self.unmark_beside(&event.revoked);
    }

    /// Takes a claim of a snapshot, before any trip.
    pub fn restore_claim(&mut self, event: &ClaimEvent) {
        match event {
            ClaimEvent::Extended { id, lines, .. } => self.with_claim(*id, |claim| {
                lines.iter().for_each(|line| claim.take(*line));
            }),
            event => self.apply_claim(event),
        }
    }

    /// Takes a mark of a snapshot.
    pub fn restore_mark(&mut self, name: TripName, reason: TripReason) {
        if let Some(slot) = self.slot_mut(name) {
            slot.mark = Some(reason);
        }
    }

    /// Takes a ruling of a snapshot.
    pub fn restore_ruling(&mut self, ruling: &Ruling, at: Timestamp) {
        if let Some(slot) = self.slot_mut(ruling.name) {
            slot.ruling = Some(ruling.verdict);
            self.rulings.insert(ruling.name, recorded(ruling, at));
        }
    }

    /// Takes a span of numbers of a snapshot.
    pub fn restore_forgotten(&mut self, terminal: TerminalId, first: TripSeq, last: TripSeq) {
        self.forgotten.insert(terminal, first, last);
    }

    /// Ties the trips of a snapshot to its claims, once all of it is read.
    pub fn settle(&mut self) {
        for (id, claim) in std::mem::take(&mut self.claims) {
            for line in &claim.lines {
                if let Some(slot) = self.slot_mut(line.name) {
                    slot.claim = number_of(id);
                }
            }
            self.claims.insert(id, claim);
        }
    }

    /// A trip by its name.
    pub fn slot(&self, name: TripName) -> Option<&Slot> {
        slot_at(&self.slots, self.place(name)?)
    }

    /// The trip that the sender named so.
    pub fn name_of(&self, key: &TripKey) -> Option<TripName> {
        self.keys.get(key).copied()
    }

    /// Whether a trip of this name was known and has left memory.
    pub fn is_forgotten(&self, name: TripName) -> bool {
        self.forgotten.contains(name)
    }

    /// All trips.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    /// Those of the trips in the `count` places from `first` on; none behind the last place.
    pub fn slots_from(&self, first: usize, count: usize) -> Option<impl Iterator<Item = &Slot>> {
        let end = first.saturating_add(count).min(self.slots.len());
        let places = self.slots.get(first..end).filter(|places| !places.is_empty())?;
        Some(places.iter().flatten())
    }

    /// What a person decided of a trip.
    pub fn ruling(&self, name: TripName) -> Option<&RecordedRuling> {
        self.rulings.get(&name)
    }

    /// All rulings.
    pub fn rulings(&self) -> impl Iterator<Item = (TripName, &RecordedRuling)> {
        self.rulings.iter().map(|(name, ruling)| (*name, ruling))
    }

    /// How many trips are in memory.
    pub fn trip_count(&self) -> usize {
        self.names.len()
    }

    /// A claim.
    pub fn claim(&self, id: ClaimId) -> Option<&Claim> {
        self.claims.get(&id)
    }

    /// All claims, by number.
    pub fn claims(&self) -> impl DoubleEndedIterator<Item = &Claim> {
        self.claims.values()
    }

    /// How many claims there are.
    pub fn claim_count(&self) -> usize {
        self.claims.len()
    }

    /// The number of the next claim.
    pub fn next_claim(&self) -> ClaimId {
        ClaimId(self.claims.last_key_value().map_or(0, |(id, _)| id.0) + 1)
    }

    /// Trips from slot `from` on as a list of some `bytes_max` bytes, and the slot to go on with; none
    /// behind the last one.
    pub fn stored_from(&self, from: usize, bytes_max: usize) -> Option<(Vec<u8>, usize)> {
        let mut list = Vec::with_capacity(bytes_max + bytes_max / 8);
        let mut at = from;
        while list.len() < bytes_max {
            let Some(slot) = self.slots.get(at) else { break };
            if let Some(slot) = slot {
                push_entry(&mut list, |out| out.extend_from_slice(&slot.stored));
            }
            at += 1;
        }
        (at > from).then_some((list, at))
    }

    /// The spans of numbers of trips that have left memory.
    pub fn forgotten(&self) -> impl Iterator<Item = (TerminalId, TripSeq, TripSeq)> {
        self.forgotten.spans()
    }

    fn extend(&mut self, id: ClaimId, lines: &[ClaimLine], marks: &[(TripName, TripReason)]) {
        let Some(mut claim) = self.claims.remove(&id) else { return };
        // One that was handed in has all its lines: what comes again has left it since.
        let is_draft = claim.state == ClaimState::Draft;
        for line in lines {
            match self.slot_mut(line.name) {
                Some(slot) if slot.claim == 0 && is_draft => {
                    slot.claim = number_of(id);
                    claim.take(*line);
                }
                _ => {}
            }
        }
        self.claims.insert(id, claim);
        marks.iter().for_each(|(name, reason)| self.restore_mark(*name, *reason));
    }

    /// Takes rejected trips out of a draft. A claim that was handed in keeps what it has: then this was
    /// applied before, and the trips have been accepted again since.
    fn release(&mut self, id: ClaimId, names: &BTreeSet<TripName>) {
        let Some(claim) = self.claims.get_mut(&id) else { return };
        if claim.state > ClaimState::Draft {
            return;
        }
        claim.release(names);
        for name in names {
            if let Some(slot) = self.slot_mut(*name) {
                slot.claim = 0;
            }
        }
    }

    /// Lets trips be looked at again, when the next claim is drawn up, that may not have counted
    /// because of these: of the same cards or transactions, or past a limit of the same service, which
    /// counts all cards of a holder.
    fn unmark_beside(&mut self, names: &[TripName]) {
        let trips: Vec<Trip> =
            names.iter().filter_map(|name| Some(self.slot(*name)?.recorded()?.trip)).collect();
        if trips.is_empty() {
            return;
        }
        let cards: HashSet<u32> = trips.iter().map(|trip| card_of(&trip.identifier)).collect();
        let services: HashSet<ServiceId> = trips.iter().map(|trip| trip.service).collect();
        let transactions: HashSet<TransactionId> =
            trips.iter().flat_map(Trip::transactions).collect();
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.mark.is_some()) {
            let is_limit = slot.mark == Some(TripReason::Limit);
            let is_beside = |trip: &Trip| {
                is_limit && services.contains(&trip.service)
                    || trip.transactions().any(|id| transactions.contains(&id))
            };
            if cards.contains(&slot.card)
                || slot.recorded().is_some_and(|recorded| is_beside(&recorded.trip))
            {
                slot.mark = None;
            }
        }
    }

    fn with_claim(&mut self, id: ClaimId, change: impl FnOnce(&mut Claim)) {
        if let Some(claim) = self.claims.get_mut(&id) {
            change(claim);
        }
    }

    fn forget(&mut self, name: TripName) {
        let hash = self.hasher.hash_one(name);
        let slots = &self.slots;
        let is = |at: &u32| slot_at(slots, *at).is_some_and(|slot| slot.name == name);
        let Ok(found) = self.names.find_entry(hash, is) else { return };
        let (at, _) = found.remove();
        let slot = self.slots.get_mut(index(at)).and_then(Option::take);
        if let Some(key) = slot.and_then(|slot| slot.recorded()?.trip.key) {
            self.keys.remove(&key);
        }
        self.free.push(at);
        self.rulings.remove(&name);
        self.forgotten.insert(name.terminal, name.seq, name.seq);
    }

    fn slot_mut(&mut self, name: TripName) -> Option<&mut Slot> {
        let at = self.place(name)?;
        self.slots.get_mut(index(at))?.as_mut()
    }

    fn place(&self, name: TripName) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let is = |at: &u32| slot_at(&self.slots, *at).is_some_and(|slot| slot.name == name);
        self.names.find(hash, is).copied()
    }
}

fn recorded(ruling: &Ruling, at: Timestamp) -> RecordedRuling {
    RecordedRuling { verdict: ruling.verdict, reason: ruling.reason.clone(), at }
}

fn refuse(claim: &mut Claim, refusals: &[Refusal]) {
    let wanted: BTreeMap<TripName, &Refusal> =
        refusals.iter().map(|refusal| (refusal.name, refusal)).collect();
    if wanted.is_empty() {
        return;
    }
    let amounts: Vec<(Refusal, Kopecks)> = claim
        .lines
        .iter()
        .filter_map(|line| Some(((*wanted.get(&line.name)?).clone(), line.amount)))
        .collect();
    claim.refuse(amounts.into_iter());
}

/// The part of a digest that a slot keeps.
pub fn card_of(identifier: &crate::identifier::Digest) -> u32 {
    u32::try_from(identifier.spread() >> 32).unwrap_or_default()
}

fn slot_at(slots: &[Option<Slot>], at: u32) -> Option<&Slot> {
    slots.get(index(at))?.as_ref()
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn number_of(id: ClaimId) -> u32 {
    u32::try_from(id.0).unwrap_or(u32::MAX)
}

/// Why stored trips cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum TripBookError {
    /// The list ends in the middle of an entry.
    #[error("a list of trips ends in the middle of an entry")]
    Cut(#[from] CutEntry),
    /// An entry cannot be read.
    #[error("a stored trip cannot be read")]
    Stored(#[from] StoredTripError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Option<Slot>>() <= 80, "{}", size_of::<Option<Slot>>());
    }
}
