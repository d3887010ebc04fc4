//! When requests are due: a plan made ahead of the run, from a seed.
//!
//! Every shape but a recorded trace is a curve of the rate made of straight pieces. The n-th request
//! is due where the area under the curve reaches n (evenly spaced), or where it reaches the n-th
//! event of a Poisson process of rate 1 (randomly spaced). So the number of requests follows the
//! curve whatever its form, and the plan never depends on what became of earlier requests.
//!
//! In TOML:
//! ```toml
//! [arrivals]
//! kind = "poisson"
//! rate = 20000
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::time::Nanos;

mod curve;
mod trace;

use curve::{Curve, Piece};
use trace::Trace;

/// The highest rate that a plan may have, requests a second.
pub const RATE_MAX: f64 = 10_000_000.0;
/// The most steps that a plan may have.
pub const STEPS_MAX: usize = 1_000;
/// The longest piece of a plan, seconds: a week.
pub const SECONDS_MAX: f64 = 604_800.0;

/// The rate of a peak hour at the thirteen ends of its twelve twelfths, as shares of the way from
/// the base to the peak: it rises, stays high for a quarter and falls more slowly.
const PEAK_HOUR: [f64; 13] = [0.0, 0.1, 0.25, 0.5, 0.8, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.1];

/// When requests are due; checked.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "Shape")]
pub struct Arrivals(Shape);

/// The same as it is written. Rates are requests a second; those of the lulls may be 0.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// A base rate with bursts at regular times.
    Burst {
        /// Between the bursts.
        base: f64,
        /// During them.
        rate: f64,
        /// From the beginning of one to the next; each is at the end of its period.
        every_seconds: f64,
        /// How long each is.
        burst_seconds: f64,
        /// Even if not said otherwise.
        #[serde(default)]
        spacing: Spacing,
    },
    /// One rate, evenly spaced.
    Constant {
        /// The rate.
        rate: f64,
    },
    /// The course of a peak hour, stretched over the run.
    PeakHour {
        /// Before it.
        base: f64,
        /// At its height.
        peak: f64,
        /// Even if not said otherwise.
        #[serde(default)]
        spacing: Spacing,
    },
    /// One rate, randomly spaced, as independent people come.
    Poisson {
        /// The mean rate.
        rate: f64,
    },
    /// A rate that changes evenly over the run.
    Ramp {
        /// At its beginning.
        from: f64,
        /// At its end.
        to: f64,
        /// Even if not said otherwise.
        #[serde(default)]
        spacing: Spacing,
    },
    /// A recorded trace: one instant a line, ascending, in seconds (`0.0125`) or nanoseconds
    /// (`12500000ns`) from its beginning.
    Replay {
        /// Where it is.
        file: PathBuf,
        /// How many times faster than recorded.
        #[serde(default = "as_recorded")]
        speed: f64,
    },
    /// One rate after the other, over and over.
    Steps {
        /// The rates.
        rates: Vec<f64>,
        /// How long each is held.
        step_seconds: f64,
        /// Even if not said otherwise.
        #[serde(default)]
        spacing: Spacing,
    },
}

/// How requests are spaced under a rate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// As regularly as the rate allows.
    #[default]
    Even,
    /// As independent people come.
    Random,
}

/// Why a plan cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalsError {
    /// A burst that is longer than its period.
    #[error("`burst_seconds` must be below `every_seconds`")]
    BurstTooLong,
    /// A number outside its range.
    #[error("`{name}` is {value}; it must be above 0 and at most {max}")]
    OutOfRange {
        /// Of the field.
        name: &'static str,
        /// What it says.
        value: f64,
        /// The most it may say.
        max: f64,
    },
    /// A rate of a lull outside its range.
    #[error("`{name}` is {value}; it must be from 0 to {RATE_MAX}")]
    LullOutOfRange {
        /// Of the field.
        name: &'static str,
        /// What it says.
        value: f64,
    },
    /// No rate is above 0.
    #[error("no request is ever due: every rate is 0")]
    Silent,
    /// No steps, or too many.
    #[error("`rates` has {0} steps; there must be 1 to {STEPS_MAX}")]
    Steps(usize),
    /// The trace cannot be read.
    #[error("the trace cannot be read: {0}")]
    TraceUnreadable(#[from] std::io::Error),
    /// A line of the trace is no instant, or one before the line above.
    #[error("line {0} of the trace is no instant at or after the one above it")]
    TraceWrong(u64),
}

impl Arrivals {
    /// Lets the path of a trace count from `directory`.
    pub fn count_from(&mut self, directory: &Path) {
        if let Shape::Replay { file, .. } = &mut self.0 {
            *file = directory.join(&*file);
        }
    }

    /// The plan of a run of this length. The same seed gives the same plan, always.
    pub fn plan(&self, duration: Nanos, seed: u64) -> Result<Plan, ArrivalsError> {
        let source = match &self.0 {
            Shape::Replay { file, speed } => Source::Trace(Trace::open(file, *speed)?),
            shape => Source::Curve(curve_of(shape, duration, seed)),
        };
        Ok(Plan { source, duration })
    }
}

impl TryFrom<Shape> for Arrivals {
    type Error = ArrivalsError;

    fn try_from(shape: Shape) -> Result<Arrivals, ArrivalsError> {
        match &shape {
            Shape::Burst { base, rate, every_seconds, burst_seconds, .. } => {
                check_lull("base", *base)?;
                check("rate", *rate, RATE_MAX)?;
                check("every_seconds", *every_seconds, SECONDS_MAX)?;
                check("burst_seconds", *burst_seconds, SECONDS_MAX)?;
                if burst_seconds >= every_seconds {
                    return Err(ArrivalsError::BurstTooLong);
                }
            }
            Shape::Constant { rate } | Shape::Poisson { rate } => check("rate", *rate, RATE_MAX)?,
            Shape::PeakHour { base, peak, .. } => {
                check_lull("base", *base)?;
                check("peak", *peak, RATE_MAX)?;
            }
            Shape::Ramp { from, to, .. } => {
                check_lull("from", *from)?;
                check_lull("to", *to)?;
                check_heard(&[*from, *to])?;
            }
            Shape::Replay { speed, .. } => check("speed", *speed, RATE_MAX)?,
            Shape::Steps { rates, step_seconds, .. } => {
                if !(1..=STEPS_MAX).contains(&rates.len()) {
                    return Err(ArrivalsError::Steps(rates.len()));
                }
                rates.iter().try_for_each(|rate| check_lull("rates", *rate))?;
                check_heard(rates)?;
                check("step_seconds", *step_seconds, SECONDS_MAX)?;
            }
        }
        Ok(Arrivals(shape))
    }
}

/// The instants at which requests are due, ascending, all within the run.
#[derive(Debug)]
pub struct Plan {
    source: Source,
    duration: Nanos,
}

#[derive(Debug)]
enum Source {
    Curve(Curve),
    Trace(Trace),
}

impl Iterator for Plan {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let due = match &mut self.source {
            Source::Curve(curve) => curve.next(),
            Source::Trace(trace) => trace.next(),
        };
        due.filter(|due| *due < self.duration)
    }
}

fn curve_of(shape: &Shape, duration: Nanos, seed: u64) -> Curve {
    let whole = duration.0 as f64 / 1e9;
    let level = |rate: f64, seconds: f64| Piece { from: rate, to: rate, seconds };
    let (pieces, spacing) = match shape {
        Shape::Burst { base, rate, every_seconds, burst_seconds, spacing } => {
            let lull = level(*base, every_seconds - burst_seconds);
            (vec![lull, level(*rate, *burst_seconds)], *spacing)
        }
        Shape::Constant { rate } => (vec![level(*rate, whole)], Spacing::Even),
        Shape::PeakHour { base, peak, spacing } => {
            let rates = PEAK_HOUR.map(|share| base + (peak - base) * share);
            let seconds = whole / (PEAK_HOUR.len() - 1) as f64;
            let ends = rates.iter().zip(rates.iter().skip(1));
            (ends.map(|(from, to)| Piece { from: *from, to: *to, seconds }).collect(), *spacing)
        }
        Shape::Poisson { rate } => (vec![level(*rate, whole)], Spacing::Random),
        Shape::Ramp { from, to, spacing } => {
            (vec![Piece { from: *from, to: *to, seconds: whole }], *spacing)
        }
        Shape::Replay { .. } => (Vec::new(), Spacing::Even),
        Shape::Steps { rates, step_seconds, spacing } => {
            (rates.iter().map(|rate| level(*rate, *step_seconds)).collect(), *spacing)
        }
    };
    Curve::new(pieces, spacing, seed)
}

fn as_recorded() -> f64 {
    1.0
}

fn check(name: &'static str, value: f64, max: f64) -> Result<(), ArrivalsError> {
    let fits = value > 0.0 && value <= max;
    if fits { Ok(()) } else { Err(ArrivalsError::OutOfRange { name, value, max }) }
}

fn check_lull(name: &'static str, value: f64) -> Result<(), ArrivalsError> {
    let fits = (0.0..=RATE_MAX).contains(&value);
    if fits { Ok(()) } else { Err(ArrivalsError::LullOutOfRange { name, value }) }
}

fn check_heard(rates: &[f64]) -> Result<(), ArrivalsError> {
    let heard = rates.iter().any(|rate| *rate > 0.0);
    if heard { Ok(()) } else { Err(ArrivalsError::Silent) }
}

#[cfg(test)]
mod tests;
