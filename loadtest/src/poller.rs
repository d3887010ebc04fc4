//! Waiting for sockets, to the nanosecond.
//!
//! The kernel rounds the timers of an ordinary thread up by 50 µs; one that asks for 1 ns is woken
//! about 20 µs late, most of which is the way out of sleep. So a wait ends that much before its
//! instant, and what remains is polled without sleeping. Where the next instant is further away the
//! core rests.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::clock::Monotonic;
use crate::time::{Clock, Nanos};

/// What remains of a wait when sleeping would be too coarse.
const AWAKE: Nanos = Nanos(50_000);
/// Sockets that are told of at once: few, so that what is due is not kept waiting by many answers.
const EVENTS_MAX: usize = 64;

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
}

/// Something happened to a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ready {
    /// The number under which it was added.
    pub key: u64,
    /// There is room to write, or it is broken.
    pub is_writable: bool,
}

/// Watches sockets.
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<Ready>,
    looked: Nanos,
    clock: Monotonic,
}

impl Poller {
    /// Makes one for the calling thread, whose timers it makes exact.
    pub fn new(clock: Monotonic) -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let poller =
            Poller { epoll, ready: Vec::with_capacity(EVENTS_MAX), looked: Nanos(0), clock };
        poller.make_exact()?;
        Ok(poller)
    }

    /// Makes the timers of the calling thread exact, where it is not the one that made this.
    pub fn make_exact(&self) -> io::Result<()> {
        Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?)
    }

    /// Waits by another clock from now on.
    pub fn restart(&mut self, clock: Monotonic) {
        self.clock = clock;
        self.looked = Nanos(0);
    }

    /// Watches a socket, until it is closed.
    pub fn add(&self, socket: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(key), flags(interest))?)
    }

    /// Watches it for something else.
    pub fn change(&self, socket: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(key), flags(interest))?)
    }

    /// Waits until something happens, or until an instant.
    pub fn wait(&mut self, until: Nanos) -> io::Result<()> {
        self.ready.clear();
        loop {
            let left = until - self.clock.now();
            self.look(if left > AWAKE { left - AWAKE } else { Nanos(0) })?;
            self.looked = self.clock.now();
            if !self.ready.is_empty() || self.looked >= until {
                return Ok(());
            }
        }
    }

    /// What happened in the last wait, by position.
    pub fn ready(&self, at: usize) -> Option<Ready> {
        self.ready.get(at).copied()
    }

    /// When the last wait ended: what it told of had happened by then.
    pub fn looked(&self) -> Nanos {
        self.looked
    }

    fn look(&mut self, patience: Nanos) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.0 / 1_000_000_000).unwrap_or(i64::MAX),
            // Below a billion.
            tv_nsec: (patience.0 % 1_000_000_000) as _,
        };
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS_MAX];
        let happened = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((happened, _)) => happened,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let writable = EventFlags::OUT | EventFlags::ERR | EventFlags::HUP;
        self.ready.extend(happened.iter().map(|event| {
            // The kernel's structure is packed: its fields are copied out.
            let (flags, data) = (event.flags, event.data);
            Ready { key: data.u64(), is_writable: flags.intersects(writable) }
        }));
        Ok(())
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN | EventFlags::RDHUP,
        Interest::ReadWrite => EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT,
    }
}
