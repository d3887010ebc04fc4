//! Lists of trips, page by page, in the order in which they happened.
//!
//! There is no index for it: a page looks at every trip, some tens of thousands at a time, so that
//! neither the clerk nor another reader waits for the whole of it. What comes or changes meanwhile may
//! be missing; what was there before and lies behind the cursor is not.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::calendar::{Timestamp, UtcOffset};
use crate::ids::OrganizationId;
use crate::registry::Registry;
use crate::trips::book::{Slot, TripBook};
use crate::trips::claim::{ClaimId, Period};
use crate::trips::evaluation::offset_of;
use crate::trips::ruling::RecordedRuling;
use crate::trips::trip::{RecordedTrip, TripName, TripReason, TripState};

/// Places of the book that are looked at together.
const PLACES_TOGETHER: usize = 32_768;

/// Which trips are asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TripQuery {
    /// Whose; without one, those of all carriers.
    pub organization: Option<OrganizationId>,
    /// The dates, each carrier's own.
    pub period: Period,
    /// How they stand; without one, however they do.
    pub state: Option<TripState>,
    /// Only those behind this one.
    pub after: Option<TripPlace>,
    /// How many at most.
    pub count: usize,
}

/// Where a trip stands in a list.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TripPlace {
    /// When it happened.
    pub at: Timestamp,
    /// What it is called.
    pub name: TripName,
}

/// A page of a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TripPage {
    /// The trips.
    pub trips: Vec<TripView>,
    /// Where the next page goes on; none on the last one.
    pub next: Option<TripPlace>,
}

/// A trip and what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TripView {
    /// The trip as it came.
    pub recorded: RecordedTrip,
    /// How it stands now.
    pub state: TripState,
    /// What a person decided of it.
    pub ruling: Option<RecordedRuling>,
    /// The claim that has it.
    pub claim: Option<ClaimId>,
    /// Why no claim can take it, where only others tell.
    pub mark: Option<TripReason>,
}

/// Finds a page.
pub fn page(book: &RwLock<TripBook>, query: &TripQuery, registry: &Registry) -> TripPage {
    let mut search = Search { query, registry, offsets: BTreeMap::new(), found: BinaryHeap::new() };
    let mut first = 0;
    while let Some(slots) = read(book).slots_from(first, PLACES_TOGETHER) {
        slots.for_each(|slot| search.look_at(slot));
        first += PLACES_TOGETHER;
    }
    let mut found = search.found.into_sorted_vec();
    let goes_on = found.len() > query.count;
    found.truncate(query.count);
    let next = found.last().copied().filter(|_| goes_on);
    let book = read(book);
    let trips = found.iter().filter_map(|place| view(&book, place.name)).collect();
    TripPage { trips, next }
}

/// The first places that were found, one more than asked for.
struct Search<'a> {
    query: &'a TripQuery,
    registry: &'a Registry,
    offsets: BTreeMap<OrganizationId, UtcOffset>,
    found: BinaryHeap<TripPlace>,
}

impl Search<'_> {
    fn look_at(&mut self, slot: &Slot) {
        let TripQuery { organization, period, state, after, count } = *self.query;
        let place = TripPlace { at: slot.at, name: slot.name };
        let is_asked_for = organization
            .is_none_or(|organization| organization == slot.organization)
            && state.is_none_or(|state| state == slot.state())
            && after.is_none_or(|after| place > after);
        let is_full = self.found.len() > count;
        if !is_asked_for || (is_full && self.found.peek().is_some_and(|last| place > *last)) {
            return;
        }
        let offset = || offset_of(self.registry, slot.organization);
        let offset = *self.offsets.entry(slot.organization).or_insert_with(offset);
        if !period.covers(slot.at, offset) {
            return;
        }
        self.found.push(place);
        if is_full {
            self.found.pop();
        }
    }
}

fn view(book: &TripBook, name: TripName) -> Option<TripView> {
    let slot = book.slot(name)?;
    Some(TripView {
        recorded: slot.recorded()?,
        state: slot.state(),
        ruling: book.ruling(name).cloned(),
        claim: slot.claim(),
        mark: slot.mark,
    })
}

fn read(book: &RwLock<TripBook>) -> RwLockReadGuard<'_, TripBook> {
    book.read().unwrap_or_else(PoisonError::into_inner)
}
