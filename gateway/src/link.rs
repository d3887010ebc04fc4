//! The validators' link: QUIC, mutual TLS, messages of `validator::link`.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | socket, threads, which connections are let in, the end |
//! | [`connection`] | the life of one connection: certificate, hello, streams, pushes |
//! | [`stream`], [`batch`], [`unfinished`] | what arrived on a stream is read, answered and written together |
//! | [`settle`], [`jobs`] | answers that come later |
//! | [`session`], [`budget`] | what a connection is allowed, and what it has used of it |
//! | [`fleet`], [`push`] | who is connected; pushes to everybody; refusals of who was revoked |
//! | [`kit`] | holder registries and blocks |
//! | [`metrics`], [`limits`] | figures and limits |
//!
//! # A check
//! A task a stream reads all frames that are there, answers their checks together on the spot
//! ([`engine::engine::Engine::check_all`]) and writes all answers at once. Confirms and cancels are
//! handed to their shards, which are woken once for all that is there; their answers are posted to the
//! stream and written when they come, many at a time and in any order, while it goes on reading.
//!
//! # Who is served
//! The certificate names the terminal ([`crate::pki::trust`]); the registry says whose it is and
//! whether it is active, at the hello and again for everything that arrives. A terminal has one
//! connection: a new one ends the one before.
//!
//! # Early data
//! Behind a resumed session a device may ask before the handshake is complete. Only what changes
//! nothing is answered then: hello, ping, check and registry pull. Each session is resumed once, so
//! early data that somebody repeats is not accepted at all.

use std::sync::Arc;

use crate::gateway::Gateway;
use crate::link::fleet::Fleet;
use crate::link::kit::KitRegistries;
use crate::link::limits::Budgets;
use crate::link::metrics::LinkMetrics;
use crate::pki::trust::Trust;
use crate::trips::EngineTrips;

pub mod batch;
pub mod budget;
pub mod connection;
pub mod fleet;
pub mod jobs;
pub mod kit;
pub mod limits;
pub mod metrics;
pub mod push;
pub mod server;
pub mod session;
pub mod settle;
pub mod stream;
pub mod unfinished;

/// What every connection works with.
pub struct Link {
    /// The engine, its clock and the choices that HTTP has too.
    pub gateway: Arc<Gateway>,
    /// Whose certificates count.
    pub trust: Arc<Trust>,
    /// Who is connected.
    pub fleet: Arc<Fleet>,
    /// What a device may use.
    pub budgets: Budgets,
    /// Takes reported trips.
    pub trips: EngineTrips,
    /// Gives out holder registries.
    pub registries: Arc<KitRegistries>,
    /// The counters.
    pub metrics: Arc<LinkMetrics>,
}
