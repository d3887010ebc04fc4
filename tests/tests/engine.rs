//! The whole engine with its threads, its storage in memory: the rows of the acceptance table that
//! need no wire, and what only the inside can show (a dead shard, a failing journal).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::command::{
    Cancel, Check, CheckAnswer, Confirm, Deadline, Granted, Refusal, Rejection, SettleAnswer,
};
use engine::engine::Engine;
use engine::identifier::{Digest, DigestKey};
use engine::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, PartitionId, ServiceId, ShardId, TerminalId,
    TransactionId,
};
use engine::import::ImportError;
use engine::journal::Journal;
use engine::keys::{Keys, SecretKey};
use engine::shard_actor::Fault;
use engine::start::{Ports, Settings};
use engine::transaction::Amounts;
use futures_util::future::join_all;
use tests::fixture;
use tests::memory::{AppendFault, HandClock, MemoryHistory, MemoryJournal, MemorySnapshots};

struct Node {
    engine: Engine,
    clock: Arc<HandClock>,
    journal: MemoryJournal,
    snapshots: MemorySnapshots,
}

fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

impl Node {
    fn start() -> Node {
        let node = Node::start_on(MemoryJournal::default(), MemorySnapshots::default());
        node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
        node
    }

    fn start_on(journal: MemoryJournal, snapshots: MemorySnapshots) -> Node {
        let clock = HandClock::at(fixture::NOW);
        let ports = Ports {
            clock: clock.clone(),
            history: Arc::new(MemoryHistory(journal.clone())),
            journal: Arc::new(journal.clone()),
            snapshots: Arc::new(snapshots.clone()),
            tenure: journal.acquire(PartitionId(0)).unwrap(),
        };
        let engine = Engine::start(&Settings::default(), ports, keys()).unwrap();
        Node { engine, clock, journal, snapshots }
    }

    fn restart(self) -> Node {
        let (journal, snapshots) = (self.journal.clone(), self.snapshots.clone());
        self.engine.stop();
        drop(self);
        Node::start_on(journal, snapshots)
    }

    fn check(
        &self,
        organization: u32,
        terminal: u64,
        service: u32,
        identifier: Digest,
    ) -> CheckAnswer {
        let check = Check {
            organization: OrganizationId(organization),
            terminal: TerminalId(terminal),
            service: ServiceId(service),
            identifier,
        };
        self.engine.check(&self.engine.registry(), &check)
    }

    fn ok_check(&self) -> Granted {
        match self.check(1, 2, 1, code("AAABBBCCC")) {
            CheckAnswer::Granted(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    async fn confirm(&self, confirm: Confirm) -> SettleAnswer {
        self.engine.confirm(confirm, Deadline::within(Duration::from_secs(3))).await
    }

    async fn cancel(&self, transaction: u64) -> SettleAnswer {
        let cancel = Cancel {
            organization: OrganizationId(1),
            transaction: TransactionId(transaction),
            holder: HolderId(1),
        };
        self.engine.cancel(cancel, Deadline::within(Duration::from_secs(3))).await
    }
}

fn code(code: &str) -> Digest {
    keys().identifiers.client_code(code).unwrap()
}

fn confirm_of(granted: Granted) -> Confirm {
    Confirm {
        organization: OrganizationId(1),
        transaction: granted.transaction,
        holder: granted.holder,
        category: granted.category,
        amounts: Amounts { price: Some(Kopecks(30_000)), discounted_price: Some(Kopecks(10_000)) },
    }
}

fn rejected(rejection: Rejection) -> SettleAnswer {
    SettleAnswer::Rejected(rejection)
}

#[test]
fn the_best_valid_category_wins() {
    let node = Node::start();
    let granted = node.ok_check();
    let expected =
        Granted { transaction: TransactionId(1), holder: HolderId(1), category: CategoryId(20) };
    assert_eq!(granted, expected);
    let by_card = keys().identifiers.social_card("9643901401015000019", "14010125").unwrap();
    assert!(matches!(node.check(1, 3, 1, by_card), CheckAnswer::Granted(_)));
    let check = |organization, terminal, service, identifier, refusal| {
        let answer = node.check(organization, terminal, service, code(identifier));
        assert_eq!(answer, CheckAnswer::Refused(refusal));
    };
    check(1, 2, 2, "AAABBBCCC", Refusal::NoBenefit);
    check(1, 2, 1, "ZZZ", Refusal::HolderNotFound);
    check(1, 2, 1, "AAABBBCC0", Refusal::CardInactive);
    check(1, 2, 1, "GGGHHHIII", Refusal::CardInactive);
    check(1, 20, 1, "AAABBBCCC", Refusal::OrganizationUnknown);
    check(1, 2, 99, "AAABBBCCC", Refusal::ServiceUnknown);
    check(1, 2, 4, "AAABBBCCC", Refusal::ServiceUnknown);
}

#[tokio::test]
async fn a_confirm_is_answered_once_and_for_all() {
    let node = Node::start();
    let first = confirm_of(node.ok_check());
    let other_amounts = Confirm { amounts: Amounts::default(), ..first };
    let other_category = Confirm { category: CategoryId(30), ..first };
    let other_organization = Confirm { organization: OrganizationId(2), ..first };
    let unknown = Confirm { transaction: TransactionId(999), ..first };
    assert_eq!(node.confirm(unknown).await, rejected(Rejection::NotFound));
    assert_eq!(node.confirm(other_organization).await, rejected(Rejection::NotFound));
    assert_eq!(node.confirm(other_category).await, rejected(Rejection::Mismatch));
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    let frames = node.journal.frame_count();
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    assert_eq!(node.journal.frame_count(), frames, "a repeat writes nothing");
    assert_eq!(node.confirm(other_amounts).await, rejected(Rejection::WrongState));
    assert_eq!(node.cancel(1).await, rejected(Rejection::WrongState));
    let node = node.restart();
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    assert!(node.ok_check().transaction > TransactionId(1), "ids never repeat");
    node.clock.pass_seconds(100 * 3_600);
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
}

#[tokio::test]
async fn a_refusal_leaves_a_tombstone() {
    let node = Node::start();
    let first = confirm_of(node.ok_check());
    assert_eq!(node.cancel(1).await, SettleAnswer::Done);
    assert_eq!(node.cancel(1).await, SettleAnswer::Done);
    assert_eq!(node.confirm(first).await, rejected(Rejection::NotFound));
    let second = confirm_of(node.ok_check());
    node.clock.pass_seconds(24 * 3_600);
    assert_eq!(node.confirm(second).await, rejected(Rejection::NotFound));
}

#[tokio::test]
async fn a_dead_shard_is_unavailable_until_it_is_rebuilt() {
    // Row Y13 of the acceptance table.
    let node = Node::start();
    let first = confirm_of(node.ok_check());
    for shard in 0..2 {
        node.engine.inject_fault(ShardId(shard), Fault::Die);
    }
    wait_until(|| node.engine.status().shards.iter().all(|shard| !shard.up));
    assert_eq!(node.check(1, 2, 1, code("AAABBBCCC")), CheckAnswer::Unavailable);
    assert_eq!(node.confirm(first).await, SettleAnswer::Unavailable);
    for shard in 0..2 {
        node.engine.release_shard(ShardId(shard));
    }
    wait_until(|| node.engine.status().ready);
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    assert_eq!(confirmations(&node), 1);
}

#[tokio::test]
async fn a_hanging_shard_is_replaced() {
    let node = Node::start();
    let first = confirm_of(node.ok_check());
    for shard in 0..2 {
        node.engine.inject_fault(ShardId(shard), Fault::Hang(Duration::from_secs(4)));
    }
    assert_eq!(node.confirm(first).await, SettleAnswer::Unavailable);
    wait_until(|| node.engine.status().ready);
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    assert_eq!(confirmations(&node), 1);
}

#[tokio::test]
async fn a_failed_append_is_never_acknowledged() {
    for fault in [AppendFault::Kept, AppendFault::Lost] {
        let node = Node::start();
        let first = confirm_of(node.ok_check());
        // The opening has a frame of its own.
        wait_until(|| node.journal.events().len() == 1);
        node.journal.plan_faults([Some(fault)]);
        assert_eq!(node.confirm(first).await, SettleAnswer::Unavailable);
        wait_until(|| node.engine.status().ready);
        assert_eq!(node.confirm(first).await, SettleAnswer::Done, "{fault:?}");
        assert_eq!(confirmations(&node), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_slow_disk_is_waited_for() {
    let node = Node::start();
    let confirms: Vec<Confirm> = (0..6).map(|_| confirm_of(node.ok_check())).collect();
    node.journal.slow_down(Duration::from_millis(1_500));
    // Two batches are with the committer, and what comes later waits for them.
    let asks = (0..).zip(confirms).map(async |(number, confirm)| {
        tokio::time::sleep(Duration::from_millis(20 * number)).await;
        node.engine.confirm(confirm, Deadline::within(Duration::from_secs(60))).await
    });
    assert_eq!(join_all(asks).await, [SettleAnswer::Done; 6]);
}

#[tokio::test]
async fn a_cancel_is_never_repeated_from_what_is_not_durable() {
    let node = Node::start();
    let first = confirm_of(node.ok_check());
    wait_until(|| node.journal.events().len() == 1);
    node.journal.slow_down(Duration::from_millis(300));
    node.journal.plan_faults([Some(AppendFault::Lost)]);
    // Whoever the later ones say that the holder is, they hear of the first.
    let holders = [1].into_iter().chain(1..9);
    let asks = (0..).zip(holders).map(async |(number, holder)| {
        tokio::time::sleep(Duration::from_millis(50 * number)).await;
        let (organization, transaction) = (OrganizationId(1), first.transaction);
        let cancel = Cancel { organization, transaction, holder: HolderId(holder) };
        node.engine.cancel(cancel, Deadline::within(Duration::from_secs(3))).await
    });
    let answers = join_all(asks).await;
    assert_eq!(answers[0], SettleAnswer::Unavailable);
    assert!(!answers.contains(&SettleAnswer::Done), "{answers:?}");
    wait_until(|| node.engine.status().ready);
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
}

#[tokio::test]
async fn snapshots_carry_the_state_and_a_damaged_one_is_passed_over() {
    let node = Node::start();
    assert_eq!(node.engine.status().snapshot_at, None);
    let first = confirm_of(node.ok_check());
    assert_eq!(node.confirm(first).await, SettleAnswer::Done);
    node.engine.snapshot().unwrap();
    let snapshot_at = node.engine.status().snapshot_at;
    assert!(snapshot_at.is_some());
    node.clock.pass_seconds(60);
    let second = confirm_of(node.ok_check());
    assert_eq!(node.confirm(second).await, SettleAnswer::Done);
    node.engine.snapshot().unwrap();
    let third = confirm_of(node.ok_check());
    assert_eq!(node.confirm(third).await, SettleAnswer::Done);
    node.snapshots.damage_newest();
    let node = node.restart();
    assert_eq!(node.engine.status().snapshot_at, snapshot_at);
    for confirm in [first, second, third] {
        assert_eq!(node.confirm(confirm).await, SettleAnswer::Done);
    }
    assert_eq!(confirmations(&node), 3);
    assert!(matches!(node.check(1, 2, 1, code("AAABBBCCC")), CheckAnswer::Granted(_)));
}

#[tokio::test]
async fn the_last_place_is_given_once() {
    let node = Node::start();
    let limited = fixture::REGISTRY.replace(
        r#""service_kind":"visit","categories":[{"category":10},{"category":20},{"category":30}]}"#,
        r#""service_kind":"visit","categories":[{"category":20,"limit":{"count":2,"period":"day"}}]}"#,
    );
    node.engine.import(&mut limited.as_bytes()).unwrap();
    let first = node.ok_check();
    let second = node.ok_check();
    let refused = CheckAnswer::Refused(Refusal::NoBenefit);
    assert_eq!(node.check(1, 2, 1, code("AAABBBCCC")), refused);
    assert_eq!(node.confirm(confirm_of(first)).await, SettleAnswer::Done);
    assert_eq!(node.check(1, 2, 1, code("AAABBBCCC")), refused);
    assert_eq!(node.cancel(second.transaction.0).await, SettleAnswer::Done);
    let third = node.ok_check();
    let node = node.restart();
    assert_eq!(node.check(1, 2, 1, code("AAABBBCCC")), refused);
    assert_eq!(node.confirm(confirm_of(third)).await, SettleAnswer::Done);
    node.clock.pass_seconds(24 * 3_600);
    node.ok_check();
}

#[tokio::test]
async fn type_three_records_at_once() {
    let node = Node::start();
    let check = Check {
        organization: OrganizationId(3),
        terminal: TerminalId(30),
        service: ServiceId(3),
        identifier: code("AAABBBCCC"),
    };
    let amounts = Amounts { price: Some(Kopecks(15_050)), discounted_price: None };
    let deadline = Deadline::within(Duration::from_secs(3));
    let answer = node.engine.check_and_record(check, amounts, deadline).await;
    assert!(matches!(answer, CheckAnswer::Granted(granted) if granted.category == CategoryId(20)));
    assert_eq!(confirmations(&node), 1);
}

#[test]
fn an_import_is_all_or_nothing() {
    let node = Node::start();
    let revision = node.engine.registry().id();
    let report = node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
    assert_eq!((report.revision, report.changes), (revision, 0), "twice changes nothing");
    let stolen = concat!(
        r#"{"kind":"category","id":77,"name":"Новая","priority":1}"#,
        "\n",
        r#"{"kind":"holder","id":8,"region":"14","cards":[{"type":"ecs","client_code":"AAABBBCCC"}],"categories":[]}"#,
    );
    let error = node.engine.import(&mut stolen.as_bytes()).unwrap_err();
    assert!(format!("{error:?}").contains("line: 2"), "{error:?}");
    assert_eq!(node.engine.registry().id(), revision);
    assert!(node.engine.registry().directory().category_name(CategoryId(77)).is_none());
    let wrong_twice = concat!(
        r#"{"kind":"terminal","id":5,"organization":77}"#,
        "\n",
        r#"{"kind":"holder","id":9,"region":"14","cards":[],"categories":[{"category":99}]}"#,
    );
    let error = node.engine.import(&mut wrong_twice.as_bytes()).unwrap_err();
    assert!(format!("{error:?}").contains("line: 1"), "{error:?}");
    assert!(format!("{error:?}").contains("line: 2"), "{error:?}");
    // The identifier moves in one file, whatever the order of the lines.
    let moved = concat!(
        r#"{"kind":"holder","id":8,"region":"14","cards":[{"type":"ecs","client_code":"DDDEEEFFF"}],"categories":[]}"#,
        "\n",
        r#"{"kind":"holder","id":2,"deleted":true}"#,
    );
    node.engine.import(&mut moved.as_bytes()).unwrap();
    assert_eq!(node.engine.registry().holder_id(&code("DDDEEEFFF")), Some(HolderId(8)));
    let node = node.restart();
    assert_eq!(node.engine.registry().holder_id(&code("DDDEEEFFF")), Some(HolderId(8)));
    assert_eq!(node.engine.registry().holder_count(), 3);
}

#[test]
fn the_journal_tells_how_an_import_of_unknown_end_has_ended() {
    let moved = concat!(
        r#"{"kind":"holder","id":8,"region":"14","cards":[{"type":"ecs","client_code":"DDDEEEFFF"}],"categories":[]}"#,
        "\n",
        r#"{"kind":"holder","id":2,"deleted":true}"#,
    );
    for (fault, took_effect) in [(AppendFault::Kept, true), (AppendFault::Lost, false)] {
        let node = Node::start();
        let before = node.engine.registry().id();
        let owner = || node.engine.registry().holder_id(&code("DDDEEEFFF"));
        // The part is appended, the end of the record that commits it is unknown.
        node.journal.plan_faults([None, Some(fault)]);
        let imported = node.engine.import(&mut moved.as_bytes());
        if took_effect {
            assert_eq!(imported.unwrap().revision.0, before.0 + 1);
        } else {
            assert!(matches!(imported, Err(ImportError::Unavailable)), "{imported:?}");
            assert_eq!((node.engine.registry().id(), owner()), (before, Some(HolderId(2))));
            let again = node.engine.import(&mut moved.as_bytes()).unwrap();
            assert_eq!(again.revision.0, before.0 + 1);
        }
        assert_eq!(owner(), Some(HolderId(8)), "{fault:?}");
        let revision = node.engine.registry().id();
        node.engine.snapshot().unwrap();
        let node = node.restart();
        assert_eq!(node.engine.registry().id(), revision);
        assert_eq!(node.engine.registry().holder_id(&code("DDDEEEFFF")), Some(HolderId(8)));
    }
}

fn confirmations(node: &Node) -> usize {
    let events = node.journal.events();
    let confirmed = |event: &&_| matches!(event, engine::transaction::Event::Confirmed(_));
    events.iter().filter(confirmed).count()
}

fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::yield_now();
    }
}
