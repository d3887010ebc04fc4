//! Runs for tests.

use crate::downtime::{Availability, Probed};
use crate::histogram;
use crate::objective::Terms;
use crate::run::{FORMAT, KindTimes, Load, Run, Tallied, Times};
use crate::second::Second;
use crate::tally::{Carrier, Kind, Tally};
use crate::transport::Connections;

/// `right` checks by ecs cards in 1 ms and `unanswered` ones, over ten seconds, with a good probe.
pub fn run(right: u64, unanswered: u64) -> Run {
    let tally = Tally { right, unanswered, ..Tally::default() };
    let mut times = Times::new();
    times.response.record_n(1_000_000, right).unwrap();
    times.service.record_n(900_000, right).unwrap();
    times.lateness.record_n(20_000, right + unanswered).unwrap();
    let seconds = (0..10).map(|second| Second {
        second,
        due: (right + unanswered) / 10,
        sent: (right + unanswered) / 10,
        answered: right / 10,
        unanswered: unanswered / 10,
        response_p50: 1_000_000 + second * 1_000,
        response_p99: 1_500_000 + second * 10_000,
        response_p999: 2_500_000,
        response_max: 5_000_000,
        lateness_p99: 100_000,
        ..Second::default()
    });
    let probe = |at: u32| Probed { at_seconds: f64::from(at) * 5.0, took_seconds: Some(0.001) };
    Run {
        format: FORMAT,
        scenario: "peak hour".into(),
        seed: 7,
        load: Load::Open,
        is_kept_awake: false,
        begun: "2025-06-02T10:00:00Z".into(),
        duration_seconds: 10.0,
        is_ended_early: false,
        tallies: vec![Tallied { kind: Kind::Check, carrier: Carrier::Ecs, tally }],
        kinds: vec![KindTimes { kind: Kind::Check, response: times.response.clone() }],
        times,
        seconds: seconds.collect(),
        connections: Connections::default(),
        wrong_answers: Vec::new(),
        failures: Vec::new(),
        availability: Some(Availability::of(&[0, 1].map(probe).into_iter().collect(), 10.0, &[])),
        audit: None,
        fleet: None,
        faults: Vec::new(),
        target: None,
        terms: Terms::default(),
    }
}

/// One whose response times are these, nanoseconds.
pub fn timed(response: impl IntoIterator<Item = u64>) -> Run {
    let mut times = histogram::new();
    for value in response {
        times.saturating_record(value);
    }
    let mut run = run(times.len(), 0);
    run.kinds = vec![KindTimes { kind: Kind::Check, response: times.clone() }];
    run.times.response = times;
    run
}
