//! What callers ask of the engine, and what they are answered.

use std::time::{Duration, Instant};

use crate::identifier::Digest;
use crate::ids::{CategoryId, HolderId, OrganizationId, ServiceId, TerminalId, TransactionId};
use crate::transaction::Amounts;

/// "Which benefit has this person here and now?" (D0 A2 `CheckClientBenefits`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Check {
    /// Who asks; already authenticated.
    pub organization: OrganizationId,
    /// From which terminal.
    pub terminal: TerminalId,
    /// For which service.
    pub service: ServiceId,
    /// Who the person is.
    pub identifier: Digest,
}

/// The answer to a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckAnswer {
    /// There is a benefit, and a transaction was opened for it.
    Granted(Granted),
    /// There is none.
    Refused(Refusal),
    /// The engine cannot answer now (A7 code 06).
    Unavailable,
}

/// An open transaction, as the caller sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Granted {
    /// What to confirm or cancel.
    pub transaction: TransactionId,
    /// Whose right it is.
    pub holder: HolderId,
    /// The benefit of highest priority.
    pub category: CategoryId,
}

/// Why a check finds no benefit, in the fixed order of evaluation (catalogue §3.6).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// The organization may not check, or the terminal is not one of its active ones (A7 code 07).
    OrganizationUnknown,
    /// The service is not in the organization's list today (A7 code 08).
    ServiceUnknown,
    /// Nobody has this identifier (A7 code 02).
    HolderNotFound,
    /// The card or its holder is not active (A7 code 05).
    CardInactive,
    /// No category of the holder wins this service today (A7 code 01).
    NoBenefit,
}

/// "The service was delivered" (D0 A2 `ConfirmTransaction`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Confirm {
    /// Who says so.
    pub organization: OrganizationId,
    /// For which check.
    pub transaction: TransactionId,
    /// The holder that the check answered.
    pub holder: HolderId,
    /// The category that the check answered.
    pub category: CategoryId,
    /// What was paid.
    pub amounts: Amounts,
}

/// "The holder refused" (D0 §6.2(6)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cancel {
    /// Who says so.
    pub organization: OrganizationId,
    /// For which check.
    pub transaction: TransactionId,
    /// The holder that the check answered.
    pub holder: HolderId,
}

/// The answer to a confirm or a cancel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SettleAnswer {
    /// Done, now or at an earlier identical call, and durable.
    Done,
    /// Not possible; nothing changed.
    Rejected(Rejection),
    /// The engine cannot answer now; the call may be repeated.
    Unavailable,
}

/// Why a transaction cannot be settled as asked, in the order of precedence (catalogue §3.7).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Rejection {
    /// This organization has no such transaction (any more).
    NotFound,
    /// Holder or category are not the answered ones.
    Mismatch,
    /// It was settled otherwise before.
    WrongState,
}

/// Until when an answer is worth anything; past it the work is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// A deadline `after` from now.
    pub fn within(after: Duration) -> Deadline {
        Deadline(Instant::now() + after)
    }

    /// Whether it has passed at `instant`.
    pub fn passed(&self, instant: Instant) -> bool {
        self.0 <= instant
    }
}
