//! The history port: confirmed transactions of years, found by holder, by organization or by id.
//!
//! The history is derived from the log: it follows it by itself and can be rebuilt. A question
//! names the position that its answer must at least include, so that a confirmation which was
//! acknowledged a moment ago is never missing.

use std::time::Instant;

use crate::calendar::Timestamp;
use crate::ids::{HolderId, OrganizationId, TransactionId};
use crate::journal::Position;
use crate::transaction::{Cancellation, Confirmation};

/// Confirmations with `from <= confirmed_at < until`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant outside.
    pub until: Timestamp,
}

/// Which part of a long answer is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Page {
    /// From 0.
    pub index: u64,
    /// Items of a page, at least 1.
    pub size: u32,
}

/// One page of an answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HistoryPage {
    /// Newest first; of the same instant, the higher transaction id first.
    pub items: Vec<Confirmation>,
    /// How many there are on all pages.
    pub total: u64,
}

/// How fresh an answer must be and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// The answer includes everything below this position.
    pub at_least: Position,
    /// When to give up with [`HistoryError::Late`].
    pub deadline: Instant,
}

/// What the history knows of a transaction id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// The holder refused.
    Cancelled(Cancellation),
    /// The service was delivered.
    Confirmed(Confirmation),
}

/// Finds settled transactions. All calls may block on the device, none beyond its deadline for
/// long.
pub trait History: Send + Sync + 'static {
    /// The confirmations of a holder.
    fn of_holder(
        &self,
        holder: HolderId,
        span: Span,
        page: Page,
        freshness: Freshness,
    ) -> Result<HistoryPage, HistoryError>;

    /// The confirmations that an organization gave.
    fn of_organization(
        &self,
        organization: OrganizationId,
        span: Span,
        page: Page,
        freshness: Freshness,
    ) -> Result<HistoryPage, HistoryError>;

    /// What became of one transaction, if it was settled.
    fn settled(
        &self,
        transaction: TransactionId,
        freshness: Freshness,
    ) -> Result<Option<Settled>, HistoryError>;

    /// Tells that the log is now durable up to `end`; returns at once.
    fn follow(&self, end: Position);

    /// Everything below this position is kept by the history itself; the log may drop it.
    fn kept(&self) -> Position;
}

/// Why the history has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The stored history cannot be read.
    #[error("the history cannot be read: {0}")]
    Broken(String),
    /// The history did not follow the log in time.
    #[error("the history has not caught up in time")]
    Late,
}
