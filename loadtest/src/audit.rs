//! After the run: the server's history compared with what it acknowledged.
//!
//! Every holder who came is asked for, page by page, many at a time over a [`Transport`]. Facts are
//! read from disk in passes, each for a part of the holders, so that memory stays bounded. What the
//! server cannot answer is asked again, unless it answers nothing any more; whose history stays unread
//! is counted, never left out.
//!
//! # Why
//! A confirm that was doubled under another id, or made up, is listed and was never acknowledged. Where
//! nobody else records anything that is a phantom. Where others may, it is told by its date: what is
//! older than the run is theirs, and what is not is unexplained, which proves nothing either way.
//! Nothing unexplained proves as much as a fresh server does.

use std::collections::VecDeque;
use std::io;

use serde::{Deserialize, Serialize};

use crate::acknowledged::{Acknowledged, Fact, Fate};
use crate::answer::{Answer, HistoryItem, Page};
use crate::calendar::Wall;
use crate::registry::Registry;
use crate::request::{Call, Request};
use crate::time::{Clock, Nanos};
use crate::transport::{Event, Tag, Transport};

/// Facts in memory at a time, unless one holder has more.
const FACTS_PER_PASS: u64 = 150_000;
/// Histories that are read at the same time.
const IN_FLIGHT_MAX: usize = 16;
/// Items a page (catalogue §3.9).
const PAGE_SIZE: u32 = 1_000;
/// Items of one holder that are read.
const ITEMS_MAX: usize = 1_000_000;
/// Tries of one page.
const TRIES_MAX: u32 = 8;
const RETRY_AFTER: Nanos = Nanos::from_millis(500);
const TIMEOUT: Nanos = Nanos::from_seconds(10);
/// How long a server may answer nothing: longer than a restart takes.
const SILENCE: Nanos = Nanos::from_seconds(60);
const TURN: Nanos = Nanos::from_millis(20);

/// What the comparison brought. What is altered, doubled, lost or a phantom must be 0.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Audit {
    /// Transactions that the server acknowledged.
    pub acknowledged: u64,
    /// Transactions that it may have recorded.
    pub uncertain: u64,
    /// Holders whose history was read to its end.
    pub checked_holders: u64,
    /// Holders whose history could not be read, so that nothing is known of them.
    pub unchecked_holders: u64,
    /// Listed otherwise than it was acknowledged: organization, service or amount.
    pub altered: u64,
    /// Listed more than once, or acknowledged for two checks under one id.
    pub doubled: u64,
    /// Acknowledged, but not listed.
    pub lost: u64,
    /// Listed, though cancelled or never confirmed.
    pub phantom: u64,
    /// Listed since the run began and never confirmed by it, where others may have: theirs, doubled or
    /// made up.
    #[serde(default)]
    pub unexplained: u64,
}

impl Audit {
    /// Whether nothing was lost, doubled, altered or made up.
    pub fn is_clean(&self) -> bool {
        (self.altered, self.doubled, self.lost, self.phantom) == (0, 0, 0, 0)
    }

    /// Adds that of other holders.
    pub fn add(&mut self, other: &Audit) {
        self.acknowledged += other.acknowledged;
        self.uncertain += other.uncertain;
        self.checked_holders += other.checked_holders;
        self.unchecked_holders += other.unchecked_holders;
        self.altered += other.altered;
        self.doubled += other.doubled;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.unexplained += other.unexplained;
    }
}

/// What is compared.
pub struct Subject<'a> {
    /// The registry of the run.
    pub registry: &'a Registry,
    /// The holders who came, by places in the sample, ascending.
    pub holders: &'a [u32],
    /// Who may ask for the history, by place.
    pub organization: u16,
    /// The first date of the run, a day before it to be safe: `YYYY-MM-DD`.
    pub from: &'a str,
    /// The last date, a day after it to be safe.
    pub to: &'a str,
    /// What is listed with an earlier instant was there before the run.
    pub begun: Wall,
    /// Whether nobody else recorded anything for these holders between these dates.
    pub is_fresh: bool,
    /// When to give up.
    pub deadline: Nanos,
    /// Whether to give up now.
    pub is_unwanted: &'a dyn Fn() -> bool,
}

/// Compares; fails only where facts cannot be read back.
pub fn compare(
    subject: &Subject<'_>,
    facts: &mut Acknowledged,
    transport: &mut dyn Transport,
    clock: &dyn Clock,
) -> io::Result<Audit> {
    let mut audit = Audit::default();
    let mut is_over = false;
    let mut count = 0;
    facts.for_each(|_| count += 1)?;
    let passes = u32::try_from(count / FACTS_PER_PASS).unwrap_or(u32::MAX).saturating_add(1);
    for pass in 0..passes {
        let is_mine = |holder: u32| holder % passes == pass;
        let holders = subject.holders.iter().copied().filter(|holder| is_mine(*holder));
        if is_over {
            audit.unchecked_holders += u64::try_from(holders.count()).unwrap_or(u64::MAX);
            continue;
        }
        let mut mine = Vec::new();
        facts.for_each(|fact| mine.extend(is_mine(fact.holder).then_some(fact)))?;
        mine.sort_unstable_by_key(|fact| (fact.holder, fact.transaction, fact.fate));
        let mut reader = Reader {
            subject,
            facts: &mine,
            again: VecDeque::new(),
            flights: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
            heard: clock.now(),
            audit: &mut audit,
        };
        is_over = !reader.read(holders, transport, clock);
    }
    Ok(audit)
}

/// The facts of a holder among sorted ones.
fn of(facts: &[Fact], holder: u32) -> &[Fact] {
    let begin = facts.partition_point(|fact| fact.holder < holder);
    let end = facts.partition_point(|fact| fact.holder <= holder);
    facts.get(begin..end).unwrap_or_default()
}

/// A history that is being read.
struct History {
    holder: u32,
    page: u32,
    items: Vec<HistoryItem>,
    tries: u32,
    not_before: Nanos,
}

struct Reader<'a> {
    subject: &'a Subject<'a>,
    facts: &'a [Fact],
    /// Histories with pages left, or to be asked for again.
    again: VecDeque<History>,
    flights: Vec<Option<(History, Nanos)>>,
    /// When the last page came.
    heard: Nanos,
    audit: &'a mut Audit,
}

impl Reader<'_> {
    /// Reads all histories; tells whether it was not given up.
    fn read(
        &mut self,
        mut holders: impl Iterator<Item = u32>,
        transport: &mut dyn Transport,
        clock: &dyn Clock,
    ) -> bool {
        loop {
            let now = clock.now();
            let is_silent = now >= self.heard + SILENCE;
            if is_silent || now >= self.subject.deadline || (self.subject.is_unwanted)() {
                self.give_up(holders, transport);
                return false;
            }
            self.abandon_late(now, transport);
            while transport.is_free()
                && let Some(slot) = self.flights.iter().position(Option::is_none)
                && let Some(history) = self.next(&mut holders, now)
            {
                self.send(slot, history, now, transport);
            }
            if self.again.is_empty() && self.flights.iter().all(Option::is_none) {
                return true;
            }
            let mut answers: Vec<(Tag, Option<Page<HistoryItem>>)> = Vec::new();
            let until = (now + TURN).min(self.subject.deadline);
            transport.poll(until, &mut |event| match event {
                Event::Answered { tag, answer: Answer::History(page), .. } => {
                    answers.push((tag, Some(page)));
                }
                Event::Answered { tag, .. } | Event::Lost { tag, .. } => answers.push((tag, None)),
            });
            for (tag, page) in answers {
                self.take(tag, page, clock.now());
            }
        }
    }

    fn next(&mut self, holders: &mut impl Iterator<Item = u32>, now: Nanos) -> Option<History> {
        if let Some(at) = self.again.iter().position(|history| history.not_before <= now) {
            return self.again.remove(at);
        }
        // A history that is read on soon comes before a new one, so that memory stays bounded.
        if self.again.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let holder = holders.next()?;
        Some(History { holder, page: 0, items: Vec::new(), tries: 0, not_before: now })
    }

    fn send(&mut self, slot: usize, history: History, now: Nanos, transport: &mut dyn Transport) {
        let holders = &self.subject.registry.holders;
        let card = holders.cards_of(history.holder).next().and_then(|card| holders.card(card));
        let (Some(card), Ok(tag)) = (card, u32::try_from(slot)) else {
            self.audit.unchecked_holders += 1;
            return;
        };
        let request = Request::History {
            identifier: card.identifier(),
            from: self.subject.from,
            to: self.subject.to,
            page: history.page,
            page_size: PAGE_SIZE,
        };
        let organization = self.subject.organization;
        transport.send(Tag(tag), &Call { organization, request, may_repeat: true });
        if let Some(flight) = self.flights.get_mut(slot) {
            *flight = Some((history, now));
        }
    }

    fn abandon_late(&mut self, now: Nanos, transport: &mut dyn Transport) {
        for slot in 0..self.flights.len() {
            let flight = self.flights.get_mut(slot);
            let late = flight.and_then(|flight| flight.take_if(|(_, sent)| *sent + TIMEOUT <= now));
            if let (Some((history, _)), Ok(tag)) = (late, u32::try_from(slot)) {
                transport.abandon(Tag(tag));
                self.retry(history, now);
            }
        }
    }

    fn take(&mut self, tag: Tag, page: Option<Page<HistoryItem>>, now: Nanos) {
        let slot = usize::try_from(tag.0).unwrap_or(usize::MAX);
        let Some((mut history, _)) = self.flights.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let Some(page) = page.filter(|page| page.index == history.page) else {
            return self.retry(history, now);
        };
        self.heard = now;
        let is_last = page.items.is_empty()
            || page.total <= u64::from(PAGE_SIZE) * (u64::from(history.page) + 1);
        history.items.extend(page.items);
        if history.items.len() > ITEMS_MAX {
            self.audit.unchecked_holders += 1;
        } else if is_last {
            self.compare(&history);
        } else {
            history.page += 1;
            (history.tries, history.not_before) = (0, now);
            self.again.push_front(history);
        }
    }

    fn retry(&mut self, mut history: History, now: Nanos) {
        history.tries += 1;
        if history.tries >= TRIES_MAX {
            self.audit.unchecked_holders += 1;
            return;
        }
        history.not_before = now + RETRY_AFTER;
        self.again.push_back(history);
    }

    fn give_up(&mut self, holders: impl Iterator<Item = u32>, transport: &mut dyn Transport) {
        let mut left = self.again.len() + holders.count();
        for (tag, flight) in (0..).zip(&mut self.flights) {
            if flight.take().is_some() {
                transport.abandon(Tag(tag));
                left += 1;
            }
        }
        self.audit.unchecked_holders += u64::try_from(left).unwrap_or(u64::MAX);
    }

    /// Compares the whole history of a holder with the facts.
    fn compare(&mut self, history: &History) {
        self.audit.checked_holders += 1;
        let mut listed: Vec<&HistoryItem> = history.items.iter().collect();
        listed.sort_unstable_by_key(|item| item.transaction);
        let before = listed.len();
        listed.dedup_by_key(|item| item.transaction);
        self.audit.doubled += u64::try_from(before - listed.len()).unwrap_or(u64::MAX);

        let facts = of(self.facts, history.holder);
        let is_recent =
            |item: &HistoryItem| self.subject.is_fresh || item.confirmed >= self.subject.begun;
        let mut unknown = listed.iter().filter(|item| is_recent(item)).count();
        let mut nameless = 0;
        for same in facts.chunk_by(|one, other| one.transaction == other.transaction) {
            // Sorted by fate, so the last one is the strongest.
            let Some(fact) = same.last() else { continue };
            if fact.transaction == 0 {
                nameless = same.len();
                self.audit.uncertain += u64::try_from(nameless).unwrap_or(u64::MAX);
                continue;
            }
            let found = listed.binary_search_by_key(&fact.transaction, |item| item.transaction);
            let item = found.ok().and_then(|at| listed.get(at));
            match item {
                Some(item) if is_recent(item) => unknown -= 1,
                // The server's clock is far behind, and tells nothing apart.
                Some(_) => self.audit.unexplained += 1,
                None => {}
            }
            let musts = same.iter().filter(|fact| fact.fate == Fate::Must).count();
            self.audit.doubled += u64::try_from(musts.saturating_sub(1)).unwrap_or(u64::MAX);
            self.compare_one(fact, item.copied());
        }
        let unknown = u64::try_from(unknown.saturating_sub(nameless)).unwrap_or(u64::MAX);
        let Audit { phantom, unexplained, .. } = &mut *self.audit;
        *if self.subject.is_fresh { phantom } else { unexplained } += unknown;
    }

    fn compare_one(&mut self, fact: &Fact, item: Option<&HistoryItem>) {
        let audit = &mut *self.audit;
        match (fact.fate, item) {
            (Fate::Must, None) => audit.lost += 1,
            (Fate::Never, Some(_)) => audit.phantom += 1,
            (_, Some(item)) if !is_same(self.subject.registry, fact, item) => audit.altered += 1,
            _ => {}
        }
        match fact.fate {
            Fate::Must => audit.acknowledged += 1,
            Fate::May => audit.uncertain += 1,
            Fate::Never => {}
        }
    }
}

fn is_same(registry: &Registry, fact: &Fact, item: &HistoryItem) -> bool {
    let directory = &registry.directory;
    let organization = directory.organization(fact.organization);
    let service = directory.services.get(usize::from(fact.service));
    let paid = fact.discounted_kopecks.map(u64::from);
    organization.is_some_and(|organization| organization.id == item.organization)
        && service.is_some_and(|service| service.id == item.service)
        && (paid.is_none() || paid == item.discounted_kopecks)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
