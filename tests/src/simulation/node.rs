//! The engine of one partition without its threads: every step of theirs is a method here.

use std::sync::Arc;

use crossbeam::channel::{Receiver, bounded};

use engine::answer::{Answer, Reply};
use engine::calendar::Timestamp;
use engine::committer::Committer;
use engine::ids::PartitionId;
use engine::import::Registrar;
use engine::journal::Journal;
use engine::ledger::LedgerSettings;
use engine::partition::Partition;
use engine::record::Record;
use engine::recovery::{Extent, Recovered, Sources, recover};
use engine::registry::Registry;
use engine::shard::{Shard, ShardWorker, Submission, WorkerHandle};
use engine::shard_actor::Fault;
use engine::snapshot::SnapshotStore;
use engine::supervisor::Caretaker;
use engine::trips::claim::{ClaimError, ClaimOrder, ClaimSummary};
use engine::trips::clerk::{Append, Clerk, Knowledge, TripRecords, UploadScope};
use engine::trips::judge::TripRules;
use engine::trips::registries::{HolderRegistries, NoRegistries};
use engine::trips::ruling::{Ruling, RulingOutcome};
use engine::trips::trip::{Trip, TripOutcome};

use crate::memory::{HandClock, MemoryHistory, MemoryJournal, MemorySnapshots};

/// Room for every trip of a story.
const TRIPS_MAX: usize = 100_000;
/// The one partition.
pub const PARTITION: PartitionId = PartitionId(0);

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    /// The log.
    pub journal: MemoryJournal,
    /// The snapshots.
    pub snapshots: MemorySnapshots,
}

impl Disk {
    /// The state as it would be recovered now.
    pub fn recover(&self, settings: LedgerSettings) -> Recovered {
        let Disk { journal, snapshots } = self;
        let sources = Sources { journal, snapshots, partition: PARTITION };
        recover(sources, settings, Extent::Whole).unwrap()
    }
}

/// A started engine.
pub struct Node {
    /// What everybody shares.
    pub partition: Arc<Partition>,
    registrar: Registrar,
    clerk: Clerk,
    caretaker: Caretaker,
    committer: Committer,
    batches: Receiver<Submission>,
    workers: Vec<ShardWorker>,
    registries: Arc<dyn HolderRegistries>,
}

/// A shard that is out of service.
pub struct Retired {
    /// Its number.
    pub shard: usize,
    /// What it is to be brought back to, once that was read.
    pub read: Option<Recovered>,
}

/// A worker that the simulation steps itself.
struct Stepped;

impl WorkerHandle for Stepped {
    fn wake(&self) -> bool {
        true
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn inject(&self, _: Fault) {}
}

impl Node {
    /// What `Engine::start` does; none when the first append fails.
    pub fn start(disk: &Disk, clock: Arc<HandClock>, settings: LedgerSettings) -> Option<Node> {
        let journal: Arc<dyn Journal> = Arc::new(disk.journal.clone());
        let snapshots: Arc<dyn SnapshotStore> = Arc::new(disk.snapshots.clone());
        let tenure = journal.acquire(PARTITION).unwrap();
        let recovered = disk.recover(settings);
        let registrar =
            Registrar::new(recovered.writer, recovered.last_import).with_blocks(recovered.blocks);
        let clerk = Clerk::new(recovered.trips, TripRules::default(), TRIPS_MAX);
        let (sender, batches) = bounded(64);
        let registry = registrar.registry().clone();
        let shard_count = settings.shard_count;
        let partition = Partition::new(clock, registry, recovered.ledger, shard_count, sender);
        let partition = Arc::new(partition);
        partition.note_end(tenure.end);
        let history = Arc::new(MemoryHistory(disk.journal.clone()));
        let mut committer =
            Committer::new(partition.clone(), journal.clone(), history, PARTITION, tenure);
        if !committer.commit() {
            return None;
        }
        let workers = partition.shards().iter().map(|shard| employ(&partition, shard)).collect();
        partition.shards().iter().for_each(|shard| shard.open());
        let caretaker = Caretaker::new(partition.clone(), journal, snapshots, PARTITION, settings);
        let registries = Arc::new(NoRegistries);
        Some(Node {
            partition,
            registrar,
            clerk,
            caretaker,
            committer,
            batches,
            workers,
            registries,
        })
    }

    /// The same, judging trips by these holder registries.
    pub fn judging_by(self, registries: Arc<dyn HolderRegistries>) -> Node {
        Node { registries, ..self }
    }

    /// A shard works off its mailbox.
    pub fn drain(&mut self, shard: usize) -> Vec<Submission> {
        assert!(self.workers[shard].drain());
        self.batches.try_iter().collect()
    }

    /// The same by a worker that finds itself replaced.
    pub fn drain_abandoned(&mut self, shard: usize) -> Vec<Submission> {
        assert!(!self.workers[shard].drain());
        self.batches.try_iter().collect()
    }

    /// One round of the committer over these batches; false when the journal failed.
    pub fn commit(&mut self, batches: Vec<Submission>) -> bool {
        batches.into_iter().for_each(|batch| self.committer.add(batch));
        self.committer.commit() && !self.partition.has_failed()
    }

    /// What the committer does between a failure and its end; false where it must try again.
    pub fn recover(&mut self) -> bool {
        let Some(tenure) = self.caretaker.recover_journal() else { return false };
        self.committer.resume(tenure);
        true
    }

    /// The supervisor takes a shard out of service.
    pub fn retire(&mut self, shard: usize) -> Retired {
        self.caretaker.retire(&self.partition.shards()[shard]);
        Retired { shard, read: None }
    }

    /// It reads what it is brought back to, once everything is flushed.
    pub fn read(&self, retired: &mut Retired) {
        retired.read = Some(self.caretaker.recover(Extent::Ledger).unwrap());
    }

    /// It brings it back.
    pub fn restore(&mut self, retired: &Retired) {
        let shard = &self.partition.shards()[retired.shard];
        self.caretaker.restore(shard, retired.read.as_ref().unwrap());
        self.workers[retired.shard] = employ(&self.partition, shard);
        self.partition.open_shard(shard);
    }

    /// All of this at once.
    pub fn rebuild(&mut self, shard: usize) {
        let mut retired = self.retire(shard);
        self.read(&mut retired);
        self.restore(&retired);
    }

    /// The registrar, and a committer that appends one record for it at a time.
    pub fn import(&mut self) -> (&mut Registrar, impl FnMut(&Record) -> bool) {
        let committer = &mut self.committer;
        let append = move |record: &Record| {
            let mut records = Vec::new();
            record.push(&mut records);
            let (sender, receiver) = bounded(1);
            let reply = Reply::new(move |durable: Option<()>| {
                sender.send(durable.is_some()).unwrap();
            });
            let answers = vec![Answer::Durable(reply)];
            committer.add(Submission { shard: None, records, record_count: 1, answers });
            committer.commit();
            receiver.recv().unwrap()
        };
        (&mut self.registrar, append)
    }

    /// The clerk records one upload, and the committer makes it durable.
    pub fn upload(
        &mut self,
        registry: &Registry,
        now: Timestamp,
        upload: (UploadScope, Vec<Trip>),
    ) -> Vec<TripOutcome> {
        self.with_clerk(registry, now, |clerk, knowledge, append| {
            clerk.upload(&[upload], knowledge, append).concat()
        })
    }

    /// The clerk changes a claim, and the committer makes it durable.
    pub fn order(
        &mut self,
        registry: &Registry,
        now: Timestamp,
        order: ClaimOrder,
    ) -> Result<ClaimSummary, ClaimError> {
        self.with_clerk(registry, now, |clerk, knowledge, append| {
            clerk.order(order, knowledge, append)
        })
    }

    /// The clerk records rulings, and the committer makes them durable.
    pub fn rule(
        &mut self,
        registry: &Registry,
        now: Timestamp,
        rulings: Vec<Ruling>,
    ) -> Vec<RulingOutcome> {
        self.with_clerk(registry, now, |clerk, knowledge, append| {
            clerk.rule(rulings, knowledge.now, append)
        })
    }

    fn with_clerk<T>(
        &mut self,
        registry: &Registry,
        now: Timestamp,
        act: impl FnOnce(&mut Clerk, &Knowledge<'_>, Append<'_>) -> T,
    ) -> T {
        if self.clerk.is_unresolved() && !self.partition.has_failed() {
            let recovered = self.caretaker.recover(Extent::Trips).unwrap();
            self.clerk.resume(recovered.trips);
        }
        let knowledge = Knowledge {
            now,
            registry,
            blocks: self.registrar.blocks(),
            ledger: self.partition.ledger(),
            registries: &*self.registries,
        };
        let committer = &mut self.committer;
        let mut append = |batches: Vec<TripRecords>| {
            batches.into_iter().all(|TripRecords { bytes, count }| {
                let (sender, receiver) = bounded(1);
                let reply = Reply::new(move |durable: Option<()>| {
                    sender.send(durable.is_some()).unwrap();
                });
                let answers = vec![Answer::Durable(reply)];
                let (shard, record_count) = (None, count);
                committer.add(Submission { shard, records: bytes, record_count, answers });
                committer.commit();
                receiver.recv().unwrap()
            })
        };
        act(&mut self.clerk, &knowledge, &mut append)
    }

    /// Every check sees what the registrar has.
    pub fn publish(&mut self) {
        self.partition.publish(self.registrar.registry().clone());
    }

    /// The clerk.
    pub fn clerk(&self) -> &Clerk {
        &self.clerk
    }

    /// The registrar.
    pub fn registrar(&self) -> &Registrar {
        &self.registrar
    }
}

fn employ(partition: &Arc<Partition>, shard: &Arc<Shard>) -> ShardWorker {
    let generation = shard.start_generation();
    shard.employ(Box::new(Stepped));
    ShardWorker::new(partition.clone(), shard.clone(), generation)
}
