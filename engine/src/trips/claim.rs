//! A reimbursement claim: the trips that a carrier is to be paid for over a period, and the states
//! it goes through (catalogue §6.6): draft, submitted, processed, accepted or partly refused, paid.

use std::collections::{BTreeMap, BTreeSet};

use crate::calendar::{Day, Timestamp, UtcOffset};
use crate::ids::{Kopecks, OrganizationId};
use crate::trips::trip::{TripName, TripReason};

/// A claim's number, given by us.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClaimId(pub u64);

/// Dates of the carrier's own calendar, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Period {
    /// First date.
    pub first: Day,
    /// Last date.
    pub last: Day,
}

impl Period {
    /// Whether an instant lies in it where the clock is `offset` ahead of UTC.
    pub fn covers(self, at: Timestamp, offset: UtcOffset) -> bool {
        let day = at.local_day(offset);
        self.first <= day && day <= self.last
    }
}

/// Where a claim stands.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ClaimState {
    /// The carrier works on it.
    Draft,
    /// The ministry has it.
    Submitted,
    /// The ministry has looked at it; trips may still be refused.
    Processed,
    /// All of it is owed.
    Accepted,
    /// What was not refused is owed.
    PartlyRefused,
    /// What was owed is paid.
    Paid,
}

/// A trip in a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClaimLine {
    /// The trip.
    pub name: TripName,
    /// What is claimed for it.
    pub amount: Kopecks,
}

/// A trip that the ministry does not pay for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The trip.
    pub name: TripName,
    /// Why not, for the carrier to read.
    pub reason: String,
}

/// The sums of a claim.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClaimTotals {
    /// Lines, refused ones included.
    pub line_count: u64,
    /// The sum of all lines.
    pub total: Kopecks,
    /// Lines that were refused.
    pub refused_count: u64,
    /// The sum of those.
    pub refused_total: Kopecks,
}

impl ClaimTotals {
    /// What is owed.
    pub fn owed(&self) -> Kopecks {
        Kopecks(self.total.0.saturating_sub(self.refused_total.0))
    }
}

/// What happens to claims.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimEvent {
    /// A draft without lines was made.
    Created {
        /// Its number.
        id: ClaimId,
        /// Whose it is.
        organization: OrganizationId,
        /// For when.
        period: Period,
        /// When.
        at: Timestamp,
    },
    /// A draft took trips, and others turned out not to be owed.
    Extended {
        /// Which.
        id: ClaimId,
        /// The trips that it took.
        lines: Vec<ClaimLine>,
        /// The trips that no claim can take any more, and why.
        marks: Vec<(TripName, TripReason)>,
    },
    /// The carrier handed it in.
    Submitted {
        /// Which.
        id: ClaimId,
        /// When.
        at: Timestamp,
    },
    /// The ministry looked at it and refused some trips.
    Processed {
        /// Which.
        id: ClaimId,
        /// When.
        at: Timestamp,
        /// The trips that were refused.
        refusals: Vec<Refusal>,
    },
    /// The ministry owes what was not refused.
    Decided {
        /// Which.
        id: ClaimId,
        /// When.
        at: Timestamp,
    },
    /// It was paid.
    Paid {
        /// Which.
        id: ClaimId,
        /// When.
        at: Timestamp,
    },
    /// Only for snapshots: its lines have left memory.
    Archived {
        /// Which.
        id: ClaimId,
        /// What they came to.
        totals: ClaimTotals,
    },
}

/// A claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Its number.
    pub id: ClaimId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// For when.
    pub period: Period,
    /// Where it stands.
    pub state: ClaimState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last came to another state.
    pub changed_at: Timestamp,
    /// Its sums.
    pub totals: ClaimTotals,
    /// Its trips; empty once they have left memory.
    pub lines: Vec<ClaimLine>,
    /// The trips that were refused, and why.
    pub refusals: BTreeMap<TripName, String>,
    /// Whether its trips have left memory.
    pub is_archived: bool,
}

impl Claim {
    /// A draft without lines.
    pub fn new(id: ClaimId, organization: OrganizationId, period: Period, at: Timestamp) -> Claim {
        Claim {
            id,
            organization,
            period,
            state: ClaimState::Draft,
            created_at: at,
            changed_at: at,
            totals: ClaimTotals::default(),
            lines: Vec::new(),
            refusals: BTreeMap::new(),
            is_archived: false,
        }
    }

    /// Takes a trip that is in no claim yet.
    pub fn take(&mut self, line: ClaimLine) {
        self.lines.push(line);
        self.totals.line_count += 1;
        self.totals.total.0 = self.totals.total.0.saturating_add(line.amount.0);
    }

    /// Lets go of trips that are not owed after all.
    pub fn release(&mut self, names: &BTreeSet<TripName>) {
        let totals = &mut self.totals;
        self.lines.retain(|line| {
            let stays = !names.contains(&line.name);
            if !stays {
                totals.line_count -= 1;
                totals.total.0 = totals.total.0.saturating_sub(line.amount.0);
            }
            stays
        });
    }

    /// Refuses trips that have an amount in this claim; each once, with the first reason.
    pub fn refuse(&mut self, refusals: impl Iterator<Item = (Refusal, Kopecks)>) {
        for (refusal, amount) in refusals {
            if let std::collections::btree_map::Entry::Vacant(place) =
                self.refusals.entry(refusal.name)
            {
                place.insert(refusal.reason);
                self.totals.refused_count += 1;
                self.totals.refused_total.0 = self.totals.refused_total.0.saturating_add(amount.0);
            }
        }
    }

    /// Comes to a later state; an event that was applied before changes nothing.
    pub fn advance(&mut self, state: ClaimState, at: Timestamp) {
        if self.state < state {
            self.state = state;
            self.changed_at = at;
        }
    }

    /// What the ministry's decision comes to.
    pub fn decision(&self) -> ClaimState {
        if self.totals.refused_count == 0 {
            ClaimState::Accepted
        } else {
            ClaimState::PartlyRefused
        }
    }

    /// Lets go of the lines; the sums stay.
    pub fn archive(&mut self) {
        self.is_archived = true;
        self.lines = Vec::new();
        self.refusals = BTreeMap::new();
    }

    /// The claim without lines.
    pub fn summary(&self) -> ClaimSummary {
        ClaimSummary {
            id: self.id,
            organization: self.organization,
            period: self.period,
            state: self.state,
            created_at: self.created_at,
            changed_at: self.changed_at,
            totals: self.totals,
            is_archived: self.is_archived,
        }
    }
}

/// A claim without lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClaimSummary {
    /// Its number.
    pub id: ClaimId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// For when.
    pub period: Period,
    /// Where it stands.
    pub state: ClaimState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last came to another state.
    pub changed_at: Timestamp,
    /// Its sums.
    pub totals: ClaimTotals,
    /// Whether its trips have left memory.
    pub is_archived: bool,
}

/// What somebody wants done to a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimOrder {
    /// The ministry: what was not refused is owed.
    Accept(ClaimId),
    /// The carrier: a draft for a period, or the one that is there with the trips that came since.
    Draft(OrganizationId, Period),
    /// The ministry: it is paid.
    Pay(ClaimId),
    /// The ministry: it was looked at, and these trips are refused.
    Process(ClaimId, Vec<Refusal>),
    /// The carrier: the ministry may have it.
    Submit(OrganizationId, ClaimId),
}

/// Why a claim was not changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ClaimError {
    /// The claim has no such trip.
    #[error("the claim has no such trip")]
    NoSuchTrip,
    /// There is no such claim, or it is somebody else's.
    #[error("there is no such claim")]
    NotFound,
    /// It cannot be recorded now.
    #[error("the change could not be recorded")]
    Unavailable,
    /// The claim has gone on or is not so far yet.
    #[error("the claim is in another state")]
    WrongState,
}
