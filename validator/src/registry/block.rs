//! Up to 128 ascending numbers with something small beside each, packed into bits.

/// Numbers of a full block.
pub const BLOCK_ENTRIES: usize = 128;
/// Bits of the largest gap between two numbers.
pub const GAP_BITS_MAX: u32 = 56;
/// Bits of the largest thing beside a number.
pub const VALUE_BITS_MAX: u32 = 17;
/// Bytes of the largest block.
pub const BLOCK_BYTES_MAX: usize = bytes_of(BLOCK_ENTRIES, GAP_BITS_MAX, VALUE_BITS_MAX);

/// A number that cannot be: gaps would not fit their bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAscending;

/// Bits that numbers up to `greatest` need.
pub fn bits_for(greatest: u64) -> u32 {
    u64::BITS - greatest.leading_zeros()
}

/// Bytes of a block of `count` entries.
const fn bytes_of(count: usize, gap_bits: u32, value_bits: u32) -> usize {
    let bits = count.saturating_sub(1) * gap_bits as usize + count * value_bits as usize;
    1 + bits.div_ceil(8)
}

/// Appends a block. Values must fit `value_bits`; the first number is not in the block.
pub fn encode(
    entries: &[(u64, u32)],
    value_bits: u32,
    out: &mut Vec<u8>,
) -> Result<(), NotAscending> {
    let gap = |pair: &[(u64, u32)]| match pair {
        [(before, _), (number, _)] => number.checked_sub(*before).filter(|gap| *gap > 0),
        _ => None,
    };
    let mut greatest = 0;
    for pair in entries.windows(2) {
        greatest = gap(pair).ok_or(NotAscending)?.max(greatest);
    }
    let gap_bits = bits_for(greatest);
    if gap_bits > GAP_BITS_MAX || entries.is_empty() || entries.len() > BLOCK_ENTRIES {
        return Err(NotAscending);
    }
    out.push(u8::try_from(gap_bits).unwrap_or(u8::MAX));
    let mut bits = BitWriter { out, held: 0, count: 0 };
    entries.windows(2).filter_map(gap).for_each(|gap| bits.push(gap, gap_bits));
    entries.iter().for_each(|(_, value)| bits.push(u64::from(*value), value_bits));
    bits.finish();
    Ok(())
}

/// A block that was read, with eight zero bytes behind it.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    padded: &'a [u8],
    first: u64,
    count: usize,
    gap_bits: u32,
    value_bits: u32,
}

impl<'a> Block<'a> {
    /// Bytes behind a block that must be there to read it.
    pub const PADDING: usize = 8;

    /// The block of `count` entries at the beginning of `padded`; none where it is not whole.
    pub fn read(padded: &'a [u8], first: u64, count: usize, value_bits: u32) -> Option<Block<'a>> {
        let gap_bits = u32::from(*padded.first()?);
        let fits = (1..=BLOCK_ENTRIES).contains(&count)
            && gap_bits <= GAP_BITS_MAX
            && value_bits <= VALUE_BITS_MAX;
        let block = Block { padded, first, count, gap_bits, value_bits };
        (fits && block.bytes().saturating_add(Block::PADDING) <= padded.len()).then_some(block)
    }

    /// Bytes of the block itself.
    pub fn bytes(&self) -> usize {
        bytes_of(self.count, self.gap_bits, self.value_bits)
    }

    /// What stands beside `number`, if it is there.
    #[inline]
    pub fn find(&self, number: u64) -> Option<u32> {
        let mut known = self.first;
        let mut at = 0;
        while known < number {
            at += 1;
            if at >= self.count {
                return None;
            }
            known = known.wrapping_add(self.gap(at)?);
        }
        if known == number { self.value(at) } else { None }
    }

    /// Appends the entries; false where they do not ascend.
    #[must_use]
    pub fn push_to(&self, entries: &mut Vec<(u64, u32)>) -> bool {
        let mut number = self.first;
        for at in 0..self.count {
            if at > 0 {
                let next = self.gap(at).filter(|gap| *gap > 0);
                let Some(next) = next.and_then(|gap| number.checked_add(gap)) else { return false };
                number = next;
            }
            let Some(value) = self.value(at) else { return false };
            entries.push((number, value));
        }
        true
    }

    /// The gap before the entry at `at`, which is not the first one.
    #[inline]
    fn gap(&self, at: usize) -> Option<u64> {
        self.bits((at - 1) * self.gap_bits as usize, self.gap_bits)
    }

    #[inline]
    fn value(&self, at: usize) -> Option<u32> {
        let gaps = (self.count - 1) * self.gap_bits as usize;
        let bits = self.bits(gaps + at * self.value_bits as usize, self.value_bits)?;
        u32::try_from(bits).ok()
    }

    #[inline]
    fn bits(&self, from: usize, width: u32) -> Option<u64> {
        let from = from + 8;
        let bytes = self.padded.get(from / 8..)?.first_chunk()?;
        let shifted = u64::from_le_bytes(*bytes) >> (from % 8);
        Some(shifted & ((1 << width) - 1))
    }
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u128,
    count: u32,
}

impl BitWriter<'_> {
    fn push(&mut self, value: u64, width: u32) {
        self.held |= u128::from(value) << self.count;
        self.count += width;
        while self.count >= 32 {
            let [a, b, c, d, ..] = self.held.to_le_bytes();
            self.out.extend_from_slice(&[a, b, c, d]);
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn finish(self) {
        let bytes = self.held.to_le_bytes();
        let used = usize::try_from(self.count.div_ceil(8)).unwrap_or_default();
        self.out.extend_from_slice(bytes.get(..used).unwrap_or_default());
    }
}

/// A gap is read from eight bytes, of which it may begin in the middle of the first one.
const _: () = assert!(GAP_BITS_MAX + 7 <= u64::BITS && VALUE_BITS_MAX + 7 <= u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entries: &[(u64, u32)], value_bits: u32, bytes_expected: usize) {
        let mut bytes = Vec::new();
        encode(entries, value_bits, &mut bytes).unwrap();
        assert_eq!(bytes.len(), bytes_expected);
        bytes.extend([0; Block::PADDING]);
        let block = Block::read(&bytes, entries[0].0, entries.len(), value_bits).unwrap();
        assert_eq!(block.bytes(), bytes_expected);
        let mut read = Vec::new();
        assert!(block.push_to(&mut read));
        assert_eq!(read, entries);
        for (number, value) in entries {
            assert_eq!(block.find(*number), Some(*value));
        }
        let is_there = |number| entries.iter().any(|(known, _)| *known == number);
        for (number, _) in entries {
            for near in [number.wrapping_sub(1), number.wrapping_add(1)] {
                assert_eq!(block.find(near).is_some(), is_there(near));
            }
        }
    }

    #[test]
    fn blocks_come_back() {
        check(&[(7, 0)], 0, 1);
        check(&[(7, 5)], 3, 2);
        check(&[(1, 1), (2, 0), (3, 1)], 1, 2);
        let widest = [(0, 1), ((1 << GAP_BITS_MAX) - 1, (1 << VALUE_BITS_MAX) - 1), (1 << 56, 2)];
        check(&widest, VALUE_BITS_MAX, 1 + (2 * 56 + 3 * 17_usize).div_ceil(8));
        let full: Vec<(u64, u32)> = (0..128).map(|at| (at * at * 977 + at, at as u32)).collect();
        check(&full, 7, 1 + (127 * 18 + 128 * 7_usize).div_ceil(8));
        let wrong = |entries: &[(u64, u32)]| encode(entries, 7, &mut Vec::new());
        assert_eq!(wrong(&[(1, 0), (1, 0)]), Err(NotAscending));
        assert_eq!(wrong(&[(2, 0), (1, 0)]), Err(NotAscending));
        assert_eq!(wrong(&[(0, 0), (1 << 56, 0)]), Err(NotAscending));
    }
}
