//! The tail: what was settled last, in memory, until there is enough of it for a sorted run of the
//! index.
//!
//! Found by going through it: a column of keys for each question, so that this reads as little as
//! possible. The same record may come twice; whoever reads drops the second one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use engine::calendar::Timestamp;
use engine::history::{Settled, Span};
use engine::ids::{HolderId, OrganizationId, TransactionId};
use engine::transaction::{Cancellation, Confirmation, Event};

/// The last settled transactions.
#[derive(Debug, Default)]
pub(super) struct Tail {
    confirmations: Vec<Confirmation>,
    holders: Vec<HolderId>,
    organizations: Vec<OrganizationId>,
    transactions: Vec<TransactionId>,
    cancellations: BTreeMap<TransactionId, Cancellation>,
}

impl Tail {
    pub(super) fn extend(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Cancelled(cancellation) => {
                    self.cancellations.insert(cancellation.transaction, *cancellation);
                }
                Event::Confirmed(confirmation) => {
                    self.confirmations.push(*confirmation);
                    self.holders.push(confirmation.transaction.holder);
                    self.organizations.push(confirmation.transaction.organization);
                    self.transactions.push(confirmation.transaction.id);
                }
                Event::Opened(_) => {}
            }
        }
    }

    /// Forgets everything and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.confirmations.clear();
        self.holders.clear();
        self.organizations.clear();
        self.transactions.clear();
        self.cancellations.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.confirmations.len() + self.cancellations.len()
    }

    pub(super) fn confirmations(&self) -> &[Confirmation] {
        &self.confirmations
    }

    pub(super) fn cancellations(&self) -> impl Iterator<Item = &Cancellation> {
        self.cancellations.values()
    }

    /// The confirmations of a holder, newest first, each once.
    pub(super) fn of_holder(&self, holder: HolderId, span: Span) -> Vec<Confirmation> {
        newest_first(self.find(&self.holders, holder), span)
    }

    /// The confirmations that an organization gave, newest first, each once.
    pub(super) fn of_organization(
        &self,
        organization: OrganizationId,
        span: Span,
    ) -> Vec<Confirmation> {
        newest_first(self.find(&self.organizations, organization), span)
    }

    /// What became of one transaction.
    pub(super) fn settled(&self, id: TransactionId) -> Option<Settled> {
        let confirmed = self.find(&self.transactions, id).next().copied();
        let cancelled = || self.cancellations.get(&id).copied().map(Settled::Cancelled);
        confirmed.map(Settled::Confirmed).or_else(cancelled)
    }

    fn find<'a, T: Copy + PartialEq>(
        &'a self,
        column: &'a [T],
        wanted: T,
    ) -> impl Iterator<Item = &'a Confirmation> {
        let rows = column.iter().zip(&self.confirmations);
        rows.filter(move |(key, _)| **key == wanted).map(|(_, confirmation)| confirmation)
    }
}

fn newest_first<'a>(
    found: impl Iterator<Item = &'a Confirmation>,
    span: Span,
) -> Vec<Confirmation> {
    let inside = |at: Timestamp| span.from <= at && at < span.until;
    let mut found: Vec<Confirmation> =
        found.filter(|confirmation| inside(confirmation.confirmed_at)).copied().collect();
    let age = |found: &Confirmation| Reverse((found.confirmed_at, found.transaction.id));
    found.sort_unstable_by_key(age);
    found.dedup_by_key(|found| age(found));
    found
}
