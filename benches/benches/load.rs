//! The load tester beside wrk, against a server that does nothing but answer: server on core 0,
//! tester on core 1, interleaved rounds, medians. wrk is Debian's package; without it only our own
//! side is measured.
//!
//! `ELIGO_BENCH_SECONDS` sets how long each measurement takes (3), `ELIGO_BENCH_MEMORY_SECONDS` the
//! one of memory (20); `ELIGO_BENCH_ONLY` picks one of rate, open, lateness, memory, selfcheck.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use benches::population::{SEED, next_random};
use benches::report::{median, print_figure, print_ratio, resident_bytes, setting};
use benches::target::{Target, keep_to_core_1};
use hdrhistogram::Histogram;
use loadtest::answer::Answer;
use loadtest::arrivals::{Arrivals, Shape};
use loadtest::clock::Monotonic;
use loadtest::generator::{self, Generator};
use loadtest::http::{Http, Settings};
use loadtest::machine::{Meter, thread_cpu_ns};
use loadtest::null::{CATEGORY, NullServer, Script};
use loadtest::recorder::Recorder;
use loadtest::request::{Call, Check, Identifier, Request};
use loadtest::selfcheck;
use loadtest::tally::{Carrier, Kind, Outcome};
use loadtest::time::Nanos;
use loadtest::tokens::Tokens;
use loadtest::workload::{Ticket, Workload};

const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 64;
const HOLDERS: usize = 100_000;
/// As long as a real access token.
const TOKEN_BYTES: usize = 700;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("null") {
        return serve_null();
    }
    let only = std::env::var("ELIGO_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("selfcheck") {
        let found = selfcheck::run(&selfcheck::Plan::short()).unwrap();
        println!("{found}selfcheck: {:?} (target Pass)", found.verdict());
    }
    keep_to_core_1();
    let server = Target::start(&std::env::current_exe().unwrap(), &["null".to_owned()]);
    let bench = Bench { server, seconds: setting("ELIGO_BENCH_SECONDS", 3) };
    if wanted("rate") {
        bench.rate();
    }
    if wanted("open") {
        bench.open();
    }
    if wanted("lateness") {
        bench.lateness();
    }
    if wanted("memory") {
        bench.memory(setting("ELIGO_BENCH_MEMORY_SECONDS", 20));
    }
}

fn serve_null() {
    let server = NullServer::bind().unwrap();
    println!("ready http={}", server.address().unwrap());
    server.serve(&Script::new(), &AtomicBool::new(false)).unwrap();
}

struct Bench {
    server: Target,
    seconds: u64,
}

/// What a run brought.
struct Ran {
    recorder: Recorder,
    seconds: f64,
    cpu_us: f64,
}

impl Bench {
    fn rate(&self) {
        let (mut ours, mut wrk, mut cpu, mut wrk_cpu) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let ran = self.run(CONNECTIONS, |generator, duration| {
                generator.run_closed(CONNECTIONS, duration, &mut |_, _| ControlFlow::Continue(()));
            });
            let total = ran.recorder.total();
            assert_eq!(total.right, total.due(), "{total:?}");
            ours.push(total.right as f64 / ran.seconds);
            cpu.push(ran.cpu_us / total.right as f64);
            if let Some((rate, cpu)) = self.wrk() {
                wrk.push(rate);
                wrk_cpu.push(cpu);
            }
        }
        print_figure("tester, CPU a request", median(&cpu), "µs", "≤ 9");
        if wrk.is_empty() {
            println!("wrk is not installed: no comparison");
            print_figure("tester, closed loop", median(&ours), "req/s", "≥ 1.0 × wrk");
            return;
        }
        print_figure("wrk, CPU a request", median(&wrk_cpu), "µs", "its own");
        print_ratio("tester beside wrk", median(&ours), median(&wrk), "req/s", "≥ 1.0");
    }

    /// Requests a second and CPU a request of wrk; `None` where it is not installed.
    fn wrk(&self) -> Option<(f64, f64)> {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        let token = "x".repeat(TOKEN_BYTES);
        writeln!(
            script,
            "wrk.method = 'POST'\n\
             wrk.body = '{{\"serviceId\":1,\"organizationTerminalId\":5001,\"clientCode\":\"AAABBBCCC000001\"}}'\n\
             wrk.headers['Content-Type'] = 'application/json'\n\
             wrk.headers['Authorization'] = 'Bearer {token}'"
        )
        .unwrap();
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c"]).arg(CONNECTIONS.to_string());
        command.arg(format!("-d{}s", self.seconds)).arg("-s").arg(script.path());
        command.arg(format!("http://{}/api/CheckClientBenefits", self.server.http));
        let before = children_cpu_us();
        let output = command.output().ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
        let rate: f64 = line("Requests/sec:")?.trim().parse().unwrap();
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
        let requests: f64 = requests?.0.parse().unwrap();
        Some((rate, (children_cpu_us() - before) / requests))
    }

    fn open(&self) {
        let ran = self.run_open(Shape::Constant { rate: 80_000.0 }, self.seconds);
        let total = ran.recorder.total();
        let rate = total.right as f64 / ran.seconds;
        print_figure("open loop of 80,000/s, answered", rate, "req/s", "80000");
        print_figure("  missed", total.unanswered as f64, "requests", "0");
        print_figure("  CPU a request", ran.cpu_us / total.right as f64, "µs", "≤ 9");
        print_times("  lateness", &ran.recorder.times().lateness, "reported");
        print_times("  response", &ran.recorder.times().response, "reported");
    }

    fn lateness(&self) {
        let shapes = [
            ("constant", Shape::Constant { rate: 20_000.0 }),
            ("Poisson", Shape::Poisson { rate: 20_000.0 }),
            ("constant, a tenth of it", Shape::Constant { rate: 2_000.0 }),
        ];
        for (name, shape) in shapes {
            let ran = self.run_open(shape, self.seconds);
            let what = format!("lateness at 20,000/s, {name}");
            print_times(&what, &ran.recorder.times().lateness, "p50 ≤ 30, p99 ≤ 200");
            let median = |times: &Histogram<u64>| times.value_at_quantile(0.5) as f64 / 1e3;
            let times = ran.recorder.times();
            let added = median(&times.response) - median(&times.service);
            print_figure("  added to the service time, p50", added, "µs", "≤ 30");
            let share = ran.cpu_us / 1e4 / ran.seconds;
            print_figure("  CPU of the generator", share, "%", "reported");
        }
    }

    fn memory(&self, seconds: u64) {
        let early = self.run_open(Shape::Poisson { rate: 20_000.0 }, seconds.div_ceil(4));
        let before = resident_bytes();
        drop(early);
        let late = self.run_open(Shape::Poisson { rate: 20_000.0 }, seconds);
        let after = resident_bytes();
        drop(late);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        print_figure(&format!("memory after {seconds} s at 20,000/s"), mib(after), "MiB", "≤ 40");
        print_figure("  more than after a quarter", mib(after) - mib(before), "MiB", "0");
    }

    fn run_open(&self, shape: Shape, seconds: u64) -> Ran {
        let arrivals = Arrivals::try_from(shape).unwrap();
        let plan = arrivals.plan(Nanos::from_seconds(seconds), SEED).unwrap();
        self.run(CONNECTIONS, |generator, _| {
            generator.run_open(plan, &mut |_, _| ControlFlow::Continue(()));
        })
    }

    fn run(
        &self,
        connections: u32,
        run: impl FnOnce(Generator<'_, Checks, Http, Monotonic>, Nanos),
    ) -> Ran {
        let settings = Settings {
            address: self.server.http,
            host: "localhost".to_owned(),
            tls: None,
            connections,
            connections_max: connections,
        };
        let tokens = Tokens::of([Some("x".repeat(TOKEN_BYTES))]);
        let mut transport = Http::new(settings, tokens, Monotonic::start()).unwrap();
        assert_eq!(transport.open_ahead(Nanos::from_seconds(5)), connections);
        let mut recorder = Recorder::new();
        let mut workload = Checks::new();
        let clock = Monotonic::start();
        transport.restart(clock);
        let (begun, cpu) = (Instant::now(), thread_cpu_ns());
        let generator = Generator {
            workload: &mut workload,
            transport: &mut transport,
            clock: &clock,
            recorder: &mut recorder,
            meter: Some(Meter::start()),
            settings: generator::Settings::default(),
        };
        run(generator, Nanos::from_seconds(self.seconds));
        let cpu_us = (thread_cpu_ns() - cpu) as f64 / 1e3;
        Ran { recorder, seconds: begun.elapsed().as_secs_f64(), cpu_us }
    }
}

/// Checks of random holders, each answer compared with what it must be.
struct Checks {
    /// By holder: its code, and what must be answered.
    holders: Vec<([u8; 15], u32)>,
    /// Which holder each open request asks for.
    open: Vec<u32>,
    free: Vec<u32>,
    random: u64,
}

impl Checks {
    fn new() -> Checks {
        let holder = |number| {
            let code = format!("AAABBBCCC{number:06}");
            (code.into_bytes().try_into().unwrap(), CATEGORY)
        };
        Checks {
            holders: (0..HOLDERS).map(holder).collect(),
            open: Vec::new(),
            free: Vec::new(),
            random: SEED,
        }
    }
}

impl Workload for Checks {
    fn next(&mut self, _now: Nanos) -> Ticket {
        let holder = (next_random(&mut self.random) % HOLDERS as u64) as u32;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.open.push(0);
            self.open.len() as u32 - 1
        });
        self.open[slot as usize] = holder;
        Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot }
    }

    fn call(&self, ticket: Ticket) -> Call<'_> {
        let (code, _) = &self.holders[self.open[ticket.slot as usize] as usize];
        let identifier = Identifier::ClientCode(std::str::from_utf8(code).unwrap());
        let check = Check { service: 1, terminal: 5_001, identifier, price_kopecks: None };
        Call { organization: 0, request: Request::Check(check), may_repeat: true }
    }

    fn judge(&mut self, ticket: Ticket, answer: &Answer<'_>, _now: Nanos) -> Outcome {
        self.free.push(ticket.slot);
        let (_, category) = self.holders[self.open[ticket.slot as usize] as usize];
        match answer {
            Answer::Check(check)
                if check.code == 0
                    && check.transaction > 0
                    && check.benefit.as_ref().is_some_and(|(id, name)| {
                        *id == category && name == "Ветеран труда Якутии"
                    }) =>
            {
                Outcome::Right
            }
            _ => Outcome::Wrong,
        }
    }

    fn miss(&mut self, ticket: Ticket, _was_sent: bool, _now: Nanos) {
        self.free.push(ticket.slot);
    }
}

fn print_times(what: &str, times: &Histogram<u64>, target: &str) {
    let at = |share: f64| times.value_at_quantile(share) as f64 / 1e3;
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    println!("{what}: p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1} µs (target {target})");
}

/// Processor time of all processes that this one has started and waited for.
fn children_cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // The 16th and 17th field; the first that is left is the third. In hundredths of a second.
    let ticks = |at: usize| fields[at - 3].parse::<f64>().unwrap();
    (ticks(16) + ticks(17)) * 1e4
}
