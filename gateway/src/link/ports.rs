//! What the link needs of others: trips and holder registries.

use std::io::{self, Read};
use std::pin::Pin;

use engine::ids::{OrganizationId, TerminalId};
use validator::link::message::{
    AckCode, BlockPush, RegistryAck, RegistryForm, RegistryOffer, Rules, Signer,
};
use validator::trip::{Trip, TripResult, TripStatus};

/// A future of a port.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes reported trips.
pub trait TripIntake: Send + Sync + 'static {
    /// Records trips of a terminal; one result for each, in order, once they are durable.
    fn submit(
        &self,
        organization: OrganizationId,
        terminal: TerminalId,
        trips: Vec<Trip>,
    ) -> Promise<'_, Vec<TripResult>>;
}

/// Gives out holder registries and what devices need for them.
pub trait Registries: Send + Sync + 'static {
    /// The keys that sign registries and tickets.
    fn signers(&self) -> Vec<Signer>;

    /// What devices keep to on their own.
    fn rules(&self) -> Rules;

    /// The newest version for an organization, 0 for none.
    fn newest(&self, organization: OrganizationId) -> u64;

    /// Brings a device from version `have` up to date; may block.
    fn pull(&self, organization: OrganizationId, have: u64) -> io::Result<Delivery>;

    /// Notes which version a terminal says it has; may block.
    fn note(&self, organization: OrganizationId, terminal: TerminalId, version: u64);

    /// Notes that a terminal has installed a version; may block.
    fn installed(
        &self,
        organization: OrganizationId,
        terminal: TerminalId,
        ack: &RegistryAck,
    ) -> AckCode;

    /// Blocks that a device with this version does not know of yet.
    fn blocks_since(&self, organization: OrganizationId, version: u64) -> Vec<BlockPush>;
}

/// A registry on its way to a device.
pub struct Delivery {
    /// What it is.
    pub offer: RegistryOffer,
    /// Its bytes, exactly as many as offered.
    pub bytes: Box<dyn Read + Send>,
}

/// Records nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrips;

impl TripIntake for NoTrips {
    fn submit(
        &self,
        _organization: OrganizationId,
        _terminal: TerminalId,
        trips: Vec<Trip>,
    ) -> Promise<'_, Vec<TripResult>> {
        let refused = |trip: &Trip| TripResult {
            seq: trip.seq,
            status: TripStatus::Unavailable,
            reason: None,
            first: None,
        };
        let results = trips.iter().map(refused).collect();
        Box::pin(std::future::ready(results))
    }
}

/// Has no registries.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRegistries;

impl Registries for NoRegistries {
    fn signers(&self) -> Vec<Signer> {
        Vec::new()
    }

    fn rules(&self) -> Rules {
        Rules { passback_seconds: 420, grace_hours: 0 }
    }

    fn newest(&self, _organization: OrganizationId) -> u64 {
        0
    }

    fn pull(&self, _organization: OrganizationId, _have: u64) -> io::Result<Delivery> {
        let offer = RegistryOffer { form: RegistryForm::None, version: 0, bytes: 0 };
        Ok(Delivery { offer, bytes: Box::new(io::empty()) })
    }

    fn note(&self, _organization: OrganizationId, _terminal: TerminalId, _version: u64) {}

    fn installed(
        &self,
        _organization: OrganizationId,
        _terminal: TerminalId,
        _ack: &RegistryAck,
    ) -> AckCode {
        AckCode::NotFound
    }

    fn blocks_since(&self, _organization: OrganizationId, _version: u64) -> Vec<BlockPush> {
        Vec::new()
    }
}
