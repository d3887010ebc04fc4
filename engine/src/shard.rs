//! A shard: the mailbox that callers fill and the worker that empties it in batches.
//!
//! Owns the settling of the transactions of its holders. Mailbox: [`MAILBOX_COMMANDS_MAX`] commands,
//! one more is answered Unavailable at once. Batch: up to [`SHARD_BATCH_COMMANDS_MAX`] commands, up to
//! [`SHARD_BATCHES_IN_FLIGHT_MAX`] batches with the committer. The supervisor restarts a dead or
//! stuck worker from the journal; the commands in its hands are lost, unanswered ones get Unavailable.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;

use crate::answer::{Answer, Reply};
use crate::command::{Cancel, Check, CheckAnswer, Confirm, Deadline, SettleAnswer};
use crate::ids::ShardId;
use crate::ledger::BatchMark;
use crate::limits::{MAILBOX_COMMANDS_MAX, SHARD_BATCH_COMMANDS_MAX, SHARD_BATCHES_IN_FLIGHT_MAX};
use crate::partition::Partition;
use crate::plan::{Plan, plan_cancel, plan_confirm};
use crate::postbox;
use crate::record::Record;
use crate::shard_actor::Fault;
use crate::status::ShardStatus;
use crate::transaction::{Amounts, Confirmation, Event};

/// A worker that takes nothing for so long although commands wait is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Room made for each record of a batch: a confirmation and its length.
const RECORD_BYTES_USUAL: usize = 80;

/// What a shard is asked to do.
pub enum ShardCommand {
    /// Cancel a transaction.
    Cancel(Cancel, Deadline, Reply<SettleAnswer>),
    /// Confirm a transaction.
    Confirm(Confirm, Deadline, Reply<SettleAnswer>),
    /// Decide a check and record it as delivered (C-07).
    Record(Check, Amounts, Deadline, Reply<CheckAnswer>),
}

/// Reaches whoever works for a shard.
pub trait WorkerHandle: Send + Sync {
    /// Tells it to look into the mailbox; false when nobody is there to hear it.
    fn wake(&self) -> bool;

    /// Whether somebody is there.
    fn is_alive(&self) -> bool;

    /// Lets it fail, for tests of the supervisor.
    fn inject(&self, fault: Fault);
}

/// The part of a shard that callers, committer and supervisor see.
pub struct Shard {
    id: ShardId,
    mailbox: ArrayQueue<ShardCommand>,
    worker: ArcSwapOption<Box<dyn WorkerHandle>>,
    signalled: AtomicBool,
    up: AtomicBool,
    /// Raised whenever the worker is replaced; an older worker stops at its next command.
    generation: AtomicU64,
    /// The generation of the last worker that was put in charge.
    employed: AtomicU64,
    /// Commands taken so far; a full mailbox while this stands still means "stuck".
    taken: AtomicU64,
    batches_in_flight: AtomicUsize,
    next_mark: AtomicU64,
    durable_mark: AtomicU64,
    /// Batches before this one were in the hands of workers that were abandoned; what such a worker
    /// applies afterwards is never durable.
    first_mark: AtomicU64,
    /// Held while a batch is worked on, so that recovery and snapshots see whole batches. A std
    /// lock: its holder never awaits. Replaced when a worker is stuck inside it. The outer one is held
    /// for the moment in which a batch is handed over or another worker put in charge.
    working: Mutex<Arc<Mutex<()>>>,
}

impl Shard {
    /// A shard without a worker.
    pub fn new(id: ShardId) -> Shard {
        Shard {
            id,
            mailbox: ArrayQueue::new(MAILBOX_COMMANDS_MAX),
            worker: ArcSwapOption::empty(),
            signalled: AtomicBool::new(false),
            up: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            employed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            batches_in_flight: AtomicUsize::new(0),
            next_mark: AtomicU64::new(1),
            durable_mark: AtomicU64::new(0),
            first_mark: AtomicU64::new(0),
            working: Mutex::new(Arc::new(Mutex::new(()))),
        }
    }

    /// Hands over a command; a shard that is down or full answers Unavailable at once.
    pub fn submit(self: &Arc<Shard>, command: ShardCommand) {
        if !self.is_up() {
            return command.refuse();
        }
        if let Err(command) = self.mailbox.push(command) {
            return command.refuse();
        }
        // The worker could do nothing now, and is woken when a batch ends. Either that end sees the
        // command, or this sees the end: both look only after they have changed their part.
        fence(Ordering::SeqCst);
        if self.batches_in_flight.load(Ordering::Relaxed) < SHARD_BATCHES_IN_FLIGHT_MAX {
            postbox::wake_gathered(self);
        }
    }

    /// Lets the worker look into the mailbox, if it was not told to already.
    pub fn wake(&self) {
        if self.signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        let heard = self.worker.load().as_ref().is_some_and(|worker| worker.wake());
        if !heard {
            self.signalled.store(false, Ordering::Release);
        }
    }

    /// Called by the committer when the fate of a batch is known.
    pub fn batch_ended(&self, mark: BatchMark, durable: bool) {
        if durable {
            self.durable_mark.fetch_max(mark.number, Ordering::Release);
        }
        let before = self.batches_in_flight.fetch_sub(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if before >= SHARD_BATCHES_IN_FLIGHT_MAX && !self.mailbox.is_empty() {
            self.wake();
        }
    }

    /// Begins the generation of the next worker; a former worker stops at its next command.
    pub fn start_generation(&self) -> u64 {
        let _working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.employed.store(generation, Ordering::Release);
        generation
    }

    /// The generation in charge; none where its worker was abandoned and what it left behind is not
    /// undone yet.
    pub fn generation_in_charge(&self) -> Option<u64> {
        let _working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Acquire);
        (self.employed.load(Ordering::Acquire) == generation).then_some(generation)
    }

    /// Puts a worker in charge.
    pub fn employ(&self, worker: Box<dyn WorkerHandle>) {
        self.worker.store(Some(Arc::new(worker)));
        self.signalled.store(false, Ordering::Release);
    }

    /// Lets commands in.
    pub fn open(&self) {
        self.up.store(true, Ordering::Release);
    }

    /// Keeps commands out and refuses those that wait.
    pub fn close(&self) {
        self.up.store(false, Ordering::Release);
        self.refuse_waiting();
    }

    fn refuse_waiting(&self) {
        while let Some(command) = self.mailbox.pop() {
            command.refuse();
        }
    }

    /// Abandons a worker that does not come back from its batch.
    pub fn abandon_worker(&self) {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.first_mark.store(self.next_mark.load(Ordering::Acquire), Ordering::Release);
        *working = Arc::new(Mutex::new(()));
    }

    /// Runs `act` while no batch is being worked on. A worker that died in its batch is abandoned, and
    /// one that does not come back from it for [`STUCK_AFTER`].
    pub fn between_batches<T>(&self, act: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        loop {
            let working = self.working();
            let guard = match working.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(_)) => {
                    self.abandon_worker();
                    continue;
                }
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(guard) = guard {
                let result = act();
                drop(guard);
                return result;
            }
            if begun.elapsed() > STUCK_AFTER {
                self.abandon_worker();
            }
            std::thread::yield_now();
        }
    }

    /// Whether commands are taken.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Whether somebody works for it.
    pub fn has_worker(&self) -> bool {
        self.worker.load().as_ref().is_some_and(|worker| worker.is_alive())
    }

    /// Lets the worker fail, for tests of the supervisor.
    pub fn inject(&self, fault: Fault) {
        if let Some(worker) = self.worker.load().as_ref() {
            worker.inject(fault);
        }
    }

    /// Lets the worker go.
    pub fn dismiss(&self) {
        self.worker.store(None);
    }

    /// How it is.
    pub fn status(&self) -> ShardStatus {
        ShardStatus { waiting: self.waiting(), up: self.is_up() }
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Commands that wait.
    pub fn waiting(&self) -> usize {
        self.mailbox.len()
    }

    /// Whether commands wait only because enough batches are with the committer.
    pub fn is_committing(&self) -> bool {
        self.batches_in_flight.load(Ordering::Acquire) >= SHARD_BATCHES_IN_FLIGHT_MAX
    }

    /// Commands taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether an event with this mark is durable.
    pub fn is_durable(&self, mark: BatchMark) -> bool {
        let (first, last) = (&self.first_mark, &self.durable_mark);
        mark.number == 0
            || (first.load(Ordering::Acquire)..=last.load(Ordering::Acquire)).contains(&mark.number)
    }

    fn working(&self) -> Arc<Mutex<()>> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ShardCommand {
    /// Answers Unavailable.
    pub fn refuse(self) {
        match self {
            ShardCommand::Cancel(.., reply) | ShardCommand::Confirm(.., reply) => {
                reply.answer(SettleAnswer::Unavailable);
            }
            ShardCommand::Record(.., reply) => reply.answer(CheckAnswer::Unavailable),
        }
    }

    fn deadline(&self) -> Deadline {
        match self {
            ShardCommand::Cancel(_, deadline, _)
            | ShardCommand::Confirm(_, deadline, _)
            | ShardCommand::Record(_, _, deadline, _) => *deadline,
        }
    }
}

/// The records and answers of one batch, on their way to the committer.
pub struct Submission {
    /// Whose batch this is; none for what is not a shard's.
    pub shard: Option<BatchMark>,
    /// Stored records.
    pub records: Vec<u8>,
    /// How many.
    pub record_count: u32,
    /// What is sent once they are durable.
    pub answers: Vec<Answer>,
}

/// The one who works for a shard, as long as its generation lasts.
pub struct ShardWorker {
    partition: Arc<Partition>,
    shard: Arc<Shard>,
    generation: u64,
}

impl ShardWorker {
    /// A worker of the generation that [`Shard::start_generation`] gave.
    pub fn new(partition: Arc<Partition>, shard: Arc<Shard>, generation: u64) -> ShardWorker {
        ShardWorker { partition, shard, generation }
    }

    /// Works until the mailbox is empty or enough batches are with the committer. Returns false
    /// when this worker is no longer in charge.
    pub fn drain(&self) -> bool {
        loop {
            self.shard.signalled.store(false, Ordering::Release);
            if !self.in_charge() {
                return false;
            }
            let in_flight = self.shard.batches_in_flight.load(Ordering::Acquire);
            if in_flight >= SHARD_BATCHES_IN_FLIGHT_MAX || self.shard.mailbox.is_empty() {
                // Whoever changes either of the two afterwards wakes this worker again.
                let still = self.shard.batches_in_flight.load(Ordering::Acquire);
                if still >= SHARD_BATCHES_IN_FLIGHT_MAX || self.shard.mailbox.is_empty() {
                    return true;
                }
            }
            self.work_batch();
        }
    }

    fn work_batch(&self) {
        let working = self.shard.working();
        let guard = working.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shard.is_up() {
            self.shard.refuse_waiting();
            return;
        }
        let number = self.shard.next_mark.fetch_add(1, Ordering::Relaxed);
        let mark = BatchMark { shard: self.shard.id, number, is_first: false };
        let expected = self.shard.mailbox.len().min(SHARD_BATCH_COMMANDS_MAX);
        let mut batch = Submission {
            shard: Some(mark),
            records: Vec::with_capacity(expected * RECORD_BYTES_USUAL),
            record_count: 0,
            answers: Vec::with_capacity(expected),
        };
        let instant = Instant::now();
        for _ in 0..SHARD_BATCH_COMMANDS_MAX {
            let Some(command) = self.shard.mailbox.pop() else { break };
            self.shard.taken.fetch_add(1, Ordering::Relaxed);
            if command.deadline().passed(instant) || !self.in_charge() {
                command.refuse();
                continue;
            }
            self.work(command, mark, &mut batch);
        }
        self.hand_over(batch);
        drop(guard);
    }

    /// Hands a batch to the committer, unless this worker was abandoned in the middle of it: then its
    /// commands may have been repeated and settled since. What it changed after that in the hands of
    /// its successor is undone by rebuilding the shard once more.
    fn hand_over(&self, batch: Submission) {
        let working = self.shard.working.lock().unwrap_or_else(PoisonError::into_inner);
        if self.in_charge() {
            self.shard.batches_in_flight.fetch_add(1, Ordering::AcqRel);
            self.partition.submit(batch);
            return;
        }
        drop(working);
        self.shard.close();
        batch.answers.into_iter().for_each(Answer::refuse);
    }

    fn work(&self, command: ShardCommand, mark: BatchMark, batch: &mut Submission) {
        match command {
            ShardCommand::Confirm(confirm, _, reply) => {
                let answer = self.settle_confirm(&confirm, mark, batch);
                batch.answers.push(Answer::Settle(reply, answer));
            }
            ShardCommand::Cancel(cancel, _, reply) => {
                let answer = self.settle_cancel(&cancel, mark, batch);
                batch.answers.push(Answer::Settle(reply, answer));
            }
            ShardCommand::Record(check, amounts, _, reply) => {
                let answer = self.record(&check, amounts, mark, batch);
                batch.answers.push(Answer::Check(reply, answer));
            }
        }
    }

    fn settle_confirm(
        &self,
        confirm: &Confirm,
        mark: BatchMark,
        batch: &mut Submission,
    ) -> SettleAnswer {
        let ledger = self.partition.ledger();
        let now = self.partition.now();
        let plan = ledger.with_entry(confirm.transaction, |entry| {
            plan_confirm(Some(entry), confirm, now, |open| ledger.is_expired(open, now))
        });
        self.carry_out(plan, mark, batch)
    }

    fn settle_cancel(
        &self,
        cancel: &Cancel,
        mark: BatchMark,
        batch: &mut Submission,
    ) -> SettleAnswer {
        let ledger = self.partition.ledger();
        let now = self.partition.now();
        let plan = ledger.with_entry(cancel.transaction, |entry| {
            plan_cancel(Some(entry), cancel, now, |open| ledger.is_expired(open, now))
        });
        self.carry_out(plan, mark, batch)
    }

    fn carry_out(
        &self,
        plan: Option<Plan>,
        mark: BatchMark,
        batch: &mut Submission,
    ) -> SettleAnswer {
        match plan {
            // It was known when it came here and has been swept since: the history knows it.
            None => SettleAnswer::Unavailable,
            Some(Plan::Answer(answer)) => answer,
            Some(Plan::Apply(event)) => {
                self.apply(event, mark, batch);
                SettleAnswer::Done
            }
        }
    }

    fn record(
        &self,
        check: &Check,
        amounts: Amounts,
        mark: BatchMark,
        batch: &mut Submission,
    ) -> CheckAnswer {
        let now = self.partition.now();
        let registry = self.partition.registry();
        let holder = registry.holder_id(&check.identifier);
        if holder.is_some_and(|holder| self.partition.ledger().shard(holder) != self.shard.id) {
            // An import gave the identifier to somebody else while the check waited here.
            return CheckAnswer::Unavailable;
        }
        let transaction = match self.partition.claim_in(&registry, check, now) {
            Ok(transaction) => transaction,
            Err(answer) => return answer,
        };
        let confirmation = Confirmation { transaction, confirmed_at: now, amounts };
        let mark = BatchMark { is_first: true, ..mark };
        self.apply(Event::Confirmed(confirmation), mark, batch);
        CheckAnswer::Granted(transaction.granted())
    }

    fn apply(&self, event: Event, mark: BatchMark, batch: &mut Submission) {
        self.partition.ledger().apply(&event, mark);
        Record::Event(event).push(&mut batch.records);
        batch.record_count += 1;
    }

    fn in_charge(&self) -> bool {
        self.shard.generation.load(Ordering::Acquire) == self.generation
    }
}
