//! Who was granted something at a stop a moment ago.

use std::collections::BTreeMap;

use crate::queue::segment::Entry;
use crate::trip::{Trip, TripEvent, TripMode};
use crate::verdict::Verdict;

/// Grants, and tickets, that are remembered; the oldest is forgotten for a newer one. Each was made
/// durable before it was answered, so that no device makes as many in an interval.
pub const GRANTS_MAX: usize = 65_536;
const COMPANION_MARGIN_MS: i64 = 1_000;

/// The grants of the last interval.
#[derive(Clone, Debug, Default)]
pub struct Passback {
    grants: BTreeMap<Place, Grant>,
    /// Tickets, and when they were used.
    tickets: BTreeMap<String, i64>,
}

/// One card at one stop.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    id_hash: [u8; 16],
    ticket_office: bool,
    stop: String,
}

/// The holder's grant, and whether it still carries a companion.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Grant {
    trip: Trip,
    companion_left: bool,
}

/// What a grant of a moment ago means for a tap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seat {
    /// The companion of a holder may travel, whom the server or the device has granted.
    Companion(TripMode),
    /// The holder may travel.
    Holder,
    /// Nobody more may travel.
    Taken,
}

impl Passback {
    /// Takes note of a recorded trip; what it replaced is given back for [`Passback::undo`].
    pub fn note(&mut self, entry: &Entry) -> Option<Noted> {
        let trip = &entry.trip;
        if trip.verdict != Verdict::Grant || trip.event == TripEvent::Check {
            return None;
        }
        let place = place_of(trip.id_hash.into_array(), trip.event, &trip.from_stop);
        let before = self.grants.get(&place).cloned();
        if trip.companion {
            if let Some(grant) = self.grants.get_mut(&place) {
                grant.companion_left = false;
            }
        } else {
            let grant = Grant { trip: trip.clone(), companion_left: entry.with_companion };
            self.grants.insert(place.clone(), grant);
        }
        if self.grants.len() > GRANTS_MAX {
            let oldest = self.grants.iter().min_by_key(|(_, grant)| grant.trip.server_ms());
            let oldest = oldest.map(|(place, _)| place.clone());
            oldest.and_then(|place| self.grants.remove(&place));
        }
        let fresh = trip.event == TripEvent::Boarding && !trip.ticket.is_empty();
        if fresh {
            self.tickets.insert(trip.ticket.clone(), trip.server_ms());
        }
        if self.tickets.len() > GRANTS_MAX {
            let oldest = self.tickets.iter().min_by_key(|(_, at_ms)| **at_ms);
            let oldest = oldest.map(|(ticket, _)| ticket.clone());
            oldest.and_then(|ticket| self.tickets.remove(&ticket));
        }
        Some(Noted { place, before, ticket: fresh.then(|| trip.ticket.clone()) })
    }

    /// Takes a note back; the last one first.
    pub fn undo(&mut self, noted: Noted) {
        match noted.before {
            Some(grant) => self.grants.insert(noted.place, grant),
            None => self.grants.remove(&noted.place),
        };
        noted.ticket.and_then(|ticket| self.tickets.remove(&ticket));
    }

    /// Forgets grants that no interval reaches any more.
    pub fn forget_before(&mut self, server_ms: i64) {
        self.grants.retain(|_, grant| grant.trip.server_ms() >= server_ms);
        self.tickets.retain(|_, at_ms| *at_ms >= server_ms);
    }

    /// Whether somebody boarded with this ticket.
    pub fn is_used(&self, ticket: &str) -> bool {
        self.tickets.contains_key(ticket)
    }

    /// Whose place is left at a stop within `interval_ms` of its last holder.
    pub fn seat(&self, tap: &TapPlace<'_>, interval_ms: i64) -> Seat {
        let place = place_of(tap.id_hash, tap.event, tap.stop);
        let Some(grant) = self.grants.get(&place) else { return Seat::Holder };
        let after_ms = tap.server_ms.saturating_sub(grant.trip.server_ms());
        if after_ms.unsigned_abs() >= interval_ms.unsigned_abs() {
            return Seat::Holder;
        }
        // Who follows in the last second may be one interval behind by the server's clock.
        let follows = (0..=interval_ms - COMPANION_MARGIN_MS).contains(&after_ms);
        match grant.companion_left && follows {
            true => Seat::Companion(grant.trip.mode),
            false => Seat::Taken,
        }
    }
}

/// Where and when a card is tapped.
#[derive(Clone, Copy, Debug)]
pub struct TapPlace<'a> {
    /// The digest of the card.
    pub id_hash: [u8; 16],
    /// What is asked for.
    pub event: TripEvent,
    /// The stop.
    pub stop: &'a str,
    /// When, by the server's clock.
    pub server_ms: i64,
}

/// A note that can be taken back.
#[derive(Debug)]
pub struct Noted {
    place: Place,
    before: Option<Grant>,
    ticket: Option<String>,
}

fn place_of(id_hash: [u8; 16], event: TripEvent, stop: &str) -> Place {
    Place { id_hash, ticket_office: event == TripEvent::TicketIssued, stop: stop.to_owned() }
}
