//! What the benchmarks share: registries of any size, percentiles, and how results are printed.
//!
//! Every benchmark measures eligo beside a baseline in the same run, in interleaved rounds, and
//! prints both sides, the ratio of their medians and the target. Figures are for people: a
//! benchmark never fails because of a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod calls;
pub mod client;
pub mod devices;
pub mod pace;
pub mod population;
pub mod redis;
pub mod report;
pub mod target;
