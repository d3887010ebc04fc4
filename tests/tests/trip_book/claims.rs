//! Claims: rows S7 and S8, what is paid for once, and what leaves memory.

use engine::calendar::Timestamp;
use engine::ids::{OrganizationId, PartitionId, ServiceId, TerminalId};
use engine::trips::book::TripBook;
use engine::trips::claim::{ClaimError, ClaimId, ClaimOrder, ClaimState, Refusal};
use engine::trips::trip::{Trip, TripName, TripSeq};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tests::trips::trip;

use crate::node::{ACCEPTED, CARRIER, NINE, Node, keys, x, y};

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

/// The book as the journal tells it.
fn recovered(node: &Node) -> TripBook {
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
    engine::recovery::recover(sources, settings, engine::recovery::Extent::Trips).unwrap().trips
}

/// A trip that came beside a paid one and was claimed after that had left memory was paid for too,
/// though it was a repeat.
#[test]
fn a_paid_trip_stays_as_long_as_others_may_be_its_repeats() {
    let node = Node::start();
    let tap = |seq| {
        let mut tap = trip(seq, NINE, x());
        tap.texts.from_stop = "Площадь".to_owned();
        tap
    };
    assert_eq!(node.one(&tap(1)), ACCEPTED);
    let id = node.draft().id;
    node.pay(id);
    assert_eq!(node.one(&tap(2)), ACCEPTED);
    let late = node.now().plus_seconds(100 * 86_400);
    let mut book = recovered(&node);
    book.apply_sweep(late);
    assert_eq!((book.trip_count(), book.claim(id).unwrap().is_archived), (2, false));
    // Once it was told from the paid one, nobody needs either.
    assert_eq!(node.draft().totals.line_count, 0);
    let mut book = recovered(&node);
    book.apply_sweep(late);
    assert_eq!((book.trip_count(), book.claim(id).unwrap().is_archived), (0, true));
}

#[test]
fn what_is_settled_for_long_leaves_memory_and_is_still_known() {
    let node = Node::start();
    let mut denied = trip(3, NINE, x());
    denied.verdict = engine::trips::trip::TripVerdict::DenyRepeat;
    node.upload(&[trip(1, NINE, x()), trip(2, NINE, y()), denied, trip(4, NINE, x())]);
    let id = node.draft().id;
    assert_eq!(node.lines(id), [1, 4]);
    node.pay(id);
    let paid_at = node.now();
    // Seven weeks later: it cannot be a repeat of those.
    let (midnight, nine) = ("2025-07-21T00:00:00Z", "2025-07-21T09:00:00Z");
    node.clock.set(Timestamp::parse(nine).unwrap());
    let mut registries = node.registries.clone();
    registries.build(8, midnight);
    node.engine.trips().judge_by(registries);
    let mut later = trip(5, nine, x());
    later.registry.0 = 8;
    assert_eq!(node.one(&later), ACCEPTED);
    let mut book = recovered(&node);
    assert_eq!(book.trip_count(), 5);
    book.apply_sweep(paid_at.plus_seconds(80 * 86_400));
    assert_eq!(book.trip_count(), 5);
    book.apply_sweep(paid_at.plus_seconds(91 * 86_400));
    let left: Vec<u64> = book.slots().map(|slot| slot.name.seq.0).collect();
    assert_eq!(left, [5], "what is owed and unclaimed stays");
    let claim = book.claim(id).unwrap();
    assert_eq!((claim.is_archived, claim.totals.total.0), (true, 50_000));
    let name = |seq| TripName { terminal: TerminalId(2), seq: TripSeq(seq) };
    assert!((1..=4).all(|seq| book.is_forgotten(name(seq))) && !book.is_forgotten(name(5)));
}
