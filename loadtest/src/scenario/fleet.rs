//! The part of a scenario that makes it a fleet: validators on the link instead of counters.

use std::path::PathBuf;

use serde::Deserialize;

use crate::relay::path::Path;
use crate::relay::{Cut, Plan};
use crate::scenario::{Mix, Scenario, ScenarioError};
use crate::time::Nanos;

/// Devices of one process.
const DEVICES_MAX: u32 = 65_536;
/// Trips of one device of the depot.
const DEPOT_TRIPS_MAX: u32 = 10_000;

/// A fleet of validators.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Where the link listens, `host:port`.
    pub link: String,
    /// The name that the server's certificate bears.
    #[serde(default = "localhost")]
    pub server_name: String,
    /// The directory that `eligo pki` made, with the certificates of the devices.
    pub pki_dir: PathBuf,
    /// Devices that are connected from the beginning.
    pub devices: u32,
    /// How long a device waits for an answer to a check, milliseconds.
    #[serde(default = "deadline")]
    pub deadline_ms: u64,
    /// Whether devices hold the holder registry and decide by it when the link fails; without, such
    /// a check is not answered.
    #[serde(default = "yes")]
    pub registry: bool,
    /// Devices that share a socket, as in one bus depot behind one address.
    #[serde(default = "neighbours")]
    pub devices_per_socket: u32,
    /// How trips are uploaded.
    #[serde(default)]
    pub uploads: Uploads,
    /// What the path to the server does; clear without.
    #[serde(default)]
    pub path: PathShape,
    /// When nothing passes.
    #[serde(default)]
    pub cuts: Vec<CutShape>,
    /// When the server sees all devices at new addresses, seconds.
    #[serde(default)]
    pub rebind_seconds: Vec<f64>,
    /// When devices leave the link on their own.
    #[serde(default)]
    pub away: Vec<CutShape>,
    /// Devices that come with a night's trips.
    #[serde(default)]
    pub depot: Option<Depot>,
}

/// How trips are uploaded.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uploads {
    /// How often a device looks whether it has any.
    pub every_seconds: f64,
    /// How many it sends at once.
    pub trips_max: usize,
    /// The share that is sent a second time on purpose.
    pub repeated: f64,
    /// How long after the run what is left may take.
    pub drain_seconds: f64,
}

/// What the path does in both directions together, or in each where it says so.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PathShape {
    /// There and back, milliseconds.
    pub rtt_ms: f64,
    /// How much longer one way at most, milliseconds.
    pub jitter_ms: f64,
    /// Lost, percent of the packets of each direction.
    pub loss_percent: f64,
    /// Overtaken by others, percent.
    pub reorder_percent: f64,
    /// Arriving twice, percent.
    pub duplicate_percent: f64,
    /// Of each socket and direction; no bound without.
    pub kbit_per_second: Option<u64>,
}

/// A span of time in which some are cut off.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CutShape {
    /// From when on.
    pub from_seconds: f64,
    /// Until when.
    pub to_seconds: f64,
    /// How many of them.
    #[serde(default = "hundred")]
    pub percent: f64,
}

/// The morning depot: devices that connect in one window, with an old registry and a night's trips.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depot {
    /// Beside the devices that are connected from the beginning.
    pub devices: u32,
    /// When the window begins.
    pub at_seconds: f64,
    /// How long it is; devices come evenly.
    #[serde(default)]
    pub within_seconds: f64,
    /// Trips of each device.
    pub trips: u32,
}

impl Default for Uploads {
    fn default() -> Uploads {
        Uploads { every_seconds: 5.0, trips_max: 1_000, repeated: 0.02, drain_seconds: 60.0 }
    }
}

impl Fleet {
    /// Certificates that are needed.
    pub fn certificates(&self) -> u32 {
        self.devices.saturating_add(self.depot.map_or(0, |depot| depot.devices))
    }

    /// What a relay does, where one is needed.
    pub fn relay(&self, seed: u64) -> Option<Plan> {
        let is_clear = self.path == PathShape::default()
            && self.cuts.is_empty()
            && self.rebind_seconds.is_empty();
        let shape = &self.path;
        let ms = |ms: f64| Nanos((ms * 1e6) as u64);
        (!is_clear).then(|| Plan {
            path: Path {
                delay: ms(shape.rtt_ms / 2.0),
                jitter: ms(shape.jitter_ms),
                loss: shape.loss_percent / 100.0,
                reorder: shape.reorder_percent / 100.0,
                duplicate: shape.duplicate_percent / 100.0,
                bits_per_second: shape.kbit_per_second.map(|rate| rate.saturating_mul(1_000)),
                ..Path::CLEAR
            },
            cuts: self.cuts.iter().map(CutShape::cut).collect(),
            rebinds: self.rebind_seconds.iter().map(|at| ms(at * 1e3)).collect(),
            seed,
        })
    }

    /// Whether every field holds what it may.
    pub(super) fn check(
        &self,
        scenario: &Scenario,
        within: &impl Fn(&str, f64, f64, f64) -> Result<(), ScenarioError>,
    ) -> Result<(), ScenarioError> {
        within("fleet.devices", self.devices.into(), 1.0, DEVICES_MAX.into())?;
        within("fleet.deadline_ms", self.deadline_ms as f64, 1.0, 60_000.0)?;
        within("fleet.devices_per_socket", self.devices_per_socket.into(), 1.0, 4_096.0)?;
        within("threads", scenario.threads.into(), 1.0, 1.0)?;
        let uploads = &self.uploads;
        within("fleet.uploads.every_seconds", uploads.every_seconds, 0.01, 86_400.0)?;
        let most = validator::trip::BATCH_TRIPS_MAX as f64;
        within("fleet.uploads.trips_max", uploads.trips_max as f64, 1.0, most)?;
        within("fleet.uploads.repeated", uploads.repeated, 0.0, 1.0)?;
        within("fleet.uploads.drain_seconds", uploads.drain_seconds, 0.0, 3_600.0)?;
        self.check_path(scenario, within)?;
        if let Some(depot) = &self.depot {
            within("fleet.depot.devices", depot.devices.into(), 1.0, DEVICES_MAX.into())?;
            within("fleet.depot.trips", depot.trips.into(), 0.0, DEPOT_TRIPS_MAX.into())?;
            within("fleet.depot.at_seconds", depot.at_seconds, 0.0, scenario.duration_seconds)?;
            let longest = scenario.duration_seconds;
            within("fleet.depot.within_seconds", depot.within_seconds, 0.0, longest)?;
        }
        // What a validator cannot ask on the link.
        let Mix { history, services, batch, malformed, repeat, .. } = scenario.mix;
        for (field, weight) in [
            ("mix.history", history),
            ("mix.services", services),
            ("mix.batch", batch),
            ("mix.malformed", malformed),
            ("mix.repeat", repeat),
        ] {
            within(field, weight, 0.0, 0.0)?;
        }
        within("citizens.identifiers.snils", scenario.citizens.identifiers.snils, 0.0, 0.0)
    }

    fn check_path(
        &self,
        scenario: &Scenario,
        within: &impl Fn(&str, f64, f64, f64) -> Result<(), ScenarioError>,
    ) -> Result<(), ScenarioError> {
        let path = &self.path;
        within("fleet.path.rtt_ms", path.rtt_ms, 0.0, 60_000.0)?;
        within("fleet.path.jitter_ms", path.jitter_ms, 0.0, 60_000.0)?;
        within("fleet.path.loss_percent", path.loss_percent, 0.0, 100.0)?;
        within("fleet.path.reorder_percent", path.reorder_percent, 0.0, 100.0)?;
        within("fleet.path.duplicate_percent", path.duplicate_percent, 0.0, 100.0)?;
        let rate = path.kbit_per_second.unwrap_or(1) as f64;
        within("fleet.path.kbit_per_second", rate, 1.0, 1e9)?;
        for (name, list) in [("cuts", &self.cuts), ("away", &self.away)] {
            for (at, cut) in list.iter().enumerate() {
                let field = |field: &str| format!("fleet.{name}.{at}.{field}");
                let longest = scenario.duration_seconds;
                within(&field("from_seconds"), cut.from_seconds, 0.0, longest)?;
                within(&field("to_seconds"), cut.to_seconds, cut.from_seconds, 1e6)?;
                within(&field("percent"), cut.percent, 0.0, 100.0)?;
            }
        }
        for (at, seconds) in self.rebind_seconds.iter().enumerate() {
            within(&format!("fleet.rebind_seconds.{at}"), *seconds, 0.0, 1e6)?;
        }
        Ok(())
    }
}

impl CutShape {
    fn cut(&self) -> Cut {
        let nanos = |seconds: f64| Nanos((seconds * 1e9) as u64);
        Cut {
            from: nanos(self.from_seconds),
            until: nanos(self.to_seconds),
            share: self.percent / 100.0,
        }
    }
}

fn localhost() -> String {
    "localhost".to_owned()
}

fn deadline() -> u64 {
    300
}

fn yes() -> bool {
    true
}

fn neighbours() -> u32 {
    16
}

fn hundred() -> f64 {
    100.0
}
