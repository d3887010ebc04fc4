//! The server of eligo: HTTP, tokens, administration, the command line.
//!
//! This crate turns requests into questions to the engine and its answers into bytes. It decides
//! nothing about benefits and keeps nothing but verified tokens.

pub mod api;
pub mod body;
pub mod clock;
pub mod connect;
pub mod errors;
#[cfg(test)]
mod fixture;
pub mod gateway;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod money;
pub mod peer;
pub mod settings;
pub mod tokens;
