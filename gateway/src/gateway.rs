//! What every request of the public listener works with.

use std::sync::Arc;

use actix_web::web::Bytes;
use engine::calendar::Clock;
use engine::engine::Engine;
use engine::trips::judge::TripRules;
use snapshots::history::StoredHistory;
use snapshots::journal::EmbeddedJournal;
use tokio::sync::Semaphore;

use crate::kit::registries::Registries;
use crate::metrics::Metrics;
use crate::peer::TrustedProxies;
use crate::rate::RateLimits;
use crate::settings::{Dialect, Limits};
use crate::tokens::Tokens;

/// Questions to the history that may block a thread at the same time; more wait for their deadline.
pub const HISTORY_CALLS_MAX: usize = 16;

/// The public side of a server.
pub struct Gateway {
    /// The engine.
    pub engine: Engine,
    /// The engine's journal, for its figures.
    pub journal: Arc<EmbeddedJournal>,
    /// The engine's history, for its figures.
    pub history: Arc<StoredHistory>,
    /// The clock that the engine goes by.
    pub clock: Arc<dyn Clock>,
    /// Gives out and recognises access tokens.
    pub tokens: Tokens,
    /// Whose word on addresses counts.
    pub proxies: TrustedProxies,
    /// The choices that the documents leave open.
    pub dialect: Dialect,
    /// The limits of requests.
    pub limits: Limits,
    /// How many calls an organization may make; without it, as many as it likes.
    pub rate_limits: Option<RateLimits>,
    /// The counters.
    pub metrics: Metrics,
    /// Permits for questions to the history, [`HISTORY_CALLS_MAX`] of them.
    pub history_calls: Arc<Semaphore>,
    /// Whose turn it is to look for trips: each page looks at all of them.
    pub trip_lists: Arc<Semaphore>,
    /// The public documents.
    pub documents: Documents,
    /// The registries of validators, and what signs tickets.
    pub registries: Arc<Registries>,
    /// What devices must keep to, and their trips are judged by.
    pub trip_rules: TripRules,
}

/// Documents that stay the same while a server runs.
pub struct Documents {
    /// `/.well-known/openid-configuration`
    pub discovery: Bytes,
    /// `/.well-known/jwks.json`
    pub public_keys: Bytes,
}
