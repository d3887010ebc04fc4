//! Holder registries and blocks for the link, out of the offline kit and the engine.

use std::fs::File;
use std::io;
use std::sync::Arc;

use engine::calendar::{Clock, Timestamp};
use engine::engine::Engine;
use engine::ids::{OrganizationId, TerminalId};
use engine::trips::block::BlockChange;
use engine::trips::judge::TripRules;
use serde_bytes::ByteArray;
use validator::link::message::{AckCode, BlockPush, RegistryAck, RegistryOffer, Rules, Signer};

use crate::gateway::Gateway;
use crate::kit::registries::Registries;
use crate::link::ports::{self, Delivery};

/// How often a file that vanishes for a newer version is asked for again.
const PULL_ATTEMPTS: usize = 3;

/// The registries of a deployment.
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
}

impl ports::Registries for KitRegistries {
    fn signers(&self) -> Vec<Signer> {
        self.registries.signers()
    }

    fn rules(&self) -> Rules {
        let TripRules { passback_seconds, grace_seconds } = self.trip_rules;
        // The settings bound both; what does not fit would be the stricter rule.
        let passback_seconds = u32::try_from(passback_seconds).unwrap_or(u32::MAX);
        Rules { passback_seconds, grace_hours: u32::try_from(grace_seconds / 3_600).unwrap_or(0) }
    }

    fn newest(&self, organization: OrganizationId) -> u64 {
        self.registries.newest(organization).unwrap_or_default()
    }

    fn pull(&self, organization: OrganizationId, have: u64) -> io::Result<Delivery> {
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

    fn note(&self, organization: OrganizationId, terminal: TerminalId, version: u64) {
        self.registries.note(terminal, organization, version, self.clock.now());
    }

    fn installed(
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

    fn blocks_since(&self, organization: OrganizationId, version: u64) -> Vec<BlockPush> {
        let file = self.registries.file(organization, version).ok();
        let built_at = file.map_or(Timestamp(i64::MIN), |file| file.header().built_at());
        let mut changes: Vec<BlockChange> =
            self.engine.trips().blocks().changes_since(built_at).collect();
        // Stable: of one identifier the block stays before its end, also within one instant.
        changes.sort_by_key(|change| change.at);
        changes.iter().map(push_of).collect()
    }
}

/// A block as devices are told of it.
pub fn push_of(change: &BlockChange) -> BlockPush {
    BlockPush {
        id_hash: ByteArray::new(change.identifier.0),
        blocked: change.blocked,
        at_ms: change.at.0.div_euclid(1_000),
    }
}
