//! The thread that saves snapshots: after some time or some records, whatever comes first. It also
//! sees to it that freed memory goes back to the system.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::engine::Engine;

use crate::background;
use crate::node::chain;
use crate::settings::SnapshotSchedule;

/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes of a list that has pages of its own in every allocator.
const PROD_BYTES: usize = 1 << 20;

/// The running thread.
pub struct Upkeep {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Upkeep {
    /// Starts the thread.
    pub fn start(engine: Engine, schedule: SnapshotSchedule) -> io::Result<Upkeep> {
        let (end, ended) = channel();
        let run = move || {
            let mut due = Due::new(schedule, Instant::now(), engine.status().records);
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                prod_allocator();
                let records = engine.status().records;
                if !due.poll_snapshot(Instant::now(), records) {
                    continue;
                }
                match engine.snapshot() {
                    Ok(()) => tracing::info!(records, "a snapshot was saved"),
                    Err(error) => {
                        tracing::error!(error = chain(&error), "no snapshot was saved");
                    }
                }
            }
        };
        let thread = background::spawn("snapshots", run)?;
        Ok(Upkeep { end, thread })
    }

    /// Waits for a snapshot in hand and ends the thread.
    pub fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the snapshots had panicked");
        }
    }
}

/// The allocator gives freed memory back after a while, but looks for it only when somebody frees a
/// page. After an import on a quiet machine nobody would for long, and a busy one would do it on the
/// time of a request.
fn prod_allocator() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PROD_BYTES)));
}

/// Tells when a snapshot is due.
struct Due {
    schedule: SnapshotSchedule,
    at: Instant,
    records: u64,
}

impl Due {
    fn new(schedule: SnapshotSchedule, at: Instant, records: u64) -> Due {
        Due { schedule, at, records }
    }

    /// Whether one is due at `now`, after `records` records; if so, the next one counts from here.
    fn poll_snapshot(&mut self, now: Instant, records: u64) -> bool {
        let fresh = records.saturating_sub(self.records);
        let late = now.saturating_duration_since(self.at) >= self.schedule.every && fresh > 0;
        let due = late || fresh >= self.schedule.records;
        if due {
            (self.at, self.records) = (now, records);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_after_time_or_records() {
        let schedule = SnapshotSchedule { every: Duration::from_secs(600), records: 100 };
        let start = Instant::now();
        let mut due = Due::new(schedule, start, 7);
        let mut check = |seconds, records, expected| {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(due.poll_snapshot(now, records), expected, "{seconds} {records}");
        };
        check(599, 106, false);
        check(599, 107, true);
        check(1_198, 108, false);
        check(1_199, 108, true);
        check(2_000, 108, false);
        check(2_000, 109, true);
    }
}
