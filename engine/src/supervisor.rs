//! The supervisor: sees dead and stuck shards, keeps commands away from them meanwhile, and rebuilds
//! them from the journal. It also forgets, now and then, what is over.
//!
//! One thread, woken every 50 ms. Should it die, shards are not restarted any more and readiness
//! fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::answer::{Answer, Reply};
use crate::ids::{PartitionId, ShardId};
use crate::journal::{Journal, Position, Tenure};
use crate::ledger::LedgerSettings;
use crate::limits::{OPENINGS_PER_FRAME_MAX, OPENINGS_WAITING_MAX};
use crate::partition::Partition;
use crate::recovery::{Extent, Recovered, RecoveryError, Sources, recover};
use crate::shard::{STUCK_AFTER, Shard, Submission};
use crate::shard_actor;
use crate::snapshot::{SnapshotError, SnapshotStore};

/// How often shards are looked at.
const PERIOD: Duration = Duration::from_millis(50);
/// How often the ledger forgets what is over.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);
/// How long the supervisor waits for a frame before it tries later.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What the supervisor and the committer need to rebuild state.
pub struct Caretaker {
    /// What they take care of.
    pub partition: Arc<Partition>,
    /// The log.
    pub journal: Arc<dyn Journal>,
    /// The snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// Whose log it is.
    pub id: PartitionId,
    /// How the ledger is sized.
    pub settings: LedgerSettings,
    /// Raised when the engine begins to stop: closed shards are meant to be closed.
    pub stopping: AtomicBool,
    /// Raised when the committer has all that it will get.
    pub stop: AtomicBool,
    /// Shards that are not to be rebuilt for now, by number.
    halted: Box<[AtomicBool]>,
}

impl Caretaker {
    /// A caretaker of a partition that runs.
    pub fn new(
        partition: Arc<Partition>,
        journal: Arc<dyn Journal>,
        snapshots: Arc<dyn SnapshotStore>,
        id: PartitionId,
        settings: LedgerSettings,
    ) -> Caretaker {
        let halted = partition.shards().iter().map(|_| AtomicBool::new(false)).collect();
        let (stopping, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        Caretaker { partition, journal, snapshots, id, settings, stopping, stop, halted }
    }

    /// Says whether a shard is left as it is for now, for tests of the supervisor.
    pub fn halt(&self, shard: ShardId, is_halted: bool) {
        if let Some(halted) = self.halted.get(usize::from(shard.0)) {
            halted.store(is_halted, Ordering::Release);
        }
    }

    /// The state as snapshots and journal have it.
    pub fn recover(&self, extent: Extent) -> Result<Recovered, RecoveryError> {
        let sources =
            Sources { journal: &*self.journal, snapshots: &*self.snapshots, partition: self.id };
        recover(sources, self.settings, extent)
    }

    /// Takes the partition again after the journal failed, and brings all shards back to what is
    /// durable; none when that is not possible yet.
    pub fn recover_journal(&self) -> Option<Tenure> {
        let tenure = match self.journal.acquire(self.id) {
            Ok(tenure) => tenure,
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be taken again yet");
                return None;
            }
        };
        match self.recover(Extent::Ledger) {
            Ok(recovered) => {
                let shards = self.partition.shards().iter();
                shards.for_each(|shard| self.restore(shard, &recovered));
                self.partition.ledger().drop_undone_openings();
                tracing::warn!(end = tenure.end.stored(), "the journal was recovered");
                Some(tenure)
            }
            Err(error) => {
                tracing::error!(%error, "the state cannot be recovered");
                None
            }
        }
    }

    /// Waits until everything that was handed to the committer before is durable.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.append(Vec::new(), 0, timeout)
    }

    /// Appends stored records and waits until they are durable.
    pub fn append(&self, records: Vec<u8>, record_count: u32, timeout: Duration) -> bool {
        let (sender, receiver) = crossbeam::channel::bounded(1);
        let reply = Reply::new(move |durable: Option<()>| {
            // The channel has room for the one answer.
            let _ = sender.try_send(durable.is_some());
        });
        let answers = vec![Answer::Durable(reply)];
        self.partition.submit(Submission { shard: None, records, record_count, answers });
        receiver.recv_timeout(timeout).unwrap_or(false)
    }

    /// Cuts the journal below what is `kept` elsewhere, so that it still reaches back to the snapshot
    /// before the newest one.
    pub fn cut_journal(&self, kept: Position) -> Result<(), SnapshotError> {
        if let Some(previous) = self.snapshots.list(self.id)?.get(1) {
            let below = previous.replay_from.min(kept);
            if let Err(error) = self.journal.truncate(self.id, below) {
                tracing::warn!(%error, "the journal was not cut");
            }
        }
        Ok(())
    }

    /// Puts a shard out of service; what its worker hands over from now on is refused. So once all that
    /// was handed over before is durable, nothing of this shard becomes durable until it is restored.
    pub fn retire(&self, shard: &Shard) {
        shard.close();
        shard.abandon_worker();
        shard.dismiss();
    }

    /// Brings a shard back to what was recovered: of one that is retired, since all it had handed over
    /// is durable; of all, since the journal was taken again.
    pub fn restore(&self, shard: &Shard, recovered: &Recovered) {
        let ledger = self.partition.ledger();
        shard.between_batches(|| ledger.replace_shard(shard.id(), &recovered.ledger));
    }

    /// Brings one shard back to what is durable and gives it a new worker.
    fn rebuild(&self, shard: &Arc<Shard>) -> bool {
        self.retire(shard);
        for _ in 0..=OPENINGS_WAITING_MAX / OPENINGS_PER_FRAME_MAX {
            if !self.flush(FLUSH_TIMEOUT) {
                return false;
            }
        }
        let recovered = match self.recover(Extent::Ledger) {
            Ok(recovered) => recovered,
            Err(error) => {
                tracing::error!(shard = shard.id().0, %error, "a shard cannot be rebuilt");
                return false;
            }
        };
        self.restore(shard, &recovered);
        if let Err(error) = shard_actor::start(&self.partition, shard) {
            tracing::error!(shard = shard.id().0, %error, "a shard has no thread");
            return false;
        }
        self.partition.open_shard(shard);
        true
    }
}

/// Looks after the shards until the engine stops.
pub fn run(caretaker: &Caretaker) {
    let shards = caretaker.partition.shards();
    let mut seen: Vec<Progress> = shards.iter().map(|shard| Progress::of(shard)).collect();
    let mut swept = Instant::now();
    while !caretaker.stopping.load(Ordering::Acquire) {
        std::thread::sleep(PERIOD);
        if caretaker.partition.has_failed() {
            continue;
        }
        for ((shard, seen), halted) in shards.iter().zip(&mut seen).zip(&caretaker.halted) {
            let stuck = seen.is_stuck(shard);
            if shard.is_up() && shard.has_worker() && !stuck {
                continue;
            }
            if caretaker.stopping.load(Ordering::Acquire) {
                return;
            }
            shard.close();
            if !halted.load(Ordering::Acquire) {
                tracing::warn!(shard = shard.id().0, stuck, "a shard is rebuilt");
                let rebuilt = caretaker.rebuild(shard);
                tracing::warn!(shard = shard.id().0, rebuilt, "a shard was rebuilt");
            }
            *seen = Progress::of(shard);
        }
        if swept.elapsed() > SWEEP_PERIOD {
            caretaker.partition.ledger().sweep(caretaker.partition.now());
            swept = Instant::now();
        }
    }
}

/// When a shard was last seen to take a command, or to have nothing to take.
struct Progress {
    taken: u64,
    at: Instant,
    looked_at: Instant,
}

impl Progress {
    fn of(shard: &Shard) -> Progress {
        let now = Instant::now();
        Progress { taken: shard.taken(), at: now, looked_at: now }
    }

    /// A shard whose batches wait for a slow disk is not stuck; nor is one that nobody looked at for
    /// as long as the supervisor did something else.
    fn is_stuck(&mut self, shard: &Shard) -> bool {
        let was_away = self.looked_at.elapsed() > STUCK_AFTER / 2;
        let is_idle = shard.waiting() == 0 || shard.is_committing();
        if was_away || is_idle || shard.taken() != self.taken {
            *self = Progress::of(shard);
        }
        self.looked_at = Instant::now();
        self.at.elapsed() > STUCK_AFTER
    }
}
