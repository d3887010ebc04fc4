//! How fast an error budget is used up: 1 is the rate at which it lasts exactly its month.

use crate::second::Second;

/// A rate above which somebody must act, when it holds in both windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarm {
    /// How many times too fast.
    pub rate: f64,
    /// The long window, minutes.
    pub long_minutes: u64,
    /// The short window, minutes: it ends the alarm soon after the cause.
    pub short_minutes: u64,
    /// Whether a person is woken; otherwise a ticket is written.
    pub pages: bool,
}

/// The usual four: 2 %, 5 %, 10 % and 10 % of the budget in the long window.
pub const ALARMS: [Alarm; 4] = [
    Alarm { rate: 14.4, long_minutes: 60, short_minutes: 5, pages: true },
    Alarm { rate: 6.0, long_minutes: 360, short_minutes: 30, pages: true },
    Alarm { rate: 3.0, long_minutes: 1_440, short_minutes: 120, pages: false },
    Alarm { rate: 1.0, long_minutes: 4_320, short_minutes: 360, pages: false },
];

/// The burn rate of a share of failures against the share that is allowed.
pub fn rate(failures: u64, all: u64, allowed: f64) -> f64 {
    if all == 0 { 0.0 } else { failures as f64 / all as f64 / allowed }
}

/// The highest rate that held in a long and a short window at once, or nothing where no long window
/// fits into the run.
pub fn highest(
    seconds: &[Second],
    long_minutes: u64,
    short_minutes: u64,
    allowed: f64,
) -> Option<f64> {
    let length = |minutes: u64| usize::try_from(minutes.saturating_mul(60)).ok();
    let (long, short) = (length(long_minutes)?, length(short_minutes)?);
    if long == 0 || short == 0 || short > long || seconds.len() < long {
        return None;
    }
    let sums = running_sums(seconds);
    let window = |end: usize, length: usize| {
        let (from, to) = (sums.get(end - length)?, sums.get(end)?);
        Some(rate(to.0 - from.0, to.1 - from.1, allowed))
    };
    let ends = long..=seconds.len();
    ends.filter_map(|end| Some(window(end, long)?.min(window(end, short)?))).reduce(f64::max)
}

/// Running sums of what was slow or not answered and of all that was due, one longer than the run.
pub fn running_sums(seconds: &[Second]) -> Vec<(u64, u64)> {
    let sums = seconds.iter().scan((0, 0), |(failures, all), second| {
        *failures += second.slow + second.unanswered + second.refused;
        *all += second.due;
        Some((*failures, *all))
    });
    std::iter::once((0, 0)).chain(sums).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(failures: impl Fn(u64) -> u64, count: u64) -> Vec<Second> {
        let second =
            |second| Second { second, due: 100, unanswered: failures(second), ..Second::default() };
        (0..count).map(second).collect()
    }

    #[test]
    fn a_window_longer_than_the_run_says_nothing() {
        assert_eq!(highest(&seconds(|_| 100, 3_599), 60, 5, 0.03), None);
        assert!(highest(&seconds(|_| 100, 3_600), 60, 5, 0.03).is_some());
    }

    #[test]
    fn a_steady_share_burns_at_its_multiple() {
        let rate = highest(&seconds(|_| 6, 4_000), 60, 5, 0.03).unwrap();
        assert!((rate - 2.0).abs() < 1e-9);
        assert_eq!(super::rate(3, 100, 0.03), 1.0);
        assert_eq!(super::rate(0, 0, 0.03), 0.0);
    }

    #[test]
    fn both_windows_must_burn() {
        // Ten bad minutes at the beginning: the short window has forgotten them at the first end of a
        // long one.
        let early = seconds(|second| if second < 600 { 100 } else { 0 }, 7_200);
        assert_eq!(highest(&early, 60, 5, 0.03), Some(0.0));
        let late = seconds(|second| if second >= 6_600 { 100 } else { 0 }, 7_200);
        let rate = highest(&late, 60, 5, 0.03).unwrap();
        assert!((rate - 1.0 / 6.0 / 0.03).abs() < 1e-9);
    }
}
