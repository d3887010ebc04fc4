//! Confirms, cancels and recorded checks, from the caller through shard and committer to the answer.

use rand::Rng;
use rand::seq::IndexedRandom;

use engine::command::{Cancel, CheckAnswer, Confirm, SettleAnswer};
use engine::history::{Freshness, History};
use engine::ids::{CategoryId, HolderId, Kopecks, OrganizationId, TransactionId};
use engine::ledger::Entry;
use engine::route::{Known, cancel_of_settled, confirm_of_settled};
use engine::transaction::{Amounts, Transaction};

use crate::memory::MemoryHistory;
use crate::simulation::book::{Book, Fate};
use crate::simulation::call::{Call, Flight, Outcome, Pending, pending};
use crate::simulation::story::Story;
use engine::calendar::Clock;

impl Story {
    pub(crate) fn confirm(&mut self) {
        let Some((known, id)) = self.settled_next() else { return };
        let random = &mut self.random;
        let confirm = Confirm {
            organization: known.organization,
            transaction: id,
            holder: if random.random_bool(0.95) { known.holder } else { HolderId(3) },
            category: if random.random_bool(0.95) { known.category } else { CategoryId(2) },
            amounts: random_amounts(random),
        };
        let waiting = self.waiting();
        let is_late = self.random.random_bool(0.03);
        let call = Call::Confirm(confirm);
        let (pending, reply, deadline) = pending(call, is_late, Outcome::Settle);
        let answer = self.node.partition.submit_confirm(confirm, deadline, reply);
        let answer = answer.map(|known| match known {
            Known::Answer(answer) => answer,
            Known::Unknown(id) => {
                self.history(id).map_or(NOT_FOUND, |settled| confirm_of_settled(&settled, &confirm))
            }
        });
        self.note(|| format!("{call:?}: {answer:?}"));
        self.submitted(pending, answer.map(Outcome::Settle), &waiting);
    }

    pub(crate) fn cancel(&mut self) {
        let Some((known, transaction)) = self.settled_next() else { return };
        let holder = if self.random.random_bool(0.95) { known.holder } else { HolderId(3) };
        let cancel = Cancel { organization: known.organization, transaction, holder };
        let waiting = self.waiting();
        let is_late = self.random.random_bool(0.03);
        let call = Call::Cancel(cancel);
        let (pending, reply, deadline) = pending(call, is_late, Outcome::Settle);
        let answer = self.node.partition.submit_cancel(cancel, deadline, reply);
        let answer = answer.map(|known| match known {
            Known::Answer(answer) => answer,
            Known::Unknown(id) => {
                self.history(id).map_or(NOT_FOUND, |settled| cancel_of_settled(&settled, &cancel))
            }
        });
        self.note(|| format!("{call:?}: {answer:?}"));
        self.submitted(pending, answer.map(Outcome::Settle), &waiting);
    }

    pub(crate) fn record(&mut self) {
        let question = self.question();
        let amounts = random_amounts(&mut self.random);
        let now = self.clock.now();
        let expected = self.town.decide(&question, now, |key| self.book.taken(key, now));
        let waiting = self.waiting();
        let is_late = self.random.random_bool(0.03);
        let call = Call::Record(question, amounts);
        let (pending, reply, deadline) = pending(call, is_late, Outcome::Check);
        let answer = self.node.partition.submit_record(question.check(), amounts, deadline, reply);
        self.note(|| format!("{call:?} at {now}: {answer:?}"));
        match answer {
            Some(answer) => {
                assert_eq!(answer, CheckAnswer::Refused(expected.unwrap_err()));
            }
            None => {
                assert!(expected.is_ok());
                self.submitted(pending, None, &waiting);
            }
        }
    }

    /// A transaction to settle, mostly a recent one, now and then one of somebody else.
    fn settled_next(&mut self) -> Option<(Transaction, TransactionId)> {
        let random = &mut self.random;
        let recent = self.granted.len().saturating_sub(12);
        let from = if random.random_bool(0.8) { recent } else { 0 };
        let mut known = *self.granted.get(from..)?.choose(random)?;
        let id = match random.random_range(0..50) {
            0 => TransactionId(random.random()),
            1 => TransactionId(known.id.0 + 1),
            _ => known.id,
        };
        if random.random_bool(0.04) {
            known.organization = OrganizationId(known.organization.0 % 4 + 1);
        }
        Some((known, id))
    }

    fn waiting(&self) -> Vec<usize> {
        self.node.partition.shards().iter().map(|shard| shard.waiting()).collect()
    }

    /// A call was handed over: it has its answer at once, or waits for a shard.
    fn submitted(&mut self, pending: Pending, answer: Option<Outcome>, waiting: &[usize]) {
        let now = self.waiting();
        if let Some(shard) = (0..now.len()).find(|shard| now[*shard] > waiting[*shard]) {
            assert!(answer.is_none() && !self.has_failed);
            self.mailboxes[shard].push_back(pending);
            return;
        }
        let answer = answer.or_else(|| pending.heard()).unwrap();
        if answer.is_unavailable() {
            let has_reason = self.has_failed || self.retired.is_some();
            assert!(has_reason, "a shard was down without a reason");
            return;
        }
        let ttl = self.settings.checked_ttl_seconds;
        let mut durable = Book::of_log(&self.disk.journal.events(), ttl);
        let durable = self.expected(&pending.call, &mut durable);
        // What memory has forgotten, the history knows, and of that only what is durable.
        if answer != durable {
            assert_eq!(answer, self.expected(&pending.call, &mut self.book.clone()), "at once");
            assert!(answer != Outcome::Settle(SettleAnswer::Done), "done, but not durable");
        }
    }

    /// A shard works off its mailbox; its answers are compared with the model's.
    pub(crate) fn drain(&mut self) {
        let shard = self.random.random_range(0..self.mailboxes.len());
        self.note(|| format!("drain {shard}"));
        self.drain_shard(shard);
    }

    pub(crate) fn drain_shard(&mut self, shard: usize) {
        if self.is_retired(shard) {
            assert!(self.node.drain_abandoned(shard).is_empty());
            return;
        }
        let submissions = self.node.drain(shard);
        if self.node.partition.shards()[shard].waiting() > 0 {
            assert!(
                submissions.is_empty(),
                "only a shard with much in flight leaves calls waiting"
            );
            return;
        }
        assert!(submissions.len() <= 1);
        for submission in submissions {
            let planned: Vec<Outcome> = submission.answers.iter().map(Outcome::planned).collect();
            let mut planned = planned.into_iter();
            let mut calls = Vec::new();
            for pending in std::mem::take(&mut self.mailboxes[shard]) {
                if pending.is_late {
                    assert!(pending.heard().is_some_and(|heard| heard.is_unavailable()));
                    continue;
                }
                let answer = planned.next().unwrap();
                self.note(|| format!("  {:?} will be {answer:?}", pending.call));
                self.worked_on(shard, &pending.call, answer);
                calls.push((pending, answer));
            }
            assert_eq!(planned.next(), None);
            self.flights.push_back(Flight { submission, calls });
        }
    }

    fn worked_on(&mut self, shard: usize, call: &Call, answer: Outcome) {
        let Call::Record(question, amounts) = call else {
            let mut book = std::mem::replace(&mut self.book, Book::new(0));
            if answer.is_unavailable() {
                assert!(self.is_forgotten(call), "{call:?} was not worked on");
            } else {
                assert_eq!(answer, self.expected(call, &mut book));
            }
            self.book = book;
            return;
        };
        let now = self.clock.now();
        let expected = self.town.decide(question, now, |key| self.book.taken(key, now));
        let ledger = self.node.partition.ledger();
        match (expected, answer) {
            (Err(expected), Outcome::Check(CheckAnswer::Refused(refusal))) => {
                assert_eq!(refusal, expected);
            }
            (_, Outcome::Check(CheckAnswer::Unavailable)) => {
                let holder = self.town.find(question.identifier).map(|(id, ..)| HolderId(id));
                let moved = holder.is_some_and(|id| usize::from(ledger.shard(id).0) != shard);
                let is_full = ledger.transaction_count() >= self.settings.transactions_max;
                assert!(moved || is_full);
            }
            (Ok(benefit), Outcome::Check(CheckAnswer::Granted(granted))) => {
                assert_eq!(usize::from(ledger.shard(granted.holder).0), shard, "not its holder");
                assert_eq!(granted.holder.0, benefit.holder);
                assert_eq!(granted.category.0, benefit.category);
                assert!(self.ids.insert(granted.transaction), "an id is given again");
                let facts = self.facts(question, granted, &benefit);
                self.book.record(facts, *amounts);
                self.granted.push(facts);
            }
            (expected, answer) => panic!("{answer:?} instead of {expected:?}"),
        }
    }

    /// Whether a sweep may have forgotten what this call speaks of, since it was made.
    fn is_forgotten(&self, call: &Call) -> bool {
        let id = match call {
            Call::Cancel(cancel) => cancel.transaction,
            Call::Confirm(confirm) => confirm.transaction,
            Call::Record(..) => return false,
        };
        self.node.partition.ledger().with_entry(id, |_| ()).is_none() && self.swept_at.is_some()
    }

    /// What the model answers to a confirm or a cancel.
    fn expected(&self, call: &Call, book: &mut Book) -> Outcome {
        let now = self.clock.now();
        Outcome::Settle(match call {
            Call::Cancel(cancel) => book.cancel(cancel, now),
            Call::Confirm(confirm) => book.confirm(confirm, now),
            Call::Record(..) => SettleAnswer::Unavailable,
        })
    }

    /// The committer makes a frame of some of what waits.
    pub(crate) fn commit(&mut self) {
        if self.has_failed {
            return;
        }
        let count = self.random.random_range(0..=self.flights.len());
        self.note(|| format!("commit {count} of {}", self.flights.len()));
        self.commit_first(count);
    }

    /// Works off and commits all that waits; false when the journal failed.
    pub(crate) fn commit_all(&mut self) -> bool {
        if !self.has_failed {
            self.commit_first(self.flights.len());
        }
        !self.has_failed
    }

    fn commit_first(&mut self, count: usize) {
        let flights: Vec<Flight> = self.flights.drain(..count).collect();
        let (batches, calls): (Vec<_>, Vec<_>) =
            flights.into_iter().map(|flight| (flight.submission, flight.calls)).unzip();
        let committed = self.node.commit(batches);
        for (pending, planned) in calls.into_iter().flatten() {
            let heard = pending.heard().unwrap();
            if committed {
                assert_eq!(heard, planned);
                self.acknowledged(&pending.call, heard);
            } else {
                assert!(heard.is_unavailable(), "{heard:?} although the journal failed");
            }
        }
        if !committed {
            self.failed();
        }
    }

    fn acknowledged(&mut self, call: &Call, answer: Outcome) {
        match (call, answer) {
            (Call::Confirm(confirm), Outcome::Settle(SettleAnswer::Done)) => {
                let first = self.confirmed.insert(confirm.transaction, confirm.amounts);
                assert!(first.is_none_or(|first| first == confirm.amounts));
            }
            (Call::Cancel(cancel), Outcome::Settle(SettleAnswer::Done)) => {
                self.cancelled.insert(cancel.transaction);
            }
            (Call::Record(_, amounts), Outcome::Check(CheckAnswer::Granted(granted))) => {
                assert_eq!(self.confirmed.insert(granted.transaction, *amounts), None);
            }
            _ => {}
        }
    }

    /// The journal has failed: whatever waits for a shard is refused at once.
    pub(crate) fn failed(&mut self) {
        self.note(|| "the journal fails".to_owned());
        self.has_failed = true;
        for pending in self.mailboxes.iter_mut().flat_map(std::mem::take) {
            assert!(pending.heard().is_some_and(|heard| heard.is_unavailable()));
        }
    }

    /// Batches that never reached the journal are refused.
    pub(crate) fn refuse_flights(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            self.node.partition.end([flight.submission], false);
            for (pending, _) in flight.calls {
                assert!(pending.heard().is_some_and(|heard| heard.is_unavailable()));
            }
        }
    }

    /// The model goes on from what the log says and from the checks that only memory knows: all that
    /// were open, or after a crash those that a snapshot brought back.
    pub(crate) fn reread(&mut self, memory_was_kept: bool) {
        let durable = Book::of_log(&self.disk.journal.events(), self.settings.checked_ttl_seconds);
        let former = std::mem::replace(&mut self.book, durable);
        let opened = former.lines.into_values().filter(|line| line.opened);
        let kept = opened.filter_map(|line| {
            // A cancel that is undone has forgotten its holder; a snapshot may not have.
            Some((line.facts?, memory_was_kept && line.fate != Fate::Cancelled))
        });
        let lost = std::mem::take(&mut self.lost).into_iter().map(|facts| (facts, false));
        for (facts, is_kept) in kept.chain(lost).collect::<Vec<_>>() {
            let ledger = self.node.partition.ledger();
            if self.book.lines.contains_key(&facts.id) {
                continue;
            }
            if is_kept || ledger.entry(facts.id) == Some(Entry::Open(facts)) {
                self.book.open(facts);
            } else {
                self.lost.push(facts);
            }
        }
    }

    fn history(&self, id: TransactionId) -> Option<engine::history::Settled> {
        let deadline = std::time::Instant::now();
        let freshness = Freshness { at_least: self.node.partition.durable(), deadline };
        MemoryHistory(self.disk.journal.clone()).settled(id, freshness).unwrap()
    }
}

const NOT_FOUND: SettleAnswer = SettleAnswer::Rejected(engine::command::Rejection::NotFound);

fn random_amounts(random: &mut impl Rng) -> Amounts {
    let price = Some(Kopecks(10_000));
    match random.random_range(0..10) {
        0..8 => Amounts { price, discounted_price: Some(Kopecks(5_000)) },
        8 => Amounts { price, discounted_price: None },
        _ => Amounts::default(),
    }
}
