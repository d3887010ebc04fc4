//! Which request comes next.

use std::rc::Rc;

use crate::calendar::Day;
use crate::citizens::malformed;
use crate::citizens::task::{Asked, Listing, Past, Repeat, Repetition, Task, Window};
use crate::citizens::{Citizens, Settle, weighted};
use crate::oracle::{Person, Question};
use crate::registry::directory::{ConnectionType, Offer};
use crate::registry::holders::CardKind;
use crate::request::Identifier;
use crate::tally::{Carrier, Kind};
use crate::time::Nanos;
use crate::workload::Ticket;

/// Holders that are drawn until one fits.
const DRAWS_MAX: usize = 16;
/// Services are numbered below it.
const NO_SERVICE: u32 = 999_999_937;
/// How long a cancel waits for other requests of its holder.
const CANCEL_LATER: Nanos = Nanos::from_millis(100);
/// History windows: days before the run and after today.
const RUN_WINDOW: (i32, i32) = (-30, 1);
const PAST_WINDOW: (i32, i32) = (-40, -3);
const FUTURE_WINDOW: (i32, i32) = (2, 5);

/// What a holder is identified by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    Code,
    Snils,
    SocialCard,
}

impl<'r> Citizens<'r> {
    /// A check, and whose card it is.
    pub(super) fn ask(&mut self, now: Nanos) -> (Asked, Carrier) {
        let by = self.by();
        let desks = if by == By::Snils { &self.desks.snils } else { &self.desks.plastic };
        let desk = self.numbers.pick(desks).copied().unwrap_or_default();
        self.ask_at(desk, by, now)
    }

    fn by(&mut self) -> By {
        let identifiers = &self.habits.citizens.identifiers;
        let plastic = if self.desks.plastic.is_empty() { 0.0 } else { 1.0 };
        let snils = if self.desks.snils.is_empty() { 0.0 } else { 1.0 };
        let weights = [
            identifiers.client_code * plastic,
            identifiers.snils * snils,
            identifiers.social_card * plastic,
        ];
        if weights.iter().sum::<f64>() <= 0.0 {
            return if snils > 0.0 { By::Snils } else { By::Code };
        }
        match weighted(&mut self.numbers, &weights) {
            0 => By::Code,
            1 => By::Snils,
            _ => By::SocialCard,
        }
    }

    fn ask_at(&mut self, desk: u16, by: By, now: Nanos) -> (Asked, Carrier) {
        let registry = self.registry;
        let Some(organization) = registry.directory.organization(desk) else {
            let person = Person::Stranger;
            let nothing = Question { organization: desk, terminal: 0, service: 0, person };
            return self.asked(nothing, None, now);
        };
        let desks = Rc::clone(&self.desks);
        let (terminals, offers) = match desks.stands.get(&desk) {
            Some(stand) => (&stand.terminals, &stand.offers),
            None => (&organization.terminals, &organization.offers),
        };
        let terminal = self.numbers.pick(terminals).copied().unwrap_or_default();
        let offer = self.numbers.pick(offers);
        let mut question = Question {
            organization: desk,
            terminal,
            service: offer.map_or(NO_SERVICE, |offer| self.service_id(offer)),
            person: Person::Stranger,
        };
        if self.numbers.fraction() < self.habits.citizens.negative {
            self.spoil(&mut question, by);
            return self.asked(question, None, now);
        }
        for _ in 0..DRAWS_MAX {
            let holder = self.crowd.draw(&mut self.numbers);
            let Some(person) = self.person(holder, by) else { continue };
            let free = offer.and_then(|offer| self.free_offer(offers, offer, holder));
            if let Some(offer) = free {
                question.service = self.service_id(offer);
                question.person = person;
                return self.asked(question, Some(offer), now);
            }
        }
        if by == By::Snils {
            // An insurance number that nobody has cannot be made up; this asks nothing of anyone.
            question.service = NO_SERVICE;
            question.person = self.anyone(by);
        }
        self.asked(question, None, now)
    }

    /// The same question with something wrong, whose answer does not depend on limited uses.
    fn spoil(&mut self, question: &mut Question, by: By) {
        let directory = &self.registry.directory;
        let person = self.anyone(by);
        match self.numbers.below(4) {
            0 if by != By::Snils => {}
            // A validator speaks for nobody but itself.
            1 if self.desks.stands.is_empty() => {
                let terminal = self.numbers.pick(&directory.terminals);
                let foreign = terminal.filter(|terminal| {
                    terminal.organization != Some(question.organization) || !terminal.is_active
                });
                question.terminal = foreign.map_or(u64::from(NO_SERVICE), |terminal| terminal.id);
                question.person = person;
            }
            2 if !self.desks.idle.is_empty() => {
                let idle = self.numbers.pick(&self.desks.idle).copied().unwrap_or_default();
                let organization = directory.organization(idle);
                let wants_snils =
                    organization.is_some_and(|idle| idle.connection == Some(ConnectionType::Two));
                let terminals = organization.map(|idle| idle.terminals.as_slice());
                question.organization = idle;
                question.terminal =
                    terminals.and_then(|list| list.first()).copied().unwrap_or_default();
                question.person = if wants_snils == (by == By::Snils) {
                    person
                } else {
                    self.anyone(if wants_snils { By::Snils } else { By::Code })
                };
            }
            _ => {
                let organization = directory.organization(question.organization);
                let service = self.numbers.place(directory.services.len());
                let service = u16::try_from(service).unwrap_or_default();
                let is_offered = organization.is_some_and(|one| one.offer(service).is_some());
                let id = directory.services.get(usize::from(service)).map(|service| service.id);
                question.service = id.filter(|_| !is_offered).unwrap_or(NO_SERVICE);
                question.person = person;
            }
        }
    }

    /// Any holder of the share with such an identifier, or else nobody.
    fn anyone(&mut self, by: By) -> Person {
        for _ in 0..DRAWS_MAX {
            let holder = self.crowd.draw(&mut self.numbers);
            if let Some(person) = self.person(holder, by) {
                return person;
            }
        }
        Person::Stranger
    }

    fn person(&mut self, holder: u32, by: By) -> Option<Person> {
        let holders = &self.registry.holders;
        if by == By::Snils {
            let has_snils = holders.holder(holder)?.snils().is_some();
            return has_snils.then_some(Person::Holder(holder));
        }
        let fits = |kind| (kind == CardKind::SocialNumber) == (by == By::SocialCard);
        let mut chosen = None;
        let mut count = 0;
        for card in holders.cards_of(holder) {
            if holders.card(card).is_some_and(|card| fits(card.kind())) {
                count += 1;
                if self.numbers.below(count) == 0 {
                    chosen = Some(Person::Card { holder, card });
                }
            }
        }
        chosen
    }

    /// The wanted offer, or one without limits where it may not be asked for now.
    fn free_offer<'o>(
        &mut self,
        offers: &'o [Offer],
        wanted: &'o Offer,
        holder: u32,
    ) -> Option<&'o Offer> {
        let is_free =
            self.places.has_room() && self.book(holder).is_some_and(|book| !book.is_busy());
        if is_free || !wanted.is_limited {
            return Some(wanted);
        }
        let first = self.numbers.place(offers.len());
        let (before, from) = offers.split_at_checked(first)?;
        from.iter().chain(before).find(|offer| !offer.is_limited)
    }

    /// A check of an offer, or one that no offer can answer.
    fn asked(&mut self, question: Question, offer: Option<&Offer>, now: Nanos) -> (Asked, Carrier) {
        let organization = self.registry.directory.organization(question.organization);
        let records = organization
            .is_some_and(|organization| organization.connection == Some(ConnectionType::Three));
        let holder = question.person.holder();
        let is_limited = offer.is_some_and(|offer| offer.is_limited);
        let stranger = self.numbers.place(self.registry.strangers.len());
        let price = self.numbers.below(500_000) + 1;
        let (first_day, _) = self.days(now, now, self.offset(question.organization));
        if let Some(book) = holder.and_then(|holder| self.book(holder)) {
            book.touch();
            if is_limited {
                book.set_busy(true);
            }
            if records {
                book.begin();
            }
        }
        let asked = Asked {
            question,
            stranger: u16::try_from(stranger).unwrap_or_default(),
            first_day,
            price_kopecks: if records { u32::try_from(price).unwrap_or(1) } else { 0 },
            is_limited,
            records,
        };
        (asked, self.carrier(&asked))
    }

    fn carrier(&self, asked: &Asked) -> Carrier {
        match asked.question.person {
            Person::Holder(_) => Carrier::Snils,
            Person::Card { card, .. } => self.carrier_of(card),
            Person::Stranger => match self.stranger(asked) {
                Some(Identifier::SocialCard(..)) => Carrier::Social,
                _ => Carrier::Ecs,
            },
        }
    }

    fn carrier_of(&self, card: u32) -> Carrier {
        match self.registry.holders.card(card).map(|card| card.kind()) {
            Some(CardKind::SocialCode | CardKind::SocialNumber) => Carrier::Social,
            _ => Carrier::Ecs,
        }
    }

    pub(super) fn stranger(&self, asked: &Asked) -> Option<Identifier<'r>> {
        let registry = self.registry;
        registry.strangers.get(usize::from(asked.stranger)).map(|card| card.identifier())
    }

    fn service_id(&self, offer: &Offer) -> u32 {
        let service = self.registry.directory.services.get(usize::from(offer.service));
        service.map_or(NO_SERVICE, |service| service.id)
    }

    pub(super) fn next_batch(&mut self, now: Nanos) -> Ticket {
        let by = self.by();
        let desks = if by == By::Snils { &self.desks.snils } else { &self.desks.plastic };
        let desk = self.numbers.pick(desks).copied().unwrap_or_default();
        let (place, mut batch) = match self.batches.reuse() {
            Some((place, batch)) => (place, std::mem::take(batch)),
            None => (self.batches.insert(super::Batch::default()), super::Batch::default()),
        };
        batch.asked.clear();
        batch.checks.clear();
        for _ in 0..self.habits.citizens.batch_size {
            let (asked, _) = self.ask_at(desk, by, now);
            if asked.question.organization != desk {
                // All checks of a call are one organization's; this one is not made.
                self.release(&asked);
                continue;
            }
            batch.checks.push(self.check_of(&asked));
            batch.asked.push(asked);
        }
        if let Some(kept) = self.batches.at_mut(place) {
            *kept = batch;
        }
        self.ticket(Kind::Batch, Carrier::None, Task::Batch(place))
    }

    pub(super) fn next_settle(&mut self, is_cancel: bool, now: Nanos) -> Option<Ticket> {
        let open = self.open.pop(now)?;
        let is_limited = open.place.is_some();
        let book = self.book(open.holder)?;
        // A confirm that may have been recorded is confirmed again, never cancelled.
        let is_cancel = is_cancel && !open.is_retried;
        if !is_cancel {
            book.begin();
        } else if is_limited {
            if book.is_busy() {
                self.open.push(open, now + CANCEL_LATER);
                return None;
            }
            book.set_busy(true);
        }
        let kind = if is_cancel { Kind::Cancel } else { Kind::Confirm };
        Some(self.ticket(kind, open.carrier, Task::Settle(Settle { open, is_cancel })))
    }

    pub(super) fn next_history(&mut self, now: Nanos) -> Option<Ticket> {
        let organization = self.numbers.pick(&self.desks.history).copied()?;
        let by = if self.numbers.below(4) == 0 { By::SocialCard } else { By::Code };
        let Person::Card { holder, card } = self.anyone(by) else { return None };
        let mark = self.book(holder)?.mark();
        let offset = self.offset(organization);
        let (_, today) = self.days(now, now, offset);
        let begun = self.habits.begun.day(offset);
        let (window, to) = match self.numbers.below(10) {
            0 => (Window::Future, today.plus(FUTURE_WINDOW.1)),
            1 => (Window::Past, begun.plus(PAST_WINDOW.1)),
            _ => (Window::Run, today.plus(RUN_WINDOW.1)),
        };
        let page = if self.numbers.below(10) == 0 { 1 } else { 0 };
        let page_size = self.numbers.pick(&[10, 10, 50, 200]).copied().unwrap_or(10);
        let past = Past { card, holder, organization, mark, window, to, page, page_size };
        Some(self.ticket(Kind::History, self.carrier_of(card), Task::History(past)))
    }

    /// The first date of a window.
    pub(super) fn window_begin(&self, past: &Past) -> Day {
        let begun = self.habits.begun.day(self.offset(past.organization));
        match past.window {
            Window::Future => past.to.plus(FUTURE_WINDOW.0 - FUTURE_WINDOW.1),
            Window::Past => begun.plus(PAST_WINDOW.0),
            Window::Run => begun.plus(RUN_WINDOW.0),
        }
    }

    pub(super) fn next_listing(&mut self, now: Nanos) -> Option<Ticket> {
        let organization = self.numbers.pick(&self.desks.serving).copied()?;
        let (page, page_size) =
            self.numbers.pick(&[(0, 50), (0, 50), (0, 10), (0, 3), (1, 3), (5, 10)]).copied()?;
        let (first_day, _) = self.days(now, now, self.offset(organization));
        let listing = Listing { organization, page, page_size, first_day };
        Some(self.ticket(Kind::Services, Carrier::None, Task::List(listing)))
    }

    pub(super) fn next_malformed(&mut self) -> Option<Ticket> {
        let organization = self.numbers.pick(&self.desks.serving).copied()?;
        let connection = self.registry.directory.organization(organization)?.connection?;
        let row = self.numbers.place(malformed::rows(connection).len());
        let row = u16::try_from(row).ok()?;
        Some(self.ticket(Kind::Malformed, Carrier::None, Task::Malformed { organization, row }))
    }

    pub(super) fn next_repeat(&mut self) -> Option<Ticket> {
        let settled = self.settled.pick(&mut self.numbers)?;
        let mut repetition = match (settled.is_cancelled, self.numbers.below(10)) {
            (true, 0..=2) => Repetition::Confirm,
            (false, 0) => Repetition::Cancel,
            (false, 1) => Repetition::OtherAmounts,
            (false, 2) => Repetition::OtherCategory,
            (false, 3) => Repetition::OtherOrganization,
            (false, 4) => Repetition::OtherType,
            _ => Repetition::Same,
        };
        let own = settled.open.organization;
        let organization = match repetition {
            Repetition::OtherOrganization => {
                let other = self.numbers.pick(&self.desks.confirming).copied();
                other.filter(|other| *other != own)
            }
            Repetition::OtherType => self.numbers.pick(&self.desks.recording).copied(),
            _ => Some(own),
        };
        if organization.is_none() {
            repetition = Repetition::Same;
        }
        let organization = organization.unwrap_or(own);
        let repeat = Repeat { settled, organization, repetition };
        Some(self.ticket(Kind::Repeat, settled.open.carrier, Task::Repeat(repeat)))
    }
}
