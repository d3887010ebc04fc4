//! Where the follower is, shared with those who ask and with the committer.
//!
//! The committer only stores a position and, if the follower sleeps, wakes it; it takes no lock.
//! Those who ask wait on a condition until the watermark is high enough.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use engine::history::{Freshness, HistoryError};
use engine::journal::Position;

use crate::history::index::Index;
use crate::history::limits::REST;

/// What the follower, the committer and those who ask share.
#[derive(Default)]
pub(super) struct Progress {
    /// How far the log is known to be durable.
    told: AtomicU64,
    /// How far the archive is fsynced.
    kept: AtomicU64,
    /// Settled transactions indexed since the start.
    indexed: AtomicU64,
    rung: AtomicBool,
    stopping: AtomicBool,
    follower: OnceLock<Thread>,
    /// A std lock: held for a few loads, never while reading or writing.
    state: Mutex<State>,
    /// The watermark, the index or the trouble changed.
    moved: Condvar,
    /// Somebody asks, or the follower should stop.
    asked: Condvar,
}

#[derive(Default)]
struct State {
    /// Absent while it is opened, rebuilt or caught up.
    index: Option<Arc<Index>>,
    watermark: Position,
    trouble: Option<Trouble>,
    waiting: u32,
    asked: bool,
    suspect: bool,
}

/// What keeps the follower from following.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) cause: String,
    /// Whether it has lasted so long that waiting for its end is vain.
    pub(super) lasting: bool,
}

impl Progress {
    pub(super) fn new(kept: Position) -> Progress {
        let progress = Progress::default();
        progress.keep(kept);
        progress
    }

    /// The log is durable up to `end`. Cheap: this is on the way of every commit.
    pub(super) fn tell(&self, end: Position) {
        self.told.fetch_max(end.stored(), Ordering::AcqRel);
        self.ring();
    }

    /// The index once it reaches up to what is wanted.
    pub(super) fn fresh_index(&self, freshness: Freshness) -> Result<Arc<Index>, HistoryError> {
        let mut state = self.state();
        if let Some(index) = state.fresh_index(freshness.at_least) {
            return Ok(index);
        }
        state.waiting += 1;
        state.asked = true;
        self.asked.notify_all();
        self.ring();
        let answer = loop {
            if let Some(index) = state.fresh_index(freshness.at_least) {
                break Ok(index);
            }
            let left = freshness.deadline.saturating_duration_since(Instant::now());
            match &state.trouble {
                Some(trouble) if trouble.lasting || left.is_zero() => {
                    break Err(HistoryError::Broken(trouble.cause.clone()));
                }
                None if left.is_zero() => break Err(HistoryError::Late),
                _ => {}
            }
            let waited = self.moved.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        answer
    }

    /// Somebody read nonsense: the index must be rebuilt.
    pub(super) fn suspect(&self) {
        let mut state = self.state();
        state.suspect = true;
        state.asked = true;
        self.asked.notify_all();
        self.ring();
    }

    /// Asks the follower to end.
    pub(super) fn stop(&self) {
        let state = self.state();
        self.stopping.store(true, Ordering::Release);
        self.asked.notify_all();
        drop(state);
        self.ring();
    }

    /// Says which thread follows. Before that, telling wakes nobody.
    pub(super) fn set_follower(&self, follower: Thread) {
        let first = self.follower.set(follower).is_ok();
        debug_assert!(first, "one history has one follower");
    }

    /// Gives the index to those who ask, complete up to `watermark`.
    pub(super) fn publish(&self, index: Arc<Index>, watermark: Position) {
        let mut state = self.state();
        state.index = Some(index);
        state.watermark = watermark;
        self.moved.notify_all();
    }

    /// Takes the index away from those who ask; those who have it may still use it.
    pub(super) fn withdraw(&self) -> Option<Arc<Index>> {
        let mut state = self.state();
        state.watermark = Position::ORIGIN;
        state.index.take()
    }

    /// The index is complete up to `watermark`, with `count` more transactions.
    pub(super) fn advance(&self, watermark: Position, count: u64) {
        self.indexed.fetch_add(count, Ordering::Relaxed);
        let mut state = self.state();
        state.watermark = state.watermark.max(watermark);
        if state.waiting > 0 {
            self.moved.notify_all();
        }
    }

    /// The archive is fsynced up to `position`.
    pub(super) fn keep(&self, position: Position) {
        self.kept.store(position.stored(), Ordering::Release);
    }

    /// Says what is wrong, or that nothing is any more; tells what was wrong before.
    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) -> Option<Trouble> {
        let mut state = self.state();
        self.moved.notify_all();
        std::mem::replace(&mut state.trouble, trouble)
    }

    /// Whether somebody suspected the index since the last call.
    pub(super) fn take_suspicion(&self) -> bool {
        std::mem::take(&mut self.state().suspect)
    }

    /// Sleeps until there is something to follow, or until `due`. Before that, rests a moment
    /// unless somebody waits for what the next round will find.
    pub(super) fn rest(&self, progressed: bool, due: Option<Instant>) {
        let state = self.state();
        let mut state = if progressed && state.waiting > 0 {
            state
        } else {
            let idle = |state: &mut State| !state.asked && !self.is_stopping();
            let waited = self.asked.wait_timeout_while(state, REST, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        state.asked = false;
        if state.waiting > 0 {
            return;
        }
        drop(state);
        while !self.rung.swap(false, Ordering::AcqRel) && !self.is_stopping() {
            let Some(due) = due else {
                std::thread::park();
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Sleeps for `time` after an error, whoever asks.
    pub(super) fn back_off(&self, time: std::time::Duration) {
        let ended = self.asked.wait_timeout_while(self.state(), time, |_| !self.is_stopping());
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn told(&self) -> Position {
        Position::from_stored(self.told.load(Ordering::Acquire))
    }

    pub(super) fn kept(&self) -> Position {
        Position::from_stored(self.kept.load(Ordering::Acquire))
    }

    pub(super) fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    pub(super) fn watermark(&self) -> Position {
        self.state().watermark
    }

    pub(super) fn index(&self) -> Option<Arc<Index>> {
        self.state().index.clone()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.as_ref().map(|trouble| trouble.cause.clone())
    }

    pub(super) fn is_asked(&self) -> bool {
        self.state().waiting > 0
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(follower) = self.follower.get() {
            follower.unpark();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fresh_index(&self, at_least: Position) -> Option<Arc<Index>> {
        self.index.clone().filter(|_| self.watermark >= at_least)
    }
}
