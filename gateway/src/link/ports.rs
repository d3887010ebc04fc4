//! What the link needs of others: trips and holder registries.

use std::io::{self, Read};
use std::pin::Pin;

use engine::ids::{OrganizationId, TerminalId};
use validator::link::message::{AckCode, BlockPush, RegistryAck, RegistryOffer, Rules, Signer};
use validator::trip::{Trip, TripResult};

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

    /// Blocks that a device with this version does not know of yet, in the order of their instants;
    /// may block.
    fn blocks_since(&self, organization: OrganizationId, version: u64) -> Vec<BlockPush>;
}

/// A registry on its way to a device.
pub struct Delivery {
    /// What it is.
    pub offer: RegistryOffer,
    /// Its bytes, exactly as many as offered.
    pub bytes: Box<dyn Read + Send>,
}
