//! Holder registries and blocks for the link, out of the offline kit and the engine.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use engine::calendar::{Clock, Timestamp};
use engine::engine::Engine;
use engine::ids::{OrganizationId, TerminalId};
use engine::trips::block::{BlockChange, Blocks};
use engine::trips::judge::TripRules;
use serde_bytes::ByteArray;
use validator::device::blocks::OVERLAP_MS;
use validator::link::message::{AckCode, BlockPush, RegistryAck, RegistryOffer, Rules, Signer};

use crate::gateway::Gateway;
use crate::kit::registries::Registries;

/// How often a file that vanishes for a newer version is asked for again.
const PULL_ATTEMPTS: usize = 3;

/// The registries of a deployment, and what devices need for them. Calls that say so may block.
pub struct KitRegistries {
    engine: Engine,
    registries: Arc<Registries>,
    clock: Arc<dyn Clock>,
    trip_rules: TripRules,
}

impl KitRegistries {
    /// Those of a server.
    pub fn new(gateway: &Gateway) -> KitRegistries {
        let registries = Arc::clone(&gateway.registries);
        let engine = gateway.engine.clone();
        let clock = Arc::clone(&gateway.clock);
        KitRegistries { engine, registries, clock, trip_rules: gateway.trip_rules }
    }

    /// The keys that sign registries and tickets.
    pub fn signers(&self) -> Vec<Signer> {
        self.registries.signers()
    }

    /// What devices keep to on their own.
    pub fn rules(&self) -> Rules {
        let TripRules { passback_seconds, grace_seconds } = self.trip_rules;
        // The settings bound both; what does not fit would be the stricter rule.
        let passback_seconds = u32::try_from(passback_seconds).unwrap_or(u32::MAX);
        Rules { passback_seconds, grace_hours: u32::try_from(grace_seconds / 3_600).unwrap_or(0) }
    }

    /// The newest version for an organization, 0 for none.
    pub fn newest(&self, organization: OrganizationId) -> u64 {
        self.registries.newest(organization).unwrap_or_default()
    }

    /// Brings a device from version `have` up to date; may block.
    pub fn pull(&self, organization: OrganizationId, have: u64) -> io::Result<Delivery> {
        for _ in 0..PULL_ATTEMPTS {
            let offer = self.registries.pull(organization, have);
            let message =
                RegistryOffer { form: offer.form, version: offer.version, bytes: offer.bytes };
            let Some(path) = offer.path else {
                return Ok(Delivery { offer: message, bytes: Box::new(io::empty()) });
            };
            match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return Ok(Delivery { offer: message, bytes: Box::new(opened?) }),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Notes which version a terminal says it has; may block.
    pub fn note(&self, organization: OrganizationId, terminal: TerminalId, version: u64) {
        self.registries.note(terminal, organization, version, self.clock.now());
    }

    /// Forgets what a terminal has said whose certificate was revoked.
    pub fn forget(&self, terminal: TerminalId) {
        self.registries.forget(terminal);
    }

    /// Notes that a terminal has installed a version; may block.
    pub fn installed(
        &self,
        organization: OrganizationId,
        terminal: TerminalId,
        ack: &RegistryAck,
    ) -> AckCode {
        let version = (organization, ack.version);
        let now = self.clock.now();
        if self.registries.acknowledge(terminal, version, &ack.sha256, now) {
            AckCode::Done
        } else {
            AckCode::Mismatch
        }
    }

    /// Blocks that a device with this version may not know of, in the order of their instants; may
    /// block.
    pub fn blocks_since(&self, organization: OrganizationId, version: u64) -> Vec<BlockPush> {
        let file = self.registries.file(organization, version).ok();
        blocks_beside(&self.engine.trips().blocks(), file.map(|file| file.header().built_at()))
    }
}

/// A registry on its way to a device.
pub struct Delivery {
    /// What it is.
    pub offer: RegistryOffer,
    /// Its bytes, exactly as many as offered.
    pub bytes: Box<dyn Read + Send>,
}

/// What a device may not know of whose registry was built then, in the order of the instants.
///
/// Begins [`OVERLAP_MS`] before the registry: a device keeps blocks for as long beside it, and may have
/// lost the news of their end; and an import takes some time between its instant and the revision
/// from which registries are built.
pub fn blocks_beside(blocks: &Blocks, built_at: Option<Timestamp>) -> Vec<BlockPush> {
    let since = built_at.map_or(Timestamp(i64::MIN), |at| at.plus_seconds(-OVERLAP_MS / 1_000));
    let mut changes: Vec<BlockChange> = blocks.changes_since(since).collect();
    // Of one identifier the block stays before its end, also within one instant.
    changes.sort_by_key(|change| (change.at, !change.blocked, change.identifier.0));
    changes.iter().map(push_of).collect()
}

/// A block as devices are told of it.
pub fn push_of(change: &BlockChange) -> BlockPush {
    BlockPush {
        id_hash: ByteArray::new(change.identifier.0),
        blocked: change.blocked,
        at_ms: change.at.0.div_euclid(1_000),
    }
}

#[cfg(test)]
mod tests {
    use engine::identifier::Digest;

    use super::*;

    /// A device that lost the news of a block's end kept the block beside a registry that was built
    /// within the hour, and was never told again, because only what was newer than the registry was.
    #[test]
    fn a_device_hears_the_end_of_every_block_that_it_may_have() {
        let built_at = Timestamp::parse("2025-06-02T03:00:00Z").unwrap();
        let change = |card: u8, blocked, minutes: i64| BlockChange {
            identifier: Digest([card; 16]),
            blocked,
            at: built_at.plus_seconds(minutes * 60),
        };
        let mut blocks = Blocks::default();
        let changes = [
            change(1, true, -90),
            change(1, false, -61),
            change(2, true, -59),
            change(2, false, -58),
            change(3, true, -90),
            change(3, false, -60),
            change(4, true, 5),
            change(4, false, 5),
        ];
        changes.iter().for_each(|change| blocks.apply(&[*change]));
        let told = |built_at| -> Vec<(u8, bool)> {
            let pushes = blocks_beside(&blocks, built_at);
            pushes.iter().map(|push| (push.id_hash[0], push.blocked)).collect()
        };
        let beside = [(3, false), (2, true), (2, false), (4, true), (4, false)];
        assert_eq!(told(Some(built_at)), beside);
        assert_eq!(told(None).len(), 8);
    }
}
