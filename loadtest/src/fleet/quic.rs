//! The transport of a fleet: checks, confirms and cancels over the links of its devices.
//!
//! Devices, links and whatever waits for an answer live in one tokio runtime on the generator's
//! thread, which runs while the transport is polled. A check that the link has not answered within
//! the device's deadline, or that finds no link, is decided by the device itself where it holds a
//! registry; without one there is no answer. What comes after that is not waited for.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::identifier::{CardKey, Digest};
use serde_bytes::ByteArray;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::Instant;
use validator::link::lane::AskError;
use validator::link::message::{self, Ack, AckCode, CheckResult, FailureCode};
use validator::link::request::Request as LinkRequest;
use validator::verdict::Verdict;

use crate::answer::{Answer, CheckAnswer, OfflineAnswer};
use crate::clock::Monotonic;
use crate::fleet::alarm::Alarm;
use crate::fleet::device::{Device, ask_settled};
use crate::fleet::ledger::Tap;
use crate::numbers::mix;
use crate::oracle::UNAVAILABLE;
use crate::registry::Registry;
use crate::request::{Call, Check, Identifier, Request};
use crate::time::{Clock, Nanos};
use crate::transport::{Connections, Event, Tag, Transport};

/// How long before an instant the alarm rings; the rest is polled, as in [`crate::poller`].
const AWAKE: Nanos = Nanos(50_000);
/// How long a confirm or cancel waits for a link and its answer.
const SETTLE: Duration = Duration::from_secs(5);
/// Grants that wait for their confirm or cancel; past it a confirm goes over any link of its carrier
/// and leaves no trip.
const GRANTS_MAX: usize = 262_144;

/// The transport of a fleet.
pub struct Quic<'r> {
    runtime: Runtime,
    registry: &'r Registry,
    clock: Monotonic,
    alarm: Alarm,
    deadline: Duration,
    success_code: u32,
    key: CardKey,
    devices: Vec<Arc<Device>>,
    by_terminal: HashMap<u64, usize>,
    by_organization: HashMap<u16, Vec<usize>>,
    outbox: Arc<Outbox>,
    /// By tag: what waits for an answer.
    under_way: Vec<Option<UnderWay>>,
    /// When devices lose patience, in that order.
    deadlines: VecDeque<(Nanos, Tag, u64)>,
    serial: u64,
    grants: HashMap<u64, Grant>,
}

/// What a transport is made of.
pub struct Parts<'r> {
    /// In which devices live.
    pub runtime: Runtime,
    /// What things are called.
    pub registry: &'r Registry,
    /// How long a device waits for an answer to a check.
    pub deadline: Duration,
    /// `resultCode` of a success over HTTP, which the oracle expects.
    pub success_code: u32,
    /// What card identifiers are hashed with.
    pub key: CardKey,
    /// The devices that tap.
    pub devices: Vec<Arc<Device>>,
}

/// What waits for an answer.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    serial: u64,
    device: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Check { digest: Digest, service: u32 },
    Settle { transaction: u64, is_cancel: bool },
}

/// A grant that may become a trip.
#[derive(Clone, Copy, Debug)]
struct Grant {
    device: usize,
    tap: Tap,
}

/// What tasks bring.
#[derive(Debug, Default)]
struct Outbox {
    /// A std lock: held for the length of a push.
    brought: Mutex<Vec<Brought>>,
    filled: Notify,
}

#[derive(Debug)]
struct Brought {
    tag: Tag,
    serial: u64,
    at: Nanos,
    what: Result<Reply, AskError>,
}

#[derive(Debug)]
enum Reply {
    Check(CheckResult),
    Settled(AckCode),
}

impl<'r> Quic<'r> {
    /// Must be called inside the runtime of its parts, which the alarm belongs to.
    pub fn new(parts: Parts<'r>) -> io::Result<Quic<'r>> {
        let Parts { runtime, registry, deadline, success_code, key, devices } = parts;
        let alarm = {
            let _inside = runtime.enter();
            Alarm::new()?
        };
        let mut by_organization: HashMap<u16, Vec<usize>> = HashMap::new();
        for (at, device) in devices.iter().enumerate() {
            by_organization.entry(device.berth.organization).or_default().push(at);
        }
        let by_terminal = devices.iter().enumerate();
        let by_terminal = by_terminal.map(|(at, device)| (device.berth.terminal, at)).collect();
        Ok(Quic {
            runtime,
            registry,
            clock: Monotonic::start(),
            alarm,
            deadline,
            success_code,
            key,
            devices,
            by_terminal,
            by_organization,
            outbox: Arc::default(),
            under_way: Vec::new(),
            deadlines: VecDeque::new(),
            serial: 0,
            grants: HashMap::new(),
        })
    }

    /// Counts from another instant.
    pub fn restart(&mut self, clock: Monotonic) {
        self.clock = clock;
    }

    /// The runtime in which the devices live.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    fn check(&mut self, tag: Tag, check: &Check<'_>) {
        let digest = match check.identifier {
            Identifier::ClientCode(code) => self.key.client_code(code),
            Identifier::SocialCard(number, series) => self.key.social_card(number, series),
            // A validator reads cards.
            Identifier::Snils(_) => return self.lose(tag),
        };
        let device = self.by_terminal.get(&check.terminal).copied();
        let (Ok(digest), Some(device)) = (digest, device) else { return self.lose(tag) };
        let service = check.service;
        let serial = self.begin(tag, device, What::Check { digest, service });
        let Some(link) = self.devices.get(device).and_then(|device| device.link()) else {
            return self.bring(tag, serial, Err(AskError::Closed));
        };
        let now = self.clock.now();
        let patience = u64::try_from(self.deadline.as_nanos()).unwrap_or(u64::MAX);
        self.deadlines.push_back((now + Nanos(patience), tag, serial));
        let asked = message::Check {
            service,
            id_hash: ByteArray::new(digest.0),
            price: check.price_kopecks,
        };
        let (outbox, clock, deadline) = (Arc::clone(&self.outbox), self.clock, self.deadline);
        self.runtime.spawn(async move {
            let what = link.ask(&asked, deadline).await.map(Reply::Check);
            outbox.push(Brought { tag, serial, at: clock.now(), what });
        });
    }

    /// Sends a confirm or a cancel as soon as there is a link.
    fn settle(&mut self, tag: Tag, organization: u16, settle: What, ask: impl Settlement) {
        let What::Settle { transaction, .. } = settle else { return self.lose(tag) };
        let known = self.grants.get(&transaction).map(|grant| grant.device);
        let neighbours = self.by_organization.get(&organization);
        let any = neighbours.and_then(|devices| {
            let count = u64::try_from(devices.len().max(1)).unwrap_or(1);
            devices.get(usize::try_from(mix(transaction) % count).unwrap_or_default()).copied()
        });
        let Some(at) = known.or(any) else { return self.lose(tag) };
        let Some(device) = self.devices.get(at).cloned() else { return self.lose(tag) };
        let serial = self.begin(tag, at, settle);
        let (outbox, clock) = (Arc::clone(&self.outbox), self.clock);
        self.runtime.spawn(async move {
            let until = Instant::now() + SETTLE;
            let what = match device.link_until(until).await {
                Some(link) => ask_settled(&link, &ask, until).await,
                None => Err(AskError::TimedOut),
            };
            let what = what.map(|ack| Reply::Settled(ack.code));
            outbox.push(Brought { tag, serial, at: clock.now(), what });
        });
    }

    fn begin(&mut self, tag: Tag, device: usize, what: What) -> u64 {
        self.serial += 1;
        let place = usize::try_from(tag.0).unwrap_or(usize::MAX);
        if self.under_way.len() <= place {
            self.under_way.resize(place + 1, None);
        }
        if let Some(under_way) = self.under_way.get_mut(place) {
            *under_way = Some(UnderWay { serial: self.serial, device, what });
        }
        self.serial
    }

    /// A request that no device can make.
    fn lose(&mut self, tag: Tag) {
        let what = What::Settle { transaction: 0, is_cancel: true };
        let serial = self.begin(tag, usize::MAX, what);
        self.bring(tag, serial, Err(AskError::Closed));
    }

    fn bring(&self, tag: Tag, serial: u64, what: Result<Reply, AskError>) {
        self.outbox.push(Brought { tag, serial, at: self.clock.now(), what });
    }

    /// Whether this is still waited for.
    fn waits(&self, tag: Tag, serial: u64) -> bool {
        let place = usize::try_from(tag.0).unwrap_or(usize::MAX);
        let under_way = self.under_way.get(place).copied().flatten();
        under_way.is_some_and(|under_way| under_way.serial == serial)
    }

    fn take(&mut self, tag: Tag, serial: u64) -> Option<UnderWay> {
        let is_waited_for = self.waits(tag, serial);
        let place = usize::try_from(tag.0).unwrap_or(usize::MAX);
        self.under_way.get_mut(place).filter(|_| is_waited_for)?.take()
    }

    /// Runs everything until something is brought, somebody loses patience, or an instant.
    fn run_until(&mut self, until: Nanos) {
        while self.deadlines.front().is_some_and(|(_, tag, serial)| !self.waits(*tag, *serial)) {
            self.deadlines.pop_front();
        }
        let until = self.deadlines.front().map_or(until, |(due, ..)| until.min(*due));
        let (outbox, alarm, clock) = (&self.outbox, &self.alarm, self.clock);
        self.runtime.block_on(async {
            loop {
                // Links and devices have their turn however late it is.
                tokio::task::yield_now().await;
                let left = until - clock.now();
                if !outbox.is_empty() || left == Nanos(0) {
                    return;
                }
                if left > AWAKE {
                    tokio::select! {
                        rung = alarm.ring_in(left - AWAKE) => {
                            if rung.is_err() {
                                return;
                            }
                        }
                        () = outbox.filled.notified() => {}
                    }
                }
            }
        });
    }

    fn report(&mut self, brought: Brought, take: &mut dyn FnMut(Event<'_>)) {
        let Brought { tag, serial, at, what } = brought;
        let Some(under_way) = self.take(tag, serial) else { return };
        let answer = match (under_way.what, what) {
            (What::Check { .. }, Ok(Reply::Check(result))) if !is_unavailable(&result) => {
                self.granted(&under_way, &result);
                Some(Answer::Check(self.check_answer(&result)))
            }
            (_, Err(AskError::Malformed)) => Some(Answer::Unreadable),
            (_, Err(AskError::Failed(code))) if is_fault(code) => Some(Answer::Unreadable),
            (What::Check { digest, service }, _) => self.decide(&under_way, digest, service),
            (What::Settle { transaction, is_cancel }, Ok(Reply::Settled(code))) => {
                if code == AckCode::Done {
                    self.settled(transaction, is_cancel);
                }
                Some(ack_answer(code))
            }
            (What::Settle { .. }, Err(AskError::Failed(_))) => {
                Some(Answer::Refusal { status: 503, code: Some(UNAVAILABLE) })
            }
            (What::Settle { .. }, Ok(Reply::Check(_))) => Some(Answer::Unreadable),
            (What::Settle { .. }, Err(AskError::Closed | AskError::TimedOut)) => None,
        };
        take(match answer {
            Some(answer) => Event::Answered { tag, answer, at },
            None => Event::Lost { tag, at },
        });
    }

    /// The device decides on its own, and records what it granted.
    fn decide(
        &mut self,
        under_way: &UnderWay,
        digest: Digest,
        service: u32,
    ) -> Option<Answer<'static>> {
        let device = self.devices.get(under_way.device)?;
        let (decided, at_ms, registry) = device.decide(&digest, service)?;
        let (verdict, category) = (decided.verdict, decided.category);
        if verdict == Verdict::Grant {
            device.record(Tap {
                digest,
                service,
                at_ms,
                registry,
                verdict,
                category,
                discount: decided.discount,
                transaction: None,
            });
        }
        Some(Answer::Offline(OfflineAnswer { verdict, category }))
    }

    fn granted(&mut self, under_way: &UnderWay, result: &CheckResult) {
        let What::Check { digest, service } = under_way.what else { return };
        let (Some(transaction), Some(device)) = (result.tx, self.devices.get(under_way.device))
        else {
            return;
        };
        if self.grants.len() >= GRANTS_MAX {
            return;
        }
        let tap = Tap {
            digest,
            service,
            at_ms: device.server_ms(),
            registry: device.holding().map_or(0, |holding| holding.version()),
            verdict: Verdict::Grant,
            category: result.category,
            discount: result.discount.unwrap_or_default(),
            transaction: Some(transaction),
        };
        self.grants.insert(transaction, Grant { device: under_way.device, tap });
    }

    fn settled(&mut self, transaction: u64, is_cancel: bool) {
        let Some(grant) = self.grants.remove(&transaction).filter(|_| !is_cancel) else { return };
        if let Some(device) = self.devices.get(grant.device) {
            device.record(grant.tap);
        }
    }

    fn check_answer(&self, result: &CheckResult) -> CheckAnswer<'r> {
        let categories = &self.registry.directory.categories;
        let name = |id: u32| {
            let place = self.registry.directory.category(id).map(usize::from);
            let known = place.and_then(|place| categories.get(place));
            known.map_or("", |category| category.name.as_str())
        };
        let code = u32::from(result.code);
        CheckAnswer {
            code: if code == 0 { self.success_code } else { code },
            transaction: result.tx.unwrap_or_default(),
            holder: result.holder.unwrap_or_default(),
            benefit: result.category.map(|id| (id, Cow::Borrowed(name(id)))),
        }
    }
}

impl Transport for Quic<'_> {
    fn is_free(&self) -> bool {
        true
    }

    fn send(&mut self, tag: Tag, call: &Call<'_>) {
        let organization = call.organization;
        match call.request {
            Request::Check(check) => self.check(tag, &check),
            Request::Confirm(confirm) => {
                let transaction = confirm.transaction;
                let ask = message::Confirm {
                    tx: transaction,
                    holder: confirm.holder,
                    category: confirm.category,
                    price: confirm.price_kopecks,
                    discounted: confirm.discounted_kopecks,
                };
                let what = What::Settle { transaction, is_cancel: false };
                self.settle(tag, organization, what, ask);
            }
            Request::Cancel { holder, transaction } => {
                let ask = message::Cancel { tx: transaction, holder };
                let what = What::Settle { transaction, is_cancel: true };
                self.settle(tag, organization, what, ask);
            }
            // A scenario of a fleet holds nothing else.
            Request::Batch(_)
            | Request::History { .. }
            | Request::Malformed(_)
            | Request::Services { .. } => self.lose(tag),
        }
    }

    fn abandon(&mut self, tag: Tag) {
        let place = usize::try_from(tag.0).unwrap_or(usize::MAX);
        if let Some(under_way) = self.under_way.get_mut(place) {
            *under_way = None;
        }
    }

    fn poll(&mut self, until: Nanos, take: &mut dyn FnMut(Event<'_>)) {
        self.run_until(until);
        for brought in self.outbox.empty() {
            self.report(brought, take);
        }
        let now = self.clock.now();
        while let Some((_, tag, serial)) = self.deadlines.front().copied().filter(|it| it.0 <= now)
        {
            self.deadlines.pop_front();
            self.report(Brought { tag, serial, at: now, what: Err(AskError::TimedOut) }, take);
        }
    }

    fn connections(&self) -> Connections {
        let links = self.devices.first().map(|device| device.links()).unwrap_or_default();
        Connections { opened: links.made, reopened: 0, broken: links.lost, refused: links.failed }
    }
}

/// A confirm or a cancel.
trait Settlement: LinkRequest<Answer = Ack> + Send + Sync + 'static {}

impl Settlement for message::Cancel {}
impl Settlement for message::Confirm {}

impl Outbox {
    fn push(&self, brought: Brought) {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).push(brought);
        self.filled.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn empty(&self) -> Vec<Brought> {
        std::mem::take(&mut *self.brought.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the server says only that it cannot.
fn is_unavailable(result: &CheckResult) -> bool {
    u32::from(result.code) == UNAVAILABLE
}

/// Whether a failure is one of the server or of ours, not of the hour.
fn is_fault(code: FailureCode) -> bool {
    !matches!(code, FailureCode::DeadlinePassed | FailureCode::TooMany | FailureCode::Unavailable)
}

fn ack_answer(code: AckCode) -> Answer<'static> {
    let refusal = |status, code| Answer::Refusal { status, code: Some(code) };
    match code {
        AckCode::Done => Answer::Done,
        AckCode::Mismatch => refusal(409, 108),
        AckCode::NotFound => refusal(404, 106),
        AckCode::Unavailable => refusal(503, UNAVAILABLE),
        AckCode::WrongState => refusal(409, 107),
    }
}
