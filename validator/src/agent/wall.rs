//! The clocks of the machine, as an agent is told of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock::Now;

/// Both clocks.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// When the steady one began.
    pub(super) start: Instant,
    /// The other one.
    pub(super) wall: WallClock,
}

impl Clock {
    pub(super) fn now(self) -> Now {
        self.at(Instant::now())
    }

    /// What the clocks showed a moment ago.
    pub(super) fn at(self, instant: Instant) -> Now {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let steady_ms = millis(instant.saturating_duration_since(self.start));
        let wall_ms = self.wall.now_ms().saturating_sub_unsigned(millis(instant.elapsed()));
        Now { wall_ms, steady_ms }
    }
}

/// The clock on the wall.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    /// How far it is ahead of the machine's; tests let time pass by it.
    pub ahead_seconds: u32,
}

impl WallClock {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn now_ms(self) -> i64 {
        wall_ms().saturating_add(i64::from(self.ahead_seconds) * 1_000)
    }
}

/// The machine's clock on the wall, milliseconds since 1970-01-01T00:00:00Z.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
