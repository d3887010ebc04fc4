//! The engine as its callers see it: one partition with its threads.

use std::io::BufRead;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::Guard;
use tokio::sync::Semaphore;

use crate::answer::Reply;
use crate::calendar::Timestamp;
use crate::checkpoint::{self, Imported};
use crate::command::{Cancel, Check, CheckAnswer, Confirm, Deadline, Rejection, SettleAnswer};
use crate::committer::{self, Committer};
use crate::decide::{Explanation, Terms, explain};
use crate::history::{Freshness, History, Settled};
use crate::ids::{ShardId, TransactionId};
use crate::import::{ImportError, ImportReport, PreparedImport, Recorded, Registrar};
use crate::keys::Keys;
use crate::ledger::LedgerSettings;
use crate::limits::{HISTORY_ASKS_MAX, SHARD_BATCHES_IN_FLIGHT_MAX};
use crate::partition::Partition;
use crate::record::Record;
use crate::recovery::{Extent, Sources, recover};
use crate::registry::Registry;
use crate::route::{Known, cancel_of_settled, confirm_of_settled};
use crate::shard_actor::{self, Fault};
use crate::snapshot::SnapshotError;
use crate::start::{Ports, Settings, StartError};
use crate::status::EngineStatus;
use crate::supervisor::{self, Caretaker};
use crate::transaction::Amounts;
use crate::trips::clerk::Clerk;
use crate::trips::desk;
use crate::trips::office::Trips;

/// How long one part of an import may wait to become durable.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of an import waits for those who still look at the revision before.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the seal of a snapshot may wait.
const SEAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine of one partition. Cheap to clone; dropping the last clone stops it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    caretaker: Arc<Caretaker>,
    history: Arc<dyn History>,
    keys: Keys,
    /// A std lock: held by blocking callers only, for the length of an import.
    registrar: Mutex<Registrar>,
    trips: Trips,
    /// A std lock: held for the moment of taking the handle.
    clerk: Mutex<Option<JoinHandle<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    snapshot_at: AtomicI64,
    history_asks: Arc<Semaphore>,
}

impl Engine {
    /// Recovers the state and starts the shards; blocks until the engine answers.
    pub fn start(settings: &Settings, ports: Ports, keys: Keys) -> Result<Engine, StartError> {
        let Ports { clock, history, journal, snapshots, tenure } = ports;
        let ledger_settings = LedgerSettings {
            checked_ttl_seconds: settings.checked_ttl_seconds,
            transactions_max: settings.transactions_max,
            shard_count: settings.shard_count,
        };
        let id = settings.partition;
        let sources = Sources { journal: &*journal, snapshots: &*snapshots, partition: id };
        let recovered = recover(sources, ledger_settings, Extent::Whole)?;

        let room = usize::from(settings.shard_count) * (SHARD_BATCHES_IN_FLIGHT_MAX + 1) + 64;
        let (sender, batches) = crossbeam::channel::bounded(room);
        let registry = recovered.writer.registry().clone();
        let shard_count = settings.shard_count;
        let partition = Partition::new(clock, registry, recovered.ledger, shard_count, sender);
        let partition = Arc::new(partition);
        partition.note_end(tenure.end);
        history.follow(tenure.end);
        let mut committer =
            Committer::new(partition.clone(), journal.clone(), history.clone(), id, tenure);
        if !committer.commit() {
            return Err(StartError::FirstAppend);
        }
        for shard in partition.shards() {
            shard_actor::start(&partition, shard).map_err(StartError::Thread)?;
            shard.open();
        }
        let caretaker = Caretaker::new(partition, journal, snapshots, id, ledger_settings);
        let caretaker = Arc::new(caretaker);
        let threads = [
            spawn("committer", {
                let caretaker = caretaker.clone();
                move || {
                    let stop = &caretaker.stop;
                    committer::run(committer, &batches, stop, || caretaker.recover_journal());
                }
            })?,
            spawn("supervisor", {
                let caretaker = caretaker.clone();
                move || supervisor::run(&caretaker)
            })?,
        ];
        let registrar = Registrar::new(recovered.writer, recovered.last_import)
            .with_blocks(recovered.blocks.clone());
        let clerk = Clerk::new(recovered.trips, settings.trip_rules, settings.trips_max);
        let (trips, seat) = Trips::new(clerk, recovered.blocks);
        let clerk = spawn("trips", {
            let (desk, shelf) = (trips.desk.clone(), trips.shelf(&caretaker));
            move || desk::run(&desk, seat, &shelf)
        })?;
        let inner = Inner {
            caretaker,
            history,
            keys,
            registrar: Mutex::new(registrar),
            trips,
            clerk: Mutex::new(Some(clerk)),
            threads: Mutex::new(threads.into()),
            snapshot_at: AtomicI64::new(recovered.snapshot_at.map_or(i64::MIN, |at| at.0)),
            history_asks: Arc::new(Semaphore::new(HISTORY_ASKS_MAX)),
        };
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// Refuses new work, makes durable and answers what is in hand, stops the threads; blocks.
    pub fn stop(&self) {
        self.inner.stop();
    }

    /// Answers a check of connection type 1 or 2 and opens its transaction. Never waits.
    #[inline]
    pub fn check(&self, registry: &Registry, check: &Check) -> CheckAnswer {
        self.partition().check(registry, check)
    }

    /// Answers many checks, each like [`Engine::check`], to `take`, in order, with the terms of what
    /// was granted.
    pub fn check_all(
        &self,
        registry: &Registry,
        checks: &[Check],
        take: impl FnMut(CheckAnswer, Option<Terms>),
    ) {
        self.partition().check_all(registry, checks, take);
    }

    /// Tells for every category of the offer why it wins or loses; opens nothing.
    pub fn explain(&self, registry: &Registry, check: &Check) -> Explanation {
        let partition = self.partition();
        explain(registry, check, partition.now(), partition.ledger())
    }

    /// Answers a check of connection type 3, which is itself the recorded fact (C-07).
    pub async fn check_and_record(
        &self,
        check: Check,
        amounts: Amounts,
        deadline: Deadline,
    ) -> CheckAnswer {
        let (reply, answer) = Reply::channel();
        if let Some(answer) = self.submit_record(check, amounts, deadline, reply) {
            return answer;
        }
        answer.in_time(deadline).await.unwrap_or(CheckAnswer::Unavailable)
    }

    /// Hands a check that is itself the recorded fact to its shard, which answers through `reply`.
    /// What needs no shard comes back.
    pub fn submit_record(
        &self,
        check: Check,
        amounts: Amounts,
        deadline: Deadline,
        reply: Reply<CheckAnswer>,
    ) -> Option<CheckAnswer> {
        self.partition().submit_record(check, amounts, deadline, reply)
    }

    /// Records that the service was delivered.
    pub async fn confirm(&self, confirm: Confirm, deadline: Deadline) -> SettleAnswer {
        let (reply, answer) = Reply::channel();
        match self.submit_confirm(confirm, deadline, reply) {
            Some(Known::Answer(answer)) => answer,
            Some(Known::Unknown(_)) => self.confirm_in_history(confirm, deadline).await,
            None => answer.in_time(deadline).await.unwrap_or(SettleAnswer::Unavailable),
        }
    }

    /// Hands a confirm to its shard, which answers through `reply`. What needs no shard comes back.
    pub fn submit_confirm(
        &self,
        confirm: Confirm,
        deadline: Deadline,
        reply: Reply<SettleAnswer>,
    ) -> Option<Known> {
        self.partition().submit_confirm(confirm, deadline, reply)
    }

    /// The answer to a confirm of what memory does not know.
    pub async fn confirm_in_history(&self, confirm: Confirm, deadline: Deadline) -> SettleAnswer {
        let judge = |settled| confirm_of_settled(&settled, &confirm);
        self.ask_history(confirm.transaction, deadline, judge).await
    }

    /// The answer to a cancel of what memory does not know.
    pub async fn cancel_in_history(&self, cancel: Cancel, deadline: Deadline) -> SettleAnswer {
        let judge = |settled| cancel_of_settled(&settled, &cancel);
        self.ask_history(cancel.transaction, deadline, judge).await
    }

    /// Deletes the record of a check that the holder refused.
    pub async fn cancel(&self, cancel: Cancel, deadline: Deadline) -> SettleAnswer {
        let (reply, answer) = Reply::channel();
        match self.submit_cancel(cancel, deadline, reply) {
            Some(Known::Answer(answer)) => answer,
            Some(Known::Unknown(_)) => self.cancel_in_history(cancel, deadline).await,
            None => answer.in_time(deadline).await.unwrap_or(SettleAnswer::Unavailable),
        }
    }

    /// Hands a cancel to its shard, which answers through `reply`. What needs no shard comes back.
    pub fn submit_cancel(
        &self,
        cancel: Cancel,
        deadline: Deadline,
        reply: Reply<SettleAnswer>,
    ) -> Option<Known> {
        self.partition().submit_cancel(cancel, deadline, reply)
    }

    /// Imports a registry file; blocks. All of it becomes visible at once, or nothing.
    pub fn import(&self, file: &mut dyn BufRead) -> Result<ImportReport, ImportError> {
        let inner = &self.inner;
        let mut registrar = inner.registrar.lock().unwrap_or_else(PoisonError::into_inner);
        inner.resolve_import(&mut registrar)?;
        let mut prepared = registrar.prepare(file, &inner.keys)?;
        prepared.at = inner.caretaker.partition.now();
        let (lines, changes) = (prepared.lines, prepared.changes);
        if changes > 0 {
            inner.record_import(&mut registrar, prepared)?;
        }
        Ok(ImportReport { revision: registrar.registry().id(), lines, changes })
    }

    /// Writes a snapshot and cuts the journal behind the one before it; blocks.
    pub fn snapshot(&self) -> Result<(), SnapshotError> {
        let inner = &self.inner;
        let caretaker = &inner.caretaker;
        let partition = &caretaker.partition;
        // No import is under way while this lock is held, so replay never begins inside one.
        let mut registrar = inner.registrar.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.resolve_import(&mut registrar).is_err() {
            return Err(SnapshotError::Abandoned("the end of an import is not known yet"));
        }
        let desk = &inner.trips.desk;
        let Some(replay_from) = desk.between_groups(|| partition.durable()) else {
            return Err(SnapshotError::Abandoned("the end of an upload is not known yet"));
        };
        let imported = Imported {
            registry: partition.registry_full(),
            blocks: registrar.blocks().clone(),
            last_import: registrar.last_import(),
        };
        drop(registrar);
        let seal = || {
            partition.shards().iter().for_each(|shard| shard.between_batches(|| {}));
            let durable = caretaker.flush(SEAL_TIMEOUT);
            durable.then_some(()).ok_or(SnapshotError::Abandoned("the journal failed meanwhile"))
        };
        let (book, begun) = (desk.book().clone(), partition.now());
        let mut parts = checkpoint::parts(partition.clone(), imported, book, seal);
        caretaker.snapshots.put(caretaker.id, replay_from, &mut parts)?;
        drop(parts);
        inner.snapshot_at.store(begun.0, Ordering::Release);
        caretaker.cut_journal(inner.history.kept())
    }

    /// Lets a snapshot in hand be given up soon, and every later one; those that are complete stay.
    pub fn stop_snapshots(&self) {
        self.inner.caretaker.snapshots.stop();
    }

    /// Lets the actor of a shard fail; with `Fault::Die` the supervisor does not rebuild it before
    /// [`Engine::release_shard`]. For tests of the supervisor.
    pub fn inject_fault(&self, shard: ShardId, fault: Fault) {
        self.inner.caretaker.halt(shard, fault == Fault::Die);
        if let Some(shard) = self.partition().shards().get(usize::from(shard.0)) {
            shard.inject(fault);
        }
    }

    /// Lets the supervisor rebuild a shard again.
    pub fn release_shard(&self, shard: ShardId) {
        self.inner.caretaker.halt(shard, false);
    }

    /// Trips, claims and blocks.
    pub fn trips(&self) -> &Trips {
        &self.inner.trips
    }

    /// The registry as it is now; one guard serves a whole batch of checks.
    #[inline]
    pub fn registry(&self) -> Guard<Arc<Registry>> {
        self.partition().registry()
    }

    /// The history of settled transactions.
    pub fn history(&self) -> &Arc<dyn History> {
        &self.inner.history
    }

    /// What a history answer must include to hold everything acknowledged before this call.
    pub fn freshness(&self, deadline: Deadline) -> Freshness {
        Freshness { at_least: self.partition().durable(), deadline: deadline.0 }
    }

    /// What time the engine thinks it is.
    #[inline]
    pub fn now(&self) -> Timestamp {
        self.partition().now()
    }

    /// The keys that requests are digested with.
    #[inline]
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// How the engine is.
    pub fn status(&self) -> EngineStatus {
        let partition = self.partition();
        let registry = partition.registry();
        let shards: Vec<_> = partition.shards().iter().map(|shard| shard.status()).collect();
        let snapshot_at = self.inner.snapshot_at.load(Ordering::Acquire);
        EngineStatus {
            ready: !partition.has_failed()
                && shards.iter().all(|shard| shard.up)
                && self.inner.has_all_threads(),
            holders: registry.holder_count(),
            revision: registry.id(),
            transactions: partition.ledger().transaction_count(),
            open_transactions: partition.ledger().open_count(),
            shards,
            durable: partition.durable(),
            frames: partition.frames(),
            records: partition.records(),
            snapshot_at: (snapshot_at != i64::MIN).then_some(Timestamp(snapshot_at)),
            openings_dropped: partition.ledger().openings_dropped(),
            trips: self.trips().trip_count(),
        }
    }

    /// What the history says of a transaction that memory does not know.
    async fn ask_history(
        &self,
        id: TransactionId,
        deadline: Deadline,
        judge: impl FnOnce(Settled) -> SettleAnswer,
    ) -> SettleAnswer {
        let history = self.history().clone();
        let freshness = self.freshness(deadline);
        let permits = Arc::clone(&self.inner.history_asks);
        let ask = async move {
            let permit = permits.acquire_owned().await.ok()?;
            let ask = move || {
                let found = history.settled(id, freshness);
                // Nobody may be waiting any more, but the thread was taken until now.
                drop(permit);
                found
            };
            tokio::task::spawn_blocking(ask).await.ok()?.ok()
        };
        match tokio::time::timeout_at(deadline.0.into(), ask).await {
            Ok(Some(Some(settled))) => judge(settled),
            Ok(Some(None)) => SettleAnswer::Rejected(Rejection::NotFound),
            Ok(None) | Err(_) => SettleAnswer::Unavailable,
        }
    }

    #[inline]
    fn partition(&self) -> &Arc<Partition> {
        &self.inner.caretaker.partition
    }
}

impl Inner {
    /// Whether committer, supervisor and clerk are there; none of them is replaced.
    fn has_all_threads(&self) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let clerk = self.clerk.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().chain(clerk.iter()).all(|thread| !thread.is_finished())
    }

    /// Journals a prepared import and publishes it.
    fn record_import(
        &self,
        registrar: &mut Registrar,
        prepared: PreparedImport,
    ) -> Result<(), ImportError> {
        let revision = registrar.next_revision();
        let at = prepared.at;
        let recorded = registrar.record(prepared, &mut |record| self.append(record));
        match recorded {
            Recorded::Committed => {
                // Blocks first: whoever is granted something by this revision is not blocked by it.
                self.trips.publish(registrar.blocks(), at);
                self.publish(registrar.registry().clone());
            }
            Recorded::Abandoned => return Err(ImportError::Unavailable),
            Recorded::Unknown => self.resolve_import(registrar)?,
        }
        if registrar.registry().id() == revision { Ok(()) } else { Err(ImportError::Unavailable) }
    }

    /// Publishes a revision. Freeing the one before takes long if much has changed, and falls to
    /// whoever lets go of it last; so this waits for the checks that still look at it.
    fn publish(&self, registry: Registry) {
        let partition = &self.caretaker.partition;
        let before = partition.registry_full();
        partition.publish(registry);
        let published = Instant::now();
        while Arc::strong_count(&before) > 1 && published.elapsed() < READERS_TIMEOUT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where the end of an import is unknown: once the journal is back, it tells what happened.
    fn resolve_import(&self, registrar: &mut Registrar) -> Result<(), ImportError> {
        if !registrar.is_unresolved() {
            return Ok(());
        }
        let deadline = Instant::now() + IMPORT_TIMEOUT;
        while self.caretaker.partition.has_failed() {
            if Instant::now() > deadline {
                return Err(ImportError::Unavailable);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The record may still wait for the committer; behind this it is in the log or never will be.
        if !self.caretaker.flush(IMPORT_TIMEOUT) {
            return Err(ImportError::Unavailable);
        }
        let recovered =
            self.caretaker.recover(Extent::Whole).map_err(|_| ImportError::Unavailable)?;
        registrar.resume(recovered.writer, recovered.blocks, recovered.last_import);
        self.trips.publish_all(registrar.blocks());
        self.publish(registrar.registry().clone());
        Ok(())
    }

    /// Appends one record and waits until it is durable.
    fn append(&self, record: &Record) -> bool {
        let mut records = Vec::new();
        record.push(&mut records);
        self.caretaker.append(records, 1, IMPORT_TIMEOUT)
    }

    fn stop(&self) {
        let partition = &self.caretaker.partition;
        self.caretaker.stopping.store(true, Ordering::Release);
        // The clerk finishes while the committer still works for it.
        self.trips.desk.stop();
        let clerk = self.clerk.lock().unwrap_or_else(PoisonError::into_inner).take();
        if clerk.is_some_and(|clerk| clerk.join().is_err()) {
            tracing::error!("the thread of the trips had died");
        }
        // Whole batches reach the committer before it is told to end.
        partition.shards().iter().for_each(|shard| shard.between_batches(|| shard.close()));
        self.caretaker.stop.store(true, Ordering::Release);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine had died");
            }
        }
        partition.shards().iter().for_each(|shard| shard.dismiss());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}
