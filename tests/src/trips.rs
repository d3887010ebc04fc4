//! What the tests of trips share: holder registries in memory, and trips that are easy to vary.

use std::collections::BTreeMap;

use engine::calendar::Timestamp;
use engine::identifier::Digest;
use engine::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId};
use engine::trips::registries::{
    HolderRegistries, RegistryLife, RegistryRight, RightAnswer, RightQuestion,
};
use engine::trips::trip::{
    RegistryVersion, Trip, TripEvent, TripMode, TripName, TripSeq, TripTexts, TripVerdict,
};

/// Registries that know the same rights in every version.
#[derive(Clone, Default)]
pub struct PlainRegistries {
    /// When each version was built; it is valid for 48 hours.
    pub built: BTreeMap<RegistryVersion, Timestamp>,
    /// Who has a right to what.
    pub rights: BTreeMap<(Digest, ServiceId), RegistryRight>,
}

impl PlainRegistries {
    /// Adds a version.
    pub fn build(&mut self, version: u64, at: &str) {
        self.built.insert(RegistryVersion(version), Timestamp::parse(at).unwrap());
    }

    /// Adds a right.
    pub fn grant(&mut self, identifier: Digest, service: u32, discount_percent: u8) {
        let right = RegistryRight { category: CategoryId(20), discount_percent, companion: true };
        self.rights.insert((identifier, ServiceId(service)), right);
    }
}

impl HolderRegistries for PlainRegistries {
    fn right(&self, question: &RightQuestion<'_>) -> RightAnswer {
        let Some(built_at) = self.built.get(&question.version) else {
            return RightAnswer::UnknownVersion;
        };
        let valid_until = built_at.plus_seconds(48 * 3_600);
        let life = RegistryLife { built_at: *built_at, valid_until };
        let right = self.rights.get(&(*question.identifier, question.service));
        RightAnswer::Known(life, right.copied())
    }
}

/// Trip `seq` of terminal 2: a full grant for service 1 by version 7.
pub fn trip(seq: u64, at: &str, identifier: Digest) -> Trip {
    Trip {
        name: TripName { terminal: TerminalId(2), seq: TripSeq(seq) },
        key: None,
        organization: OrganizationId(1),
        event: TripEvent::Boarding,
        mode: TripMode::Offline,
        device_at: Timestamp::parse(at).unwrap(),
        clock_offset_ms: 0,
        service: ServiceId(1),
        texts: TripTexts {
            route: "45".to_owned(),
            vehicle: "A001".to_owned(),
            from_stop: format!("stop {seq}"),
            ..TripTexts::default()
        },
        identifier,
        registry: RegistryVersion(7),
        verdict: TripVerdict::Grant,
        category: Some(CategoryId(20)),
        companion: false,
        tariff: Kopecks(25_000),
        discount_percent: 100,
        benefit: Kopecks(25_000),
        transaction: None,
    }
}
