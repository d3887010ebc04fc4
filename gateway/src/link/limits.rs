//! Every limit of the link by name. Past a limit a message, a connection or a handshake is refused
//! at once.

use std::time::Duration;

use validator::link::frame::MESSAGE_BYTES_MAX;
use validator::link::message::Kind;

/// Bytes of a message that is not a batch of trips.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes of incomplete frames of one device.
pub const DEVICE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64 * 1_024;
/// Bytes of incomplete frames of all devices.
pub const FLEET_BYTES_MAX: usize = 512 << 20;
/// Bytes of batches of trips of all devices that are worked on or wait for it.
pub const BATCH_BYTES_OF_FLEET_MAX: usize = 256 << 20;
/// Batches of trips of one device that are worked on at the same time.
pub const TRIP_BATCHES_MAX: u32 = 2;
/// Batches of trips that are worked on at the same time; more wait.
pub const TRIP_BATCHES_OF_FLEET_MAX: usize = 64;
/// Registries that are sent at the same time, one to a device; more wait.
pub const PULLS_OF_FLEET_MAX: usize = 256;
/// How long a large transfer may take however little it is, see [`transfer_patience`].
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// The pace of a large transfer beyond that: 32 kbit/s, the worst mobile link.
pub const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 4 << 10;
/// How long a frame may be incomplete however little it is, see [`frame_patience`].
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Blocks in one piece of a push, about 50 KiB.
pub const BLOCKS_TOGETHER: usize = 1_024;
/// Devices that are told at the same time what was blocked before they came; more wait.
pub const CATCH_UPS_MAX: usize = 64;
/// Bytes of one part of a registry.
pub const PART_BYTES: usize = 32 << 10;
/// Answers of one stream that wait for its task, of those that take long.
pub const JOB_ANSWERS_WAITING_MAX: usize = 4;
/// Pushes that wait for one device; past it the device is not reading and is closed.
pub const PUSHES_WAITING_MAX: usize = 256;
/// Handshakes under way; from half of it on addresses must be proven first.
pub const HANDSHAKES_MAX: usize = 512;
/// How long a handshake may take, and how long a device may wait with its hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write may wait for the device.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a device that sent too many messages is not read.
pub const PAUSE: Duration = Duration::from_millis(250);
/// Between two looks at the list of revoked certificates.
pub const WATCH_EVERY: Duration = Duration::from_millis(250);
/// Certificates of open connections that are looked at again each time.
pub const JUDGED_AGAIN: usize = 64;
/// How long an answer may take that carries no deadline.
pub const DEADLINE_DEFAULT: Duration = Duration::from_millis(engine::limits::DEADLINE_MS);

/// What a device may use.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Requests that wait for their answers.
    pub in_flight_max: u32,
    /// Messages a second in the long run; 0 for as many as it likes.
    pub messages_per_second: u32,
    /// Messages at once after a pause.
    pub messages_burst: u32,
    /// How long a connection may be silent, and so the rest of a frame that was begun, see
    /// [`frame_patience`].
    pub idle: Duration,
}

/// Bytes of the largest message of a kind that a device may send.
pub fn message_bytes_max(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::TripBatch) => MESSAGE_BYTES_MAX,
        _ => SMALL_MESSAGE_BYTES_MAX,
    }
}

/// How long a registry or blocks of so many bytes may be on their way.
pub fn transfer_patience(bytes: u64) -> Duration {
    TRANSFER_TIMEOUT.saturating_add(Duration::from_secs(bytes / TRANSFER_BYTES_PER_SECOND_MIN))
}

/// How long a frame of so many bytes may be incomplete where a connection may be silent for `idle`.
pub fn frame_patience(idle: Duration, bytes: u64) -> Duration {
    idle.min(FRAME_TIMEOUT)
        .saturating_add(Duration::from_secs(bytes / TRANSFER_BYTES_PER_SECOND_MIN))
}

const _: () = assert!(SMALL_MESSAGE_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(PART_BYTES < MESSAGE_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX * TRIP_BATCHES_MAX as usize <= BATCH_BYTES_OF_FLEET_MAX);
