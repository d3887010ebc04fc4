//! What leaves memory, and when: nobody needs it any more.
//!
//! A claim that was paid keeps its trips for as long as there are others that it must be compared with
//! before they are claimed: else a repeat that is claimed late would be paid for beside its first.

use std::collections::HashMap;

use crate::calendar::Timestamp;
use crate::ids::OrganizationId;
use crate::limits::{DISPUTE_SECONDS_KEPT, TRIP_SECONDS_KEPT, USE_SECONDS_KEPT};
use crate::trips::book::{Slot, TripBook};
use crate::trips::claim::{Claim, ClaimState};
use crate::trips::trip::{Standing, TripState};

/// Seconds between two trips that may tell of one use: a ticket is for a date at most 45 days ahead.
const SECONDS_APART_MAX: i64 = 46 * 86_400;

/// When each organization's trips happened that may still be claimed.
type Owed = HashMap<OrganizationId, Vec<Timestamp>>;

impl TripBook {
    /// Forgets what has been settled for long at `now`.
    pub fn apply_sweep(&mut self, now: Timestamp) {
        let oldest = now.plus_seconds(-TRIP_SECONDS_KEPT);
        let is_over = |claim: &&Claim| {
            claim.state == ClaimState::Paid && claim.changed_at < oldest && !claim.is_archived
        };
        let over: Vec<&Claim> = self.claims.values().filter(is_over).collect();
        let mut names = Vec::new();
        let mut archived = Vec::new();
        if !over.is_empty() {
            let owed = self.owed();
            for claim in over.into_iter().filter(|claim| !self.is_needed(claim, &owed)) {
                names.extend(claim.lines.iter().map(|line| line.name));
                archived.push(claim.id);
            }
        }
        archived.into_iter().for_each(|id| self.with_claim(id, Claim::archive));
        names.extend(self.slots().filter(|slot| slot.is_over(now)).map(|slot| slot.name));
        names.into_iter().for_each(|name| self.forget(name));
    }

    fn owed(&self) -> Owed {
        let mut owed = Owed::new();
        let may_be_claimed = |slot: &&Slot| {
            slot.is_use
                && slot.mark.is_none()
                && slot.claim().is_none()
                && slot.state() != TripState::Rejected
        };
        for slot in self.slots().filter(may_be_claimed) {
            // A use without an amount is never claimed.
            if slot.recorded().is_some_and(|recorded| recorded.trip.reimbursement().0 > 0) {
                owed.entry(slot.organization).or_default().push(slot.at);
            }
        }
        owed
    }

    /// Whether a trip that may still be claimed may be a repeat of one in the claim.
    fn is_needed(&self, claim: &Claim, owed: &Owed) -> bool {
        let times = claim.lines.iter().filter_map(|line| Some(self.slot(line.name)?.at));
        let (Some(first), Some(last)) = (times.clone().min(), times.max()) else { return false };
        let near = first.plus_seconds(-SECONDS_APART_MAX)..=last.plus_seconds(SECONDS_APART_MAX);
        let owed = owed.get(&claim.organization);
        owed.is_some_and(|owed| owed.iter().any(|at| near.contains(at)))
    }
}

impl Slot {
    /// Whether it has been settled for so long at `now` that nobody needs it.
    fn is_over(&self, now: Timestamp) -> bool {
        let older = |seconds: i64| self.received_at < now.plus_seconds(-seconds);
        match self.standing {
            _ if self.claim != 0 => false,
            _ if self.counts() => older(USE_SECONDS_KEPT),
            Standing::Disputed(_) => older(DISPUTE_SECONDS_KEPT),
            Standing::Accepted | Standing::Rejected(_) => older(TRIP_SECONDS_KEPT),
        }
    }
}
