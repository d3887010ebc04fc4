//! What everybody who works for one partition shares: the registry, the ledger, the shards, the way
//! to the committer and what is known to be durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use crossbeam::channel::{Sender, TrySendError};

use crate::answer::Answer;
use crate::calendar::{Clock, Timestamp};
use crate::command::{Check, CheckAnswer};
use crate::decide::{Decision, decide};
use crate::ids::{HolderId, ShardId};
use crate::journal::Position;
use crate::ledger::{Ledger, OpenError};
use crate::limits::CLAIM_ATTEMPTS_MAX;
use crate::postbox::Announcements;
use crate::registry::Registry;
use crate::shard::{Shard, Submission};
use crate::transaction::Transaction;

/// The shared state of a partition.
pub struct Partition {
    clock: Arc<dyn Clock>,
    registry: ArcSwap<Registry>,
    ledger: Ledger,
    shards: Box<[Arc<Shard>]>,
    committer: Sender<Submission>,
    durable: AtomicU64,
    frames: AtomicU64,
    records: AtomicU64,
    failed: AtomicBool,
    /// Held while shards are opened or closed because the journal failed or did not. A std lock: nobody
    /// waits inside.
    gate: Mutex<()>,
}

impl Partition {
    /// A partition whose shards have no workers yet.
    pub fn new(
        clock: Arc<dyn Clock>,
        registry: Registry,
        ledger: Ledger,
        shard_count: u16,
        committer: Sender<Submission>,
    ) -> Partition {
        let shards = (0..shard_count).map(|id| Arc::new(Shard::new(ShardId(id))));
        Partition {
            clock,
            registry: ArcSwap::from_pointee(registry),
            ledger,
            shards: shards.collect(),
            committer,
            durable: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            records: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            gate: Mutex::new(()),
        }
    }

    /// Hands a batch to the committer. Its channel has room for every batch that may be under way;
    /// should it be full all the same, the batch is refused and the partition recovers.
    pub fn submit(&self, submission: Submission) {
        match self.committer.try_send(submission) {
            Ok(()) => {}
            Err(TrySendError::Full(submission) | TrySendError::Disconnected(submission)) => {
                self.fail();
                self.end([submission], false);
            }
        }
    }

    /// Settles the fate of batches: their answers are sent, or refused.
    pub fn end(&self, submissions: impl IntoIterator<Item = Submission>, durable: bool) {
        let mut announcements = Announcements::default();
        for submission in submissions {
            if let Some(mark) = submission.shard
                && let Some(shard) = self.shards.get(usize::from(mark.shard.0))
            {
                shard.batch_ended(mark, durable);
            }
            let answers = submission.answers.into_iter();
            if durable {
                answers.for_each(|answer| answer.send(&mut announcements));
            } else {
                answers.for_each(Answer::refuse);
            }
        }
    }

    /// Decides a check in a revision that the caller holds and claims a transaction for its benefit.
    #[inline]
    pub fn claim_in(
        &self,
        registry: &Registry,
        check: &Check,
        now: Timestamp,
    ) -> Result<Transaction, CheckAnswer> {
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            let decision = decide(registry, check, now, &self.ledger);
            if let Some(claimed) = self.claim(decision, check, now) {
                return claimed;
            }
        }
        Err(CheckAnswer::Unavailable)
    }

    /// Claims a transaction for a check that was decided at `now`; nothing where another check has
    /// taken the place since.
    #[inline]
    pub fn claim(
        &self,
        decision: Decision,
        check: &Check,
        now: Timestamp,
    ) -> Option<Result<Transaction, CheckAnswer>> {
        let benefit = match decision {
            Decision::Benefit(benefit) => benefit,
            Decision::Refused(refusal) => return Some(Err(CheckAnswer::Refused(refusal))),
        };
        if !self.shard_of(benefit.holder).is_some_and(|shard| shard.is_up()) {
            return Some(Err(CheckAnswer::Unavailable));
        }
        match self.ledger.claim(&benefit, check, now) {
            Ok(transaction) => Some(Ok(transaction)),
            Err(OpenError::PlaceTaken) => None,
            Err(OpenError::Full | OpenError::NoId) => Some(Err(CheckAnswer::Unavailable)),
        }
    }

    /// Publishes the next revision of the registry; every check from now on sees all of it.
    pub fn publish(&self, registry: Registry) {
        self.registry.store(Arc::new(registry));
    }

    /// Notes that the log is durable up to `end`.
    pub fn note_durable(&self, end: Position, record_count: u32) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(u64::from(record_count), Ordering::Relaxed);
        self.durable.store(end.stored(), Ordering::Release);
    }

    /// Notes where the log ends after it was taken.
    pub fn note_end(&self, end: Position) {
        self.durable.store(end.stored(), Ordering::Release);
    }

    /// Stops acknowledging: shards take nothing more until [`Partition::resume`].
    pub fn fail(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.failed.store(true, Ordering::Release);
        self.shards.iter().for_each(|shard| shard.close());
    }

    /// Goes on after recovery.
    pub fn resume(&self) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.failed.store(false, Ordering::Release);
        self.shards.iter().filter(|shard| shard.has_worker()).for_each(|shard| shard.open());
    }

    /// Lets commands into a shard, unless the journal has failed: then its recovery does.
    pub fn open_shard(&self, shard: &Shard) {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_failed() {
            shard.open();
        }
    }

    /// Whether the journal has failed and is being recovered.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The registry as it is now; cheap, and one guard serves a whole batch.
    #[inline]
    pub fn registry(&self) -> Guard<Arc<Registry>> {
        self.registry.load()
    }

    /// The registry to keep for longer.
    pub fn registry_full(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// The transactions.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The shards.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard of a holder.
    #[inline]
    pub fn shard_of(&self, holder: HolderId) -> Option<&Arc<Shard>> {
        self.shards.get(usize::from(self.ledger.shard(holder).0))
    }

    /// The present instant.
    #[inline]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Everything below this position is durable.
    pub fn durable(&self) -> Position {
        Position::from_stored(self.durable.load(Ordering::Acquire))
    }

    /// Frames appended since the start.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Records appended since the start.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}
