//! How an agent reports its trips: soon after a tap, again after a failure, until all are answered.

use crate::agent::Agent;
use crate::agent::backoff::Backoff;
use crate::agent::event::{Action, Notice};
use crate::agent::upload::{Settled, Step};
use crate::clock::Now;
use crate::device::passback::Noted;
use crate::link::lane::AskError;
use crate::link::message::{Ack, TripResults};
use crate::queue::segment::{Entry, Refusal};
use crate::queue::{Pending, RETAINED_MS, TRIPS_MAX};
use crate::store::RegistryStore;

/// How long taps are gathered before they are reported.
const GATHER_MS: u64 = 300;
/// How long a confirm waits for its answer.
const CONFIRM_PATIENCE_MS: u64 = 5_000;
/// How long a batch waits for its answer.
const UPLOAD_PATIENCE_MS: u64 = 30_000;
/// Numbers that a trip is tried under.
const RENUMBERED_MAX: u8 = 3;

/// When to report, and what was not durable yet.
pub(super) struct Reporting {
    pub(super) due_ms: Option<u64>,
    pub(super) notes: Vec<Noted>,
    backoff: Backoff,
}

impl Reporting {
    pub(super) fn new() -> Reporting {
        Reporting { due_ms: None, notes: Vec::new(), backoff: Backoff::new(1_000, 300_000) }
    }
}

impl<S: RegistryStore> Agent<S> {
    /// Trips were recorded.
    pub(super) fn report_soon(&mut self, now: Now) {
        self.reporting.notes.clear();
        if self.reporting.due_ms.is_none() && !self.upload.is_busy() {
            self.reporting.due_ms = Some(now.steady_ms.saturating_add(GATHER_MS));
        }
    }

    pub(super) fn report_connected(&mut self, now: Now) {
        self.reporting.due_ms = Some(now.steady_ms);
    }

    pub(super) fn report_due(&mut self, now: Now) {
        let due = self.reporting.due_ms.is_some_and(|due_ms| due_ms <= now.steady_ms);
        if due && self.is_linked() && !self.upload.is_busy() {
            self.reporting.due_ms = None;
            self.take_step(Step::Take, now);
        }
    }

    pub(super) fn handle_confirmed(&mut self, seq: u64, answer: &Result<Ack, AskError>, now: Now) {
        let step = self.upload.handle_confirmed(seq, answer);
        self.take_step(step, now);
    }

    pub(super) fn handle_uploaded(&mut self, answer: Result<TripResults, AskError>, now: Now) {
        let (settled, step) = self.upload.handle_uploaded(answer);
        self.settle(settled, now);
        self.take_step(step, now);
    }

    fn take_step(&mut self, step: Step, now: Now) {
        let mut step = step;
        loop {
            match step {
                Step::Take => {
                    let (after, trips_max) = self.upload.wants();
                    let Pending { entries, unreadable } = self.queue.pending(after, trips_max);
                    if let Some(error) = unreadable {
                        self.upload.leave_behind();
                        self.show(Notice::DiskFailed { reason: error.to_string() });
                    }
                    step = self.upload.begin(entries);
                    continue;
                }
                Step::Confirm(confirms) => {
                    self.actions.extend(confirms.into_iter().map(|(seq, confirm)| {
                        Action::Confirm { seq, confirm, patience_ms: CONFIRM_PATIENCE_MS }
                    }));
                }
                Step::Send(batch) => {
                    let patience_ms = UPLOAD_PATIENCE_MS;
                    self.actions.push_back(Action::Upload { batch, patience_ms });
                }
                Step::Retry => {
                    self.upload.reset();
                    let wait_ms = self.reporting.backoff.failed(&mut self.random);
                    self.reporting.due_ms = Some(now.steady_ms.saturating_add(wait_ms));
                }
                Step::Done => {
                    self.reporting.backoff.succeeded();
                    let server_ms = self.device.clock.server_ms(now);
                    self.queue.clean(server_ms);
                    self.device.passback.forget_before(server_ms.saturating_sub(RETAINED_MS));
                }
                Step::Wait => {}
            }
            return;
        }
    }

    fn settle(&mut self, settled: Settled, now: Now) {
        let Settled { settled, questioned, conflicts, refused } = settled;
        settled.iter().for_each(|seq| self.queue.settle(*seq));
        if !settled.is_empty() {
            self.reporting.backoff.succeeded();
            self.show(Notice::TripsReported { trips: settled.len(), questioned });
        }
        self.put_aside(refused);
        if !conflicts.is_empty() {
            self.renumber(conflicts, now);
        }
    }

    /// The server will not take these trips: a person must look at them.
    fn put_aside(&mut self, refused: Vec<Entry>) {
        if refused.is_empty() {
            return;
        }
        if let Err(error) = self.queue.refuse(&refused) {
            self.upload.leave_behind();
            return self.show(Notice::DiskFailed { reason: error.to_string() });
        }
        for entry in refused {
            let Entry { trip, refusal: Some(reason), .. } = entry else { continue };
            self.show(Notice::TripRefused { seq: trip.seq, reason });
        }
    }

    /// Another device used this terminal's numbers, or this one has lost its disk: these trips are
    /// not recorded, and get numbers further on. A trip id tells the server if one comes twice.
    fn renumber(&mut self, conflicts: Vec<Entry>, now: Now) {
        let highest = conflicts.iter().map(|entry| entry.trip.seq).max().unwrap_or_default();
        self.queue.skip_to(highest.saturating_mul(2).saturating_add(TRIPS_MAX as u64));
        let (again, given_up): (Vec<_>, Vec<_>) =
            conflicts.into_iter().partition(|entry| entry.renumbered < RENUMBERED_MAX);
        let refusal = Some(Refusal::Conflict);
        self.put_aside(given_up.into_iter().map(|entry| Entry { refusal, ..entry }).collect());
        let old: Vec<u64> = again.iter().map(|entry| entry.trip.seq).collect();
        let renumbered = again.into_iter().map(|mut entry| {
            entry.renumbered += 1;
            entry.trip.trip_id = Some(entry.name());
            entry
        });
        if old.is_empty() {
            return;
        }
        // The old ones make room only once the new ones are on the disk: nothing is lost between.
        match self.queue.append_again(renumbered.collect()) {
            Ok(_) => {
                old.iter().for_each(|seq| self.queue.settle(*seq));
                self.show(Notice::TripsRenumbered { trips: old.len() });
                self.report_soon(now);
            }
            Err(error) => {
                self.upload.leave_behind();
                self.show(Notice::DiskFailed { reason: error.to_string() });
            }
        }
    }
}
