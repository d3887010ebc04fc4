//! The life of a server with a million holders: import, memory, snapshot, restart, another import.
//!
//! `cargo bench -p benches --bench lifecycle` runs the real server as a process of its own on core
//! 0 and drives it from core 1. Each stage prints its figures beside their targets:
//!
//! | stage | what |
//! |---|---|
//! | import | `POST /admin/import` into an empty server, from the first byte to the answer |
//! | memory | resident bytes minus those of the empty server, a few seconds after the import, and after a restart from a snapshot |
//! | snapshot | 5,000 confirms a second, open loop: p99.9 of those due between the order of a snapshot and its answer, beside that of those due in the quiet seconds before |
//! | restart | kill -9 with a snapshot and a million records behind it; seconds to the line `ready` |
//! | running import | 5,000 checks a second, open loop: p99.9 while every holder is changed by an import beside that before |
//!
//! `ELIGO_BENCH_HOLDERS` changes the size, `ELIGO_BENCH_STAGES` picks stages (`snapshot,restart`;
//! import and memory always run).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::calls::{CHECKS_PER_CALL, answer_to, batch_of_checks, check_body, confirms_of, token};
use benches::client::{Drive, NextRequest, drive, post};
use benches::pace::{Requests, Sample, pace, quantile_us};
use benches::population::{SEED, next_random};
use benches::report::{
    median, print_figure, print_ratio, processor_seconds_of, resident_bytes_of, setting,
};
use benches::target::{Target, eligo, keep_awake, keep_to_core_1};

const ROUNDS: usize = 3;
/// Requests a second of the open loops.
const RATE: u32 = 5_000;
/// Confirms that the snapshot stage may need.
const SNAPSHOT_CONFIRMS: usize = 900_000;
const ADMIN_TOKEN: &str = "lifecycle";
/// How long what an import or a snapshot leaves behind may take.
const SETTLE: Duration = Duration::from_secs(5);
/// Seconds on the processor during [`SETTLE`] of a server that has nothing to do.
const IDLE_SECONDS: f64 = 0.1;
/// How long nothing else happens before a snapshot.
const CALM: Duration = Duration::from_secs(15);

fn main() {
    keep_to_core_1();
    let _awake = keep_awake();
    let directory = tempfile::tempdir_in(".").unwrap();
    let bench = Bench::new(directory.path());
    let empty = bench.import();
    bench.memory_after_restart(empty);
    if bench.runs("snapshot") {
        bench.snapshot();
    }
    if bench.runs("restart") {
        bench.restart();
    }
    if bench.runs("running") {
        bench.running_import();
    }
}

struct Bench {
    program: PathBuf,
    data: PathBuf,
    registry: PathBuf,
    changed: PathBuf,
    holders: u64,
    stages: String,
}

impl Bench {
    fn new(directory: &Path) -> Bench {
        let holders = setting("ELIGO_BENCH_HOLDERS", 1_000_000);
        let [registry, changed, other] = ["registry", "changed", "other"]
            .map(|name| directory.join(name).with_extension("ndjson"));
        let generate = |path: &Path, seed| {
            let mut out = File::create(path).unwrap();
            gateway::generator::write(holders, seed, &mut out).unwrap();
        };
        generate(&registry, SEED);
        generate(&other, SEED + 1);
        // The organizations of another seed have other secrets; the holders alone change.
        let mut out = BufWriter::new(File::create(&changed).unwrap());
        for line in BufReader::new(File::open(&other).unwrap()).lines().map(Result::unwrap) {
            if line.starts_with(r#"{"kind":"holder""#) {
                writeln!(out, "{line}").unwrap();
            }
        }
        out.flush().unwrap();
        let stages = std::env::var("ELIGO_BENCH_STAGES");
        Bench {
            program: eligo(),
            data: directory.join("data"),
            registry,
            changed,
            holders,
            stages: stages.unwrap_or_else(|_| "snapshot,restart,running".to_owned()),
        }
    }

    fn runs(&self, stage: &str) -> bool {
        self.stages.contains(stage)
    }

    fn start(&self) -> Server {
        let more = [
            "--admin-token",
            ADMIN_TOKEN,
            "--snapshot-minutes",
            "10000",
            "--snapshot-records",
            "1000000000000",
        ];
        let begun = Instant::now();
        let target = Target::serve(&self.program, &self.data, &more);
        Server { target, seconds_to_ready: begun.elapsed().as_secs_f64(), holders: self.holders }
    }

    /// Returns the resident bytes of an empty server.
    fn import(&self) -> u64 {
        let server = self.start();
        std::thread::sleep(Duration::from_secs(2));
        let empty = server.resident_bytes();
        let seconds = server.import(&self.registry);
        print_figure("import into an empty server", seconds, "s", "≤ 20");
        std::thread::sleep(SETTLE);
        self.print_memory("memory after the import", &server, empty);
        empty
    }

    fn print_memory(&self, what: &str, server: &Server, empty: u64) {
        let bytes = server.resident_bytes().saturating_sub(empty) as f64;
        print_figure(what, bytes / self.holders as f64, "bytes a holder", "≤ 300");
    }

    /// Leaves a snapshot of all holders.
    fn memory_after_restart(&self, empty: u64) {
        let server = self.start();
        print_figure("  restart from the journal alone", server.seconds_to_ready, "s", "none");
        let begun = Instant::now();
        send_admin(server.target.admin.unwrap(), "/admin/snapshot", &mut std::io::empty(), 0);
        print_figure("  an undisturbed snapshot", begun.elapsed().as_secs_f64(), "s", "none");
        drop(server);
        let server = self.start();
        print_figure("  restart from the snapshot", server.seconds_to_ready, "s", "none");
        std::thread::sleep(SETTLE);
        self.print_memory("memory after a restart", &server, empty);
    }

    fn snapshot(&self) {
        let server = self.start();
        let token = server.token();
        let calls = SNAPSHOT_CONFIRMS / CHECKS_PER_CALL;
        let confirms = RefCell::new(server.open(&token, calls));
        server.wait_for_idleness();
        let next: Requests = Box::new(move || confirms.borrow_mut().pop());
        let ended = Arc::new(AtomicBool::new(false));
        let operator = {
            let (admin, ended) = (server.target.admin.unwrap(), ended.clone());
            std::thread::spawn(move || {
                let spans = (0..ROUNDS).map(|_| {
                    std::thread::sleep(SETTLE);
                    let settled = Instant::now();
                    std::thread::sleep(CALM);
                    let begun = Instant::now();
                    send_admin(admin, "/admin/snapshot", &mut std::io::empty(), 0);
                    [settled, begun, Instant::now()]
                });
                let spans: Vec<_> = spans.collect();
                ended.store(true, Ordering::Release);
                spans
            })
        };
        let samples = pace(server.target.http, RATE, next, || ended.load(Ordering::Acquire));
        let spans = operator.join().unwrap();
        let last = samples.last().map(|sample| sample.due);
        assert!(last > Some(spans[ROUNDS - 1][1]), "the confirms did not last");
        let (mut with, mut without) = (vec![], vec![]);
        for [settled, begun, done] in spans {
            let (calm, busy) = (within(&samples, settled, begun), within(&samples, begun, done));
            print_figure("  snapshot", (done - begun).as_secs_f64(), "s", "none");
            print_spread("without", &calm);
            print_spread("snapshot", &busy);
            without.push(quantile_us(&calm, 0.999));
            with.push(quantile_us(&busy, 0.999));
        }
        let what = "confirms during a snapshot, p99.9";
        print_ratio(what, median(&with), median(&without), "µs", "≤ 2");
    }

    fn restart(&self) {
        let server = self.start();
        let token = server.token();
        let records = self.holders as f64;
        while server.metric("eligo_journal_records_total") < records {
            let confirms = RefCell::new(server.open(&token, 5));
            let next: NextRequest = Rc::new(move || confirms.borrow_mut().pop());
            server.drive(64, &next);
        }
        drop(server);
        let mut seconds = Vec::new();
        for _ in 0..ROUNDS {
            seconds.push(self.start().seconds_to_ready);
        }
        let what = format!("restart with {records} journal records behind the snapshot");
        print_figure(&what, median(&seconds), "s", "≤ 4");
    }

    fn running_import(&self) {
        let server = self.start();
        let (mut with, mut without) = (vec![], vec![]);
        for file in [&self.changed, &self.registry, &self.changed] {
            let token = server.token();
            let (begin, ended) =
                (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let import = {
                let (begin, ended) = (begin.clone(), ended.clone());
                let (address, file) = (server.target.admin.unwrap(), file.clone());
                std::thread::spawn(move || {
                    while !begin.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let begun = Instant::now();
                    send_import(address, &file);
                    let now = Instant::now();
                    ended.store(true, Ordering::Release);
                    (begun, now)
                })
            };
            let requests = self.checks(&token);
            let begun = Instant::now();
            let samples = pace(server.target.http, RATE, requests, || {
                begin.store(begun.elapsed() > Duration::from_secs(8), Ordering::Release);
                ended.load(Ordering::Acquire)
            });
            let (from, to) = import.join().unwrap();
            let calm = within(&samples, begun + Duration::from_secs(1), from);
            let busy = within(&samples, from, to);
            print_figure("  import under checks", (to - from).as_secs_f64(), "s", "none");
            print_spread("before", &calm);
            print_spread("import", &busy);
            without.push(quantile_us(&calm, 0.999));
            with.push(quantile_us(&busy, 0.999));
        }
        let what = "checks during an import, p99.9";
        print_ratio(what, median(&with), median(&without), "µs", "≤ 3");
    }

    /// Checks of random holders, without end.
    fn checks(&self, token: &str) -> Requests {
        let mut state = SEED;
        let mut one = || next_random(&mut state) % self.holders + 1;
        let requests: Vec<_> = (0..20_000)
            .map(|_| Rc::new(post("/api/CheckClientBenefits", token, &check_body(one()))))
            .collect();
        let mut at = 0;
        Box::new(move || {
            at = (at + 1) % requests.len();
            Some(requests[at].clone())
        })
    }
}

/// A server with holders that checks can name.
struct Server {
    target: Target,
    seconds_to_ready: f64,
    holders: u64,
}

impl Server {
    /// Waits until it has done next to nothing for some seconds.
    fn wait_for_idleness(&self) {
        let mut before = f64::NEG_INFINITY;
        loop {
            let seconds = processor_seconds_of(self.target.process());
            if seconds - before < IDLE_SECONDS {
                return;
            }
            before = seconds;
            std::thread::sleep(SETTLE);
        }
    }

    fn resident_bytes(&self) -> u64 {
        resident_bytes_of(self.target.process())
    }

    /// Seconds from the first byte of the file to the answer.
    fn import(&self, file: &Path) -> f64 {
        let begun = Instant::now();
        send_import(self.target.admin.unwrap(), file);
        begun.elapsed().as_secs_f64()
    }

    /// Opens transactions by batch checks, not faster than they are journaled; returns their
    /// confirms.
    fn open(&self, token: &str, calls: usize) -> Vec<Rc<Vec<u8>>> {
        let seed = SEED ^ self.metric("eligo_journal_records_total") as u64;
        let mut confirms = Vec::new();
        for call in 0..calls as u64 {
            let batch = batch_of_checks(token, self.holders, seed + call);
            confirms.extend(confirms_of(&answer_to(&self.target, None, batch), token));
            std::thread::sleep(Duration::from_millis(100));
        }
        confirms
    }

    fn token(&self) -> String {
        token(&self.target, None)
    }

    fn drive(&self, connections: usize, next: &NextRequest) -> String {
        let duration = Duration::from_secs(600);
        let plan = Drive { address: self.target.http, tls: None, connections, duration };
        let driven = drive(&plan, next);
        assert_eq!(driven.failures, 0, "{}", driven.sample);
        driven.sample
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.target.admin.unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no metric {name}"))
    }
}

fn send_import(admin: SocketAddr, file: &Path) {
    let mut file = File::open(file).unwrap();
    let length = file.metadata().unwrap().len();
    send_admin(admin, "/admin/import", &mut file, length);
}

/// Sends an order and waits for its answer; the body slowly enough to leave the core to the driver.
fn send_admin(admin: SocketAddr, path: &str, body: &mut dyn Read, length: u64) {
    let mut stream = TcpStream::connect(admin).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = body.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        stream.write_all(&piece[..read]).unwrap();
        std::thread::sleep(Duration::from_micros(500));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The samples that fell due in a span.
fn within(samples: &[Sample], from: Instant, to: Instant) -> Vec<Sample> {
    samples.iter().filter(|at| (from..to).contains(&at.due)).copied().collect()
}

fn print_spread(what: &str, samples: &[Sample]) {
    let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| quantile_us(samples, share));
    println!(
        "  {what}: {} calls, p50 {p50:.0}, p99 {p99:.0}, p99.9 {p999:.0}, most {most:.0} µs",
        samples.len()
    );
}
