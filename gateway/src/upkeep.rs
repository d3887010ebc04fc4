//! The thread that saves snapshots: after some time or some records, whatever comes first, and when
//! somebody asks for one. It also sees to it that freed memory goes back to the system.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::engine::Engine;
use engine::snapshot::SnapshotError;
use tokio::sync::oneshot;

use crate::background;
use crate::node::chain;
use crate::settings::SnapshotSchedule;

/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(1);

/// Orders that wait for the thread; further ones are refused.
const ORDERS_MAX: usize = 16;

/// Bytes of a list that has pages of its own in every allocator.
const PROD_BYTES: usize = 1 << 20;

/// The running thread.
pub struct Upkeep {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    End,
    Snapshot(oneshot::Sender<bool>),
}

impl Upkeep {
    /// Starts the thread.
    pub fn start(engine: Engine, schedule: SnapshotSchedule) -> io::Result<Upkeep> {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        let thread = background::spawn("snapshots", move || run(&engine, schedule, &queue))?;
        Ok(Upkeep { orders, thread })
    }

    /// What orders snapshots from the thread.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { orders: self.orders.clone() }
    }

    /// Waits for a snapshot in hand, unless [`Engine::stop_snapshots`] ends it, and ends the thread.
    pub fn stop(self) {
        // A thread that is gone needs no order to end.
        let _gone = self.orders.send(Order::End);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the snapshots had panicked");
        }
    }
}

/// Orders snapshots.
#[derive(Clone)]
pub struct Snapshots {
    orders: SyncSender<Order>,
}

impl Snapshots {
    /// Has a snapshot saved, behind those that were asked for before; whether it was.
    pub async fn save(&self) -> bool {
        let (tell, told) = oneshot::channel();
        self.orders.try_send(Order::Snapshot(tell)).is_ok() && told.await.unwrap_or(false)
    }
}

fn run(engine: &Engine, schedule: SnapshotSchedule, orders: &Receiver<Order>) {
    let mut due = Due::new(schedule, Instant::now(), engine.status().records);
    loop {
        let order = orders.recv_timeout(LOOK);
        prod_allocator();
        let records = engine.status().records;
        match order {
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Order::Snapshot(tell)) => {
                // Whoever asked may have hung up.
                let _told = tell.send(save(engine, records));
                due = Due::new(schedule, Instant::now(), records);
            }
            Err(RecvTimeoutError::Timeout) if due.poll_snapshot(Instant::now(), records) => {
                save(engine, records);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn save(engine: &Engine, records: u64) -> bool {
    let begun = Instant::now();
    match engine.snapshot() {
        Ok(()) => {
            let seconds = begun.elapsed().as_secs();
            tracing::info!(records, seconds, "a snapshot was saved");
            true
        }
        Err(SnapshotError::Stopped) => {
            tracing::info!(records, "a snapshot in hand was given up");
            false
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "no snapshot was saved");
            false
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
