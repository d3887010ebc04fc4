//! One use of a right, as a device recorded it, and what became of it.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::calendar::Timestamp;
use crate::identifier::Digest;
use crate::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId};
use crate::limits::{TRIP_TARIFF_KOPECKS_MAX, TRIP_TEXT_BYTES_MAX};

/// A terminal's own count of its trips, from 1, never reused.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TripSeq(pub u64);

/// What a trip is called: no two trips of a terminal have the same number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TripName {
    /// Where it was recorded.
    pub terminal: TerminalId,
    /// Its number there.
    pub seq: TripSeq,
}

/// A UUID by which the sender names a trip besides.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TripKey(pub [u8; 16]);

/// The version of a holder registry; 0 for none.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RegistryVersion(pub u64);

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the stored numbers: new ones only at the end.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// The stored number.
            pub fn number(self) -> u8 {
                self as u8
            }

            /// The value with this stored number.
            pub fn from_number(number: u8) -> Option<$name> {
                $name::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

numbered! {
    /// What happened at the device.
    TripEvent {
        /// The holder boarded.
        Boarding,
        /// The right was looked at, nothing was used.
        Check,
        /// A ticket was sold or given.
        TicketIssued,
    }
}

numbered! {
    /// Who decided.
    TripMode {
        /// The device alone.
        Offline,
        /// The server.
        Online,
    }
}

numbered! {
    /// What the device decided.
    TripVerdict {
        /// The right holds.
        Grant,
        /// Refused: the card was blocked.
        DenyBlocked,
        /// Refused: no right to this service.
        DenyNoRight,
        /// Refused: two taps too soon after each other.
        DenyRepeat,
        /// Refused: no registry that was valid.
        DenyStale,
        /// Refused: nobody entitled has this card.
        DenyUnknown,
    }
}

numbered! {
    /// Why a trip is not simply accepted.
    TripReason {
        /// The benefit is not tariff times discount, or not the one of the right.
        Amount,
        /// The card was blocked before, and the device's registry was older than a day.
        Blocked,
        /// More than five minutes ahead of the engine's clock.
        Future,
        /// More than 45 days old: a person must look.
        LateReview,
        /// Past the usage limit of the service.
        Limit,
        /// A text is too long, a number is out of range.
        Malformed,
        /// Nobody with this identifier was entitled in that registry.
        NoRight,
        /// The registry version is unknown or was not valid at the tap.
        Registry,
        /// The same card at the same stop within the interval, or the same ticket once more.
        Repeat,
        /// The terminal is not one of the sender's.
        Terminal,
    }
}

/// What became of a trip when it came.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Standing {
    /// Recorded, and reimbursable where something was granted.
    Accepted,
    /// Recorded; a person must decide on reimbursement.
    Disputed(TripReason),
    /// Recorded as refused.
    Rejected(TripReason),
}

/// How a trip stands now.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum TripState {
    /// Reimbursable where something was granted, at once or by a ruling.
    Accepted,
    /// Nobody has decided on it yet.
    Disputed,
    /// Refused, at once or by a ruling.
    Rejected,
}

/// What is answered for one trip of an upload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TripOutcome {
    /// Recorded now, and how it stands.
    Recorded(Standing),
    /// The same trip was recorded before; with how it stood then, where that is still known.
    Duplicate(Option<Standing>),
    /// Another trip has this name; nothing was recorded.
    Conflict,
    /// It has no name of the sender's under which it could be recorded.
    Refused(TripReason),
    /// It cannot be recorded now.
    Unavailable,
}

/// The words of a trip.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TripTexts {
    /// The route.
    pub route: String,
    /// The vehicle.
    pub vehicle: String,
    /// Where it began.
    pub from_stop: String,
    /// Where it ends.
    pub to_stop: String,
    /// The number of the ticket.
    pub ticket: String,
}

impl TripTexts {
    /// All of them, in the stored order.
    pub fn all(&self) -> [&str; 5] {
        [&self.route, &self.vehicle, &self.from_stop, &self.to_stop, &self.ticket]
    }

    /// Cuts what is too long, at a character.
    fn clip(&mut self) {
        let texts = [
            &mut self.route,
            &mut self.vehicle,
            &mut self.from_stop,
            &mut self.to_stop,
            &mut self.ticket,
        ];
        for text in texts {
            let end = (0..=TRIP_TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
        }
    }
}

/// One use of a right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trip {
    /// What it is called.
    pub name: TripName,
    /// What the sender calls it besides.
    pub key: Option<TripKey>,
    /// The carrier.
    pub organization: OrganizationId,
    /// What happened.
    pub event: TripEvent,
    /// Who decided.
    pub mode: TripMode,
    /// When, by the device's clock.
    pub device_at: Timestamp,
    /// The device's clock minus the server's, as last measured.
    pub clock_offset_ms: i64,
    /// For which service.
    pub service: ServiceId,
    /// Route, vehicle, stops, ticket.
    pub texts: TripTexts,
    /// Whose card.
    pub identifier: Digest,
    /// The holder registry that the device had.
    pub registry: RegistryVersion,
    /// What was decided.
    pub verdict: TripVerdict,
    /// By which category.
    pub category: Option<CategoryId>,
    /// Whether the companion of the holder travelled.
    pub companion: bool,
    /// The full price.
    pub tariff: Kopecks,
    /// Size of the benefit, percent.
    pub discount_percent: u8,
    /// What the carrier did not get from the holder, where it says so.
    pub benefit: Kopecks,
    /// The transaction, where the server decided.
    pub transaction: Option<TransactionId>,
}

impl Trip {
    /// When it happened, by the server's clock.
    pub fn at(&self) -> Timestamp {
        Timestamp(self.device_at.0.saturating_sub(self.clock_offset_ms.saturating_mul(1_000)))
    }

    /// Whether something was used that a carrier can be paid for.
    pub fn is_use(&self) -> bool {
        self.verdict == TripVerdict::Grant && self.event != TripEvent::Check
    }

    /// Whether a ticket was shown that needs no card: a device has no digest to report then.
    pub fn is_by_ticket(&self) -> bool {
        self.identifier == Digest([0; 16]) && !self.texts.ticket.is_empty()
    }

    /// What the carrier is owed: tariff times discount to the kopeck, half a kopeck up; the carrier's
    /// own rounding where that was told. Where a person accepted a benefit that is wrong, never more
    /// than either.
    pub fn reimbursement(&self) -> Kopecks {
        if self.benefit.0 > 0 && self.benefit_is_right() {
            return self.benefit;
        }
        let hundredths = u128::from(self.tariff.0) * u128::from(self.discount_percent);
        let product = u64::try_from((hundredths + 50) / 100).unwrap_or(u64::MAX);
        Kopecks(if self.benefit.0 > 0 { product.min(self.benefit.0) } else { product })
    }

    /// Whether the stated benefit is less than a kopeck away from tariff times discount.
    pub fn benefit_is_right(&self) -> bool {
        let hundredths = u128::from(self.tariff.0) * u128::from(self.discount_percent);
        self.benefit.0 == 0 || (u128::from(self.benefit.0) * 100).abs_diff(hundredths) < 100
    }

    /// Whether every text and number is one that a device can mean.
    pub fn is_well_formed(&self) -> bool {
        self.texts.all().iter().all(|text| text.len() <= TRIP_TEXT_BYTES_MAX)
            && self.discount_percent <= 100
            && self.tariff.0 <= TRIP_TARIFF_KOPECKS_MAX
            && self.benefit.0 <= self.tariff.0
    }

    /// The transaction in which the server granted it: of a ticket that needs no card, its number.
    pub fn granted_by(&self) -> Option<TransactionId> {
        if !self.is_by_ticket() {
            return self.transaction;
        }
        self.ticket_number()
    }

    /// The transaction that a sale with the server does not name, though it names the ticket that came
    /// of it. A sale that names neither cannot be told from another use, and is judged like one.
    pub fn sold_by(&self) -> Option<TransactionId> {
        let is_sale = self.event == TripEvent::TicketIssued && self.mode == TripMode::Online;
        self.ticket_number().filter(|_| is_sale && self.transaction.is_none())
    }

    /// The transactions under which it may have been paid for.
    pub fn transactions(&self) -> impl Iterator<Item = TransactionId> {
        self.granted_by().into_iter().chain(self.sold_by())
    }

    /// The number of a signed ticket; other tickets may have numbers too.
    fn ticket_number(&self) -> Option<TransactionId> {
        self.texts.ticket.parse().ok().filter(|number| *number > 0).map(TransactionId)
    }

    /// Cuts what is out of range, so that a malformed trip can be kept as such.
    pub fn clip(&mut self) {
        self.texts.clip();
        self.discount_percent = self.discount_percent.min(100);
        self.tariff.0 = self.tariff.0.min(TRIP_TARIFF_KOPECKS_MAX);
        self.benefit.0 = self.benefit.0.min(self.tariff.0);
    }

    /// Tells a repeat from another trip of the same name. The offset of the clock may have been
    /// measured anew between two uploads and is left out.
    pub fn content(&self) -> u64 {
        let mut hasher = SipHasher24::new();
        let numbers = [
            self.name.terminal.0,
            self.name.seq.0,
            u64::from(self.organization.0),
            self.device_at.0.cast_unsigned(),
            u64::from(self.service.0),
            self.registry.0,
            u64::from(self.category.map_or(0, |category| category.0)),
            self.tariff.0,
            u64::from(self.discount_percent),
            self.benefit.0,
            self.transaction.map_or(0, |transaction| transaction.0),
        ];
        numbers.iter().for_each(|number| hasher.write_u64(*number));
        hasher.write(&self.identifier.0);
        let kinds = [
            self.event.number(),
            self.mode.number(),
            self.verdict.number(),
            u8::from(self.companion),
            u8::from(self.key.is_some()),
        ];
        hasher.write(&kinds);
        hasher.write(&self.key.map_or([0; 16], |key| key.0));
        for text in self.texts.all() {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }
}

/// A trip in the book of trips.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordedTrip {
    /// The trip.
    pub trip: Trip,
    /// How it stood when it came.
    pub standing: Standing,
    /// When it came.
    pub received_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trip(tariff: u64, discount_percent: u8, benefit: u64) -> Trip {
        Trip {
            name: TripName { terminal: TerminalId(1), seq: TripSeq(1) },
            key: None,
            organization: OrganizationId(1),
            event: TripEvent::Boarding,
            mode: TripMode::Offline,
            device_at: Timestamp(1_000_000),
            clock_offset_ms: 0,
            service: ServiceId(1),
            texts: TripTexts::default(),
            identifier: Digest([7; 16]),
            registry: RegistryVersion(7),
            verdict: TripVerdict::Grant,
            category: None,
            companion: false,
            tariff: Kopecks(tariff),
            discount_percent,
            benefit: Kopecks(benefit),
            transaction: None,
        }
    }

    #[test]
    fn reimbursement_is_exact_to_the_kopeck() {
        let check = |tariff, percent, benefit, expected: Option<u64>| {
            let trip = trip(tariff, percent, benefit);
            let right = trip.benefit_is_right().then_some(trip.reimbursement().0);
            assert_eq!(right, expected, "{tariff} {percent} {benefit}");
        };
        check(25_000, 100, 0, Some(25_000));
        check(9_000, 50, 0, Some(4_500));
        check(9_001, 50, 0, Some(4_501));
        check(9_001, 50, 4_500, Some(4_500));
        check(9_001, 50, 4_502, None);
        check(9_000, 50, 4_501, None);
        check(9_000, 100, 4_500, None);
        // Accepted by a ruling all the same.
        assert_eq!(trip(9_000, 100, 4_500).reimbursement(), Kopecks(4_500));
        assert_eq!(trip(9_000, 50, 9_000).reimbursement(), Kopecks(4_500));
    }

    #[test]
    fn an_offset_is_no_part_of_the_content() {
        let first = trip(100, 50, 0);
        let mut again = first.clone();
        again.clock_offset_ms = 500;
        assert_eq!(again.content(), first.content());
        assert_eq!(again.at(), Timestamp(500_000));
        again.texts.route = "7".to_owned();
        assert_ne!(again.content(), first.content());
        let mut moved = first.clone();
        moved.texts.vehicle = "7".to_owned();
        assert_ne!(again.content(), moved.content());
    }

    #[test]
    fn clipped_trips_are_well_formed() {
        let mut wild = trip(u64::MAX, 255, u64::MAX);
        wild.texts.from_stop = "ы".repeat(40);
        assert!(!wild.is_well_formed());
        wild.clip();
        assert!(wild.is_well_formed());
        assert!(wild.texts.from_stop.chars().all(|letter| letter == 'ы'));
    }

    #[test]
    fn numbers_come_back() {
        for reason in TripReason::ALL {
            assert_eq!(TripReason::from_number(reason.number()), Some(*reason));
        }
        assert_eq!(TripEvent::from_number(3), None);
    }
}
