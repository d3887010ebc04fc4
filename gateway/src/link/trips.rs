//! Trips of the link: recorded by the engine, and judged by the registries that devices pulled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::calendar::Timestamp;
use engine::command::Deadline;
use engine::ids::{OrganizationId, TerminalId};
use engine::trips::clerk::UploadScope;
use engine::trips::registries::{
    HolderRegistries, RegistryLife, RegistryRight, RightAnswer, RightQuestion,
};
use validator::registry::rights::Entitlement;
use validator::trip::{Trip, TripResult};

use crate::gateway::Gateway;
use crate::kit::registries::{LookupError, Registries};
use crate::link::ports::{Promise, TripIntake};
use crate::trips::{result_of, trip_of};

/// How long an upload may wait for the disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// Records trips in the engine.
pub struct EngineTrips {
    gateway: Arc<Gateway>,
}

impl EngineTrips {
    /// The engine of a gateway, which judges trips by the gateway's registries from now on.
    pub fn new(gateway: &Arc<Gateway>) -> EngineTrips {
        gateway.engine.trips().judge_by(PulledRegistries(Arc::clone(&gateway.registries)));
        EngineTrips { gateway: Arc::clone(gateway) }
    }
}

impl TripIntake for EngineTrips {
    fn submit(
        &self,
        organization: OrganizationId,
        terminal: TerminalId,
        trips: Vec<Trip>,
    ) -> Promise<'_, Vec<TripResult>> {
        let numbers: Vec<u64> = trips.iter().map(|trip| trip.seq).collect();
        let translate = |trip: Trip| trip_of(trip, organization, Some(terminal));
        let trips = trips.into_iter().map(translate).collect();
        let scope = UploadScope { organization, terminal: Some(terminal) };
        Box::pin(async move {
            let deadline = Deadline(Instant::now() + PATIENCE);
            let outcomes = self.gateway.engine.trips().upload(scope, trips, deadline).await;
            let results = numbers.into_iter().zip(outcomes);
            results.map(|(seq, outcome)| result_of(seq, outcome)).collect()
        })
    }
}

/// The registries that devices pulled, as the engine judges by them.
struct PulledRegistries(Arc<Registries>);

impl HolderRegistries for PulledRegistries {
    fn right(&self, question: &RightQuestion<'_>) -> RightAnswer {
        let file = match self.0.file(question.organization, question.version.0) {
            Ok(file) => file,
            Err(LookupError::VersionUnknown) => return RightAnswer::UnknownVersion,
            Err(LookupError::Registry(_)) => return RightAnswer::Unavailable,
        };
        let instant = |ms: i64| Timestamp(ms.saturating_mul(1_000));
        let header = file.header();
        let life = RegistryLife {
            built_at: instant(header.built_at_ms),
            valid_until: instant(header.valid_until_ms),
        };
        match file.right(question.identifier, question.service, question.day) {
            Ok(Entitlement::Right(right)) => RightAnswer::Known(
                life,
                Some(RegistryRight {
                    category: right.category,
                    discount_percent: right.discount_percent,
                    companion: right.companion,
                }),
            ),
            Ok(Entitlement::NoRight | Entitlement::Unknown) => RightAnswer::Known(life, None),
            Err(_) => RightAnswer::Unavailable,
        }
    }
}
