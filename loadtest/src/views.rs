//! The share of slow or unanswered requests in windows of 5 minutes, an hour and a day (C-42).
//!
//! The contract counts by the calendar month, in which a bad hour may hide; these show it. They hold
//! requests of every kind, and decide nothing.

use serde::{Deserialize, Serialize};

use crate::burn::running_sums;
use crate::second::Second;

/// How long the windows are, minutes.
pub const WINDOWS_MINUTES: [u64; 3] = [5, 60, 1_440];

/// The worst window of one length.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct View {
    /// The length, minutes.
    pub minutes: u64,
    /// Where it begins, seconds from the start of the run.
    pub from_second: u64,
    /// How much of it the run filled, seconds.
    pub seconds: u64,
    /// Requests that ended in it, slow or not answered.
    pub failures: u64,
    /// Requests that were due in it.
    pub all: u64,
}

impl View {
    /// The length as people say it.
    pub fn name(&self) -> String {
        if self.minutes.is_multiple_of(60) {
            format!("{} h", self.minutes / 60)
        } else {
            format!("{} min", self.minutes)
        }
    }

    /// Whether the run was shorter.
    pub fn is_partial(&self) -> bool {
        self.seconds < self.minutes * 60
    }

    fn share(&self) -> f64 {
        if self.all == 0 { 0.0 } else { self.failures as f64 / self.all as f64 }
    }
}

/// The worst window of each length; of a shorter run the run itself, as far as it goes.
pub fn of(seconds: &[Second]) -> Vec<View> {
    let sums = running_sums(seconds);
    WINDOWS_MINUTES.into_iter().filter_map(|minutes| worst(seconds, &sums, minutes)).collect()
}

fn worst(seconds: &[Second], sums: &[(u64, u64)], minutes: u64) -> Option<View> {
    let length = usize::try_from(minutes * 60).ok()?.min(seconds.len());
    let ends = sums.iter().skip(length);
    let windows = seconds.iter().zip(sums.iter().zip(ends)).map(|(first, (from, to))| View {
        minutes,
        from_second: first.second,
        seconds: length as u64,
        failures: to.0 - from.0,
        all: to.1 - from.1,
    });
    windows.reduce(|worst, next| if next.share() > worst.share() { next } else { worst })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(unanswered: impl Fn(u64) -> u64, count: u64) -> Vec<Second> {
        let second = |at| Second {
            second: at + 10,
            due: 100,
            unanswered: unanswered(at),
            ..Second::default()
        };
        (0..count).map(second).collect()
    }

    fn check(run: &[Second], expected: [(&str, u64, u64, u64, bool); 3]) {
        let views = of(run);
        let seen: Vec<_> = views
            .iter()
            .map(|view| (view.from_second, view.failures, view.all, view.is_partial()))
            .collect();
        let names: Vec<String> = views.iter().map(View::name).collect();
        assert_eq!(names, expected.map(|(name, ..)| name));
        assert_eq!(
            seen,
            expected.map(|(_, from, failures, all, part)| (from, failures, all, part))
        );
    }

    #[test]
    fn the_worst_window_of_each_length_is_found() {
        // Ten bad minutes from the second hour on.
        let run = seconds(|at| if (7_200..7_800).contains(&at) { 50 } else { 0 }, 4 * 3_600);
        check(
            &run,
            [
                ("5 min", 7_210, 15_000, 30_000, false),
                ("1 h", 4_210, 30_000, 360_000, false),
                ("24 h", 10, 30_000, 1_440_000, true),
            ],
        );
    }

    #[test]
    fn a_short_run_is_shown_as_far_as_it_goes() {
        let run = seconds(|at| at % 2, 60);
        check(
            &run,
            [
                ("5 min", 10, 30, 6_000, true),
                ("1 h", 10, 30, 6_000, true),
                ("24 h", 10, 30, 6_000, true),
            ],
        );
        assert_eq!(of(&[]), []);
    }
}
