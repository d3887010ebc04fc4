//! The decision core of eligo: who holds a card, which benefit wins, and the record that it was used.
//!
//! # Map
//! | module | what it is |
//! |---|---|
//! | [`engine`], [`start`], [`status`] | the façade: what the gateway calls; what it is started with; its figures |
//! | [`decide`], [`plan`] | the rules, pure: which benefit wins; how a transaction is settled |
//! | [`registry`], [`directory`] | everything imported, one immutable value per revision |
//! | [`ledger`], [`table`] | transactions and limited places, shared by checks and shards |
//! | [`shard`], [`shard_actor`] | mailboxes, the workers that empty them in batches, their actors |
//! | [`committer`] | one frame for all batches that wait; answers once it is durable |
//! | [`answer`], [`postbox`] | answers on their way back, one by one or many at a time for one thread |
//! | [`partition`] | what all of these share |
//! | [`import`] | from a registry file to the next revision |
//! | [`recovery`], [`checkpoint`], [`supervisor`] | state from snapshot and log; snapshots; restarts |
//! | [`journal`], [`snapshot`], [`history`], [`calendar::Clock`] | the ports: log, snapshots, past, time |
//! | [`record`], [`entries`] | stored forms |
//! | [`identifier`], [`keys`], [`ids`], [`calendar`], [`command`], [`transaction`], [`holder`] | the words of the field as types |
//! | [`trips`] | what validators report, and what carriers are paid for it |
//! | [`limits`], [`invariant`] | every limit and every promise by name |
//!
//! # A check
//! Runs on the caller's thread and waits for nobody: it takes the registry's present revision
//! (one pointer), decides ([`decide::decide`]), claims an id and, where uses are limited, a place
//! ([`ledger::Ledger::claim`]), puts the open transaction into the ledger and its opening into a
//! bounded queue that the committer empties with its next frame. A power cut may lose openings that
//! were not journaled yet; a confirm of such a check answers like one of an unknown transaction.
//!
//! # A confirm
//! The caller's thread finds the shard of the holder and puts the command into its mailbox (full:
//! Unavailable at once). The shard's actor drains the mailbox, plans each command anew against the
//! ledger ([`plan`]), applies the event, and hands records and answers to the committer. The
//! committer makes one frame of all that waits, appends it to the journal, and only then sends the
//! answers. A repeat of a durable confirm is answered on the caller's thread from the ledger; one
//! that is older than the ledger's memory from the history.
//!
//! # An import
//! The file is parsed and applied to a copy of the registry, which shares everything that does not
//! change; its parts and then its commit are journaled; then the copy is published in one step.
//!
//! # A failure
//! A shard that is dead or stuck answers Unavailable; the supervisor replays snapshot and log into a
//! ledger of its own, takes this shard's part of it and starts a new actor. A failed append stops
//! all shards: the committer takes the partition again (a new epoch fences what was under way),
//! replays, and resumes. Between the two nothing is acknowledged.
//!
//! # Why
//! *One log per partition, not per shard.* Imports and confirms of all shards have one order, a
//! group commit carries all of them, and a snapshot needs one position.
//!
//! *The registry has one writer, transactions have shards.* Checks outnumber imports by millions; an
//! immutable registry makes a check lock-free and a batch consistent. What must be serialised per
//! holder (settling, limited places) is what the shards own.
//!
//! *Actors only where work waits for a disk.* A lone hop to another thread and back costs half as
//! much as a whole HTTP request; a check makes none.

#[cfg(feature = "server")]
pub mod answer;
pub mod calendar;
#[cfg(feature = "server")]
pub mod checkpoint;
#[cfg(feature = "server")]
pub mod command;
#[cfg(feature = "server")]
pub mod committer;
#[cfg(feature = "server")]
pub mod decide;
#[cfg(feature = "server")]
pub mod directory;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod entries;
#[cfg(feature = "server")]
pub mod history;
#[cfg(feature = "server")]
pub mod holder;
pub mod identifier;
pub mod ids;
#[cfg(feature = "server")]
pub mod import;
#[cfg(feature = "server")]
pub mod invariant;
#[cfg(feature = "server")]
pub mod journal;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod ledger;
#[cfg(feature = "server")]
pub mod limits;
#[cfg(feature = "server")]
pub mod partition;
#[cfg(feature = "server")]
pub mod plan;
#[cfg(feature = "server")]
pub mod postbox;
#[cfg(feature = "server")]
pub mod record;
#[cfg(feature = "server")]
pub mod recovery;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod route;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod shard_actor;
#[cfg(feature = "server")]
pub mod snapshot;
#[cfg(feature = "server")]
pub mod start;
#[cfg(feature = "server")]
pub mod status;
#[cfg(feature = "server")]
pub mod supervisor;
#[cfg(feature = "server")]
pub mod table;
#[cfg(feature = "server")]
pub mod transaction;
#[cfg(feature = "server")]
pub mod trips;
