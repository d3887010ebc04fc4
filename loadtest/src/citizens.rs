//! The concrete workload: holders of cards and the organizations that serve them.
//!
//! Which request comes next follows the scenario's mix; whose it is follows Zipf's law. Everything
//! is drawn from one seed, so the same answers lead to the same requests. What was asked is kept in
//! slabs, open checks in a bounded queue, limited uses in a table of fixed size, acknowledged facts
//! on disk: memory does not grow with the run.
//!
//! # What is never asked
//! A limited service for a holder of whom a request is under way that may take or give back a
//! limited use: then nobody could say which answer is right. Such a check goes to another service or
//! holder. The same where the table of limited uses is full.

use std::rc::Rc;

use crate::acknowledged::Acknowledged;
use crate::answer::Answer;
use crate::books::Book;
use crate::calendar::{Day, Offset, Wall};
use crate::citizens::desks::Desks;
use crate::citizens::open::{OpenChecks, SettledChecks};
use crate::citizens::task::{Asked, Settle, Slab, Task};
use crate::crowd::{Crowd, Share};
use crate::numbers::{Numbers, mix};
use crate::oracle::Decision;
use crate::places::{PLACES_MAX, Places};
use crate::registry::Registry;
use crate::request::{Call, Check};
use crate::run::WRONG_ANSWERS_MAX;
use crate::scenario::{self, Scenario};
use crate::tally::{Carrier, Kind, Outcome};
use crate::time::Nanos;
use crate::workload::{Ticket, Workload};

mod ask;
mod call;
pub mod desks;
mod judge;
pub mod malformed;
pub mod open;
mod settle;
pub mod task;

/// How far the server's clock and ours may be apart, seconds.
pub const SKEW_SECONDS: i64 = 2;

/// How long before an open check expires its place counts as uncertain.
const EXPIRY_SLACK: Nanos = Nanos::from_seconds(60);
const STREAM: u64 = 0x6369_7469;

/// What a scenario says of citizens.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Everything random follows it.
    pub seed: u64,
    /// The holders that come.
    pub share: Share,
    /// When the run began.
    pub begun: Wall,
    /// Whether the server's clock stands still at `begun`.
    pub is_frozen: bool,
    /// Whether nothing is recorded but by this run.
    pub is_fresh: bool,
    /// Which requests.
    pub mix: scenario::Mix,
    /// Who asks, and how.
    pub citizens: scenario::Citizens,
    /// `resultCode` of a success.
    pub success_code: u32,
    /// Which validators they come to; all counters otherwise.
    pub terminals: Option<Vec<u64>>,
    /// From when on the server may have lost checks that were not confirmed: the first fault, or the
    /// expiry of the first check.
    pub doubt: Nanos,
}

impl Habits {
    /// Those of one thread, from 0, of a scenario.
    pub fn new(scenario: &Scenario, thread: u32, begun: Wall) -> Habits {
        let threads = scenario.threads.max(1);
        let share = Share {
            index: scenario.registry.share.saturating_mul(threads).saturating_add(thread),
            of: scenario.registry.shares.saturating_mul(threads).max(1),
        };
        let seconds = |seconds: f64| Nanos((seconds * 1e9) as u64);
        let faults = scenario.faults.iter().map(|fault| seconds(fault.at_seconds));
        let expiry = Nanos::from_seconds(scenario.dialect.checked_ttl_seconds) - EXPIRY_SLACK;
        let frozen = scenario.frozen();
        Habits {
            seed: scenario.seed,
            share,
            begun: frozen.unwrap_or(begun),
            is_frozen: frozen.is_some(),
            is_fresh: scenario.target.fresh,
            mix: scenario.mix.clone(),
            citizens: scenario.citizens.clone(),
            success_code: scenario.dialect.success_result_code,
            terminals: None,
            doubt: faults.min().map_or(expiry, |fault| fault.min(expiry)),
        }
    }
}

/// Why nobody can come.
#[derive(Debug, thiserror::Error)]
pub enum CitizensError {
    /// Nowhere to write facts.
    #[error("acknowledged facts cannot be written: {0}")]
    Acknowledged(#[from] std::io::Error),
    /// There are fewer holders than shares.
    #[error("this share of the registry has no holders")]
    NoHolders,
    /// No organization can check.
    #[error("no organization of the registry has a web service, a terminal and an offer")]
    NoOrganizations,
}

/// The workload.
pub struct Citizens<'r> {
    registry: &'r Registry,
    habits: Habits,
    numbers: Numbers,
    crowd: Crowd,
    desks: Rc<Desks>,
    kinds: [f64; 8],
    books: Vec<Book>,
    places: Places,
    open: OpenChecks,
    settled: SettledChecks,
    tasks: Slab<Task>,
    batches: Slab<Batch<'r>>,
    dates: Dates,
    acknowledged: Acknowledged,
    right: Vec<Decision>,
    wrong_answers: Vec<String>,
}

/// Checks in one call.
#[derive(Debug, Default)]
struct Batch<'r> {
    asked: Vec<Asked>,
    checks: Vec<Check<'r>>,
}

impl<'r> Citizens<'r> {
    /// The holders of a registry, with these habits.
    pub fn new(registry: &'r Registry, habits: Habits) -> Result<Citizens<'r>, CitizensError> {
        let count = u32::try_from(registry.holders.len()).unwrap_or(u32::MAX);
        let share = habits.share;
        let crowd = Crowd::new(share, count, habits.citizens.zipf_exponent, habits.seed);
        if crowd.size() == 0 {
            return Err(CitizensError::NoHolders);
        }
        let desks = match &habits.terminals {
            Some(terminals) => Desks::of_validators(registry, terminals),
            None => Desks::new(registry),
        };
        if desks.serving.is_empty() {
            return Err(CitizensError::NoOrganizations);
        }
        let mix_of = &habits.mix;
        let history = if desks.history.is_empty() { 0.0 } else { mix_of.history };
        let kinds = [
            mix_of.batch,
            mix_of.cancel,
            mix_of.check,
            mix_of.confirm,
            history,
            mix_of.malformed,
            mix_of.repeat,
            mix_of.services,
        ];
        let size = usize::try_from(share.size(count)).unwrap_or_default();
        Ok(Citizens {
            registry,
            numbers: Numbers::of(habits.seed, STREAM ^ mix(share.index.into())),
            crowd,
            desks: Rc::new(desks),
            kinds,
            books: vec![Book::default(); size],
            places: Places::new(PLACES_MAX),
            open: OpenChecks::default(),
            settled: SettledChecks::default(),
            tasks: Slab::new(),
            batches: Slab::new(),
            dates: Dates::around(habits.begun.day(Offset(0))),
            acknowledged: Acknowledged::create()?,
            right: Vec::new(),
            wrong_answers: Vec::new(),
            habits,
        })
    }

    /// The run begins, later than this was made.
    pub fn begin(&mut self, begun: Wall) {
        if !self.habits.is_frozen {
            self.habits.begun = begun;
            self.dates = Dates::around(begun.day(Offset(0)));
        }
    }

    /// From now on the server may have lost checks that were not confirmed; for crashes that no
    /// scenario announced.
    pub fn doubt(&mut self, now: Nanos) {
        self.habits.doubt = self.habits.doubt.min(now);
    }

    /// The first wrong answers: what was asked, what had to come, what came; nothing personal.
    pub fn wrong_answers(&self) -> &[String] {
        &self.wrong_answers
    }

    /// What the audit needs: facts, and which holders ever came.
    pub fn finish(self) -> (Acknowledged, Vec<u32>) {
        let share = self.habits.share;
        let touched = (0..).zip(&self.books).filter(|(_, book)| book.is_touched());
        let holders = touched.map(|(local, _)| share.place(local)).collect();
        (self.acknowledged, holders)
    }

    fn book(&mut self, holder: u32) -> Option<&mut Book> {
        let local = self.habits.share.local(holder);
        self.books.get_mut(usize::try_from(local).ok()?)
    }

    /// The earliest and the latest date that the server may judge by, if it does so in a span.
    fn days(&self, from: Nanos, until: Nanos, offset: Offset) -> (Day, Day) {
        let habits = &self.habits;
        if habits.is_frozen {
            let day = habits.begun.day(offset);
            return (day, day);
        }
        let first = habits.begun.plus(from).plus_seconds(-SKEW_SECONDS).day(offset);
        let last = habits.begun.plus(until).plus_seconds(SKEW_SECONDS).day(offset);
        (first, last)
    }

    fn offset(&self, organization: u16) -> Offset {
        let organization = self.registry.directory.organization(organization);
        organization.map(|organization| organization.offset).unwrap_or_default()
    }

    fn is_doubtful(&self, now: Nanos) -> bool {
        now >= self.habits.doubt
    }

    /// Notes a wrong answer, and says so.
    fn wrong(&mut self, words: impl FnOnce() -> String) -> Outcome {
        if self.wrong_answers.len() < WRONG_ANSWERS_MAX {
            self.wrong_answers.push(words());
        }
        Outcome::Wrong
    }

    fn ticket(&mut self, kind: Kind, carrier: Carrier, task: Task) -> Ticket {
        Ticket { kind, carrier, slot: self.tasks.insert(task) }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Task> {
        let task = self.tasks.at(ticket.slot).copied();
        self.tasks.release(ticket.slot);
        task
    }
}

impl Workload for Citizens<'_> {
    fn next(&mut self, now: Nanos) -> Ticket {
        let kind = Kind::ALL.get(weighted(&mut self.numbers, &self.kinds)).copied();
        let chosen = match kind.unwrap_or(Kind::Check) {
            Kind::Batch => Some(self.next_batch(now)),
            Kind::Cancel => self.next_settle(true, now),
            Kind::Check => None,
            Kind::Confirm => self.next_settle(false, now),
            Kind::History => self.next_history(now),
            Kind::Malformed => self.next_malformed(),
            Kind::Repeat => self.next_repeat(),
            Kind::Services => self.next_listing(now),
        };
        chosen.unwrap_or_else(|| {
            let (asked, carrier) = self.ask(now);
            self.ticket(Kind::Check, carrier, Task::Check(asked))
        })
    }

    fn call(&self, ticket: Ticket) -> Call<'_> {
        self.call_of(ticket)
    }

    fn judge(&mut self, ticket: Ticket, answer: &Answer<'_>, now: Nanos) -> Outcome {
        match self.take(ticket) {
            Some(Task::Batch(batch)) => self.judge_batch(batch, answer, now),
            Some(Task::Check(asked)) => self.judge_single(&asked, ticket.carrier, answer, now),
            Some(Task::History(past)) => self.judge_history(&past, answer),
            Some(Task::List(listing)) => self.judge_listing(&listing, answer, now),
            Some(Task::Malformed { organization, row }) => {
                self.judge_malformed(organization, row, answer)
            }
            Some(Task::Repeat(repeat)) => self.judge_repeat(&repeat, answer),
            Some(Task::Settle(settle)) => self.judge_settle(settle, answer, now),
            None => Outcome::Wrong,
        }
    }

    fn miss(&mut self, ticket: Ticket, was_sent: bool, now: Nanos) {
        match self.take(ticket) {
            Some(Task::Batch(batch)) => self.miss_batch(batch, was_sent, now),
            Some(Task::Check(asked)) => self.miss_check(&asked, was_sent, now),
            Some(Task::Settle(settle)) => self.miss_settle(settle, was_sent, now),
            Some(Task::History(_) | Task::List(_) | Task::Malformed { .. } | Task::Repeat(_))
            | None => {}
        }
    }
}

/// A place in a list of weights.
fn weighted(numbers: &mut Numbers, weights: &[f64]) -> usize {
    let mut left = numbers.fraction() * weights.iter().sum::<f64>();
    for (place, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return place;
        }
    }
    // Only rounding leads here.
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or_default()
}

/// Texts of dates, so that none is written while a request waits.
struct Dates {
    first: Day,
    texts: Vec<String>,
}

impl Dates {
    const BEFORE: i32 = 60;
    const AFTER: i32 = 366;

    fn around(day: Day) -> Dates {
        let first = day.plus(-Dates::BEFORE);
        let texts = (0..Dates::BEFORE + Dates::AFTER).map(|day| first.plus(day).to_string());
        Dates { first, texts: texts.collect() }
    }

    fn text(&self, day: Day) -> &str {
        let place = usize::try_from(day.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        self.texts.get(place).or(self.texts.last()).map_or("", String::as_str)
    }
}

#[cfg(test)]
#[path = "citizens_tests.rs"]
mod tests;
