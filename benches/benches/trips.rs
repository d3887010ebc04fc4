//! Uploads of trips in batches of 10,000, durable: in process on the real journal, and over HTTP as
//! JSON from one core to a server on the other. `ELIGO_BENCH_TRIPS` sets how many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::calls::token_of;
use benches::client::{Drive, NextRequest, drive, post};
use benches::population::keys;
use benches::report::{print_figure, resident_bytes, setting};
use benches::target::{Target, eligo, keep_to_core_1};
use engine::calendar::{Clock, Timestamp};
use engine::command::Deadline;
use engine::engine::Engine;
use engine::identifier::Digest;
use engine::ids::{CategoryId, Kopecks, OrganizationId, PartitionId, ServiceId, TerminalId};
use engine::journal::Journal;
use engine::start::{Ports, Settings};
use engine::trips::claim::{ClaimOrder, Period};
use engine::trips::clerk::UploadScope;
use engine::trips::trip::{
    RegistryVersion, Standing, Trip, TripEvent, TripMode, TripName, TripOutcome, TripSeq,
    TripTexts, TripVerdict,
};
use futures_util::future::join_all;
use gateway::clock::SystemClock;
use snapshots::history::{HistoryOptions, StoredHistory};
use snapshots::journal::{EmbeddedJournal, JournalOptions};
use snapshots::sled_snapshots::SledSnapshots;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 10_000;
/// Uploads under way at the same time.
const IN_FLIGHT: usize = 4;
const TARGET: &str = "≥ 100,000";
const HOLDERS: u64 = 50_000;

fn main() {
    let trips = setting("ELIGO_BENCH_TRIPS", 1_000_000);
    let directory = tempfile::tempdir_in(".").unwrap();
    in_process(&directory.path().join("in_process"), trips);
    over_http(&directory.path().join("http"), trips);
}

/// One carrier with a terminal, and holders with a right each.
fn registry() -> Vec<u8> {
    let mut lines = br#"{"kind":"region","code":"66","name":"R","utc_offset":"+05:00"}
{"kind":"area","id":1,"name":"A","region":"66"}
{"kind":"category","id":20,"name":"C","priority":20}
{"kind":"service","id":1,"name":"Bus","service_kind":"transport","categories":[{"category":20}]}
{"kind":"organization","id":1,"client_id":"1","client_secret":"s","short_name":"O","connection":"T2V2","state":"active","area":1,"ip_allow":["0.0.0.0/0"],"categories":[20]}
{"kind":"offer","organization":1,"service":1}
{"kind":"terminal","id":2,"organization":1}
"#
    .to_vec();
    for id in 1..=HOLDERS {
        writeln!(
            lines,
            r#"{{"kind":"holder","id":{id},"region":"66","cards":[{{"type":"ecs","client_code":"{}"}}],"categories":[{{"category":20}}]}}"#,
            code(id)
        )
        .unwrap();
    }
    lines
}

fn code(holder: u64) -> String {
    format!("B{holder:08}")
}

fn in_process(directory: &Path, count: u64) {
    let journal = EmbeddedJournal::open(&directory.join("journal"), JournalOptions::default());
    let journal: Arc<dyn Journal> = Arc::new(journal.unwrap());
    let tenure = journal.acquire(PartitionId(0)).unwrap();
    let history = directory.join("history");
    let history =
        StoredHistory::open(&history, journal.clone(), PartitionId(0), HistoryOptions::default());
    let snapshots = SledSnapshots::open(&directory.join("snapshots")).unwrap();
    let ports = Ports {
        clock: Arc::new(SystemClock),
        history: Arc::new(history.unwrap()),
        journal,
        snapshots: Arc::new(snapshots),
        tenure,
    };
    let engine = Engine::start(&Settings::default(), ports, keys()).unwrap();
    engine.import(&mut registry().as_slice()).unwrap();
    let cards: Vec<Digest> =
        (1..=HOLDERS).map(|id| keys().identifiers.client_code(&code(id)).unwrap()).collect();
    let now = engine.now();
    let batch = |number: u64| -> Vec<Trip> {
        let seqs = number * BATCH + 1..=(number + 1) * BATCH;
        seqs.map(|seq| trip(seq, now, cards[usize::try_from(seq % HOLDERS).unwrap()])).collect()
    };
    let scope = UploadScope { organization: OrganizationId(1), terminal: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let before = resident_bytes();
    let (mut accepted, mut spent) = (0, Duration::ZERO);
    let batches: Vec<u64> = (0..count / BATCH).collect();
    for numbers in batches.chunks(IN_FLIGHT) {
        let uploads: Vec<Vec<Trip>> = numbers.iter().map(|number| batch(*number)).collect();
        let begun = Instant::now();
        let deadline = Deadline::within(Duration::from_secs(60));
        let uploads =
            uploads.into_iter().map(|trips| engine.trips().upload(scope, trips, deadline));
        let outcomes = runtime.block_on(join_all(uploads));
        spent += begun.elapsed();
        let good = TripOutcome::Recorded(Standing::Accepted);
        accepted += outcomes.iter().flatten().filter(|outcome| **outcome == good).count();
    }
    assert_eq!(accepted as u64, count);
    let rate = count as f64 / spent.as_secs_f64();
    print_figure("trips uploaded in process, durable", rate, "trips/s", TARGET);
    let bytes = resident_bytes().saturating_sub(before) as f64 / count as f64;
    print_figure("memory of a trip", bytes, "bytes", "none");
    let begun = Instant::now();
    let today = now.local_day(engine::calendar::UtcOffset(18_000));
    let period = Period { first: engine::calendar::Day(today.0 - 40), last: today };
    let deadline = Deadline::within(Duration::from_secs(120));
    let order = ClaimOrder::Draft(OrganizationId(1), period);
    let claim = runtime.block_on(engine.trips().order(order, deadline)).unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let what = format!("a claim of {} trips drawn up", claim.totals.line_count);
    print_figure(&what, seconds, "s", "none");
    engine.stop();
}

fn trip(seq: u64, now: Timestamp, identifier: Digest) -> Trip {
    Trip {
        name: TripName { terminal: TerminalId(2), seq: TripSeq(seq) },
        key: None,
        organization: OrganizationId(1),
        event: TripEvent::Boarding,
        mode: TripMode::Offline,
        device_at: now.plus_seconds(-i64::try_from(seq % 2_000_000).unwrap()),
        clock_offset_ms: 120,
        service: ServiceId(1),
        texts: TripTexts {
            route: "45".to_owned(),
            vehicle: "A001AA66".to_owned(),
            from_stop: format!("stop {}", seq % 1_000),
            ..TripTexts::default()
        },
        identifier,
        registry: RegistryVersion(7),
        verdict: TripVerdict::Grant,
        category: Some(CategoryId(20)),
        companion: false,
        tariff: Kopecks(3_500),
        discount_percent: 100,
        benefit: Kopecks(3_500),
        transaction: None,
    }
}

fn over_http(directory: &Path, count: u64) {
    std::fs::create_dir_all(directory).unwrap();
    let file = directory.join("registry.ndjson");
    std::fs::write(&file, registry()).unwrap();
    let import = file.display().to_string();
    let more = ["--import", &import, "--request-deadline-ms", "60000"];
    let server = Target::serve(&eligo(), &directory.join("data"), &more);
    keep_to_core_1();
    let token = token_of(&server, None, "1", "s");
    let now = SystemClock.now();
    let requests: Vec<Rc<Vec<u8>>> = (0..count / BATCH)
        .map(|number| {
            let seqs = number * BATCH + 1..=(number + 1) * BATCH;
            let trips: Vec<String> = seqs.map(|seq| json(seq, now)).collect();
            let body = format!(r#"{{"trips":[{}]}}"#, trips.join(","));
            Rc::new(post("/api/v2/trips", &token, &body))
        })
        .collect();
    let next = Cell::new(0);
    let take: NextRequest = Rc::new(move || {
        next.set(next.get() + 1);
        requests.get(next.get() - 1).cloned()
    });
    let plan = Drive {
        address: server.http,
        tls: None,
        connections: IN_FLIGHT,
        duration: Duration::from_secs(120),
    };
    let driven = drive(&plan, &take);
    assert_eq!(driven.failures, 0, "{}", driven.sample);
    assert_eq!(driven.sample.matches("accepted").count(), usize::try_from(BATCH).unwrap());
    let rate = driven.rate * BATCH as f64;
    print_figure("trips uploaded over HTTP, JSON, durable", rate, "trips/s", TARGET);
    let p99 = driven.latency.value_at_quantile(0.99) as f64 / 1e6;
    print_figure("the same, p99 of a batch of 10,000", p99, "ms", "none");
}

fn json(seq: u64, now: Timestamp) -> String {
    let at = now.plus_seconds(-i64::try_from(seq % 2_000_000).unwrap());
    format!(
        r#"{{"seq":{seq},"terminalId":2,"event":"boarding","mode":"offline","at":"{at}","clockOffsetMs":120,"serviceId":1,"route":"45","vehicle":"A001AA66","fromStop":"stop {}","clientCode":"{}","registryVersion":7,"verdict":"GRANT","benefitCategoryId":20,"tariff":35,"discount":100,"benefit":35}}"#,
        seq % 1_000,
        code(seq % HOLDERS + 1)
    )
}
