//! The registry: everything that is imported.

pub mod change;
pub mod fault;
mod field;
pub mod file;
mod holder_line;
pub mod holders;
mod line;
pub mod references;
pub mod stored;
