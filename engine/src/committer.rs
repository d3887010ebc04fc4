//! The committer: makes one frame of all batches that wait, appends it, and sends their answers.
//!
//! One thread for the whole partition. Its loop is [`run`]; the steps are methods of [`Committer`],
//! which a simulation calls one by one.
//!
//! # Why
//! A greedy committer alternates half batches: while it syncs one half of the callers, the other
//! half waits, and each sync carries half of what it could. So after answering it waits a moment for
//! the batch that is forming: for those who waited during the sync and those who were just answered,
//! at most half a sync, giving up after 100 µs of silence (with 30 µs the frames of 64 callers held 59
//! records and the slowest answers took a quarter longer). A lone caller is not held up: when it
//! calls again, everybody who is expected is there.
//!
//! Where a call costs more of the processor than of the device, as over HTTP on one core, nobody can
//! form a batch in half a sync; there half batches are right, for the core works on one half while
//! the other is synced. So waits that do not bring everybody become rare: of durable confirms over
//! HTTP, 64 in flight, beside checks, never waiting made 0.57 of what had been 0.40 in the run before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::history::History;
use crate::ids::PartitionId;
use crate::journal::{AppendError, BatchId, FrameBuilder, Journal, Tenure};
use crate::limits::{FRAME_BYTES_SPARE, OPENINGS_PER_FRAME_MAX};
use crate::partition::Partition;
use crate::record::Record;
use crate::shard::Submission;
use crate::transaction::Event;

/// How long the committer sleeps when nobody calls, before it looks for openings.
const IDLE: Duration = Duration::from_millis(20);
/// Pause between two tries to recover, at most.
const RECOVERY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Silence after which a forming batch is taken as it is.
const SILENCE: Duration = Duration::from_micros(100);
/// Each wait in vain, up to this many in a row, doubles the frames until the next one.
const VAIN_WAITS_COUNTED: u32 = 6;

/// Builds frames and appends them.
pub struct Committer {
    partition: Arc<Partition>,
    journal: Arc<dyn Journal>,
    history: Arc<dyn History>,
    id: PartitionId,
    tenure: Tenure,
    next_batch: u64,
    frame: FrameBuilder,
    waiting: Vec<Submission>,
    records: Vec<u8>,
}

/// What the last appends tell about the next one.
#[derive(Clone, Copy, Debug, Default)]
struct Expectation {
    /// Who was answered, and who waited then.
    answers: usize,
    /// How long it took.
    sync: Duration,
    /// Waits in a row that did not bring everybody who was expected.
    in_vain: u32,
    /// Frames that are taken as they are before the next wait.
    greedy_frames: u32,
}

impl Expectation {
    /// Whether to wait for the batch that is forming.
    fn poll_patience(&mut self) -> bool {
        let greedy = self.greedy_frames > 0;
        self.greedy_frames = self.greedy_frames.saturating_sub(1);
        !greedy
    }

    /// Learns from a wait.
    fn waited(&mut self, is_full: bool) {
        self.in_vain = if is_full { 0 } else { (self.in_vain + 1).min(VAIN_WAITS_COUNTED) };
        self.greedy_frames = (1 << self.in_vain) - 1;
    }
}

impl Committer {
    /// A committer that owns the partition by `tenure`.
    pub fn new(
        partition: Arc<Partition>,
        journal: Arc<dyn Journal>,
        history: Arc<dyn History>,
        id: PartitionId,
        tenure: Tenure,
    ) -> Committer {
        Committer {
            partition,
            journal,
            history,
            id,
            tenure,
            next_batch: 1,
            frame: FrameBuilder::new(),
            waiting: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes a batch into the next frame; commits first if it does not fit any more.
    pub fn add(&mut self, submission: Submission) {
        if !self.frame.fits(submission.records.len() + FRAME_BYTES_SPARE) {
            self.commit();
        }
        self.frame.extend(&submission.records, submission.record_count);
        self.waiting.push(submission);
    }

    /// Appends what was added, with the openings and the reservation that wait, and sends the
    /// answers; returns false when the journal failed.
    pub fn commit(&mut self) -> bool {
        if self.partition.has_failed() {
            // What was added behind a frame that failed may stand on it.
            self.frame = FrameBuilder::new();
            self.end_waiting(false);
            return false;
        }
        self.add_openings();
        let reservation = self.add_reservation();
        if self.frame.is_empty() {
            self.end_waiting(true);
            return true;
        }
        let frame = self.frame.finish(self.tenure.epoch, BatchId(self.next_batch));
        self.next_batch += 1;
        match self.journal.append(self.id, self.tenure.end, &frame) {
            Ok(end) => {
                self.tenure.end = end;
                if let Some(through) = reservation {
                    self.partition.ledger().reserve_ids(through);
                }
                self.partition.note_durable(end, frame.record_count());
                self.end_waiting(true);
                self.history.follow(end);
                true
            }
            Err(error) => {
                report(&error);
                self.partition.fail();
                self.end_waiting(false);
                false
            }
        }
    }

    /// Goes on under a new tenure.
    pub fn resume(&mut self, tenure: Tenure) {
        self.tenure = tenure;
        self.next_batch = 1;
        self.frame = FrameBuilder::new();
        self.partition.note_end(tenure.end);
        self.partition.resume();
    }

    /// Whether a frame would carry anything.
    pub fn has_work(&self) -> bool {
        let ledger = self.partition.ledger();
        !self.waiting.is_empty() || ledger.has_openings() || ledger.reservation_due().is_some()
    }

    fn add_openings(&mut self) {
        self.records.clear();
        let mut count = 0;
        for opening in self.partition.ledger().take_openings(OPENINGS_PER_FRAME_MAX) {
            Record::Event(Event::Opened(opening)).push(&mut self.records);
            count += 1;
        }
        self.frame.extend(&self.records, count);
    }

    fn add_reservation(&mut self) -> Option<crate::ids::TransactionId> {
        let through = self.partition.ledger().reservation_due()?;
        self.records.clear();
        Record::IdsReserved(through).push(&mut self.records);
        self.frame.extend(&self.records, 1);
        Some(through)
    }

    fn end_waiting(&mut self, durable: bool) {
        self.partition.end(self.waiting.drain(..), durable);
    }

    fn answers(&self) -> usize {
        self.waiting.iter().map(|submission| submission.answers.len()).sum()
    }
}

/// Commits until every sender is gone or `stop` is raised and nothing waits. When the journal
/// fails, `recover` is asked for a new tenure until it has one; batches are refused meanwhile.
pub fn run(
    mut committer: Committer,
    batches: &Receiver<Submission>,
    stop: &AtomicBool,
    mut recover: impl FnMut() -> Option<Tenure>,
) {
    let mut expected = Expectation::default();
    loop {
        if committer.answers() == 0 {
            match batches.recv_timeout(IDLE) {
                Ok(batch) => committer.add(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        gather(&mut committer, batches, &mut expected);
        if !committer.has_work() {
            if stop.load(Ordering::Acquire) && batches.is_empty() {
                return;
            }
            continue;
        }
        let answers = committer.answers();
        let begun = Instant::now();
        let mut committed = committer.commit() && !committer.partition.has_failed();
        (expected.answers, expected.sync) = (answers, begun.elapsed());
        if answers == 1 {
            // Where they share a core, who was answered goes first.
            std::thread::yield_now();
        }
        if committed {
            batches.try_iter().for_each(|batch| committer.add(batch));
            expected.answers += committer.answers();
        }
        let mut pause = IDLE;
        while !committed {
            while let Ok(batch) = batches.recv_timeout(pause) {
                committer.partition.end([batch], false);
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            if let Some(tenure) = recover() {
                while let Ok(batch) = batches.try_recv() {
                    committer.partition.end([batch], false);
                }
                committer.resume(tenure);
                committed = true;
            }
            pause = (pause * 2).min(RECOVERY_PAUSE_MAX);
        }
    }
}

/// Takes all that waits, then a little more if a batch is forming.
fn gather(committer: &mut Committer, batches: &Receiver<Submission>, expected: &mut Expectation) {
    let begun = Instant::now();
    let mut heard = begun;
    let mut answers = committer.answers();
    let is_patient = expected.poll_patience();
    loop {
        while let Ok(batch) = batches.try_recv() {
            answers += batch.answers.len();
            committer.add(batch);
            heard = Instant::now();
        }
        let is_full = answers >= expected.answers;
        if answers == 0 || !is_patient {
            return;
        }
        let now = Instant::now();
        if is_full || now - heard > SILENCE || now - begun > expected.sync / 2 {
            return expected.waited(is_full);
        }
        std::thread::yield_now();
    }
}

fn report(error: &AppendError) {
    match error {
        AppendError::Fenced => tracing::error!("another owner took the partition"),
        AppendError::Unknown(cause) => tracing::error!(%cause, "the journal failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_in_vain_become_rare_until_one_is_not() {
        let mut expected = Expectation::default();
        let mut waited_at = Vec::new();
        for frame in 0..200 {
            if expected.poll_patience() {
                waited_at.push(frame);
                expected.waited(false);
            }
        }
        assert_eq!(waited_at, [0, 2, 6, 14, 30, 62, 126, 190]);
        expected.waited(true);
        assert!(expected.poll_patience());
    }
}
