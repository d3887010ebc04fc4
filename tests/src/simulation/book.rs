//! The transactions of the model: one plain map, and the rules of settling as catalogue §3.7 and
//! §3.8 tell them.

use std::collections::{BTreeMap, BTreeSet};

use engine::calendar::Timestamp;
use engine::command::{Cancel, Confirm, Rejection, SettleAnswer};
use engine::decide::LimitKey;
use engine::ids::{OrganizationId, TransactionId};
use engine::transaction::{Amounts, Event, Transaction};

/// What became of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The holder refused.
    Cancelled,
    /// The service was delivered.
    Confirmed(Amounts),
    /// Neither yet.
    Open,
}

/// A transaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Whose it is.
    pub organization: OrganizationId,
    /// What was checked; the log does not tell it of everything that was cancelled.
    pub facts: Option<Transaction>,
    /// What became of it.
    pub fate: Fate,
    /// When it last changed.
    pub touched_at: Timestamp,
    /// Whether a check opened it, as opposed to a check that is itself the recorded fact.
    pub opened: bool,
}

/// All transactions.
#[derive(Clone, Debug)]
pub struct Book {
    /// By id.
    pub lines: BTreeMap<TransactionId, Line>,
    ttl_seconds: i64,
}

const NOT_FOUND: SettleAnswer = SettleAnswer::Rejected(Rejection::NotFound);
const MISMATCH: SettleAnswer = SettleAnswer::Rejected(Rejection::Mismatch);
const WRONG_STATE: SettleAnswer = SettleAnswer::Rejected(Rejection::WrongState);

impl Book {
    /// An empty book.
    pub fn new(ttl_seconds: i64) -> Book {
        Book { lines: BTreeMap::new(), ttl_seconds }
    }

    /// What a log says; panics where the log contradicts itself.
    pub fn of_log(events: &[Event], ttl_seconds: i64) -> Book {
        let mut book = Book::new(ttl_seconds);
        let (mut confirmed, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            match event {
                Event::Opened(facts) => match book.lines.get_mut(&facts.id) {
                    None => book.open(*facts),
                    // The opening of a transaction may come behind its end.
                    Some(line) => {
                        assert!(line.fate != Fate::Open, "{} was opened twice", facts.id);
                        assert!(line.facts.is_none_or(|known| known == *facts));
                        line.opened = true;
                    }
                },
                Event::Confirmed(confirmation) => {
                    let facts = confirmation.transaction;
                    let id = facts.id;
                    assert!(confirmed.insert(id), "{id} is confirmed twice in the log");
                    assert!(!cancelled.contains(&id), "{id} is confirmed after it was cancelled");
                    let opened = book.lines.get(&id).is_some_and(|line| line.opened);
                    let fate = Fate::Confirmed(confirmation.amounts);
                    let touched_at = confirmation.confirmed_at;
                    let organization = facts.organization;
                    let line = Line { organization, facts: Some(facts), fate, touched_at, opened };
                    book.lines.insert(id, line);
                }
                Event::Cancelled(cancellation) => {
                    let id = cancellation.transaction;
                    assert!(cancelled.insert(id), "{id} is cancelled twice in the log");
                    assert!(!confirmed.contains(&id), "{id} is cancelled after it was confirmed");
                    let touched_at = cancellation.cancelled_at;
                    let organization = cancellation.organization;
                    let (facts, fate) = (None, Fate::Cancelled);
                    let line = Line { organization, facts, fate, touched_at, opened: true };
                    book.lines.insert(id, line);
                }
            }
        }
        book
    }

    /// A check was granted.
    pub fn open(&mut self, facts: Transaction) {
        let line = Line {
            organization: facts.organization,
            facts: Some(facts),
            fate: Fate::Open,
            touched_at: facts.checked_at,
            opened: true,
        };
        let known = self.lines.insert(facts.id, line);
        assert!(known.is_none(), "transaction {} was given twice", facts.id);
    }

    /// A check that is itself the recorded fact was granted.
    pub fn record(&mut self, facts: Transaction, amounts: Amounts) {
        self.open(facts);
        let line = self.lines.get_mut(&facts.id).unwrap();
        (line.fate, line.opened) = (Fate::Confirmed(amounts), false);
    }

    /// Settles as the rules say.
    pub fn confirm(&mut self, confirm: &Confirm, now: Timestamp) -> SettleAnswer {
        let Some(line) = self.lines.get(&confirm.transaction) else { return NOT_FOUND };
        if line.organization != confirm.organization || line.fate == Fate::Cancelled {
            return NOT_FOUND;
        }
        let Some(facts) = line.facts else { return NOT_FOUND };
        if line.fate == Fate::Open && self.is_over(&facts, now) {
            return NOT_FOUND;
        }
        if facts.holder != confirm.holder || facts.category != confirm.category {
            return MISMATCH;
        }
        match line.fate {
            Fate::Confirmed(amounts) if amounts != confirm.amounts => WRONG_STATE,
            Fate::Confirmed(_) => SettleAnswer::Done,
            _ => {
                let line = self.lines.get_mut(&confirm.transaction).unwrap();
                (line.fate, line.touched_at) = (Fate::Confirmed(confirm.amounts), now);
                SettleAnswer::Done
            }
        }
    }

    /// Deletes as the rules say.
    pub fn cancel(&mut self, cancel: &Cancel, now: Timestamp) -> SettleAnswer {
        let Some(line) = self.lines.get(&cancel.transaction) else { return NOT_FOUND };
        if line.organization != cancel.organization {
            return NOT_FOUND;
        }
        if line.fate == Fate::Cancelled {
            return SettleAnswer::Done;
        }
        let Some(facts) = line.facts else { return NOT_FOUND };
        if line.fate == Fate::Open && self.is_over(&facts, now) {
            return NOT_FOUND;
        }
        if facts.holder != cancel.holder {
            return MISMATCH;
        }
        if line.fate != Fate::Open {
            return WRONG_STATE;
        }
        let line = self.lines.get_mut(&cancel.transaction).unwrap();
        (line.fate, line.touched_at) = (Fate::Cancelled, now);
        SettleAnswer::Done
    }

    /// Uses under a limit: those confirmed, and those that an open check still holds.
    pub fn taken(&self, key: &LimitKey, now: Timestamp) -> usize {
        let lines = self.lines.values().filter_map(|line| Some((line, line.facts?)));
        let under = lines.filter(|(_, facts)| key_of(facts).as_ref() == Some(key));
        let counts = under.filter(|(line, facts)| match line.fate {
            Fate::Cancelled => false,
            Fate::Confirmed(_) => true,
            Fate::Open => !self.is_over(facts, now),
        });
        counts.count()
    }

    /// Every limit that somebody used.
    pub fn keys(&self) -> BTreeSet<LimitKey> {
        self.lines.values().filter_map(|line| key_of(&line.facts?)).collect()
    }

    /// Whether a check can be settled no more: its time is over, or was over when somebody else took
    /// its place, whatever the clock says now.
    fn is_over(&self, facts: &Transaction, now: Timestamp) -> bool {
        let ends = facts.checked_at.plus_seconds(self.ttl_seconds);
        let place_was_taken = key_of(facts).is_some_and(|key| {
            self.lines.values().any(|line| {
                let other = line.facts.filter(|_| line.fate != Fate::Cancelled);
                other.is_some_and(|other| key_of(&other) == Some(key) && other.checked_at >= ends)
            })
        });
        ends <= now || place_was_taken
    }
}

/// The limit that a transaction counts under.
pub fn key_of(facts: &Transaction) -> Option<LimitKey> {
    let period = facts.limit_period?;
    let Transaction { holder, service, category, .. } = *facts;
    Some(LimitKey { holder, service, category, period })
}
