//! One device: stays connected as well as it can, keeps its holder registry up to date, and uploads
//! what it has recorded.
//!
//! A task of its own; what it shares with those that tap is behind std locks that are held for the
//! length of a copy. It keeps everything in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::identifier::Digest;
use serde_bytes::ByteArray;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use validator::link::client::{Call, ConnectError, Connected, Dialer, Link, Pushes};
use validator::link::close::CloseCode;
use validator::link::lane::{AskError, Lane};
use validator::link::message::{FailureCode, Hello, RegistryAck, RegistryForm, TripBatch};
use validator::link::request::Request;
use validator::link::transport::VERSION;

use crate::calendar::Wall;
use crate::fleet::figures::LinkFigures;
use crate::fleet::holding::{Decided, Holding};
use crate::fleet::ledger::{Ledger, Tap};
use crate::fleet::roster::Berth;
use crate::fleet::shared::Shared;
use crate::numbers::Numbers;

/// How long making a link may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The first wait after a link could not be made; doubled up to the longest.
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How long a piece of a registry may take.
const PULL: Duration = Duration::from_secs(30);
/// How long an upload may take.
const UPLOAD: Duration = Duration::from_secs(30);
/// How long a small request beside checks may take.
const SMALL: Duration = Duration::from_secs(5);
/// How long a request that came too early waits.
const TOO_EARLY: Duration = Duration::from_millis(10);
const STREAM: u64 = 0x6465_7669;

/// When a device comes and goes. Instants count from the beginning of the run.
#[derive(Clone, Debug, Default)]
pub struct Timetable {
    /// When it leaves the link, and until when; ascending.
    pub away: Vec<(Duration, Duration)>,
    /// When it comes first; before the run without.
    pub comes: Option<Duration>,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Which one.
    pub berth: Berth,
    dialer: Dialer,
    shared: Arc<Shared>,
    timetable: Timetable,
    state: Mutex<State>,
    ledger: Mutex<Ledger>,
    linked: Notify,
    /// There is something to upload and no time to wait.
    pressed: Notify,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    holding: Option<Arc<Holding>>,
    /// The server's clock minus ours.
    ahead_ms: i64,
    /// When it was up to date and rid of its trips.
    done: Option<Instant>,
}

/// Why a device is not connected any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Left,
    Lost,
    Over,
}

impl Device {
    /// One that is not connected yet.
    pub fn new(berth: Berth, dialer: Dialer, shared: Arc<Shared>, timetable: Timetable) -> Device {
        // No other run of this deployment has begun in the same millisecond.
        let first = u64::try_from(Wall::now().0 / 1_000).unwrap_or_default() << 12;
        Device {
            berth,
            dialer,
            shared,
            timetable,
            state: Mutex::default(),
            ledger: Mutex::new(Ledger::new(first)),
            linked: Notify::new(),
            pressed: Notify::new(),
        }
    }

    /// Lives until the fleet is over.
    pub async fn live(self: Arc<Device>, seed: u64) {
        let mut numbers = Numbers::of(seed, STREAM ^ self.berth.terminal);
        if let Some(comes) = self.timetable.comes {
            let begun = self.shared.begun().await;
            sleep_until(begun + comes).await;
        }
        let mut wait = BACK_OFF;
        while !self.shared.is_over() {
            if let Some(until) = self.away_until() {
                sleep_until(until).await;
            }
            match self.connect().await {
                Ok(connected) => {
                    wait = BACK_OFF;
                    let end = self.serve(connected, &mut numbers).await;
                    self.state().link = None;
                    self.shared.links(|links| match end {
                        End::Left => links.left += 1,
                        End::Lost => links.lost += 1,
                        End::Over => {}
                    });
                }
                Err(error) => {
                    let is_refused = matches!(error, ConnectError::Refused(_));
                    self.shared.links(|links| {
                        links.failed += 1;
                        links.refused += u64::from(is_refused);
                    });
                    sleep(wait.mul_f64(0.5 + numbers.fraction())).await;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Connects once.
    pub async fn connect(&self) -> Result<Connected, ConnectError> {
        let holding = self.state().holding.as_ref().map_or(0, |holding| holding.version());
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            terminal: self.berth.terminal,
            registry_version: holding,
            clock_ms: now_ms(),
        };
        let call = Call {
            server: self.shared.habits.server,
            server_name: &self.shared.habits.server_name,
            hello: &hello,
            check: None,
            patience: CONNECT,
        };
        let connected = self.dialer.connect(call).await?;
        self.state().ahead_ms = connected.link.welcome().clock_ms - now_ms();
        self.shared.links(|links| links.made += 1);
        Ok(connected)
    }

    /// Brings the holder registry up to date over a link.
    pub async fn pull(&self, link: &Link) -> Result<(), ()> {
        let holding = self.holding();
        let have = holding.as_ref().map_or(0, |holding| holding.version());
        if !self.shared.habits.holds_registry || link.welcome().registry_version <= have {
            return Ok(());
        }
        let pulled = self.fetch(link, holding.as_deref()).await;
        if pulled.is_err() {
            self.shared.registries(|registries| registries.failed += 1);
        }
        let Some(holding) = pulled? else { return Ok(()) };
        let sha256 = ByteArray::new(holding.sha256());
        let installed = RegistryAck { version: holding.version(), sha256 };
        self.adopt(holding);
        ask_settled(link, &installed, Instant::now() + SMALL).await.map(drop).map_err(drop)
    }

    async fn fetch(
        &self,
        link: &Link,
        holding: Option<&Holding>,
    ) -> Result<Option<Arc<Holding>>, ()> {
        let have = holding.map_or(0, Holding::version);
        let (offer, mut parts) = link.pull(have, PULL).await.map_err(drop)?;
        let length = usize::try_from(offer.bytes).map_err(drop)?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let part = parts.next(PULL).await.map_err(drop)?;
            bytes.extend_from_slice(&part.ok_or(())?);
        }
        if bytes.len() > length {
            return Err(());
        }
        let (welcome, holdings) = (link.welcome(), &self.shared.holdings);
        let (organization, signers) = (welcome.organization, &welcome.signers);
        self.shared.registries(|registries| {
            registries.full += u64::from(offer.form == RegistryForm::Full);
            registries.delta += u64::from(offer.form == RegistryForm::Delta);
            registries.bytes += offer.bytes;
        });
        let made = match (offer.form, holding) {
            (RegistryForm::None | RegistryForm::UpToDate, _) => return Ok(None),
            (RegistryForm::Full, _) => holdings.full(organization, offer.version, bytes, signers),
            (RegistryForm::Delta, Some(old)) => holdings.delta(old, offer.version, bytes, signers),
            (RegistryForm::Delta, None) => return Err(()),
        };
        made.map(Some).map_err(drop)
    }

    /// Holds a registry from now on.
    pub fn adopt(&self, holding: Arc<Holding>) {
        self.state().holding = Some(holding);
    }

    /// Records a trip.
    pub fn record(&self, tap: Tap) {
        self.ledger().record(tap);
    }

    /// Uploads without waiting any longer.
    pub fn press(&self) {
        self.pressed.notify_one();
    }

    /// The link, while there is one.
    pub fn link(&self) -> Option<Arc<Link>> {
        let state = self.state();
        state.link.clone().filter(|link| link.connection().close_reason().is_none())
    }

    /// The link, once there is one.
    pub async fn link_until(&self, until: Instant) -> Option<Arc<Link>> {
        loop {
            let linked = self.linked.notified();
            if let Some(link) = self.link() {
                return Some(link);
            }
            timeout_at(until, linked).await.ok()?;
        }
    }

    /// The holder registry, if there is one.
    pub fn holding(&self) -> Option<Arc<Holding>> {
        self.state().holding.clone()
    }

    /// What the device decides on its own, and when by the server's clock; nothing without a
    /// registry.
    pub fn decide(&self, digest: &Digest, service: u32) -> Option<(Decided, i64, u64)> {
        let holding = self.holding()?;
        let at_ms = self.server_ms();
        Some((holding.decide(digest, service, at_ms), at_ms, holding.version()))
    }

    /// What became of the links of the whole fleet.
    pub fn links(&self) -> LinkFigures {
        self.shared.links(|_| ())
    }

    /// The server's clock, as well as the device knows it.
    pub fn server_ms(&self) -> i64 {
        now_ms() + self.state().ahead_ms
    }

    /// Its trips.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it was up to date and rid of its trips for the first time.
    pub fn done(&self) -> Option<Instant> {
        self.state().done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the device is away, if it is.
    fn away_until(&self) -> Option<Instant> {
        let (begun, now) = (self.shared.begun_at()?, Instant::now());
        let spans = self.timetable.away.iter();
        let mut spans = spans.map(|(from, until)| (begun + *from, begun + *until));
        spans.find(|(from, until)| (*from..*until).contains(&now)).map(|(_, until)| until)
    }

    /// When the device leaves next.
    async fn leaves(&self) {
        let begun = self.shared.begun().await;
        let now = Instant::now();
        let next = self.timetable.away.iter().map(|(from, _)| begun + *from).find(|at| *at > now);
        match next {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Everything that a device does while it is connected.
    async fn serve(&self, connected: Connected, numbers: &mut Numbers) -> End {
        let Connected { link, mut pushes, .. } = connected;
        let link = Arc::new(link);
        self.state().link = Some(Arc::clone(&link));
        self.linked.notify_waiters();
        let end = tokio::select! {
            () = self.leaves() => End::Left,
            () = self.shared.over() => End::Over,
            _code = link.closed() => End::Lost,
            () = read(&mut pushes) => End::Lost,
            () = self.work(&link, numbers) => End::Lost,
        };
        link.connection().close(CloseCode::Normal.into(), b"");
        self.ledger().put_back();
        end
    }

    /// Pulls, then uploads from time to time; ends only with the link.
    async fn work(&self, link: &Link, numbers: &mut Numbers) {
        let every = self.shared.habits.upload_every;
        let mut is_current = self.pull(link).await.is_ok();
        let Ok(lane) = link.open_lane().await else { return };
        if self.timetable.comes.is_some() {
            self.press();
        }
        loop {
            let wait = every.mul_f64(0.5 + numbers.fraction());
            // Being pressed is as good as the time being up.
            let _elapsed = tokio::time::timeout(wait, self.pressed.notified()).await;
            if self.upload(&lane, numbers).await.is_err() {
                return;
            }
            is_current = is_current || self.pull(link).await.is_ok();
            if is_current && self.ledger().is_empty() {
                self.state().done.get_or_insert_with(Instant::now);
            }
        }
    }

    async fn upload(&self, lane: &Lane, numbers: &mut Numbers) -> Result<(), AskError> {
        loop {
            let trips = self.ledger().next_batch(self.shared.habits.upload_trips_max);
            if trips.is_empty() {
                return Ok(());
            }
            match lane.ask(&TripBatch { trips }, UPLOAD).await {
                Ok(answer) => {
                    let repeated = self.shared.habits.repeated;
                    let is_taken =
                        self.ledger().settle(&answer.results, || numbers.fraction() < repeated);
                    if !is_taken {
                        return Ok(());
                    }
                }
                Err(AskError::Failed(_) | AskError::TimedOut) => {
                    self.ledger().put_back();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks what may not travel with the handshake: where the server finds it too early, again.
pub async fn ask_settled<R: Request>(
    link: &Link,
    request: &R,
    until: Instant,
) -> Result<R::Answer, AskError> {
    loop {
        let asked = link.ask(request, until - Instant::now()).await;
        if !matches!(asked, Err(AskError::Failed(FailureCode::TooEarly))) {
            return asked;
        }
        sleep(TOO_EARLY).await;
    }
}

/// Reads what the server pushes, so that it may go on pushing.
async fn read(pushes: &mut Pushes) {
    while pushes.next().await.is_some() {}
}

fn now_ms() -> i64 {
    Wall::now().0 / 1_000
}
