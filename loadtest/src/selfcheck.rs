//! The proof of the tool, on the spot: a built-in server that stalls on a known plan, and what the
//! tool shows of it beside the truth.
//!
//! Every request carries its place in the plan. The server notes, by the run's clock, the instant at
//! which it answered each ([`crate::null`]); from the plan's instant to that one is the true response
//! time, whatever the tool saw, sent late or forgot. Before each such run a calm one tells how much
//! the tool adds to the service time.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;

use crate::answer::Answer;
use crate::clock::Monotonic;
use crate::generator::{self, Generator};
use crate::histogram;
use crate::http::{Http, Settings};
use crate::machine::{Meter, keep_to_core};
use crate::null::{Act, CATEGORY, Freeze, NullServer, Script};
use crate::recorder::Recorder;
use crate::request::{Call, Check, Identifier, Request};
use crate::tally::{Carrier, Kind, Outcome};
use crate::time::Nanos;
use crate::tokens::Tokens;
use crate::workload::{Ticket, Workload};

/// By how much a shown percentile may differ from the true one.
pub const DIFFERENCE_MAX: f64 = 0.02;
/// By how much the median of the response may exceed that of the service, without a stall.
pub const ADDED_MAX: Nanos = Nanos(30_000);
/// The share of tainted seconds above which nothing is said.
pub const TAINTED_SHARE_MAX: f64 = 0.05;
/// The limit whose share is compared.
const LATE: u64 = 100_000_000;
/// Requests a second.
const RATE: u64 = 2_000;
const OPENING: Nanos = Nanos::from_seconds(5);

/// How it is checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each of these numbers of connections, one after the other.
    pub connections: Vec<u32>,
    /// How long the server is watched while it stalls.
    pub duration: Nanos,
    /// From one freeze to the next.
    pub every: Nanos,
    /// How long each is.
    pub freeze: Nanos,
    /// How long the measurement without a stall takes.
    pub calm: Nanos,
}

impl Plan {
    /// 200 ms in every 5 s, watched for a minute.
    pub fn full() -> Plan {
        Plan {
            connections: vec![1, 8, 400],
            duration: Nanos::from_seconds(60),
            every: Nanos::from_seconds(5),
            freeze: Nanos::from_millis(200),
            calm: Nanos::from_seconds(2),
        }
    }

    /// 200 ms in every second, watched for three.
    pub fn short() -> Plan {
        Plan {
            duration: Nanos::from_seconds(3),
            every: Nanos::from_seconds(1),
            calm: Nanos::from_millis(500),
            ..Plan::full()
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Selfcheck {
    /// For each number of connections.
    pub cases: Vec<Case>,
}

/// What was found with one number of connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// That number.
    pub connections: u32,
    /// What must be shown.
    pub truth: Figures,
    /// What is shown.
    pub shown: Figures,
    /// Without a stall: by how much the median of the response exceeds that of the service.
    pub added: Nanos,
    /// Requests that were missed or judged wrong.
    pub failed: u64,
    /// By how many the requests that were counted differ from those that were planned.
    pub uncounted: u64,
    /// Share of the seconds in which the generator was too late.
    pub tainted: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// 97th percentile.
    pub p97: Nanos,
    /// 99th percentile.
    pub p99: Nanos,
    /// 99.9th percentile.
    pub p999: Nanos,
    /// Share slower than 100 ms.
    pub late: f64,
}

/// What is said of the tool on this machine.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// It tells the truth.
    Pass,
    /// The machine is too busy to say.
    Inconclusive,
    /// It does not.
    Fail,
}

/// Checks the tool.
pub fn run(plan: &Plan) -> io::Result<Selfcheck> {
    let cases = plan.connections.iter().map(|connections| run_case(plan, *connections));
    Ok(Selfcheck { cases: cases.collect::<io::Result<_>>()? })
}

impl Selfcheck {
    /// The worst of the cases.
    pub fn verdict(&self) -> Verdict {
        self.cases.iter().map(Case::verdict).max().unwrap_or(Verdict::Inconclusive)
    }
}

impl Case {
    /// What is said of it.
    pub fn verdict(&self) -> Verdict {
        // However busy the machine is, every request is counted.
        if self.uncounted > 0 {
            return Verdict::Fail;
        }
        let is_true = self.difference() <= DIFFERENCE_MAX && self.added <= ADDED_MAX;
        match (is_true && self.failed == 0, self.tainted > TAINTED_SHARE_MAX) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Inconclusive,
            (false, false) => Verdict::Fail,
        }
    }

    /// The greatest difference, as a share of the truth.
    pub fn difference(&self) -> f64 {
        let (shown, truth) = (self.shown.parts(), self.truth.parts());
        let differences =
            shown.into_iter().zip(truth).map(|(shown, truth)| (shown / truth - 1.0).abs());
        differences.fold(0.0, f64::max)
    }
}

impl Figures {
    fn of(times: &Histogram<u64>) -> Figures {
        let at = |percentile| Nanos(times.value_at_percentile(percentile));
        let late = 1.0 - times.count_between(0, LATE) as f64 / times.len().max(1) as f64;
        Figures { p97: at(97.0), p99: at(99.0), p999: at(99.9), late }
    }

    fn parts(&self) -> [f64; 4] {
        let Figures { p97, p99, p999, late } = *self;
        [p97.0 as f64, p99.0 as f64, p999.0 as f64, late]
    }
}

impl fmt::Display for Selfcheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "connections           p97 ms   p99 ms p99.9 ms  >100 ms  added µs")?;
        for case in &self.cases {
            for (name, figures) in [("truth", case.truth), ("shown", case.shown)] {
                let [p97, p99, p999, late] = figures.parts();
                let [p97, p99, p999] = [p97, p99, p999].map(|time| time / 1e6);
                write!(formatter, "{:>11} {name:>9}", case.connections)?;
                write!(formatter, " {p97:>8.1} {p99:>8.1} {p999:>8.1} {:>6.2} %", late * 100.0)?;
                writeln!(formatter)?;
            }
            let verdict = match case.verdict() {
                Verdict::Pass => "pass",
                Verdict::Inconclusive => "inconclusive",
                Verdict::Fail => "fail",
            };
            writeln!(
                formatter,
                "{:>11} {verdict:>9}   differs by {:.2} %, {:.0} % of seconds tainted, {} failed, \
                 {} not counted {:>8.1}",
                case.connections,
                case.difference() * 100.0,
                case.tainted * 100.0,
                case.failed,
                case.uncounted,
                case.added.0 as f64 / 1e3,
            )?;
        }
        Ok(())
    }
}

fn run_case(plan: &Plan, connections: u32) -> io::Result<Case> {
    let (calm, _) = drive(connections, plan.calm, Vec::new())?;
    let (stalled, truth) = drive(connections, plan.duration, freezes(plan))?;
    let median = |times: &Histogram<u64>| Nanos(times.value_at_quantile(0.5));
    let failed =
        [&calm, &stalled].map(|recorder| recorder.total()).map(|all| all.due() - all.right);
    let uncounted = uncounted(plan.calm, &calm) + uncounted(plan.duration, &stalled);
    let seconds = || calm.seconds().iter().chain(stalled.seconds());
    let tainted = seconds().filter(|second| second.is_tainted()).count();
    Ok(Case {
        connections,
        truth: Figures::of(&truth),
        shown: Figures::of(&stalled.times().response),
        added: median(&calm.times().response) - median(&calm.times().service),
        failed: failed.into_iter().sum(),
        uncounted,
        tainted: tainted as f64 / seconds().count().max(1) as f64,
    })
}

/// By how many the requests that were answered or missed, and those that were come to, differ from
/// those of the plan.
fn uncounted(duration: Nanos, recorder: &Recorder) -> u64 {
    let planned = dues(duration).count() as u64;
    let come_to: u64 = recorder.seconds().iter().map(|second| second.due).sum();
    planned.abs_diff(recorder.total().due()).max(planned.abs_diff(come_to))
}

/// When requests are due.
fn dues(duration: Nanos) -> impl Iterator<Item = Nanos> {
    let gap = 1_000_000_000 / RATE;
    (0..duration.0 / gap).map(move |at| Nanos(at * gap))
}

fn freezes(plan: &Plan) -> Vec<Freeze> {
    let count = plan.duration.0 / plan.every.0.max(1);
    let first = Nanos(plan.every.0 / 2);
    (0..count)
        .map(|at| first + Nanos(at * plan.every.0))
        .map(|from| Freeze { from, until: from + plan.freeze })
        .collect()
}

/// Runs an open loop beside a fresh server; returns what was counted and the true response times.
fn drive(
    connections: u32,
    duration: Nanos,
    freezes: Vec<Freeze>,
) -> io::Result<(Recorder, Histogram<u64>)> {
    let server = NullServer::bind()?;
    let settings = Settings {
        address: server.address()?,
        host: "localhost".to_owned(),
        tls: None,
        connections,
        connections_max: connections,
    };
    let (script, stop) = (Script::new(), AtomicBool::new(false));
    let (recorder, answered) = std::thread::scope(|scope| {
        // On one core the server, once it goes on, would keep the generator from seeing the first
        // answers until it has written the last.
        let serving = scope.spawn(|| {
            keep_to_core(0)?;
            server.serve(&script, &stop)
        });
        let generating = scope.spawn(|| {
            keep_to_core(1)?;
            generate(settings, &script, duration, freezes)
        });
        let ran = generating.join();
        stop.store(true, Ordering::Relaxed);
        let served = serving.join();
        let ended = |_| io::Error::other("a thread panicked");
        Ok::<_, io::Error>((ran.map_err(ended)??, served.map_err(ended)??))
    })?;
    let mut truth = histogram::new();
    // What was never answered has failed, and is counted as that.
    let is_answered = |(_, answered): &(Nanos, Nanos)| *answered != Nanos::NEVER;
    for (due, answered) in dues(duration).zip(answered).filter(is_answered) {
        truth.saturating_record((answered - due).0);
    }
    Ok((recorder, truth))
}

/// Runs the generator and gives the server its script.
fn generate(
    settings: Settings,
    script: &Script,
    duration: Nanos,
    freezes: Vec<Freeze>,
) -> io::Result<Recorder> {
    let mut transport = Http::new(settings, Tokens::default(), Monotonic::start())?;
    transport.open_ahead(OPENING);
    let clock = Monotonic::start();
    transport.restart(clock);
    // Nobody else sets it.
    let _set = script.set(Act { clock, freezes, requests: dues(duration).count() });
    let mut recorder = Recorder::new();
    let mut workload = Numbered::default();
    let generator = Generator {
        workload: &mut workload,
        transport: &mut transport,
        clock: &clock,
        recorder: &mut recorder,
        meter: Some(Meter::start()),
        settings: generator::Settings::default(),
    };
    generator.run_open(dues(duration), &mut |_, _| ControlFlow::Continue(()));
    Ok(recorder)
}

/// Asks always the same, by a terminal that is the number of the request.
#[derive(Default)]
struct Numbered {
    next: u32,
}

impl Workload for Numbered {
    fn next(&mut self, _now: Nanos) -> Ticket {
        let slot = self.next;
        self.next += 1;
        Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot }
    }

    fn call(&self, ticket: Ticket) -> Call<'_> {
        let identifier = Identifier::ClientCode("AAABBBCCC000001");
        let terminal = u64::from(ticket.slot);
        let check = Check { service: 1, terminal, identifier, price_kopecks: None };
        Call { organization: 0, request: Request::Check(check), may_repeat: true }
    }

    fn judge(&mut self, _ticket: Ticket, answer: &Answer<'_>, _now: Nanos) -> Outcome {
        match answer {
            Answer::Check(check)
                if check.benefit.as_ref().is_some_and(|(id, _)| *id == CATEGORY) =>
            {
                Outcome::Right
            }
            _ => Outcome::Wrong,
        }
    }

    fn miss(&mut self, _ticket: Ticket, _was_sent: bool, _now: Nanos) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_tells_the_truth_or_that_it_cannot() {
        // What a busy machine adds on the way back nobody taints, so the best of some tries decides;
        // what no machine excuses holds in each.
        let is_right = (0..5).any(|_| {
            let found = run(&Plan::short()).unwrap();
            println!("{found}");
            assert_eq!(found.cases.len(), 3);
            found.cases.iter().for_each(assert_nothing_is_hidden);
            found.verdict() != Verdict::Fail
        });
        assert!(is_right);
    }

    fn assert_nothing_is_hidden(case: &Case) {
        assert_eq!((case.failed, case.uncounted), (0, 0), "{case:?}");
        assert!(case.shown.late > 0.01, "a gate of 1 % above 100 ms must fail: {case:?}");
        for (shown, truth) in case.shown.parts().into_iter().zip(case.truth.parts()) {
            assert!(shown > truth * (1.0 - DIFFERENCE_MAX), "{case:?}");
        }
    }

    #[test]
    fn a_verdict_needs_a_quiet_machine() {
        let truth = Figures {
            p97: Nanos::from_millis(55),
            p99: Nanos::from_millis(151),
            p999: Nanos::from_millis(195),
            late: 0.0207,
        };
        let shown = Figures { p97: Nanos::from_millis(57), ..truth };
        let added = Nanos(0);
        let case =
            Case { connections: 1, truth, shown, added, failed: 0, uncounted: 0, tainted: 0.0 };
        assert_eq!(case.verdict(), Verdict::Fail);
        assert_eq!(Case { tainted: 0.06, ..case.clone() }.verdict(), Verdict::Inconclusive);
        assert_eq!(Case { shown: truth, ..case.clone() }.verdict(), Verdict::Pass);
        let lost = Case { shown: truth, uncounted: 1, tainted: 0.06, ..case.clone() };
        assert_eq!(lost.verdict(), Verdict::Fail);
        assert_eq!(Case { shown: truth, failed: 1, ..case }.verdict(), Verdict::Fail);
    }

    #[test]
    fn a_request_of_the_plan_that_is_not_counted_is_missed_here() {
        let duration = Nanos::from_seconds(1);
        let ticket = Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot: 0 };
        let mut recorder = Recorder::new();
        for (at, due) in dues(duration).enumerate() {
            recorder.came_to(due, due);
            if at > 0 {
                recorder.missed(ticket, due, due);
            }
        }
        assert_eq!(uncounted(duration, &recorder), 1);
        recorder.missed(ticket, Nanos(0), Nanos(0));
        assert_eq!(uncounted(duration, &recorder), 0);
        recorder.came_to(Nanos(0), Nanos(0));
        assert_eq!(uncounted(duration, &recorder), 1);
    }
}
