//! The requests under way, oldest first.
//!
//! A slab whose taken places form a list in the order of sending, so that finding the oldest, ending
//! any, and remembering a new one all take the same short time and no more memory than requests were
//! ever under way together.

use crate::time::Nanos;
use crate::transport::Tag;
use crate::workload::Ticket;

const NONE: u32 = u32::MAX;

/// A request under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flight {
    /// What was asked.
    pub ticket: Ticket,
    /// When it was due.
    pub due: Nanos,
    /// When it was sent.
    pub sent: Nanos,
}

/// All of them.
#[derive(Debug)]
pub struct Flights {
    places: Vec<Place>,
    /// The first of the free places, which form a list by `after`.
    free: u32,
    oldest: u32,
    newest: u32,
    count: u32,
}

#[derive(Debug)]
struct Place {
    flight: Option<Flight>,
    before: u32,
    after: u32,
}

impl Flights {
    pub fn new() -> Flights {
        Flights { places: Vec::new(), free: NONE, oldest: NONE, newest: NONE, count: 0 }
    }

    /// Remembers a request; its tag is free again once it is removed.
    pub fn insert(&mut self, flight: Flight) -> Tag {
        let place = Place { flight: Some(flight), before: self.newest, after: NONE };
        let at = match self.places.get_mut(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.after);
                *free = place;
                at
            }
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u32
            }
        };
        match self.places.get_mut(self.newest as usize) {
            Some(newest) => newest.after = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.count += 1;
        Tag(at)
    }

    /// Forgets a request that has ended; `None` if there is none of this tag.
    pub fn remove(&mut self, tag: Tag) -> Option<Flight> {
        let place = self.places.get_mut(tag.0 as usize)?;
        let flight = place.flight.take()?;
        let (before, after) = (place.before, place.after);
        place.after = std::mem::replace(&mut self.free, tag.0);
        match self.places.get_mut(before as usize) {
            Some(place) => place.after = after,
            None => self.oldest = after,
        }
        match self.places.get_mut(after as usize) {
            Some(place) => place.before = before,
            None => self.newest = before,
        }
        self.count -= 1;
        Some(flight)
    }

    /// The one that was sent first.
    pub fn oldest(&self) -> Option<(Tag, Flight)> {
        let place = self.places.get(self.oldest as usize)?;
        place.flight.map(|flight| (Tag(self.oldest), flight))
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::tally::{Carrier, Kind};

    fn flight(number: u64) -> Flight {
        let ticket = Ticket { kind: Kind::Check, carrier: Carrier::Ecs, slot: 0 };
        Flight { ticket, due: Nanos(number), sent: Nanos(number) }
    }

    proptest! {
        /// Beside a queue: `None` sends, `Some(n)` ends the n-th of those under way.
        #[test]
        fn any_may_end_and_the_oldest_is_known(steps: Vec<Option<usize>>) {
            let mut flights = Flights::new();
            let mut model: VecDeque<(Tag, u64)> = VecDeque::new();
            let mut most = 0;
            for (number, step) in (0_u64..).zip(steps) {
                match step {
                    Some(any) if !model.is_empty() => {
                        let (tag, number) = model.remove(any % model.len()).unwrap();
                        prop_assert_eq!(flights.remove(tag), Some(flight(number)));
                        prop_assert_eq!(flights.remove(tag), None);
                    }
                    _ => model.push_back((flights.insert(flight(number)), number)),
                }
                most = most.max(model.len());
                let oldest = model.front().map(|(tag, number)| (*tag, flight(*number)));
                prop_assert_eq!(flights.oldest(), oldest);
                prop_assert_eq!(flights.count() as usize, model.len());
            }
            prop_assert!(flights.places.len() <= most);
        }
    }
}
