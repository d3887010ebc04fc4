//! A device's clocks, and the server's as the device knows it.
//!
//! The clock on the wall may be wrong and may jump; the one that only goes forward tells nothing of
//! the date. From answers of the server the device learns how far the server's clock is from the
//! second one, so that a jump of the first changes the offset and not the time of a tap.

use std::collections::VecDeque;

/// Measurements that count.
const SAMPLES_MAX: usize = 9;
/// A longer round trip tells little: it counts only until there is a shorter one.
const ROUND_TRIP_MS_MAX: u64 = 2_000;

/// Both clocks of a device at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// The clock on the wall, milliseconds since 1970-01-01T00:00:00Z.
    pub wall_ms: i64,
    /// Milliseconds since some moment; never goes back.
    pub steady_ms: u64,
}

/// The server's clock.
#[derive(Clone, Debug, Default)]
pub struct ServerClock {
    /// The server's clock minus the steady one, as measured; the last ones of this life.
    samples: VecDeque<i64>,
    /// Whether they are a single one that took too long.
    is_rough: bool,
    /// The offset of an earlier life.
    remembered_ms: i64,
}

impl ServerClock {
    /// A clock of which only the offset of an earlier life is known.
    pub fn remembering(offset_ms: i64) -> ServerClock {
        ServerClock { remembered_ms: offset_ms, ..ServerClock::default() }
    }

    /// It was that late in an earlier life: a clock on the wall that says less was set back meanwhile.
    pub fn handle_earlier_life(&mut self, server_ms: i64, now: Now) {
        if self.samples.is_empty() && self.server_ms(now) < server_ms {
            self.remembered_ms = now.wall_ms.saturating_sub(server_ms);
        }
    }

    /// The server said `server_ms` to a question that was sent at `sent` and answered now.
    pub fn handle_sample(&mut self, sent: Now, now: Now, server_ms: i64) {
        let round_trip = now.steady_ms.saturating_sub(sent.steady_ms);
        let is_rough = round_trip > ROUND_TRIP_MS_MAX;
        if is_rough && !self.samples.is_empty() {
            return;
        }
        if std::mem::replace(&mut self.is_rough, is_rough) {
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        let middle = sent.steady_ms.saturating_add(round_trip / 2);
        self.samples.push_back(server_ms.saturating_sub_unsigned(middle));
    }

    /// The device's clock minus the server's: the median of what was measured.
    pub fn offset_ms(&self, now: Now) -> i64 {
        now.wall_ms.saturating_sub(self.server_ms(now))
    }

    /// The server's clock.
    pub fn server_ms(&self, now: Now) -> i64 {
        let mut sorted: Vec<i64> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        match sorted.get(sorted.len() / 2) {
            Some(median) => median.saturating_add_unsigned(now.steady_ms),
            None => now.wall_ms.saturating_sub(self.remembered_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, steady_ms: u64) -> Now {
        Now { wall_ms, steady_ms }
    }

    #[test]
    fn the_offset_is_the_median_and_follows_jumps() {
        let mut clock = ServerClock::remembering(70);
        assert_eq!(clock.offset_ms(at(1_000, 5)), 70);
        for (sent, answered, server) in [(0, 100, 550), (200, 220, 710), (300, 1_900, 2_400)] {
            let (sent, now) =
                (at(1_000 + sent, sent as u64), at(1_000 + answered, answered as u64));
            clock.handle_sample(sent, now, server);
        }
        assert_eq!(clock.offset_ms(at(3_000, 2_000)), 500);
        assert_eq!(clock.offset_ms(at(63_000, 2_000)), 60_500);
        assert_eq!(clock.server_ms(at(63_000, 2_000)), 2_500);
        clock.handle_sample(at(0, 3_000), at(0, 5_001), 0);
        assert_eq!(clock.server_ms(at(0, 2_000)), 2_500, "too slow an answer tells nothing");
    }

    #[test]
    fn a_wall_that_was_set_back_counts_from_what_an_earlier_life_saw() {
        let mut clock = ServerClock::remembering(70);
        clock.handle_earlier_life(900, at(1_000, 5));
        assert_eq!(clock.offset_ms(at(1_000, 5)), 70);
        clock.handle_earlier_life(5_000, at(1_000, 5));
        assert_eq!(clock.server_ms(at(1_200, 205)), 5_200);
        clock.handle_sample(at(1_200, 205), at(1_200, 205), 6_000);
        clock.handle_earlier_life(9_000, at(1_300, 305));
        assert_eq!(clock.server_ms(at(1_300, 305)), 6_100, "the server knows better");
    }

    #[test]
    fn a_slow_answer_counts_until_there_is_a_quick_one() {
        let mut clock = ServerClock::remembering(900_000);
        clock.handle_sample(at(0, 0), at(6_000, 6_000), 13_000);
        assert_eq!(clock.server_ms(at(6_000, 6_000)), 16_000);
        clock.handle_sample(at(6_000, 6_000), at(12_000, 12_000), 70_000);
        assert_eq!(clock.server_ms(at(6_000, 6_000)), 16_000, "the first slow one is as good");
        clock.handle_sample(at(7_000, 7_000), at(7_100, 7_100), 20_050);
        assert_eq!(clock.server_ms(at(8_000, 8_000)), 21_000);
    }
}
