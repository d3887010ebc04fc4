//! The limits of the stored history, and what must hold between them.

use std::time::Duration;

use engine::limits::FRAME_BYTES_MAX;

/// Confirmations and cancellations that go into the archive and the index as one.
pub const BATCH_RECORDS_MAX: usize = 4_096;
/// Bytes of an archive file after which the next one is begun, unless configured.
pub const ARCHIVE_FILE_BYTES: u64 = 64 << 20;
/// Bytes that the archive may hold unsynced.
pub const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// How long written things may wait for their fsync.
pub const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
/// Settled transactions in memory after which they go into the index as sorted runs, unless
/// configured: some 8 MB, and what is read from the archive again after a restart.
pub const TAIL_RECORDS: usize = 1 << 16;
/// The rest of the follower after it reached the end of the log, unless a question waits: at most
/// 200 rounds a second.
pub const REST: Duration = Duration::from_millis(5);
/// The first pause after an error; it doubles with every further one.
pub const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);
/// The longest pause after an error.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Errors in a row after which questions no longer wait for their deadline.
pub const ERRORS_TOLERATED: u32 = 3;
/// How long a closing history waits for its follower before it leaves it behind.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);
/// Keys counted between two looks at the deadline.
pub const KEYS_BETWEEN_CLOCK_LOOKS: u64 = 4_096;
/// Bytes of blocks that the index keeps in memory, unless configured.
pub const INDEX_CACHE_BYTES: u64 = 64 << 20;
/// Bytes of the index's own log, the least that it takes.
pub const INDEX_LOG_BYTES: u64 = 64 << 20;

const _: () = assert!(FRAME_BYTES_MAX as u64 <= UNSYNCED_BYTES_MAX);
const _: () = assert!(UNSYNCED_BYTES_MAX <= ARCHIVE_FILE_BYTES);
const _: () = assert!(RETRY_AFTER_MIN.as_millis() <= RETRY_AFTER_MAX.as_millis());
