//! A rate over time, made of straight pieces that repeat, and the instants that it gives.

use super::Spacing;
use crate::time::Nanos;

/// Part of a curve: requests a second at its ends, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub from: f64,
    pub to: f64,
    pub seconds: f64,
}

impl Piece {
    /// How many requests it holds.
    fn requests(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// Seconds from its beginning until `requests` of it are due.
    fn seconds_until(&self, requests: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // Where the rate falls to 0, rounding may reach below it.
        let rate = (self.from * self.from + 2.0 * slope * requests).max(0.0).sqrt();
        let mean = (self.from + rate) / 2.0;
        if mean > 0.0 { (requests / mean).min(self.seconds) } else { 0.0 }
    }
}

/// The instants at which requests are due, without end.
#[derive(Debug)]
pub struct Curve {
    pieces: Vec<Piece>,
    spacing: Spacing,
    random: SplitMix64,
    /// Which piece is under way.
    at: usize,
    /// When it began, seconds.
    begun: f64,
    /// Requests from its beginning to the next one that is due.
    ahead: f64,
}

impl Curve {
    pub fn new(pieces: Vec<Piece>, spacing: Spacing, seed: u64) -> Curve {
        let mut curve =
            Curve { pieces, spacing, random: SplitMix64(seed), at: 0, begun: 0.0, ahead: 0.0 };
        if spacing == Spacing::Random {
            curve.ahead = curve.random.exponential();
        }
        curve
    }

    /// The next instant; `None` where there will be none.
    pub fn next(&mut self) -> Option<Nanos> {
        let mut silent = 0;
        let piece = loop {
            let piece = self.pieces.get(self.at)?;
            let requests = piece.requests();
            if self.ahead < requests {
                break piece;
            }
            silent = if requests > 0.0 { 0 } else { silent + 1 };
            if silent > self.pieces.len() {
                return None;
            }
            self.ahead -= requests;
            self.begun += piece.seconds;
            self.at = (self.at + 1) % self.pieces.len();
        };
        let due = self.begun + piece.seconds_until(self.ahead);
        self.ahead += match self.spacing {
            Spacing::Even => 1.0,
            Spacing::Random => self.random.exponential(),
        };
        Some(Nanos((due * 1e9) as u64))
    }
}

/// Sebastiano Vigna's generator: a plan must stay what it was when a library changes its own.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of mean 1.
    fn exponential(&mut self) -> f64 {
        // In (0, 1], so the logarithm is finite.
        let share = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -share.ln()
    }
}
