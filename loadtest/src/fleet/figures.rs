//! What devices did beside checks.

use serde::{Deserialize, Serialize};

use crate::relay::path::Counts;
use crate::run::Run;
use crate::tally::{Kind, Tally};

/// What a fleet did beside checks.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct FleetFigures {
    /// How many devices there are, those of the depot included.
    pub devices: u64,
    /// Those that were connected when the run began; the depot's come later.
    pub connected: u64,
    /// Their links.
    pub links: LinkFigures,
    /// Their holder registries.
    pub registries: RegistryFigures,
    /// Their trips.
    pub trips: TripFigures,
    /// The mass upload, if there was one.
    #[serde(default)]
    pub depot: Option<DepotFigures>,
    /// What the relay did to packets, if there was one.
    #[serde(default)]
    pub relay: Option<Counts>,
}

/// What became of links.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LinkFigures {
    /// Made, the later ones included.
    pub made: u64,
    /// Ended by the other side or by silence.
    pub lost: u64,
    /// Given up by the device, as the scenario says.
    pub left: u64,
    /// Could not be made; the device tried again.
    pub failed: u64,
    /// Of those, what the server refused.
    pub refused: u64,
}

/// What became of holder registries.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RegistryFigures {
    /// Whole files that were pulled.
    pub full: u64,
    /// Deltas that were pulled.
    pub delta: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Pulls that brought nothing that could be used.
    pub failed: u64,
}

/// What became of trips.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TripFigures {
    /// Recorded by devices.
    pub recorded: u64,
    /// Not recorded, because the device was full.
    pub refused: u64,
    /// Recorded by the server and reimbursable.
    pub accepted: u64,
    /// Recorded by an earlier call whose answer did not come.
    pub duplicate: u64,
    /// Recorded for a person to decide on, as it had to be.
    pub disputed: u64,
    /// Recorded as refused, as it had to be.
    pub rejected: u64,
    /// Sent once more on purpose.
    pub repeated: u64,
    /// Answers that said to send it again.
    pub put_off: u64,
    /// Recorded a second time.
    pub doubled: u64,
    /// Not answered by the end.
    pub lost: u64,
    /// Answered otherwise than it must be.
    pub wrong: u64,
}

/// A mass upload.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct DepotFigures {
    /// Devices that take part.
    pub devices: u64,
    /// Those that were up to date and rid of their trips by the end.
    pub done: u64,
    /// Trips that they had.
    pub trips: u64,
    /// From the beginning of the window until the last one was done; nothing where one was not.
    pub done_seconds: Option<f64>,
}

impl FleetFigures {
    /// Adds those of another process of the same run.
    pub fn add(&mut self, other: &FleetFigures) {
        self.devices += other.devices;
        self.connected += other.connected;
        self.links.add(&other.links);
        self.registries.add(&other.registries);
        self.trips.add(&other.trips);
        self.depot = match (self.depot, other.depot) {
            (Some(one), Some(other)) => Some(one.joined(other)),
            (one, other) => one.or(other),
        };
        self.relay = match (self.relay, other.relay) {
            (Some(one), Some(other)) => Some(one.sum(other)),
            (one, other) => one.or(other),
        };
    }

    /// In words, beside a verdict.
    pub fn note(&self, run: &Run) -> String {
        let mut checks = Tally::default();
        let of_checks = run.tallies.iter().filter(|tallied| tallied.kind == Kind::Check);
        of_checks.for_each(|tallied| checks.add(&tallied.tally));
        let (trips, registries) = (&self.trips, &self.registries);
        format!(
            "{} devices: {} of {} checks were decided offline; {} trips recorded, {} answered; \
             {} registries and {} deltas pulled; {} links made, {} lost",
            self.devices,
            checks.offline,
            checks.due(),
            trips.recorded,
            trips.answered(),
            registries.full,
            registries.delta,
            self.links.made,
            self.links.lost,
        )
    }
}

impl LinkFigures {
    fn add(&mut self, other: &LinkFigures) {
        self.made += other.made;
        self.lost += other.lost;
        self.left += other.left;
        self.failed += other.failed;
        self.refused += other.refused;
    }
}

impl RegistryFigures {
    fn add(&mut self, other: &RegistryFigures) {
        self.full += other.full;
        self.delta += other.delta;
        self.bytes += other.bytes;
        self.failed += other.failed;
    }
}

impl TripFigures {
    /// Trips that the server has answered for good.
    pub fn answered(&self) -> u64 {
        self.accepted + self.duplicate + self.disputed + self.rejected + self.wrong
    }

    /// Adds those of another device.
    pub fn add(&mut self, other: &TripFigures) {
        self.recorded += other.recorded;
        self.refused += other.refused;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.disputed += other.disputed;
        self.rejected += other.rejected;
        self.repeated += other.repeated;
        self.put_off += other.put_off;
        self.doubled += other.doubled;
        self.lost += other.lost;
        self.wrong += other.wrong;
    }
}

impl DepotFigures {
    fn joined(self, other: DepotFigures) -> DepotFigures {
        let both = self.done_seconds.zip(other.done_seconds);
        DepotFigures {
            devices: self.devices + other.devices,
            done: self.done + other.done,
            trips: self.trips + other.trips,
            done_seconds: both.map(|(one, other)| one.max(other)),
        }
    }
}
