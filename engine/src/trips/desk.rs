//! The clerk's desk: a bounded queue of uploads, orders and rulings, and the thread that works it off.
//!
//! Queue: [`TRIP_ERRANDS_MAX`] errands with [`TRIPS_WAITING_MAX`] trips together, one more is answered
//! "unavailable" at once. Group: the trips of all uploads that wait, up to [`TRIP_GROUP_MAX`]. Owns the
//! clerk. When the journal fails, the book is read anew before the next errand; if the thread dies,
//! uploads and orders answer "unavailable" until the engine is started again, readiness fails, and
//! nothing is lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use tokio::sync::oneshot;

use crate::answer::{Answer, Reply};
use crate::command::Deadline;
use crate::limits::{TRIP_ERRANDS_MAX, TRIP_GROUP_MAX, TRIPS_WAITING_MAX, UPLOAD_TRIPS_MAX};
use crate::recovery::Extent;
use crate::shard::Submission;
use crate::supervisor::Caretaker;
use crate::trips::block::Blocks;
use crate::trips::book::TripBook;
use crate::trips::claim::{ClaimError, ClaimOrder, ClaimSummary};
use crate::trips::clerk::{Clerk, Knowledge, TripRecords, UploadScope};
use crate::trips::registries::HolderRegistries;
use crate::trips::ruling::{Ruling, RulingOutcome};
use crate::trips::trip::{Trip, TripOutcome};

/// How long a group may wait to become durable.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the thread looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(50);
/// How often what is settled for long is forgotten.
const SWEEP_PERIOD: Duration = Duration::from_secs(6 * 3_600);

/// What somebody wants of the clerk.
enum Errand {
    Change(Change),
    Upload(UploadScope, Vec<Trip>, Deadline, oneshot::Sender<Vec<TripOutcome>>),
}

/// What is worked off by itself.
enum Change {
    Order(ClaimOrder, Deadline, oneshot::Sender<Result<ClaimSummary, ClaimError>>),
    Rule(Vec<Ruling>, Deadline, oneshot::Sender<Vec<RulingOutcome>>),
}

/// The side of the desk that callers see.
pub struct Desk {
    errands: Sender<Errand>,
    waiting: Arc<AtomicUsize>,
    book: Arc<RwLock<TripBook>>,
    /// A std lock: held by the clerk's thread for the length of a group, from plan to `apply`.
    clerk: Arc<Mutex<Clerk>>,
    stopping: AtomicBool,
}

/// The clerk's side.
pub struct Seat {
    clerk: Arc<Mutex<Clerk>>,
    errands: Receiver<Errand>,
    waiting: Arc<AtomicUsize>,
}

/// What the clerk looks things up in.
pub struct Shelf {
    /// The partition and its journal.
    pub caretaker: Arc<Caretaker>,
    /// The blocks of the last import.
    pub blocks: Arc<ArcSwap<Blocks>>,
    /// The holder registries that devices had.
    pub registries: Arc<ArcSwap<Box<dyn HolderRegistries>>>,
}

impl Desk {
    /// A desk for a clerk, and the clerk's seat at it.
    pub fn new(clerk: Clerk) -> (Desk, Seat) {
        let (sender, errands) = crossbeam::channel::bounded(TRIP_ERRANDS_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let book = Arc::clone(clerk.book());
        let clerk = Arc::new(Mutex::new(clerk));
        let seat = Seat { clerk: Arc::clone(&clerk), errands, waiting: Arc::clone(&waiting) };
        let stopping = AtomicBool::new(false);
        (Desk { errands: sender, waiting, book, clerk, stopping }, seat)
    }

    /// Has trips recorded; one outcome for each, in their order.
    pub async fn upload(
        &self,
        scope: UploadScope,
        trips: Vec<Trip>,
        deadline: Deadline,
    ) -> Vec<TripOutcome> {
        let count = trips.len();
        let unavailable = || vec![TripOutcome::Unavailable; count];
        if count == 0 || count > UPLOAD_TRIPS_MAX {
            return unavailable();
        }
        let before = self.waiting.fetch_add(count, Ordering::AcqRel);
        let (reply, answer) = oneshot::channel();
        let errand = Errand::Upload(scope, trips, deadline, reply);
        if before + count > TRIPS_WAITING_MAX || !self.hand_over(errand) {
            self.waiting.fetch_sub(count, Ordering::AcqRel);
            return unavailable();
        }
        match tokio::time::timeout_at(deadline.0.into(), answer).await {
            Ok(Ok(outcomes)) => outcomes,
            _ => unavailable(),
        }
    }

    /// Has a claim changed.
    pub async fn order(
        &self,
        order: ClaimOrder,
        deadline: Deadline,
    ) -> Result<ClaimSummary, ClaimError> {
        let (reply, answer) = oneshot::channel();
        if !self.hand_over(Errand::Change(Change::Order(order, deadline, reply))) {
            return Err(ClaimError::Unavailable);
        }
        match tokio::time::timeout_at(deadline.0.into(), answer).await {
            Ok(Ok(result)) => result,
            _ => Err(ClaimError::Unavailable),
        }
    }

    /// Has disputed trips decided on; one outcome for each ruling, in their order.
    pub async fn rule(&self, rulings: Vec<Ruling>, deadline: Deadline) -> Vec<RulingOutcome> {
        let unavailable = vec![RulingOutcome::Unavailable; rulings.len()];
        let (reply, answer) = oneshot::channel();
        if !self.hand_over(Errand::Change(Change::Rule(rulings, deadline, reply))) {
            return unavailable;
        }
        match tokio::time::timeout_at(deadline.0.into(), answer).await {
            Ok(Ok(outcomes)) => outcomes,
            _ => unavailable,
        }
    }

    /// Runs `act` while everything of trips that is durable stands in the book; none while the end of
    /// an append is unknown.
    pub fn between_groups<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let clerk = lock(&self.clerk);
        (!clerk.is_unresolved()).then(act)
    }

    /// Tells the clerk to finish what waits and go.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The trips and claims.
    pub fn book(&self) -> &Arc<RwLock<TripBook>> {
        &self.book
    }

    /// Trips that wait for the clerk.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn hand_over(&self, errand: Errand) -> bool {
        if self.stopping.load(Ordering::Acquire) {
            return false;
        }
        match self.errands.try_send(errand) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// An upload of a group, and who waits for it.
type Waiting = (UploadScope, Vec<Trip>, oneshot::Sender<Vec<TripOutcome>>);

/// Works for the desk until it stops.
pub fn run(desk: &Desk, mut seat: Seat, shelf: &Shelf) {
    let mut swept = Instant::now();
    let mut errands = VecDeque::new();
    loop {
        match seat.errands.recv_timeout(LOOK) {
            Ok(errand) => errands.push_back(errand),
            Err(RecvTimeoutError::Timeout) if desk.stopping.load(Ordering::Acquire) => return,
            Err(RecvTimeoutError::Timeout) => {
                // Nobody may come any more, and snapshots wait for it.
                resolve(&mut lock(&seat.clerk), shelf);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while !errands.is_empty() {
            errands.extend(seat.errands.try_iter());
            seat.work(&mut errands, shelf);
        }
        if swept.elapsed() > SWEEP_PERIOD {
            swept = Instant::now();
            let now = shelf.caretaker.partition.now();
            lock(&seat.clerk).sweep(now, &mut |records| append(&shelf.caretaker, records));
        }
    }
}

impl Seat {
    /// Works off the uploads up to the next change, or one change.
    fn work(&mut self, errands: &mut VecDeque<Errand>, shelf: &Shelf) {
        let mut group: Vec<Waiting> = Vec::new();
        let mut trip_count = 0;
        while let Some(errand) = errands.pop_front() {
            match errand {
                Errand::Upload(scope, trips, deadline, reply) => {
                    if deadline.passed(Instant::now()) {
                        self.waiting.fetch_sub(trips.len(), Ordering::AcqRel);
                        continue;
                    }
                    trip_count += trips.len();
                    group.push((scope, trips, reply));
                    if trip_count >= TRIP_GROUP_MAX - UPLOAD_TRIPS_MAX {
                        break;
                    }
                }
                Errand::Change(change) if group.is_empty() => return self.change(change, shelf),
                change @ Errand::Change(_) => {
                    errands.push_front(change);
                    break;
                }
            }
        }
        if !group.is_empty() {
            self.record(group, shelf);
            self.waiting.fetch_sub(trip_count, Ordering::AcqRel);
        }
    }

    fn record(&mut self, group: Vec<Waiting>, shelf: &Shelf) {
        let (uploads, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|(scope, trips, reply)| ((scope, trips), reply)).unzip();
        let mut clerk = lock(&self.clerk);
        if !resolve(&mut clerk, shelf) {
            return;
        }
        let outcomes = shelf.look(|knowledge| {
            let append = &mut |records| append(&shelf.caretaker, records);
            clerk.upload(&uploads, knowledge, append)
        });
        for (reply, outcomes) in replies.into_iter().zip(outcomes) {
            // Who uploaded may have gone away; a repeat will be a duplicate.
            let _ = reply.send(outcomes);
        }
    }

    /// Who asked may have gone away.
    fn change(&mut self, change: Change, shelf: &Shelf) {
        match change {
            Change::Order(_, deadline, _) | Change::Rule(_, deadline, _)
                if deadline.passed(Instant::now()) => {}
            Change::Order(order, _, reply) => {
                let _ = reply.send(self.order(order, shelf));
            }
            Change::Rule(rulings, _, reply) => {
                let _ = reply.send(self.rule(rulings, shelf));
            }
        }
    }

    fn rule(&mut self, rulings: Vec<Ruling>, shelf: &Shelf) -> Vec<RulingOutcome> {
        let mut clerk = lock(&self.clerk);
        if !resolve(&mut clerk, shelf) {
            return vec![RulingOutcome::Unavailable; rulings.len()];
        }
        let now = shelf.caretaker.partition.now();
        clerk.rule(rulings, now, &mut |records| append(&shelf.caretaker, records))
    }

    fn order(&mut self, order: ClaimOrder, shelf: &Shelf) -> Result<ClaimSummary, ClaimError> {
        let mut clerk = lock(&self.clerk);
        if !resolve(&mut clerk, shelf) {
            return Err(ClaimError::Unavailable);
        }
        shelf.look(|knowledge| {
            let append = &mut |records| append(&shelf.caretaker, records);
            clerk.order(order, knowledge, append)
        })
    }
}

/// Where the end of an append is unknown: once the journal is back, it tells what happened.
fn resolve(clerk: &mut Clerk, shelf: &Shelf) -> bool {
    if !clerk.is_unresolved() {
        return true;
    }
    let caretaker = &shelf.caretaker;
    // Behind a flush, what was handed over before is in the log or never will be.
    if caretaker.partition.has_failed() || !caretaker.flush(APPEND_TIMEOUT) {
        return false;
    }
    match caretaker.recover(Extent::Trips) {
        Ok(recovered) => {
            clerk.resume(recovered.trips);
            true
        }
        Err(error) => {
            tracing::error!(%error, "the trips cannot be read anew");
            false
        }
    }
}

fn lock(clerk: &Mutex<Clerk>) -> MutexGuard<'_, Clerk> {
    clerk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn look<T>(&self, act: impl FnOnce(&Knowledge<'_>) -> T) -> T {
        let partition = &self.caretaker.partition;
        let (registry, blocks) = (partition.registry_full(), self.blocks.load());
        let registries = self.registries.load();
        act(&Knowledge {
            now: partition.now(),
            registry: &registry,
            blocks: &blocks,
            ledger: partition.ledger(),
            registries: &***registries,
        })
    }
}

/// Hands records to the committer and waits until all of them are durable.
fn append(caretaker: &Caretaker, batches: Vec<TripRecords>) -> bool {
    let (sender, receiver) = crossbeam::channel::bounded(batches.len().max(1));
    let deadline = Instant::now() + APPEND_TIMEOUT;
    let count = batches.len();
    for TripRecords { bytes, count } in batches {
        let sender = sender.clone();
        let reply = Reply::new(move |durable: Option<()>| {
            // The channel has room for every answer.
            let _ = sender.try_send(durable.is_some());
        });
        let answers = vec![Answer::Durable(reply)];
        let submission = Submission { shard: None, records: bytes, record_count: count, answers };
        caretaker.partition.submit(submission);
    }
    (0..count).all(|_| receiver.recv_deadline(deadline).unwrap_or(false))
}
