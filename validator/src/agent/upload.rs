//! Which trips are on their way to the server.
//!
//! One batch at a time: first the confirms of its online grants, each until the server has answered
//! it, then the trips. A trip whose confirm is not answered yet waits for the next round; so does one
//! that the server cannot record now.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::lane::AskError;
use crate::link::message::{Ack, AckCode, Confirm, FailureCode, TripBatch, TripResults};
use crate::queue::segment::{Entry, Refusal};
use crate::trip::{TripReason, TripStatus};

/// Trips of a batch.
pub const BATCH_MAX: usize = 512;
/// Confirms of a batch.
pub const BATCH_CONFIRMS_MAX: usize = 32;

/// The batch on its way, and how far the uploads of this round have come.
#[derive(Debug)]
pub struct Upload {
    stage: Stage,
    /// The last number of this round that was sent or passed over.
    after: u64,
    limit: usize,
    left_behind: bool,
    /// Trips in the queue whose confirms were answered.
    confirmed: BTreeSet<u64>,
}

#[derive(Debug)]
enum Stage {
    Confirming { batch: Vec<Entry>, waiting: BTreeSet<u64> },
    Idle,
    Sending { batch: BTreeMap<u64, Entry> },
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Send these confirms and wait for their answers.
    Confirm(Vec<(u64, Confirm)>),
    /// Everything that waits has been answered for good.
    Done,
    /// Some of it has not: begin again later.
    Retry,
    /// Send these trips.
    Send(TripBatch),
    /// Give the next batch to [`Upload::begin`].
    Take,
    /// Wait for answers.
    Wait,
}

/// What the server's answer to a batch means.
#[derive(Debug, Default)]
pub struct Settled {
    /// Trips that are answered for good.
    pub settled: Vec<u64>,
    /// How many of them are rejected or disputed.
    pub questioned: usize,
    /// Trips by whose names the server knows others.
    pub conflicts: Vec<Entry>,
    /// Trips that it will not take and has not recorded.
    pub refused: Vec<Entry>,
}

impl Upload {
    /// Nothing is on its way.
    pub fn new() -> Upload {
        Upload {
            stage: Stage::Idle,
            after: 0,
            limit: BATCH_MAX,
            left_behind: false,
            confirmed: BTreeSet::new(),
        }
    }

    /// The link is gone, and with it all answers.
    pub fn reset(&mut self) {
        self.stage = Stage::Idle;
        self.after = 0;
        self.left_behind = false;
    }

    /// Something of this round must be tried again.
    pub fn leave_behind(&mut self) {
        self.left_behind = true;
    }

    /// Whether a batch is on its way.
    pub fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Which trips come next: those after this number, at most so many.
    pub fn wants(&self) -> (u64, usize) {
        (self.after, self.limit)
    }

    /// Begins with the oldest trips that [`Upload::wants`].
    pub fn begin(&mut self, mut entries: Vec<Entry>) -> Step {
        if entries.is_empty() {
            let left_behind = std::mem::take(&mut self.left_behind);
            self.after = 0;
            return if left_behind { Step::Retry } else { Step::Done };
        }
        let mut confirms = Vec::new();
        let fitting = entries.iter().take_while(|entry| {
            let confirm =
                entry.confirm.as_ref().filter(|_| !self.confirmed.contains(&entry.trip.seq));
            confirms.extend(confirm.map(|confirm| (entry.trip.seq, confirm.clone())));
            confirms.len() <= BATCH_CONFIRMS_MAX
        });
        let fitting = fitting.count();
        entries.truncate(fitting);
        confirms.truncate(BATCH_CONFIRMS_MAX);
        let waiting = confirms.iter().map(|(seq, _)| *seq).collect();
        self.stage = Stage::Confirming { batch: entries, waiting };
        if confirms.is_empty() { self.send() } else { Step::Confirm(confirms) }
    }

    /// A confirm was answered, or not.
    pub fn handle_confirmed(&mut self, seq: u64, answer: &Result<Ack, AskError>) -> Step {
        let Stage::Confirming { waiting, .. } = &mut self.stage else { return Step::Wait };
        if !waiting.remove(&seq) {
            return Step::Wait;
        }
        let done = waiting.is_empty();
        // Whatever the server's last word is, the trip tells it that the right was used.
        let answered = match answer {
            Ok(ack) => ack.code != AckCode::Unavailable,
            Err(AskError::Failed(FailureCode::Malformed | FailureCode::UnknownKind)) => true,
            Err(_) => false,
        };
        if answered {
            self.confirmed.insert(seq);
        }
        if done { self.send() } else { Step::Wait }
    }

    /// The batch was answered, or not.
    pub fn handle_uploaded(&mut self, answer: Result<TripResults, AskError>) -> (Settled, Step) {
        let mut settled = Settled::default();
        let Stage::Sending { batch } = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return (settled, Step::Wait);
        };
        let results = match answer {
            Ok(results) => results.results,
            Err(AskError::Failed(FailureCode::Malformed)) => {
                settled.refused.extend(self.handle_malformed(batch));
                return (settled, Step::Take);
            }
            Err(_) => return (settled, Step::Retry),
        };
        self.limit = BATCH_MAX;
        self.after = batch.keys().last().copied().unwrap_or(self.after).max(self.after);
        let mut batch = batch;
        for result in results {
            let Some(entry) = batch.remove(&result.seq) else { continue };
            match result.status {
                TripStatus::Unavailable => self.left_behind = true,
                TripStatus::Conflict => settled.conflicts.push(entry),
                TripStatus::Rejected if result.reason == Some(TripReason::Terminal) => {
                    settled.refused.push(Entry { refusal: Some(Refusal::Terminal), ..entry });
                }
                TripStatus::Accepted | TripStatus::Duplicate => settled.settled.push(result.seq),
                TripStatus::Disputed | TripStatus::Rejected => {
                    settled.settled.push(result.seq);
                    settled.questioned += 1;
                }
            }
            if result.status != TripStatus::Unavailable {
                self.confirmed.remove(&result.seq);
            }
        }
        self.left_behind |= !batch.is_empty();
        (settled, Step::Take)
    }

    /// The batch holds something that the server does not understand: find out which.
    fn handle_malformed(&mut self, batch: BTreeMap<u64, Entry>) -> Option<Entry> {
        if batch.len() > 1 {
            self.limit = (batch.len() / 2).max(1);
            return None;
        }
        self.limit = BATCH_MAX;
        let (seq, entry) = batch.into_iter().next()?;
        self.after = seq;
        self.confirmed.remove(&seq);
        Some(Entry { refusal: Some(Refusal::Malformed), ..entry })
    }

    fn send(&mut self) -> Step {
        let Stage::Confirming { batch, .. } = std::mem::replace(&mut self.stage, Stage::Idle)
        else {
            return Step::Wait;
        };
        let last = batch.last().map_or(self.after, |entry| entry.trip.seq);
        let mut ready = BTreeMap::new();
        for entry in batch {
            if entry.confirm.is_some() && !self.confirmed.contains(&entry.trip.seq) {
                self.left_behind = true;
            } else {
                ready.insert(entry.trip.seq, entry);
            }
        }
        if ready.is_empty() {
            self.after = last;
            return Step::Take;
        }
        let trips = ready.values().map(|entry| entry.trip.clone()).collect();
        self.stage = Stage::Sending { batch: ready };
        Step::Send(TripBatch { trips })
    }
}

impl Default for Upload {
    fn default() -> Upload {
        Upload::new()
    }
}
