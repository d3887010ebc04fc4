//! What a count of failures says about the share behind it: exact one-sided bounds (Clopper and
//! Pearson), from the tails of the binomial distribution.

/// Steps of the continued fraction; it needs about the root of the count, and counts are below 2⁵³.
const STEPS_MAX: u32 = 10_000_000;
const PRECISION: f64 = 1e-13;

/// The chance of at most `failures` in `trials` when each fails with the chance `share`.
pub fn at_most(failures: u64, trials: u64, share: f64) -> f64 {
    if failures >= trials {
        return 1.0;
    }
    beta((trials - failures) as f64, failures as f64 + 1.0, 1.0 - share)
}

/// The chance of at least `failures` in `trials` when each fails with the chance `share`.
pub fn at_least(failures: u64, trials: u64, share: f64) -> f64 {
    if failures == 0 {
        return 1.0;
    }
    if failures > trials {
        return 0.0;
    }
    beta(failures as f64, (trials - failures) as f64 + 1.0, share)
}

/// The largest share that `failures` in `trials` do not rule out.
pub fn upper(failures: u64, trials: u64, confidence: f64) -> f64 {
    if failures >= trials {
        return 1.0;
    }
    bisect(|share| at_most(failures, trials, share) > 1.0 - confidence)
}

/// The smallest share that `failures` in `trials` do not rule out.
pub fn lower(failures: u64, trials: u64, confidence: f64) -> f64 {
    if failures == 0 || trials == 0 {
        return 0.0;
    }
    bisect(|share| at_least(failures, trials, share) < 1.0 - confidence)
}

/// The trials without a failure that show a share to be below `limit`: ln(1 − c) / ln(1 − limit).
pub fn trials_needed(limit: f64, confidence: f64) -> u64 {
    ((1.0 - confidence).ln() / (-limit).ln_1p()).ceil() as u64
}

fn bisect(is_below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if is_below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The regularized incomplete beta function I_x(a, b) for a, b ≥ 1 (DLMF 8.17).
fn beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // The fraction converges fast only on this side of the mean (DLMF 8.17.4).
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta(b, a, 1.0 - x);
    }
    let front = a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b);
    (front.exp() / a * fraction(a, b, x)).clamp(0.0, 1.0)
}

/// The continued fraction of DLMF 8.17.22, by Lentz's method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let away = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for step in 1..STEPS_MAX {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        value *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    value
}

/// ln Γ(x) for x ≥ 1 by Stirling's series (DLMF 5.11.1), shifted to where it is exact.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 15.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = 1.0 / 12.0 - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse / 1680.0));
    (x - 0.5) * x.ln() - x + 0.918_938_533_204_672_8 + series / x - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum itself.
    fn summed(failures: u64, trials: u64, share: f64) -> f64 {
        let mut term = (1.0 - share).powi(trials as i32);
        let mut sum = term;
        for k in 0..failures {
            term *= (trials - k) as f64 / (k + 1) as f64 * share / (1.0 - share);
            sum += term;
        }
        sum
    }

    #[test]
    fn tails_equal_their_sums() {
        for trials in [1, 2, 10, 99, 500] {
            for failures in [0, 1, 2, 7, 98, 499] {
                for share in [0.001, 0.03, 0.4] {
                    if failures >= trials {
                        continue;
                    }
                    let (seen, sum) =
                        (at_most(failures, trials, share), summed(failures, trials, share));
                    assert!(
                        (seen - sum).abs() < 1e-10,
                        "{failures} of {trials} at {share}: {seen} {sum}"
                    );
                    let rest = 1.0 - at_least(failures + 1, trials, share);
                    assert!((rest - sum).abs() < 1e-10, "{failures} of {trials} at {share}");
                }
            }
        }
    }

    #[test]
    fn bounds_are_the_exact_ones() {
        // By the sums of the binomial terms in another program.
        assert!((upper(5, 100, 0.95) - 0.102_253_2).abs() < 1e-6);
        assert!((lower(5, 100, 0.95) - 0.019_905_6).abs() < 1e-6);
        // The rule of three, exactly.
        assert!((upper(0, 100, 0.95) - (1.0 - 0.05_f64.powf(0.01))).abs() < 1e-9);
        assert_eq!((upper(3, 3, 0.95), lower(0, 3, 0.95)), (1.0, 0.0));
        assert_eq!((trials_needed(0.03, 0.95), trials_needed(0.0001, 0.95)), (99, 29_956));
    }

    #[test]
    fn large_counts_converge() {
        // Near the normal distribution: half of it lies below the mean.
        let half = at_most(3_000_000, 100_000_000, 0.03);
        assert!((half - 0.5).abs() < 1e-3, "{half}");
        assert!(upper(300, 10_000, 0.95) > 0.0329 && upper(300, 10_000, 0.95) < 0.0331);
    }
}
