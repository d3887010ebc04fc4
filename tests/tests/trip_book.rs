//! Trips, claims and blocks in the engine with its threads, its storage in memory: rows S4, S5, S7
//! and S8 as far as they need no wire, recovery, failing journals, and that neither order nor
//! repetition of uploads matters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::calendar::{Day, Timestamp};
use engine::command::Deadline;
use engine::engine::Engine;
use engine::identifier::{Digest, DigestKey};
use engine::ids::{OrganizationId, PartitionId, ServiceId, TerminalId};
use engine::journal::Journal;
use engine::keys::{Keys, SecretKey};
use engine::start::{Ports, Settings};
use engine::trips::claim::{
    ClaimError, ClaimId, ClaimOrder, ClaimState, ClaimSummary, Period, Refusal,
};
use engine::trips::clerk::UploadScope;
use engine::trips::office::ClaimReader;
use engine::trips::trip::{
    RegistryVersion, Standing, Trip, TripKey, TripName, TripOutcome, TripReason, TripSeq,
};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tests::fixture;
use tests::memory::{AppendFault, HandClock, MemoryHistory, MemoryJournal, MemorySnapshots};
use tests::trips::{PlainRegistries, trip};

const NINE: &str = "2025-06-02T09:00:00Z";
const CARRIER: OrganizationId = OrganizationId(1);
const JUNE: Period = Period { first: Day(20_240), last: Day(20_269) };
const ACCEPTED: TripOutcome = TripOutcome::Recorded(Standing::Accepted);

struct Node {
    engine: Engine,
    clock: Arc<HandClock>,
    journal: MemoryJournal,
    snapshots: MemorySnapshots,
    registries: PlainRegistries,
    runtime: tokio::runtime::Runtime,
}

fn keys() -> Keys {
    Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) }
}

fn code(code: &str) -> Digest {
    keys().identifiers.client_code(code).unwrap()
}

fn x() -> Digest {
    code("AAABBBCCC")
}

fn y() -> Digest {
    code("DDDEEEFFF")
}

fn registries() -> PlainRegistries {
    let mut registries = PlainRegistries::default();
    registries.build(5, "2025-05-31T12:00:00Z");
    registries.build(7, "2025-06-02T00:00:00Z");
    registries.grant(x(), 1, 100);
    registries.grant(y(), 2, 50);
    registries
}

impl Node {
    fn start() -> Node {
        let node = Node::start_on(MemoryJournal::default(), MemorySnapshots::default(), 4 << 20);
        node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
        node
    }

    fn start_on(journal: MemoryJournal, snapshots: MemorySnapshots, trips_max: usize) -> Node {
        let clock = HandClock::at(fixture::NOW);
        let ports = Ports {
            clock: clock.clone(),
            history: Arc::new(MemoryHistory(journal.clone())),
            journal: Arc::new(journal.clone()),
            snapshots: Arc::new(snapshots.clone()),
            tenure: journal.acquire(PartitionId(0)).unwrap(),
        };
        let settings = Settings { trips_max, ..Settings::default() };
        let engine = Engine::start(&settings, ports, keys()).unwrap();
        let registries = registries();
        engine.trips().judge_by(registries.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Node { engine, clock, journal, snapshots, registries, runtime }
    }

    fn restart(self) -> Node {
        let (journal, snapshots, now) = (self.journal.clone(), self.snapshots.clone(), self.now());
        self.engine.stop();
        drop(self);
        let node = Node::start_on(journal, snapshots, 4 << 20);
        node.clock.set(now);
        node
    }

    fn now(&self) -> Timestamp {
        self.engine.now()
    }

    fn upload(&self, trips: &[Trip]) -> Vec<TripOutcome> {
        let scope = UploadScope { organization: CARRIER, terminal: None };
        self.upload_by(scope, trips)
    }

    fn upload_by(&self, scope: UploadScope, trips: &[Trip]) -> Vec<TripOutcome> {
        let deadline = Deadline::within(Duration::from_secs(30));
        self.runtime.block_on(self.engine.trips().upload(scope, trips.to_vec(), deadline))
    }

    fn one(&self, trip: &Trip) -> TripOutcome {
        self.upload(std::slice::from_ref(trip))[0]
    }

    fn order(&self, order: ClaimOrder) -> Result<ClaimSummary, ClaimError> {
        let deadline = Deadline::within(Duration::from_secs(30));
        self.runtime.block_on(self.engine.trips().order(order, deadline))
    }

    fn draft(&self) -> ClaimSummary {
        self.order(ClaimOrder::Draft(CARRIER, JUNE)).unwrap()
    }

    /// The names in a claim, after a look at its sums (invariant 14).
    fn lines(&self, id: ClaimId) -> Vec<u64> {
        let summary = self.engine.trips().claim(ClaimReader::Carrier(CARRIER), id).unwrap();
        let lines = self.engine.trips().claim_lines(id, 0, usize::MAX);
        let sum = |refused: bool| -> u64 {
            let lines = lines.iter().filter(|line| !refused || line.refusal.is_some());
            lines.map(|line| line.amount.0).sum()
        };
        let totals = summary.totals;
        assert_eq!(totals.line_count, u64::try_from(lines.len()).unwrap());
        assert_eq!((totals.total.0, totals.refused_total.0), (sum(false), sum(true)));
        lines.iter().map(|line| line.name.seq.0).collect()
    }
}

fn rejected(reason: TripReason) -> TripOutcome {
    TripOutcome::Recorded(Standing::Rejected(reason))
}

fn disputed(reason: TripReason) -> TripOutcome {
    TripOutcome::Recorded(Standing::Disputed(reason))
}

#[test]
fn s4_upload() {
    let node = Node::start();
    let three: Vec<Trip> = (1..=3).map(|seq| trip(seq, NINE, x())).collect();
    assert_eq!(node.upload(&three), [ACCEPTED; 3]);
    let duplicate = TripOutcome::Duplicate(Some(Standing::Accepted));
    assert_eq!(node.upload(&three), [duplicate; 3]);
    let ahead = trip(4, "2025-06-02T10:10:00Z", x());
    assert_eq!(node.one(&ahead), rejected(TripReason::Future));
    let first = TripOutcome::Duplicate(Some(Standing::Rejected(TripReason::Future)));
    node.clock.pass_seconds(3_600);
    assert_eq!(node.one(&ahead), first);
    let mut many: Vec<Trip> = (11..=10_010).map(|seq| trip(seq, NINE, x())).collect();
    many[5_000].texts.route = "r".repeat(33);
    let outcomes = node.upload(&many);
    assert_eq!(outcomes[5_000], rejected(TripReason::Malformed));
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == ACCEPTED).count(), 9_999);
    let node = node.restart();
    assert!(node.upload(&many).iter().all(|one| matches!(one, TripOutcome::Duplicate(Some(_)))));
    assert_eq!(node.engine.status().trips, 10_004);
}

#[test]
fn every_trip_is_judged_by_what_its_device_had() {
    let node = Node::start();
    let mut seq = 0;
    let mut check = |change: &dyn Fn(&mut Trip), expected: TripOutcome| {
        seq += 1;
        let mut one = trip(seq, NINE, x());
        change(&mut one);
        assert_eq!(node.one(&one), expected, "{seq}");
    };
    check(&|_| (), ACCEPTED);
    check(&|trip| trip.identifier = y(), rejected(TripReason::NoRight));
    check(&|trip| trip.identifier = code("ZZZ"), rejected(TripReason::NoRight));
    check(&|trip| trip.registry = RegistryVersion(6), disputed(TripReason::Registry));
    check(&|trip| trip.registry = RegistryVersion(0), disputed(TripReason::Registry));
    // Version 5 ended at 12:00 two days after it was built; version 7 was not built yet.
    let at = |text: &str| Timestamp::parse(text).unwrap();
    check(
        &|trip| {
            trip.registry = RegistryVersion(5);
            trip.device_at = at("2025-06-02T09:59:59Z");
        },
        ACCEPTED,
    );
    check(&|trip| trip.device_at = at("2025-06-01T23:50:00Z"), rejected(TripReason::Registry));
    check(&|trip| trip.device_at = at("2025-04-18T09:59:59Z"), disputed(TripReason::LateReview));
    check(&|trip| trip.clock_offset_ms = -3_660_000, ACCEPTED);
    check(&|trip| trip.clock_offset_ms = -3_960_000, rejected(TripReason::Future));
    check(&|trip| trip.benefit.0 = 12_500, disputed(TripReason::Amount));
    check(&|trip| trip.discount_percent = 50, disputed(TripReason::Amount));
    check(&|trip| trip.benefit.0 = 25_001, rejected(TripReason::Malformed));
    check(&|trip| trip.discount_percent = 101, rejected(TripReason::Malformed));
    check(&|trip| trip.name.terminal.0 = 20, TripOutcome::Refused(TripReason::Terminal));
    check(&|trip| trip.name.seq.0 = 0, TripOutcome::Refused(TripReason::Malformed));
    let deny = engine::trips::trip::TripVerdict::DenyStale;
    check(&|trip| (trip.verdict, trip.registry.0) = (deny, 0), ACCEPTED);
    let scope = UploadScope { organization: CARRIER, terminal: Some(TerminalId(3)) };
    let refused = node.upload_by(scope, &[trip(900, NINE, x())]);
    assert_eq!(refused, [TripOutcome::Refused(TripReason::Terminal)]);
    assert_eq!(node.one(&trip(900, NINE, x())), ACCEPTED);
}

#[test]
fn another_trip_of_the_same_name_is_a_conflict() {
    let node = Node::start();
    let mut first = trip(1, NINE, x());
    first.key = Some(TripKey([1; 16]));
    assert_eq!(node.one(&first), ACCEPTED);
    let mut other = first.clone();
    other.tariff.0 += 1;
    assert_eq!(node.one(&other), TripOutcome::Conflict);
    let mut renamed = first.clone();
    renamed.name.seq.0 = 2;
    assert_eq!(node.one(&renamed), TripOutcome::Conflict);
    // The same within one upload.
    let mut twice = trip(3, NINE, x());
    twice.clock_offset_ms = 7;
    let duplicate = TripOutcome::Duplicate(Some(Standing::Accepted));
    let outcomes = node.upload(&[trip(3, NINE, x()), twice, other]);
    assert_eq!(outcomes, [ACCEPTED, duplicate, TripOutcome::Conflict]);
}

#[test]
fn s5_late_block() {
    let node = Node::start();
    let line = fixture::REGISTRY.lines().find(|line| line.contains("AAABBBCCC")).unwrap();
    let blocked = line.replace(
        r#"{"type":"ecs","client_code":"AAABBBCCC"}"#,
        r#"{"type":"ecs","client_code":"AAABBBCCC","status":"blocked","blocked_by":"bank"}"#,
    );
    let mut news = node.engine.trips().subscribe_blocks();
    node.clock.set(Timestamp::parse("2025-06-02T08:00:00Z").unwrap());
    node.engine.import(&mut blocked.as_bytes()).unwrap();
    let told = news.try_recv().unwrap();
    assert_eq!((told.len(), told[0].identifier, told[0].blocked), (1, x(), true));
    node.clock.set(Timestamp::parse(fixture::NOW).unwrap());
    let old = |seq, at| {
        let mut old = trip(seq, at, x());
        old.registry = RegistryVersion(5);
        old
    };
    let check = |node: &Node, seq: u64| {
        assert_eq!(node.one(&trip(seq, NINE, x())), ACCEPTED);
        assert_eq!(node.one(&old(seq + 1, NINE)), disputed(TripReason::Blocked));
        assert_eq!(node.one(&old(seq + 2, "2025-06-02T07:59:59Z")), ACCEPTED);
    };
    check(&node, 1);
    let node = node.restart();
    check(&node, 11);
    node.engine.snapshot().unwrap();
    let node = node.restart();
    check(&node, 21);
    // Lifted at 10:00; what was tapped before stays judged by the block.
    node.engine.import(&mut line.as_bytes()).unwrap();
    check(&node, 31);
    node.clock.pass_seconds(600);
    assert_eq!(node.one(&old(41, "2025-06-02T10:01:00Z")), ACCEPTED);
    assert_eq!(node.draft().totals.line_count, 9);
}

#[test]
fn s7_claim() {
    let node = Node::start();
    let mut half = trip(3, NINE, y());
    (half.service, half.tariff.0, half.discount_percent, half.benefit.0) =
        (ServiceId(2), 9_000, 50, 0);
    let trips = [trip(1, NINE, x()), trip(2, NINE, x()), half];
    assert_eq!(node.upload(&trips), [ACCEPTED; 3]);
    let draft = node.draft();
    assert_eq!(
        (draft.id, draft.state, draft.totals.total.0),
        (ClaimId(1), ClaimState::Draft, 54_500)
    );
    assert_eq!(node.lines(draft.id), [1, 2, 3]);
    // A trip that came late joins the draft; a claimed one is in no other claim.
    assert_eq!(node.one(&trip(4, NINE, x())), ACCEPTED);
    assert_eq!(node.lines(node.draft().id), [1, 2, 3, 4]);
    let process = |id, seq: u64| {
        let name = TripName { terminal: TerminalId(2), seq: TripSeq(seq) };
        let refusal = Refusal { name, reason: "no such stop".to_owned() };
        ClaimOrder::Process(id, vec![refusal])
    };
    let id = draft.id;
    assert_eq!(node.order(process(id, 4)), Err(ClaimError::NotFound), "still a draft");
    let stranger = ClaimOrder::Submit(OrganizationId(2), id);
    assert_eq!(node.order(stranger), Err(ClaimError::NotFound));
    let submit = ClaimOrder::Submit(CARRIER, id);
    assert_eq!(node.order(submit.clone()).unwrap().state, ClaimState::Submitted);
    assert_eq!(node.order(submit).unwrap().state, ClaimState::Submitted);
    let second = node.draft();
    assert_eq!((second.id, second.totals.line_count), (ClaimId(2), 0));
    assert_eq!(node.order(ClaimOrder::Accept(id)), Err(ClaimError::WrongState));
    assert_eq!(node.order(process(id, 9)), Err(ClaimError::NoSuchTrip));
    let processed = node.order(process(id, 4)).unwrap();
    assert_eq!((processed.state, processed.totals.owed().0), (ClaimState::Processed, 54_500));
    assert_eq!(node.order(process(id, 1)).unwrap().totals.owed().0, 29_500);
    assert_eq!(node.order(process(id, 1)).unwrap().totals.owed().0, 29_500);
    assert_eq!(node.order(ClaimOrder::Pay(id)), Err(ClaimError::WrongState));
    assert_eq!(node.order(ClaimOrder::Accept(id)).unwrap().state, ClaimState::PartlyRefused);
    let check = |node: &Node| {
        assert_eq!(node.lines(id), [1, 2, 3, 4]);
        let lines = node.engine.trips().claim_lines(id, 0, 1);
        assert_eq!(lines[0].refusal.as_deref(), Some("no such stop"));
        assert_eq!(node.draft().totals.line_count, 0);
    };
    check(&node);
    let node = node.restart();
    check(&node);
    node.engine.snapshot().unwrap();
    let node = node.restart();
    check(&node);
    let paid = node.order(ClaimOrder::Pay(id)).unwrap();
    assert_eq!((paid.state, paid.totals.owed().0), (ClaimState::Paid, 29_500));
}

#[test]
fn s8_taps_too_soon_are_not_paid_for_wherever_they_were() {
    let tap = |terminal: u64, seq, seconds: i64, companion| {
        let mut tap = trip(seq, NINE, x());
        tap.name.terminal.0 = terminal;
        tap.device_at = tap.device_at.plus_seconds(seconds);
        tap.texts.from_stop = "Площадь".to_owned();
        tap.companion = companion;
        tap
    };
    // Holder, companion, a second companion, the holder again too soon at the other door, and late
    // enough.
    let taps = [
        tap(2, 1, 0, false),
        tap(3, 2, 60, true),
        tap(2, 3, 90, true),
        tap(3, 4, 419, false),
        tap(2, 5, 420, false),
        tap(3, 6, 839, true),
        tap(2, 7, 845, true),
    ];
    let mut random = SmallRng::seed_from_u64(8);
    for _ in 0..20 {
        let node = Node::start();
        let mut shuffled = taps.clone();
        shuffled.shuffle(&mut random);
        shuffled.iter().for_each(|tap| assert_eq!(node.one(tap), ACCEPTED));
        let draft = node.draft();
        assert_eq!(node.lines(draft.id), [1, 2, 5, 6]);
        assert_eq!(node.lines(node.draft().id), [1, 2, 5, 6]);
    }
}

#[test]
fn a_ticket_and_a_limited_use_are_paid_for_once() {
    let node = Node::start();
    let service = r#"{"kind":"service","id":1,"name":"Автобус","service_kind":"transport","categories":[{"category":20,"limit":{"count":2,"period":"day"}}]}"#;
    node.engine.import(&mut service.as_bytes()).unwrap();
    let card = keys().identifiers.social_card("9643901401015000019", "14010125").unwrap();
    let mut registries = node.registries.clone();
    registries.grant(card, 1, 100);
    node.engine.trips().judge_by(registries);
    let at = |minute: u32| format!("2025-06-02T09:{minute:02}:00Z");
    let mut trips: Vec<Trip> = (1..=5).map(|seq| trip(seq, &at(seq as u32), x())).collect();
    trips[1].texts.ticket = "A7".to_owned();
    trips[2].texts.ticket = "A7".to_owned();
    // Another card of the same holder.
    trips[3].identifier = card;
    trips.reverse();
    assert_eq!(node.upload(&trips), [ACCEPTED; 5]);
    assert_eq!(node.lines(node.draft().id), [1, 2]);
}

#[test]
fn neither_order_nor_repetition_matters() {
    let mut random = SmallRng::seed_from_u64(15);
    for _ in 0..30 {
        let mut trips: Vec<Trip> = (1..=60)
            .map(|seq| {
                let mut one = trip(seq, NINE, if random.random_bool(0.7) { x() } else { y() });
                one.device_at = one.device_at.plus_seconds(random.random_range(-9_000..4_000));
                one.texts.from_stop = random.random_range(0..3).to_string();
                one.registry.0 = random.random_range(4..8);
                one.companion = random.random_bool(0.3);
                one.name.terminal.0 = random.random_range(2..4);
                one
            })
            .collect();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let node = Node::start();
            let mut standings = BTreeMap::new();
            for _ in 0..3 {
                trips.shuffle(&mut random);
                for batch in trips.chunks(random.random_range(1..40)) {
                    let outcomes = node.upload(batch);
                    for (trip, outcome) in batch.iter().zip(outcomes) {
                        let standing = match outcome {
                            TripOutcome::Recorded(standing) => {
                                assert!(!standings.contains_key(&trip.name));
                                standing
                            }
                            TripOutcome::Duplicate(Some(standing)) => standing,
                            other => panic!("{other:?}"),
                        };
                        let known = standings.insert(trip.name, standing);
                        assert!(known.is_none_or(|known| known == standing));
                    }
                }
            }
            let draft = node.draft();
            let lines = node.lines(draft.id);
            let marks = node.engine.trips().claim_lines(draft.id, 0, usize::MAX);
            assert!(marks.iter().all(|line| standings[&line.name] == Standing::Accepted));
            seen.push((standings, lines, draft.totals));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn an_unknown_end_of_an_upload_is_read_from_the_log() {
    for (fault, expected) in [
        (AppendFault::Kept, TripOutcome::Duplicate(Some(Standing::Accepted))),
        (AppendFault::Lost, ACCEPTED),
    ] {
        let node = Node::start();
        assert_eq!(node.one(&trip(1, NINE, x())), ACCEPTED);
        node.journal.plan_faults([Some(fault)]);
        assert_eq!(node.one(&trip(2, NINE, x())), TripOutcome::Unavailable);
        let outcome = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let outcome = node.one(&trip(2, NINE, x()));
            (outcome != TripOutcome::Unavailable).then_some(outcome)
        });
        assert_eq!(outcome, Some(expected));
        node.journal.plan_faults([Some(fault)]);
        assert_eq!(node.order(ClaimOrder::Draft(CARRIER, JUNE)), Err(ClaimError::Unavailable));
        let draft = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            node.order(ClaimOrder::Draft(CARRIER, JUNE)).ok()
        });
        let draft = draft.unwrap();
        assert_eq!((draft.id, node.lines(draft.id)), (ClaimId(1), vec![1, 2]));
        assert!(node.engine.snapshot().is_ok());
        let node = node.restart();
        assert_eq!(node.lines(draft.id), [1, 2]);
    }
}

#[test]
fn what_is_settled_for_long_leaves_memory_and_is_still_known() {
    let node = Node::start();
    let mut denied = trip(3, NINE, x());
    denied.verdict = engine::trips::trip::TripVerdict::DenyRepeat;
    node.upload(&[trip(1, NINE, x()), trip(2, NINE, y()), denied, trip(4, NINE, x())]);
    let id = node.draft().id;
    assert_eq!(node.lines(id), [1, 4]);
    for order in [
        ClaimOrder::Submit(CARRIER, id),
        ClaimOrder::Process(id, Vec::new()),
        ClaimOrder::Accept(id),
        ClaimOrder::Pay(id),
    ] {
        node.order(order).unwrap();
    }
    node.upload(&[trip(5, NINE, x())]);
    let mut book = engine::trips::book::TripBook::default();
    let sources = engine::recovery::Sources {
        journal: &node.journal,
        snapshots: &node.snapshots,
        partition: PartitionId(0),
    };
    let settings = engine::ledger::LedgerSettings {
        checked_ttl_seconds: 1,
        transactions_max: 1,
        shard_count: 1,
    };
    let extent = engine::recovery::Extent::Trips;
    std::mem::swap(
        &mut book,
        &mut engine::recovery::recover(sources, settings, extent).unwrap().trips,
    );
    assert_eq!(book.trip_count(), 5);
    book.apply_sweep(node.now().plus_seconds(80 * 86_400));
    assert_eq!(book.trip_count(), 5);
    book.apply_sweep(node.now().plus_seconds(91 * 86_400));
    let left: Vec<u64> = book.slots().map(|slot| slot.name.seq.0).collect();
    assert_eq!(left, [5], "what is owed and unclaimed stays");
    let claim = book.claim(id).unwrap();
    assert_eq!((claim.is_archived, claim.totals.total.0), (true, 50_000));
    let name = |seq| TripName { terminal: TerminalId(2), seq: TripSeq(seq) };
    assert!((1..=4).all(|seq| book.is_forgotten(name(seq))) && !book.is_forgotten(name(5)));
}

#[test]
fn past_the_limit_of_memory_trips_are_unavailable() {
    let (journal, snapshots) = (MemoryJournal::default(), MemorySnapshots::default());
    let node = Node::start_on(journal, snapshots, 2);
    node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
    let trips: Vec<Trip> = (1..=3).map(|seq| trip(seq, NINE, x())).collect();
    assert_eq!(node.upload(&trips), [ACCEPTED, ACCEPTED, TripOutcome::Unavailable]);
    let duplicate = TripOutcome::Duplicate(Some(Standing::Accepted));
    assert_eq!(node.upload(&trips), [duplicate, duplicate, TripOutcome::Unavailable]);
}
