//! The highest rate at which all objectives hold.
//!
//! The rate is doubled until something is missed, then halved into the gap between the highest rate
//! that held and the lowest that did not. What was found is run once more: a server near its limit
//! holds by luck, and then the search goes on below. A step without a verdict counts as one that did
//! not hold, and says so: the generator may be the limit; but one that turns out to have been too
//! short for its limits is made again, longer; and where the first ones have none at all, the search
//! ends, for a machine that keeps no schedule keeps none at lower rates either. Where a rate held above
//! one that did not, the peak is below the lowest that did not, since load passes every rate on its way
//! up.

use crate::histogram::percentile;
use crate::peak::length::{Length, Mixture};
use crate::run::Run;
use crate::tally::Tally;
use crate::verdict::{Outcome, judge, time};

pub mod length;

/// How often a step that was too short is made again.
const REPEATS_MAX: u32 = 2;
/// How many times longer a step had to be for it to be made again: what is wanted is more than what is
/// needed, and no two runs are the same.
const SHORT: f64 = 1.25;
/// After so many steps without any verdict there will be none.
const UNTOLD_MAX: usize = 4;
/// How often a peak is confirmed.
const CONFIRMATIONS_MAX: u32 = 3;
const NS_PER_MS: f64 = 1e6;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The first rate, a second.
    pub first: f64,
    /// No rate below.
    pub least: f64,
    /// No rate above.
    pub most: f64,
    /// How near the peak must be known, percent.
    pub precision_percent: f64,
    /// The most steps.
    pub steps_max: u32,
}

/// A run that is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// How long it is, seconds.
    pub seconds: f64,
}

/// A rate that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Requests a second.
    pub rate: f64,
    /// The verdict.
    pub outcome: Outcome,
    /// Response times, nanoseconds.
    pub p50: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// Not answered or after more than 3 s, percent.
    pub missed_percent: f64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// The highest rate that held with none below it that did not.
    pub rate: Option<f64>,
    /// The lowest rate that did not hold; none where the highest allowed one held.
    pub missed_at: Option<f64>,
    /// Whether it held twice.
    pub is_confirmed: bool,
    /// All steps as they were made.
    pub steps: Vec<Step>,
}

impl Peak {
    /// What the process ends with: 0 a rate held, 1 none did, 3 none did and none was missed.
    pub fn exit_code(&self) -> u8 {
        let is_missed = |step: &Step| step.outcome == Outcome::Fail;
        match (self.rate, self.steps.iter().any(is_missed)) {
            (Some(_), _) => 0,
            (None, true) => 1,
            (None, false) => 3,
        }
    }
}

/// Searches; `run` makes a run.
pub fn find<E>(
    search: &Search,
    mut length: Length,
    mut run: impl FnMut(Trial) -> Result<Run, E>,
) -> Result<Peak, E> {
    let mut steps: Vec<Step> = Vec::new();
    let mut confirmations = 0;
    let mut rate = search.first.clamp(search.least, search.most);
    while steps.len() < search.steps_max as usize {
        steps.push(step(rate, &mut length, &mut run)?);
        if steps.len() == UNTOLD_MAX && steps.iter().all(is_untold) {
            break;
        }
        rate = match next(search, &steps) {
            Some(next) => next,
            None => match highest(&steps) {
                Some(held) if !is_confirmed(&steps, held) && confirmations < CONFIRMATIONS_MAX => {
                    confirmations += 1;
                    held
                }
                _ => break,
            },
        };
    }
    let rate = highest(&steps);
    Ok(Peak {
        rate,
        missed_at: lowest_missed(&steps),
        is_confirmed: rate.is_some_and(|rate| is_confirmed(&steps, rate)),
        steps,
    })
}

/// The curve for a terminal, by rate.
pub fn table(peak: &Peak) -> String {
    let mut text = format!(
        "{:>10}{:>12}{:>12}{:>12}{:>10}  outcome\n",
        "rate/s", "p50", "p99", "p99.9", "missed"
    );
    let mut steps: Vec<&Step> = peak.steps.iter().collect();
    steps.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let shown = |value: Option<u64>| value.map_or("-".into(), |ns| time(ns as f64 / NS_PER_MS));
    for step in steps {
        text.push_str(&format!(
            "{:>10.0}{:>12}{:>12}{:>12}{:>9.3}%  {}\n",
            step.rate,
            shown(step.p50),
            shown(step.p99),
            shown(step.p999),
            step.missed_percent,
            step.outcome.text(),
        ));
    }
    text.push_str(&match (peak.rate, peak.missed_at) {
        (Some(rate), None) => format!("peak: at least {rate:.0}/s, the highest rate tried\n"),
        (Some(rate), Some(missed)) => {
            let how = if peak.is_confirmed { "held twice" } else { "held once" };
            format!("peak: {rate:.0}/s ({how}); not held at {missed:.0}/s\n")
        }
        (None, _) => "peak: no rate held\n".into(),
    });
    text
}

impl Step {
    fn of(rate: f64, run: &Run) -> Step {
        let mut all = Tally::default();
        for tallied in &run.tallies {
            all.add(&tallied.tally);
        }
        let times = &run.times.response;
        Step {
            rate,
            outcome: judge(run).outcome,
            p50: percentile(times, 50.0),
            p99: percentile(times, 99.0),
            p999: percentile(times, 99.9),
            missed_percent: all.slow_or_unanswered() as f64 / all.due().max(1) as f64 * 100.0,
        }
    }
}

/// Makes a run at a rate, as long as those before it say that it must be, and again where it says
/// itself that it was too short.
fn step<E>(
    rate: f64,
    length: &mut Length,
    run: &mut impl FnMut(Trial) -> Result<Run, E>,
) -> Result<Step, E> {
    let mut repeats = 0;
    loop {
        let seconds = length.seconds(rate);
        let made = run(Trial { rate, seconds })?;
        length.mixture = Mixture::seen(&made);
        let step = Step::of(rate, &made);
        let is_short = is_untold(&step) && length.seconds(rate) > seconds * SHORT;
        if !is_short || repeats == REPEATS_MAX {
            return Ok(step);
        }
        repeats += 1;
    }
}

/// The next rate to try; none when the peak is known as nearly as it must be.
fn next(search: &Search, steps: &[Step]) -> Option<f64> {
    match (highest(steps), lowest_missed(steps)) {
        (Some(held), None) => (held < search.most).then(|| (held * 2.0).min(search.most)),
        (None, Some(missed)) => (missed > search.least).then(|| (missed / 2.0).max(search.least)),
        (Some(held), Some(missed)) => {
            let near = (missed - held) / held * 100.0 <= search.precision_percent;
            (!near).then(|| f64::midpoint(held, missed))
        }
        (None, None) => None,
    }
}

fn lowest_missed(steps: &[Step]) -> Option<f64> {
    let missed = steps.iter().filter(|step| step.outcome != Outcome::Pass);
    missed.map(|step| step.rate).reduce(f64::min)
}

/// The highest rate that held, below all that did not.
fn highest(steps: &[Step]) -> Option<f64> {
    let limit = lowest_missed(steps).unwrap_or(f64::INFINITY);
    let held = steps.iter().filter(|step| step.outcome == Outcome::Pass && step.rate < limit);
    held.map(|step| step.rate).reduce(f64::max)
}

fn is_untold(step: &Step) -> bool {
    step.outcome == Outcome::NotEnoughData
}

fn is_confirmed(steps: &[Step], rate: f64) -> bool {
    steps.iter().filter(|step| step.rate == rate).count() > 1
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::fixture;
    use crate::objective::Terms;
    use crate::run::Tallied;
    use crate::tally::{Carrier, Kind, Tally};

    const SEARCH: Search = Search {
        first: 1_000.0,
        least: 10.0,
        most: 1_000_000.0,
        precision_percent: 5.0,
        steps_max: 40,
    };

    fn length() -> Length {
        let mixture = Mixture::seen(&fixture::run(1, 0));
        Length { terms: Terms::default(), least_seconds: 1.0, mixture }
    }

    fn search(holds: impl Fn(f64, u32) -> bool) -> Peak {
        let mut count = 0;
        let found = find(&SEARCH, length(), |Trial { rate, .. }| {
            count += 1;
            let missed = if holds(rate, count) { 0 } else { 1_000 };
            Ok::<_, Infallible>(fixture::run(10_000 - missed, missed))
        });
        let Ok(peak) = found;
        peak
    }

    #[test]
    fn a_server_with_a_limit_is_found_from_both_sides() {
        for limit in [37.0, 999.0, 1_000.0, 23_456.0, 700_000.0] {
            let peak = search(|rate, _| rate <= limit);
            let rate = peak.rate.unwrap();
            assert!(rate <= limit && rate >= limit / 1.05, "{limit}: {rate}");
            assert!(peak.is_confirmed && peak.steps.len() <= 25, "{}", peak.steps.len());
        }
    }

    #[test]
    fn no_rate_and_every_rate_are_answers() {
        let none = search(|_, _| false);
        assert_eq!((none.rate, none.missed_at, none.exit_code()), (None, Some(10.0), 1));
        let all = search(|_, _| true);
        assert_eq!((all.rate, all.missed_at, all.exit_code()), (Some(1_000_000.0), None, 0));
        assert!(table(&all).contains("at least 1000000/s"));
    }

    #[test]
    fn a_peak_that_held_by_luck_is_left() {
        // At 8,000 and below it always holds; up to 12,000 only the first time.
        let seen = std::cell::RefCell::new(Vec::new());
        let peak = search(|rate, _| {
            let again = seen.borrow().contains(&rate.to_bits());
            seen.borrow_mut().push(rate.to_bits());
            rate <= 8_000.0 || (rate <= 12_000.0 && !again)
        });
        let rate = peak.rate.unwrap();
        assert!(peak.missed_at.unwrap() <= 12_000.0 && rate < 12_000.0, "{rate}");
        // The lowest miss bounds it.
        assert!(peak.steps.iter().all(|step| step.outcome == Outcome::Pass || step.rate > rate));
    }

    #[test]
    fn a_gap_below_a_rate_that_held_bounds_the_peak() {
        let peak = search(|rate, _| rate < 60_000.0 && !(3_000.0..4_500.0).contains(&rate));
        let rate = peak.rate.unwrap();
        assert!(rate < 3_000.0, "{rate}");
    }

    #[test]
    fn steps_are_limited() {
        let mut count = 0;
        let narrow = Search { precision_percent: 0.0, steps_max: 7, ..SEARCH };
        let found = find(&narrow, length(), |Trial { rate, .. }| {
            count += 1;
            Ok::<_, Infallible>(fixture::run(if rate < 1_234.5 { 10_000 } else { 0 }, 0))
        });
        let Ok(peak) = found;
        assert_eq!((count, peak.steps.len()), (7, 7));
    }

    /// A machine that was too busy for any verdict once had the search halve the rate for an hour.
    #[test]
    fn a_machine_that_tells_nothing_is_given_up() {
        let found = find(&SEARCH, length(), |_| Ok::<_, Infallible>(fixture::run(0, 0)));
        let Ok(peak) = found;
        assert_eq!((peak.rate, peak.steps.len(), peak.exit_code()), (None, UNTOLD_MAX, 3));
    }

    /// Once steps were sized by all requests, so a limit of a rare kind never had enough of them and
    /// no rate held.
    #[test]
    fn a_step_that_was_too_short_for_a_rare_carrier_is_made_again() {
        let once = Search { first: 1_000.0, most: 1_000.0, ..SEARCH };
        let mut trials = Vec::new();
        let found = find(&once, length(), |trial| {
            trials.push(trial.seconds);
            let requests = (trial.rate * trial.seconds) as u64;
            let rare = requests / 100;
            let mut run = fixture::run(requests - rare, 0);
            let tally = Tally { right: rare, ..Tally::default() };
            run.tallies.push(Tallied { kind: Kind::Check, carrier: Carrier::Social, tally });
            Ok::<_, Infallible>(run)
        });
        let Ok(peak) = found;
        assert_eq!((peak.rate, peak.is_confirmed), (Some(1_000.0), true));
        // 198 of one in a hundred, at 1,000 a second; a length is kept for the next step.
        let [first, again, confirming] = trials[..] else { panic!("{trials:?}") };
        assert_eq!(first, 1.0);
        assert!((again - 19.8).abs() < 1e-6 && (confirming - 19.8).abs() < 0.1, "{trials:?}");
    }

    #[test]
    fn a_step_that_never_has_enough_is_not_made_for_ever() {
        let once = Search { first: 1_000.0, least: 1_000.0, most: 1_000.0, ..SEARCH };
        let mut count = 0;
        let found = find(&once, length(), |_| {
            count += 1;
            // Ever rarer.
            let mut run = fixture::run(10_u64.pow(4 + count), 0);
            let tally = Tally { right: 1, ..Tally::default() };
            run.tallies.push(Tallied { kind: Kind::Check, carrier: Carrier::Social, tally });
            Ok::<_, Infallible>(run)
        });
        let Ok(peak) = found;
        assert_eq!((peak.rate, peak.steps.len(), count, peak.exit_code()), (None, 1, 3, 3));
    }
}
