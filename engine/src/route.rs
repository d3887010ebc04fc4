//! Where a call is answered: at once, by its shard, or from the history.
//!
//! A check is answered by whoever asks. A confirm or a cancel goes to the shard of its holder unless
//! the answer can no longer change; what memory has forgotten, only the history knows.

use std::sync::Arc;

use crate::answer::Reply;
use crate::command::{Cancel, Check, CheckAnswer, Confirm, Deadline, Rejection, SettleAnswer};
use crate::decide::{Decision, Terms, decide, decide_all, terms};
use crate::history::Settled;
use crate::ids::TransactionId;
use crate::ledger::Entry;
use crate::partition::Partition;
use crate::plan::{
    Plan, plan_cancel, plan_confirm, repeat_cancel, repeat_cancel_of_confirmed, repeat_confirm,
};
use crate::postbox;
use crate::registry::Registry;
use crate::shard::{Shard, ShardCommand};
use crate::transaction::{Amounts, Transaction};

/// What is known of a call without asking a shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// The answer.
    Answer(SettleAnswer),
    /// Memory does not know this transaction; the history may.
    Unknown(TransactionId),
}

impl Partition {
    /// Answers a check of connection type 1 or 2 and opens its transaction. Never waits.
    #[inline]
    pub fn check(&self, registry: &Registry, check: &Check) -> CheckAnswer {
        self.open(self.claim_in(registry, check, self.now()))
    }

    /// Answers many checks, each like [`Partition::check`], to `take`, in order, with the terms of
    /// what was granted. Their holders are looked up in groups.
    pub fn check_all(
        &self,
        registry: &Registry,
        checks: &[Check],
        mut take: impl FnMut(CheckAnswer, Option<Terms>),
    ) {
        postbox::wake_shards();
        let now = self.now();
        decide_all(registry, checks, now, self.ledger(), |check, decision, granted| {
            match self.claim(decision, check, now) {
                Some(claimed) => take(self.open(claimed), granted),
                None => {
                    // Another category may have won meanwhile.
                    let claimed = self.claim_in(registry, check, now);
                    let category = claimed.as_ref().ok().map(|transaction| transaction.category);
                    let terms = category.and_then(|won| terms(registry, check, won, now));
                    take(self.open(claimed), terms);
                }
            }
        });
    }

    #[inline]
    fn open(&self, claimed: Result<Transaction, CheckAnswer>) -> CheckAnswer {
        match claimed {
            Ok(transaction) => {
                self.ledger().open(&transaction);
                CheckAnswer::Granted(transaction.granted())
            }
            Err(answer) => answer,
        }
    }

    /// Hands a check that is itself the recorded fact to its shard, which answers through `reply`.
    /// What needs no shard comes back.
    pub fn submit_record(
        &self,
        check: Check,
        amounts: Amounts,
        deadline: Deadline,
        reply: Reply<CheckAnswer>,
    ) -> Option<CheckAnswer> {
        let benefit = match decide(&self.registry(), &check, self.now(), self.ledger()) {
            Decision::Benefit(benefit) => benefit,
            Decision::Refused(refusal) => return Some(CheckAnswer::Refused(refusal)),
        };
        match self.shard_of(benefit.holder) {
            Some(shard) => shard.submit(ShardCommand::Record(check, amounts, deadline, reply)),
            None => return Some(CheckAnswer::Unavailable),
        }
        None
    }

    /// Hands a confirm to its shard, which answers through `reply`. What needs no shard comes back.
    pub fn submit_confirm(
        &self,
        confirm: Confirm,
        deadline: Deadline,
        reply: Reply<SettleAnswer>,
    ) -> Option<Known> {
        let ledger = self.ledger();
        let now = self.now();
        let route = ledger.with_entry(confirm.transaction, |entry| {
            let plan =
                plan_confirm(Some(entry), &confirm, now, |open| ledger.is_expired(open, now));
            self.route(entry, plan)
        });
        let shard = match route {
            None => return Some(self.unknown(confirm.transaction)),
            Some(Err(answer)) => return Some(Known::Answer(answer)),
            Some(Ok(shard)) => shard,
        };
        match shard {
            Some(shard) => shard.submit(ShardCommand::Confirm(confirm, deadline, reply)),
            None => reply.answer(SettleAnswer::Unavailable),
        }
        None
    }

    /// Hands a cancel to its shard, which answers through `reply`. What needs no shard comes back.
    pub fn submit_cancel(
        &self,
        cancel: Cancel,
        deadline: Deadline,
        reply: Reply<SettleAnswer>,
    ) -> Option<Known> {
        let ledger = self.ledger();
        let now = self.now();
        let route = ledger.with_entry(cancel.transaction, |entry| {
            let plan = plan_cancel(Some(entry), &cancel, now, |open| ledger.is_expired(open, now));
            self.route(entry, plan)
        });
        let shard = match route {
            None => return Some(self.unknown(cancel.transaction)),
            Some(Err(answer)) => return Some(Known::Answer(answer)),
            Some(Ok(shard)) => shard,
        };
        match shard {
            Some(shard) => shard.submit(ShardCommand::Cancel(cancel, deadline, reply)),
            None => reply.answer(SettleAnswer::Unavailable),
        }
        None
    }

    /// The answer, where no batch under way can change it, or the shard that settles the entry. The
    /// caller's word for the holder chooses no shard: another one could answer from an event that is
    /// not durable.
    fn route(&self, entry: &Entry, plan: Plan) -> Result<Option<&Arc<Shard>>, SettleAnswer> {
        let (shard, mark) = match entry {
            Entry::Open(open) => (self.shard_of(open.holder), None),
            Entry::Confirmed(first, mark) => (self.shard_of(first.transaction.holder), Some(*mark)),
            Entry::Cancelled(_, mark) => {
                (self.shards().get(usize::from(mark.shard.0)), Some(*mark))
            }
        };
        let is_durable = |mark| shard.is_some_and(|shard| shard.is_durable(mark));
        let is_final = mark.is_none_or(is_durable);
        match plan {
            Plan::Answer(answer) if is_final => Err(answer),
            _ => Ok(shard),
        }
    }

    fn unknown(&self, id: TransactionId) -> Known {
        if self.ledger().was_given(id) {
            Known::Unknown(id)
        } else {
            Known::Answer(SettleAnswer::Rejected(Rejection::NotFound))
        }
    }
}

/// The answer to a confirm of what the history knows.
pub fn confirm_of_settled(settled: &Settled, confirm: &Confirm) -> SettleAnswer {
    match settled {
        Settled::Confirmed(first) => repeat_confirm(first, confirm),
        Settled::Cancelled(_) => SettleAnswer::Rejected(Rejection::NotFound),
    }
}

/// The answer to a cancel of what the history knows.
pub fn cancel_of_settled(settled: &Settled, cancel: &Cancel) -> SettleAnswer {
    match settled {
        Settled::Confirmed(first) => repeat_cancel_of_confirmed(first, cancel),
        Settled::Cancelled(first) => repeat_cancel(first, cancel),
    }
}
