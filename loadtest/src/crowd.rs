//! Who comes: some holders often, most of them seldom (Zipf's law).
//!
//! Every process and thread has a share of the sampled holders to itself, so that nobody else changes
//! what it knows of them. Which holders come often is decided by the seed, not by their order in the
//! file.

use crate::numbers::Numbers;

const STREAM: u64 = 0x6372_6f77;

/// One of several parts of the sample: every `of`-th holder from `index` on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// Which one, from 0.
    pub index: u32,
    /// How many there are, at least 1.
    pub of: u32,
}

impl Share {
    /// All holders.
    pub const WHOLE: Share = Share { index: 0, of: 1 };

    /// How many of `count` holders belong to it.
    pub fn size(self, count: u32) -> u32 {
        count.saturating_sub(self.index).div_ceil(self.of.max(1))
    }

    /// The place in the sample of the holder with this place in the share.
    pub fn place(self, local: u32) -> u32 {
        local.saturating_mul(self.of.max(1)).saturating_add(self.index)
    }

    /// The place in the share of the holder with this place in the sample.
    pub fn local(self, place: u32) -> u32 {
        place / self.of.max(1)
    }
}

/// Draws holders of a share.
#[derive(Clone, Debug)]
pub struct Crowd {
    share: Share,
    zipf: Zipf,
    size: u64,
    step: u64,
    start: u64,
}

impl Crowd {
    /// The holders of a share of `count`.
    pub fn new(share: Share, count: u32, exponent: f64, seed: u64) -> Crowd {
        let size = u64::from(share.size(count));
        let mut numbers = Numbers::of(seed, STREAM);
        let mut step = numbers.below(size).max(1);
        while common_divisor(step, size) > 1 {
            step += 1;
        }
        let start = numbers.below(size);
        Crowd { share, zipf: Zipf::new(size, exponent), size, step, start }
    }

    /// How many there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Draws one, and returns its place in the sample.
    pub fn draw(&self, numbers: &mut Numbers) -> u32 {
        let rank = self.zipf.draw(numbers);
        self.holder(rank)
    }

    /// The holder of a rank, from 0; of a rank beyond the last, one from the beginning.
    pub fn holder(&self, rank: u64) -> u32 {
        let size = self.size.max(1);
        // Both are below 2^32, so the product fits.
        let local = ((rank % size) * self.step + self.start) % size;
        self.share.place(u32::try_from(local).unwrap_or_default())
    }
}

fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

/// Ranks from 0 with probabilities like 1 / (rank + 1)^exponent, drawn by rejection in constant time
/// and memory (Devroye, "Non-Uniform Random Variate Generation", X.6.1).
#[derive(Clone, Debug)]
struct Zipf {
    count: u64,
    exponent: f64,
    area: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let n = count.max(1) as f64;
        let area = if exponent == 1.0 {
            1.0 + n.ln()
        } else {
            (n.powf(1.0 - exponent) - exponent) / (1.0 - exponent)
        };
        Zipf { count: count.max(1), exponent, area }
    }

    fn draw(&self, numbers: &mut Numbers) -> u64 {
        loop {
            let inverse = self.inverse(numbers.fraction());
            let x = (inverse + 1.0).floor();
            let mut ratio = x.powf(-self.exponent);
            if x > 1.0 {
                ratio *= inverse.powf(self.exponent);
            }
            if numbers.fraction() < ratio {
                return (x as u64 - 1).min(self.count - 1);
            }
        }
    }

    fn inverse(&self, fraction: f64) -> f64 {
        let target = fraction * self.area;
        if target <= 1.0 {
            target
        } else if self.exponent == 1.0 {
            (target - 1.0).exp()
        } else {
            (target * (1.0 - self.exponent) + self.exponent).powf(1.0 / (1.0 - self.exponent))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn shares_are_disjoint_and_whole() {
        for (count, of) in [(10, 3), (100, 7), (1, 4), (5, 5)] {
            let mut seen = HashSet::new();
            for index in 0..of {
                let share = Share { index, of };
                for local in 0..share.size(count) {
                    let place = share.place(local);
                    assert!(place < count && seen.insert(place));
                    assert_eq!(share.local(place), local);
                }
            }
            assert_eq!(seen.len(), usize::try_from(count).unwrap());
        }
    }

    #[test]
    fn every_holder_has_one_rank() {
        for count in [1, 2, 30, 97, 1_000] {
            let crowd = Crowd::new(Share::WHOLE, count, 1.0, 7);
            let seen: HashSet<u32> = (0..count.into()).map(|rank| crowd.holder(rank)).collect();
            assert_eq!(seen.len(), usize::try_from(count).unwrap());
        }
    }

    #[test]
    fn ranks_follow_the_law() {
        for exponent in [0.0, 0.8, 1.0, 1.2] {
            let zipf = Zipf::new(50, exponent);
            let mut numbers = Numbers::of(1, 1);
            let mut counts = [0_u32; 50];
            let draws = 400_000;
            for _ in 0..draws {
                counts[usize::try_from(zipf.draw(&mut numbers)).unwrap()] += 1;
            }
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
            let sum: f64 = (0..50).map(weight).sum();
            for (rank, count) in counts.into_iter().enumerate() {
                let expected = f64::from(draws) * weight(rank) / sum;
                let error = (f64::from(count) - expected).abs();
                assert!(error < 6.0 * expected.sqrt(), "{exponent} {rank} {count} {expected}");
            }
        }
    }
}
