//! What the tests share: ports in memory that fail on demand, a clock that is set by hand, and the
//! fixture of the acceptance table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod agent;
pub mod calls;
pub mod carrier;
pub mod devices;
pub mod fixture;
pub mod http;
pub mod inside;
pub mod memory;
pub mod relay;
pub mod seed;
pub mod server;
pub mod simulation;
pub mod stage;
pub mod trips;
