//! The world around one device: a model of the server, a link that breaks, a disk that loses power.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use engine::calendar::Timestamp;
use engine::identifier::Digest;
use engine::ids::ServiceId;
use serde_bytes::ByteArray;

use crate::agent::event::{Action, Event, Notice, TapError, TapId};
use crate::agent::{Agent, AgentConfig};
use crate::clock::Now;
use crate::device::card::Card;
use crate::device::{Found, HolderRegistry, Journey, Life, Right};
use crate::files::memory::{MemoryFiles, Remains};
use crate::link::lane::AskError;
use crate::link::message::{
    Ack, AckCode, Check, CheckResult, Pong, RegistryForm, RegistryOffer, Rules, Signer, TripBatch,
    TripResults, Welcome,
};
use crate::random::Random;
use crate::store::{Installation, Installed, RegistryStore, StoreError};
use crate::trip::{Trip, TripEvent, TripReason, TripResult, TripStatus};
use crate::verdict::Verdict;

/// 2025-06-02T00:00:00Z.
pub(super) const BUILT_MS: i64 = 1_748_822_400_000;
pub(super) const CARD_KEY: [u8; 16] = [3; 16];

/// Everybody has a right.
pub(super) struct Everybody(u64);

impl HolderRegistry for Everybody {
    fn life(&self) -> Life {
        let valid_until_ms = BUILT_MS + 48 * 3_600_000;
        Life { organization: 4, version: self.0, built_at_ms: BUILT_MS, valid_until_ms }
    }

    fn look_up(&self, _: &Digest, _: ServiceId, _: Timestamp) -> Found {
        Found::Right(Right { category: 10, discount: 100, companion: false, offline: true })
    }
}

/// A store whose registries are a byte long: their version.
#[derive(Default)]
pub(super) struct Shelf {
    incoming: Vec<u8>,
    installed: u64,
}

impl RegistryStore for Shelf {
    type Registry = Everybody;

    fn open(&mut self, _: &[Signer], _: u32) -> io::Result<Option<Everybody>> {
        Ok(Some(self.installed).filter(|version| *version > 0).map(Everybody))
    }

    fn begin(&mut self, _: &RegistryOffer) -> Result<(), StoreError> {
        self.incoming.clear();
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.incoming.extend_from_slice(bytes);
        Ok(())
    }

    fn install(
        &mut self,
        _: &[Signer],
        _: (u32, u64),
    ) -> Result<Installation<Everybody>, StoreError> {
        let version = self.incoming.first().copied().ok_or(StoreError::Length)?;
        self.installed = u64::from(version);
        let registry = Everybody(self.installed);
        Ok(Box::new(|| Ok(Installed { registry, sha256: ByteArray::new([0; 32]) })))
    }

    fn abandon(&mut self) {
        self.incoming.clear();
    }
}

/// The server, as far as a device can tell.
#[derive(Default)]
pub(super) struct Server {
    pub(super) trips: BTreeMap<u64, Trip>,
    pub(super) names: BTreeSet<[u8; 16]>,
    pub(super) open: BTreeSet<u64>,
    pub(super) confirmed: BTreeSet<u64>,
    pub(super) cancelled: BTreeSet<u64>,
    pub(super) last_tx: u64,
    /// What it says to every trip, recording none.
    pub(super) refuses: Option<(TripStatus, Option<TripReason>)>,
}

impl Server {
    fn check(&mut self, _: &Check) -> CheckResult {
        self.last_tx += 1;
        self.open.insert(self.last_tx);
        CheckResult {
            tx: Some(self.last_tx),
            holder: Some(1),
            category: Some(10),
            discount: Some(100),
            ..CheckResult::default()
        }
    }

    fn confirm(&mut self, tx: u64) -> Ack {
        let code = match self.open.remove(&tx) || self.confirmed.contains(&tx) {
            true => AckCode::Done,
            false => AckCode::NotFound,
        };
        self.confirmed.insert(tx);
        Ack { code }
    }

    fn upload(&mut self, batch: TripBatch, random: &mut Random) -> TripResults {
        let results = batch.trips.into_iter().map(|trip| {
            let seq = trip.seq;
            let named = trip.trip_id.is_some_and(|name| self.names.contains(&name.into_array()));
            let (status, reason) = match self.trips.get(&seq) {
                _ if self.refuses.is_some() => self.refuses.unwrap(),
                Some(known) if *known == trip => (TripStatus::Duplicate, None),
                Some(_) => (TripStatus::Conflict, None),
                None if named => (TripStatus::Conflict, None),
                None if random.below(10) == 0 => (TripStatus::Unavailable, None),
                None => {
                    self.names.extend(trip.trip_id.map(ByteArray::into_array));
                    self.trips.insert(seq, trip);
                    match random.below(10) {
                        0 => (TripStatus::Rejected, Some(TripReason::Registry)),
                        1 => (TripStatus::Disputed, Some(TripReason::Blocked)),
                        _ => (TripStatus::Accepted, None),
                    }
                }
            };
            TripResult { seq, status, reason, first: None }
        });
        TripResults { results: results.collect() }
    }
}

/// The card of a tap.
pub(super) fn uid(tap: u64) -> String {
    format!("{:014X}", 0x0400_0000_0000_0000_u64 / 256 + tap)
}

pub(super) fn welcome(clock_ms: i64) -> Box<Welcome> {
    Box::new(Welcome {
        version: 1,
        clock_ms,
        organization: 4,
        registry_version: 7,
        card_key: ByteArray::new(CARD_KEY),
        signers: Vec::new(),
        rules: Rules { passback_seconds: 420, grace_hours: 0 },
        in_flight_max: 64,
    })
}

/// The world around one device.
pub(super) struct World {
    pub(super) files: MemoryFiles,
    pub(super) agent: Option<Agent<Shelf>>,
    pub(super) server: Server,
    pub(super) random: Random,
    pub(super) now: Now,
    /// The device's clock minus the server's.
    pub(super) ahead_ms: i64,
    /// Answers on their way; lost where the link breaks.
    pub(super) coming: Vec<(u64, Event)>,
    pub(super) reachable: bool,
    pub(super) installed: u64,
    /// The version that the server has.
    pub(super) offered: u8,
    /// Whether [`Action::Install`] is left to the test.
    pub(super) installs_slowly: bool,
    pub(super) granted: BTreeSet<u64>,
    pub(super) decided: usize,
    pub(super) errors: Vec<TapError>,
    pub(super) notices: Vec<Notice>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            files: MemoryFiles::default(),
            agent: None,
            server: Server::default(),
            random: Random::new(seed),
            now: Now { wall_ms: BUILT_MS + 3_600_000, steady_ms: 0 },
            ahead_ms: 0,
            coming: Vec::new(),
            reachable: true,
            installed: 0,
            offered: 7,
            installs_slowly: false,
            granted: BTreeSet::new(),
            decided: 0,
            errors: Vec::new(),
            notices: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) {
        let config = AgentConfig { terminal: 9, check_ms: 300 };
        let store = Shelf { installed: self.installed, ..Shelf::default() };
        let seed = self.random.number();
        let files = Arc::new(self.files.clone());
        let (agent, _) = Agent::open(config, files, store, (seed, self.now)).unwrap();
        self.agent = Some(agent);
    }

    pub(super) fn crash(&mut self) {
        self.agent = None;
        self.coming.clear();
        let remains = match self.random.below(3) {
            0 => Remains::All,
            1 => Remains::Nothing,
            _ => Remains::Some(self.random.number()),
        };
        self.files = self.files.after_power_cut(remains);
        self.start();
    }

    pub(super) fn tap(&mut self, tap: u64) {
        let card = Card::MifareUid(uid(tap));
        let journey = Journey {
            event: TripEvent::Boarding,
            service: 1,
            price: tap,
            route: String::new(),
            vehicle: String::new(),
            from_stop: String::new(),
            to_stop: String::new(),
            ticket: String::new(),
        };
        self.happen(Event::Tap { tap: TapId(tap), card, journey });
    }

    pub(super) fn happen(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        agent.handle(event, self.now);
        agent.flush(self.now);
        self.act();
    }

    /// Lets `ms` pass, with everything that falls due meanwhile.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.steady_ms + ms;
        for round in 0.. {
            assert!(round < 100_000, "the agent is never content");
            let timeout = self.agent.as_ref().and_then(Agent::next_timeout);
            let coming = self.coming.iter().map(|(at, _)| *at).min();
            let next = [timeout, coming].into_iter().flatten().min().unwrap_or(end);
            if next > end {
                break;
            }
            let next = next.max(self.now.steady_ms);
            self.now.wall_ms += (next - self.now.steady_ms) as i64;
            self.now.steady_ms = next;
            let due = self.coming.iter().position(|(at, _)| *at <= next);
            match due.map(|at| self.coming.swap_remove(at)) {
                Some((_, event)) => self.happen(event),
                None => {
                    let agent = self.agent.as_mut().unwrap();
                    agent.handle_timeout(self.now);
                    agent.flush(self.now);
                    self.act();
                    if timeout.is_none() {
                        break;
                    }
                }
            }
        }
        self.now.wall_ms += (end - self.now.steady_ms) as i64;
        self.now.steady_ms = end;
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.agent.as_mut().and_then(Agent::poll_action) {
            let lost = !self.reachable || self.random.below(20) == 0;
            match action {
                Action::Answer { tap, outcome } => match *outcome {
                    Ok(outcome) => {
                        self.decided += 1;
                        if outcome.verdict == Verdict::Grant {
                            self.granted.insert(tap.0);
                        }
                    }
                    Err(error) => self.errors.push(error),
                },
                Action::Show(notice) => {
                    if let Notice::RegistryInstalled { version } = notice {
                        self.installed = version;
                    }
                    self.notices.push(notice);
                }
                Action::Connect(_) if lost => self.come(500, Event::Disconnected),
                Action::Connect(_) => {
                    let (sent, welcome) = (self.now, welcome(self.server_ms() + 50));
                    self.come(100, Event::Connected { sent, welcome });
                }
                Action::Check { tap, check, .. } => {
                    let answer = self.server.check(&check);
                    self.come_or(lost, |answer| Event::Checked { tap, answer }, Ok(answer));
                }
                Action::Confirm { seq, confirm, .. } => {
                    let answer = Ok(self.server.confirm(confirm.tx));
                    self.come_or(lost, |answer| Event::Confirmed { seq, answer }, answer);
                }
                Action::Upload { batch, .. } => {
                    let answer = Ok(self.server.upload(batch, &mut self.random));
                    self.come_or(lost, Event::Uploaded, answer);
                }
                Action::Ping => {
                    let (sent, clock_ms) = (self.now, self.server_ms());
                    let answer = Ok(Pong { clock_ms });
                    self.come_or(lost, |answer| Event::Ponged { sent, answer }, answer);
                }
                Action::Pull { .. } if lost => {
                    self.come(5_000, Event::Offered(Err(AskError::TimedOut)));
                }
                Action::Pull { .. } => {
                    let (form, version) = (RegistryForm::Full, u64::from(self.offered));
                    self.happen(Event::Offered(Ok(RegistryOffer { form, version, bytes: 1 })));
                    self.happen(Event::Part(Ok(Some(vec![self.offered]))));
                    self.happen(Event::Part(Ok(None)));
                }
                Action::Cancel(cancel) => {
                    self.server.open.remove(&cancel.tx);
                    self.server.cancelled.insert(cancel.tx);
                }
                Action::Acknowledge(_) => {}
                Action::Install if self.installs_slowly => {}
                Action::Install => self.install(),
            }
        }
    }

    /// Does what [`Action::Install`] asked for.
    pub(super) fn install(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let installation = agent.take_installation().unwrap();
        agent.handle_installed(installation(), self.now);
        self.act();
    }

    /// The answer comes after a while, or patience ends.
    pub(super) fn come_or<A>(
        &mut self,
        lost: bool,
        event: impl FnOnce(Result<A, AskError>) -> Event,
        answer: Result<A, AskError>,
    ) {
        if lost {
            return self.come(5_000, event(Err(AskError::TimedOut)));
        }
        let wait_ms = 20 + self.random.below(200);
        self.come(wait_ms, event(answer));
    }

    pub(super) fn server_ms(&self) -> i64 {
        self.now.wall_ms - self.ahead_ms
    }

    pub(super) fn come(&mut self, wait_ms: u64, event: Event) {
        self.coming.push((self.now.steady_ms + wait_ms, event));
    }

    pub(super) fn break_link(&mut self) {
        self.coming.clear();
        self.happen(Event::Disconnected);
    }
}

/// One that has a link and registry 7.
pub(super) fn linked() -> World {
    let mut world = World::new(1);
    world.start();
    world.pass(60_000);
    assert!(world.agent.as_ref().unwrap().is_linked());
    assert_eq!(world.installed, 7);
    world
}
