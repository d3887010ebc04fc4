//! What a device decides at a tap: online where the server answers in time, else alone.
//!
//! Deterministic: it knows neither disk nor link; [`Now`] is an argument. A grant that is returned
//! has not been given yet: its [`Outcome::entry`] must be durable in the
//! [`crate::queue::TripQueue`] first.
//!
//! # The order of the rules
//! Card readable, not blocked since the registry was built, not twice at one stop within the interval
//! ([`Rules::passback_seconds`]); then the server's answer; without one the holder registry, if it is
//! valid by the server's clock ([`Rules::grace_hours`] included). A companion, who must follow the holder
//! within the interval, is decided by the registry, and by the server only where there is none: a
//! transaction of its own would count against the holder's uses.
//!
//! # Tickets
//! A signed ticket that needs no card is a card of its own ([`Card::Qr`]). [`Device::board`] wants a
//! ticket and a right, and says which of them is missing. A ticket that was used at this device within
//! [`crate::queue::RETAINED_MS`] is refused here, at any other device by the server.
//!
//! # Why
//! *Repeats are decided before the server is asked:* it would open a transaction for nothing.
//! Among devices the server judges repeats, from the trips.

use engine::calendar::Timestamp;
use engine::identifier::{CardKey, Digest, IdentifierError};
use engine::ids::{OrganizationId, ServiceId};
use serde::Deserialize;
use serde_bytes::ByteArray;

use crate::clock::{Now, ServerClock};
use crate::device::blocks::Blocks;
use crate::device::card::Card;
use crate::device::passback::{Passback, Seat, TapPlace};
use crate::link::message::{Check, CheckResult, Confirm, Rules, Signer};
use crate::queue::segment::Entry;
use crate::registry::ShortDigest;
use crate::ticket::{self, Ticket, TicketError, TicketUse};
use crate::trip::{TEXT_BYTES_MAX, Trip, TripEvent, TripMode};
use crate::verdict::Verdict;

pub mod blocks;
pub mod card;
pub mod passback;

/// The greatest price, kopecks: a million rubles.
pub const PRICE_MAX: u64 = 100_000_000;
/// How far a registry's beginning may be ahead of the server's clock as the device knows it.
const AHEAD_MS_MAX: i64 = 5 * 60_000;
const MS_PER_HOUR: i64 = 3_600_000;
/// In place of a card's digest where a ticket needs no card.
const NOBODY: Digest = Digest([0; 16]);

/// A holder registry that was verified.
pub trait HolderRegistry {
    /// Which one, and when it counts.
    fn life(&self) -> Life;

    /// Which right `digest` has to `service` on the local day of `at`.
    fn look_up(&self, digest: &Digest, service: ServiceId, at: Timestamp) -> Found;
}

/// Which registry, and when it counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Life {
    /// Whose.
    pub organization: u32,
    /// Its number.
    pub version: u64,
    /// When it was built, by the server's clock.
    pub built_at_ms: i64,
    /// Until when it counts.
    pub valid_until_ms: i64,
}

/// What a registry says of a card.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// The card is there, without a right to this now.
    NoRight,
    /// The right that wins.
    Right(Right),
    /// Nobody entitled has this card.
    Unknown,
    /// The file cannot be read.
    Unreadable,
}

/// A right in a registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Right {
    /// By which category.
    pub category: u32,
    /// Size of the benefit, percent.
    pub discount: u8,
    /// Whether a companion travels on it.
    pub companion: bool,
    /// Whether a device may grant it alone.
    pub offline: bool,
}

/// What is asked for at a tap.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Journey {
    /// What happens if it is granted.
    #[serde(default = "boarding")]
    pub event: TripEvent,
    /// For which service.
    pub service: u32,
    /// The full price, kopecks.
    #[serde(default)]
    pub price: u64,
    /// The route.
    #[serde(default)]
    pub route: String,
    /// The vehicle.
    #[serde(default)]
    pub vehicle: String,
    /// Where it begins; repeats are told by it.
    #[serde(default)]
    pub from_stop: String,
    /// Where it ends.
    #[serde(default)]
    pub to_stop: String,
    /// The number of the ticket.
    #[serde(default)]
    pub ticket: String,
}

fn boarding() -> TripEvent {
    TripEvent::Boarding
}

impl Journey {
    /// Whether all of it can be reported.
    pub fn is_reportable(&self) -> bool {
        let texts = [&self.route, &self.vehicle, &self.from_stop, &self.to_stop, &self.ticket];
        texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX) && self.price <= PRICE_MAX
    }
}

/// What a device knows; see the head of the module.
pub struct Device<R> {
    /// Keys the digests; none before the first link.
    pub card_key: Option<CardKey>,
    /// The carrier.
    pub organization: u32,
    /// Whose tickets to trust.
    pub signers: Vec<Signer>,
    /// What it must keep to.
    pub rules: Rules,
    /// The registry, if it has one.
    pub registry: Option<R>,
    /// Cards blocked meanwhile.
    pub blocks: Blocks,
    /// Grants of a moment ago.
    pub passback: Passback,
    /// The server's clock.
    pub clock: ServerClock,
}

impl<R: HolderRegistry> Device<R> {
    /// Begins a tap: decided at once, or to be asked of the server.
    pub fn begin(&self, card: &Card, journey: Journey, now: Now) -> Begun {
        if let Card::Qr(text) = card
            && text.starts_with(ticket::PREFIX)
        {
            return self.begin_ticket(text, journey, now);
        }
        match self.ask(card, journey, now) {
            Ok(asked) => self.begin_asked(asked),
            Err(outcome) => Begun::Decided(outcome),
        }
    }

    /// Begins with a signed ticket that needs no card; what is none is refused.
    pub fn begin_ticket(&self, text: &str, journey: Journey, now: Now) -> Begun {
        Begun::Decided(self.decide_by_ticket(text, journey, now))
    }

    /// Begins the control of a holder who must have a ticket and the right.
    pub fn board(
        &self,
        card: &Card,
        ticket: Option<&str>,
        (mut journey, now): (Journey, Now),
    ) -> Begun {
        let deny = |detail| Begun::Decided(Outcome::deny(Verdict::DenyNoRight, Some(detail)));
        let Some(text) = ticket else { return deny(Detail::NoTicket) };
        let ticket = match Ticket::read(text, &self.signers) {
            Ok(ticket) => ticket,
            Err(error) => return deny(Detail::Ticket(error)),
        };
        journey.ticket = ticket.number.to_string();
        let asked = match self.ask(card, journey, now) {
            Ok(asked) => asked,
            Err(outcome) => return Begun::Decided(outcome),
        };
        match ticket.admit(&self.ticket_use(&asked, Some(ShortDigest::of(&asked.digest)))) {
            Ok(()) => self.begin_asked(asked),
            Err(error) => deny(Detail::Ticket(error)),
        }
    }

    /// Decides by the server's answer; nothing where the server cannot tell.
    pub fn decide_online(&self, asked: &Asked, answer: &CheckResult) -> Option<Outcome> {
        let verdict = match answer.code {
            0 => Verdict::Grant,
            2 => Verdict::DenyUnknown,
            5 => Verdict::DenyBlocked,
            1 | 7 | 8 => Verdict::DenyNoRight,
            _ => return None,
        };
        if verdict != Verdict::Grant {
            return Some(Outcome { mode: TripMode::Online, ..Outcome::deny(verdict, None) });
        }
        let (tx, holder, category) = (answer.tx?, answer.holder?, answer.category?);
        let discount = answer.discount.filter(|discount| *discount <= 100)?;
        // Another reader may have granted the same card while the server was asked.
        if let Some(outcome) = self.decide_before(asked) {
            return Some(outcome);
        }
        let companion = self.seat(asked) != Seat::Holder;
        if companion && !answer.companion {
            return Some(Outcome::deny(Verdict::DenyRepeat, None));
        }
        let mut entry = self.entry(asked);
        let trip = &mut entry.trip;
        trip.mode = TripMode::Online;
        trip.companion = companion;
        trip.tx = Some(tx);
        trip.category = Some(category);
        set_discount(trip, discount);
        let discounted = trip.tariff.saturating_sub(trip.benefit);
        let (price, discounted) = match trip.tariff {
            0 => (None, None),
            price => (Some(price), Some(discounted)),
        };
        if trip.event != TripEvent::Check {
            entry.confirm = Some(Confirm { tx, holder, category, price, discounted });
        }
        entry.with_companion = answer.companion && !companion;
        Some(Outcome::grant(entry))
    }

    /// Decides alone.
    pub fn decide_offline(&self, asked: &Asked) -> Outcome {
        self.decide_before(asked).unwrap_or_else(|| self.decide_by_registry(asked, false))
    }

    fn begin_asked(&self, asked: Asked) -> Begun {
        match self.decide_before(&asked) {
            Some(outcome) => Begun::Decided(outcome),
            None => Begun::Ask(asked),
        }
    }

    fn ask(&self, card: &Card, journey: Journey, now: Now) -> Result<Asked, Outcome> {
        let Some(card_key) = &self.card_key else {
            return Err(Outcome::deny(Verdict::DenyStale, Some(Detail::NeverLinked)));
        };
        let digest = card
            .digest(card_key)
            .map_err(|error| Outcome::deny(Verdict::DenyUnknown, Some(Detail::Card(error))))?;
        Ok(self.asked(digest, journey, now))
    }

    fn asked(&self, digest: Digest, journey: Journey, now: Now) -> Asked {
        let clock_offset_ms = self.clock.offset_ms(now);
        Asked { digest, journey, at_ms: now.wall_ms, clock_offset_ms }
    }

    /// A ticket that needs no card: its signature is the right.
    fn decide_by_ticket(&self, text: &str, journey: Journey, now: Now) -> Outcome {
        let deny = |error| Outcome::deny(Verdict::DenyNoRight, Some(Detail::Ticket(error)));
        let ticket = match Ticket::read(text, &self.signers) {
            Ok(ticket) => ticket,
            Err(error) => return deny(error),
        };
        let journey = Journey { ticket: ticket.number.to_string(), ..journey };
        let asked = self.asked(NOBODY, journey, now);
        if let Err(error) = ticket.admit(&self.ticket_use(&asked, None)) {
            return deny(error);
        }
        if let Some(outcome) = self.decide_before(&asked) {
            return outcome;
        }
        let mut entry = self.entry(&asked);
        entry.trip.category = Some(ticket.category.0);
        set_discount(&mut entry.trip, ticket.discount_percent.min(100));
        Outcome::grant(entry)
    }

    fn ticket_use(&self, asked: &Asked, card: Option<ShortDigest>) -> TicketUse {
        TicketUse {
            organization: OrganizationId(self.organization),
            service: ServiceId(asked.journey.service),
            now: Timestamp(asked.server_ms().saturating_mul(1_000)),
            card,
        }
    }

    /// What is decided whatever the server or the registry may say.
    fn decide_before(&self, asked: &Asked) -> Option<Outcome> {
        if self.blocks.is_blocked(&asked.digest) {
            return Some(Outcome::deny(Verdict::DenyBlocked, None));
        }
        if asked.journey.event == TripEvent::Check {
            return None;
        }
        if self.passback.is_used(&asked.journey.ticket) {
            return Some(Outcome::deny(Verdict::DenyRepeat, None));
        }
        match self.seat(asked) {
            Seat::Holder => None,
            Seat::Taken => Some(Outcome::deny(Verdict::DenyRepeat, None)),
            Seat::Companion(mode) => {
                let alone = self.decide_by_registry(asked, true);
                let ask = alone.verdict == Verdict::DenyStale && mode == TripMode::Online;
                (!ask).then_some(alone)
            }
        }
    }

    /// Whose place is left where the card was tapped.
    fn seat(&self, asked: &Asked) -> Seat {
        if asked.digest == NOBODY || asked.journey.event == TripEvent::Check {
            return Seat::Holder;
        }
        let place = TapPlace {
            id_hash: asked.digest.0,
            event: asked.journey.event,
            stop: &asked.journey.from_stop,
            server_ms: asked.server_ms(),
        };
        let interval_ms = i64::from(self.rules.passback_seconds) * 1_000;
        self.passback.seat(&place, interval_ms)
    }

    fn decide_by_registry(&self, asked: &Asked, companion: bool) -> Outcome {
        let server_ms = asked.server_ms();
        let Some(registry) = self.registry.as_ref().filter(|r| self.is_valid(r.life(), server_ms))
        else {
            return Outcome::deny(Verdict::DenyStale, None);
        };
        if self.blocks.are_missed() {
            return Outcome::deny(Verdict::DenyStale, Some(Detail::BlocksMissed));
        }
        let at = Timestamp(server_ms.saturating_mul(1_000));
        let right = match registry.look_up(&asked.digest, ServiceId(asked.journey.service), at) {
            Found::Right(right) if right.offline => right,
            Found::Right(_) => {
                return Outcome::deny(Verdict::DenyNoRight, Some(Detail::OnlineOnly));
            }
            Found::NoRight => return Outcome::deny(Verdict::DenyNoRight, None),
            Found::Unknown => return Outcome::deny(Verdict::DenyUnknown, None),
            Found::Unreadable => {
                return Outcome::deny(Verdict::DenyStale, Some(Detail::Unreadable));
            }
        };
        if companion && !right.companion {
            return Outcome::deny(Verdict::DenyRepeat, None);
        }
        let mut entry = self.entry(asked);
        entry.trip.category = Some(right.category);
        entry.trip.companion = companion;
        entry.with_companion = right.companion && !companion;
        set_discount(&mut entry.trip, right.discount);
        Outcome::grant(entry)
    }

    /// Whether a registry counts at a moment of the server's clock.
    pub fn is_valid(&self, life: Life, server_ms: i64) -> bool {
        let grace_ms = i64::from(self.rules.grace_hours) * MS_PER_HOUR;
        server_ms >= life.built_at_ms.saturating_sub(AHEAD_MS_MAX)
            && server_ms <= life.valid_until_ms.saturating_add(grace_ms)
    }

    /// The trip of a grant, but for who granted what.
    fn entry(&self, asked: &Asked) -> Entry {
        let journey = &asked.journey;
        let trip = Trip {
            seq: 0,
            terminal: None,
            trip_id: None,
            event: journey.event,
            mode: TripMode::Offline,
            at_ms: asked.at_ms,
            clock_offset_ms: asked.clock_offset_ms,
            service: journey.service,
            route: journey.route.clone(),
            vehicle: journey.vehicle.clone(),
            from_stop: journey.from_stop.clone(),
            to_stop: journey.to_stop.clone(),
            id_hash: ByteArray::new(asked.digest.0),
            registry_version: self.registry.as_ref().map_or(0, |r| r.life().version),
            verdict: Verdict::Grant,
            category: None,
            companion: false,
            tariff: journey.price,
            discount: 0,
            benefit: 0,
            ticket: journey.ticket.clone(),
            tx: None,
        };
        Entry { trip, confirm: None, with_companion: false, renumbered: 0, refusal: None }
    }
}

/// A tap that was begun.
#[derive(Clone, Debug)]
pub enum Begun {
    /// The server must be asked.
    Ask(Asked),
    /// Decided without it.
    Decided(Outcome),
}

/// A tap that waits for the server's answer.
#[derive(Clone, Debug)]
pub struct Asked {
    digest: Digest,
    journey: Journey,
    at_ms: i64,
    clock_offset_ms: i64,
}

impl Asked {
    /// What to ask.
    pub fn check(&self) -> Check {
        Check {
            service: self.journey.service,
            id_hash: ByteArray::new(self.digest.0),
            price: (self.journey.price > 0).then_some(self.journey.price),
        }
    }

    /// When the card was tapped, by the server's clock.
    fn server_ms(&self) -> i64 {
        self.at_ms.saturating_sub(self.clock_offset_ms)
    }
}

/// What was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Grant, or why not.
    pub verdict: Verdict,
    /// Who decided.
    pub mode: TripMode,
    /// More of the reason.
    pub detail: Option<Detail>,
    /// What must be durable before a grant is given.
    pub entry: Option<Box<Entry>>,
}

impl Outcome {
    fn grant(entry: Entry) -> Outcome {
        let mode = entry.trip.mode;
        Outcome { verdict: Verdict::Grant, mode, detail: None, entry: Some(Box::new(entry)) }
    }

    fn deny(verdict: Verdict, detail: Option<Detail>) -> Outcome {
        Outcome { verdict, mode: TripMode::Offline, detail, entry: None }
    }
}

/// More of the reason of a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// More cards were blocked since the registry was built than the device can know.
    BlocksMissed,
    /// The reader's text is no identifier.
    Card(IdentifierError),
    /// There must be a ticket besides.
    NoTicket,
    /// The device has never had a link and does not know the key of the digests.
    NeverLinked,
    /// The right is there, but only the server may grant it.
    OnlineOnly,
    /// The ticket is not good.
    Ticket(TicketError),
    /// The registry's file cannot be read.
    Unreadable,
}

fn set_discount(trip: &mut Trip, discount: u8) {
    trip.discount = discount;
    let hundredths = u128::from(trip.tariff) * u128::from(discount);
    trip.benefit = u64::try_from((hundredths + 50) / 100).unwrap_or(trip.tariff).min(trip.tariff);
}

#[cfg(test)]
mod tests;
