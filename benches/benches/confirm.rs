//! Durable confirms in process, 64 and 1,024 in flight, beside raw write + fdatasync of batches of
//! the same size to a zero-filled file, and beside batches of the size that the engine really wrote:
//! what lies between the two floors is batching, the rest is computing. `ELIGO_BENCH_HISTORY=1` lets
//! the history follow meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::population::{identifiers, keys, registry_file};
use benches::report::{median, print_ratio, setting};
use benches::target::keep_awake;
use engine::answer::Reply;
use engine::calendar::Day;
use engine::command::{Check, CheckAnswer, Confirm, Deadline, Granted, SettleAnswer};
use engine::engine::Engine;
use engine::history::{Freshness, History, HistoryError, HistoryPage, Page, Settled, Span};
use engine::ids::{HolderId, OrganizationId, PartitionId, ServiceId, TerminalId, TransactionId};
use engine::journal::{Journal, Position};
use engine::postbox::gather_commands;
use engine::start::{Ports, Settings};
use engine::transaction::Amounts;
use gateway::clock::SystemClock;
use hdrhistogram::Histogram;
use snapshots::history::{HistoryOptions, StoredHistory};
use snapshots::journal::{EmbeddedJournal, JournalOptions};
use snapshots::sled_snapshots::SledSnapshots;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
/// A stored confirmation with its length.
const RECORD_BYTES: usize = 64;

/// The history follows the log at its own pace and is measured by `history_store`; here it would
/// index on the processor and the device that are being measured.
struct NoHistory;

impl History for NoHistory {
    fn of_holder(
        &self,
        _: HolderId,
        _: Span,
        _: Page,
        _: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        Err(HistoryError::Late)
    }

    fn of_organization(
        &self,
        _: OrganizationId,
        _: Span,
        _: Page,
        _: Freshness,
    ) -> Result<HistoryPage, HistoryError> {
        Err(HistoryError::Late)
    }

    fn settled(&self, _: TransactionId, _: Freshness) -> Result<Option<Settled>, HistoryError> {
        Err(HistoryError::Late)
    }

    fn follow(&self, _: Position) {}

    fn kept(&self) -> Position {
        Position::ORIGIN
    }
}

fn main() {
    let _awake = keep_awake();
    let confirms = usize::try_from(setting("ELIGO_BENCH_CONFIRMS", 300_000)).unwrap();
    let directory = tempfile::tempdir_in(".").unwrap();
    let (engine, journal) = start(directory.path());
    engine.import(&mut registry_file(100_000)).unwrap();
    for in_flight in [64, 1_024] {
        let (mut ours, mut raw, mut tail, mut raw_tail) = (vec![], vec![], vec![], vec![]);
        let (mut written, mut alike, mut alike_tail) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let granted = open(&engine, confirms * in_flight / 1_024 + 20_000);
            let before = journal.stats();
            let (rate, p99) = confirm_all(&engine, granted, in_flight);
            let after = journal.stats();
            let frames = after.appends - before.appends;
            let frame_records = (after.records - before.records).div_ceil(frames);
            println!(
                "  {in_flight} in flight: {rate:.0}/s, {frame_records} records a frame, sync {} µs",
                (after.sync_ns - before.sync_ns) / frames / 1_000
            );
            let (raw_rate, raw_p99) = write_raw(directory.path(), in_flight);
            let (alike_rate, alike_p99) =
                write_raw(directory.path(), usize::try_from(frame_records).unwrap());
            written.push(frame_records as f64);
            alike.push(alike_rate);
            alike_tail.push(alike_p99);
            ours.push(rate);
            tail.push(p99);
            raw.push(raw_rate);
            raw_tail.push(raw_p99);
        }
        let target = if in_flight == 64 { "≥ 0.5" } else { "≥ 0.75" };
        let what = format!("durable confirm in process, {in_flight} in flight");
        print_ratio(&what, median(&ours), median(&raw), "confirms/s", target);
        print_ratio(&format!("{what}, p99"), median(&tail), median(&raw_tail), "µs", "≤ 3");
        let what = format!("the same beside batches of {}", median(&written));
        print_ratio(&what, median(&ours), median(&alike), "confirms/s", "none");
        print_ratio(&format!("{what}, p99"), median(&tail), median(&alike_tail), "µs", "none");
    }
    engine.stop();
}

fn start(directory: &Path) -> (Engine, Arc<EmbeddedJournal>) {
    let options = JournalOptions::default();
    let journal = Arc::new(EmbeddedJournal::open(&directory.join("journal"), options).unwrap());
    let tenure = journal.acquire(PartitionId(0)).unwrap();
    let shared: Arc<dyn Journal> = journal.clone();
    let history: Arc<dyn History> = if setting("ELIGO_BENCH_HISTORY", 0) == 0 {
        Arc::new(NoHistory)
    } else {
        let options = HistoryOptions::default();
        let path = directory.join("history");
        Arc::new(StoredHistory::open(&path, shared.clone(), PartitionId(0), options).unwrap())
    };
    let snapshots = SledSnapshots::open(&directory.join("snapshots")).unwrap();
    let ports = Ports {
        clock: Arc::new(SystemClock),
        history,
        journal: shared,
        snapshots: Arc::new(snapshots),
        tenure,
    };
    (Engine::start(&Settings::default(), ports, keys()).unwrap(), journal)
}

/// Opens transactions to confirm.
fn open(engine: &Engine, count: usize) -> Vec<Granted> {
    let registry = engine.registry();
    let today = Day(20_600);
    let items = registry.directory().items();
    let organization = OrganizationId(1);
    let (terminal, _) =
        items.terminals.iter().find(|(_, t)| t.organization == organization).unwrap();
    let offers = items.offers.keys().filter(|(owner, _)| *owner == organization);
    let unlimited = |service: &ServiceId| {
        let offer = registry.directory().compiled(organization).unwrap().offer(*service).unwrap();
        offer.validity.covers(today) && offer.candidates.iter().all(|c| c.limit.is_none())
    };
    let service = offers.map(|(_, service)| *service).find(unlimited).unwrap();
    let terminal: TerminalId = *terminal;
    let mut granted = Vec::with_capacity(count);
    for identifier in identifiers(100_000, count * 2) {
        let check = Check { organization, terminal, service, identifier };
        if let CheckAnswer::Granted(one) = engine.check(&registry, &check) {
            granted.push(one);
        }
        if granted.len() == count {
            break;
        }
    }
    // The openings get their frames before the clock starts.
    std::thread::sleep(Duration::from_millis(500));
    granted
}

/// Confirms all, with a fixed number under way; returns the rate and the p99 in microseconds.
fn confirm_all(engine: &Engine, granted: Vec<Granted>, in_flight: usize) -> (f64, f64) {
    let (sender, receiver) = crossbeam::channel::bounded(in_flight);
    let mut arrived = Vec::with_capacity(in_flight);
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    let count = granted.len();
    let begun = Instant::now();
    let mut sent = 0;
    let mut answered = 0;
    let mut granted = granted.into_iter();
    while answered < count {
        // One look at the clock for all that go and one for all that came: both make latencies longer.
        let at = Instant::now();
        // What has come goes out in one go, as over the link.
        gather_commands(|| {
            for one in granted.by_ref().take(in_flight - (sent - answered)) {
                let sender = sender.clone();
                let reply = Reply::new(move |answer: Option<SettleAnswer>| {
                    sender.try_send((at, answer)).unwrap();
                });
                submit(engine, one, at, reply);
                sent += 1;
            }
        });
        arrived.push(receiver.recv().unwrap());
        arrived.extend(receiver.try_iter().take(in_flight));
        let now = Instant::now();
        for (at, answer) in arrived.drain(..) {
            assert_eq!(answer, Some(SettleAnswer::Done));
            let waited: Duration = now - at;
            latency.saturating_record(u64::try_from(waited.as_micros()).unwrap());
            answered += 1;
        }
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    (rate, latency.value_at_quantile(0.99) as f64)
}

fn submit(engine: &Engine, granted: Granted, at: Instant, reply: Reply<SettleAnswer>) {
    let confirm = Confirm {
        organization: OrganizationId(1),
        transaction: granted.transaction,
        holder: granted.holder,
        category: granted.category,
        amounts: Amounts::default(),
    };
    let deadline = Deadline(at + Duration::from_secs(3));
    assert_eq!(engine.submit_confirm(confirm, deadline, reply), None);
}

/// Raw writes of `records` records each, synced; the floor of group commit.
fn write_raw(directory: &Path, records: usize) -> (f64, f64) {
    let file = File::create(directory.join("raw")).unwrap();
    file.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let batch = vec![1; (records * RECORD_BYTES).next_multiple_of(512)];
    let batches = ((60 << 20) / batch.len()).min(2_000);
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    let begun = Instant::now();
    for at in 0..batches {
        let sent = Instant::now();
        file.write_all_at(&batch, (at * batch.len()) as u64).unwrap();
        file.sync_data().unwrap();
        latency.saturating_record(u64::try_from(sent.elapsed().as_micros()).unwrap());
    }
    let rate = (batches * records) as f64 / begun.elapsed().as_secs_f64();
    (rate, latency.value_at_quantile(0.99) as f64)
}
