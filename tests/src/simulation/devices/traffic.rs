//! What lies between devices and the server: requests, answers and pushes on their way.

use rand::Rng;
use serde_bytes::ByteArray;
use validator::agent::event::{Event, TapId};
use validator::clock::Now;
use validator::link::lane::AskError;
use validator::link::message::{
    AckCode, Cancel, Check, Confirm, FailureCode, Hello, Pong, RegistryForm, RegistryOffer, Rules,
    TripBatch, Welcome,
};

use engine::calendar::Timestamp;
use engine::ids::OrganizationId;
use gateway::link::kit::{blocks_beside, push_of};
use gateway::link::settle::Settlement;

use crate::simulation::devices::story::Story;
use crate::simulation::town::keys;

/// What a device sends.
#[derive(Clone, Debug)]
pub enum Request {
    /// Nothing came of a check.
    Cancel(Cancel),
    /// Which benefit?
    Check(TapId, Check, u64),
    /// The service was delivered.
    Confirm(u64, Confirm),
    /// Connect.
    Hello(Now, Hello),
    /// What time is it?
    Ping(Now),
    /// Which registry?
    Pull(u64),
    /// Trips.
    Upload(TripBatch),
}

/// Something on its way.
pub enum Parcel {
    /// To the server as it lived then.
    Request {
        /// From which device.
        unit: usize,
        /// Of which of its links.
        generation: u64,
        /// To which life of the server.
        life: u32,
        /// When it was sent.
        sent_ms: i64,
        /// It.
        request: Request,
    },
    /// To a device.
    Event {
        /// Which.
        unit: usize,
        /// Of which of its links.
        generation: u64,
        /// It.
        event: Event,
    },
}

impl Request {
    /// How long a device waits for the answer.
    fn patience_ms(&self) -> i64 {
        match self {
            Request::Check(_, _, patience_ms) => i64::try_from(*patience_ms).unwrap(),
            Request::Hello(..) => 10_000,
            Request::Ping(_) => 2_000,
            Request::Cancel(_) | Request::Confirm(..) => 5_000,
            Request::Pull(_) | Request::Upload(_) => 30_000,
        }
    }

    /// What a device hears in place of an answer.
    fn failed(&self, error: AskError) -> Option<Event> {
        Some(match self {
            Request::Cancel(_) => return None,
            Request::Check(tap, ..) => Event::Checked { tap: *tap, answer: Err(error) },
            Request::Confirm(seq, _) => Event::Confirmed { seq: *seq, answer: Err(error) },
            Request::Hello(..) => Event::Disconnected,
            Request::Ping(sent) => Event::Ponged { sent: *sent, answer: Err(error) },
            Request::Pull(_) => Event::Offered(Err(error)),
            Request::Upload(_) => Event::Uploaded(Err(error)),
        })
    }

    fn is_repeatable(&self) -> bool {
        matches!(self, Request::Cancel(_) | Request::Confirm(..) | Request::Upload(_))
    }
}

impl Story {
    /// A device sends something; it may be lost, or come twice.
    pub(crate) fn send(&mut self, unit: usize, request: Request) {
        let (generation, carries, is_open) = {
            let unit = &self.units[unit];
            (unit.generation, unit.carries, unit.is_open)
        };
        let carries = if matches!(request, Request::Hello(..)) { is_open } else { carries };
        let (sent_ms, life) = (self.now_ms, self.server.crashes);
        let copies = if request.is_repeatable() && self.chance(0.05) { 2 } else { 1 };
        if !carries || self.chance(self.loss) {
            return self.fail(unit, sent_ms, &request, AskError::TimedOut);
        }
        for _ in 0..copies {
            let request = request.clone();
            let parcel = Parcel::Request { unit, generation, life, sent_ms, request };
            let delay_ms = self.delay_ms();
            self.post(self.now_ms + delay_ms, parcel);
        }
    }

    /// A request has come to the server, unless that has fallen meanwhile.
    pub(crate) fn arrive(
        &mut self,
        (unit, generation, sent_ms): (usize, u64, i64),
        request: &Request,
        is_late: bool,
    ) {
        if is_late {
            if self.units[unit].generation == generation {
                self.fail(unit, sent_ms, request, AskError::TimedOut);
            }
            return;
        }
        let is_gone = self.units[unit].generation != generation;
        if is_gone && matches!(request, Request::Hello(..)) {
            return;
        }
        let events = self.serve(unit, request);
        if self.units[unit].generation != generation {
            return;
        }
        let answers = request.failed(AskError::TimedOut).is_some();
        let lost = !self.units[unit].carries || self.chance(self.loss);
        if lost && matches!(request, Request::Hello(..)) {
            self.units[unit].carries = false;
        }
        let mut at_ms = self.now_ms + self.delay_ms();
        if answers && (lost || at_ms > sent_ms + request.patience_ms()) {
            return self.fail(unit, sent_ms, request, AskError::TimedOut);
        }
        for event in events {
            self.post(at_ms, Parcel::Event { unit, generation, event });
            at_ms += self.random.random_range(0..50);
        }
    }

    /// Whatever a device is to hear instead of an answer, once it has waited for that.
    fn fail(&mut self, unit: usize, sent_ms: i64, request: &Request, error: AskError) {
        let Some(event) = request.failed(error) else { return };
        let at_ms = self.now_ms.max(sent_ms + request.patience_ms());
        let generation = self.units[unit].generation;
        self.post(at_ms, Parcel::Event { unit, generation, event });
    }

    /// What the server answers, and pushes.
    fn serve(&mut self, unit: usize, request: &Request) -> Vec<Event> {
        let terminal = self.units[unit].terminal;
        let Some(organization) = self.server.admission(terminal) else {
            let error = AskError::Failed(FailureCode::WrongTerminal);
            return request.failed(error).into_iter().collect();
        };
        let events = match request {
            Request::Cancel(cancel) => {
                let settlement = Settlement::cancel(organization, cancel);
                let ack = self.server.settle(settlement);
                self.note(|| format!("  {terminal} cancels {}: {:?}", cancel.tx, ack.code));
                Vec::new()
            }
            Request::Check(tap, check, _) => {
                let answer = self.server.check(terminal, check);
                self.note(|| format!("  {terminal} checks {tap:?}: {answer:?}"));
                vec![Event::Checked { tap: *tap, answer: Ok(answer) }]
            }
            Request::Confirm(seq, confirm) => {
                let settlement = Settlement::confirm(organization, confirm).unwrap();
                let ack = self.server.settle(settlement);
                self.note(|| format!("  {terminal} confirms {}: {:?}", confirm.tx, ack.code));
                self.audit_confirm(confirm.tx, ack.code);
                vec![Event::Confirmed { seq: *seq, answer: Ok(ack) }]
            }
            Request::Hello(sent, hello) => {
                self.units[unit].carries = self.units[unit].is_open;
                self.welcome(organization, (*sent, hello))
            }
            Request::Ping(sent) => {
                let pong = Pong { clock_ms: self.now_ms };
                vec![Event::Ponged { sent: *sent, answer: Ok(pong) }]
            }
            Request::Pull(have) => self.deliver(organization, *have),
            Request::Upload(batch) => {
                let results = self.server.upload((organization, terminal), batch);
                self.note(|| format!("  {terminal} uploads {:?}", results.results));
                vec![Event::Uploaded(Ok(results))]
            }
        };
        if self.server.node.partition.has_failed() {
            self.note(|| "  the journal fails".to_owned());
            if self.chance(0.5) { self.server.go_on() } else { self.crash_server() }
        }
        events
    }

    fn welcome(
        &mut self,
        organization: OrganizationId,
        (sent, hello): (Now, &Hello),
    ) -> Vec<Event> {
        let registries = &self.server.registries;
        let welcome = Welcome {
            version: 1,
            clock_ms: self.now_ms,
            organization: organization.0,
            registry_version: registries.newest(organization).unwrap_or_default(),
            card_key: ByteArray::new(keys().identifiers.cards().secret()),
            signers: registries.signers(),
            rules: Rules { passback_seconds: 420, grace_hours: 0 },
            in_flight_max: 64,
        };
        let file = registries.file(organization, hello.registry_version).ok();
        let blocks = self.server.node.registrar().blocks();
        let told = blocks_beside(blocks, file.map(|file| file.header().built_at()));
        let mut events = vec![Event::Connected { sent, welcome: Box::new(welcome) }];
        events.extend(told.into_iter().map(Event::Blocked));
        events
    }

    fn deliver(&mut self, organization: OrganizationId, have: u64) -> Vec<Event> {
        let offer = self.server.registries.pull(organization, have);
        let bytes = offer.path.as_ref().map(|path| std::fs::read(path).unwrap());
        let follows = matches!(offer.form, RegistryForm::Delta | RegistryForm::Full);
        let message =
            RegistryOffer { form: offer.form, version: offer.version, bytes: offer.bytes };
        let mut events = vec![Event::Offered(Ok(message))];
        if follows {
            let bytes = bytes.unwrap();
            events.extend(bytes.chunks(400).map(|part| Event::Part(Ok(Some(part.to_vec())))));
            if self.chance(self.loss) {
                events.truncate(events.len() / 2 + 1);
                events.push(Event::Part(Err(AskError::TimedOut)));
            } else {
                events.push(Event::Part(Ok(None)));
            }
        }
        events
    }

    /// Whoever is connected is told of these blocks.
    pub(crate) fn push_blocks(&mut self, since: Timestamp) {
        let blocks = self.server.node.registrar().blocks();
        let mut changes: Vec<_> = blocks.changes_since(since).collect();
        changes.sort_by_key(|change| (change.at, change.blocked, change.identifier.0));
        for unit in 0..self.units.len() {
            if !self.units[unit].carries {
                continue;
            }
            let generation = self.units[unit].generation;
            for change in &changes {
                let at_ms = self.now_ms + self.delay_ms();
                let event = Event::Blocked(push_of(change));
                self.post(at_ms, Parcel::Event { unit, generation, event });
            }
        }
    }

    /// A confirm of what the server knows, and that is not over, is done.
    fn audit_confirm(&self, tx: u64, code: AckCode) {
        let (opened_at, life) = self.server.opened[&tx];
        let age = self.server_now().unix_seconds() - opened_at.unix_seconds();
        let is_over = age >= self.server.settings.checked_ttl_seconds;
        let excused = is_over || life != self.server.crashes;
        match code {
            AckCode::Done | AckCode::Unavailable => {}
            AckCode::NotFound if excused => {}
            other => panic!("the confirm of {tx} was answered {other:?}"),
        }
    }

    fn delay_ms(&mut self) -> i64 {
        match self.random.random_range(0..20) {
            0 => self.random.random_range(0..8_000),
            1..4 => self.random.random_range(0..400),
            _ => self.random.random_range(1..60),
        }
    }
}
