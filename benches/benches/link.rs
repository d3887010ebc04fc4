//! The validators' link beside a bare quinn echo of the same sizes, with the same settings of the
//! transport: server on core 0, driver on core 1, interleaved rounds, medians. Durable confirms stand
//! beside Redis where `redis-server` is installed, with as many in flight.
//!
//! `ELIGO_BENCH_HOLDERS`, `ELIGO_BENCH_SECONDS` and `ELIGO_BENCH_DEVICES` change size and length;
//! `ELIGO_BENCH_ONLY` picks `checks`, `lone`, `confirms`, `fleet` or `idle`; `checks-1`, `checks-8`,
//! `confirms-1` and `confirms-8` pick one of the two rows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use benches::devices::{Device, Driven, NextFrame, TakeAnswer, drive};
use benches::population::{SEED, next_random};
use benches::redis::{self, Redis};
use benches::report::{
    median, print_figure, print_ratio, processor_seconds_of, resident_bytes_of, setting,
};
use benches::target::{Target, eligo, keep_awake, keep_to_core_1};
use bytes::Bytes;
use engine::identifier::CardKey;
use engine::ids::TerminalId;
use gateway::link::server::LinkSocket;
use gateway::pki::authority::{Authority, Term};
use gateway::pki::files::{Pair, PkiDirectory};
use serde_bytes::ByteArray;
use validator::link::frame::{FrameError, Header};
use validator::link::identity::Identity;
use validator::link::message::{Check, CheckResult, Confirm, Kind};
use validator::link::transport;
use validator::link::wire::{self, FrameReader};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 3;
/// The terminals of the driver's devices, all of organization 1.
const FIRST_TERMINAL: u64 = 1_000_001;
const NAME: &str = "eligo.bench";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).map(String::as_str) == Some("echo") {
        return serve_echo(&PathBuf::from(&arguments[2]), arguments[3].parse().unwrap());
    }
    keep_to_core_1();
    let _awake = keep_awake();
    let directory = tempfile::Builder::new().prefix(".tmp").tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let bench = Bench::new(directory.path()).await;
        let only = std::env::var("ELIGO_BENCH_ONLY").ok();
        let wanted = |name: &str| only.as_deref().is_none_or(|only| name.starts_with(only));
        if wanted("checks-1") {
            bench.checks(1, 64, "≥ 0.75").await;
        }
        if wanted("checks-8") {
            bench.checks(8, 16, "≥ 0.65").await;
        }
        if wanted("lone") {
            bench.lone().await;
        }
        if wanted("confirms-1") {
            bench.confirms(1, 128).await;
        }
        if wanted("confirms-8") {
            bench.confirms(8, 64).await;
        }
        if wanted("fleet") {
            bench.fleet().await;
        }
        if wanted("idle") {
            bench.idle().await;
        }
    });
}

/// The echo of the baseline: every frame is answered with a frame of so many bytes.
fn serve_echo(pki: &Path, answer_bytes: usize) {
    let trust = gateway::pki::trust::Trust::open(PkiDirectory::at(pki)).unwrap();
    let tls = trust.server_config().unwrap();
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport::server(Duration::from_secs(60))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let endpoint = endpoint(Some(config));
        println!("ready http={} quic={0}", endpoint.local_addr().unwrap());
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let Ok(connecting) = incoming.accept() else { return };
                let Ok(connection) = connecting.await else { return };
                while let Ok((send, receive)) = connection.accept_bi().await {
                    tokio::spawn(echo(send, receive, answer_bytes));
                }
            });
        }
    });
}

/// A socket like that of the link: a thousand devices that speak at once overflow a smaller one.
fn endpoint(server: Option<quinn::ServerConfig>) -> quinn::Endpoint {
    let socket = LinkSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().into_socket();
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap()
}

async fn echo(mut send: quinn::SendStream, mut receive: quinn::RecvStream, answer_bytes: usize) {
    let mut reader = FrameReader::default();
    let mut out = Vec::new();
    let body = vec![0; answer_bytes];
    let mut pieces: [Bytes; 32] = Default::default();
    while let Ok(Some(count)) = receive.read_chunks(&mut pieces).await {
        let mut take = |header: &Header, message: Option<&[u8]>| {
            if message.is_some() {
                let kind = Kind::CheckResult as u16;
                let header = Header { length: 0, deadline_ms: 0, kind, ..*header };
                header.write(&mut out, |out| out.extend_from_slice(&body));
            }
            Ok::<_, FrameError>(())
        };
        let mut read = |piece: &Bytes| reader.read(piece, &mut take).is_ok();
        if !pieces[..count].iter().all(&mut read) || send.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

struct Bench {
    server: Target,
    echo: Target,
    pki: PkiDirectory,
    key: CardKey,
    holders: u64,
    duration: Duration,
}

impl Bench {
    async fn new(directory: &Path) -> Bench {
        let holders = setting("ELIGO_BENCH_HOLDERS", 100_000);
        let devices = setting("ELIGO_BENCH_DEVICES", 5_000);
        let registry = directory.join("registry.ndjson");
        let mut file = File::create(&registry).unwrap();
        gateway::generator::write(holders, SEED, &mut file).unwrap();
        let terminals = FIRST_TERMINAL..FIRST_TERMINAL + devices;
        for terminal in terminals.clone() {
            writeln!(file, r#"{{"kind":"terminal","id":{terminal},"organization":1}}"#).unwrap();
        }
        drop(file);
        let pki = certificates(&directory.join("pki"), terminals.map(TerminalId).collect());
        let path = |name: &str| directory.join(name).display().to_string();
        let more = ["--import", &path("registry.ndjson"), "--quic", "127.0.0.1:0"];
        let limits = ["--quic-pki-dir", &path("pki"), "--quic-in-flight-max", "4096"];
        let free = ["--quic-messages-per-second", "0"];
        // Neither a snapshot nor a build of holder registries falls into a measurement.
        let still = ["--snapshot-records", "1000000000", "--registry-build-at", "never"];
        let arguments = [&more[..], &limits, &free, &still].concat();
        let server = Target::serve(&eligo(), &directory.join("data"), &arguments);
        let mut bench = Bench {
            echo: Target::start(
                &std::env::current_exe().unwrap(),
                &echo_arguments(&pki, 60, &path),
            ),
            server,
            pki,
            key: CardKey::new([0; 16]),
            holders,
            duration: Duration::from_secs(setting("ELIGO_BENCH_SECONDS", 3)),
        };
        let (device, welcome) = bench.devices(&bench.server, 1).await.remove(0).with_welcome();
        bench.key = CardKey::new(welcome.card_key.into_array());
        let answers = Rc::new(RefCell::new((0, 0)));
        let seen = answers.clone();
        let collect: TakeAnswer = Rc::new(move |message| {
            let mut answers = seen.borrow_mut();
            *answers = (answers.0 + 1, answers.1 + message.len());
        });
        drive(vec![device], 16, Duration::from_millis(200), &bench.random_checks(), &collect).await;
        let (count, bytes) = *answers.borrow();
        println!("an answer has {} bytes on average", bytes / count);
        let arguments = echo_arguments(&bench.pki, bytes / count, &path);
        bench.echo = Target::start(&std::env::current_exe().unwrap(), &arguments);
        bench
    }

    /// Connects so many devices.
    async fn devices(&self, target: &Target, count: u64) -> Vec<Device> {
        self.connect(target, FIRST_TERMINAL..FIRST_TERMINAL + count).await
    }

    async fn connect(&self, target: &Target, terminals: Range<u64>) -> Vec<Device> {
        let endpoint = endpoint(None);
        let mut devices = Vec::new();
        for terminal in terminals {
            let Pair { certificate, key } = self.pki.device(TerminalId(terminal));
            let authority = self.pki.authority().certificate;
            let identity = Identity::read(&authority, &certificate, &key).unwrap();
            let config = identity.client_config().unwrap();
            let address = target.quic.unwrap();
            devices.push(Device::connect(&endpoint, config, (address, NAME), terminal).await);
        }
        devices
    }

    /// Checks of random holders.
    fn random_checks(&self) -> NextFrame {
        let mut state = SEED;
        let checks: Vec<Vec<u8>> = (0..20_000)
            .map(|_| {
                let holder = next_random(&mut state) % self.holders + 1;
                let code = gateway::generator::client_code(holder);
                let digest = self.key.client_code(&code).unwrap();
                let check = Check { service: 1, id_hash: ByteArray::new(digest.0), price: None };
                let mut message = Vec::new();
                wire::encode(&check, &mut message);
                message
            })
            .collect();
        let at = RefCell::new(0);
        Rc::new(move |correlation, out| {
            let mut at = at.borrow_mut();
            *at = (*at + 1) % checks.len();
            let kind = Kind::Check as u16;
            let header = Header { length: 0, correlation, deadline_ms: 300, kind };
            header.write(out, |out| out.extend_from_slice(&checks[*at]));
            true
        })
    }

    /// What came of checks, and the microseconds of processor that the server spent on each.
    async fn drive(&self, target: &Target, devices: u64, in_flight: u32) -> (Driven, f64) {
        let devices = self.devices(target, devices).await;
        let nothing: TakeAnswer = Rc::new(|_| {});
        let checks = self.random_checks();
        let before = processor_seconds_of(target.process());
        let driven = drive(devices, in_flight, self.duration, &checks, &nothing).await;
        let spent = processor_seconds_of(target.process()) - before;
        let each = spent * 1e6 / driven.latency.len() as f64;
        (driven, each)
    }

    /// Rounds at eligo and at the echo, in turn.
    async fn rounds(&self, devices: u64, in_flight: u32) -> [Rounds; 2] {
        let mut both: [Rounds; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (target, rounds) in [&self.server, &self.echo].into_iter().zip(&mut both) {
                let (driven, each) = self.drive(target, devices, in_flight).await;
                let latency = |at| driven.latency.value_at_quantile(at) as f64 / 1_000.0;
                rounds.rate.push(driven.rate);
                rounds.p50_us.push(latency(0.5));
                rounds.p99_us.push(latency(0.99));
                rounds.processor_us.push(each);
            }
        }
        both
    }

    async fn checks(&self, devices: u64, in_flight: u32, target: &str) {
        let [ours, echo] = self.rounds(devices, in_flight).await;
        let what = format!("checks over QUIC, {devices} × {in_flight} in flight");
        print_ratio(&what, median(&ours.rate), median(&echo.rate), "checks/s", target);
        print_processor(&what, &ours, &echo);
    }

    async fn lone(&self) {
        let [ours, echo] = self.rounds(1, 1).await;
        let (ours, echo) = (median(&ours.p50_us), median(&echo.p50_us));
        print_ratio("lone check over QUIC, p50", ours, echo, "µs", "≤ 1.15");
    }

    async fn fleet(&self) {
        let count = setting("ELIGO_BENCH_DEVICES", 5_000).min(1_000);
        let [ours, echo] = self.rounds(count, 1).await;
        let what = format!("{count} devices, one check in flight each");
        print_ratio(&what, median(&ours.rate), median(&echo.rate), "checks/s", "≥ 0.6");
        print_processor(&what, &ours, &echo);
        let (ours, echo) = (median(&ours.p99_us), median(&echo.p99_us));
        print_ratio(&format!("{what}, p99"), ours, echo, "µs", "≤ 2");
    }

    async fn confirms(&self, devices: u64, in_flight: u32) {
        let place = tempfile::Builder::new().prefix(".tmp").tempdir_in(".").unwrap();
        let mut redis = Redis::start(place.path());
        let (mut rates, mut beside) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            rates.push(self.confirm_all(devices, in_flight).await);
            if let Some(redis) = &mut redis {
                let connections = devices * u64::from(in_flight) / redis::PIPELINED;
                beside.push(redis.confirms(connections, self.duration).await);
            }
        }
        let what = format!("durable confirms over QUIC, {devices} × {in_flight} in flight");
        print_figure(&what, median(&rates), "confirms/s", "≥ 100000");
        if redis.is_some() {
            let what = format!("{what}, Redis `always`, {} pipelined", redis::PIPELINED);
            print_ratio(&what, median(&rates), median(&beside), "confirms/s", "≥ 3.5");
        }
    }

    /// Confirms a second.
    async fn confirm_all(&self, devices: u64, in_flight: u32) -> f64 {
        let waiting = self.open().await;
        let confirms: NextFrame = Rc::new(move |correlation, out| {
            let Some(CheckResult { tx, holder, category, .. }) = waiting.borrow_mut().pop() else {
                return false;
            };
            let (Some(tx), Some(holder), Some(category)) = (tx, holder, category) else {
                panic!("not granted");
            };
            let (price, discounted) = (Some(30_000), Some(10_000));
            let confirm = Confirm { tx, holder, category, price, discounted };
            wire::push(out, correlation, 3_000, &confirm);
            true
        });
        let devices = self.devices(&self.server, devices).await;
        let done: TakeAnswer = Rc::new(|message| assert_eq!(message, ACK_DONE));
        let journal = || JOURNAL.map(|name| self.server.figure(name));
        let before = journal();
        let driven = drive(devices, in_flight, self.duration, &confirms, &done).await;
        let after = journal();
        let [frames, records, syncs] = std::array::from_fn(|at| after[at] - before[at]);
        println!(
            "  {:.0}/s, p50 {} µs, p99 {} µs, {:.0} records a frame, sync {:.0} µs",
            driven.rate,
            driven.latency.value_at_quantile(0.5) / 1_000,
            driven.latency.value_at_quantile(0.99) / 1_000,
            records / frames,
            syncs / frames * 1e6,
        );
        driven.rate
    }

    /// Checks that were granted, and are journaled.
    async fn open(&self) -> Rc<RefCell<Vec<CheckResult>>> {
        let opened = Rc::new(RefCell::new(Vec::new()));
        let granted = opened.clone();
        let collect: TakeAnswer = Rc::new(move |message| {
            let result: CheckResult = wire::decode(message).unwrap();
            if result.tx.is_some() {
                granted.borrow_mut().push(result);
            }
        });
        let one = self.devices(&self.server, 1).await;
        drive(one, 64, self.duration, &self.random_checks(), &collect).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        opened
    }

    async fn idle(&self) {
        let count = setting("ELIGO_BENCH_DEVICES", 5_000);
        let process = self.server.process();
        // The first half uses up what the server had free.
        let first = FIRST_TERMINAL..FIRST_TERMINAL + count / 2;
        let _first = self.connect(&self.server, first.clone()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = resident_bytes_of(process);
        let second = self.connect(&self.server, first.end..FIRST_TERMINAL + count).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let grown = resident_bytes_of(process).saturating_sub(before);
        let each = grown as f64 / second.len() as f64 / 1_024.0;
        print_figure(&format!("{count} idle devices, memory of each"), each, "KiB", "≤ 60");
    }
}

#[derive(Default)]
struct Rounds {
    rate: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    processor_us: Vec<f64>,
}

fn print_processor(what: &str, ours: &Rounds, echo: &Rounds) {
    let (ours, echo) = (median(&ours.processor_us), median(&echo.processor_us));
    print_ratio(&format!("{what}, processor"), ours, echo, "µs a check", "none");
}

/// Frames, records, and seconds of syncs.
const JOURNAL: [&str; 3] = [
    "eligo_journal_frames_total",
    "eligo_journal_records_total",
    "eligo_journal_sync_seconds_total",
];

/// `Ack { code: Done }`.
const ACK_DONE: &[u8] = b"\x81\xa4code\xa4done";

fn echo_arguments(
    pki: &PkiDirectory,
    answer_bytes: usize,
    path: &dyn Fn(&str) -> String,
) -> Vec<String> {
    assert!(pki.server().key.exists());
    vec!["echo".to_owned(), path("pki"), answer_bytes.to_string()]
}

fn certificates(path: &Path, terminals: Vec<TerminalId>) -> PkiDirectory {
    let pki = PkiDirectory::at(path);
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3_600);
    let term = Term { from: (now - hour).into(), until: (now + 24 * hour).into() };
    Authority::create(&pki, term).unwrap();
    let authority = Authority::open(&pki).unwrap();
    authority.issue_server(&[NAME.to_owned()], term).unwrap();
    authority.issue_devices(&terminals, term).unwrap();
    pki
}
