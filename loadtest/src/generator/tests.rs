//! Whole runs in simulated time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::answer::Answer;
use crate::histogram;
use crate::null::Freeze;
use crate::request::{Call, Request};
use crate::stall::{Line, responses};
use crate::tally::{Carrier, Kind, Outcome, Tally};
use crate::transport::{Connections, Tag};

#[derive(Clone, Default)]
struct FakeClock(Rc<Cell<u64>>);

impl Clock for FakeClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.get())
    }
}

impl FakeClock {
    fn advance_to(&self, to: Nanos) {
        self.0.set(self.0.get().max(to.0));
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answer,
    Lose,
    Forget,
}

/// A server with so many connections that answers one request after the other, but in its freezes.
struct FakeTransport {
    clock: FakeClock,
    connections: usize,
    line: Line,
    freezes: Vec<Freeze>,
    fate: Box<dyn FnMut() -> Fate>,
    free_at: Nanos,
    under_way: BTreeMap<(Nanos, u32), (Tag, Fate)>,
    sent: u32,
}

impl FakeTransport {
    fn new(clock: &FakeClock, connections: usize, line: Line) -> FakeTransport {
        FakeTransport {
            clock: clock.clone(),
            connections,
            line,
            freezes: Vec::new(),
            fate: Box::new(|| Fate::Answer),
            free_at: Nanos(0),
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }
}

impl Transport for FakeTransport {
    fn is_free(&self) -> bool {
        self.under_way.len() < self.connections
    }

    fn send(&mut self, tag: Tag, _call: &Call<'_>) {
        assert!(self.is_free());
        assert!(self.under_way.values().all(|(other, _)| *other != tag), "the tag is in use");
        let mut begun = self.clock.now().max(self.free_at);
        for freeze in &self.freezes {
            if (freeze.from..freeze.until).contains(&begun) {
                begun = freeze.until;
            }
        }
        let fate = (self.fate)();
        self.free_at = begun + self.line.gap;
        let at =
            if matches!(fate, Fate::Forget) { Nanos::NEVER } else { begun + self.line.service };
        self.sent += 1;
        self.under_way.insert((at, self.sent), (tag, fate));
    }

    fn abandon(&mut self, tag: Tag) {
        let before = self.under_way.len();
        self.under_way.retain(|_, (other, _)| *other != tag);
        assert_eq!(self.under_way.len() + 1, before);
    }

    fn poll(&mut self, until: Nanos, take: &mut dyn FnMut(Event<'_>)) {
        let first = self.under_way.first_key_value().map_or(Nanos::NEVER, |((at, _), _)| *at);
        self.clock.advance_to(first.min(until));
        let now = self.clock.now();
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= now
        {
            let (at, (tag, fate)) = (entry.key().0, entry.remove());
            match fate {
                Fate::Lose => take(Event::Lost { tag, at }),
                _ => take(Event::Answered { tag, answer: Answer::Done, at }),
            }
        }
    }

    fn connections(&self) -> Connections {
        Connections::default()
    }
}

/// Asks always the same; every third answer is wrong if it says so.
#[derive(Default)]
struct FakeWorkload {
    lies: bool,
    open: u64,
    chosen: u64,
    unsent: u64,
}

impl Workload for FakeWorkload {
    fn next(&mut self, _now: Nanos) -> Ticket {
        self.open += 1;
        self.chosen += 1;
        Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot: 0 }
    }

    fn call(&self, _ticket: Ticket) -> Call<'_> {
        let request = Request::Services { page: 0, page_size: 50 };
        Call { organization: 0, request, may_repeat: true }
    }

    fn judge(&mut self, _ticket: Ticket, _answer: &Answer<'_>, _now: Nanos) -> Outcome {
        self.open -= 1;
        if self.lies && self.chosen.is_multiple_of(3) { Outcome::Wrong } else { Outcome::Right }
    }

    fn miss(&mut self, _ticket: Ticket, was_sent: bool, _now: Nanos) {
        self.open -= 1;
        self.unsent += u64::from(!was_sent);
    }
}

struct Ran {
    recorder: Recorder,
    workload: FakeWorkload,
    ended: Nanos,
    rows: u64,
}

fn run_open(
    mut transport: FakeTransport,
    settings: Settings,
    plan: impl Iterator<Item = Nanos>,
) -> Ran {
    let clock = transport.clock.clone();
    let mut recorder = Recorder::new();
    let mut workload = FakeWorkload::default();
    let mut rows = 0;
    let generator = Generator {
        workload: &mut workload,
        transport: &mut transport,
        clock: &clock,
        recorder: &mut recorder,
        meter: None,
        settings,
    };
    generator.run_open(plan, &mut |second, _| {
        assert_eq!(second.second, rows);
        rows += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(workload.open, 0, "a request neither judged nor missed");
    Ran { recorder, workload, ended: clock.now(), rows }
}

/// So many requests, one every so many milliseconds.
fn every(ms: u64, count: u64) -> impl Iterator<Item = Nanos> {
    (0..count).map(move |number| Nanos::from_millis(number * ms))
}

const FAST: Line = Line { service: Nanos(100_000), gap: Nanos(10_000) };

#[test]
fn all_is_answered_by_a_good_server() {
    let clock = FakeClock::default();
    let ran = run_open(FakeTransport::new(&clock, 4, FAST), Settings::default(), every(1, 3_000));
    assert_eq!(ran.recorder.total(), Tally { right: 3_000, ..Tally::default() });
    assert_eq!(ran.recorder.times().response.max() / 1_000, 100);
    assert_eq!(ran.recorder.times().lateness.max(), 0);
    assert_eq!(ran.rows, 3);
    assert_eq!(ran.recorder.seconds().iter().map(|row| row.due).sum::<u64>(), 3_000);
}

#[test]
fn what_is_never_answered_is_given_up() {
    let clock = FakeClock::default();
    let mut transport = FakeTransport::new(&clock, 4, FAST);
    transport.fate = Box::new(|| Fate::Forget);
    let settings = Settings { give_up: Nanos::from_seconds(1), ..Settings::default() };
    let ran = run_open(transport, settings, every(100, 20));
    assert_eq!(ran.recorder.total(), Tally { unanswered: 20, ..Tally::default() });
    // Four were under way at any time; each that was given up made room for the next.
    assert_eq!(ran.workload.unsent, 0);
    assert_eq!(ran.ended, Nanos::from_millis(2_900));
}

#[test]
fn a_full_backlog_is_a_miss() {
    let clock = FakeClock::default();
    let mut transport = FakeTransport::new(&clock, 1, FAST);
    transport.freezes = vec![Freeze { from: Nanos(0), until: Nanos::from_millis(500) }];
    let settings = Settings { backlog_max: 100, ..Settings::default() };
    let ran = run_open(transport, settings, every(1, 1_000));
    let total = ran.recorder.total();
    assert_eq!((total.due(), total.unanswered), (1_000, ran.workload.unsent));
    // One was sent and a hundred waited when the others came.
    assert_eq!(total.unanswered, 501 - 101);
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let clock = FakeClock::default();
    let mut transport = FakeTransport::new(&clock, 1, FAST);
    transport.fate = Box::new(|| Fate::Forget);
    let settings = Settings { drain: Nanos::from_millis(300), ..Settings::default() };
    let ran = run_open(transport, settings, every(1, 100));
    assert_eq!(ran.recorder.total(), Tally { unanswered: 100, ..Tally::default() });
    assert!(ran.ended <= Nanos::from_millis(400), "{:?}", ran.ended);
}

#[test]
fn a_run_can_be_broken_off() {
    let clock = FakeClock::default();
    let mut transport = FakeTransport::new(&clock, 4, FAST);
    let mut recorder = Recorder::new();
    let generator = Generator {
        workload: &mut FakeWorkload::default(),
        transport: &mut transport,
        clock: &clock,
        recorder: &mut recorder,
        meter: None,
        settings: Settings::default(),
    };
    generator.run_open(every(1, 1_000_000), &mut |second, _| match second.second {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    // The one that is due as the second ends was come to before.
    assert_eq!(recorder.total().due(), 2_001);
}

#[test]
fn users_of_a_closed_loop_wait_for_their_answers() {
    let clock = FakeClock::default();
    let mut transport = FakeTransport::new(&clock, 8, FAST);
    transport.freezes =
        vec![Freeze { from: Nanos::from_millis(100), until: Nanos::from_millis(900) }];
    let mut recorder = Recorder::new();
    let generator = Generator {
        workload: &mut FakeWorkload::default(),
        transport: &mut transport,
        clock: &clock,
        recorder: &mut recorder,
        meter: None,
        settings: Settings::default(),
    };
    generator.run_closed(2, Nanos::from_seconds(1), &mut |_, _| ControlFlow::Continue(()));
    // 200 ms of service at two requests each 110 µs: of the stall only two requests tell.
    let total = recorder.total();
    assert!((3_600..=4_100).contains(&total.right), "{total:?}");
    assert_eq!(total.due(), total.right);
    let slow =
        recorder.times().response.len() - recorder.times().response.count_between(0, 1_000_000);
    assert_eq!(slow, 2);
}

/// 2,000 requests a second at a server that freezes 200 ms every 5 s: what is shown is within 2 % of
/// what is computed, over any number of connections.
#[test]
fn the_truth_about_a_stall_is_told() {
    let check = |connections: usize, line: Line| {
        let clock = FakeClock::default();
        let mut transport = FakeTransport::new(&clock, connections, line);
        let second = Nanos::from_seconds;
        transport.freezes = (0..12)
            .map(|at| second(at * 5 + 4))
            .map(|from| Freeze { from, until: from + Nanos::from_millis(200) })
            .collect();
        let dues = || (0..120_000).map(|number| Nanos(number * 500_000));
        let mut truth = histogram::new();
        for response in responses(line, &transport.freezes, dues()) {
            truth.record(response.0).unwrap();
        }
        let ran = run_open(transport, Settings::default(), dues());
        let shown = &ran.recorder.times().response;
        for percentile in [50.0, 97.0, 99.0, 99.9] {
            let [shown, truth] = [shown, &truth].map(|times| times.value_at_percentile(percentile));
            let ratio = shown as f64 / truth as f64;
            assert!((0.98..=1.02).contains(&ratio), "p{percentile}: {shown} beside {truth}");
        }
        let late = |times: &hdrhistogram::Histogram<u64>| {
            1.0 - times.count_between(0, 100_000_000) as f64 / times.len() as f64
        };
        let (shown, truth) = (late(shown), late(&truth));
        assert!((shown / truth - 1.0).abs() < 0.02, "{shown} beside {truth}");
        // The gate "at most 1 % slower than 100 ms" must fail, the one of 3 % must pass.
        assert!(shown > 0.01 && shown < 0.03, "{shown}");
    };
    let micros =
        |service: u64, gap: u64| Line { service: Nanos(service * 1_000), gap: Nanos(gap * 1_000) };
    check(1, micros(17, 17));
    check(8, micros(50, 15));
    check(400, micros(150, 15));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_request_disappears(
        gaps in proptest::collection::vec(0_u64..3_000_000, 1..300),
        fates in proptest::collection::vec(
            prop_oneof![8 => Just(Fate::Answer), 1 => Just(Fate::Lose), 1 => Just(Fate::Forget)],
            1..50,
        ),
        connections in 1_usize..8,
        in_flight_max in 1_u32..8,
        backlog_max in 0_usize..20,
        give_up_ms in 1_u64..50,
        users in proptest::option::of(1_u32..5),
    ) {
        let clock = FakeClock::default();
        let mut transport = FakeTransport::new(&clock, connections, FAST);
        let mut at = 0;
        transport.fate = Box::new(move || {
            at += 1;
            fates[at % fates.len()]
        });
        let settings = Settings {
            give_up: Nanos::from_millis(give_up_ms),
            in_flight_max,
            backlog_max,
            drain: Nanos::from_millis(20),
        };
        let mut recorder = Recorder::new();
        let mut workload = FakeWorkload { lies: true, ..FakeWorkload::default() };
        let generator = Generator {
            workload: &mut workload,
            transport: &mut transport,
            clock: &clock,
            recorder: &mut recorder,
            meter: None,
            settings,
        };
        let mut due = 0;
        let planned = gaps.len() as u64;
        let plan = gaps.into_iter().map(|gap| { due += gap; Nanos(due) });
        match users {
            Some(users) => generator.run_closed(users, Nanos::from_millis(50), &mut |_, _| ControlFlow::Continue(())),
            None => generator.run_open(plan, &mut |_, _| ControlFlow::Continue(())),
        }
        let total = recorder.total();
        if users.is_none() {
            prop_assert_eq!(total.due(), planned);
        }
        prop_assert_eq!(total.due(), workload.chosen);
        prop_assert_eq!(workload.open, 0);
        prop_assert_eq!(recorder.times().lateness.len(), total.due());
        let rows = recorder.seconds();
        let sum = |field: fn(&Second) -> u64| rows.iter().map(field).sum::<u64>();
        prop_assert_eq!(sum(|row| row.due), total.due());
        prop_assert_eq!(sum(|row| row.unanswered), total.unanswered);
        prop_assert_eq!(sum(|row| row.wrong), total.wrong);
        prop_assert_eq!(sum(|row| row.answered), total.right + total.wrong);
        prop_assert_eq!(sum(|row| row.sent) + workload.unsent, total.due());
    }
}
