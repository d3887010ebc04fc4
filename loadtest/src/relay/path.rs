//! What a path does to packets, free of sockets and clocks: each is lost, copied, or due at an
//! instant.
//!
//! Everything is drawn from a seed. A path and its queue are bounded: what does not fit is lost, as
//! in a router.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::numbers::Numbers;
use crate::time::Nanos;

/// Packets that wait at once, of all flows.
pub const PACKETS_MAX: usize = 65_536;
/// How long a packet may wait for the bandwidth of its flow before it is lost instead.
const QUEUE_MAX: Nanos = Nanos::from_millis(500);
const STREAM: u64 = 0x7061_7468;

/// What a path does in each of its two directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// How long a packet is under way.
    pub delay: Nanos,
    /// How much longer at most; packets of a flow keep their order.
    pub jitter: Nanos,
    /// The share that is lost.
    pub loss: f64,
    /// The share that others overtake.
    pub reorder: f64,
    /// How long such a packet is held back.
    pub reorder_by: Nanos,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// Bits a second of one flow and direction; no bound without.
    pub bits_per_second: Option<u64>,
}

impl Path {
    /// One that does nothing.
    pub const CLEAR: Path = Path {
        delay: Nanos(0),
        jitter: Nanos(0),
        loss: 0.0,
        reorder: 0.0,
        reorder_by: Nanos::from_millis(20),
        duplicate: 0.0,
        bits_per_second: None,
    };
}

/// One direction of one flow: what its next packet waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pipe {
    /// When the last packet that kept the order is due.
    last_due: Nanos,
    /// When the bandwidth is free again.
    free: Nanos,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Passed on, copies included.
    pub passed: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in a cut.
    pub cut: u64,
    /// Lost because too many waited, or there were too many flows.
    pub overflowed: u64,
    /// Copied.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
}

impl Counts {
    /// Both together.
    pub fn sum(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            lost: self.lost + other.lost,
            cut: self.cut + other.cut,
            overflowed: self.overflowed + other.overflowed,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// Packets under way, whatever they are to the caller.
#[derive(Debug)]
pub struct Traffic<P> {
    path: Path,
    numbers: Numbers,
    waiting: BinaryHeap<Reverse<Waiting<P>>>,
    count: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Waiting<P> {
    due: Nanos,
    number: u64,
    packet: P,
}

impl<P: Clone> Traffic<P> {
    /// An empty path.
    pub fn new(path: Path, seed: u64) -> Traffic<P> {
        let numbers = Numbers::of(seed, STREAM);
        Traffic { path, numbers, waiting: BinaryHeap::new(), count: 0, counts: Counts::default() }
    }

    /// A packet enters a pipe.
    pub fn enter(&mut self, pipe: &mut Pipe, packet: P, bytes: usize, now: Nanos) {
        let path = self.path;
        // As many numbers for every packet, so that one fate does not change the others.
        let [loss, reorder, duplicate, jitter] = [(); 4].map(|()| self.numbers.fraction());
        if loss < path.loss {
            self.counts.lost += 1;
            return;
        }
        let mut out = now;
        if let Some(rate) = path.bits_per_second {
            let begin = pipe.free.max(now);
            if begin - now > QUEUE_MAX {
                self.counts.overflowed += 1;
                return;
            }
            let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
            out = begin + Nanos(bits.saturating_mul(1_000_000_000) / rate.max(1));
            pipe.free = out;
        }
        let due = out + path.delay + Nanos((jitter * path.jitter.0 as f64) as u64);
        let due = if reorder < path.reorder {
            self.counts.reordered += 1;
            due + path.reorder_by
        } else {
            pipe.last_due = due.max(pipe.last_due);
            pipe.last_due
        };
        if duplicate < path.duplicate {
            self.counts.duplicated += 1;
            self.wait(packet.clone(), due);
        }
        self.wait(packet, due);
    }

    /// The next packet that is due by now.
    pub fn leave(&mut self, now: Nanos) -> Option<P> {
        let is_due = self.waiting.peek().is_some_and(|first| first.0.due <= now);
        let packet = is_due.then(|| self.waiting.pop()).flatten()?.0.packet;
        self.counts.passed += 1;
        Some(packet)
    }

    /// A packet of a flow that is cut.
    pub fn cut(&mut self) {
        self.counts.cut += 1;
    }

    /// A packet for which there is no room.
    pub fn overflow(&mut self) {
        self.counts.overflowed += 1;
    }

    /// When the next packet is due.
    pub fn next_due(&self) -> Option<Nanos> {
        self.waiting.peek().map(|first| first.0.due)
    }

    /// What became of packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn wait(&mut self, packet: P, due: Nanos) {
        if self.waiting.len() >= PACKETS_MAX {
            return self.overflow();
        }
        self.count += 1;
        self.waiting.push(Reverse(Waiting { due, number: self.count, packet }));
    }
}

impl<P> Ord for Waiting<P> {
    fn cmp(&self, other: &Waiting<P>) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<P> PartialOrd for Waiting<P> {
    fn partial_cmp(&self, other: &Waiting<P>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Eq for Waiting<P> {}

impl<P> PartialEq for Waiting<P> {
    fn eq(&self, other: &Waiting<P>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Nanos = Nanos::from_millis(1);

    /// Sends packets a millisecond apart; what arrived when, milliseconds.
    fn run(path: Path, seed: u64, packets: u64) -> (Vec<(u64, u64)>, Counts) {
        let mut traffic = Traffic::new(path, seed);
        let mut pipe = Pipe::default();
        let mut arrived = Vec::new();
        for ms in 0..packets + 10_000 {
            let now = Nanos::from_millis(ms);
            if ms < packets {
                traffic.enter(&mut pipe, ms, 1_000, now);
            }
            while let Some(packet) = traffic.leave(now) {
                arrived.push((packet, ms));
            }
        }
        assert_eq!(traffic.next_due(), None);
        (arrived, traffic.counts())
    }

    #[test]
    fn a_clear_path_passes_everything_at_once() {
        let (arrived, counts) = run(Path::CLEAR, 1, 100);
        assert_eq!(arrived, (0..100).map(|ms| (ms, ms)).collect::<Vec<_>>());
        assert_eq!(counts, Counts { passed: 100, ..Counts::default() });
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let delay = Nanos::from_millis(25);
        let path = Path { delay, jitter: Nanos::from_millis(10), ..Path::CLEAR };
        let (arrived, _) = run(path, 3, 1_000);
        assert!(arrived.is_sorted() && arrived.len() == 1_000);
        assert!(arrived.iter().all(|(sent, at)| (25..=36).contains(&(at - sent))));
    }

    #[test]
    fn shares_are_what_they_say_and_a_seed_repeats_itself() {
        let path = Path { loss: 0.01, reorder: 0.05, duplicate: 0.02, ..Path::CLEAR };
        let (arrived, counts) = run(path, 7, 20_000);
        assert_eq!((arrived.clone(), counts), run(path, 7, 20_000));
        assert_ne!(arrived, run(path, 8, 20_000).0);
        for (count, share) in
            [(counts.lost, 0.01), (counts.reordered, 0.05), (counts.duplicated, 0.02)]
        {
            let expected = share * 20_000.0;
            assert!((count as f64 - expected).abs() < 6.0 * expected.sqrt(), "{count} {share}");
        }
        assert_eq!(counts.passed, 20_000 - counts.lost + counts.duplicated);
        assert!(!arrived.is_sorted());
    }

    #[test]
    fn bandwidth_spreads_packets_and_a_full_queue_loses_them() {
        // 8,000 bits a packet and 1,000 packets a second: half of them fit.
        let path = Path { bits_per_second: Some(4_000_000), ..Path::CLEAR };
        let (arrived, counts) = run(path, 1, 4_000);
        assert!(counts.overflowed > 1_000, "{counts:?}");
        assert!(arrived.windows(2).all(|two| two[1].1 - two[0].1 >= 2), "{arrived:?}");
        let longest = arrived.iter().map(|(sent, at)| at - sent).max().unwrap();
        assert!((500..=504).contains(&longest), "{longest}");
    }

    #[test]
    fn the_queue_is_bounded() {
        let path = Path { delay: Nanos::from_seconds(10), ..Path::CLEAR };
        let mut traffic = Traffic::new(path, 1);
        let mut pipe = Pipe::default();
        (0..PACKETS_MAX + 5).for_each(|at| traffic.enter(&mut pipe, at, 1, MILLISECOND));
        assert_eq!(traffic.counts().overflowed, 5);
    }
}
