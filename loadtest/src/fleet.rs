//! Fleets of validators on the link: thousands of devices in one process, each with its own
//! connection and certificate.
//!
//! What is tapped and when, what must be answered and how it is judged is the same as over HTTP; the
//! transport differs. Beside the taps every device keeps its holder registry up to date and uploads
//! its trips, and some of them come all at once in the morning. Devices that tap live in the
//! generator's thread, those of the depot in one beside it.
//!
//! | module | what it is |
//! |---|---|
//! | [`roster`] | which terminals come, and their certificates |
//! | [`device`], [`shared`] | one device's life; what all have in common |
//! | [`holding`] | the holder registries that devices hold |
//! | [`ledger`] | the trips of a device and what must become of them |
//! | [`night`] | the trips that the devices of the depot bring |
//! | [`yard`] | the thread of the depot |
//! | [`quic`], [`alarm`] | the transport, and its timer |
//! | [`figures`] | what is counted beside checks |

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use engine::identifier::CardKey;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};
use validator::link::client::{ConnectError, Dialer};
use validator::link::identity::IdentityError;

use crate::fleet::device::{Device, Timetable};
use crate::fleet::figures::{DepotFigures, FleetFigures};
use crate::fleet::holding::Holding;
use crate::fleet::quic::{Parts, Quic};
use crate::fleet::roster::Berth;
use crate::fleet::shared::{Habits, Shared};
use crate::fleet::yard::Yard;
use crate::numbers::mix;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::scenario::Scenario;
use crate::scenario::fleet::Fleet as Settings;

pub mod alarm;
pub mod device;
pub mod figures;
pub mod holding;
pub mod ledger;
pub mod night;
pub mod quic;
pub mod roster;
pub mod shared;
pub mod yard;

/// Devices that connect at the same time before the run.
const CONNECTING_MAX: usize = 64;
/// How long the devices may take to connect before the run begins without the rest.
const OPENING: Duration = Duration::from_secs(120);
/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How often devices are pressed to upload what they have left.
const PRESS: Duration = Duration::from_millis(50);
/// How long devices have to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
/// Bytes that wait in each socket, where the system allows it.
const SOCKET_BYTES: usize = 4 << 20;

/// Why a fleet cannot set out.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Not as many as the scenario wants.
    #[error("`fleet` needs {wanted} certificates of carriers' terminals, and there are {found}")]
    Certificates {
        /// That there must be.
        wanted: u32,
        /// That there are.
        found: usize,
    },
    /// A certificate or key cannot be used.
    #[error("the certificate of terminal {terminal}: {error}")]
    Identity {
        /// Whose.
        terminal: u64,
        /// What is wrong.
        error: IdentityError,
    },
    /// The machine gives no socket.
    #[error("the machine refuses: {0}")]
    Machine(#[from] io::Error),
    /// The address of the link is none.
    #[error("`fleet.link` is no address")]
    NoAddress,
    /// The first device of a carrier found no link.
    #[error("terminal {terminal} cannot connect: {error}")]
    Unreachable {
        /// Which.
        terminal: u64,
        /// Why.
        error: ConnectError,
    },
}

/// A fleet: its devices, and what lies between them and the server.
pub struct Fleet {
    settings: Settings,
    seed: u64,
    shared: Arc<Shared>,
    relay: Option<Relay>,
    /// Those that tap.
    devices: Vec<Arc<Device>>,
    depot: Vec<Arc<Device>>,
    yard: Option<Yard>,
    depot_trips: u64,
    connected: u64,
    faults: Vec<String>,
}

impl Fleet {
    /// Connects the devices; the transport and the fleet that it belongs to.
    pub fn prepare<'r>(
        scenario: &Scenario,
        settings: &Settings,
        registry: &'r Registry,
    ) -> Result<(Quic<'r>, Fleet), FleetError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let gathered = {
            let _inside = runtime.enter();
            Fleet::gather(scenario.seed, settings, registry)?
        };
        let (mut fleet, key) = gathered.scout(&runtime)?;
        fleet.draw_nights(registry, &key);
        runtime.block_on(fleet.set_out());
        let parts = Parts {
            runtime,
            registry,
            deadline: Duration::from_millis(settings.deadline_ms),
            success_code: scenario.dialect.success_result_code,
            key,
            devices: fleet.devices.clone(),
        };
        Ok((Quic::new(parts)?, fleet))
    }

    /// The run begins.
    pub fn begin(&self) {
        self.shared.begin();
        self.relay.iter().for_each(Relay::begin);
    }

    /// The terminals that tap.
    pub fn terminals(&self) -> Vec<u64> {
        self.devices.iter().map(|device| device.berth.terminal).collect()
    }

    /// Uploads what is left and ends all devices; what they did, and the first faults in words.
    pub fn finish(mut self, runtime: &Runtime) -> (FleetFigures, Vec<String>) {
        let patience = Duration::from_secs_f64(self.settings.uploads.drain_seconds);
        runtime.block_on(self.drain(patience));
        let depot = self.depot_figures();
        let mut figures = FleetFigures {
            devices: u64::try_from(self.devices.len() + self.depot.len()).unwrap_or(u64::MAX),
            connected: self.connected,
            links: self.shared.links(|_| ()),
            registries: self.shared.registries(|_| ()),
            depot,
            relay: self.relay.as_ref().map(Relay::counts),
            ..FleetFigures::default()
        };
        figures.trips.wrong = u64::try_from(self.faults.len()).unwrap_or(u64::MAX);
        for device in self.devices.iter().chain(&self.depot) {
            let (trips, fault) = device.ledger().finish();
            figures.trips.add(&trips);
            self.faults.extend(fault);
        }
        (figures, self.faults)
    }

    /// Makes the devices, none of which is connected yet.
    fn gather(seed: u64, settings: &Settings, registry: &Registry) -> Result<Fleet, FleetError> {
        let mut berths = roster::berths(registry, &settings.pki_dir, seed);
        let wanted = usize::try_from(settings.certificates()).unwrap_or(usize::MAX);
        if berths.len() < wanted {
            let (wanted, found) = (settings.certificates(), berths.len());
            return Err(FleetError::Certificates { wanted, found });
        }
        berths.truncate(wanted);
        let server = address(&settings.link)?;
        let relay = settings.relay(seed).map(|plan| Relay::start(server, plan)).transpose()?;
        let shared = Arc::new(Shared::new(Habits {
            server: relay.as_ref().map_or(server, Relay::address),
            server_name: settings.server_name.clone(),
            holds_registry: settings.registry,
            upload_every: Duration::from_secs_f64(settings.uploads.every_seconds),
            upload_trips_max: settings.uploads.trips_max,
            repeated: settings.uploads.repeated,
        }));
        let mut fleet = Fleet {
            settings: settings.clone(),
            seed,
            shared,
            relay,
            devices: Vec::new(),
            depot: Vec::new(),
            yard: settings.depot.map(|_| Yard::open()).transpose()?,
            depot_trips: 0,
            connected: 0,
            faults: Vec::new(),
        };
        let count = usize::try_from(settings.devices).unwrap_or(usize::MAX);
        let per_socket = usize::try_from(settings.devices_per_socket).unwrap_or(1).max(1);
        let (tapping, coming) = berths.split_at_checked(count).unwrap_or_default();
        let home = Handle::current();
        let yard = fleet.yard.as_ref().map_or(home.clone(), |yard| yard.handle().clone());
        for (list, home, is_depot) in [(tapping, home, false), (coming, yard, true)] {
            // A socket belongs to the runtime in which it is made.
            let _inside = home.enter();
            for neighbours in list.chunks(per_socket) {
                let endpoint = endpoint(server)?;
                for berth in neighbours {
                    fleet.add(*berth, endpoint.clone(), is_depot)?;
                }
            }
        }
        Ok(fleet)
    }

    fn add(&mut self, berth: Berth, endpoint: Endpoint, is_depot: bool) -> Result<(), FleetError> {
        let terminal = berth.terminal;
        let fault = |error| FleetError::Identity { terminal, error };
        let identity = roster::identity(&self.settings.pki_dir, terminal).map_err(fault)?;
        let dialer = Dialer::over(endpoint, identity).map_err(|error| match error {
            ConnectError::Identity(error) => fault(error),
            error => FleetError::Unreachable { terminal, error },
        })?;
        let timetable = self.timetable(terminal, is_depot);
        let device = Arc::new(Device::new(berth, dialer, Arc::clone(&self.shared), timetable));
        if is_depot {
            self.depot.push(device)
        } else {
            self.devices.push(device)
        }
        Ok(())
    }

    fn timetable(&self, terminal: u64, is_depot: bool) -> Timetable {
        let seconds = Duration::from_secs_f64;
        let rank = (mix(self.seed ^ mix(terminal ^ 1)) >> 11) as f64 / (1_u64 << 53) as f64;
        let away = self.settings.away.iter().filter(|away| rank < away.percent / 100.0);
        let mut away: Vec<(Duration, Duration)> =
            away.map(|away| (seconds(away.from_seconds), seconds(away.to_seconds))).collect();
        away.sort_unstable();
        let depot = self.settings.depot.filter(|_| is_depot);
        let comes = depot.map(|depot| seconds(depot.at_seconds + depot.within_seconds * rank));
        Timetable { away, comes }
    }

    /// One device of every carrier connects for the card key and the registry, which the others then
    /// have too, as from the day before.
    fn scout(self, runtime: &Runtime) -> Result<(Fleet, CardKey), FleetError> {
        let mut holdings: HashMap<u16, Option<Arc<Holding>>> = HashMap::new();
        let mut key = None;
        let yard = self.yard.as_ref().map(|yard| yard.handle().clone());
        let home = runtime.handle();
        let tapping = self.devices.iter().map(|device| (device, home));
        let coming = self.depot.iter().map(|device| (device, yard.as_ref().unwrap_or(home)));
        for (device, home) in tapping.chain(coming) {
            let Berth { terminal, organization } = device.berth;
            if let Some(holding) = holdings.get(&organization) {
                holding.iter().for_each(|holding| device.adopt(Arc::clone(holding)));
                continue;
            }
            // Its own runtime is driven by another thread where it is not this one.
            let is_here = home.id() == runtime.handle().id();
            let connect = connect_patiently(device);
            let connected =
                if is_here { runtime.block_on(connect) } else { home.block_on(connect) };
            let connected =
                connected.map_err(|error| FleetError::Unreachable { terminal, error })?;
            key = Some(CardKey::new(*connected.link.welcome().card_key));
            // A pull that failed is counted; the device has no registry then.
            let pull = device.pull(&connected.link);
            let _counted = if is_here { runtime.block_on(pull) } else { home.block_on(pull) };
            holdings.insert(organization, device.holding());
        }
        let none = FleetError::Certificates { wanted: 1, found: 0 };
        Ok((self, key.ok_or(none)?))
    }

    fn draw_nights(&mut self, registry: &Registry, key: &CardKey) {
        let Some(depot) = self.settings.depot else { return };
        let mut night = night::Night::new(registry, key, self.seed);
        for device in &self.depot {
            self.depot_trips += night.draw(device, depot.trips);
        }
        self.faults.extend(night.into_faults());
    }

    /// Lets the devices live and waits until those that tap are connected.
    async fn set_out(&mut self) {
        let until = Instant::now() + OPENING;
        let mut coming = self.devices.iter();
        let mut connecting: Vec<&Arc<Device>> = Vec::new();
        loop {
            let free = CONNECTING_MAX.saturating_sub(connecting.len());
            for device in coming.by_ref().take(free) {
                tokio::spawn(Arc::clone(device).live(self.seed));
                connecting.push(device);
            }
            if connecting.is_empty() || Instant::now() >= until {
                break;
            }
            sleep(LOOK).await;
            connecting.retain(|device| device.link().is_none());
        }
        coming.for_each(|device| drop(tokio::spawn(Arc::clone(device).live(self.seed))));
        if let Some(yard) = &self.yard {
            for device in &self.depot {
                yard.handle().spawn(Arc::clone(device).live(self.seed));
            }
        }
        let connected = self.devices.iter().filter(|device| device.link().is_some()).count();
        self.connected = u64::try_from(connected).unwrap_or(u64::MAX);
    }

    async fn drain(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let all = self.devices.iter().chain(&self.depot);
            let laden: Vec<_> = all.filter(|device| !device.ledger().is_empty()).collect();
            laden.iter().for_each(|device| device.press());
            if laden.is_empty() && self.depot.iter().all(|device| device.done().is_some()) {
                break;
            }
            sleep(PRESS).await;
        }
        self.shared.end();
        sleep(GOODBYE).await;
    }

    fn depot_figures(&self) -> Option<DepotFigures> {
        let depot = self.settings.depot?;
        let begun = self.shared.begun_at()? + Duration::from_secs_f64(depot.at_seconds);
        let done: Vec<Instant> = self.depot.iter().filter_map(|device| device.done()).collect();
        let last = done.iter().max().filter(|_| done.len() == self.depot.len());
        Some(DepotFigures {
            devices: depot.devices.into(),
            done: u64::try_from(done.len()).unwrap_or(u64::MAX),
            trips: self.depot_trips,
            done_seconds: last.map(|last| last.duration_since(begun).as_secs_f64()),
        })
    }
}

/// Over a bad path the first attempt may fail.
async fn connect_patiently(
    device: &Device,
) -> Result<validator::link::client::Connected, ConnectError> {
    let mut last = device.connect().await;
    for _ in 0..3 {
        if matches!(last, Ok(_) | Err(ConnectError::Refused(_))) {
            break;
        }
        last = device.connect().await;
    }
    last
}

fn address(link: &str) -> Result<SocketAddr, FleetError> {
    let mut addresses = link.to_socket_addrs().map_err(|_| FleetError::NoAddress)?;
    addresses.next().ok_or(FleetError::NoAddress)
}

/// A socket that some devices share.
fn endpoint(server: SocketAddr) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    // The system grants what it allows.
    let _less = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BYTES);
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}
