//! One run of several generator processes from theirs.
//!
//! Counts and distributions are added. The percentiles of a second cannot be, so the second has those
//! of the slowest part, which is never too good. All parts must be of one scenario and its terms.

use hdrhistogram::AdditionError;

use crate::run::{Run, WRONG_ANSWERS_MAX};

/// Why runs do not merge.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// They are not parts of one run.
    #[error("the runs differ in their scenario, load, format or terms")]
    Different,
    /// There is none.
    #[error("there is no run")]
    Nothing,
    /// One of them was named twice.
    #[error("the same run was given twice")]
    Repeated,
    /// A time is longer than any that is recorded.
    #[error("a run holds times out of range")]
    Range,
}

/// Merges runs that were made at the same time.
pub fn merge(runs: Vec<Run>) -> Result<Run, MergeError> {
    let is_repeated = |(at, run): (usize, &Run)| {
        // No two processes begin in the same microsecond and see the same, second by second.
        let same = |other: &Run| other.begun == run.begun && other.seconds == run.seconds;
        runs.iter().skip(at + 1).any(same)
    };
    if runs.iter().enumerate().any(is_repeated) {
        return Err(MergeError::Repeated);
    }
    let mut runs = runs.into_iter();
    let mut merged = runs.next().ok_or(MergeError::Nothing)?;
    for run in runs {
        add(&mut merged, run)?;
    }
    Ok(merged)
}

fn add(merged: &mut Run, run: Run) -> Result<(), MergeError> {
    let alike = merged.format == run.format
        && merged.scenario == run.scenario
        && merged.load == run.load
        && merged.terms == run.terms;
    if !alike {
        return Err(MergeError::Different);
    }
    let range = |_: AdditionError| MergeError::Range;
    merged.duration_seconds = merged.duration_seconds.max(run.duration_seconds);
    merged.is_ended_early |= run.is_ended_early;
    merged.is_kept_awake |= run.is_kept_awake;
    if run.begun < merged.begun {
        merged.begun = run.begun.clone();
    }
    for tallied in &run.tallies {
        let same = |known: &&mut crate::run::Tallied| {
            known.kind == tallied.kind && known.carrier == tallied.carrier
        };
        match merged.tallies.iter_mut().find(same) {
            Some(known) => known.tally.add(&tallied.tally),
            None => merged.tallies.push(*tallied),
        }
    }
    merged.tallies.sort_by_key(|tallied| (tallied.kind, tallied.carrier));
    merged.times.add(&run.times).map_err(range)?;
    for kind in &run.kinds {
        match merged.kinds.iter_mut().find(|known| known.kind == kind.kind) {
            Some(known) => known.response.add(&kind.response).map_err(range)?,
            None => merged.kinds.push(kind.clone()),
        }
    }
    merged.kinds.sort_by_key(|kind| kind.kind);
    for second in &run.seconds {
        match merged.seconds.iter_mut().find(|known| known.second == second.second) {
            Some(known) => known.add(second),
            None => merged.seconds.push(second.clone()),
        }
    }
    merged.seconds.sort_by_key(|second| second.second);
    merged.wrong_answers.extend(run.wrong_answers.iter().cloned());
    merged.wrong_answers.truncate(WRONG_ANSWERS_MAX);
    merged.failures.extend(run.failures.iter().cloned());
    add_surroundings(merged, run);
    Ok(())
}

fn add_surroundings(merged: &mut Run, run: Run) {
    merged.connections.add(&run.connections);
    merged.availability = match (merged.availability.take(), run.availability) {
        (Some(one), Some(other)) => Some(one.joined(&other)),
        (one, other) => one.or(other),
    };
    merged.fleet = match (merged.fleet.take(), run.fleet) {
        (Some(mut one), Some(other)) => {
            one.add(&other);
            Some(one)
        }
        (one, other) => one.or(other),
    };
    merged.audit = match (merged.audit, run.audit) {
        (Some(mut one), Some(other)) => {
            one.add(&other);
            Some(one)
        }
        (one, other) => one.or(other),
    };
    merged.faults.extend(run.faults);
    merged.faults.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
    merged.target = merged.target.take().or(run.target);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Audit;
    use crate::fixture;
    use crate::tally::{Carrier, Kind};

    /// The share of a process that was started a little later.
    fn later(right: u64, slow: u64) -> Run {
        Run { begun: "2025-06-02T10:00:01Z".into(), ..fixture::run(right, slow) }
    }

    #[test]
    fn counts_are_added_and_seconds_take_the_slowest() {
        let mut other = fixture::run(1_000, 100);
        other.tallies[0].carrier = Carrier::Social;
        other.seconds[3].response_p99 = 77_000_000;
        other.seconds.push(crate::second::Second { second: 10, due: 4, ..Default::default() });
        other.audit = Some(Audit { acknowledged: 3, lost: 1, ..Audit::default() });
        let merged = merge(vec![fixture::run(2_000, 0), other, later(500, 0)]).unwrap();
        let dues: Vec<u64> = merged.tallies.iter().map(|tallied| tallied.tally.due()).collect();
        assert_eq!(dues, [2_500, 1_100]);
        assert_eq!(merged.times.response.len(), 3_500);
        assert_eq!((merged.kinds.len(), merged.kinds[0].kind), (1, Kind::Check));
        assert_eq!(merged.seconds.len(), 11);
        assert_eq!((merged.seconds[3].due, merged.seconds[3].response_p99), (360, 77_000_000));
        assert_eq!(merged.availability.unwrap().probes, 6);
        assert_eq!(merged.audit.unwrap().lost, 1);
    }

    #[test]
    fn only_parts_of_one_run_merge() {
        assert_eq!(merge(Vec::new()).unwrap_err(), MergeError::Nothing);
        let mut other = later(1, 0);
        other.scenario = "another".into();
        assert_eq!(merge(vec![fixture::run(1, 0), other]).unwrap_err(), MergeError::Different);
    }

    #[test]
    fn a_run_is_not_counted_twice() {
        let runs = vec![fixture::run(1_000, 10), later(1_000, 10), fixture::run(1_000, 10)];
        assert_eq!(merge(runs).unwrap_err(), MergeError::Repeated);
    }

    #[test]
    fn a_merged_run_survives_its_document() {
        let merged = merge(vec![fixture::run(1_000, 10), later(1_000, 10)]).unwrap();
        let text = serde_json::to_string(&merged).unwrap();
        let read: Run = serde_json::from_str(&text).unwrap();
        assert_eq!(read.times.response, merged.times.response);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
