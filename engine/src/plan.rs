//! From a command to an event or an answer: the rules of settling (catalogue §3.7, §3.8, §10.4).
//!
//! Pure: what is known of the transaction, the command and the instant go in.

use crate::calendar::Timestamp;
use crate::command::{Cancel, Confirm, Rejection, SettleAnswer};
use crate::ledger::Entry;
use crate::transaction::{Cancellation, Confirmation, Event, Transaction};

/// What a command leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Nothing changes; this is the answer.
    Answer(SettleAnswer),
    /// This happens, and the answer is Done once it is durable.
    Apply(Event),
}

const NOT_FOUND: Plan = Plan::Answer(SettleAnswer::Rejected(Rejection::NotFound));
const MISMATCH: Plan = Plan::Answer(SettleAnswer::Rejected(Rejection::Mismatch));

/// Plans a confirm. The right is not judged again: what the check granted within its time to live
/// is honoured, because the service has been delivered on its word.
pub fn plan_confirm(
    entry: Option<&Entry>,
    confirm: &Confirm,
    now: Timestamp,
    is_expired: impl FnOnce(&Transaction) -> bool,
) -> Plan {
    match entry {
        Some(Entry::Open(open)) if open.organization == confirm.organization => {
            if is_expired(open) {
                NOT_FOUND
            } else if !matches(open, confirm) {
                MISMATCH
            } else {
                let amounts = confirm.amounts;
                let transaction = *open;
                Plan::Apply(Event::Confirmed(Confirmation {
                    transaction,
                    confirmed_at: now,
                    amounts,
                }))
            }
        }
        Some(Entry::Confirmed(first, _)) => Plan::Answer(repeat_confirm(first, confirm)),
        Some(Entry::Open(_) | Entry::Cancelled(..)) | None => NOT_FOUND,
    }
}

/// A confirm of what was confirmed before gets the first answer, if it says the same.
pub fn repeat_confirm(first: &Confirmation, confirm: &Confirm) -> SettleAnswer {
    if first.transaction.organization != confirm.organization {
        SettleAnswer::Rejected(Rejection::NotFound)
    } else if !matches(&first.transaction, confirm) {
        SettleAnswer::Rejected(Rejection::Mismatch)
    } else if first.amounts != confirm.amounts {
        SettleAnswer::Rejected(Rejection::WrongState)
    } else {
        SettleAnswer::Done
    }
}

/// Plans a cancel.
pub fn plan_cancel(
    entry: Option<&Entry>,
    cancel: &Cancel,
    now: Timestamp,
    is_expired: impl FnOnce(&Transaction) -> bool,
) -> Plan {
    match entry {
        Some(Entry::Open(open)) if open.organization == cancel.organization => {
            if is_expired(open) {
                NOT_FOUND
            } else if open.holder != cancel.holder {
                MISMATCH
            } else {
                Plan::Apply(Event::Cancelled(Cancellation {
                    transaction: cancel.transaction,
                    organization: cancel.organization,
                    cancelled_at: now,
                }))
            }
        }
        Some(Entry::Confirmed(first, _)) => Plan::Answer(repeat_cancel_of_confirmed(first, cancel)),
        Some(Entry::Cancelled(first, _)) => Plan::Answer(repeat_cancel(first, cancel)),
        Some(Entry::Open(_)) | None => NOT_FOUND,
    }
}

/// A cancel of what was cancelled before gets the first answer.
pub fn repeat_cancel(first: &Cancellation, cancel: &Cancel) -> SettleAnswer {
    if first.organization == cancel.organization {
        SettleAnswer::Done
    } else {
        SettleAnswer::Rejected(Rejection::NotFound)
    }
}

/// What was confirmed cannot be cancelled.
pub fn repeat_cancel_of_confirmed(first: &Confirmation, cancel: &Cancel) -> SettleAnswer {
    if first.transaction.organization != cancel.organization {
        SettleAnswer::Rejected(Rejection::NotFound)
    } else if first.transaction.holder != cancel.holder {
        SettleAnswer::Rejected(Rejection::Mismatch)
    } else {
        SettleAnswer::Rejected(Rejection::WrongState)
    }
}

fn matches(transaction: &Transaction, confirm: &Confirm) -> bool {
    transaction.holder == confirm.holder && transaction.category == confirm.category
}
