//! The numbers that a seed stands for.

pub const STREAM_DIRECTORY: u64 = 1;
pub const STREAM_HOLDERS: u64 = 2;
pub const STREAM_SECRETS: u64 = 3;

/// SplitMix64. Our own, because the generators of a library may change with its version.
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of one thing in one stream of a seed.
    pub fn of(seed: u64, thing: u64, stream: u64) -> Numbers {
        let mut numbers = Numbers(seed ^ stream.rotate_right(8));
        let mixed = numbers.next();
        Numbers(mixed ^ Numbers(thing).next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Close enough to even for small ends.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
