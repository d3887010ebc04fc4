//! From what was asked to the request itself.

use crate::citizens::malformed;
use crate::citizens::open::amounts;
use crate::citizens::task::{Asked, Listing, Past, Repeat, Repetition, Task};
use crate::citizens::{Citizens, Settle};
use crate::oracle::Person;
use crate::request::{Call, Check, Confirm, Identifier, Request};
use crate::workload::Ticket;

impl<'r> Citizens<'r> {
    pub(super) fn call_of(&self, ticket: Ticket) -> Call<'_> {
        match self.tasks.at(ticket.slot) {
            Some(Task::Batch(batch)) => self.batch_call(*batch),
            Some(Task::Check(asked)) => {
                let request = Request::Check(self.check_of(asked));
                let organization = asked.question.organization;
                Call { organization, request, may_repeat: !asked.is_counted() }
            }
            Some(Task::History(past)) => self.history_call(past),
            Some(Task::List(listing)) => listing_call(listing),
            Some(Task::Malformed { organization, row }) => self.malformed_call(*organization, *row),
            Some(Task::Repeat(repeat)) => self.repeat_call(repeat),
            Some(Task::Settle(settle)) => self.settle_call(settle),
            // The generator asks only for tickets that it was given.
            None => listing_call(&EMPTY),
        }
    }

    pub(super) fn check_of(&self, asked: &Asked) -> Check<'r> {
        let question = &asked.question;
        let holders = &self.registry.holders;
        let identifier = match question.person {
            Person::Card { card, .. } => holders.card(card).map(|card| card.identifier()),
            Person::Holder(holder) => {
                let snils = holders.holder(holder).and_then(|holder| holder.snils());
                snils.map(Identifier::Snils)
            }
            Person::Stranger => self.stranger(asked),
        };
        let price = asked.price_kopecks;
        Check {
            service: question.service,
            terminal: question.terminal,
            identifier: identifier.unwrap_or(Identifier::ClientCode("0")),
            price_kopecks: (price > 0).then_some(price.into()),
        }
    }

    fn batch_call(&self, batch: u32) -> Call<'_> {
        let batch = self.batches.at(batch);
        let asked = batch.and_then(|batch| batch.asked.first());
        let organization = asked.map_or(0, |asked| asked.question.organization);
        let checks = batch.map(|batch| batch.checks.as_slice()).unwrap_or_default();
        let may_repeat = !batch.is_some_and(|batch| batch.asked.iter().any(Asked::is_counted));
        Call { organization, request: Request::Batch(checks), may_repeat }
    }

    fn history_call(&self, past: &Past) -> Call<'_> {
        let card = self.registry.holders.card(past.card);
        let request = Request::History {
            identifier: card.map_or(Identifier::ClientCode("0"), |card| card.identifier()),
            from: self.dates.text(self.window_begin(past)),
            to: self.dates.text(past.to),
            page: past.page.into(),
            page_size: past.page_size.into(),
        };
        Call { organization: past.organization, request, may_repeat: true }
    }

    fn malformed_call(&self, organization: u16, row: u16) -> Call<'_> {
        let row = self.malformed_row(organization, row);
        let request = Request::Malformed(row.map_or("", |row| row.body));
        Call { organization, request, may_repeat: true }
    }

    pub(super) fn malformed_row(
        &self,
        organization: u16,
        row: u16,
    ) -> Option<&'static malformed::Malformed> {
        let connection = self.registry.directory.organization(organization)?.connection?;
        malformed::rows(connection).get(usize::from(row))
    }

    fn settle_call(&self, settle: &Settle) -> Call<'_> {
        let open = &settle.open;
        let request = if settle.is_cancel {
            Request::Cancel { holder: self.holder_id(open.holder), transaction: open.transaction }
        } else {
            let amounts = amounts(open.transaction);
            Request::Confirm(self.confirm(open.holder, open.category, open.transaction, amounts))
        };
        Call { organization: open.organization, request, may_repeat: true }
    }

    fn repeat_call(&self, repeat: &Repeat) -> Call<'_> {
        let open = &repeat.settled.open;
        let transaction = open.transaction;
        let same = amounts(transaction);
        let cancel = Request::Cancel { holder: self.holder_id(open.holder), transaction };
        let confirm = |category, amounts| {
            Request::Confirm(self.confirm(open.holder, category, transaction, amounts))
        };
        let request = match repeat.repetition {
            Repetition::Cancel => cancel,
            Repetition::Same if repeat.settled.is_cancelled => cancel,
            Repetition::OtherAmounts => {
                confirm(open.category, Some(same.map_or((1, 1), |(price, paid)| (price + 1, paid))))
            }
            Repetition::OtherCategory => confirm(u16::MAX, same),
            Repetition::Confirm
            | Repetition::OtherOrganization
            | Repetition::OtherType
            | Repetition::Same => confirm(open.category, same),
        };
        Call { organization: repeat.organization, request, may_repeat: true }
    }

    /// A confirm; of a category that is in no directory where the place is beyond the last.
    fn confirm(
        &self,
        holder: u32,
        category: u16,
        transaction: u64,
        amounts: Option<(u32, u32)>,
    ) -> Confirm {
        let categories = &self.registry.directory.categories;
        let beyond = categories.last().map_or(0, |last| last.id.saturating_add(1));
        let known = categories.get(usize::from(category));
        Confirm {
            holder: self.holder_id(holder),
            category: known.map_or(beyond, |known| known.id),
            transaction,
            price_kopecks: amounts.map(|(price, _)| price.into()),
            discounted_kopecks: amounts.map(|(_, discounted)| discounted.into()),
        }
    }

    fn holder_id(&self, holder: u32) -> u64 {
        self.registry.holders.holder(holder).map_or(0, |holder| holder.id)
    }
}

const EMPTY: Listing =
    Listing { organization: 0, page: 0, page_size: 1, first_day: crate::calendar::Day(0) };

fn listing_call(listing: &Listing) -> Call<'static> {
    let Listing { organization, page, page_size, .. } = *listing;
    let request = Request::Services { page: page.into(), page_size: page_size.into() };
    Call { organization, request, may_repeat: true }
}
