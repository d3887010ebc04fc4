//! The thread that builds registries: at its times of the day, after imports where configured, and
//! when somebody asks for one.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::Guard;
use engine::calendar::Timestamp;
use engine::engine::Engine;
use tokio::sync::oneshot;

use crate::background;
use crate::kit::registries::{BuildReport, Registries, log};

/// How often it is looked whether a build is due.
const LOOK: Duration = Duration::from_secs(1);
/// Orders that wait for a build in hand; one more is refused.
const ORDERS_MAX: usize = 8;

/// The running thread.
pub struct Schedule {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    Build(oneshot::Sender<Option<BuildReport>>),
    End,
}

/// When registries are built by themselves.
#[derive(Clone, Debug)]
pub struct Times {
    /// Times of the day in UTC, minutes after midnight. Where there are some and no registry exists
    /// yet, the first one is built at once, or after the import that makes it possible.
    pub build_at: Vec<u16>,
    /// Whether every import is followed by a build.
    pub after_import: bool,
}

impl Schedule {
    /// Starts the thread.
    pub fn start(
        engine: Engine,
        registries: Arc<Registries>,
        times: Times,
    ) -> io::Result<Schedule> {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        let work = move || run(&engine, &registries, &times, &queue);
        let thread = background::spawn("registries", work)?;
        Ok(Schedule { orders, thread })
    }

    /// What orders builds from the thread.
    pub fn builds(&self) -> Builds {
        Builds { orders: self.orders.clone() }
    }

    /// Waits for a build in hand and ends the thread.
    pub fn stop(self) {
        // A thread that is gone needs no order to end.
        let _gone = self.orders.send(Order::End);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the registries had panicked");
        }
    }
}

/// Orders builds.
#[derive(Clone)]
pub struct Builds {
    orders: SyncSender<Order>,
}

impl Builds {
    /// Has registries built from the present revision; none where that failed or too many wait.
    pub async fn build(&self) -> Option<BuildReport> {
        let (tell, told) = oneshot::channel();
        match self.orders.try_send(Order::Build(tell)) {
            Ok(()) => told.await.ok().flatten(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn run(engine: &Engine, registries: &Registries, times: &Times, orders: &Receiver<Order>) {
    let build = || {
        let registry = Guard::into_inner(engine.registry());
        let built = registries.build(&registry, engine.now());
        log(&built);
        built.ok()
    };
    let mut revision = engine.status().revision;
    let mut looked_at = registries.built_at().unwrap_or(Timestamp(0));
    loop {
        let order = orders.recv_timeout(LOOK);
        let (now, newest) = (engine.now(), engine.status().revision);
        match order {
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Order::Build(tell)) => {
                // Whoever asked may have hung up.
                let _told = tell.send(build());
            }
            Err(RecvTimeoutError::Timeout) => {
                let is_first = !times.build_at.is_empty() && registries.built_at().is_none();
                let imported = (times.after_import || is_first) && newest != revision;
                if !imported && !is_due(&times.build_at, looked_at, now) {
                    continue;
                }
                // One that failed is tried again at the next time, not at every look.
                build();
            }
        }
        (revision, looked_at) = (newest, now);
    }
}

/// Whether one of these times of the day came after `before` and not after `now`.
fn is_due(build_at: &[u16], before: Timestamp, now: Timestamp) -> bool {
    const DAY: i64 = 86_400;
    let last = |minutes: &u16| {
        let offset = i64::from(*minutes) * 60;
        (now.unix_seconds() - offset).div_euclid(DAY) * DAY + offset
    };
    build_at.iter().any(|minutes| last(minutes) > before.unix_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_due_once_at_each_of_its_times() {
        let check = |before: &str, now: &str, expected: bool| {
            let [before, now] = [before, now].map(|text| Timestamp::parse(text).unwrap());
            assert_eq!(is_due(&[120, 840], before, now), expected, "{before} {now}");
            assert!(!is_due(&[], before, now));
        };
        check("2025-06-02T01:00:00Z", "2025-06-02T01:59:59Z", false);
        check("2025-06-02T01:59:59Z", "2025-06-02T02:00:00Z", true);
        check("2025-06-02T02:00:00Z", "2025-06-02T13:59:00Z", false);
        check("2025-06-02T02:00:00Z", "2025-06-02T14:00:01Z", true);
        check("2025-06-02T14:00:01Z", "2025-06-03T01:59:00Z", false);
        check("2025-06-02T14:00:01Z", "2025-06-05T00:00:00Z", true);
        check("1970-01-01T00:00:00Z", "2025-06-02T00:00:00Z", true);
    }
}
