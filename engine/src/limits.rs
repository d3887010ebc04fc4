//! Every limit of the engine by name, and what must hold between them.
//!
//! Past a limit the engine answers at once instead of waiting: see the place that uses it.

/// Bytes of one frame, header included.
pub const FRAME_BYTES_MAX: usize = 2 << 20;
/// Bytes that batches leave free in a frame for openings and a reservation.
pub const FRAME_BYTES_SPARE: usize = 512 << 10;
/// Bytes of one record; larger things are split over several.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Holders in one copy-on-write chunk.
pub const CHUNK_HOLDERS: usize = 62;
/// Chunks in one page of the holder table.
pub const PAGE_CHUNKS: usize = 64;
/// Commands that wait for a shard; one more is answered with Overloaded.
pub const MAILBOX_COMMANDS_MAX: usize = 8_192;
/// Commands that a shard plans before it hands them to the committer.
pub const SHARD_BATCH_COMMANDS_MAX: usize = 1_024;
/// Batches of one shard that may be with the committer: one that is being made durable and one for
/// the next frame. Commands gather in the mailbox meanwhile and wake nobody.
pub const SHARD_BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Opened transactions that wait to be journaled; past it an opening is not journaled at all, and
/// its confirm after a power cut answers like an unknown transaction.
pub const OPENINGS_WAITING_MAX: usize = 1 << 16;
/// Openings that one frame carries.
pub const OPENINGS_PER_FRAME_MAX: usize = 4_096;
/// Transactions held in memory unless configured; past it checks answer 6.
pub const TRANSACTIONS_MAX: usize = 8 << 20;
/// Tries of a check whose limited place is taken by another one meanwhile.
pub const CLAIM_ATTEMPTS_MAX: usize = 8;
/// Transaction ids reserved by one record.
pub const TRANSACTION_IDS_BLOCK: u64 = 1 << 20;
/// Seconds between a check and the last moment of its confirm, unless configured (D0 A2, C-48).
pub const CHECKED_TTL_SECONDS: i64 = 24 * 3_600;
/// Checks in one batch call.
pub const BATCH_CHECKS_MAX: usize = 10_000;
/// Bytes of one line of a registry file.
pub const REGISTRY_LINE_BYTES_MAX: usize = 64 << 10;
/// Errors that one rejected import reports.
pub const IMPORT_ERRORS_MAX: usize = 1_000;
/// Cards of one holder.
pub const CARDS_PER_HOLDER_MAX: usize = 64;
/// Category entries of one holder.
pub const RIGHTS_PER_HOLDER_MAX: usize = 64;
/// Identifiers of one holder.
pub const IDENTIFIERS_PER_HOLDER_MAX: usize = 256;
/// Confirms and cancels that ask the history at the same time, each on a thread; more wait for their
/// deadline.
pub const HISTORY_ASKS_MAX: usize = 16;
/// Days that a history query may span (C-18).
pub const HISTORY_DAYS_MAX: i32 = 366;
/// Bytes of each text of a trip.
pub const TRIP_TEXT_BYTES_MAX: usize = 32;
/// The highest tariff of a trip, kopecks: ten million rubles. Sums of trips cannot overflow.
pub const TRIP_TARIFF_KOPECKS_MAX: u64 = 1_000_000_000;
/// Seconds that a trip may be ahead of the engine's clock (catalogue §6.6).
pub const TRIP_FUTURE_SECONDS_MAX: i64 = 5 * 60;
/// Seconds after which a person must look at a trip (catalogue §6.6).
pub const TRIP_LATE_SECONDS: i64 = 45 * 86_400;
/// Trips of one upload.
pub const UPLOAD_TRIPS_MAX: usize = 16_384;
/// Trips of all uploads that wait for the clerk; past it an upload answers Unavailable.
pub const TRIPS_WAITING_MAX: usize = 131_072;
/// Uploads and changes of claims that wait for the clerk.
pub const TRIP_ERRANDS_MAX: usize = 256;
/// Trips that the clerk has made durable together.
pub const TRIP_GROUP_MAX: usize = 32_768;
/// Trips held in memory unless configured; past it uploads answer Unavailable.
pub const TRIPS_MAX: usize = 4 << 20;
/// Seconds for which a trip whose fate is settled stays in memory; longer than a repeat of it could
/// be accepted.
pub const TRIP_SECONDS_KEPT: i64 = 90 * 86_400;
/// Seconds for which a disputed trip stays in memory.
pub const DISPUTE_SECONDS_KEPT: i64 = 366 * 86_400;
/// Seconds for which a block is remembered: longer than any trip is judged by a registry that was built
/// before it, which is valid for 30 days at most.
pub const BLOCK_SECONDS_KEPT: i64 = TRIP_LATE_SECONDS + 31 * 86_400;
/// Seconds for which a use that no claim has taken stays in memory.
pub const USE_SECONDS_KEPT: i64 = 366 * 86_400;
/// Claims, all states together.
pub const CLAIMS_MAX: usize = 1 << 20;
/// Trips refused by one call.
pub const REFUSALS_MAX: usize = 1_000;
/// Rulings on disputed trips of one call.
pub const RULINGS_MAX: usize = 1_000;
/// Characters of a reason for a refusal or a ruling.
pub const REFUSAL_CHARACTERS_MAX: usize = 200;
/// Refusals in one record.
pub const REFUSALS_PER_RECORD: usize = 250;
/// Rulings in one record, beside the names of [`RULINGS_MAX`] that they revoke.
pub const RULINGS_PER_RECORD: usize = 200;
/// Days that a claim may span.
pub const CLAIM_DAYS_MAX: i32 = 366;
/// Bytes of trips in one record.
pub const TRIP_RECORD_BYTES: usize = 128 << 10;
/// Bytes of trips that the clerk hands to the committer at once.
pub const TRIP_BATCH_BYTES: usize = 1 << 20;
/// Lines of a claim in one record.
pub const CLAIM_LINES_PER_RECORD: usize = 4_096;
/// Milliseconds that a request may take, unless it says otherwise (D0 §6.4).
pub const DEADLINE_MS: u64 = 3_000;

const _: () = assert!(RECORD_BYTES_MAX + 64 + FRAME_BYTES_SPARE < FRAME_BYTES_MAX);
const _: () = assert!(SHARD_BATCH_COMMANDS_MAX * 256 + FRAME_BYTES_SPARE < FRAME_BYTES_MAX);
const _: () = assert!(SHARD_BATCH_COMMANDS_MAX <= MAILBOX_COMMANDS_MAX);
const _: () = assert!(OPENINGS_WAITING_MAX as u64 <= TRANSACTION_IDS_BLOCK);
const _: () = assert!(OPENINGS_PER_FRAME_MAX * 96 < FRAME_BYTES_SPARE);
const _: () = assert!(TRIP_RECORD_BYTES + 1_024 < RECORD_BYTES_MAX);
const _: () = assert!(TRIP_BATCH_BYTES + RECORD_BYTES_MAX + FRAME_BYTES_SPARE < FRAME_BYTES_MAX);
const _: () = assert!(UPLOAD_TRIPS_MAX <= TRIP_GROUP_MAX && TRIP_GROUP_MAX <= TRIPS_WAITING_MAX);
const _: () = assert!(CLAIM_LINES_PER_RECORD * 32 < TRIP_RECORD_BYTES + 1_024);
const _: () = assert!(TRIP_SECONDS_KEPT > TRIP_LATE_SECONDS);
const _: () = assert!(
    RULINGS_PER_RECORD * (REFUSAL_CHARACTERS_MAX * 4 + 32) + RULINGS_MAX * 32 < RECORD_BYTES_MAX
);
const _: () = assert!(REFUSALS_PER_RECORD * (REFUSAL_CHARACTERS_MAX * 4 + 32) < RECORD_BYTES_MAX);
