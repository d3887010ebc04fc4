//! An agent against a model of the server, under a seed: links that break, answers that are lost,
//! power that fails.

use std::collections::{BTreeMap, BTreeSet};

use engine::calendar::Timestamp;
use engine::identifier::Digest;
use engine::ids::ServiceId;
use serde_bytes::ByteArray;

use super::*;
use crate::device::card::Card;
use crate::device::{Found, Right};
use crate::files::memory::{MemoryFiles, Remains};
use crate::link::message::{
    Ack, AckCode, Check, FailureCode, Pong, RegistryForm, RegistryOffer, Signer, TripBatch,
    TripResults,
};
use crate::queue::segment::Refusal;
use crate::store::{Installed, StoreError};
use crate::trip::{Trip, TripEvent, TripMode, TripReason, TripResult, TripStatus};
use crate::verdict::Verdict;

/// 2025-06-02T00:00:00Z.
const BUILT_MS: i64 = 1_748_822_400_000;
const CARD_KEY: [u8; 16] = [3; 16];

/// Everybody has a right.
struct Everybody(u64);

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
struct Shelf {
    incoming: Vec<u8>,
    installed: u64,
}

impl RegistryStore for Shelf {
    type Registry = Everybody;

    fn open(&mut self, _: &[Signer]) -> io::Result<Option<Everybody>> {
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

    fn install(&mut self, _: &[Signer], _: (u32, u64)) -> Result<Installed<Everybody>, StoreError> {
        let version = self.incoming.first().copied().ok_or(StoreError::Length)?;
        self.installed = u64::from(version);
        let sha256 = ByteArray::new([0; 32]);
        Ok(Installed { registry: Everybody(self.installed), sha256 })
    }

    fn abandon(&mut self) {
        self.incoming.clear();
    }
}

/// The server, as far as a device can tell.
#[derive(Default)]
struct Server {
    trips: BTreeMap<u64, Trip>,
    names: BTreeSet<[u8; 16]>,
    open: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    last_tx: u64,
    /// What it says to every trip, recording none.
    refuses: Option<(TripStatus, Option<TripReason>)>,
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

fn welcome() -> Box<Welcome> {
    Box::new(Welcome {
        version: 1,
        clock_ms: BUILT_MS,
        organization: 4,
        registry_version: 7,
        card_key: ByteArray::new(CARD_KEY),
        signers: Vec::new(),
        rules: Rules { passback_seconds: 420, grace_hours: 0 },
        in_flight_max: 64,
    })
}

/// The world around one device.
struct World {
    files: MemoryFiles,
    agent: Option<Agent<Shelf>>,
    server: Server,
    random: Random,
    now: Now,
    /// Answers on their way; lost where the link breaks.
    coming: Vec<(u64, Event)>,
    reachable: bool,
    installed: u64,
    granted: BTreeSet<u64>,
    decided: usize,
    errors: Vec<TapError>,
    notices: Vec<Notice>,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            files: MemoryFiles::default(),
            agent: None,
            server: Server::default(),
            random: Random::new(seed),
            now: Now { wall_ms: BUILT_MS + 3_600_000, steady_ms: 0 },
            coming: Vec::new(),
            reachable: true,
            installed: 0,
            granted: BTreeSet::new(),
            decided: 0,
            errors: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn start(&mut self) {
        let config = AgentConfig { terminal: 9, check_ms: 300 };
        let store = Shelf { installed: self.installed, ..Shelf::default() };
        let seed = self.random.number();
        let files = Arc::new(self.files.clone());
        let (agent, _) = Agent::open(config, files, store, (seed, self.now)).unwrap();
        self.agent = Some(agent);
    }

    fn crash(&mut self) {
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

    fn tap(&mut self, tap: u64) {
        let card = Card::MifareUid(format!("{:014X}", 0x0400_0000_0000_0000_u64 / 256 + tap));
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

    fn happen(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        agent.handle(event, self.now);
        agent.flush(self.now);
        self.act();
    }

    /// Lets `ms` pass, with everything that falls due meanwhile.
    fn pass(&mut self, ms: u64) {
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

    fn act(&mut self) {
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
                Action::Connect(_) => self.come(100, Event::Connected { welcome: welcome() }),
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
                    let (sent, clock_ms) = (self.now, self.now.wall_ms);
                    let answer = Ok(Pong { clock_ms });
                    self.come_or(lost, |answer| Event::Ponged { sent, answer }, answer);
                }
                Action::Pull { .. } if lost => {
                    self.come(5_000, Event::Offered(Err(AskError::TimedOut)));
                }
                Action::Pull { .. } => {
                    let form = RegistryForm::Full;
                    self.happen(Event::Offered(Ok(RegistryOffer { form, version: 7, bytes: 1 })));
                    self.happen(Event::Part(Ok(Some(vec![7]))));
                    self.happen(Event::Part(Ok(None)));
                }
                Action::Cancel(cancel) => {
                    self.server.open.remove(&cancel.tx);
                    self.server.cancelled.insert(cancel.tx);
                }
                Action::Acknowledge(_) => {}
            }
        }
    }

    /// The answer comes after a while, or patience ends.
    fn come_or<A>(
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

    fn come(&mut self, wait_ms: u64, event: Event) {
        self.coming.push((self.now.steady_ms + wait_ms, event));
    }

    fn break_link(&mut self) {
        self.coming.clear();
        self.happen(Event::Disconnected);
    }
}

#[test]
fn every_granted_tap_is_one_trip_on_the_server() {
    for seed in 0..60 {
        let mut world = World::new(seed);
        world.start();
        world.pass(2_000);
        let mut taps = 0;
        for _ in 0..200 {
            match world.random.below(20) {
                0 => world.crash(),
                1 => world.break_link(),
                2 => world.reachable = !world.reachable,
                3 => world.files.fail_next(2),
                4 => world.pass(60_000),
                _ => {
                    taps += 1;
                    world.tap(taps);
                    let ms = world.random.below(1_000);
                    world.pass(ms);
                }
            }
        }
        world.reachable = true;
        world.files.fail_next(0);
        world.pass(3_600_000);
        eprintln!("seed {seed}: {} granted of {taps}", world.granted.len());
        assert_eq!(world.agent.as_ref().unwrap().trips_waiting(), 0);
        let mut reported = BTreeMap::new();
        for trip in world.server.trips.values() {
            *reported.entry(trip.tariff).or_insert(0) += 1;
        }
        assert!(world.granted.len() > 50);
        assert!(world.granted.iter().all(|tap| reported.get(tap) == Some(&1)));
        assert!(reported.values().all(|count| *count == 1));
        for trip in world.server.trips.values().filter(|trip| trip.mode == TripMode::Online) {
            assert!(world.server.confirmed.contains(&trip.tx.unwrap()));
            assert!(!world.server.cancelled.contains(&trip.tx.unwrap()));
        }
    }
}

fn linked() -> World {
    let mut world = World::new(1);
    world.start();
    world.pass(60_000);
    assert!(world.agent.as_ref().unwrap().is_linked());
    assert_eq!(world.installed, 7);
    world
}

#[test]
fn a_tap_is_decided_within_its_deadline_and_at_once_after_three_silent_ones() {
    let mut world = linked();
    world.reachable = false;
    for tap in 1..=3 {
        world.tap(tap);
        world.pass(299);
        assert_eq!(world.decided, tap as usize - 1);
        world.pass(1);
        assert_eq!(world.decided, tap as usize);
    }
    world.tap(4);
    assert_eq!(world.decided, 4, "the server is silent");
    world.coming.clear();
    world.reachable = true;
    let (sent, answer) = (world.now, Ok(Pong { clock_ms: world.now.wall_ms }));
    world.happen(Event::Ponged { sent, answer });
    world.tap(5);
    assert_eq!(world.decided, 4, "the server was heard");
    world.pass(300);
    assert_eq!(world.granted.len(), 5);
}

#[test]
fn nothing_is_granted_that_cannot_be_recorded() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.files.fail_next(u64::MAX);
    world.tap(1);
    assert!(matches!(world.errors.pop(), Some(TapError::Queue(QueueError::Disk(_)))));
    world.files.fail_next(0);
    world.tap(1);
    assert_eq!(world.granted.len(), 1, "the refused tap is no repeat");
    world.tap(1);
    assert_eq!((world.decided, world.granted.len()), (2, 1));
}

#[test]
fn repeats_are_told_after_a_restart() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.tap(1);
    world.crash();
    world.tap(1);
    assert_eq!((world.decided, world.granted.len()), (2, 1));
    world.pass(420_000);
    world.tap(1);
    assert_eq!(world.decided, 3);
}

#[test]
fn a_device_that_lost_its_disk_does_not_lose_trips() {
    let mut world = linked();
    (1..=40).for_each(|tap| world.tap(tap));
    world.pass(600_000);
    assert_eq!(world.server.trips.len(), 40);
    world.agent = None;
    world.files = MemoryFiles::default();
    world.coming.clear();
    world.start();
    world.pass(60_000);
    (41..=80).for_each(|tap| world.tap(tap));
    world.pass(600_000);
    assert_eq!(world.agent.as_ref().unwrap().trips_waiting(), 0);
    let reported: BTreeSet<u64> = world.server.trips.values().map(|trip| trip.tariff).collect();
    assert_eq!(reported, (1..=80).collect());
    assert_eq!(world.server.trips.len(), 80);
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::TripsRenumbered { .. })));
}

#[test]
fn trips_of_another_terminal_are_not_reported() {
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    world.tap(1);
    world.agent = None;
    let config = AgentConfig { terminal: 10, check_ms: 300 };
    let files = Arc::new(world.files.clone());
    let opened = Agent::open(config, files, Shelf::default(), (1, world.now));
    assert!(matches!(opened, Err(OpenError::OtherTerminal)));
}

/// Trips of a terminal that had been given away, and such that were in conflict under all their
/// numbers, were settled as if the server had recorded them.
#[test]
fn trips_that_the_server_will_not_take_are_put_aside() {
    let terminal = (TripStatus::Rejected, Some(TripReason::Terminal));
    for (refused, reason) in
        [(terminal, Refusal::Terminal), ((TripStatus::Conflict, None), Refusal::Conflict)]
    {
        let mut world = linked();
        world.server.refuses = Some(refused);
        (1..=20).for_each(|tap| world.tap(tap));
        world.pass(3_600_000);
        assert_eq!(world.granted.len(), 20);
        let counts = |world: &World| {
            let agent = world.agent.as_ref().unwrap();
            (agent.trips_waiting(), agent.trips_refused())
        };
        assert_eq!(counts(&world), (0, 20), "{reason:?}");
        for _ in 0..3 {
            world.crash();
            world.pass(3_600_000);
            assert_eq!(counts(&world), (0, 20), "{reason:?}");
        }
        let is_it = |notice: &&Notice| matches!(notice, Notice::TripRefused { reason: shown, .. } if *shown == reason);
        assert_eq!(world.notices.iter().filter(is_it).count(), 20);
    }
}

#[test]
fn a_check_that_came_to_nothing_is_cancelled() {
    let mut world = linked();
    world.tap(1);
    let Some(at) = world.coming.iter().position(|(_, e)| matches!(e, Event::Checked { .. })) else {
        panic!("no check")
    };
    let (_, late) = world.coming.swap_remove(at);
    world.pass(300);
    assert_eq!(world.granted.len(), 1, "decided alone");
    world.happen(late);
    assert_eq!(world.server.cancelled.len(), 1);
}

#[test]
fn a_batch_that_the_server_cannot_read_is_halved_until_the_fault_is_found() {
    let mut upload = Upload::new();
    let mut world = linked();
    world.reachable = false;
    world.break_link();
    (1..=8).for_each(|tap| world.tap(tap));
    let queue = &mut world.agent.as_mut().unwrap().queue;
    let faulty = queue.pending(0, 3).entries[2].trip.seq;
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (after, limit) = upload.wants();
        match upload.begin(queue.pending(after, limit).entries) {
            super::upload::Step::Send(batch) => {
                let malformed = batch.trips.iter().any(|trip| trip.seq == faulty);
                let results = batch.trips.iter().map(|trip| TripResult {
                    seq: trip.seq,
                    status: TripStatus::Accepted,
                    reason: None,
                    first: None,
                });
                let answer = match malformed {
                    true => Err(AskError::Failed(FailureCode::Malformed)),
                    false => Ok(TripResults { results: results.collect() }),
                };
                let (settled, _) = upload.handle_uploaded(answer);
                accepted.extend(settled.settled);
                refused.extend(settled.refused);
            }
            super::upload::Step::Done => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted.len(), 7);
    let refused: Vec<_> = refused.iter().map(|entry| (entry.trip.seq, entry.refusal)).collect();
    assert_eq!(refused, [(faulty, Some(Refusal::Malformed))]);
}
