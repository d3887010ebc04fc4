//! A trip: one use of a right, as a device records it and reports it later (catalogue §6.6).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::verdict::Verdict;

/// Trips in one call.
pub const BATCH_TRIPS_MAX: usize = 16_384;
/// Bytes of each text of a trip.
pub const TEXT_BYTES_MAX: usize = 32;

/// One use of a right. Named by (terminal, sequence), and by a trip id where the sender gives one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trip {
    /// The terminal's own count of trips, from 1, never reused.
    pub seq: u64,
    /// The terminal; on the link it is the device's own and may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<u64>,
    /// A UUID, where the sender names trips so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip_id: Option<ByteArray<16>>,
    /// What happened.
    pub event: TripEvent,
    /// Whether the server decided, or the device alone.
    pub mode: TripMode,
    /// When, by the device's clock, milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: i64,
    /// The device's clock minus the server's, as last measured, milliseconds.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// For which service.
    pub service: u32,
    /// The route.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The vehicle.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vehicle: String,
    /// Where it began.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from_stop: String,
    /// Where it ends, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to_stop: String,
    /// The digest of the identifier.
    pub id_hash: ByteArray<16>,
    /// The holder registry that the device had, 0 for none.
    pub registry_version: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// The category, where one was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<u32>,
    /// Whether the companion of the holder travelled, not the holder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub companion: bool,
    /// The full price, kopecks.
    #[serde(default)]
    pub tariff: u64,
    /// Size of the benefit, percent.
    #[serde(default)]
    pub discount: u8,
    /// What the carrier did not get from the holder, kopecks.
    #[serde(default)]
    pub benefit: u64,
    /// The number of the ticket, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    /// The transaction, where the server decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<u64>,
}

impl Trip {
    /// When it was, by the server's clock.
    pub fn server_ms(&self) -> i64 {
        self.at_ms.saturating_sub(self.clock_offset_ms)
    }
}

/// What happened at the device.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripEvent {
    /// The holder boarded.
    Boarding,
    /// The right was looked at, nothing was used.
    Check,
    /// A ticket was sold or given.
    TicketIssued,
}

/// Who decided.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripMode {
    /// The device alone.
    Offline,
    /// The server.
    Online,
}

/// What became of a reported trip.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TripResult {
    /// Which trip.
    pub seq: u64,
    /// What became of it.
    pub status: TripStatus,
    /// Why, where it is not simply accepted; of a duplicate, why the first one was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<TripReason>,
    /// Of a duplicate, what became of the first one, where that is still known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<TripStatus>,
}

/// What became of a reported trip.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripStatus {
    /// Recorded and reimbursable.
    Accepted,
    /// Another trip has this name; nothing was recorded.
    Conflict,
    /// Recorded; a person must decide on reimbursement.
    Disputed,
    /// The same trip was recorded before, with the status that it had then.
    Duplicate,
    /// Recorded as refused.
    Rejected,
    /// The server cannot record it now; send it again.
    Unavailable,
}

/// Why a trip is not simply accepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripReason {
    /// The benefit is not tariff times discount, or more than the tariff.
    Amount,
    /// The card was blocked before, and the device's registry was older than a day.
    Blocked,
    /// More than five minutes ahead of the server's clock.
    Future,
    /// More than 45 days old: a person must look.
    LateReview,
    /// Past the usage limit of the service.
    Limit,
    /// A text is too long, a number is out of range.
    Malformed,
    /// Nobody with this identifier was entitled in that registry.
    NoRight,
    /// The registry version is unknown or was not valid at the tap.
    Registry,
    /// The same card at the same stop within the interval.
    Repeat,
    /// The terminal is not one of the sender's.
    Terminal,
}
