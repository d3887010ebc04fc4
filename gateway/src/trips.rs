//! The trips of devices in the words of the engine, and its outcomes in theirs: for the link and for
//! uploads of processing centres alike.

use engine::calendar::Timestamp;
use engine::command::Deadline;
use engine::engine::Engine;
use engine::identifier::Digest;
use engine::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId};
use engine::trips::clerk::UploadScope;
use engine::trips::trip::{
    RegistryVersion, Standing, Trip, TripEvent, TripKey, TripMode, TripName, TripOutcome,
    TripReason, TripSeq, TripTexts, TripVerdict,
};
use validator::trip as wire;
use validator::verdict::Verdict;

/// Records the trips that come over the link.
pub struct EngineTrips(pub Engine);

impl EngineTrips {
    /// Records trips of a terminal; one result for each, in order, once they are durable.
    pub async fn submit(
        &self,
        scope: UploadScope,
        trips: Vec<wire::Trip>,
        deadline: Deadline,
    ) -> Vec<wire::TripResult> {
        let numbers: Vec<u64> = trips.iter().map(|trip| trip.seq).collect();
        let trips = trips.into_iter();
        let trips = trips.map(|trip| trip_of(trip, scope.organization, scope.terminal));
        let outcomes = self.0.trips().upload(scope, trips.collect(), deadline).await;
        let results = numbers.into_iter().zip(outcomes);
        results.map(|(seq, outcome)| result_of(seq, outcome)).collect()
    }
}

/// A reported trip of a carrier; `terminal` stands in where the trip names none. A trip without any
/// gets terminal 0, which nobody has.
pub fn trip_of(
    trip: wire::Trip,
    organization: OrganizationId,
    terminal: Option<TerminalId>,
) -> Trip {
    let terminal = trip.terminal.map(TerminalId).or(terminal).unwrap_or_default();
    Trip {
        name: TripName { terminal, seq: TripSeq(trip.seq) },
        key: trip.trip_id.map(|key| TripKey(key.into_array())),
        organization,
        event: match trip.event {
            wire::TripEvent::Boarding => TripEvent::Boarding,
            wire::TripEvent::Check => TripEvent::Check,
            wire::TripEvent::TicketIssued => TripEvent::TicketIssued,
        },
        mode: match trip.mode {
            wire::TripMode::Offline => TripMode::Offline,
            wire::TripMode::Online => TripMode::Online,
        },
        device_at: Timestamp(trip.at_ms.saturating_mul(1_000)),
        clock_offset_ms: trip.clock_offset_ms,
        service: ServiceId(trip.service),
        texts: TripTexts {
            route: trip.route,
            vehicle: trip.vehicle,
            from_stop: trip.from_stop,
            to_stop: trip.to_stop,
            ticket: trip.ticket,
        },
        identifier: Digest(trip.id_hash.into_array()),
        registry: RegistryVersion(trip.registry_version),
        verdict: verdict_of(trip.verdict),
        category: trip.category.map(CategoryId),
        companion: trip.companion,
        tariff: Kopecks(trip.tariff),
        discount_percent: trip.discount,
        benefit: Kopecks(trip.benefit),
        transaction: trip.tx.map(TransactionId),
    }
}

/// What a device is told of its trip `seq`.
pub fn result_of(seq: u64, outcome: TripOutcome) -> wire::TripResult {
    use wire::TripStatus::{Conflict, Duplicate, Rejected, Unavailable};
    let result = |status, reason| wire::TripResult { seq, status, reason, first: None };
    match outcome {
        TripOutcome::Recorded(standing) => {
            let (status, reason) = standing_of(standing);
            result(status, reason)
        }
        TripOutcome::Duplicate(None) => result(Duplicate, None),
        TripOutcome::Duplicate(Some(standing)) => {
            let (first, reason) = standing_of(standing);
            wire::TripResult { first: Some(first), ..result(Duplicate, reason) }
        }
        TripOutcome::Conflict => result(Conflict, None),
        TripOutcome::Refused(reason) => result(Rejected, Some(reason_of(reason))),
        TripOutcome::Unavailable => result(Unavailable, None),
    }
}

fn standing_of(standing: Standing) -> (wire::TripStatus, Option<wire::TripReason>) {
    match standing {
        Standing::Accepted => (wire::TripStatus::Accepted, None),
        Standing::Disputed(reason) => (wire::TripStatus::Disputed, Some(reason_of(reason))),
        Standing::Rejected(reason) => (wire::TripStatus::Rejected, Some(reason_of(reason))),
    }
}

/// A reason in the words of the wire.
pub fn reason_of(reason: TripReason) -> wire::TripReason {
    match reason {
        TripReason::Amount => wire::TripReason::Amount,
        TripReason::Blocked => wire::TripReason::Blocked,
        TripReason::Future => wire::TripReason::Future,
        TripReason::LateReview => wire::TripReason::LateReview,
        TripReason::Limit => wire::TripReason::Limit,
        TripReason::Malformed => wire::TripReason::Malformed,
        TripReason::NoRight => wire::TripReason::NoRight,
        TripReason::Registry => wire::TripReason::Registry,
        TripReason::Repeat => wire::TripReason::Repeat,
        TripReason::Terminal => wire::TripReason::Terminal,
    }
}

/// The word of a reason, on the wire.
pub fn reason_name(reason: wire::TripReason) -> &'static str {
    match reason {
        wire::TripReason::Amount => "amount",
        wire::TripReason::Blocked => "blocked",
        wire::TripReason::Future => "future",
        wire::TripReason::LateReview => "late_review",
        wire::TripReason::Limit => "limit",
        wire::TripReason::Malformed => "malformed",
        wire::TripReason::NoRight => "no_right",
        wire::TripReason::Registry => "registry",
        wire::TripReason::Repeat => "repeat",
        wire::TripReason::Terminal => "terminal",
    }
}

/// The word of an event.
pub fn event_name(event: TripEvent) -> &'static str {
    match event {
        TripEvent::Boarding => "boarding",
        TripEvent::Check => "check",
        TripEvent::TicketIssued => "ticket_issued",
    }
}

/// The word of a mode.
pub fn mode_name(mode: TripMode) -> &'static str {
    match mode {
        TripMode::Offline => "offline",
        TripMode::Online => "online",
    }
}

/// The word of a device's verdict.
pub fn verdict_name(verdict: TripVerdict) -> &'static str {
    match verdict {
        TripVerdict::Grant => "GRANT",
        TripVerdict::DenyBlocked => "DENY_BLOCKED",
        TripVerdict::DenyNoRight => "DENY_NO_RIGHT",
        TripVerdict::DenyRepeat => "DENY_REPEAT",
        TripVerdict::DenyStale => "DENY_STALE",
        TripVerdict::DenyUnknown => "DENY_UNKNOWN",
    }
}

fn verdict_of(verdict: Verdict) -> TripVerdict {
    match verdict {
        Verdict::Grant => TripVerdict::Grant,
        Verdict::DenyBlocked => TripVerdict::DenyBlocked,
        Verdict::DenyNoRight => TripVerdict::DenyNoRight,
        Verdict::DenyRepeat => TripVerdict::DenyRepeat,
        Verdict::DenyStale => TripVerdict::DenyStale,
        Verdict::DenyUnknown => TripVerdict::DenyUnknown,
    }
}

const _: () = assert!(wire::BATCH_TRIPS_MAX == engine::limits::UPLOAD_TRIPS_MAX);
const _: () = assert!(wire::TEXT_BYTES_MAX == engine::limits::TRIP_TEXT_BYTES_MAX);
