//! An alarm inside a tokio runtime that rings to the microsecond; tokio's own timers turn in whole
//! milliseconds.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::time::Nanos;

/// One alarm.
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// Must be called inside a runtime.
    // What replaces `with_interest` is `unsafe`; an owned descriptor stays open while it is watched.
    #[expect(deprecated)]
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Waits for so long.
    pub async fn ring_in(&self, time: Nanos) -> io::Result<()> {
        let value = Timespec {
            tv_sec: i64::try_from(time.0 / 1_000_000_000).unwrap_or(i64::MAX),
            // 0 would switch it off.
            tv_nsec: (time.0 % 1_000_000_000).max(1) as _,
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut count)?));
            match read {
                Ok(read) => return read.map(drop),
                // What was ready is an alarm that was set before.
                Err(_would_block) => {}
            }
        }
    }
}
