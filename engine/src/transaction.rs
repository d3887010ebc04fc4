//! A transaction: a check that was answered with a benefit, and what became of it (catalogue §10.2).
//!
//! `CHECKED` leads to `CONFIRMED` or to a tombstone without a holder; a check that nobody confirmed
//! or cancelled within its time to live counts as unknown.

use crate::calendar::{Day, Timestamp};
use crate::command::Granted;
use crate::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId,
};

/// The facts of an answered check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transaction {
    /// Its name on the wire.
    pub id: TransactionId,
    /// Whose terminal asked.
    pub organization: OrganizationId,
    /// The terminal.
    pub terminal: TerminalId,
    /// What the holder wanted.
    pub service: ServiceId,
    /// The benefit that was answered.
    pub category: CategoryId,
    /// Who holds the right.
    pub holder: HolderId,
    /// When the check was answered.
    pub checked_at: Timestamp,
    /// The size of the benefit, 0 to 100; unknown of those that an older program recorded.
    pub discount_percent: Option<u8>,
    /// Where the service is limited for this category: the period in which this transaction holds
    /// one of the places.
    pub limit_period: Option<LimitPeriod>,
}

impl Transaction {
    /// What the caller is told of it.
    pub fn granted(&self) -> Granted {
        Granted { transaction: self.id, holder: self.holder, category: self.category }
    }
}

/// The local dates over which a use of a limited service counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LimitPeriod {
    /// First date.
    pub first: Day,
    /// Last date.
    pub last: Day,
}

/// What was paid, where the acceptor tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amounts {
    /// The full price.
    pub price: Option<Kopecks>,
    /// What the holder paid.
    pub discounted_price: Option<Kopecks>,
}

/// A transaction whose service was delivered: the record that providers are paid from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Confirmation {
    /// The confirmed check.
    pub transaction: Transaction,
    /// When it was confirmed.
    pub confirmed_at: Timestamp,
    /// What was paid.
    pub amounts: Amounts,
}

/// A transaction whose record was deleted because the holder refused (D0 §6.2(6)); it keeps no
/// trace of the holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cancellation {
    /// The cancelled transaction.
    pub transaction: TransactionId,
    /// Who cancelled it.
    pub organization: OrganizationId,
    /// When.
    pub cancelled_at: Timestamp,
}

/// A change of a transaction; the only thing that [`crate::ledger::Ledger::apply`] accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The holder refused.
    Cancelled(Cancellation),
    /// The service was delivered.
    Confirmed(Confirmation),
    /// A check was answered with a benefit.
    Opened(Transaction),
}
