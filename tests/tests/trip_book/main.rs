//! Trips, claims and blocks in the engine with its threads, its storage in memory: rows S4, S5, S7
//! and S8 as far as they need no wire, recovery, failing journals, and that neither order nor
//! repetition of uploads matters.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use engine::calendar::Timestamp;
use engine::ids::TerminalId;
use engine::trips::claim::{ClaimError, ClaimId, ClaimOrder};
use engine::trips::clerk::UploadScope;
use engine::trips::trip::{RegistryVersion, Standing, Trip, TripKey, TripOutcome, TripReason};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tests::fixture;
use tests::memory::{AppendFault, MemoryJournal, MemorySnapshots};
use tests::trips::trip;

use crate::node::{ACCEPTED, CARRIER, JUNE, NINE, Node, code, disputed, rejected, x, y};

mod claims;
mod forgotten;
mod node;
mod once;
mod rulings;

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

/// The carrier's word was taken for the size of a benefit that the server had granted.
#[test]
fn what_the_server_granted_is_worth_what_it_said() {
    let node = Node::start();
    let id = once::transaction(&node);
    let of_half = |mut trip: Trip| {
        (trip.discount_percent, trip.benefit.0) = (50, 12_500);
        trip
    };
    let amount = disputed(TripReason::Amount);
    assert_eq!(node.one(&of_half(once::online(1, x(), id))), amount);
    assert_eq!(node.one(&of_half(once::shown(2, id))), amount);
    assert_eq!(node.one(&once::online(3, x(), id)), ACCEPTED);
}

#[test]
fn another_trip_of_the_same_name_or_key_is_a_conflict() {
    let node = Node::start();
    let mut first = trip(1, NINE, x());
    first.key = Some(TripKey([1; 16]));
    assert_eq!(node.one(&first), ACCEPTED);
    let mut other = first.clone();
    other.tariff.0 += 1;
    assert_eq!(node.one(&other), TripOutcome::Conflict);
    let mut renamed = first.clone();
    renamed.name.seq.0 = 2;
    assert_eq!(node.one(&renamed), TripOutcome::Duplicate(Some(Standing::Accepted)));
    renamed.tariff.0 += 1;
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
fn past_the_limit_of_memory_trips_are_unavailable() {
    let (journal, snapshots) = (MemoryJournal::default(), MemorySnapshots::default());
    let node = Node::start_on(journal, snapshots, 2);
    node.engine.import(&mut fixture::REGISTRY.as_bytes()).unwrap();
    let trips: Vec<Trip> = (1..=3).map(|seq| trip(seq, NINE, x())).collect();
    assert_eq!(node.upload(&trips), [ACCEPTED, ACCEPTED, TripOutcome::Unavailable]);
    let duplicate = TripOutcome::Duplicate(Some(Standing::Accepted));
    assert_eq!(node.upload(&trips), [duplicate, duplicate, TripOutcome::Unavailable]);
}
