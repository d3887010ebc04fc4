//! Confirms and cancels: from the message to the engine, and its answer back.

use engine::command::{Cancel, Confirm, Deadline, Rejection, SettleAnswer};
use engine::engine::Engine;
use engine::ids::{CategoryId, HolderId, Kopecks, OrganizationId, TransactionId};
use engine::transaction::Amounts;
use validator::link::message::{self, AckCode};

/// What a settlement asks of the engine.
#[derive(Clone, Copy, Debug)]
pub enum Settlement {
    /// The holder refused.
    Cancel(Cancel),
    /// The service was delivered.
    Confirm(Confirm),
}

impl Settlement {
    /// The settlement of a confirm; nothing where its amounts cannot be.
    pub fn confirm(organization: OrganizationId, given: &message::Confirm) -> Option<Settlement> {
        let amounts =
            Amounts { price: amount(given.price)?, discounted_price: amount(given.discounted)? };
        let pair = amounts.price.zip(amounts.discounted_price);
        let is_reversed = pair.is_some_and(|(price, discounted)| discounted > price);
        (!is_reversed).then_some(Settlement::Confirm(Confirm {
            organization,
            transaction: TransactionId(given.tx),
            holder: HolderId(given.holder),
            category: CategoryId(given.category),
            amounts,
        }))
    }

    /// The settlement of a cancel.
    pub fn cancel(organization: OrganizationId, given: &message::Cancel) -> Settlement {
        let transaction = TransactionId(given.tx);
        Settlement::Cancel(Cancel { organization, transaction, holder: HolderId(given.holder) })
    }

    /// The answer where memory does not know the transaction.
    pub async fn in_history(self, engine: &Engine, until: Deadline) -> SettleAnswer {
        match self {
            Settlement::Cancel(cancel) => engine.cancel_in_history(cancel, until).await,
            Settlement::Confirm(confirm) => engine.confirm_in_history(confirm, until).await,
        }
    }
}

/// The answer on the wire.
pub fn ack_code(answer: SettleAnswer) -> AckCode {
    match answer {
        SettleAnswer::Done => AckCode::Done,
        SettleAnswer::Rejected(Rejection::Mismatch) => AckCode::Mismatch,
        SettleAnswer::Rejected(Rejection::NotFound) => AckCode::NotFound,
        SettleAnswer::Rejected(Rejection::WrongState) => AckCode::WrongState,
        SettleAnswer::Unavailable => AckCode::Unavailable,
    }
}

/// An amount that the records can hold.
pub fn amount(kopecks: Option<u64>) -> Option<Option<Kopecks>> {
    match kopecks {
        Some(kopecks) => i64::try_from(kopecks).ok().map(|_| Some(Kopecks(kopecks))),
        None => Some(None),
    }
}
