//! Fleets of validators against the real server: server on core 0, fleet on core 1.
//!
//! | stage | what |
//! |---|---|
//! | path | checks over a path of 50 ms there and back that loses 1 % of the packets of each direction; what is not answered in 300 ms the devices decide |
//! | depot | 2,000 devices connect, pull the delta of the registry and upload 200 trips each, while 200 others check |
//!
//! `ELIGO_BENCH_HOLDERS` (100,000), `ELIGO_BENCH_DEVICES` (2,000) and `ELIGO_BENCH_TRIPS` (200)
//! change sizes, `ELIGO_BENCH_ONLY` picks a stage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::report::{print_figure, setting};
use benches::target::{Target, eligo, keep_to_core_1};
use engine::ids::TerminalId;
use gateway::pki::authority::{Authority, Term};
use gateway::pki::files::PkiDirectory;
use hdrhistogram::Histogram;
use loadtest::citizens::desks::carriers;
use loadtest::execution::{Execution, Watch};
use loadtest::registry::Registry;
use loadtest::run::Run;
use loadtest::scenario::Scenario;
use loadtest::second::Second;
use loadtest::tally::{Kind, Tally};
use loadtest::verdict;

/// Devices that check while the depot uploads.
const ONLINE: u64 = 200;
/// Terminals of ours are numbered from here on.
const FIRST_TERMINAL: u64 = 1_000_000;
/// Carriers that they belong to.
const CARRIERS: usize = 8;
/// One holder in so many comes with the delta.
const NEW_SHARE: u64 = 100;
const ADMIN_TOKEN: &str = "admin-of-the-benchmark";

fn main() {
    keep_to_core_1();
    let directory = tempfile::tempdir_in(".").unwrap();
    let bench = Bench::set(directory.path());
    let only = std::env::var("ELIGO_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("path") {
        bench.path();
    }
    if wanted("depot") {
        bench.depot();
    }
}

struct Bench {
    directory: PathBuf,
    devices: u64,
    trips: u64,
}

impl Bench {
    /// Makes a registry, what comes later, and certificates.
    fn set(directory: &Path) -> Bench {
        let devices = setting("ELIGO_BENCH_DEVICES", 2_000);
        let trips = setting("ELIGO_BENCH_TRIPS", 200);
        let bench = Bench { directory: directory.to_owned(), devices, trips };
        let whole = bench.file("whole.ndjson");
        let holders = setting("ELIGO_BENCH_HOLDERS", 100_000).to_string();
        let mut generate = Command::new(eligo());
        generate.args(["generate", "--holders", &holders, "--seed", "7", "--out"]).arg(&whole);
        assert!(generate.status().unwrap().success());
        let known = Registry::load(&whole, 1_000, 1).unwrap();
        let ids = carriers(&known)
            .into_iter()
            .map(|place| known.directory.organization(place).expect("a carrier").id);
        let ids: Vec<u32> = ids.take(CARRIERS).collect();
        let (mut first, mut later) = (bench.create("registry.ndjson"), bench.create("new.ndjson"));
        let mut count = 0;
        for line in BufReader::new(File::open(&whole).unwrap()).lines() {
            let line = line.unwrap();
            let is_holder = line.starts_with(r#"{"kind":"holder""#);
            count += u64::from(is_holder);
            let is_new = is_holder && count.is_multiple_of(NEW_SHARE);
            writeln!(if is_new { &mut later } else { &mut first }, "{line}").unwrap();
        }
        let terminals = FIRST_TERMINAL..FIRST_TERMINAL + devices + ONLINE;
        for (terminal, id) in terminals.clone().zip(ids.iter().cycle()) {
            writeln!(first, r#"{{"kind":"terminal","id":{terminal},"organization":{id}}}"#)
                .unwrap();
        }
        first.flush().unwrap();
        later.flush().unwrap();
        certify(&bench.file("pki"), terminals.map(TerminalId).collect());
        bench
    }

    fn path(&self) {
        let server = self.serve("path");
        let fleet = "devices = 100\ndevices_per_socket = 2\n\
             path = { rtt_ms = 50, loss_percent = 1 }";
        let run = self.run(&server, &["warm_up_seconds = 2", "duration_seconds = 32"], 300, fleet);
        let checks = checks(&run);
        let times = of_checks(&run);
        println!("checks over a path of 50 ms and 1 % loss, {} of them:", checks.due());
        print_figure("  p50", at(times, 0.5), "ms", "reported");
        print_figure("  p99", at(times, 0.99), "ms", "≤ 300");
        print_figure("  p99.9", at(times, 0.999), "ms", "reported");
        print_figure("  without an answer", checks.unanswered as f64, "checks", "0");
        print_figure("  wrong", checks.wrong as f64, "checks", "0");
        let offline = checks.offline as f64 / checks.due() as f64 * 100.0;
        print_figure("  decided by the devices", offline, "%", "reported");
        print_trips(&run);
    }

    fn depot(&self) {
        let server = self.serve("depot");
        let fleet = format!(
            "devices = {ONLINE}\nuploads = {{ trips_max = 200 }}\n\
             depot = {{ devices = {}, at_seconds = 10, within_seconds = 10, trips = {} }}",
            self.devices, self.trips
        );
        // What is due before the depot comes is not counted.
        let times = ["warm_up_seconds = 10", "duration_seconds = 25"];
        let run = self.run(&server, &times, 300, &fleet);
        let (checks, times) = (checks(&run), of_checks(&run));
        let figures = run.fleet.as_ref().expect("a fleet");
        let depot = figures.depot.expect("a depot");
        println!("morning depot of {} devices with {} trips each:", depot.devices, self.trips);
        print_figure("  devices that are done", depot.done as f64, "devices", "all");
        let seconds = depot.done_seconds.unwrap_or(f64::NAN);
        print_figure("  done after (they come within 10 s)", seconds, "s", "≤ 60");
        print_figure("  deltas pulled", figures.registries.delta as f64, "deltas", "one each");
        let mib = figures.registries.bytes as f64 / f64::from(1 << 20);
        print_figure("  bytes of registries", mib, "MiB", "reported");
        println!("online checks meanwhile, {} of them:", checks.due());
        print_figure("  p50", at(times, 0.5), "ms", "reported");
        print_figure("  p99", at(times, 0.99), "ms", "≤ 50");
        print_figure("  without an answer", checks.unanswered as f64, "checks", "0");
        print_figure("  wrong", checks.wrong as f64, "checks", "0");
        print_figure("  decided by the devices", checks.offline as f64, "checks", "reported");
        let late = run.times.lateness.value_at_quantile(0.99) as f64 / 1e6;
        print_figure("  lateness of the tester, p99", late, "ms", "≤ 1");
        print_trips(&run);
    }

    fn serve(&self, name: &str) -> Target {
        let (registry, pki) = (self.file("registry.ndjson"), self.file("pki"));
        let server = Target::serve(
            &eligo(),
            &self.file(name),
            &[
                "--import",
                &registry.display().to_string(),
                "--quic",
                "127.0.0.1:0",
                "--quic-pki-dir",
                &pki.display().to_string(),
                "--quic-workers",
                "1",
                "--admin-token",
                ADMIN_TOKEN,
            ],
        );
        administer(server.admin.unwrap(), "/admin/registry", b"");
        server
    }

    /// Runs a fleet; after the first second new holders come and a new registry is built.
    fn run(&self, server: &Target, times: &[&str], rate: u32, fleet: &str) -> Run {
        let text = format!(
            "name = \"fleet\"\nseed = 1\n{}\n\
             [target]\nurl = \"http://{}\"\nfresh = true\n\
             [registry]\npath = \"unused\"\n\
             [arrivals]\nkind = \"poisson\"\nrate = {rate}\n\
             [citizens]\nthink_seconds_min = 0.5\nthink_seconds_max = 2\n\
             identifiers = {{ client_code = 60, social_card = 40, snils = 0 }}\n\
             [mix]\ncheck = 80\nconfirm = 17\ncancel = 3\nhistory = 0\nservices = 0\n\
             [fleet]\nlink = \"{}\"\npki_dir = \"{}\"\n{fleet}\n",
            times.join("\n"),
            server.http,
            server.quic.unwrap(),
            self.file("pki").display(),
        );
        let scenario = Scenario::parse(&text).unwrap();
        let file = self.file("registry.ndjson");
        let registry = Registry::load(&file, 100_000, scenario.seed).unwrap();
        let execution = Execution::prepare(&scenario, &registry).unwrap();
        let mut night =
            Night { admin: server.admin.unwrap(), new: self.file("new.ndjson"), is_over: false };
        let run = execution.run(scenario.arrivals.as_ref(), &mut night).unwrap();
        println!("{}", verdict::table(&verdict::judge(&run)));
        run.wrong_answers.iter().for_each(|words| println!("wrong: {words}"));
        run
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn create(&self, name: &str) -> BufWriter<File> {
        BufWriter::new(File::create(self.file(name)).unwrap())
    }
}

/// Brings new holders and their registry after the first second.
struct Night {
    admin: SocketAddr,
    new: PathBuf,
    is_over: bool,
}

impl Watch for Night {
    fn second(&mut self, _second: &Second) -> ControlFlow<()> {
        if !std::mem::replace(&mut self.is_over, true) {
            administer(self.admin, "/admin/import", &fs::read(&self.new).unwrap());
            administer(self.admin, "/admin/registry", b"");
        }
        ControlFlow::Continue(())
    }

    fn wants_standing(&self) -> bool {
        false
    }

    fn standing(&mut self, _run: &Run) {}
}

fn certify(pki: &Path, terminals: Vec<TerminalId>) {
    let now = time::OffsetDateTime::now_utc();
    let (from, until) = (now - time::Duration::HOUR, now + time::Duration::DAY);
    let directory = PkiDirectory::at(pki);
    Authority::create(&directory, Term { from, until }).unwrap();
    let authority = Authority::open(&directory).unwrap();
    authority.issue_server(&["localhost".to_owned()], Term { from, until }).unwrap();
    authority.issue_devices(&terminals, Term { from, until }).unwrap();
}

/// One call to administration, which must succeed.
fn administer(admin: SocketAddr, path: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(admin).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn checks(run: &Run) -> Tally {
    let mut checks = Tally::default();
    let tallies = run.tallies.iter().filter(|tallied| tallied.kind == Kind::Check);
    tallies.for_each(|tallied| checks.add(&tallied.tally));
    checks
}

fn of_checks(run: &Run) -> &Histogram<u64> {
    let mut kinds = run.kinds.iter();
    &kinds.find(|times| times.kind == Kind::Check).expect("checks").response
}

fn at(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e6
}

fn print_trips(run: &Run) {
    let trips = &run.fleet.as_ref().expect("a fleet").trips;
    println!("trips: {trips:?}");
}
