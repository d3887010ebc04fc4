//! The server of eligo: HTTP, tokens, administration, the command line.
//!
//! This crate turns requests into questions to the engine and its answers into bytes. It decides
//! nothing about benefits and keeps nothing but verified tokens.
//!
//! # Map
//! [`command`] reads the command line and [`settings`] what is configured; [`server`] puts a server
//! together from a [`node`] (keys, storage, engine) and runs it. A request of the public listener
//! goes through [`api`]: token ([`tokens`]), address ([`peer`]), rights, body ([`body`]), method. Its
//! errors are those of the one table in [`errors`]. [`connect`] gives out tokens, [`admin`] is the
//! other listener, [`kit`] what validators need when they are offline, [`link`] how they are served;
//! [`trips`] translates the trips that they report.

pub mod admin;
pub mod api;
pub mod background;
pub mod body;
pub mod clock;
pub mod command;
pub mod connect;
pub mod demo;
pub mod errors;
#[cfg(test)]
mod fixture;
pub mod gateway;
pub mod generator;
pub mod keys;
pub mod kit;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod money;
pub mod node;
pub mod peer;
pub mod pki;
pub mod rate;
pub mod server;
pub mod settings;
pub mod storage;
pub mod tls;
pub mod tokens;
pub mod trips;
pub mod upkeep;
