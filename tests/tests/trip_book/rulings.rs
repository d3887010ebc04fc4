//! Disputed trips and what a person decides of them: until when, how often, and that it lasts.

use std::collections::BTreeSet;

use engine::ids::{PartitionId, TerminalId};
use engine::journal::{Journal, Position};
use engine::record::Record;
use engine::trips::book::TripBook;
use engine::trips::claim::{ClaimId, ClaimOrder, ClaimState, ClaimTotals};
use engine::trips::listing::TripQuery;
use engine::trips::ruling::{Ruling, RulingOutcome, RulingVerdict};
use engine::trips::trip::{
    RegistryVersion, Trip, TripName, TripOutcome, TripReason, TripSeq, TripState,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tests::memory::AppendFault;
use tests::trips::trip;

use crate::node::{ACCEPTED, CARRIER, JUNE, NINE, Node, disputed, x, y};

const ACCEPT: RulingVerdict = RulingVerdict::Accepted;
const REJECT: RulingVerdict = RulingVerdict::Rejected;

/// A trip by a version of which nobody knows.
fn doubtful(seq: u64, at: &str) -> Trip {
    let mut doubtful = trip(seq, at, x());
    doubtful.registry = RegistryVersion(6);
    doubtful
}

fn ruling(seq: u64, verdict: RulingVerdict) -> Ruling {
    let name = TripName { terminal: TerminalId(2), seq: TripSeq(seq) };
    Ruling { name, verdict, reason: format!("act {seq}") }
}

fn rule_one(node: &Node, seq: u64, verdict: RulingVerdict) -> RulingOutcome {
    node.rule(vec![ruling(seq, verdict)])[0]
}

/// How trips stand and why, by their numbers.
fn listed(node: &Node, state: Option<TripState>) -> Vec<(u64, TripState, Option<String>)> {
    let query =
        TripQuery { organization: Some(CARRIER), period: JUNE, state, after: None, count: 99 };
    let page = node.engine.trips().list(&query, &node.engine.registry());
    assert_eq!(page.next, None);
    let trips = page.trips.into_iter();
    let told = trips.map(|view| {
        let reason = view.ruling.map(|ruling| ruling.reason);
        (view.recorded.trip.name.seq.0, view.state, reason)
    });
    told.collect()
}

#[test]
fn a_disputed_trip_is_paid_for_once_it_is_accepted() {
    let node = Node::start();
    let trips = [doubtful(1, NINE), doubtful(2, NINE), doubtful(3, NINE), trip(4, NINE, x())];
    let doubt = disputed(TripReason::Registry);
    assert_eq!(node.upload(&trips), [doubt, doubt, doubt, ACCEPTED]);
    assert_eq!(node.lines(node.draft().id), [4]);
    let outcomes = node.rule(vec![
        ruling(1, ACCEPT),
        ruling(2, REJECT),
        ruling(4, REJECT),
        ruling(9, ACCEPT),
        Ruling { reason: "second thoughts".to_owned(), ..ruling(1, ACCEPT) },
    ]);
    let expected = [
        RulingOutcome::Ruled(ACCEPT),
        RulingOutcome::Ruled(REJECT),
        RulingOutcome::NotDisputed,
        RulingOutcome::NotFound,
        RulingOutcome::Ruled(ACCEPT),
    ];
    assert_eq!(outcomes, expected);
    let check = |node: &Node| {
        assert_eq!(node.lines(node.draft().id), [4, 1]);
        let act = |seq| Some(format!("act {seq}"));
        let all = [
            (1, TripState::Accepted, act(1)),
            (2, TripState::Rejected, act(2)),
            (3, TripState::Disputed, None),
            (4, TripState::Accepted, None),
        ];
        assert_eq!(listed(node, None), all);
        assert_eq!(listed(node, Some(TripState::Disputed)), all[2..3]);
        assert_eq!(rule_one(node, 2, REJECT), RulingOutcome::Ruled(REJECT));
        // What is answered to the device stays how it stood when it came.
        let first = TripOutcome::Duplicate(Some(engine::trips::trip::Standing::Disputed(
            TripReason::Registry,
        )));
        assert_eq!(node.one(&doubtful(1, NINE)), first);
    };
    check(&node);
    let node = node.restart();
    check(&node);
    node.engine.snapshot().unwrap();
    check(&node.restart());
}

#[test]
fn a_ruling_may_be_changed_until_the_trip_is_handed_in() {
    let node = Node::start();
    node.upload(&[doubtful(1, NINE), trip(2, NINE, x())]);
    assert_eq!(rule_one(&node, 1, REJECT), RulingOutcome::Ruled(REJECT));
    assert_eq!(node.lines(node.draft().id), [2]);
    assert_eq!(rule_one(&node, 1, ACCEPT), RulingOutcome::Ruled(ACCEPT));
    let id = node.draft().id;
    assert_eq!(node.lines(id), [2, 1]);
    assert_eq!(rule_one(&node, 1, REJECT), RulingOutcome::Ruled(REJECT));
    assert_eq!(node.lines(id), [2]);
    assert_eq!(rule_one(&node, 1, ACCEPT), RulingOutcome::Ruled(ACCEPT));
    assert_eq!(node.lines(node.draft().id), [2, 1]);
    node.order(ClaimOrder::Submit(CARRIER, id)).unwrap();
    let check = |node: &Node| {
        assert_eq!(rule_one(node, 1, REJECT), RulingOutcome::Claimed);
        assert_eq!(rule_one(node, 1, ACCEPT), RulingOutcome::Ruled(ACCEPT));
        assert_eq!(node.lines(id), [2, 1]);
    };
    check(&node);
    let node = node.restart();
    check(&node);
    node.engine.snapshot().unwrap();
    check(&node.restart());
}

#[test]
fn what_was_left_out_beside_a_rejected_trip_is_looked_at_again() {
    let node = Node::start();
    let tap = |mut tap: Trip| {
        tap.texts.from_stop = "Площадь".to_owned();
        tap
    };
    let later = tap(trip(2, "2025-06-02T09:03:00Z", x()));
    node.upload(&[tap(doubtful(1, NINE)), later, trip(3, NINE, y())]);
    rule_one(&node, 1, ACCEPT);
    let id = node.draft().id;
    assert_eq!(node.lines(id), [1]);
    rule_one(&node, 1, REJECT);
    assert_eq!(node.lines(id), [0; 0]);
    assert_eq!(node.lines(node.draft().id), [2]);
    let node = node.restart();
    assert_eq!(node.lines(node.draft().id), [2]);
}

#[test]
fn an_unknown_end_of_a_ruling_is_read_from_the_log() {
    for fault in [AppendFault::Kept, AppendFault::Lost] {
        let node = Node::start();
        node.upload(&[doubtful(1, NINE)]);
        node.journal.plan_faults([Some(fault)]);
        assert_eq!(rule_one(&node, 1, ACCEPT), RulingOutcome::Unavailable);
        let outcome = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let outcome = rule_one(&node, 1, ACCEPT);
            (outcome != RulingOutcome::Unavailable).then_some(outcome)
        });
        assert_eq!(outcome, Some(RulingOutcome::Ruled(ACCEPT)));
        let node = node.restart();
        assert_eq!(node.lines(node.draft().id), [1]);
    }
}

/// What tells one book from another: how each trip stands, and what the claims come to.
type Told = (
    Vec<(TripName, TripState, Option<TripReason>, Option<ClaimId>)>,
    Vec<(ClaimId, ClaimState, ClaimTotals, BTreeSet<TripName>)>,
);

fn told(book: &TripBook) -> Told {
    let slots = book.slots().map(|slot| (slot.name, slot.state(), slot.mark, slot.claim()));
    let mut slots: Vec<_> = slots.collect();
    slots.sort_by_key(|slot| slot.0);
    let claims = book.claims().map(|claim| {
        let names = claim.lines.iter().map(|line| line.name).collect();
        (claim.id, claim.state, claim.totals, names)
    });
    (slots, claims.collect())
}

/// A snapshot may hold what is replayed on top of it: from wherever the log is read again, the same
/// book comes of it.
#[test]
fn rulings_and_claims_may_be_replayed_over_themselves() {
    for seed in 0..40 {
        let node = Node::start();
        let mut random = SmallRng::seed_from_u64(seed);
        let trips: Vec<Trip> = (1..=12)
            .map(|seq| {
                let doubt = random.random_bool(0.7);
                let mut one = if doubt { doubtful(seq, NINE) } else { trip(seq, NINE, x()) };
                one.device_at = one.device_at.plus_seconds(random.random_range(-3_000..3_000));
                one.texts.from_stop = random.random_range(0..2).to_string();
                one
            })
            .collect();
        node.upload(&trips);
        for _ in 0..30 {
            match random.random_range(0..10) {
                0 => {
                    let ids: Vec<_> = (1..9).map(ClaimId).collect();
                    let id = ids[random.random_range(0..ids.len())];
                    // Most of them are not there or have no lines.
                    let _refused = node.order(ClaimOrder::Submit(CARRIER, id));
                }
                1..4 => {
                    node.draft();
                }
                _ => {
                    let verdict = if random.random_bool(0.5) { ACCEPT } else { REJECT };
                    rule_one(&node, random.random_range(1..=12), verdict);
                }
            }
        }
        let frames = node.journal.read(PartitionId(0), Position::ORIGIN).unwrap();
        let records: Vec<Record> = frames
            .flat_map(|stored| {
                let frame = stored.unwrap().frame;
                frame.records().map(|record| Record::read(record).unwrap()).collect::<Vec<_>>()
            })
            .collect();
        let apply = |book: &mut TripBook, records: &[Record]| {
            for record in records {
                match record {
                    Record::Claim(event) => book.apply_claim(event),
                    Record::Rulings(event) => book.apply_rulings(event),
                    Record::Trips(list) => book.apply_trips(&list.bytes).unwrap(),
                    _ => {}
                }
            }
        };
        let mut whole = TripBook::default();
        apply(&mut whole, &records);
        for _ in 0..20 {
            let taken = random.random_range(0..=records.len());
            let from = random.random_range(0..=taken);
            let mut book = TripBook::default();
            apply(&mut book, &records[..taken]);
            apply(&mut book, &records[from..]);
            assert_eq!(told(&book), told(&whole), "seed {seed}, taken {taken}, from {from}");
        }
    }
}
