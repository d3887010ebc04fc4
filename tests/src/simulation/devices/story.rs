//! What happens to devices and their server: a seed, step after step.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::calendar::{Clock, Day, Timestamp};
use engine::ids::OrganizationId;
use engine::ledger::LedgerSettings;
use engine::trips::claim::{ClaimOrder, Period};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use validator::agent::event::{Action, Event, Notice, TapId};
use validator::device::card::Card;
use validator::device::{Journey, Outcome};
use validator::trip::TripEvent;
use validator::verdict::Verdict;

use crate::memory::{AppendFault, HandClock};
use crate::simulation::devices::server::Server;
use crate::simulation::devices::traffic::{Parcel, Request};
use crate::simulation::devices::unit::Unit;
use crate::simulation::edit::SERVICES;
use crate::simulation::town::{IDENTIFIER_COUNT, Identifier, Town};
use crate::simulation::trace::Trace;

/// Steps of one seed.
const STEPS: u32 = 350;
const BEGINNING: &str = "2025-06-02T03:00:00Z";
const TERMINALS: [u64; 4] = [11, 12, 21, 31];

/// Devices, their server, and what lies between them.
pub struct Story {
    pub(crate) random: SmallRng,
    pub(crate) now_ms: i64,
    pub(crate) server: Server,
    pub(crate) units: Vec<Unit>,
    parcels: BTreeMap<(i64, u64), Parcel>,
    posted: u64,
    /// The share of messages that are lost.
    pub(crate) loss: f64,
    /// Every tap, by the price that nobody else pays.
    pub(crate) taps: BTreeMap<u64, Tap>,
    trace: Rc<Trace>,
}

/// A card at a device.
pub struct Tap {
    pub(crate) unit: usize,
    pub(crate) code: u32,
    pub(crate) heard_clock: bool,
    /// What was decided; none where the device died before, or could not record it.
    pub(crate) outcome: Option<Outcome>,
}

/// Runs one seed to its end; panics when a promise is broken, showing the last steps before that.
pub fn run(seed: u64, shown: usize) {
    let trace = Rc::new(Trace::new(seed, shown));
    let mut story = Story::new(seed, trace.clone());
    for step in 1..=STEPS {
        trace.begin(step);
        story.step();
        if step.is_multiple_of(50) {
            story.audit_book();
        }
    }
    story.heal();
    story.audit();
}

impl Story {
    fn new(seed: u64, trace: Rc<Trace>) -> Story {
        let mut random = SmallRng::seed_from_u64(seed);
        let clock = HandClock::at(BEGINNING);
        let now_ms = clock.now().0 / 1_000;
        let settings = LedgerSettings {
            checked_ttl_seconds: *[24 * 3_600, 600].choose(&mut random).unwrap(),
            transactions_max: 10_000,
            shard_count: random.random_range(1..=3),
        };
        let mut server = Server::new(clock, settings, random.random_bool(0.5));
        let town = Town::random(&mut random, day_of(now_ms));
        assert!(server.import(town));
        let units = TERMINALS
            .iter()
            .map(|terminal| Unit::new(*terminal, server.shelf(*terminal), (&mut random, now_ms)));
        let units = units.collect();
        let loss = *[0.0, 0.02, 0.2].choose(&mut random).unwrap();
        Story {
            random,
            now_ms,
            server,
            units,
            parcels: BTreeMap::new(),
            posted: 0,
            loss,
            taps: BTreeMap::new(),
            trace,
        }
    }

    fn step(&mut self) {
        let unit = self.random.random_range(0..self.units.len());
        match self.random.random_range(0..1_000) {
            0..650 => self.tap_somebody(unit),
            650..700 => self.import(),
            700..730 => self.build(),
            730..780 => self.cut(unit),
            780..860 => self.units[unit].is_open = true,
            860..880 => self.crash_unit(unit),
            880..895 => self.crash_server(),
            895..910 => self.jump_clock(unit),
            910..925 => self.plan_fault(),
            925..935 => {
                let changes = self.random.random_range(1..4);
                self.units[unit].files.fail_next(changes);
            }
            935..950 => self.claim(),
            950..960 => self.server.snapshot(),
            960..970 => self.loss = *[0.0, 0.02, 0.2].choose(&mut self.random).unwrap(),
            _ => {
                let hours = *[1, 4, 20, 30].choose(&mut self.random).unwrap();
                self.note(|| format!("{hours} hours pass"));
                self.pass(hours * 3_600_000);
            }
        }
        let ms = *[0, 100, 1_000, 20_000, 300_000].choose(&mut self.random).unwrap();
        let ms = self.random.random_range(0..=ms);
        self.pass(ms);
    }

    fn tap_somebody(&mut self, unit: usize) {
        let cards: Vec<u32> = self
            .server
            .town
            .holders
            .values()
            .flat_map(|holder| holder.cards.iter().map(|(code, ..)| *code))
            .collect();
        let any = self.random.random_range(0..IDENTIFIER_COUNT);
        let known = self.random.random_bool(0.9);
        let code = cards.choose(&mut self.random).copied().filter(|_| known).unwrap_or(any);
        let stop = format!("stop {}", self.random.random_range(0..4));
        let event = match self.random.random_range(0..10) {
            0 => TripEvent::Check,
            1 => TripEvent::TicketIssued,
            _ => TripEvent::Boarding,
        };
        self.tap(unit, code, (event, stop));
    }

    /// A card is tapped, for a price that tells this tap from all others.
    pub(crate) fn tap(
        &mut self,
        unit: usize,
        code: u32,
        (event, stop): (TripEvent, String),
    ) -> u64 {
        let price = self.taps.len() as u64 + 1;
        let journey = Journey {
            event,
            service: self.random.random_range(1..=SERVICES),
            price,
            route: "7".to_owned(),
            vehicle: "A123".to_owned(),
            from_stop: stop,
            to_stop: String::new(),
            ticket: String::new(),
        };
        let terminal = self.units[unit].terminal;
        self.note(|| format!("tap {price}: card {code} at {terminal}, {journey:?}"));
        let heard_clock = self.units[unit].heard_clock;
        self.taps.insert(price, Tap { unit, code, heard_clock, outcome: None });
        let card = Card::ClientCode(Identifier::Code(code).text());
        self.happen(unit, Event::Tap { tap: TapId(price), card, journey });
        price
    }

    fn import(&mut self) {
        let next = self.server.town.edited(&mut self.random, day_of(self.now_ms));
        self.import_town(next);
    }

    fn import_town(&mut self, next: Town) {
        let (before, now) = (self.server.crashes, self.server_now());
        let in_force = self.server.import(next);
        self.note(|| format!("an import is in force: {in_force}"));
        assert_eq!(self.server.crashes, before);
        self.push_blocks(now);
    }

    pub(crate) fn build(&mut self) {
        self.note(|| "registries are built".to_owned());
        self.server.build();
    }

    /// The link carries nothing any more; the device hears of it later.
    fn cut(&mut self, unit: usize) {
        let delay_ms = self.random.random_range(0..30_000);
        let cut = &mut self.units[unit];
        let (generation, terminal) = (cut.generation, cut.terminal);
        cut.is_open = false;
        if std::mem::take(&mut cut.carries) {
            let event = Event::Disconnected;
            self.post(self.now_ms + delay_ms, Parcel::Event { unit, generation, event });
        }
        self.note(|| format!("the link of {terminal} is cut"));
    }

    fn crash_unit(&mut self, unit: usize) {
        let terminal = self.units[unit].terminal;
        self.note(|| format!("the power of {terminal} is cut"));
        self.units[unit].crash(&mut self.random, self.now_ms);
    }

    pub(crate) fn crash_server(&mut self) {
        self.note(|| "the server's power is cut".to_owned());
        self.server.crash();
        for unit in 0..self.units.len() {
            if std::mem::take(&mut self.units[unit].carries) {
                let at_ms = self.now_ms + self.random.random_range(0..30_000);
                let generation = self.units[unit].generation;
                let event = Event::Disconnected;
                self.post(at_ms, Parcel::Event { unit, generation, event });
            }
        }
    }

    fn jump_clock(&mut self, unit: usize) {
        let reach = *[2_000, 600_000, 3 * 86_400_000].choose(&mut self.random).unwrap();
        let by_ms = self.random.random_range(-reach..reach);
        let unit = &mut self.units[unit];
        unit.wall_error_ms += by_ms;
        let terminal = unit.terminal;
        self.note(|| format!("the clock of {terminal} jumps by {by_ms} ms"));
    }

    fn plan_fault(&mut self) {
        let fault = *[AppendFault::Kept, AppendFault::Lost].choose(&mut self.random).unwrap();
        self.note(|| format!("the next append will be {fault:?}"));
        self.server.disk.journal.plan_faults([Some(fault)]);
    }

    pub(crate) fn claim(&mut self) {
        let organization = OrganizationId(self.random.random_range(1..=3));
        let today = day_of(self.now_ms);
        let period = Period { first: Day(today - 300), last: Day(today + 60) };
        let book = self.server.node.clerk().book().clone();
        let draft = book.read().unwrap().claims().map(|claim| claim.id).choose(&mut self.random);
        let order = match draft {
            Some(id) if self.random.random_bool(0.3) => ClaimOrder::Submit(organization, id),
            _ => ClaimOrder::Draft(organization, period),
        };
        let result = self.server.order(order.clone());
        self.note(|| format!("{order:?}: {result:?}"));
        if self.server.node.partition.has_failed() {
            self.server.go_on();
        }
    }

    /// Nothing goes wrong any more, until everything has come to rest.
    fn heal(&mut self) {
        self.note(|| "everything heals".to_owned());
        self.loss = 0.0;
        // Its start uses up the faults that were planned.
        self.crash_server();
        let mut town = self.server.town.clone();
        for (state, ..) in town.organizations.range_mut(..=3).map(|(_, known)| known) {
            *state = "active";
        }
        town.terminals.values_mut().for_each(|(_, active)| *active = true);
        self.import_town(town.clone());
        assert_eq!(self.server.town, town);
        for unit in &mut self.units {
            unit.is_open = true;
            unit.files.fail_next(0);
        }
        self.pass(3_600_000);
        self.build();
        self.pass(2 * 3_600_000);
    }

    /// Something happens to a device, and it does what it wants done.
    pub(crate) fn happen(&mut self, unit: usize, event: Event) {
        let now_ms = self.now_ms;
        let at = &mut self.units[unit];
        if matches!(event, Event::Disconnected) {
            at.generation += 1;
            at.carries = false;
        }
        at.heard_clock |=
            matches!(event, Event::Connected { .. } | Event::Ponged { answer: Ok(_), .. });
        let now = at.now(now_ms);
        at.agent.handle(event, now);
        at.agent.flush(now);
        self.act(unit);
    }

    fn act(&mut self, unit: usize) {
        while let Some(action) = self.units[unit].agent.poll_action() {
            match action {
                Action::Acknowledge(_) => {}
                Action::Answer { tap, outcome } => self.answered(tap, *outcome),
                Action::Cancel(cancel) => self.send(unit, Request::Cancel(cancel)),
                Action::Check { tap, check, patience_ms } => {
                    self.send(unit, Request::Check(tap, check, patience_ms));
                }
                Action::Confirm { seq, confirm, .. } => {
                    self.send(unit, Request::Confirm(seq, confirm));
                }
                Action::Connect(hello) => {
                    let sent = self.units[unit].now(self.now_ms);
                    self.send(unit, Request::Hello(sent, hello));
                }
                Action::Install => {
                    let (now_ms, unit) = (self.now_ms, &mut self.units[unit]);
                    let installation = unit.agent.take_installation().unwrap();
                    unit.agent.handle_installed(installation(), unit.now(now_ms));
                }
                Action::Ping => {
                    let sent = self.units[unit].now(self.now_ms);
                    self.send(unit, Request::Ping(sent));
                }
                Action::Pull { have } => self.send(unit, Request::Pull(have)),
                Action::Show(notice) => {
                    let terminal = self.units[unit].terminal;
                    self.note(|| format!("  {terminal} shows {notice:?}"));
                    let wrong = matches!(
                        notice,
                        Notice::TripsRenumbered { .. } | Notice::TripRefused { .. }
                    );
                    assert!(!wrong, "{notice:?} although no number is used twice");
                }
                Action::Upload { batch, .. } => self.send(unit, Request::Upload(batch)),
            }
        }
    }

    fn answered<E: std::fmt::Debug>(&mut self, tap: TapId, outcome: Result<Outcome, E>) {
        self.note(|| match &outcome {
            Ok(outcome) => format!("  tap {}: {:?} {:?}", tap.0, outcome.verdict, outcome.detail),
            Err(error) => format!("  tap {}: {error:?}", tap.0),
        });
        let Ok(outcome) = outcome else { return };
        if outcome.verdict == Verdict::Grant {
            self.audit_grant(tap, &outcome);
        }
        let known = self.taps.get_mut(&tap.0).unwrap();
        assert!(known.outcome.is_none(), "a tap was answered twice");
        known.outcome = Some(outcome);
    }

    /// Lets time pass, with everything that falls due meanwhile.
    pub(crate) fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        for round in 0.. {
            assert!(round < 1_000_000, "somebody is never content");
            let parcel = self.parcels.first_key_value().map(|(key, _)| key.0);
            let wakes = self.units.iter().enumerate();
            let wakes = wakes.filter_map(|(at, unit)| Some((unit.wakes_at()?, at))).min();
            match (parcel, wakes) {
                (Some(at_ms), wakes)
                    if at_ms <= end && wakes.is_none_or(|(wakes, _)| at_ms <= wakes) =>
                {
                    self.set_time(at_ms);
                    let (_, parcel) = self.parcels.pop_first().unwrap();
                    self.open(parcel);
                }
                (_, Some((at_ms, unit))) if at_ms <= end => {
                    self.set_time(at_ms);
                    let now = self.units[unit].now(self.now_ms);
                    self.units[unit].agent.handle_timeout(now);
                    self.units[unit].agent.flush(now);
                    self.act(unit);
                }
                _ => break,
            }
        }
        self.set_time(end);
    }

    fn open(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Event { unit, generation, event } => {
                if self.units[unit].generation == generation {
                    self.happen(unit, event);
                }
            }
            Parcel::Request { unit, generation, life, sent_ms, request } => {
                let is_late = life != self.server.crashes;
                self.arrive((unit, generation, sent_ms), &request, is_late);
            }
        }
    }

    pub(crate) fn post(&mut self, at_ms: i64, parcel: Parcel) {
        self.posted += 1;
        self.parcels.insert((at_ms, self.posted), parcel);
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    pub(crate) fn server_now(&self) -> Timestamp {
        self.server.clock.now()
    }

    fn set_time(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
        let clock: &Arc<HandClock> = &self.server.clock;
        clock.set(Timestamp(self.now_ms * 1_000));
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.trace.note(what);
    }
}

pub(crate) fn day_of(now_ms: i64) -> i32 {
    i32::try_from(now_ms.div_euclid(86_400_000)).unwrap()
}
