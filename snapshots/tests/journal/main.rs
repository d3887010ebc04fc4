//! The embedded journal on a simulated disk: power cuts after every operation, failing operations,
//! damage, ownership.

#![allow(clippy::panic, clippy::unwrap_used, reason = "everything here is a test")]

mod damage;
mod disk;
mod faults;
mod ownership;
mod power_cut;
mod random;
mod scenario;
