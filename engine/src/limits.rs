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
/// Days that a history query may span (C-18).
pub const HISTORY_DAYS_MAX: i32 = 366;
/// Milliseconds that a request may take, unless it says otherwise (D0 §6.4).
pub const DEADLINE_MS: u64 = 3_000;

const _: () = assert!(RECORD_BYTES_MAX + 64 + FRAME_BYTES_SPARE < FRAME_BYTES_MAX);
const _: () = assert!(SHARD_BATCH_COMMANDS_MAX * 256 + FRAME_BYTES_SPARE < FRAME_BYTES_MAX);
const _: () = assert!(SHARD_BATCH_COMMANDS_MAX <= MAILBOX_COMMANDS_MAX);
const _: () = assert!(OPENINGS_WAITING_MAX as u64 <= TRANSACTION_IDS_BLOCK);
const _: () = assert!(OPENINGS_PER_FRAME_MAX * 96 < FRAME_BYTES_SPARE);
