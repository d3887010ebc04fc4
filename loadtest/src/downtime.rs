//! From the results of a probe to outages and the minutes of downtime (C-42, C-43).
//!
//! The server is down from a probe that fails or takes more than 3 s, if the next one does too, to
//! the next probe that does neither. Planned work does not count if it was announced at least 24
//! hours before it began. Everything is in seconds from the start of the run.

use serde::{Deserialize, Serialize};

use crate::tally::SLOW;

/// How long before planned work begins it must have been announced, seconds (C-42).
pub const NOTICE_SECONDS: f64 = 86_400.0;
/// The month in which percentages of downtime are shown, minutes (C-43).
pub const MONTH_MINUTES: f64 = 43_200.0;
/// Bad probes in a row that make an outage (C-42).
const IN_A_ROW: u64 = 2;
/// Outages that are kept: with a probe every 5 s more than fit into a week.
const OUTAGES_MAX: usize = 1 << 16;

/// One check beside the load.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Probed {
    /// When it began.
    pub at_seconds: f64,
    /// How long it took, if it was answered as it must be.
    pub took_seconds: Option<f64>,
}

impl Probed {
    /// Whether the server was there.
    pub fn is_good(&self) -> bool {
        self.took_seconds.is_some_and(|took| took * 1e9 <= SLOW.0 as f64)
    }
}

/// What probes tell one after the other, without keeping them: a calm month takes no more memory than
/// a calm minute. After the last outage that it keeps it looks no more, and says since when.
#[derive(Clone, Debug, Default)]
pub struct Lookout {
    probes: u64,
    failed: u64,
    slow: u64,
    /// From and to, of those that are over.
    outages: Vec<(f64, f64)>,
    /// The first bad probe since the last good one, and how many.
    bad: Option<(f64, u64)>,
    closed_seconds: Option<f64>,
}

impl Lookout {
    /// The next probe.
    pub fn saw(&mut self, probe: Probed) {
        if self.closed_seconds.is_some() {
            return;
        }
        self.probes += 1;
        if !probe.is_good() {
            let (from, in_a_row) = self.bad.unwrap_or((probe.at_seconds, 0));
            self.bad = Some((from, in_a_row + 1));
            *if probe.took_seconds.is_none() { &mut self.failed } else { &mut self.slow } += 1;
        } else if let Some((from, IN_A_ROW..)) = self.bad.take() {
            self.outages.push((from, probe.at_seconds.max(from)));
            if self.outages.len() >= OUTAGES_MAX {
                self.closed_seconds = Some(probe.at_seconds);
            }
        }
    }

    /// From and to, of those that are over and of one that lasts until `end_seconds`.
    fn outages(&self, end_seconds: f64) -> impl Iterator<Item = (f64, f64)> {
        let last = self.bad.filter(|(_, in_a_row)| *in_a_row >= IN_A_ROW);
        let last = last.map(|(from, _)| (from, end_seconds.max(from)));
        self.outages.iter().copied().chain(last)
    }
}

impl FromIterator<Probed> for Lookout {
    fn from_iter<I: IntoIterator<Item = Probed>>(probes: I) -> Lookout {
        let mut lookout = Lookout::default();
        probes.into_iter().for_each(|probe| lookout.saw(probe));
        lookout
    }
}

/// A window of planned work.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Planned {
    /// When it was announced; mostly before the run, so below 0.
    pub announced_seconds: f64,
    /// When it begins.
    pub from_seconds: f64,
    /// When it ends.
    pub to_seconds: f64,
}

impl Planned {
    /// Whether it was announced early enough to be excluded.
    pub fn is_announced(&self) -> bool {
        self.from_seconds - self.announced_seconds >= NOTICE_SECONDS
    }
}

/// A time in which the server was not there.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outage {
    /// The first bad probe.
    pub from_seconds: f64,
    /// The next good one, or the end.
    pub to_seconds: f64,
    /// What of it was planned.
    pub planned_seconds: f64,
}

impl Outage {
    /// What of it counts.
    pub fn downtime_seconds(&self) -> f64 {
        self.to_seconds - self.from_seconds - self.planned_seconds
    }
}

/// What a caller beside the load saw.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Availability {
    /// How long it looked.
    pub observed_seconds: f64,
    /// Whether it stopped before the end, because there were too many outages to keep.
    #[serde(default)]
    pub is_cut: bool,
    /// How many probes it sent.
    pub probes: u64,
    /// Those that were not answered as they must be.
    pub failed: u64,
    /// Those that took more than 3 s.
    pub slow: u64,
    /// When the server was not there, in order.
    pub outages: Vec<Outage>,
    /// Planned work, announced in time or not.
    pub planned: Vec<Planned>,
}

impl Availability {
    /// Of a run that ended at `end_seconds`.
    pub fn of(lookout: &Lookout, end_seconds: f64, planned: &[Planned]) -> Availability {
        Availability {
            observed_seconds: lookout.closed_seconds.unwrap_or(end_seconds),
            is_cut: lookout.closed_seconds.is_some(),
            probes: lookout.probes,
            failed: lookout.failed,
            slow: lookout.slow,
            outages: lookout
                .outages(end_seconds)
                .map(|(from, to)| outage(from, to, planned))
                .collect(),
            planned: planned.to_vec(),
        }
    }

    /// What two callers saw in the same run: the server was not there when one of them says so.
    pub fn joined(&self, other: &Availability) -> Availability {
        let mut planned = self.planned.clone();
        planned.extend(other.planned.iter().filter(|window| !self.planned.contains(window)));
        let all = self.outages.iter().chain(&other.outages);
        let spans = all.map(|outage| (outage.from_seconds, outage.to_seconds)).collect();
        Availability {
            observed_seconds: self.observed_seconds.max(other.observed_seconds),
            is_cut: self.is_cut || other.is_cut,
            probes: self.probes + other.probes,
            failed: self.failed + other.failed,
            slow: self.slow + other.slow,
            outages: union(spans)
                .into_iter()
                .map(|(from, to)| outage(from, to, &planned))
                .collect(),
            planned,
        }
    }

    /// The minutes of unplanned downtime.
    pub fn downtime_minutes(&self) -> f64 {
        self.outages.iter().fold(0.0, |sum, outage| sum + outage.downtime_seconds()) / 60.0
    }

    /// The minutes of planned downtime.
    pub fn planned_minutes(&self) -> f64 {
        self.outages.iter().fold(0.0, |sum, outage| sum + outage.planned_seconds) / 60.0
    }
}

/// Minutes as a percentage of a month of 30 days, to be shown beside them (C-43).
pub fn percent_of_month(minutes: f64) -> f64 {
    minutes / MONTH_MINUTES * 100.0
}

fn outage(from: f64, to: f64, planned: &[Planned]) -> Outage {
    let excluded = planned.iter().filter(|window| window.is_announced()).filter_map(|window| {
        let (from, to) = (window.from_seconds.max(from), window.to_seconds.min(to));
        (from < to).then_some((from, to))
    });
    let excluded = union(excluded.collect());
    let planned_seconds = excluded.iter().fold(0.0, |sum, (from, to)| sum + (to - from));
    Outage { from_seconds: from, to_seconds: to, planned_seconds }
}

fn union(mut spans: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    spans.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut union: Vec<(f64, f64)> = Vec::new();
    for (from, to) in spans {
        match union.last_mut().filter(|last| from <= last.1) {
            Some(last) => last.1 = last.1.max(to),
            None => union.push((from, to)),
        }
    }
    union
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes every 5 s: `.` good, `x` failed, `s` slow.
    fn probes(pattern: &str) -> Lookout {
        let took = |mark| match mark {
            '.' => Some(3.0),
            's' => Some(3.001),
            _ => None,
        };
        let probe = |(at, mark)| Probed { at_seconds: at as f64 * 5.0, took_seconds: took(mark) };
        pattern.chars().enumerate().map(probe).collect()
    }

    fn check(pattern: &str, expected: &[(f64, f64)]) {
        let seen = Availability::of(&probes(pattern), pattern.len() as f64 * 5.0, &[]);
        let spans: Vec<_> =
            seen.outages.iter().map(|outage| (outage.from_seconds, outage.to_seconds)).collect();
        assert_eq!(spans, expected, "{pattern}");
    }

    #[test]
    fn two_bad_probes_in_a_row_are_an_outage() {
        check("....", &[]);
        check(".x.s.", &[]);
        check(".xx..", &[(5.0, 15.0)]);
        check(".sx.xs", &[(5.0, 15.0), (20.0, 30.0)]);
        check("xx", &[(0.0, 10.0)]);
        check("x", &[]);
        check("", &[]);
    }

    #[test]
    fn more_outages_than_are_kept_end_the_time_that_was_watched() {
        let flapping = "xx.".repeat(OUTAGES_MAX);
        let watch = |pattern: &str| {
            let end = pattern.len() as f64 * 5.0;
            let seen = Availability::of(&probes(pattern), end, &[]);
            (seen.outages.len(), seen.is_cut, end - seen.observed_seconds)
        };
        assert_eq!(watch(&flapping[..flapping.len() - 3]), (OUTAGES_MAX - 1, false, 0.0));
        assert_eq!(watch(&flapping), (OUTAGES_MAX, true, 5.0));
        assert_eq!(watch(&format!("{flapping}xx..")), (OUTAGES_MAX, true, 25.0));
    }

    fn planned(notice_hours: f64, from: f64, to: f64) -> Planned {
        let announced_seconds = from - notice_hours * 3600.0;
        Planned { announced_seconds, from_seconds: from, to_seconds: to }
    }

    #[test]
    fn work_announced_a_day_before_is_excluded() {
        let minutes = |windows: &[Planned]| {
            let seen = Availability::of(&probes(&"x".repeat(24)), 120.0, windows);
            (seen.downtime_minutes(), seen.planned_minutes())
        };
        assert_eq!(minutes(&[]), (2.0, 0.0));
        assert_eq!(minutes(&[planned(24.0, 0.0, 120.0)]), (0.0, 2.0));
        assert_eq!(minutes(&[planned(23.0, 0.0, 120.0)]), (2.0, 0.0));
        assert_eq!(minutes(&[planned(24.0, 60.0, 600.0)]), (1.0, 1.0));
        // Windows that overlap are not excluded twice.
        assert_eq!(minutes(&[planned(30.0, 0.0, 60.0), planned(48.0, 30.0, 90.0)]), (0.5, 1.5));
    }

    #[test]
    fn two_callers_join_what_they_saw() {
        let one = Availability::of(&probes(".xx..."), 30.0, &[]);
        let other = Availability::of(&probes("..xx.."), 30.0, &[]);
        let joined = one.joined(&other);
        assert_eq!((joined.probes, joined.failed, joined.outages.len()), (12, 4, 1));
        assert_eq!(joined.downtime_minutes(), 0.25);
    }

    #[test]
    fn the_limits_are_percentages_of_thirty_days() {
        assert_eq!((percent_of_month(432.0), percent_of_month(1296.0)), (1.0, 3.0));
    }
}
