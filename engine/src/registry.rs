//! The registry: everything that is imported.

pub mod change;
pub mod holders;
