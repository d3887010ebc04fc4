//! Checks, lists and bad requests: what their answers must be, and what they leave behind.

use crate::acknowledged::Fate;
use crate::answer::{Answer, CheckAnswer, HistoryItem, OfflineAnswer, Page};
use crate::books::digest;
use crate::calendar::Day;
use crate::citizens::open::Open;
use crate::citizens::settle::{is_refusal, told};
use crate::citizens::task::{Asked, Listing, Past, Window};
use crate::citizens::{Batch, Citizens};
use crate::oracle::{self, Counted, Decision, Taken, UNAVAILABLE};
use crate::places::{PlaceKey, Uses};
use crate::registry::directory::Candidate;
use crate::tally::{Carrier, Outcome};
use crate::time::Nanos;

/// How long after it was given up a request may still have its effect.
const AFTERMATH: Nanos = Nanos::from_seconds(60);

impl<'r> Citizens<'r> {
    pub(super) fn judge_single(
        &mut self,
        asked: &Asked,
        carrier: Carrier,
        answer: &Answer<'_>,
        now: Nanos,
    ) -> Outcome {
        match answer {
            Answer::Check(check) => self.judge_check(asked, carrier, check, now),
            Answer::Offline(decided) => self.judge_offline(asked, decided, now),
            Answer::Refusal { status, .. } if is_refusal(*status) => {
                self.miss_check(asked, true, now);
                Outcome::Refused
            }
            answer => {
                self.miss_check(asked, true, now);
                let came = told(answer);
                self.wrong(|| format!("check: came {came}"))
            }
        }
    }

    pub(super) fn judge_batch(&mut self, place: u32, answer: &Answer<'_>, now: Nanos) -> Outcome {
        let batch = self.batches.at_mut(place).map(std::mem::take).unwrap_or_default();
        let mut outcome = Outcome::Right;
        match answer {
            Answer::Batch(items) if items.len() == batch.asked.len() => {
                for (asked, item) in batch.asked.iter().zip(items) {
                    let one = self.judge_check(asked, Carrier::None, item, now);
                    outcome = worse(outcome, one);
                }
            }
            answer => {
                batch.asked.iter().for_each(|asked| self.miss_check(asked, true, now));
                let refused =
                    matches!(answer, Answer::Refusal { status, .. } if is_refusal(*status));
                let (asked, came) = (batch.asked.len(), told(answer));
                outcome = if refused {
                    Outcome::Refused
                } else {
                    self.wrong(|| format!("batch of {asked} checks: came {came}"))
                };
            }
        }
        self.free_batch(place, batch);
        outcome
    }

    pub(super) fn miss_batch(&mut self, place: u32, was_sent: bool, now: Nanos) {
        let batch = self.batches.at_mut(place).map(std::mem::take).unwrap_or_default();
        batch.asked.iter().for_each(|asked| self.miss_check(asked, was_sent, now));
        self.free_batch(place, batch);
    }

    /// Keeps the memory of a batch for the next one.
    fn free_batch(&mut self, place: u32, batch: Batch<'r>) {
        if let Some(kept) = self.batches.at_mut(place) {
            *kept = batch;
        }
        self.batches.release(place);
    }

    pub(super) fn miss_check(&mut self, asked: &Asked, was_sent: bool, now: Nanos) {
        self.release(asked);
        if was_sent {
            self.suspect(asked, now + AFTERMATH);
        }
    }

    /// The check is no longer under way.
    pub(super) fn release(&mut self, asked: &Asked) {
        let Some(book) = asked.question.person.holder().and_then(|holder| self.book(holder)) else {
            return;
        };
        if asked.is_limited {
            book.set_busy(false);
        }
        if asked.records {
            book.end();
        }
    }

    /// The check may have been granted, or may be until an instant: by then others may have taken the
    /// places that are free now, so any category of the holder's may win.
    fn suspect(&mut self, asked: &Asked, until: Nanos) {
        let (_, last) = self.days(until, until, self.offset(asked.question.organization));
        let mut may_grant = false;
        for day in asked.first_day.0..=last.0 {
            self.right.clear();
            oracle::conceivable(self.registry, &asked.question, Day(day), &mut self.right);
            for at in 0..self.right.len() {
                let Some(Decision::Benefit(candidate)) = self.right.get(at).copied() else {
                    continue;
                };
                may_grant = true;
                if let Some(key) = key(asked, &candidate, Day(day)) {
                    self.places.change(key, Uses::suspect);
                }
            }
        }
        if may_grant && asked.records {
            self.note_recorded(asked, 0, Fate::May);
        }
    }

    /// Every decision that is right on a date, into `right`.
    fn decide(&mut self, asked: &Asked, day: Day, now: Nanos) {
        let holds_count = !self.is_doubtful(now);
        let (places, is_fresh) = (&self.places, self.habits.is_fresh);
        let taken = |counted: Counted| {
            let ordinal = counted.day.ordinal(counted.limit.period);
            let uses = places.uses(PlaceKey::new(counted.holder, counted.link, ordinal));
            let most = if is_fresh { uses.most() } else { None };
            Taken { least: uses.least(holds_count), most }
        };
        self.right.clear();
        oracle::decisions(self.registry, &asked.question, day, &taken, &mut self.right);
    }

    fn judge_check(
        &mut self,
        asked: &Asked,
        carrier: Carrier,
        answer: &CheckAnswer<'_>,
        now: Nanos,
    ) -> Outcome {
        if answer.code == UNAVAILABLE {
            self.miss_check(asked, true, now);
            return Outcome::Refused;
        }
        let (_, last) = self.days(now, now, self.offset(asked.question.organization));
        let holder = asked.question.person.holder();
        let mut found: Option<(Decision, Day, Day)> = None;
        for day in asked.first_day.0..=last.0 {
            self.decide(asked, Day(day), now);
            let (registry, success_code) = (self.registry, self.habits.success_code);
            let right = self
                .right
                .iter()
                .find(|decision| oracle::says(registry, holder, decision, answer, success_code));
            if let Some(decision) = right {
                let first = found.map_or(Day(day), |(_, first, _)| first);
                found = Some((*decision, first, Day(day)));
            }
        }
        let Some((decision, first, last)) = found else {
            return self.wrong_check(asked, answer, now);
        };
        self.release(asked);
        if let Decision::Benefit(candidate) = decision {
            let keys = [key(asked, &candidate, first), key(asked, &candidate, last)];
            let place = self.occupy(asked, keys);
            if asked.records {
                self.note_recorded(asked, answer.transaction, Fate::Must);
            } else {
                let open = self.opened(asked, carrier, &candidate, answer.transaction);
                self.wait_to_settle(Open { place, ..open }, now);
            }
        }
        Outcome::Right
    }

    /// Counts a use that was granted in one of two periods, which are mostly the same; the place that
    /// it takes for sure.
    fn occupy(&mut self, asked: &Asked, keys: [Option<PlaceKey>; 2]) -> Option<PlaceKey> {
        let [first, last] = keys;
        if first != last {
            // Midnight is near, and nobody knows in which period the use counts.
            keys.into_iter().flatten().for_each(|key| self.places.change(key, Uses::suspect));
            return None;
        }
        let change = if asked.records { Uses::spend } else { Uses::hold };
        self.places.change(first?, change);
        first
    }

    fn opened(
        &self,
        asked: &Asked,
        carrier: Carrier,
        candidate: &Candidate,
        transaction: u64,
    ) -> Open {
        let question = &asked.question;
        Open {
            transaction,
            place: None,
            holder: question.person.holder().unwrap_or_default(),
            organization: question.organization,
            category: candidate.category,
            service: self.registry.directory.service(question.service).unwrap_or_default(),
            carrier,
            is_retried: false,
        }
    }

    fn wait_to_settle(&mut self, open: Open, now: Nanos) {
        let citizens = &self.habits.citizens;
        let span = citizens.think_seconds_max - citizens.think_seconds_min;
        let think = citizens.think_seconds_min + span * self.numbers.fraction();
        self.open.push(open, now + Nanos((think * 1e9) as u64));
    }

    /// What a device decided by its holder registry.
    fn judge_offline(&mut self, asked: &Asked, decided: &OfflineAnswer, now: Nanos) -> Outcome {
        // The check may have reached the server all the same.
        self.miss_check(asked, true, now);
        let (_, last) = self.days(now, now, self.offset(asked.question.organization));
        let mut days = (asked.first_day.0..=last.0).map(Day);
        if days.any(|day| oracle::foretells(self.registry, &asked.question, day, decided)) {
            return Outcome::Offline;
        }
        self.decide(asked, asked.first_day, now);
        let (service, verdict) = (asked.question.service, decided.verdict);
        let had = self.right.first().map(|first| match first {
            Decision::Benefit(_) => "a grant".to_owned(),
            Decision::Refused(code) => format!("code {code}"),
        });
        let had = had.unwrap_or_default();
        self.wrong(|| {
            format!("check of service {service}, offline: had to be {had}; came {verdict:?}")
        })
    }

    fn wrong_check(&mut self, asked: &Asked, answer: &CheckAnswer<'_>, now: Nanos) -> Outcome {
        self.decide(asked, asked.first_day, now);
        let registry = self.registry;
        let words = |decision: &Decision| match decision {
            Decision::Benefit(candidate) => {
                let category = registry.directory.categories.get(usize::from(candidate.category));
                format!("category {}", category.map_or(0, |category| category.id))
            }
            Decision::Refused(code) => format!("code {code}"),
        };
        let had: Vec<String> = self.right.iter().map(words).collect();
        let organization = registry.directory.organization(asked.question.organization);
        let organization = organization.map_or(0, |organization| organization.id);
        let (service, had) = (asked.question.service, had.join(" or "));
        let came = told(&Answer::Check(answer.clone()));
        self.miss_check(asked, true, now);
        self.wrong(|| {
            format!("check of service {service} by organization {organization}: had to be {had}; came {came}")
        })
    }

    pub(super) fn judge_malformed(
        &mut self,
        organization: u16,
        row: u16,
        answer: &Answer<'_>,
    ) -> Outcome {
        let expected = self.malformed_row(organization, row).map(|row| (row.status, row.code));
        let (status, code) = expected.unwrap_or_default();
        match answer {
            Answer::Refusal { status, .. } if is_refusal(*status) => Outcome::Refused,
            Answer::Refusal { status: came, code: Some(error) }
                if (*came, *error) == (status, code) =>
            {
                Outcome::Right
            }
            answer => {
                let came = told(answer);
                self.wrong(|| format!("malformed check: had to be {status}/{code}; came {came}"))
            }
        }
    }

    pub(super) fn judge_listing(
        &mut self,
        listing: &Listing,
        answer: &Answer<'_>,
        now: Nanos,
    ) -> Outcome {
        let page = match answer {
            Answer::Services(page) => page,
            Answer::Refusal { status, .. } if is_refusal(*status) => return Outcome::Refused,
            answer => {
                let came = told(answer);
                return self.wrong(|| format!("services request: came {came}"));
            }
        };
        let (_, last) = self.days(now, now, self.offset(listing.organization));
        let is_right =
            (listing.first_day.0..=last.0).any(|day| self.lists_services(listing, Day(day), page));
        if is_right {
            return Outcome::Right;
        }
        let came = told(answer);
        self.wrong(|| format!("services request: came {came}, which is not the list of any day"))
    }

    fn lists_services(&self, listing: &Listing, day: Day, page: &Page<(u32, String)>) -> bool {
        let directory = &self.registry.directory;
        let Some(organization) = directory.organization(listing.organization) else {
            return false;
        };
        let offered = organization.offers.iter().filter(|offer| offer.validity.covers(day));
        let total = u64::try_from(offered.clone().count()).unwrap_or(u64::MAX);
        let is_known = |(id, name): &(u32, String)| {
            let mut services = offered
                .clone()
                .filter_map(|offer| directory.services.get(usize::from(offer.service)));
            services.any(|service| service.id == *id && service.name == *name)
        };
        let ids = page.items.iter().map(|(id, _)| u64::from(*id));
        page.total == total
            && page.index == u32::from(listing.page)
            && is_cut(page, total, listing.page, listing.page_size)
            && are_distinct(ids)
            && page.items.iter().all(is_known)
    }

    pub(super) fn judge_history(&mut self, past: &Past, answer: &Answer<'_>) -> Outcome {
        let page = match answer {
            Answer::History(page) => page,
            Answer::Refusal { status, .. } if is_refusal(*status) => return Outcome::Refused,
            answer => {
                let came = told(answer);
                return self.wrong(|| format!("history request: came {came}"));
            }
        };
        if self.lists_history(past, page) {
            return Outcome::Right;
        }
        let listed = self.book(past.holder).map(|book| book.listed(&past.mark));
        let (came, window, is_fresh) = (told(answer), past.window, self.habits.is_fresh);
        self.wrong(|| {
            let had = listed.map_or(String::new(), |listed| match listed.most {
                Some(most) if is_fresh => format!("{} to {most}", listed.least),
                _ => format!("{} or more", listed.least),
            });
            format!("history request ({window:?}): in this run {had} were recorded; came {came}")
        })
    }

    fn lists_history(&mut self, past: &Past, page: &Page<HistoryItem>) -> bool {
        let ids = page.items.iter().map(|item| item.transaction);
        let is_well_formed = page.index == u32::from(past.page)
            && is_cut(page, page.total, past.page, past.page_size)
            && are_distinct(ids.clone())
            && page.items.iter().all(|item| self.is_known(item));
        let is_fresh = self.habits.is_fresh;
        let Some(book) = self.book(past.holder) else { return false };
        let listed = book.listed(&past.mark);
        let is_whole = past.page == 0 && page.total <= u64::from(past.page_size);
        let counts = match past.window {
            // Nobody records in the future, but the past may be another's.
            Window::Future => page.total == 0,
            Window::Past => !is_fresh || page.total == 0,
            Window::Run if is_fresh => {
                let digest_fits = listed.digest.is_none_or(|known| known == digest(ids));
                page.total >= listed.least
                    && listed.most.is_none_or(|most| page.total <= most)
                    && (!is_whole || digest_fits)
            }
            Window::Run => page.total >= listed.least,
        };
        is_well_formed && counts
    }

    fn is_known(&self, item: &HistoryItem) -> bool {
        let directory = &self.registry.directory;
        item.transaction != 0
            && directory.service(item.service).is_some()
            && directory.organization_place(item.organization).is_some()
    }
}

/// Where a use of a candidate counts, if uses are limited.
fn key(asked: &Asked, candidate: &Candidate, day: Day) -> Option<PlaceKey> {
    let limit = candidate.limit?;
    let holder = asked.question.person.holder()?;
    Some(PlaceKey::new(holder, candidate.link, day.ordinal(limit.period)))
}

fn worse(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Wrong, _) | (_, Outcome::Wrong) => Outcome::Wrong,
        (Outcome::Refused, _) | (_, Outcome::Refused) => Outcome::Refused,
        _ => Outcome::Right,
    }
}

/// Whether a page holds as many items as it must.
fn is_cut<T>(page: &Page<T>, total: u64, index: u16, size: u16) -> bool {
    let (index, size) = (u64::from(index), u64::from(size));
    let left = total.saturating_sub(index.saturating_mul(size));
    u64::try_from(page.items.len()).is_ok_and(|count| count == left.min(size))
}

fn are_distinct(ids: impl Iterator<Item = u64>) -> bool {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair.first() != pair.last())
}
