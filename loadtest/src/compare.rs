//! Whether two runs differ by more than noise.
//!
//! # Method
//! Seconds of one run are alike because they follow each other, so they are first taken together in
//! blocks of [`BLOCK_SECONDS`], each standing for the median of its untainted seconds. The blocks of
//! the two runs are compared by the rank test of Mann and Whitney (normal approximation with the
//! correction for ties), which asks nothing of the distribution; the size of the difference is the
//! median of all pairwise differences (Hodges and Lehmann) in percent of the first run's median. A
//! difference counts when chance would bring it less than once in a hundred times and it is at least
//! [`SHIFT_PERCENT_MIN`]; with fewer than [`BLOCKS_MIN`] blocks nothing is said. Shares of requests
//! that were not successful differ when their exact 99 % bounds do not overlap.
//! Two runs cannot show what differs from one start of a server to the next; compare several.

use crate::binomial;
use crate::run::Run;
use crate::second::Second;
use crate::tally::{Kind, Tally};
use crate::verdict::time;

/// Seconds that are taken together.
pub const BLOCK_SECONDS: u64 = 5;
/// Blocks of each run that are needed.
pub const BLOCKS_MIN: usize = 8;
/// The least difference that counts, percent.
pub const SHIFT_PERCENT_MIN: f64 = 2.0;
/// Beyond it, on either side, lies one hundredth of the normal distribution.
const SIGNIFICANT: f64 = 2.576;
const CONFIDENCE: f64 = 0.995;
/// Blocks of each run that are compared; of longer runs only every so many.
const BLOCKS_MAX: usize = 1_000;
const NS_PER_MS: f64 = 1e6;

type Figure = fn(&Second) -> u64;

/// What is said of a figure of the second run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference {
    /// Better by more than noise.
    Better,
    /// Too few seconds or requests.
    NotEnoughData,
    /// No more than noise.
    Noise,
    /// Worse by more than noise.
    Worse,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Which.
    pub name: &'static str,
    /// In the first run.
    pub first: String,
    /// In the second.
    pub second: String,
    /// How much the second is above the first, percent of the first.
    pub shift_percent: Option<f64>,
    /// What that means.
    pub difference: Difference,
}

/// Compares the second run with the first.
pub fn compare(first: &Run, second: &Run) -> Vec<Compared> {
    let figures: [(&'static str, Figure); 4] = [
        ("p50", |row| row.response_p50),
        ("p99", |row| row.response_p99),
        ("p99.9", |row| row.response_p999),
        ("longest", |row| row.response_max),
    ];
    let mut compared: Vec<Compared> = figures
        .into_iter()
        .map(|(name, figure)| times(name, blocks(first, figure), blocks(second, figure)))
        .collect();
    let missed: fn(&Tally) -> u64 = Tally::slow_or_unanswered;
    compared.push(shares("slow or unanswered", count(first, missed), count(second, missed)));
    let wrong: fn(&Tally) -> u64 = |tally| tally.wrong;
    compared.push(shares("wrong answers", count(first, wrong), count(second, wrong)));
    compared
}

/// The comparison for a terminal.
pub fn table(compared: &[Compared]) -> String {
    let mut text = format!(
        "{:20}{:>24}{:>24}{:>12}  {}\n",
        "per block of 5 s", "first", "second", "shift", "meaning"
    );
    for one in compared {
        let shift = one.shift_percent.map_or("-".into(), |shift| format!("{shift:+.1} %"));
        let meaning = match one.difference {
            Difference::Better => "better",
            Difference::NotEnoughData => "not enough data",
            Difference::Noise => "no more than noise",
            Difference::Worse => "worse",
        };
        text.push_str(&format!(
            "{:20}{:>24}{:>24}{shift:>12}  {meaning}\n",
            one.name, one.first, one.second
        ));
    }
    text
}

fn times(name: &'static str, first: Vec<f64>, second: Vec<f64>) -> Compared {
    let medians = (median(first.clone()), median(second.clone()));
    let text = |median: Option<f64>| median.map_or("-".into(), |ns| time(ns / NS_PER_MS));
    let enough = first.len() >= BLOCKS_MIN && second.len() >= BLOCKS_MIN;
    let shift_percent = match medians.0 {
        Some(middle) if enough && middle > 0.0 => {
            shift(&first, &second).map(|shift| shift / middle * 100.0)
        }
        _ => None,
    };
    let difference = match shift_percent {
        None => Difference::NotEnoughData,
        Some(shift) if shift.abs() < SHIFT_PERCENT_MIN => Difference::Noise,
        Some(_) if rank_score(&first, &second).abs() < SIGNIFICANT => Difference::Noise,
        Some(shift) if shift > 0.0 => Difference::Worse,
        Some(_) => Difference::Better,
    };
    Compared { name, first: text(medians.0), second: text(medians.1), shift_percent, difference }
}

fn shares(name: &'static str, first: (u64, u64), second: (u64, u64)) -> Compared {
    let bounds = |(failures, all)| {
        let lower = binomial::lower(failures, all, CONFIDENCE);
        (lower, binomial::upper(failures, all, CONFIDENCE))
    };
    let share = |(failures, all): (u64, u64)| failures as f64 / all.max(1) as f64;
    let (one, other) = (bounds(first), bounds(second));
    let difference = if first.1 == 0 || second.1 == 0 {
        Difference::NotEnoughData
    } else if other.0 > one.1 {
        Difference::Worse
    } else if other.1 < one.0 {
        Difference::Better
    } else {
        Difference::Noise
    };
    let text = |count: (u64, u64)| format!("{:.4} % of {}", share(count) * 100.0, count.1);
    let shift_percent =
        (first.0 > 0).then(|| (share(second) - share(first)) / share(first) * 100.0);
    Compared { name, first: text(first), second: text(second), shift_percent, difference }
}

fn count(run: &Run, figure: fn(&Tally) -> u64) -> (u64, u64) {
    let tallies = || run.tallies.iter().filter(|tallied| tallied.kind != Kind::Malformed);
    let failures = tallies().map(|tallied| figure(&tallied.tally)).sum();
    (failures, tallies().map(|tallied| tallied.tally.due()).sum())
}

/// The medians of whole blocks.
fn blocks(run: &Run, figure: Figure) -> Vec<f64> {
    let sound: Vec<&Second> =
        run.seconds.iter().filter(|row| !row.is_tainted() && row.answered > 0).collect();
    let same =
        |one: &&Second, next: &&Second| one.second / BLOCK_SECONDS == next.second / BLOCK_SECONDS;
    let blocks: Vec<f64> = sound
        .chunk_by(same)
        .filter(|block| block.len() as u64 * 2 > BLOCK_SECONDS)
        .filter_map(|block| median(block.iter().map(|row| figure(row) as f64).collect()))
        .collect();
    let every = blocks.len().div_ceil(BLOCKS_MAX).max(1);
    blocks.into_iter().step_by(every).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, upper))
}

/// How far the second lies above the first: the median of all differences of pairs.
fn shift(first: &[f64], second: &[f64]) -> Option<f64> {
    let pairs = second.iter().flat_map(|later| first.iter().map(move |early| later - early));
    median(pairs.collect())
}

/// How many standard deviations the second's ranks lie above what chance expects.
fn rank_score(first: &[f64], second: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = first.iter().map(|value| (*value, false)).collect();
    all.extend(second.iter().map(|value| (*value, true)));
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (m, n) = (first.len() as f64, second.len() as f64);
    let (mut before, mut rank_sum, mut ties) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|one, next| one.0 == next.0) {
        let count = equal.len() as f64;
        let rank = before + (count + 1.0) / 2.0;
        rank_sum += rank * equal.iter().filter(|(_, is_second)| *is_second).count() as f64;
        ties += count * count * count - count;
        before += count;
    }
    let wins = rank_sum - n * (n + 1.0) / 2.0;
    let all = m + n;
    let variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance > 0.0 { (wins - m * n / 2.0) / variance.sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// A minute or so whose p50 is about `p50` with a deterministic noise of 10 %.
    fn run(p50: u64, seed: u64, seconds: u64) -> Run {
        let mut run = fixture::run(10_000, 10);
        let mut state = seed;
        let mut noise = |value: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            value + (state >> 33) % (value / 10)
        };
        run.seconds = (0..seconds)
            .map(|second| Second {
                second,
                answered: 100,
                response_p50: noise(p50),
                response_p99: noise(p50 * 3),
                response_p999: noise(p50 * 5),
                response_max: noise(p50 * 9),
                ..Second::default()
            })
            .collect();
        run
    }

    fn p50(first: &Run, second: &Run) -> Difference {
        compare(first, second)[0].difference
    }

    #[test]
    fn noise_is_not_a_difference() {
        let is_noise = |seed: &u64| {
            let other = run(1_000_000, seed * 7_919, 60);
            p50(&run(1_000_000, *seed, 60), &other) == Difference::Noise
        };
        // Chance alone may bring one in a hundred.
        assert!((1..=100).filter(is_noise).count() >= 98);
    }

    #[test]
    fn a_tenth_is() {
        let (slow, quick) = (run(1_100_000, 1, 60), run(1_000_000, 2, 60));
        assert_eq!(p50(&quick, &slow), Difference::Worse);
        assert_eq!(p50(&slow, &quick), Difference::Better);
        let shift = compare(&quick, &slow)[0].shift_percent.unwrap();
        assert!((shift - 10.0).abs() < 3.0, "{shift}");
    }

    #[test]
    fn short_and_late_runs_say_nothing() {
        assert_eq!(p50(&run(1_000, 1, 35), &run(9_000, 1, 60)), Difference::NotEnoughData);
        let mut late = run(9_000, 1, 60);
        late.seconds.iter_mut().for_each(|row| row.lateness_p99 = 2_000_000);
        assert_eq!(p50(&run(1_000, 1, 60), &late), Difference::NotEnoughData);
    }

    #[test]
    fn shares_differ_when_their_bounds_are_apart() {
        let difference = |one, other| shares("x", one, other).difference;
        assert_eq!(difference((10, 10_000), (14, 10_000)), Difference::Noise);
        assert_eq!(difference((10, 10_000), (50, 10_000)), Difference::Worse);
        assert_eq!(difference((0, 10_000), (0, 10_000)), Difference::Noise);
        assert_eq!(difference((0, 0), (0, 10_000)), Difference::NotEnoughData);
    }

    #[test]
    fn ranks_are_scored_as_by_hand() {
        // 1 2 3 against 4 5 6: 9 wins of 9, expected 4.5, variance 9 · 7 / 12.
        let score = rank_score(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]);
        assert!((score - 4.5 / 5.25_f64.sqrt()).abs() < 1e-12);
        assert_eq!(rank_score(&[1.0, 1.0], &[1.0, 1.0]), 0.0);
        assert_eq!(shift(&[1.0, 2.0], &[3.0, 5.0]), Some(2.5));
    }

    #[test]
    fn the_table_holds_every_figure() {
        let table = table(&compare(&run(1_000, 1, 60), &run(2_000, 2, 60)));
        assert_eq!(table.lines().count(), 7);
        assert!(table.contains("worse"), "{table}");
    }
}
