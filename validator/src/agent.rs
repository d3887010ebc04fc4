//! The agent: a device that decides, remembers and reports.
//!
//! [`Agent`] is a machine without threads, sockets or clocks of its own: it takes [`Event`]s, and
//! gives [`Action`]s; a whole fleet runs in one test. [`run`] gives it a link and a runtime, [`local`]
//! a face.
//!
//! # How to drive it
//! [`Agent::handle`] for all events that wait, then once [`Agent::flush`], then
//! [`Agent::poll_action`] until there is none; again when an event comes or the moment of
//! [`Agent::next_timeout`] has come ([`Agent::handle_timeout`]).
//!
//! # A tap
//! Is asked of the server where there is a link, and decided alone where the server does not answer
//! within [`AgentConfig::check_ms`] (at once after [`SILENT_CHECKS_MAX`] such checks, until the server
//! is heard again). [`Agent::flush`] records the trips of all grants with one sync of the disk and
//! only then answers them. A trip of an online grant keeps its confirm: both are sent until the
//! server has answered both, confirm first, through restarts of either side.
//!
//! # What is bounded
//! Taps that wait for the server ([`TAPS_WAITING_MAX`]; more are decided alone), one batch of trips and
//! one registry on their way; the queue by [`crate::queue`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use engine::identifier::CardKey;

use crate::agent::backoff::Backoff;
use crate::agent::event::{Action, Event, Notice, TapError, TapId};
use crate::agent::memory::ServerFacts;
use crate::agent::sync::OFFSET_MS;
use crate::agent::upload::Upload;
use crate::clock::{Now, ServerClock};
use crate::device::blocks::Blocks;
use crate::device::passback::Passback;
use crate::device::{Asked, Begun, Detail, Device, HolderRegistry, Journey, Life, Outcome};
use crate::files::Files;
use crate::link::lane::AskError;
use crate::link::message::{Cancel, CheckResult, Hello, Rules, Welcome};
use crate::link::transport::VERSION;
use crate::queue::{QueueError, Recovered, TripQueue};
use crate::random::Random;
use crate::store::RegistryStore;

pub mod backoff;
pub mod event;
pub mod local;
pub mod memory;
mod report;
pub mod run;
mod sync;
pub mod upload;
pub mod wall;

/// Taps that wait for the server at the same time.
pub const TAPS_WAITING_MAX: usize = 64;
/// Checks in a row without an answer after which the device does not wait for the server.
pub const SILENT_CHECKS_MAX: u32 = 3;
/// What is kept to before the server has said anything.
const RULES: Rules = Rules { passback_seconds: 420, grace_hours: 0 };
const RECONNECT: Backoff = Backoff::new(1_000, 60_000);

/// Who the device is and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct AgentConfig {
    /// The terminal of its certificate.
    pub terminal: u64,
    /// How long a tap waits for the server.
    pub check_ms: u64,
}

/// The machine; see the head of the module.
pub struct Agent<S: RegistryStore> {
    config: AgentConfig,
    files: Arc<dyn Files>,
    store: S,
    device: Device<S::Registry>,
    facts: Option<ServerFacts>,
    queue: TripQueue,
    random: Random,
    link: Link,
    reconnect: Backoff,
    waiting: BTreeMap<TapId, Waiting>,
    silent_checks: u32,
    decided: Vec<(TapId, Outcome)>,
    upload: Upload,
    reporting: report::Reporting,
    syncing: sync::Syncing<S::Registry>,
    actions: VecDeque<Action>,
}

enum Link {
    Connecting,
    Down { until_ms: u64 },
    Up,
}

struct Waiting {
    asked: Asked,
    until_ms: u64,
}

impl<S: RegistryStore> Agent<S> {
    /// A device as it was left: `store` holds its registries, `files` everything else.
    pub fn open(
        config: AgentConfig,
        files: Arc<dyn Files>,
        mut store: S,
        (seed, now): (u64, Now),
    ) -> Result<(Agent<S>, Recovered), OpenError> {
        let facts = memory::read_facts(&*files)?;
        let mut clock = ServerClock::remembering(facts.as_ref().map_or(0, |f| f.clock_offset_ms));
        let (queue, recovered) = TripQueue::open(Arc::clone(&files), clock.server_ms(now))?;
        let recorded = recovered.recent.iter().map(|entry| entry.trip.server_ms());
        if let Some(last_ms) = recorded.max() {
            clock.handle_earlier_life(last_ms, now);
        }
        let other = facts.as_ref().is_some_and(|facts| facts.terminal != config.terminal);
        if other && !queue.is_empty() {
            return Err(OpenError::OtherTerminal);
        }
        let signers = facts.as_ref().map(|facts| facts.signers.as_slice()).unwrap_or_default();
        let organization = facts.as_ref().map_or(0, |facts| facts.organization);
        let registry = store.open(signers, organization)?;
        let mut blocks = memory::read_blocks(&*files)?.unwrap_or_else(Blocks::default);
        // Those may have been written before the registry was installed.
        registry.iter().for_each(|registry| blocks.forget_before(registry.life().built_at_ms));
        let mut device = Device {
            card_key: facts.as_ref().map(|facts| CardKey::new(facts.card_key.into_array())),
            organization,
            signers: facts.as_ref().map(|facts| facts.signers.clone()).unwrap_or_default(),
            rules: facts.as_ref().map_or(RULES, |facts| facts.rules),
            registry,
            blocks,
            passback: Passback::default(),
            clock,
        };
        recovered.recent.iter().for_each(|entry| {
            device.passback.note(entry);
        });
        let agent = Agent {
            config,
            files,
            store,
            device,
            facts,
            queue,
            random: Random::new(seed),
            link: Link::Down { until_ms: now.steady_ms },
            reconnect: RECONNECT,
            waiting: BTreeMap::new(),
            silent_checks: 0,
            decided: Vec::new(),
            upload: Upload::new(),
            reporting: report::Reporting::new(),
            syncing: sync::Syncing::new(),
            actions: VecDeque::new(),
        };
        Ok((agent, recovered))
    }

    /// Takes what happened. Grants are answered by the next [`Agent::flush`].
    pub fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Blocked(push) => self.handle_blocked(&push, now),
            Event::Board { tap, card, ticket, journey } => {
                self.handle_tap(tap, journey, now, |device, journey| {
                    device.board(&card, ticket.as_deref(), (journey, now))
                });
            }
            Event::Checked { tap, answer } => self.handle_checked(tap, answer),
            Event::Connected { sent, welcome } => self.handle_connected(sent, &welcome, now),
            Event::Confirmed { seq, answer } => self.handle_confirmed(seq, &answer, now),
            Event::Disconnected => self.handle_disconnected(now),
            Event::Offered(offer) => self.handle_offered(offer, now),
            Event::Part(part) => self.handle_part(part, now),
            Event::Ponged { sent, answer } => self.handle_ponged(sent, answer, now),
            Event::Sync => self.sync_now(now),
            Event::Tap { tap, card, journey } => {
                let begin = |device: &Device<_>, journey| device.begin(&card, journey, now);
                self.handle_tap(tap, journey, now, begin);
            }
            Event::Ticket { tap, text, journey } => {
                self.handle_tap(tap, journey, now, |device, journey| {
                    device.begin_ticket(&text, journey, now)
                });
            }
            Event::Uploaded(answer) => self.handle_uploaded(answer, now),
        }
    }

    /// Records all grants that were decided, with one sync of the disk, and answers their taps.
    pub fn flush(&mut self, now: Now) {
        let decided = std::mem::take(&mut self.decided);
        let entries: Vec<_> =
            decided.iter().filter_map(|(_, outcome)| outcome.entry.as_deref().cloned()).collect();
        if entries.is_empty() {
            return decided.into_iter().for_each(|(tap, outcome)| self.answer(tap, Ok(outcome)));
        }
        match self.queue.append(entries, self.device.clock.server_ms(now)) {
            Ok(mut numbers) => {
                numbers.reverse();
                for (tap, mut outcome) in decided {
                    if let Some(entry) = &mut outcome.entry {
                        entry.trip.seq = numbers.pop().unwrap_or_default();
                    }
                    self.answer(tap, Ok(outcome));
                }
                self.report_soon(now);
            }
            Err(error) => self.refuse_unrecorded(decided, error),
        }
    }

    /// Does what its time has come for.
    pub fn handle_timeout(&mut self, now: Now) {
        let late: Vec<TapId> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.until_ms <= now.steady_ms)
            .map(|(tap, _)| *tap)
            .collect();
        for tap in late {
            self.handle_checked(tap, Err(AskError::TimedOut));
        }
        if let Link::Down { until_ms } = self.link
            && until_ms <= now.steady_ms
        {
            self.link = Link::Connecting;
            let hello = Hello {
                version_min: VERSION,
                version_max: VERSION,
                terminal: self.config.terminal,
                registry_version: self.life().map_or(0, |life| life.version),
                clock_ms: now.wall_ms,
            };
            self.actions.push_back(Action::Connect(hello));
        }
        self.report_due(now);
        self.sync_due(now);
    }

    /// When [`Agent::handle_timeout`] is to be called next, by the steady clock.
    pub fn next_timeout(&self) -> Option<u64> {
        let taps = self.waiting.values().map(|waiting| waiting.until_ms).min();
        let link = match self.link {
            Link::Down { until_ms } => Some(until_ms),
            Link::Connecting | Link::Up => None,
        };
        let may_report = self.is_linked() && !self.upload.is_busy();
        let report = self.reporting.due_ms.filter(|_| may_report);
        [taps, link, report, self.sync_timeout()].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Writes down what may wait until the end.
    pub fn close(&mut self, now: Now) {
        self.flush(now);
        self.remember(now);
    }

    /// Whether there is a link.
    pub fn is_linked(&self) -> bool {
        matches!(self.link, Link::Up)
    }

    /// Trips that the server does not have yet.
    pub fn trips_waiting(&self) -> usize {
        self.queue.len()
    }

    /// Trips that the server will not take.
    pub fn trips_refused(&self) -> usize {
        self.queue.refused()
    }

    /// Files of trips that cannot be read.
    pub fn files_unreadable(&self) -> usize {
        self.queue.unreadable_files()
    }

    /// Whether more cards are blocked than it can know, so that it decides nothing alone.
    pub fn blocks_missed(&self) -> bool {
        self.device.blocks.are_missed()
    }

    /// Why the next grant could not be recorded, if so.
    pub fn check_room(&self, now: Now) -> Result<(), QueueError> {
        self.queue.check_room(1, self.device.clock.server_ms(now))
    }

    /// The registry that it decides by, and whether that counts now.
    pub fn registry(&self, now: Now) -> Option<(Life, bool)> {
        let life = self.life()?;
        Some((life, self.device.is_valid(life, self.device.clock.server_ms(now))))
    }

    /// The device's clock minus the server's.
    pub fn clock_offset_ms(&self, now: Now) -> i64 {
        self.device.clock.offset_ms(now)
    }

    fn life(&self) -> Option<Life> {
        self.device.registry.as_ref().map(HolderRegistry::life)
    }

    fn handle_tap(
        &mut self,
        tap: TapId,
        journey: Journey,
        now: Now,
        begin: impl FnOnce(&Device<S::Registry>, Journey) -> Begun,
    ) {
        if !journey.is_reportable() {
            return self.answer(tap, Err(TapError::Malformed));
        }
        if let Err(error) = self.check_room(now) {
            return self.answer(tap, Err(error.into()));
        }
        let asked = match begin(&self.device, journey) {
            Begun::Ask(asked) => asked,
            Begun::Decided(outcome) => return self.decide(tap, outcome),
        };
        let may_ask = self.is_linked()
            && self.silent_checks < SILENT_CHECKS_MAX
            && self.waiting.len() < TAPS_WAITING_MAX;
        if !may_ask {
            let outcome = self.device.decide_offline(&asked);
            return self.decide(tap, outcome);
        }
        let (check, patience_ms) = (asked.check(), self.config.check_ms);
        let until_ms = now.steady_ms.saturating_add(patience_ms);
        self.waiting.insert(tap, Waiting { asked, until_ms });
        self.actions.push_back(Action::Check { tap, check, patience_ms });
    }

    fn handle_checked(&mut self, tap: TapId, answer: Result<CheckResult, AskError>) {
        let waiting = self.waiting.remove(&tap);
        match (&answer, &waiting) {
            (Ok(_), Some(_)) => self.silent_checks = 0,
            (Err(AskError::TimedOut), Some(_)) => {
                self.silent_checks = self.silent_checks.saturating_add(1);
            }
            // What comes late was silence before.
            _ => {}
        }
        let asked = waiting.map(|waiting| waiting.asked);
        let outcome = asked.map(|asked| {
            let online = answer.as_ref().ok();
            let online = online.and_then(|answer| self.device.decide_online(&asked, answer));
            online.unwrap_or_else(|| self.device.decide_offline(&asked))
        });
        let confirmed =
            outcome.as_ref().and_then(|outcome| outcome.entry.as_ref()?.confirm.as_ref());
        if let Ok(CheckResult { tx: Some(tx), holder: Some(holder), .. }) = answer
            && confirmed.is_none_or(|confirm| confirm.tx != tx)
        {
            self.actions.push_back(Action::Cancel(Cancel { tx, holder }));
        }
        if let Some(outcome) = outcome {
            self.decide(tap, outcome);
        }
    }

    /// Grants count from now on for the rules of a stop, though they are not given yet.
    fn decide(&mut self, tap: TapId, outcome: Outcome) {
        if outcome.detail == Some(Detail::Unreadable) {
            self.registry_unreadable();
        }
        self.decided.push((tap, outcome));
        let Some((_, Outcome { entry: Some(entry), .. })) = self.decided.last() else { return };
        self.reporting.notes.extend(self.device.passback.note(entry));
    }

    fn refuse_unrecorded(&mut self, decided: Vec<(TapId, Outcome)>, error: QueueError) {
        while let Some(noted) = self.reporting.notes.pop() {
            self.device.passback.undo(noted);
        }
        let mut error = Some(error);
        for (tap, outcome) in decided {
            let Some(entry) = &outcome.entry else {
                self.answer(tap, Ok(outcome));
                continue;
            };
            if let Some(confirm) = &entry.confirm {
                let cancel = Cancel { tx: confirm.tx, holder: confirm.holder };
                self.actions.push_back(Action::Cancel(cancel));
            }
            let refused = error.take().map_or(TapError::NotRecorded, TapError::Queue);
            self.answer(tap, Err(refused));
        }
    }

    fn handle_connected(&mut self, sent: Now, welcome: &Welcome, now: Now) {
        self.link = Link::Up;
        self.reconnect.succeeded();
        self.silent_checks = 0;
        self.device.card_key = Some(CardKey::new(welcome.card_key.into_array()));
        self.device.organization = welcome.organization;
        self.device.signers.clone_from(&welcome.signers);
        self.device.rules = welcome.rules;
        self.device.blocks.begin_again();
        // Before anything is tapped: what is recorded by a wrong clock is lost in the future.
        self.device.clock.handle_sample(sent, now, welcome.clock_ms);
        self.device
            .registry
            .take_if(|registry| registry.life().organization != welcome.organization);
        let measured_ms = self.device.clock.offset_ms(now);
        let known_ms = self.facts.as_ref().map(|facts| facts.clock_offset_ms);
        let known_ms = known_ms.filter(|known_ms| known_ms.abs_diff(measured_ms) <= OFFSET_MS);
        let offset_ms = known_ms.unwrap_or(measured_ms);
        let facts = ServerFacts::of(welcome, self.config.terminal, offset_ms);
        if self.facts.as_ref() != Some(&facts) {
            let kept = memory::write_facts(&*self.files, &facts);
            self.show_failure(kept);
            self.facts = Some(facts);
        }
        self.show(Notice::LinkUp);
        self.sync_connected(welcome, now);
        self.report_connected(now);
    }

    fn handle_disconnected(&mut self, now: Now) {
        if matches!(self.link, Link::Down { .. }) {
            return;
        }
        if self.is_linked() {
            self.show(Notice::LinkDown);
        }
        let wait_ms = self.reconnect.failed(&mut self.random);
        self.link = Link::Down { until_ms: now.steady_ms.saturating_add(wait_ms) };
        while let Some((tap, _)) = self.waiting.first_key_value() {
            self.handle_checked(*tap, Err(AskError::Closed));
        }
        self.upload.reset();
        self.sync_disconnected();
    }

    fn answer(&mut self, tap: TapId, outcome: Result<Outcome, TapError>) {
        self.actions.push_back(Action::Answer { tap, outcome: Box::new(outcome) });
    }

    fn show(&mut self, notice: Notice) {
        self.actions.push_back(Action::Show(notice));
    }

    fn show_failure(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.show(Notice::DiskFailed { reason: error.to_string() });
        }
    }
}

/// Why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("the disk failed")]
    Disk(#[from] io::Error),
    /// Trips of another terminal wait in the queue.
    #[error("trips of another terminal wait for the server")]
    OtherTerminal,
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

#[cfg(test)]
mod tests;
