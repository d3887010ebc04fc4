//! Which embedded store should hold the index of the history: sled, fjall or redb?
//!
//! Every candidate gets the same confirmed transactions in the order of their arrival (a year, one
//! million holders of whom a few travel much more than the others, 200 organizations by Zipf), in
//! batches of 1,000 over three keyspaces:
//! - holder, instant, transaction -> the confirmation as the log holds it;
//! - organization, instant, transaction -> the holder;
//! - transaction -> holder and instant.
//!
//! No batch is made durable by itself, because the index is rebuilt if it is lost. Each candidate
//! runs in a process of its own, so that its memory is its own; all have a cache of 64 MiB.
//!
//! ```text
//! cargo bench -p benches --bench history_store -- --count 10000000 --seconds 180
//! ```
//! `--only fjall` runs one; loading ends after `--seconds` even when not all is in.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use engine::calendar::{Day, Timestamp};
use engine::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId,
};
use engine::record::Record;
use engine::transaction::{Amounts, Confirmation, Event, LimitPeriod, Transaction};

use crate::candidates::{Candidate, Entry, Outcome, PAGE, key, open};

mod candidates;

fn main() -> Outcome<()> {
    let options = Options::parse();
    if let Some(candidate) = &options.child {
        return run(candidate, &options);
    }
    println!("{HEAD}");
    for candidate in ["fjall", "redb", "sled"] {
        if options.only.as_deref().is_some_and(|only| only != candidate) {
            continue;
        }
        let ended = std::process::Command::new(std::env::current_exe()?)
            .args(["--child", candidate])
            .args(["--count", &options.count.to_string()])
            .args(["--seconds", &options.seconds.to_string()])
            .args(["--directory", &options.directory])
            .status()?;
        if !ended.success() {
            println!("{candidate:<6} did not finish: {ended}");
        }
    }
    Ok(())
}

struct Options {
    count: u64,
    seconds: u64,
    directory: String,
    only: Option<String>,
    child: Option<String>,
}

impl Options {
    fn parse() -> Options {
        let words: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1).cloned()
        };
        let number = |name: &str, absent| {
            value(name).and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(absent)
        };
        Options {
            count: number("--count", 1_000_000),
            seconds: number("--seconds", 180),
            directory: value("--directory").unwrap_or_else(|| ".".to_owned()),
            only: value("--only"),
            child: value("--child"),
        }
    }
}

fn run(name: &str, options: &Options) -> Outcome<()> {
    let home = tempfile::tempdir_in(&options.directory)?;
    let mut source = Source::new(options.count);
    let before = resident_mib("VmRSS:");
    let mut candidate = open(name, home.path())?;

    let began = Instant::now();
    let cap = Duration::from_secs(options.seconds);
    let mut loaded = 0;
    let mut preparing = Duration::ZERO;
    let mut batch_times = Histogram::<u64>::new(3)?;
    while loaded < options.count && began.elapsed() < cap {
        let prepared = Instant::now();
        let batch: Vec<Entry> = (0..BATCH).map(|_| source.next()).collect();
        preparing += prepared.elapsed();
        let started = Instant::now();
        candidate.load(&batch)?;
        batch_times.record(micros(started.elapsed()))?;
        loaded += BATCH;
    }
    candidate.settle()?;
    let loading = began.elapsed().saturating_sub(preparing);
    let after_load = resident_mib("VmRSS:").saturating_sub(before);
    let peak = resident_mib("VmHWM:").saturating_sub(before);
    let disk = disk_bytes(home.path())?;

    drop(candidate);
    let reopening = Instant::now();
    let candidate = open(name, home.path())?;
    let reopened = reopening.elapsed();
    let mut seen = Source::new(options.count);
    let probes: Vec<Probe> = (0..loaded).map(|_| seen.next_probe()).step_by(97).collect();
    let asked = ask(candidate.as_ref(), &probes)?;
    let after_queries = resident_mib("VmRSS:").saturating_sub(before);

    let rate = loaded as f64 / loading.as_secs_f64() / 1e3;
    let times = |histogram: &Histogram<u64>| {
        format!("{}/{}", histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99))
    };
    println!(
        "{name:<6} {:>9} {rate:>8.1} {:>13} {:>9} {:>5} {after_load:>8} {peak:>8} {after_queries:>8} \
         {:>9} {:>13} {:>15} {:>11}",
        loaded,
        times(&batch_times),
        disk >> 20,
        disk / loaded,
        reopened.as_millis(),
        times(&asked.holder),
        times(&asked.organization),
        times(&asked.transaction),
    );
    Ok(())
}

struct Asked {
    holder: Histogram<u64>,
    organization: Histogram<u64>,
    transaction: Histogram<u64>,
}

fn ask(candidate: &dyn Candidate, probes: &[Probe]) -> Outcome<Asked> {
    let mut random = SmallRng::seed_from_u64(7);
    let mut pick = || probes.get(random.random_range(0..probes.len())).copied();
    let fresh = || Histogram::<u64>::new(3);
    let mut asked = Asked { holder: fresh()?, organization: fresh()?, transaction: fresh()? };
    let month = 30 * DAY_MICROS;
    let limit = Duration::from_secs(15);
    let began = Instant::now();
    for _ in 0..5_000 {
        let Some(probe) = pick().filter(|_| began.elapsed() < limit) else { break };
        let bound = |at: i64| key::<16>(&[&probe.holder.to_be_bytes(), &at.to_be_bytes()]);
        let started = Instant::now();
        let page = candidate.holder_page(&bound(YEAR_BEGINS), &bound(i64::MAX))?;
        asked.holder.record(micros(started.elapsed()))?;
        check(page.total >= 1 && page.items.len() as u64 == page.total.min(PAGE as u64))?;
    }
    let began = Instant::now();
    for _ in 0..1_000 {
        let Some(probe) = pick().filter(|_| began.elapsed() < limit) else { break };
        let from = probe.at - (probe.at - YEAR_BEGINS) % month;
        let bound = |at: i64| key::<12>(&[&probe.organization.to_be_bytes(), &at.to_be_bytes()]);
        let started = Instant::now();
        let page = candidate.organization_page(&bound(from), &bound(from + month))?;
        asked.organization.record(micros(started.elapsed()))?;
        check(page.total >= 1 && page.items.len() as u64 == page.total.min(PAGE as u64))?;
    }
    let began = Instant::now();
    for _ in 0..20_000 {
        let Some(probe) = pick().filter(|_| began.elapsed() < limit) else { break };
        let started = Instant::now();
        let found = candidate.transaction(probe.transaction)?;
        asked.transaction.record(micros(started.elapsed()))?;
        check(found.is_some())?;
    }
    Ok(asked)
}

fn check(holds: bool) -> Outcome<()> {
    if holds { Ok(()) } else { Err("a candidate gave a wrong answer".into()) }
}

/// The confirmed transactions of a year, always the same.
struct Source {
    random: SmallRng,
    organizations: Vec<f64>,
    made: u64,
    step_micros: i64,
}

#[derive(Clone, Copy)]
struct Probe {
    holder: u64,
    organization: u32,
    at: i64,
    transaction: u64,
}

impl Source {
    fn new(count: u64) -> Source {
        let mut sum = 0.0;
        let weights = (1..=ORGANIZATIONS).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        let organizations = weights.collect();
        let step_micros = 365 * DAY_MICROS / i64::try_from(count.max(1)).unwrap_or(i64::MAX);
        Source { random: SmallRng::seed_from_u64(1), organizations, made: 0, step_micros }
    }

    fn next_probe(&mut self) -> Probe {
        // Density 1/(2√x): the busiest holder travels some thousand times a year, the median seven.
        let place: f64 = self.random.random();
        let rank = (place * place * HOLDERS as f64) as u64;
        let holder = rank.wrapping_mul(0x9E37_79B9) % HOLDERS + 1;
        let most = self.organizations.last().copied().unwrap_or(1.0);
        let wanted = self.random.random_range(0.0..most);
        let organization = self.organizations.partition_point(|sum| *sum < wanted) as u32 + 1;
        let at = YEAR_BEGINS
            + self.step_micros * self.made as i64
            + self.random.random_range(0..self.step_micros.max(1));
        // A check is confirmed up to some minutes later, so ids are in order only roughly.
        let transaction = (1 << 30) + self.made * 8 + self.random.random_range(0..8_u64) * 801;
        let transaction = transaction * 8 + self.made % 8;
        self.made += 1;
        Probe { holder, organization, at, transaction }
    }

    fn next(&mut self) -> Entry {
        let probe = self.next_probe();
        let amounts = Amounts { price: Some(Kopecks(4_500)), discounted_price: Some(Kopecks(0)) };
        let transaction = Transaction {
            id: TransactionId(probe.transaction),
            organization: OrganizationId(probe.organization),
            terminal: TerminalId(63_000_000 + probe.transaction % 5_000),
            service: ServiceId(3),
            category: CategoryId(20 + (probe.holder % 30) as u32),
            holder: HolderId(probe.holder),
            checked_at: Timestamp(probe.at - 20_000_000),
            discount_percent: Some(50),
            limit_period: probe
                .holder
                .is_multiple_of(4)
                .then_some(LimitPeriod { first: Day(20_000), last: Day(20_006) }),
        };
        let confirmation = Confirmation { transaction, confirmed_at: Timestamp(probe.at), amounts };
        let mut bytes = Vec::with_capacity(80);
        Record::Event(Event::Confirmed(confirmation)).write(&mut bytes);
        let (holder, at) = (probe.holder.to_be_bytes(), probe.at.to_be_bytes());
        let id = probe.transaction.to_be_bytes();
        Entry {
            holder_key: key(&[&holder, &at, &id]),
            organization_key: key(&[&probe.organization.to_be_bytes(), &at, &id]),
            transaction_key: id,
            place: key(&[&holder, &at]),
            confirmation: bytes,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A line of `/proc/self/status` in MiB; 0 where there is none.
fn resident_mib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|found| found.strip_prefix(line));
    let kib = value.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}

fn disk_bytes(directory: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        sum += if facts.is_dir() { disk_bytes(&entry.path())? } else { facts.blocks() * 512 };
    }
    Ok(sum)
}

const BATCH: u64 = 1_000;
const HOLDERS: u64 = 1_000_000;
const ORGANIZATIONS: u32 = 200;
const DAY_MICROS: i64 = 86_400_000_000;
/// 2025-01-01T00:00:00Z.
const YEAR_BEGINS: i64 = 1_735_689_600_000_000;

const HEAD: &str = "\
Times in µs p50/p99; memory in MiB beyond the bare process; disk in allocated blocks.
store     loaded  k rec/s   batch 1000  disk MiB  B/rec rss load rss peak rss asked reopen ms   holder year \
 organization month  transaction";
