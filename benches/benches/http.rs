//! The calls over HTTP beside a bare actix-web route that parses and answers JSON of the same sizes:
//! server on core 0, driver on core 1, interleaved rounds, medians.
//!
//! `ELIGO_BENCH_HOLDERS` and `ELIGO_BENCH_SECONDS` change size and length; `ELIGO_BENCH_ONLY` picks
//! `checks`, `batches`, `confirms` or `lone`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpServer, web};
use benches::calls::{CHECKS_PER_CALL, answer_to, batch_of_checks, check_body, confirms_of, token};
use benches::client::{Drive, Driven, NextRequest, drive, post};
use benches::population::{SEED, next_random};
use benches::report::{median, print_figure, print_ratio, setting};
use benches::target::{Target, eligo, keep_awake, keep_to_core_1};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 3;
const CHECK: &str = "/api/CheckClientBenefits";

fn main() {
    if std::env::args().nth(1).as_deref() == Some("bare") {
        return serve_bare();
    }
    keep_to_core_1();
    let _awake = keep_awake();
    let directory = tempfile::tempdir_in(".").unwrap();
    let bench = Bench::new(directory.path());
    let only = std::env::var("ELIGO_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("checks") {
        bench.checks();
    }
    if wanted("batches") {
        bench.batches();
    }
    if wanted("confirms") {
        bench.confirms();
    }
    if wanted("lone") {
        bench.lone_confirm(directory.path());
    }
}

/// The bare route of the baseline.
fn serve_bare() {
    actix_rt::System::new().block_on(async {
        let route = || App::new().route(CHECK, web::post().to(bare_check));
        let server = HttpServer::new(route).bind(("127.0.0.1", 0)).unwrap();
        println!("ready http={}", server.addrs()[0]);
        server.run().await.unwrap();
    });
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BareRequest {
    service_id: u32,
    organization_terminal_id: u64,
    client_code: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BareAnswer {
    result_code: u32,
    transaction_id: u64,
    client_id: u64,
    benefits: Vec<BareBenefit>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BareBenefit {
    benefit_category: BareCategory,
}

#[derive(Serialize)]
struct BareCategory {
    id: u32,
    name: &'static str,
}

async fn bare_check(request: web::Json<BareRequest>) -> web::Json<BareAnswer> {
    let category =
        BareCategory { id: request.service_id, name: "Ветеран труда Якутии" };
    web::Json(BareAnswer {
        result_code: 0,
        transaction_id: request.organization_terminal_id,
        client_id: request.client_code.len() as u64,
        benefits: vec![BareBenefit { benefit_category: category }],
    })
}

struct Bench {
    server: Target,
    tls_server: Target,
    bare: Target,
    tls: Arc<rustls::ClientConfig>,
    token: String,
    tls_token: String,
    holders: u64,
    seconds: u64,
}

impl Bench {
    fn new(directory: &Path) -> Bench {
        let holders = setting("ELIGO_BENCH_HOLDERS", 100_000);
        let registry = directory.join("registry.ndjson");
        gateway::generator::write(holders, SEED, &mut File::create(&registry).unwrap()).unwrap();
        let tls = certificate(directory);
        let program = eligo();
        let path = |name: &str| directory.join(name).display().to_string();
        let import = ["--import", &path("registry.ndjson")];
        let server = Target::serve(&program, &directory.join("plain"), &import);
        let [certificate, key] = [path("cert.pem"), path("key.pem")];
        let with_tls = ["--tls-certificate", &certificate, "--tls-key", &key];
        let tls_server =
            Target::serve(&program, &directory.join("tls"), &[&import[..], &with_tls].concat());
        let bare = Target::start(&std::env::current_exe().unwrap(), &["bare".to_owned()]);
        let plain_token = token(&server, None);
        let tls_token = token(&tls_server, Some(tls.clone()));
        let seconds = setting("ELIGO_BENCH_SECONDS", 3);
        Bench { server, tls_server, bare, tls, token: plain_token, tls_token, holders, seconds }
    }

    fn drive(&self, target: &Target, connections: usize, next: &NextRequest) -> Driven {
        self.drive_over(target, None, connections, next)
    }

    fn drive_over(
        &self,
        target: &Target,
        tls: Option<Arc<rustls::ClientConfig>>,
        connections: usize,
        next: &NextRequest,
    ) -> Driven {
        let duration = Duration::from_secs(self.seconds);
        let driven = drive(&Drive { address: target.http, tls, connections, duration }, next);
        assert_eq!(driven.failures, 0, "{}", driven.sample);
        driven
    }

    /// Checks of random holders.
    fn random_checks(&self, token: &str) -> NextRequest {
        let mut state = SEED;
        let requests: Vec<_> = (0..20_000)
            .map(|_| {
                Rc::new(post(CHECK, token, &check_body(next_random(&mut state) % self.holders + 1)))
            })
            .collect();
        let at = Cell::new(0);
        Rc::new(move || {
            at.set((at.get() + 1) % requests.len());
            Some(requests[at.get()].clone())
        })
    }

    fn checks(&self) {
        let next = self.random_checks(&self.token);
        let tls_next = self.random_checks(&self.tls_token);
        for connections in [32, 256] {
            let (mut ours, mut bare, mut tls) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                ours.push(self.drive(&self.server, connections, &next).rate);
                bare.push(self.drive(&self.bare, connections, &next).rate);
                let config = Some(self.tls.clone());
                tls.push(self.drive_over(&self.tls_server, config, connections, &tls_next).rate);
            }
            let (ours, bare, tls) = (median(&ours), median(&bare), median(&tls));
            print_ratio(
                &format!("HTTP check, {connections} connections"),
                ours,
                bare,
                "req/s",
                "≥ 0.85",
            );
            print_ratio(
                &format!("TLS check beside plain, {connections}"),
                tls,
                ours,
                "req/s",
                "≥ 0.7",
            );
        }
    }

    fn batches(&self) {
        let next = self.batch_requests();
        let rates: Vec<f64> = (0..ROUNDS)
            .map(|_| self.drive(&self.server, 2, &next).rate * CHECKS_PER_CALL as f64)
            .collect();
        print_figure("batch checks over HTTP", median(&rates), "checks/s", "≥ 500000");
    }

    fn batch_requests(&self) -> NextRequest {
        let request = Rc::new(batch_of_checks(&self.token, self.holders, SEED));
        Rc::new(move || Some(request.clone()))
    }

    /// Confirms of transactions that batch checks opened before.
    fn open_confirms(&self, calls: usize) -> Vec<Rc<Vec<u8>>> {
        let batch = batch_of_checks(&self.token, self.holders, SEED);
        let open = |_| {
            let answer = answer_to(&self.server, None, batch.clone());
            confirms_of(&answer, &self.token)
        };
        (0..calls).flat_map(open).collect()
    }

    fn confirms(&self) {
        let checks = self.random_checks(&self.token);
        let (mut first, mut again, mut check) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let mut confirms = self.open_confirms(12);
            check.push(self.drive(&self.server, 64, &checks).rate);
            let waiting = Rc::new(RefCell::new(confirms.clone()));
            let left = waiting.clone();
            let fresh: NextRequest = Rc::new(move || waiting.borrow_mut().pop());
            first.push(self.drive(&self.server, 64, &fresh).rate);
            // What the time was too short for was not confirmed yet, so it cannot be repeated.
            confirms.drain(..left.borrow().len());
            let at = Cell::new(confirms.len());
            let repeated: NextRequest = Rc::new(move || {
                at.set(if at.get() == 0 { confirms.len() } else { at.get() } - 1);
                Some(confirms[at.get()].clone())
            });
            let few = Drive {
                address: self.server.http,
                tls: None,
                connections: 64,
                duration: Duration::from_secs(self.seconds),
            };
            let driven = drive(&few, &repeated);
            again.push(driven.rate);
        }
        let check = median(&check);
        print_ratio(
            "durable confirm over HTTP, 64 in flight, beside checks",
            median(&first),
            check,
            "req/s",
            "≥ 0.5",
        );
        print_ratio("repeated confirm beside checks", median(&again), check, "req/s", "≥ 0.8");
    }

    fn lone_confirm(&self, directory: &Path) {
        let checks = self.random_checks(&self.token);
        let (mut ours, mut parts) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            let confirms = RefCell::new(self.open_confirms(1));
            let next: NextRequest = Rc::new(move || confirms.borrow_mut().pop());
            let confirm = self.drive(&self.server, 1, &next).latency.value_at_quantile(0.5);
            let echo = self.drive(&self.bare, 1, &checks).latency.value_at_quantile(0.5);
            let (sync, hop) = (sync_nanos(directory), hop_nanos());
            println!("  echo {echo} ns + sync {sync} ns + hop {hop} ns; confirm {confirm} ns");
            ours.push(confirm as f64 / 1_000.0);
            parts.push((echo + sync + hop) as f64 / 1_000.0);
        }
        print_ratio("lone durable confirm, p50", median(&ours), median(&parts), "µs", "≤ 1.5");
    }
}

/// A certificate for localhost in `directory`, and a client that trusts it.
fn certificate(directory: &Path) -> Arc<rustls::ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Median of one small write and fdatasync into a zero-filled file.
fn sync_nanos(directory: &Path) -> u64 {
    let file = File::create(directory.join("sync")).unwrap();
    file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let mut nanos: Vec<u64> = (0..500)
        .map(|at| {
            let begun = Instant::now();
            file.write_all_at(&[at as u8; 512], at * 512).unwrap();
            file.sync_data().unwrap();
            u64::try_from(begun.elapsed().as_nanos()).unwrap()
        })
        .collect();
    nanos.sort_unstable();
    nanos[nanos.len() / 2]
}

/// Median of a message to another thread and back.
fn hop_nanos() -> u64 {
    let (to, from) = (crossbeam::channel::bounded::<()>(1), crossbeam::channel::bounded::<()>(1));
    let thread = std::thread::spawn(move || {
        while to.1.recv().is_ok() {
            from.0.send(()).unwrap();
        }
    });
    let mut nanos: Vec<u64> = (0..2_000)
        .map(|_| {
            std::thread::sleep(Duration::from_micros(100));
            let begun = Instant::now();
            to.0.send(()).unwrap();
            from.1.recv().unwrap();
            u64::try_from(begun.elapsed().as_nanos()).unwrap()
        })
        .collect();
    drop(to.0);
    thread.join().unwrap();
    nanos.sort_unstable();
    nanos[nanos.len() / 2]
}
