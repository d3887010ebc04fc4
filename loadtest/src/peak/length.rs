//! How long a step must be: every objective needs so many requests of those that it is about, which
//! may be a small part of all.

use crate::binomial;
use crate::objective::{Limit, Objective, Terms, contract, strict};
use crate::recorder::SECONDS_MAX;
use crate::run::Run;
use crate::scenario::Mix;
use crate::tally::{Carrier, Kind};

/// Values wanted beyond a percentile: more than the ten that are needed, as arrivals vary.
const BEYOND: f64 = 15.0;

/// What the length of a step follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Length {
    /// By what steps are judged.
    pub terms: Terms,
    /// No step is shorter, seconds.
    pub least_seconds: f64,
    /// What steps consist of.
    pub mixture: Mixture,
}

impl Length {
    /// How long a step at a rate must be for every limit to be judged, seconds; at most a week.
    pub fn seconds(&self, rate: f64) -> f64 {
        let strict = if self.terms.strict { strict() } else { Vec::new() };
        let contract = contract(self.terms.month_of_service);
        let objectives = contract.iter().chain(&strict).chain(&self.terms.objectives);
        let requests = objectives.map(|objective| {
            let part = self.mixture.part(objective);
            // What is never asked is not judged, however long a step is.
            if part > 0.0 { requests_needed(&objective.limit) / part } else { 0.0 }
        });
        let seconds = requests.fold(0.0, f64::max) / rate;
        seconds.max(self.least_seconds).min(SECONDS_MAX as f64)
    }
}

/// The parts of all requests; a part whose carrier is not known may be of any.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture(Vec<(Kind, Option<Carrier>, f64)>);

impl Mixture {
    /// As a scenario wants it.
    pub fn planned(mix: &Mix) -> Mixture {
        let weights = [
            (Kind::Batch, mix.batch),
            (Kind::Cancel, mix.cancel),
            (Kind::Check, mix.check),
            (Kind::Confirm, mix.confirm),
            (Kind::History, mix.history),
            (Kind::Malformed, mix.malformed),
            (Kind::Repeat, mix.repeat),
            (Kind::Services, mix.services),
        ];
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        Mixture(weights.map(|(kind, weight)| (kind, None, weight / sum)).to_vec())
    }

    /// As it was in a run: there is not always an open check to confirm, and carriers come as the
    /// holders have them.
    pub fn seen(run: &Run) -> Mixture {
        let all: u64 = run.tallies.iter().map(|tallied| tallied.tally.due()).sum();
        let part = |due: u64| due as f64 / all.max(1) as f64;
        let parts = run
            .tallies
            .iter()
            .map(|tallied| (tallied.kind, Some(tallied.carrier), part(tallied.tally.due())));
        Mixture(parts.collect())
    }

    /// The part that an objective is about.
    fn part(&self, objective: &Objective) -> f64 {
        let kind = match objective.limit {
            Limit::Offline { .. } => objective.kind.or(Some(Kind::Check)),
            _ => objective.kind,
        };
        let is_of_it = |(known, carrier, _): &&(Kind, Option<Carrier>, f64)| {
            kind.map_or(*known != Kind::Malformed, |kind| kind == *known)
                && (carrier.is_none() || objective.carrier.is_none_or(|one| *carrier == Some(one)))
        };
        self.0.iter().filter(is_of_it).map(|(_, _, part)| part).sum()
    }
}

/// How many requests a limit needs to be judged.
fn requests_needed(limit: &Limit) -> f64 {
    match *limit {
        Limit::Budget { percent_max, used_percent_max, confidence_percent, .. } => {
            needed(percent_max * used_percent_max / 1e4, confidence_percent)
        }
        Limit::Census { percent_max, .. } | Limit::Offline { percent_max } => {
            needed(percent_max / 100.0, 95.0)
        }
        Limit::Percentile { percentile, .. } => BEYOND / (1.0 - percentile / 100.0),
        Limit::Share { percent_max, confidence_percent, .. } => {
            needed(percent_max / 100.0, confidence_percent)
        }
        Limit::BurnRate { .. } | Limit::Depot { .. } | Limit::Downtime { .. } | Limit::Never(_) => {
            0.0
        }
    }
}

fn needed(limit: f64, confidence_percent: f64) -> f64 {
    // Twice what no failure at all would need, so that some may occur.
    2.0 * binomial::trials_needed(limit, confidence_percent / 100.0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::run::Tallied;
    use crate::tally::Tally;

    fn check(length: &Length, rate: f64, expected: f64) {
        let seconds = length.seconds(rate);
        assert!((seconds / expected - 1.0).abs() < 1e-9, "{seconds} instead of {expected}");
    }

    fn length(mixture: Mixture) -> Length {
        Length { terms: Terms::default(), least_seconds: 0.0, mixture }
    }

    #[test]
    fn a_step_is_long_enough_for_its_limits() {
        // Checks by ecs cards only, of which 3 % needs 99 twice.
        let mut length = length(Mixture::seen(&fixture::run(1_000, 0)));
        check(&length, 198.0, 1.0);
        let limit = Limit::Percentile { percentile: 99.9, ms_max: 1.0 };
        length.terms.objectives = vec![Objective::new("x", limit)];
        check(&length, 1_000.0, 15.0);
        length.least_seconds = 20.0;
        check(&length, 1_000.0, 20.0);
        check(&length, 1e-3, 604_800.0);
    }

    #[test]
    fn a_limit_of_some_requests_needs_as_many_of_those() {
        let mut length = length(Mixture::planned(&Mix::default()));
        // 15 % of all are confirms.
        check(&length, 198.0, 1.0 / 0.15);
        let limit = Limit::Percentile { percentile: 99.0, ms_max: 1.0 };
        let of = |kind| Objective { kind: Some(kind), ..Objective::new("x", limit.clone()) };
        length.terms.objectives = vec![of(Kind::History)];
        check(&length, 1_000.0, 150.0);
        // None is ever sent.
        length.terms.objectives = vec![of(Kind::Batch)];
        check(&length, 198.0, 1.0 / 0.15);
    }

    #[test]
    fn a_limit_of_a_carrier_needs_as_many_by_that() {
        let mut run = fixture::run(9_900, 0);
        let tally = Tally { right: 100, ..Tally::default() };
        run.tallies.push(Tallied { kind: Kind::Check, carrier: Carrier::Social, tally });
        check(&length(Mixture::seen(&run)), 198.0, 100.0);
    }
}
