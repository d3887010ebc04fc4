//! Confirms and cancels: what their answers must be, and what they leave behind.

use crate::acknowledged::{Fact, Fate};
use crate::answer::Answer;
use crate::citizens::Citizens;
use crate::citizens::open::{Open, Settled, amounts};
use crate::citizens::task::{Asked, Repeat, Repetition, Settle};
use crate::places::Uses;
use crate::tally::Outcome;
use crate::time::Nanos;

/// When a confirm that was not answered is sent again.
const RETRY_AFTER: Nanos = Nanos::from_seconds(1);
const NOT_FOUND: (u16, Option<u32>) = (404, Some(106));
const WRONG_STATE: (u16, Option<u32>) = (409, Some(107));
const MISMATCH: (u16, Option<u32>) = (409, Some(108));
const METHOD_NOT_FOR_TYPE: (u16, Option<u32>) = (403, Some(103));

/// Whether a status says only that the server cannot: overload, no access now (its keys or the
/// organization's secret may have changed), or a failure.
pub(super) fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 429 | 500..=599)
}

impl Citizens<'_> {
    pub(super) fn judge_settle(
        &mut self,
        settle: Settle,
        answer: &Answer<'_>,
        now: Nanos,
    ) -> Outcome {
        self.end_settle(&settle);
        let Settle { open, is_cancel } = settle;
        let outcome = match answer {
            Answer::Done if is_cancel => {
                self.cancelled(&open);
                return Outcome::Right;
            }
            Answer::Done => {
                self.confirmed(open);
                return Outcome::Right;
            }
            Answer::Refusal { status, .. } if is_refusal(*status) => Outcome::Refused,
            // A crash may have taken the check with it; it was never promised to be durable.
            Answer::Refusal { status, code }
                if (*status, *code) == NOT_FOUND && self.is_doubtful(now) =>
            {
                self.doubt_place(&open);
                return Outcome::Refused;
            }
            answer => {
                let what = if is_cancel { "cancel" } else { "confirm" };
                let came = told(answer);
                self.wrong(|| format!("{what} of an open check: had to be done; came {came}"))
            }
        };
        self.unsettled(settle, outcome == Outcome::Refused, now);
        outcome
    }

    pub(super) fn miss_settle(&mut self, settle: Settle, was_sent: bool, now: Nanos) {
        self.end_settle(&settle);
        if was_sent {
            self.unsettled(settle, true, now);
        } else {
            self.open.push(settle.open, now);
        }
    }

    fn end_settle(&mut self, settle: &Settle) {
        let is_limited = settle.open.place.is_some();
        let Some(book) = self.book(settle.open.holder) else { return };
        if !settle.is_cancel {
            book.end();
        } else if is_limited {
            book.set_busy(false);
        }
    }

    fn confirmed(&mut self, open: Open) {
        if let Some(key) = open.place {
            self.places.change(key, Uses::settle);
        }
        if let Some(book) = self.book(open.holder) {
            book.acknowledge(open.transaction);
            if open.is_retried {
                book.resolve();
            }
        }
        self.note(&open, Fate::Must);
        self.settled.push(Settled { open, is_cancelled: false }, &mut self.numbers);
    }

    fn cancelled(&mut self, open: &Open) {
        if let Some(key) = open.place {
            self.places.change(key, Uses::release);
        }
        self.note(open, Fate::Never);
        self.settled.push(Settled { open: *open, is_cancelled: true }, &mut self.numbers);
    }

    /// Nobody knows what became of it. A confirm is sent once more.
    fn unsettled(&mut self, settle: Settle, is_sent_again: bool, now: Nanos) {
        let Settle { mut open, is_cancel } = settle;
        if is_cancel {
            self.doubt_place(&open);
            self.note(&open, Fate::Never);
            return;
        }
        if open.is_retried {
            return;
        }
        if let Some(book) = self.book(open.holder) {
            book.suspect();
        }
        self.note(&open, Fate::May);
        if is_sent_again {
            open.is_retried = true;
            self.open.push(open, now + RETRY_AFTER);
        }
    }

    fn doubt_place(&mut self, open: &Open) {
        if let Some(key) = open.place {
            self.places.change(key, Uses::doubt);
        }
    }

    fn note(&mut self, open: &Open, fate: Fate) {
        self.acknowledged.note(&Fact {
            transaction: open.transaction,
            holder: open.holder,
            organization: open.organization,
            service: open.service,
            discounted_kopecks: amounts(open.transaction).map(|(_, discounted)| discounted),
            fate,
        });
    }

    /// A check that records what it grants was granted, or may have been.
    pub(super) fn note_recorded(&mut self, asked: &Asked, transaction: u64, fate: Fate) {
        let question = &asked.question;
        let Some(holder) = question.person.holder() else { return };
        if let Some(book) = self.book(holder) {
            match fate {
                Fate::Must => book.acknowledge(transaction),
                Fate::May => book.suspect(),
                Fate::Never => {}
            }
        }
        let service = self.registry.directory.service(question.service);
        self.acknowledged.note(&Fact {
            transaction,
            holder,
            organization: question.organization,
            service: service.unwrap_or(u16::MAX),
            discounted_kopecks: None,
            fate,
        });
    }

    pub(super) fn judge_repeat(&mut self, repeat: &Repeat, answer: &Answer<'_>) -> Outcome {
        let expected = match repeat.repetition {
            Repetition::Same => None,
            Repetition::Cancel | Repetition::OtherAmounts => Some(WRONG_STATE),
            Repetition::OtherCategory => Some(MISMATCH),
            Repetition::Confirm | Repetition::OtherOrganization => Some(NOT_FOUND),
            Repetition::OtherType => Some(METHOD_NOT_FOR_TYPE),
        };
        match answer {
            Answer::Refusal { status, .. } if is_refusal(*status) => Outcome::Refused,
            Answer::Done if expected.is_none() => Outcome::Right,
            Answer::Refusal { status, code } if expected == Some((*status, *code)) => {
                Outcome::Right
            }
            answer => {
                let (repetition, came) = (repeat.repetition, told(answer));
                let first = if repeat.settled.is_cancelled { "cancel" } else { "confirm" };
                let had = match expected {
                    None => "done".to_owned(),
                    Some((status, code)) => format!("{status}/{}", code.unwrap_or_default()),
                };
                self.wrong(|| {
                    format!("repeat of a {first} ({repetition:?}): had to be {had}; came {came}")
                })
            }
        }
    }
}

/// An answer in words that are nobody's.
pub(super) fn told(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Batch(items) => format!("{} answers to checks", items.len()),
        Answer::Check(check) => {
            let category = check.benefit.as_ref().map_or(0, |(id, _)| *id);
            format!("code {} and category {category}", check.code)
        }
        Answer::Done => "done".to_owned(),
        Answer::History(page) => format!("{} of {} transactions", page.items.len(), page.total),
        Answer::Offline(decided) => format!("{:?} by the device", decided.verdict),
        Answer::Refusal { status, code: Some(code) } => format!("{status}/{code}"),
        Answer::Refusal { status, code: None } => format!("{status}"),
        Answer::Services(page) => format!("{} of {} services", page.items.len(), page.total),
        Answer::Unreadable => "what nobody can read".to_owned(),
    }
}
