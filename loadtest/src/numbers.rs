//! Numbers that look random and are the same for ever for one seed.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of one stream of a seed.
    pub fn of(seed: u64, stream: u64) -> Numbers {
        Numbers(mix(seed) ^ mix(stream ^ 0x5851_f42d_4c95_7f2d))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.any()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    /// A place in a list of so many.
    pub fn place(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        usize::try_from(self.below(count)).unwrap_or_default()
    }

    /// One of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.place(list.len()))
    }

    /// A number from 0 up to, but not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.any() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// Spreads a number over all 64 bits.
pub fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_and_no_others() {
        let list = |seed, stream| {
            let mut numbers = Numbers::of(seed, stream);
            [numbers.any(), numbers.any(), numbers.any()]
        };
        assert_eq!(list(1, 1), list(1, 1));
        assert_ne!(list(1, 1), list(2, 1));
        assert_ne!(list(1, 1), list(1, 2));
        let mut numbers = Numbers::of(7, 0);
        for bound in 1..1_000 {
            assert!(numbers.below(bound) < bound);
            assert!((0.0..1.0).contains(&numbers.fraction()));
        }
        assert_eq!(numbers.pick::<u8>(&[]), None);
    }
}
