//! Row S4 over the link: uploads are answered one by one, and survive a power cut once.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_bytes::ByteArray;
use tests::carrier::{BUS, Carrier, V1, run};
use tests::devices::{PATIENCE, card_key, connect};
use tests::seed;
use validator::link::client::Link;
use validator::link::message::{TripBatch, TripResults};
use validator::trip::{Trip, TripEvent, TripMode, TripReason, TripResult, TripStatus};
use validator::verdict::Verdict;

use crate::{TEN, X};

/// A full grant for a bus by version 1, at a stop of its own.
pub fn trip(link: &Link, seq: u64, at_ms: i64) -> Trip {
    Trip {
        seq,
        terminal: None,
        trip_id: None,
        event: TripEvent::Boarding,
        mode: TripMode::Offline,
        at_ms,
        clock_offset_ms: 0,
        service: BUS,
        route: "45".to_owned(),
        vehicle: String::new(),
        from_stop: format!("stop {seq}"),
        to_stop: String::new(),
        id_hash: ByteArray::new(card_key(link).client_code(X).unwrap().0),
        registry_version: 1,
        verdict: Verdict::Grant,
        category: Some(40),
        companion: false,
        tariff: 25_000,
        discount: 100,
        benefit: 25_000,
        ticket: String::new(),
        tx: None,
    }
}

/// 2025-06-02T10:00:00Z.
pub const TEN_MS: i64 = 1_748_858_400_000;

pub async fn upload(link: &Link, trips: Vec<Trip>) -> Vec<TripResult> {
    let TripResults { results } = link.ask(&TripBatch { trips }, PATIENCE).await.unwrap();
    results
}

/// Trips of one batch among many.
const BATCH_TRIPS: usize = 100;

/// Uploads in batches, two at a time, until so many were answered; the trips that were acknowledged.
async fn upload_until(link: &Link, trips: &[Trip], batches: usize) -> BTreeSet<u64> {
    let parts = RefCell::new(trips.chunks(BATCH_TRIPS));
    let heard = RefCell::new(BTreeSet::new());
    let work = async || {
        while heard.borrow().len() < batches * BATCH_TRIPS {
            let part = parts.borrow_mut().next().unwrap().to_vec();
            let results = upload(link, part).await;
            assert_eq!(count(&results, TripStatus::Accepted), BATCH_TRIPS);
            heard.borrow_mut().extend(results.iter().map(|result| result.seq));
        }
    };
    tokio::select! {
        () = work() => {}
        () = work() => {}
    }
    heard.into_inner()
}

fn count(results: &[TripResult], status: TripStatus) -> usize {
    results.iter().filter(|result| result.status == status).count()
}

#[test]
fn s4_uploads_over_the_link_survive_a_power_cut_once() {
    let mut carrier = Carrier::set(TEN, &[]);
    carrier.build();
    let seed = seed::variable("ELIGO_CRASH_SEED").unwrap_or_else(seed::any);
    println!("ELIGO_CRASH_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    run(async {
        let dialer = carrier.depot.dialer(V1);
        let open = async |carrier: &Carrier| {
            connect(&dialer, carrier.server.quic.unwrap(), V1).await.unwrap().link
        };
        let link = open(&carrier).await;
        let three: Vec<Trip> = (1..=3).map(|seq| trip(&link, seq, TEN_MS)).collect();
        let first = upload(&link, three.clone()).await;
        assert_eq!(count(&first, TripStatus::Accepted), 3);
        let again = upload(&link, three).await;
        assert_eq!(count(&again, TripStatus::Duplicate), 3);
        let ahead = upload(&link, vec![trip(&link, 4, TEN_MS + 600_000)]).await;
        assert_eq!(ahead[0].status, TripStatus::Rejected);
        assert_eq!(ahead[0].reason, Some(TripReason::Future));
        let mut many: Vec<Trip> = (11..=10_010).map(|seq| trip(&link, seq, TEN_MS)).collect();
        many[5_000].tariff = 0;
        let results = upload(&link, many).await;
        assert_eq!((results.len(), count(&results, TripStatus::Accepted)), (10_000, 9_999));
        assert_eq!(results[5_000].status, TripStatus::Rejected);
        assert_eq!(results[5_000].reason, Some(TripReason::Malformed));
        // The power fails in the middle of another ten thousand, with a batch on its way.
        let night: Vec<Trip> = (20_001..=30_000).map(|seq| trip(&link, seq, TEN_MS)).collect();
        let batches = random.random_range(1..=80);
        let heard = upload_until(&link, &night, batches).await;
        carrier.server.halt();
        drop(link);
        carrier.start_again(TEN, &[]);
        let link = open(&carrier).await;
        let results = upload(&link, night.clone()).await;
        let new = count(&results, TripStatus::Accepted);
        let known = count(&results, TripStatus::Duplicate);
        println!(
            "recorded before the power failed: {known} of 10000, {} of them heard",
            heard.len()
        );
        assert_eq!(new + known, 10_000);
        assert!(new > 0 && known >= heard.len() && heard.len() >= batches * BATCH_TRIPS);
        let is_known = |result: &TripResult| result.status == TripStatus::Duplicate;
        let lost = results.iter().filter(|one| heard.contains(&one.seq) && !is_known(one)).count();
        assert_eq!(lost, 0, "acknowledged trips were lost");
        let again = upload(&link, night).await;
        assert_eq!(count(&again, TripStatus::Duplicate), 10_000);
    });
    let claim = carrier.claim();
    assert_eq!(claim["lines"], 3 + 9_999 + 10_000);
    assert_eq!(claim["total"], 250.0 * 20_002.0);
}
