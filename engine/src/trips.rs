//! Trips, reimbursement claims and blocks (catalogue §6.5, §6.6).
//!
//! # Map
//! | module | what it is |
//! |---|---|
//! | [`trip`] | one use of a right as a device reports it, and what became of it |
//! | [`ruling`] | what a person decides of disputed trips |
//! | [`registries`] | the port to the holder registries that devices had |
//! | [`judge`] | the rules for one trip, pure |
//! | [`book`] | all trips and claims in memory; changes only by `apply` |
//! | [`forgotten`] | the numbers of trips that have left memory |
//! | [`claim`] | a claim and the states that it goes through |
//! | [`evaluation`] | which trips a new claim may take: what only the sorted whole can tell |
//! | [`listing`] | all trips, page by page |
//! | [`clerk`] | the one writer of the book |
//! | [`desk`] | the clerk's queue and thread |
//! | [`office`] | the façade: what the gateway calls |
//! | [`block`] | since when cards are blocked |
//! | [`stored`] | the stored forms |
//!
//! # An upload
//! Trips wait in a bounded queue. The clerk takes all that wait, judges each one against the book and
//! those before it in the same group, has the new ones journaled, and only when they are durable
//! enters them into the book and answers. After an append whose end is unknown the book is read anew
//! before anything else is judged.
//!
//! # Why
//! *A trip is judged alone when it comes, and beside others when it is claimed.* Rights, registry
//! version, clock and blocks can be told of each trip by itself. Anti-passback between devices, usage
//! limits and one ticket used twice depend on other trips, which may come later: deciding them on
//! arrival would let the order of uploads matter. So they are decided over the sorted whole when a
//! claim is drawn up, and what was decided is journaled.
//!
//! *One writer for all trips, not one a shard.* Trips come in batches of thousands and wait for the
//! disk anyway; one thread judges some hundred thousand a second, and a claim needs all of them.

pub mod block;
pub mod book;
pub mod claim;
pub mod clerk;
pub mod desk;
pub mod evaluation;
pub mod forgotten;
pub mod judge;
pub mod listing;
pub mod office;
pub mod registries;
pub mod ruling;
pub mod stored;
pub mod trip;
