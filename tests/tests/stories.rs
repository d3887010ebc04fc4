//! Bugs that the simulation or a reader found, each told as a story on a stepped engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::answer::{Postable, Reply};
use engine::calendar::Clock;
use engine::checkpoint::{self, Imported};
use engine::command::{
    Cancel, Check, CheckAnswer, Confirm, Deadline, Granted, Refusal, Rejection, SettleAnswer,
};
use engine::identifier::Digest;
use engine::ids::HolderId;
use engine::ids::{OrganizationId, ServiceId, ShardId, TerminalId};
use engine::import::{ImportError, Recorded};
use engine::ledger::LedgerSettings;
use engine::record::{ImportPart, Record};
use engine::route::Known;
use engine::shard::ShardWorker;
use engine::shard::Submission;
use engine::snapshot::{SnapshotError, SnapshotStore};
use engine::transaction::{Amounts, Event};
use engine::trips::block::Blocks;
use tests::fixture;
use tests::memory::{AppendFault, HandClock};
use tests::simulation::node::{Disk, Node, PARTITION};
use tests::simulation::town::keys;

const TTL_SECONDS: i64 = 24 * 3_600;
const NOT_FOUND: SettleAnswer = SettleAnswer::Rejected(Rejection::NotFound);

/// A stepped engine with the fixture; service 1 is limited to one use a week.
struct Stage {
    disk: Disk,
    clock: Arc<HandClock>,
    node: Node,
}

/// What a caller hears.
type Heard<T> = std::sync::mpsc::Receiver<Option<T>>;

impl Stage {
    fn new(shard_count: u16) -> Stage {
        let (disk, clock) = (Disk::default(), HandClock::at(fixture::NOW));
        let node = Node::start(&disk, clock.clone(), settings(shard_count)).unwrap();
        let mut stage = Stage { disk, clock, node };
        let limited = fixture::REGISTRY.replace(
            r#""service_kind":"visit","categories":[{"category":10},{"category":20},{"category":30}]}"#,
            r#""service_kind":"visit","categories":[{"category":20,"limit":{"count":1,"period":"week"}}]}"#,
        );
        stage.import(&limited);
        stage
    }

    fn import(&mut self, file: &str) {
        let prepared = self.node.registrar().prepare(&mut file.as_bytes(), &keys()).unwrap();
        let (registrar, mut append) = self.node.import();
        registrar.record(prepared, &mut append);
        drop(append);
        self.node.publish();
    }

    fn check(&self) -> CheckAnswer {
        let registry = self.node.partition.registry_full();
        self.node.partition.check(&registry, &question())
    }

    fn granted(&self) -> Granted {
        match self.check() {
            CheckAnswer::Granted(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    /// The same person asks another organization, for which there is no limit.
    fn granted_elsewhere(&self) -> Granted {
        let organization = OrganizationId(3);
        let (terminal, service) = (TerminalId(30), ServiceId(3));
        let check = Check { organization, terminal, service, ..question() };
        let registry = self.node.partition.registry_full();
        match self.node.partition.check(&registry, &check) {
            CheckAnswer::Granted(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    fn record(&self, check: Check) -> Heard<CheckAnswer> {
        let (reply, heard) = heard();
        let known = self.node.partition.submit_record(check, Amounts::default(), patience(), reply);
        assert_eq!(known, None);
        heard
    }

    fn confirm(&self, confirm: Confirm) -> Heard<SettleAnswer> {
        let (reply, heard) = heard();
        answered(self.node.partition.submit_confirm(confirm, patience(), reply), heard)
    }

    fn cancel(&self, granted: Granted) -> Heard<SettleAnswer> {
        let organization = OrganizationId(1);
        let Granted { transaction, holder, .. } = granted;
        let cancel = Cancel { organization, transaction, holder };
        let (reply, heard) = heard();
        answered(self.node.partition.submit_cancel(cancel, patience(), reply), heard)
    }

    /// All shards work off what waits.
    fn drain(&mut self) -> Vec<Submission> {
        let shards = 0..self.node.partition.shards().len();
        shards.flat_map(|shard| self.node.drain(shard)).collect()
    }

    fn drain_and_commit(&mut self) -> bool {
        let batches = self.drain();
        self.node.commit(batches)
    }

    /// The next append fails, and the journal is recovered.
    fn lose(&mut self) {
        self.disk.journal.plan_faults([Some(AppendFault::Lost)]);
        assert!(!self.drain_and_commit());
        assert!(self.node.recover());
    }

    fn crash(&mut self) {
        let settings = settings(self.node.partition.shards().len().try_into().unwrap());
        self.node = Node::start(&self.disk, self.clock.clone(), settings).unwrap();
    }

    fn confirmations(&self) -> usize {
        let events = self.disk.journal.events();
        events.iter().filter(|event| matches!(event, Event::Confirmed(_))).count()
    }
}

fn settings(shard_count: u16) -> LedgerSettings {
    LedgerSettings { checked_ttl_seconds: TTL_SECONDS, transactions_max: 1_000, shard_count }
}

fn patience() -> Deadline {
    Deadline(Instant::now() + Duration::from_secs(100_000))
}

fn question() -> Check {
    Check {
        organization: OrganizationId(1),
        terminal: TerminalId(2),
        service: ServiceId(1),
        identifier: code("AAABBBCCC"),
    }
}

fn code(code: &str) -> Digest {
    keys().identifiers.client_code(code).unwrap()
}

fn confirm_of(granted: Granted) -> Confirm {
    let Granted { transaction, holder, category } = granted;
    let (organization, amounts) = (OrganizationId(1), Amounts::default());
    Confirm { organization, transaction, holder, category, amounts }
}

fn heard<T: Postable>() -> (Reply<T>, Heard<T>) {
    let (sender, heard) = std::sync::mpsc::channel();
    // A stage that is over wants no answer.
    (Reply::new(move |answer| drop(sender.send(answer))), heard)
}

/// An answer that needed no shard, as if one had given it.
fn answered(known: Option<Known>, heard: Heard<SettleAnswer>) -> Heard<SettleAnswer> {
    match known {
        None => heard,
        Some(Known::Answer(answer)) => {
            let (sender, heard) = std::sync::mpsc::channel();
            sender.send(Some(answer)).unwrap();
            heard
        }
        Some(Known::Unknown(id)) => panic!("only the history knows {id}"),
    }
}

fn said<T>(heard: &Heard<T>) -> Option<T> {
    heard.try_recv().expect("an answer")
}

#[test]
fn a_cancel_that_was_lost_is_made_again() {
    // The tombstone of a cancel whose frame was lost stayed in memory. The repeated cancel found it,
    // was answered Done, and nothing of it was in the log: after a restart the check could be
    // confirmed.
    let mut stage = Stage::new(2);
    let granted = stage.granted();
    assert!(stage.node.commit(Vec::new()));
    let lost = stage.cancel(granted);
    stage.lose();
    assert_eq!(said(&lost), Some(SettleAnswer::Unavailable));
    let repeated = stage.cancel(granted);
    assert!(stage.drain_and_commit());
    assert_eq!(said(&repeated), Some(SettleAnswer::Done));
    stage.crash();
    let confirm = stage.confirm(confirm_of(granted));
    assert!(stage.drain_and_commit());
    assert_eq!(said(&confirm), Some(NOT_FOUND));
}

#[test]
fn a_recorded_check_that_was_lost_holds_no_place() {
    // A check of connection type 3 whose frame was lost stayed as an open check that nobody knew of,
    // and held its place: the holder was refused until its time was over.
    let mut stage = Stage::new(2);
    let lost = stage.record(question());
    stage.lose();
    assert_eq!(said(&lost), Some(CheckAnswer::Unavailable));
    let again = stage.record(question());
    assert!(stage.drain_and_commit());
    assert!(matches!(said(&again), Some(CheckAnswer::Granted(_))));
    assert_eq!(stage.confirmations(), 1);
}

#[test]
fn a_clock_that_goes_back_gives_no_place_twice() {
    // A check expired and another one took its place. Then the clock was set back by some minutes:
    // the first check could be confirmed again, and both spent the one place.
    let mut stage = Stage::new(2);
    let first = stage.granted();
    stage.clock.pass_seconds(TTL_SECONDS);
    let second = stage.granted();
    stage.clock.pass_seconds(-600);
    for _ in 0..2 {
        let confirm = stage.confirm(confirm_of(first));
        assert!(stage.drain_and_commit());
        assert_eq!(said(&confirm), Some(NOT_FOUND));
        assert_eq!(stage.check(), CheckAnswer::Refused(Refusal::NoBenefit));
        stage.crash();
    }
    let confirm = stage.confirm(confirm_of(second));
    assert!(stage.drain_and_commit());
    assert_eq!(said(&confirm), Some(SettleAnswer::Done));
}

#[test]
fn a_call_that_waits_through_a_sweep_is_not_unknown() {
    // A call waited for its shard while a sweep forgot the transaction. The shard answered that there
    // is no such transaction, though the history might know it.
    let mut stage = Stage::new(1);
    let granted = stage.granted();
    let waiting = stage.cancel(granted);
    stage.clock.pass_seconds(2 * TTL_SECONDS);
    stage.node.partition.ledger().sweep(stage.clock.now());
    assert!(stage.drain_and_commit());
    assert_eq!(said(&waiting), Some(SettleAnswer::Unavailable));
}

#[test]
fn a_snapshot_holds_nothing_that_was_undone() {
    // A snapshot had captured a confirm that was not durable yet. The journal failed, the confirm was
    // undone and refused, the journal came back, and the snapshot was sealed all the same: after a
    // restart the confirm was there again, though not in the log.
    let mut stage = Stage::new(2);
    let granted = stage.granted();
    assert!(stage.node.commit(Vec::new()));
    let lost = stage.confirm(confirm_of(granted));
    let batches = stage.drain();
    let Stage { node, disk, .. } = &mut stage;
    disk.journal.plan_faults([Some(AppendFault::Lost)]);
    let partition = node.partition.clone();
    let replay_from = partition.durable();
    let imported =
        Imported { registry: partition.registry_full(), blocks: Blocks::default(), last_import: 1 };
    let book = node.clerk().book().clone();
    let seal = || {
        assert!(!node.commit(batches));
        assert!(node.recover());
        Ok(())
    };
    let mut parts = checkpoint::parts(partition, imported, book, seal);
    let put = disk.snapshots.put(PARTITION, replay_from, &mut parts);
    assert!(matches!(put, Err(SnapshotError::Abandoned(_))), "{put:?}");
    assert_eq!(said(&lost), Some(SettleAnswer::Unavailable));
}

#[test]
fn a_shard_records_for_its_own_holders_only() {
    // While a check of connection type 3 waited for its shard, an import gave the identifier to a
    // holder of another shard. The first shard recorded it under its own batch, whose number the other
    // shard then took for one of its own: a repeated call could be answered before it was durable.
    let mut stage = Stage::new(2);
    let waiting = stage.record(question());
    let partition = stage.node.partition.clone();
    let shard = |holder| partition.ledger().shard(HolderId(holder));
    let other = (100..200).find(|holder| shard(*holder) != shard(1)).unwrap();
    let moved = format!(
        r#"{{"kind":"holder","id":{other},"region":"14","cards":[{{"type":"ecs","client_code":"AAABBBCCC"}}],"categories":[{{"category":20}}]}}
{{"kind":"holder","id":1,"deleted":true}}"#
    );
    stage.import(&moved);
    assert!(stage.drain_and_commit());
    assert_eq!(said(&waiting), Some(CheckAnswer::Unavailable));
    assert_eq!(stage.granted().holder, HolderId(other));
    assert_eq!(stage.confirmations(), 0);
}

#[test]
fn nothing_is_answered_behind_a_frame_that_failed() {
    // A frame was full, and appending it failed. The next batch, a repeat of a confirm in that frame
    // with no record of its own, went into an empty frame, which needs no append: the repeat was
    // answered Done, though the confirm was lost.
    let mut stage = Stage::new(2);
    let granted = stage.granted();
    assert!(stage.node.commit(Vec::new()));
    let first = stage.confirm(confirm_of(granted));
    let mut batches = stage.drain();
    let mut records = Vec::new();
    for index in 0..8 {
        Record::ImportPart(ImportPart { import: 9, index, bytes: vec![0; 200 << 10] })
            .push(&mut records);
    }
    batches.push(Submission { shard: None, records, record_count: 8, answers: Vec::new() });
    let repeated = stage.confirm(confirm_of(granted));
    batches.extend(stage.drain());
    stage.disk.journal.plan_faults([Some(AppendFault::Lost)]);
    assert!(!stage.node.commit(batches));
    assert_eq!(said(&first), Some(SettleAnswer::Unavailable));
    assert_eq!(said(&repeated), Some(SettleAnswer::Unavailable));
}

#[test]
fn the_opening_of_an_undone_cancel_is_dropped() {
    // The disk was full: a cancel failed, and the next confirm was told that there is no such
    // transaction. But its opening still waited for the journal: after a restart it could be
    // confirmed.
    let mut stage = Stage::new(1);
    let (granted, other) = (stage.granted(), stage.granted_elsewhere());
    let cancelled = stage.cancel(granted);
    let batches = stage.drain();
    let partition = stage.node.partition.clone();
    partition.end(batches, false);
    assert_eq!(cancelled.try_recv(), Ok(Some(SettleAnswer::Unavailable)));
    let ledger = partition.ledger();
    ledger.replace_shard(ShardId(0), &stage.disk.recover(settings(1)).ledger);
    assert_eq!(ledger.entry(granted.transaction), None);
    ledger.drop_undone_openings();
    let left: Vec<_> = ledger.take_openings(9).map(|opening| opening.id).collect();
    assert_eq!(left, [other.transaction]);
}

#[test]
fn a_worker_that_was_abandoned_hands_nothing_over() {
    // A worker hung in the middle of a batch, was taken for stuck, and its shard was rebuilt: the
    // confirm that it had worked on was undone, repeated and made durable. Then the worker went on and
    // handed its batch over: the log held the confirm twice.
    let mut stage = Stage::new(1);
    let (first, second) = (stage.granted(), stage.granted_elsewhere());
    let elsewhere = |granted| Confirm { organization: OrganizationId(3), ..confirm_of(granted) };
    assert!(stage.node.commit(Vec::new()));
    let confirm = stage.confirm(confirm_of(first));
    let behind = stage.confirm(elsewhere(second));
    let (partition, disk) = (stage.node.partition.clone(), stage.disk.clone());
    let (reply, repeated) = heard();
    stage.clock.interrupt(2, move || {
        let shard = partition.shards().first().unwrap();
        shard.abandon_worker();
        let recovered = disk.recover(settings(1));
        partition.ledger().replace_shard(shard.id(), &recovered.ledger);
        let worker = ShardWorker::new(partition.clone(), shard.clone(), shard.start_generation());
        assert_eq!(partition.submit_confirm(confirm_of(first), patience(), reply), None);
        assert!(worker.drain());
    });
    let batches = stage.node.drain_abandoned(0);
    assert!(stage.node.commit(batches));
    assert_eq!(said(&repeated), Some(SettleAnswer::Done));
    assert_eq!(said(&confirm), Some(SettleAnswer::Unavailable));
    assert_eq!(said(&behind), Some(SettleAnswer::Unavailable));
    assert_eq!(stage.confirmations(), 1);
    // What it may have changed meanwhile is undone by rebuilding the shard once more.
    assert!(!stage.node.partition.shards()[0].is_up());
    stage.node.rebuild(0);
    let behind = stage.confirm(elsewhere(second));
    assert!(stage.drain_and_commit());
    assert_eq!(said(&behind), Some(SettleAnswer::Done));
    assert_eq!(stage.confirmations(), 2);
}

#[test]
fn nothing_is_imported_before_the_end_of_the_last_import_is_known() {
    // The commit of an import had an unknown end, and the journal stayed away too long to ask it. The
    // next import made the same revision a second time: recovery took the first for both, and an
    // import that had been reported as done was gone.
    let mut stage = Stage::new(1);
    let file = r#"{"kind":"category","id":77,"name":"Новая","priority":1}"#;
    let prepared = stage.node.registrar().prepare(&mut file.as_bytes(), &keys()).unwrap();
    stage.disk.journal.plan_faults([None, Some(AppendFault::Kept)]);
    let (registrar, mut append) = stage.node.import();
    assert_eq!(registrar.record(prepared, &mut append), Recorded::Unknown);
    drop(append);
    assert!(stage.node.recover());
    let refused = stage.node.registrar().prepare(&mut file.as_bytes(), &keys());
    assert!(matches!(refused, Err(ImportError::Unavailable)));
    let recovered = stage.disk.recover(settings(1));
    let (registrar, append) = stage.node.import();
    registrar.resume(recovered.writer, recovered.blocks, recovered.last_import);
    drop(append);
    let again = stage.node.registrar().prepare(&mut file.as_bytes(), &keys()).unwrap();
    assert_eq!(again.changes, 0);
}
