//! eligo beside PostgreSQL 15, Redis 7 and Cedar, doing the same work on the same data.
//!
//! `benches/peers/run` brings the servers (Debian: `postgresql-15`, `redis-server`), builds and runs
//! this. Every server runs alone on core 0 with files of its own on the same disk; one closed loop
//! (`wire.rs`) drives them from core 1, in interleaved rounds, with pauses until the machine is
//! idle. A million holders, two million cards and three million rights; checks of random holders by
//! the code of a card, so all systems meet the same refusals. Every answer is compared with the
//! engine's decision: who answers faster but otherwise fails the run.
//!
//! # What the work is
//! A check finds the card by its code, asks whether card and holder are active, whether terminal,
//! organization and offer are in order, takes the best category of the holder that is valid today,
//! linked to the service and served by the organization, and opens a transaction. A confirm finds
//! the transaction, compares organization, holder and category, and records it durably; a repeat is
//! answered as the first. The opening may be lost in a power cut everywhere: eligo journals it
//! behind the answer, PostgreSQL runs checks with `synchronous_commit=off`, Redis with
//! `appendfsync everysec`; confirms run with `on` and `always`.
//!
//! # What the peers are spared
//! Tokens, JSON, TCP, digests of identifiers, limits of use, the history and its indexes, the region's
//! calendar (the driver tells them the day), checkpoints, vacuum and rewrites of the append-only file.
//!
//! `ELIGO_BENCH_HOLDERS` and `ELIGO_BENCH_SECONDS` change size and length. `ELIGO_BENCH_ONLY` picks one
//! of `memory`, `redis`, `postgres` and `cedar`. `ELIGO_BENCH_DIRECTORY` names an existing directory
//! for the files; what was loaded there is kept for the next run (`memory` is for new ones).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use benches::population::{SEED, next_random};
use benches::report::{median, resident_bytes_of, setting};
use benches::target::keep_to_core_1;

use crate::data::{Answered, Data};
use crate::eligo::Eligo;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::system::{Granted, System, Task, settle};
use crate::wire::{Driven, Load, drive};

#[cfg(feature = "cedar")]
mod cedar;
mod data;
#[cfg(feature = "cedar")]
mod decision;
mod eligo;
mod postgres;
mod redis;
mod system;
mod wire;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 3;
/// Different checks of a run; more than any cache holds.
const CHECKS: usize = 100_000;
const REDIS_CLIENTS: usize = 50;
const CONFIRM_CLIENTS: usize = 64;
/// PostgreSQL is measured at each of these, and the best counts.
const POSTGRES_CLIENTS: [usize; 2] = [8, 16];
/// Clients and the microseconds that a commit waits for others.
const POSTGRES_CONFIRMS: [(usize, u32); 3] = [(8, 0), (64, 0), (64, 300)];

fn main() {
    let holders = setting("ELIGO_BENCH_HOLDERS", 1_000_000);
    let only = std::env::var("ELIGO_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let kept = std::env::var("ELIGO_BENCH_DIRECTORY").ok();
    // Removed at the end, unless it was named.
    let temporary = kept.is_none().then(|| tempfile::tempdir_in("/var/tmp").unwrap());
    let directory = kept.map_or_else(PathBuf::new, PathBuf::from);
    let directory = temporary.as_ref().map_or(directory.as_path(), |temporary| temporary.path());
    open_to_all(directory);
    let data = Data::open(holders, directory);
    keep_to_core_1();
    #[cfg(feature = "cedar")]
    if wanted("cedar") {
        decision::beside_cedar(&data, random_holders(&data));
    }
    if wanted("memory") {
        memory(&mut Eligo::open(&data, directory), &mut Redis::open(&data, directory));
    }
    if wanted("redis") {
        let ours = Side::new("eligo", Eligo::open(&data, directory), &data);
        beside_redis(ours, Side::new("Redis", Redis::open(&data, directory), &data));
    }
    if wanted("postgres") {
        let ours = Side::new("eligo", Eligo::open(&data, directory), &data);
        beside_postgres(ours, Side::new("PostgreSQL", Postgres::open(&data, directory), &data));
    }
}

/// Servers that refuse to run as root must get to their files.
fn open_to_all(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn random_holders(data: &Data) -> impl Iterator<Item = u64> + Clone + use<> {
    let (mut state, holders) = (SEED, data.holders);
    std::iter::repeat_with(move || next_random(&mut state) % holders + 1)
}

/// Before anything is checked: all memory is the registry's.
fn memory(ours: &mut Eligo, redis: &mut Redis) {
    let (mut seconds, mut bytes) = (Pair::default(), Pair::default());
    for _ in 0..ROUNDS {
        settle();
        seconds.push(ours.restart(), redis.restart());
        settle();
        bytes.push(
            resident_bytes_of(ours.process()) as f64 / 1e6,
            resident_bytes_of(redis.process()) as f64 / 1e6,
        );
    }
    bytes.print("memory with the same data, Redis", "MB", "≤ 0.8");
    seconds.print("time to ready, Redis", "s", "≤ 0.9");
}

fn beside_redis(mut ours: Side<Eligo>, mut redis: Side<Redis>) {
    let (mut checks, mut confirms, mut lone) = (Pair::default(), Pair::default(), Pair::default());
    for _ in 0..ROUNDS {
        checks.push(ours.checks(REDIS_CLIENTS), redis.checks(REDIS_CLIENTS));
        confirms.push(ours.confirms(CONFIRM_CLIENTS), redis.confirms(CONFIRM_CLIENTS));
        lone.push(ours.lone_confirm(), redis.lone_confirm());
    }
    checks.print("check, unpipelined, 50 connections, Redis", "/s", "≥ 2");
    confirms.print("durable confirm, 64 in flight, Redis always", "/s", "≥ 2.5");
    lone.print("lone durable confirm, p50, Redis always", "µs", "≤ 0.8");
}

fn beside_postgres(mut ours: Side<Eligo>, mut postgres: Side<Postgres>) {
    let mut our_checks = Vec::new();
    let mut checks = POSTGRES_CLIENTS.map(|_| [vec![], vec![]]);
    let (mut our_confirms, mut lone) = (Vec::new(), Pair::default());
    let mut confirms = POSTGRES_CONFIRMS.map(|_| vec![]);
    for _ in 0..ROUNDS {
        our_checks.push(ours.checks(REDIS_CLIENTS));
        for (rates, clients) in checks.iter_mut().zip(POSTGRES_CLIENTS) {
            for (rates, cores) in rates.iter_mut().zip(["0", "0,1"]) {
                postgres.system.keep_to(cores);
                rates.push(postgres.checks(clients));
            }
        }
        postgres.system.keep_to("0");
        our_confirms.push(ours.confirms(CONFIRM_CLIENTS));
        for (rates, (clients, delay)) in confirms.iter_mut().zip(POSTGRES_CONFIRMS) {
            postgres.system.commit_delay.set(delay);
            rates.push(postgres.confirms(clients));
        }
        postgres.system.commit_delay.set(0);
        lone.push(ours.lone_confirm(), postgres.lone_confirm());
    }
    let best = |all: &mut dyn Iterator<Item = &Vec<f64>>| {
        let mut all: Vec<&Vec<f64>> = all.collect();
        all.sort_by(|one, other| median(one).total_cmp(&median(other)));
        all.pop().unwrap().clone()
    };
    let best_checks = |cores: usize| best(&mut checks.iter().map(|rates| &rates[cores]));
    Pair { ours: our_checks.clone(), theirs: best_checks(0) }.print(
        "check, unpipelined, PostgreSQL on one core",
        "/s",
        "≥ 9",
    );
    Pair { ours: our_checks, theirs: best_checks(1) }.print(
        "check, unpipelined, PostgreSQL on both cores",
        "/s",
        "≥ 4",
    );
    Pair { ours: our_confirms, theirs: best(&mut confirms.iter()) }.print(
        "durable confirm, 64 in flight, PostgreSQL's best on one core",
        "/s",
        "≥ 12",
    );
    lone.print("lone durable confirm, p50, PostgreSQL", "µs", "≤ 0.7");
}

/// The figures of both sides, a round each.
#[derive(Default)]
struct Pair {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pair {
    fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    fn print(&self, what: &str, unit: &str, target: &str) {
        let (ours, theirs) = (median(&self.ours), median(&self.theirs));
        let ratio = ours / theirs;
        println!(
            "{what}: eligo {ours:.2} {unit}, peer {theirs:.2} {unit}, ratio {ratio:.2} (target {target})"
        );
    }
}

/// A system with its requests, and what it has granted so far.
struct Side<S> {
    name: &'static str,
    system: S,
    requests: Rc<[Vec<u8>]>,
    expected: Vec<Answered>,
    granted: Vec<Granted>,
    duration: Duration,
}

impl<S: System> Side<S> {
    fn new(name: &'static str, system: S, data: &Data) -> Side<S> {
        let expected = random_holders(data).take(CHECKS).map(|id| data.expected(id)).collect();
        let duration = Duration::from_secs(setting("ELIGO_BENCH_SECONDS", 3));
        let holders = random_holders(data).take(CHECKS);
        let requests = holders.map(|holder| system.check(holder)).collect();
        Side { name, system, requests, expected, granted: vec![], duration }
    }

    /// Checks a second; what they grant is kept for confirms.
    fn checks(&mut self, clients: usize) -> f64 {
        let load = Load { requests: self.requests.clone(), around: true, duration: self.duration };
        let driven = self.drive("checks", Task::Check, clients, &load);
        let mut granted_now = 0;
        for (request, answer) in driven.answers() {
            let (mut answered, transaction) = self.system.read_check(answer);
            if answered.code == 0 {
                let Answered { holder, category, .. } = answered;
                self.granted.push(Granted { transaction, holder, category });
                granted_now += 1;
            } else {
                answered = Answered { code: answered.code, ..Answered::default() };
            }
            assert_eq!(answered, self.expected[request], "{} is wrong", self.name);
        }
        assert!(granted_now > 0, "{} grants nothing", self.name);
        driven.rate
    }

    /// Durable confirms a second.
    fn confirms(&mut self, clients: usize) -> f64 {
        // The rest is for lone ones.
        let kept = (self.granted.len() / 5).min(10_000);
        self.settle_granted("confirms", clients, kept).rate
    }

    /// Microseconds of the median confirm that waits for nobody.
    fn lone_confirm(&mut self) -> f64 {
        self.settle_granted("lone confirms", 1, 0).quantile_us(0.5)
    }

    fn settle_granted(&mut self, what: &str, clients: usize, kept: usize) -> Driven {
        let mut to_confirm = self.granted.split_off(kept);
        let requests = to_confirm.iter().map(|granted| self.system.confirm(granted)).collect();
        let load = Load { requests, around: false, duration: self.duration };
        let driven = self.drive(what, Task::Confirm, clients, &load);
        let mut done = 0;
        for (_, answer) in driven.answers() {
            let text = String::from_utf8_lossy(answer);
            assert!(self.system.is_done(answer), "{} refuses {text}", self.name);
            done += 1;
        }
        self.granted.extend(to_confirm.drain(done..));
        driven
    }

    fn drive(&self, what: &str, task: Task, clients: usize, load: &Load) -> Driven {
        settle();
        let sockets = self.system.connect(task, clients);
        let driven = drive(sockets, load, self.system.answer_end());
        println!(
            "  {}, {what}, {clients} clients: {:.0}/s, p50 {:.0} µs, p99 {:.0} µs, client busy {:.0} %",
            self.name,
            driven.rate,
            driven.quantile_us(0.5),
            driven.quantile_us(0.99),
            driven.client_share * 100.0
        );
        driven
    }
}
