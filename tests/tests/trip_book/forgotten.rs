//! The numbers of trips that have left memory, and devices that begin theirs again.

use engine::calendar::Timestamp;
use engine::ledger::{Ledger, LedgerSettings};
use engine::trips::block::Blocks;
use engine::trips::book::TripBook;
use engine::trips::clerk::{Clerk, Knowledge, UploadScope};
use engine::trips::judge::TripRules;
use engine::trips::trip::{Standing, Trip, TripKey, TripOutcome};
use tests::trips::trip;

use crate::node::{ACCEPTED, CARRIER, NINE, Node, x};

/// A year after [`NINE`].
const LATER: &str = "2026-06-05T09:00:00Z";

/// A device that had lost its disk began its numbers again; where the server had forgotten the trips
/// by those numbers, it answered "duplicate" to new ones, and they were lost.
#[test]
fn a_young_trip_under_a_forgotten_number_is_recorded_under_another_one() {
    let node = Node::start();
    let (registry, blocks) = (node.engine.registry(), Blocks::default());
    let settings = LedgerSettings { checked_ttl_seconds: 1, transactions_max: 1, shard_count: 1 };
    let ledger = Ledger::new(settings);
    let mut registries = node.registries.clone();
    registries.build(8, "2026-06-05T00:00:00Z");
    let mut clerk = Clerk::new(TripBook::default(), TripRules::default(), 100);
    let scope = UploadScope { organization: CARRIER, terminal: None };
    let upload = |clerk: &mut Clerk, trip: &Trip, now: &str| {
        let knowledge = Knowledge {
            now: Timestamp::parse(now).unwrap(),
            registry: &registry,
            blocks: &blocks,
            ledger: &ledger,
            registries: &registries,
        };
        clerk.upload(&[(scope, vec![trip.clone()])], &knowledge, &mut |_| true)[0][0]
    };
    let old = trip(1, NINE, x());
    assert_eq!(upload(&mut clerk, &old, NINE), ACCEPTED);
    assert!(clerk.sweep(Timestamp::parse(LATER).unwrap(), &mut |_| true));
    let (known, is_forgotten) = {
        let book = clerk.book().read().unwrap();
        (book.trip_count(), book.is_forgotten(old.name))
    };
    assert_eq!((known, is_forgotten), (0, true));
    // A repeat of the old one is told by its age.
    assert_eq!(upload(&mut clerk, &old, LATER), TripOutcome::Duplicate(None));
    let mut young = trip(1, LATER, x());
    young.registry.0 = 8;
    assert_eq!(upload(&mut clerk, &young, LATER), TripOutcome::Conflict);
    // The device gives it another number and a name, and may do so twice.
    young.key = Some(TripKey([5; 16]));
    assert_eq!(upload(&mut clerk, &young, LATER), TripOutcome::Conflict);
    young.name.seq.0 = 100_002;
    assert_eq!(upload(&mut clerk, &young, LATER), ACCEPTED);
    young.name.seq.0 = 300_004;
    let repeat = TripOutcome::Duplicate(Some(Standing::Accepted));
    assert_eq!(upload(&mut clerk, &young, LATER), repeat);
    assert_eq!(clerk.book().read().unwrap().trip_count(), 1);
}
