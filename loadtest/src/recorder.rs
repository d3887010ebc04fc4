//! What is counted while a run goes on: tallies, times, and a row for every second.
//!
//! Every request is counted exactly once as due and exactly once as ended, so the sum of the
//! outcomes is the number that were due.

use hdrhistogram::Histogram;

use crate::histogram;
use crate::machine::Usage;
use crate::objective::Terms;
use crate::run::{FORMAT, KindTimes, Load, Run, Tallied, Times};
use crate::second::Second;
use crate::tally::{Carrier, Kind, Outcome, SLOW, Tally};
use crate::time::Nanos;
use crate::transport::Connections;
use crate::workload::Ticket;

/// The most rows; what comes later is counted in the last one. A week.
pub const SECONDS_MAX: u64 = 604_800;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// What it was.
    pub ticket: Ticket,
    /// What its answer was worth.
    pub outcome: Outcome,
    /// When it was due.
    pub due: Nanos,
    /// When it was sent.
    pub sent: Nanos,
    /// When its answer was there.
    pub at: Nanos,
}

/// What is said of a run beside the figures.
#[derive(Clone, Debug)]
pub struct About {
    /// The scenario's name.
    pub scenario: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Open or closed.
    pub load: Load,
    /// Whether the processors of the tester's machine never slept.
    pub is_kept_awake: bool,
    /// When it began, RFC 3339, UTC.
    pub begun: String,
    /// How long requests were due, seconds.
    pub duration_seconds: f64,
    /// Whether it was ended before its plan.
    pub is_ended_early: bool,
    /// What became of the connections.
    pub connections: Connections,
    /// The first wrong answers, without personal data.
    pub wrong_answers: Vec<String>,
}

/// Counts one generator's requests.
#[derive(Clone, Debug)]
pub struct Recorder {
    tallies: [[Tally; Carrier::ALL.len()]; Kind::ALL.len()],
    times: Times,
    kinds: [Option<Box<Histogram<u64>>>; Kind::ALL.len()],
    seconds: Vec<Second>,
    /// Rows before this one are closed.
    open: u64,
    /// Requests that were due before are not counted.
    from: Nanos,
    response: Window,
    lateness: Window,
}

/// The times of one second.
#[derive(Clone, Debug)]
struct Window {
    second: u64,
    times: Histogram<u64>,
}

impl Recorder {
    /// An empty one that counts everything.
    pub fn new() -> Recorder {
        Recorder::counting_from(Nanos(0))
    }

    /// An empty one that leaves out requests that are due before the second of `from`.
    pub fn counting_from(from: Nanos) -> Recorder {
        let window = || Window { second: 0, times: histogram::new() };
        Recorder {
            tallies: Default::default(),
            times: Times::new(),
            kinds: Default::default(),
            seconds: Vec::new(),
            open: 0,
            from: Nanos::from_seconds(from.second()),
            response: window(),
            lateness: window(),
        }
    }

    /// The generator came to a request that was due. Call it in the order in which they were.
    pub fn came_to(&mut self, due: Nanos, now: Nanos) {
        if due < self.from {
            return;
        }
        let lateness = (now - due).0;
        if due.second() > self.lateness.second {
            self.write_lateness();
            self.lateness.second = due.second();
        }
        self.row(due.second()).due += 1;
        self.lateness.times.saturating_record(lateness);
        self.times.lateness.saturating_record(lateness);
    }

    /// A request was sent.
    pub fn sent(&mut self, now: Nanos) {
        self.row(now.second()).sent += 1;
    }

    /// A request was answered.
    pub fn answered(&mut self, answered: &Answered) {
        let Answered { ticket, outcome, due, sent, at } = *answered;
        if due < self.from {
            return;
        }
        let response = at - due;
        if at.second() > self.response.second {
            self.write_response();
            self.response.second = at.second();
        }
        let is_decided = matches!(outcome, Outcome::Offline | Outcome::Right);
        let is_slow = outcome == Outcome::Right && response > SLOW;
        let row = self.row(at.second());
        row.answered += 1;
        row.offline += u64::from(outcome == Outcome::Offline);
        row.slow += u64::from(is_slow);
        row.refused += u64::from(outcome == Outcome::Refused);
        row.wrong += u64::from(outcome == Outcome::Wrong);
        row.unanswered += u64::from(outcome == Outcome::Unanswered);
        let tally = self.tally(ticket);
        tally.slow += u64::from(is_slow);
        *tally.of(outcome) += 1;
        self.response.times.saturating_record(response.0);
        if is_decided && ticket.kind != Kind::Malformed {
            self.times.response.saturating_record(response.0);
            self.times.service.saturating_record((at - sent).0);
        }
        if is_decided {
            let times = &mut self.kinds[ticket.kind as usize];
            times.get_or_insert_with(|| Box::new(histogram::new())).saturating_record(response.0);
        }
    }

    /// A request was given up, or never sent.
    pub fn missed(&mut self, ticket: Ticket, due: Nanos, now: Nanos) {
        if due < self.from {
            return;
        }
        self.row(now.second()).unanswered += 1;
        self.tally(ticket).unanswered += 1;
    }

    /// Closes the oldest open row; nothing is due or ends in it any more.
    pub fn close_second(&mut self, usage: Usage, in_flight: u64) -> &Second {
        let closed = self.open;
        if self.lateness.second <= closed {
            self.write_lateness();
            self.lateness.second = closed + 1;
        }
        if self.response.second <= closed {
            self.write_response();
            self.response.second = closed + 1;
        }
        self.open += 1;
        let row = self.row(closed);
        row.in_flight = in_flight;
        row.generator_cpu_percent = usage.cpu_percent;
        row.steal_percent = usage.steal_percent;
        row
    }

    /// Adds what another thread of the same run counted; both have closed their rows.
    pub fn add(&mut self, other: &Recorder) {
        for (ours, theirs) in
            self.tallies.as_flattened_mut().iter_mut().zip(other.tallies.as_flattened())
        {
            ours.add(theirs);
        }
        // Both have the same bounds.
        let _infallible = self.times.add(&other.times);
        for (ours, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            if let Some(theirs) = theirs {
                let ours = ours.get_or_insert_with(|| Box::new(histogram::new()));
                let _infallible = ours.add(theirs.as_ref());
            }
        }
        for theirs in &other.seconds {
            self.row(theirs.second).add(theirs);
        }
        self.open = self.open.max(other.open);
        self.from = self.from.min(other.from);
    }

    /// The oldest row that is still open.
    pub fn open_second(&self) -> u64 {
        self.open
    }

    /// All requests together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.as_flattened().iter().for_each(|tally| total.add(tally));
        total
    }

    /// By kind and carrier, those that occurred.
    pub fn tallies(&self) -> Vec<Tallied> {
        let mut tallies = Vec::new();
        for (kind, by_carrier) in Kind::ALL.into_iter().zip(&self.tallies) {
            for (carrier, tally) in Carrier::ALL.into_iter().zip(by_carrier) {
                if *tally != Tally::default() {
                    tallies.push(Tallied { kind, carrier, tally: *tally });
                }
            }
        }
        tallies
    }

    /// The distributions.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The rows.
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// The document.
    pub fn into_run(self, about: About) -> Run {
        let tallies = self.tallies();
        let kinds = Kind::ALL.into_iter().zip(self.kinds);
        let kinds = kinds.filter_map(|(kind, response)| {
            response.map(|response| KindTimes { kind, response: *response })
        });
        let first = self.from.second();
        Run {
            format: FORMAT,
            scenario: about.scenario,
            seed: about.seed,
            load: about.load,
            is_kept_awake: about.is_kept_awake,
            begun: about.begun,
            duration_seconds: about.duration_seconds,
            is_ended_early: about.is_ended_early,
            tallies,
            times: self.times,
            kinds: kinds.collect(),
            seconds: self.seconds.into_iter().filter(|row| row.second >= first).collect(),
            connections: about.connections,
            wrong_answers: about.wrong_answers,
            failures: Vec::new(),
            availability: None,
            audit: None,
            fleet: None,
            faults: Vec::new(),
            target: None,
            terms: Terms::default(),
        }
    }

    fn tally(&mut self, ticket: Ticket) -> &mut Tally {
        &mut self.tallies[ticket.kind as usize][ticket.carrier as usize]
    }

    fn row(&mut self, second: u64) -> &mut Second {
        let at = second.min(SECONDS_MAX - 1) as usize;
        while self.seconds.len() <= at {
            let second = self.seconds.len() as u64;
            self.seconds.push(Second { second, ..Second::default() });
        }
        &mut self.seconds[at]
    }

    fn write_lateness(&mut self) {
        let p99 = self.lateness.times.value_at_quantile(0.99);
        self.lateness.times.reset();
        self.row(self.lateness.second).lateness_p99 = p99;
    }

    fn write_response(&mut self) {
        let times = &self.response.times;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| times.value_at_quantile(share));
        let longest = times.max();
        self.response.times.reset();
        let row = self.row(self.response.second);
        (row.response_p50, row.response_p99, row.response_p999) = (p50, p99, p999);
        row.response_max = longest;
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: Ticket = Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot: 0 };

    fn answered(outcome: Outcome, due_ms: u64, at_ms: u64) -> Answered {
        let (due, at) = (Nanos::from_millis(due_ms), Nanos::from_millis(at_ms));
        Answered { ticket: TICKET, outcome, due, sent: due, at }
    }

    #[test]
    fn answers_later_than_three_seconds_are_slow() {
        let mut recorder = Recorder::new();
        for (at, outcome) in [
            (3_000, Outcome::Right),
            (3_001, Outcome::Right),
            (3_001, Outcome::Wrong),
            (3_001, Outcome::Refused),
        ] {
            recorder.came_to(Nanos(0), Nanos(0));
            recorder.answered(&answered(outcome, 0, at));
        }
        let expected = Tally { right: 2, slow: 1, wrong: 1, refused: 1, unanswered: 0, offline: 0 };
        assert_eq!(recorder.total(), expected);
        assert_eq!(recorder.seconds()[3].slow, 1);
        assert_eq!(recorder.times().response.len(), 2);
    }

    #[test]
    fn rows_hold_what_was_due_and_ended_in_their_second() {
        let mut recorder = Recorder::new();
        recorder.came_to(Nanos::from_millis(900), Nanos::from_millis(900));
        // The generator was away: the second that it missed is the tainted one.
        recorder.came_to(Nanos::from_millis(1_100), Nanos::from_millis(2_050));
        recorder.came_to(Nanos::from_millis(2_050), Nanos::from_millis(2_050));
        recorder.answered(&answered(Outcome::Right, 900, 2_060));
        recorder.missed(TICKET, Nanos::from_millis(2_050), Nanos::from_millis(2_070));
        for _ in 0..3 {
            recorder.close_second(Usage { cpu_percent: 5.0, steal_percent: 1.0 }, 7);
        }
        let rows = recorder.seconds();
        assert_eq!(rows.iter().map(|row| row.due).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(rows.iter().map(Second::is_tainted).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((rows[2].answered, rows[2].unanswered, rows[2].in_flight), (1, 1, 7));
        assert_eq!(rows[2].response_max / 10_000_000, 116);
        assert_eq!(rows[0].response_max, 0);
    }

    #[test]
    fn threads_add_up() {
        let mut first = Recorder::new();
        let mut second = Recorder::new();
        for recorder in [&mut first, &mut second] {
            recorder.came_to(Nanos(0), Nanos(5_000));
            recorder.answered(&answered(Outcome::Right, 0, 10));
            recorder.close_second(Usage { cpu_percent: 40.0, steal_percent: 1.0 }, 2);
        }
        second.came_to(Nanos::from_seconds(1), Nanos::from_seconds(1));
        second.missed(TICKET, Nanos::from_seconds(1), Nanos::from_seconds(1));
        second.close_second(Usage::default(), 0);
        first.add(&second);
        assert_eq!(first.total(), Tally { right: 2, unanswered: 1, ..Tally::default() });
        assert_eq!(first.times().response.len(), 2);
        assert_eq!(first.times().lateness.len(), 3);
        let row = &first.seconds()[0];
        assert_eq!((row.due, row.in_flight, row.generator_cpu_percent), (2, 4, 80.0));
        assert_eq!(row.steal_percent, 1.0);
        assert_eq!(first.seconds()[1].unanswered, 1);
    }
}
