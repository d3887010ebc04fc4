//! The clerk: the one writer of trips, rulings and claims.
//!
//! Plans against the book and what was planned before in the same group, has the records made durable,
//! and only then applies them. After an append whose end is unknown nothing more is planned until the
//! book was read anew from the journal ([`Clerk::resume`]); the answers of that group are
//! "unavailable", and a repeat finds what became of it.
//!
//! Knows nothing of queues, threads and disks: `append` makes records durable or returns false.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::calendar::Timestamp;
use crate::entries::push_entry;
use crate::ids::{OrganizationId, TerminalId};
use crate::ledger::Ledger;
use crate::limits::{
    CLAIM_LINES_PER_RECORD, CLAIMS_MAX, REFUSALS_PER_RECORD, RULINGS_MAX, RULINGS_PER_RECORD,
    TRIP_BATCH_BYTES, TRIP_LATE_SECONDS, TRIP_RECORD_BYTES,
};
use crate::record::{Record, TripList};
use crate::registry::Registry;
use crate::trips::block::Blocks;
use crate::trips::book::TripBook;
use crate::trips::claim::{
    ClaimError, ClaimEvent, ClaimId, ClaimOrder, ClaimState, ClaimSummary, Period,
};
use crate::trips::evaluation::{Scope, evaluate};
use crate::trips::judge::{Circumstances, TripRules, judge};
use crate::trips::registries::HolderRegistries;
use crate::trips::ruling::{Ruling, RulingOutcome, RulingPlan};
use crate::trips::stored::write_trip;
use crate::trips::trip::{
    RecordedTrip, Standing, Trip, TripKey, TripName, TripOutcome, TripReason,
};

/// Who uploads, and for which terminals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UploadScope {
    /// The carrier.
    pub organization: OrganizationId,
    /// The only terminal that may be spoken for; without one, all of the carrier's.
    pub terminal: Option<TerminalId>,
}

/// What the clerk must know to decide.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    /// The engine's clock.
    pub now: Timestamp,
    /// The registry.
    pub registry: &'a Registry,
    /// Since when cards are blocked.
    pub blocks: &'a Blocks,
    /// The transactions.
    pub ledger: &'a Ledger,
    /// The holder registries that devices had.
    pub registries: &'a dyn HolderRegistries,
}

/// Records for a frame, in stored form.
#[derive(Debug, Default)]
pub struct TripRecords {
    /// The records, each behind its length.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub count: u32,
}

/// Makes all records durable, or returns false where that is not known of all of them.
pub type Append<'a> = &'a mut dyn FnMut(Vec<TripRecords>) -> bool;

/// The writer of trips and claims.
pub struct Clerk {
    /// A std lock: held for writing by the clerk alone, for the moment of an `apply`.
    book: Arc<RwLock<TripBook>>,
    rules: TripRules,
    trips_max: usize,
    is_unresolved: bool,
}

impl Clerk {
    /// A clerk who goes on from a recovered book.
    pub fn new(book: TripBook, rules: TripRules, trips_max: usize) -> Clerk {
        Clerk { book: Arc::new(RwLock::new(book)), rules, trips_max, is_unresolved: false }
    }

    /// Goes on from what the journal knows.
    pub fn resume(&mut self, book: TripBook) {
        *write(&self.book) = book;
        self.is_unresolved = false;
    }

    /// Records the trips of uploads, in their order.
    pub fn upload(
        &mut self,
        uploads: &[(UploadScope, Vec<Trip>)],
        knowledge: &Knowledge<'_>,
        append: Append<'_>,
    ) -> Vec<Vec<TripOutcome>> {
        let unavailable = || {
            let all = |(_, trips): &(_, Vec<Trip>)| vec![TripOutcome::Unavailable; trips.len()];
            uploads.iter().map(all).collect()
        };
        if self.is_unresolved {
            return unavailable();
        }
        let book = Arc::clone(&self.book);
        let mut group = Group::new(self.rules, self.trips_max);
        let outcomes: Vec<Vec<TripOutcome>> = {
            let book = read(&book);
            let plan = |(scope, trips): &(UploadScope, Vec<Trip>)| {
                trips.iter().map(|trip| group.plan(&book, *scope, trip, knowledge)).collect()
            };
            uploads.iter().map(plan).collect()
        };
        let lists = group.into_lists();
        if lists.is_empty() {
            return outcomes;
        }
        if !append(records_of(&lists)) {
            self.is_unresolved = true;
            return unavailable();
        }
        let mut book = write(&book);
        for list in &lists {
            if let Err(error) = book.apply_trips(&list.bytes) {
                tracing::error!(%error, "recorded trips cannot be read back");
            }
        }
        outcomes
    }

    /// Changes a claim.
    pub fn order(
        &mut self,
        order: ClaimOrder,
        knowledge: &Knowledge<'_>,
        append: Append<'_>,
    ) -> Result<ClaimSummary, ClaimError> {
        if self.is_unresolved {
            return Err(ClaimError::Unavailable);
        }
        let (id, events) = self.plan_order(order, knowledge)?;
        let batches = batches_of(events.iter().map(|event| Record::Claim(event.clone())));
        if !batches.is_empty() && !append(batches) {
            self.is_unresolved = true;
            return Err(ClaimError::Unavailable);
        }
        let mut book = write(&self.book);
        events.iter().for_each(|event| book.apply_claim(event));
        book.claim(id).map(|claim| claim.summary()).ok_or(ClaimError::NotFound)
    }

    /// Records rulings, each by itself; at most [`RULINGS_MAX`] together.
    pub fn rule(
        &mut self,
        rulings: Vec<Ruling>,
        now: Timestamp,
        append: Append<'_>,
    ) -> Vec<RulingOutcome> {
        let unavailable = vec![RulingOutcome::Unavailable; rulings.len()];
        if self.is_unresolved || rulings.len() > RULINGS_MAX {
            return unavailable;
        }
        let mut plan = RulingPlan::default();
        let outcomes = {
            let book = read(&self.book);
            rulings.into_iter().map(|ruling| plan.take(&book, ruling)).collect()
        };
        let events = plan.into_events(now, RULINGS_PER_RECORD);
        let batches = batches_of(events.iter().map(|event| Record::Rulings(event.clone())));
        if !batches.is_empty() && !append(batches) {
            self.is_unresolved = true;
            return unavailable;
        }
        let mut book = write(&self.book);
        events.iter().for_each(|event| book.apply_rulings(event));
        outcomes
    }

    /// Forgets what has been settled for long; whether that is durable.
    pub fn sweep(&mut self, now: Timestamp, append: Append<'_>) -> bool {
        if self.is_unresolved {
            return false;
        }
        let mut records = TripRecords { count: 1, ..TripRecords::default() };
        Record::TripsSwept(now).push(&mut records.bytes);
        if !append(vec![records]) {
            self.is_unresolved = true;
            return false;
        }
        write(&self.book).apply_sweep(now);
        true
    }

    /// Whether only the journal knows how the last append ended.
    pub fn is_unresolved(&self) -> bool {
        self.is_unresolved
    }

    /// The trips and claims, for readers.
    pub fn book(&self) -> &Arc<RwLock<TripBook>> {
        &self.book
    }

    fn plan_order(
        &self,
        order: ClaimOrder,
        knowledge: &Knowledge<'_>,
    ) -> Result<(ClaimId, Vec<ClaimEvent>), ClaimError> {
        use ClaimState::{Accepted, Draft, Paid, PartlyRefused, Processed, Submitted};
        let book = read(&self.book);
        let at = knowledge.now;
        // What was done before is done: a repeat gets the first answer (invariant 9).
        let (id, events) = match order {
            ClaimOrder::Draft(organization, period) => {
                return self.plan_draft(&book, organization, period, knowledge);
            }
            ClaimOrder::Submit(organization, id) => {
                let claim = book.claim(id).filter(|claim| claim.organization == organization);
                let claim = claim.ok_or(ClaimError::NotFound)?;
                let event = ClaimEvent::Submitted { id, at };
                match claim.state {
                    Draft if !claim.lines.is_empty() => (id, vec![event]),
                    Submitted => (id, Vec::new()),
                    _ => return Err(ClaimError::WrongState),
                }
            }
            ClaimOrder::Process(id, refusals) => {
                if !matches!(state_of(&book, id)?, Submitted | Processed) {
                    return Err(ClaimError::WrongState);
                }
                let has = |name| book.slot(name).is_some_and(|slot| slot.claim() == Some(id));
                if !refusals.iter().all(|refusal| has(refusal.name)) {
                    return Err(ClaimError::NoSuchTrip);
                }
                let event = |refusals| ClaimEvent::Processed { id, at, refusals };
                let mut events: Vec<ClaimEvent> = refusals
                    .chunks(REFUSALS_PER_RECORD)
                    .map(|chunk| event(chunk.to_vec()))
                    .collect();
                if events.is_empty() {
                    events.push(event(Vec::new()));
                }
                (id, events)
            }
            ClaimOrder::Accept(id) => match state_of(&book, id)? {
                Processed => (id, vec![ClaimEvent::Decided { id, at }]),
                Accepted | PartlyRefused => (id, Vec::new()),
                _ => return Err(ClaimError::WrongState),
            },
            ClaimOrder::Pay(id) => match state_of(&book, id)? {
                Accepted | PartlyRefused => (id, vec![ClaimEvent::Paid { id, at }]),
                Paid => (id, Vec::new()),
                _ => return Err(ClaimError::WrongState),
            },
        };
        Ok((id, events))
    }

    /// The draft of this period, made where there is none, takes every trip that is owed and in no
    /// claim yet.
    fn plan_draft(
        &self,
        book: &TripBook,
        organization: OrganizationId,
        period: Period,
        knowledge: &Knowledge<'_>,
    ) -> Result<(ClaimId, Vec<ClaimEvent>), ClaimError> {
        let mut events = Vec::new();
        let draft = book.claims().rev().find(|claim| {
            claim.organization == organization
                && claim.period == period
                && claim.state == ClaimState::Draft
        });
        let id = match draft {
            Some(draft) => draft.id,
            None if book.claim_count() >= CLAIMS_MAX => return Err(ClaimError::Unavailable),
            None => {
                let (id, at) = (book.next_claim(), knowledge.now);
                events.push(ClaimEvent::Created { id, organization, period, at });
                id
            }
        };
        let registry = knowledge.registry;
        let found = evaluate(book, &Scope { organization, period, registry, rules: self.rules });
        let lines = found.lines.chunks(CLAIM_LINES_PER_RECORD);
        events.extend(lines.map(|lines| ClaimEvent::Extended {
            id,
            lines: lines.to_vec(),
            marks: Vec::new(),
        }));
        let marks = found.marks.chunks(CLAIM_LINES_PER_RECORD);
        events.extend(marks.map(|marks| ClaimEvent::Extended {
            id,
            lines: Vec::new(),
            marks: marks.to_vec(),
        }));
        Ok((id, events))
    }
}

/// Where a claim stands that the ministry may know of.
fn state_of(book: &TripBook, id: ClaimId) -> Result<ClaimState, ClaimError> {
    let state = book.claim(id).map(|claim| claim.state);
    state.filter(|state| *state > ClaimState::Draft).ok_or(ClaimError::NotFound)
}

/// What was planned since the last append.
struct Group {
    rules: TripRules,
    room: usize,
    names: HashMap<TripName, (u64, Standing)>,
    keys: HashMap<TripKey, TripName>,
    lists: Vec<TripList>,
}

impl Group {
    fn new(rules: TripRules, trips_max: usize) -> Group {
        Group {
            rules,
            room: trips_max,
            names: HashMap::new(),
            keys: HashMap::new(),
            lists: Vec::new(),
        }
    }

    fn plan(
        &mut self,
        book: &TripBook,
        scope: UploadScope,
        trip: &Trip,
        knowledge: &Knowledge<'_>,
    ) -> TripOutcome {
        let name = trip.name;
        let terminal = knowledge.registry.directory().terminal(name.terminal);
        let is_own = terminal.is_some_and(|known| known.organization == scope.organization)
            && scope.terminal.is_none_or(|terminal| terminal == name.terminal);
        if !is_own || trip.organization != scope.organization {
            return TripOutcome::Refused(TripReason::Terminal);
        }
        if name.seq.0 == 0 {
            return TripOutcome::Refused(TripReason::Malformed);
        }
        if let Some(known) = self.known(book, trip, knowledge.now) {
            return known;
        }
        if book.trip_count() + self.names.len() >= self.room {
            return TripOutcome::Unavailable;
        }
        let circumstances = Circumstances {
            now: knowledge.now,
            registry: knowledge.registry,
            rules: self.rules,
            blocks: knowledge.blocks,
            ledger: knowledge.ledger,
            registries: knowledge.registries,
        };
        let Some(standing) = judge(trip, &circumstances) else { return TripOutcome::Unavailable };
        self.names.insert(name, (content_of(trip), standing));
        self.keys.extend(trip.key.map(|key| (key, name)));
        let mut trip = trip.clone();
        trip.clip();
        self.push(&RecordedTrip { trip, standing, received_at: knowledge.now });
        TripOutcome::Recorded(standing)
    }

    /// What is answered where the name or the key was used before. A trip that carries the key of
    /// another one is a repeat if their names are all that differs.
    fn known(&self, book: &TripBook, trip: &Trip, now: Timestamp) -> Option<TripOutcome> {
        if let Some(known) = self.named(book, trip.name) {
            return Some(repeat_or_conflict(trip, known));
        }
        if book.is_forgotten(trip.name) {
            // What was forgotten was recorded longer ago than this: a younger trip comes from a device
            // that has lost its disk and begun its numbers again.
            let is_old = trip.at() < now.plus_seconds(-TRIP_LATE_SECONDS);
            return Some(if is_old { TripOutcome::Duplicate(None) } else { TripOutcome::Conflict });
        }
        let key = trip.key.as_ref()?;
        let name = self.keys.get(key).copied().or_else(|| book.name_of(key))?;
        let renamed = Trip { name, ..trip.clone() };
        Some(
            self.named(book, name)
                .map_or(TripOutcome::Conflict, |known| repeat_or_conflict(&renamed, known)),
        )
    }

    /// The content and the standing of the trip of this name.
    fn named(&self, book: &TripBook, name: TripName) -> Option<(u64, Standing)> {
        let planned = self.names.get(&name).copied();
        planned.or_else(|| book.slot(name).map(|slot| (slot.content, slot.standing)))
    }

    fn push(&mut self, recorded: &RecordedTrip) {
        if self.lists.last().is_none_or(|list| list.bytes.len() >= TRIP_RECORD_BYTES) {
            let bytes = Vec::with_capacity(TRIP_RECORD_BYTES + 1_024);
            self.lists.push(TripList { bytes });
        }
        if let Some(list) = self.lists.last_mut() {
            push_entry(&mut list.bytes, |out| write_trip(recorded, out));
        }
    }

    fn into_lists(self) -> Vec<TripList> {
        self.lists
    }
}

fn repeat_or_conflict(trip: &Trip, (content, standing): (u64, Standing)) -> TripOutcome {
    if content == content_of(trip) {
        TripOutcome::Duplicate(Some(standing))
    } else {
        TripOutcome::Conflict
    }
}

/// The content of a trip as it would be kept.
fn content_of(trip: &Trip) -> u64 {
    if trip.is_well_formed() {
        return trip.content();
    }
    let mut clipped = trip.clone();
    clipped.clip();
    clipped.content()
}

fn batches_of(records: impl Iterator<Item = Record>) -> Vec<TripRecords> {
    let mut batch = TripRecords::default();
    let mut batches = Vec::new();
    for record in records {
        record.push(&mut batch.bytes);
        batch.count += 1;
        if batch.bytes.len() > TRIP_BATCH_BYTES {
            batches.push(std::mem::take(&mut batch));
        }
    }
    batches.extend((batch.count > 0).then_some(batch));
    batches
}

fn records_of(lists: &[TripList]) -> Vec<TripRecords> {
    let mut batches: Vec<TripRecords> = Vec::new();
    for list in lists {
        if batches.last().is_none_or(|batch| batch.bytes.len() >= TRIP_BATCH_BYTES) {
            batches.push(TripRecords::default());
        }
        if let Some(batch) = batches.last_mut() {
            Record::push_trips(&list.bytes, &mut batch.bytes);
            batch.count += 1;
        }
    }
    batches
}

fn read(book: &RwLock<TripBook>) -> RwLockReadGuard<'_, TripBook> {
    book.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(book: &RwLock<TripBook>) -> RwLockWriteGuard<'_, TripBook> {
    book.write().unwrap_or_else(PoisonError::into_inner)
}
