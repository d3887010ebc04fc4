//! What must hold, of every grant at once and of everything at the end.

use std::collections::BTreeSet;

use engine::ids::{OrganizationId, TerminalId};
use engine::trips::claim::{ClaimOrder, Period};
use engine::trips::trip::{Standing, TripMode, TripName, TripReason, TripSeq};
use gateway::trips::trip_of;
use validator::agent::event::TapId;
use validator::device::Outcome;
use validator::registry::rights::Entitlement;
use validator::trip as wire;
use validator::verdict::Verdict;

use crate::simulation::book::{Book, Fate};
use crate::simulation::devices::story::{Story, Tap, day_of};
use crate::simulation::town::Identifier;

/// What a device may be wrong about the server's clock once it has heard it.
const CLOCK_ERROR_MS: i64 = 5_000;

impl Story {
    /// A device grants what the server granted it, or what a registry says that is valid.
    pub(crate) fn audit_grant(&self, tap: TapId, outcome: &Outcome) {
        let trip = &outcome.entry.as_ref().unwrap().trip;
        let known = &self.taps[&tap.0];
        let server_ms = trip.at_ms - trip.clock_offset_ms;
        if known.heard_clock {
            let error_ms = self.now_ms.abs_diff(server_ms);
            assert!(error_ms < CLOCK_ERROR_MS as u64, "the clock is {error_ms} ms wrong");
        }
        if trip.mode == wire::TripMode::Online {
            let tx = trip.tx.unwrap();
            assert!(self.server.opened.contains_key(&tx), "nobody granted {tx}");
            return;
        }
        let organization = self.organization(known);
        let file = self.server.registries.file(organization, trip.registry_version).unwrap();
        let header = file.header();
        assert!(header.built_at_ms - 300_000 <= server_ms && server_ms <= header.valid_until_ms);
        let digest = Identifier::Code(known.code).digest();
        assert_eq!(trip.id_hash.into_array(), digest.0);
        let at = engine::calendar::Timestamp(server_ms * 1_000);
        let service = engine::ids::ServiceId(trip.service);
        match file.right(&digest, service, header.day(at)).unwrap() {
            Entitlement::Right(right) => {
                assert!(right.offline, "only the server may grant this");
                assert_eq!(trip.category, Some(right.category.0));
                assert_eq!(trip.discount, right.discount_percent);
            }
            other => panic!("granted alone where the registry says {other:?}"),
        }
    }

    /// What was acknowledged is recorded, and claims hold what they say.
    pub(crate) fn audit_book(&self) {
        let book = self.server.node.clerk().book().read().unwrap();
        if self.server.node.clerk().is_unresolved() {
            return;
        }
        for (name, standing) in &self.server.standings {
            let slot = book.slot(*name).unwrap_or_else(|| panic!("{name:?} is lost"));
            assert_eq!(slot.standing, *standing);
        }
        let mut claimed = BTreeSet::new();
        for claim in book.claims() {
            let sum: u64 = claim.lines.iter().map(|line| line.amount.0).sum();
            assert_eq!(claim.totals.total.0, sum);
            assert_eq!(claim.totals.line_count, claim.lines.len() as u64);
            for line in &claim.lines {
                assert!(claimed.insert(line.name), "{:?} is claimed twice", line.name);
                let slot = book.slot(line.name).unwrap();
                assert_eq!(slot.standing, Standing::Accepted);
                assert_eq!(slot.recorded().unwrap().trip.reimbursement(), line.amount);
            }
        }
    }

    /// Once everything has come to rest.
    pub(crate) fn audit(&mut self) {
        for unit in &self.units {
            assert!(unit.agent.is_linked(), "{} has no link", unit.terminal);
            assert_eq!(unit.agent.trips_waiting(), 0, "{} keeps trips back", unit.terminal);
        }
        self.audit_trips();
        self.audit_claims();
        self.audit_transactions();
        self.audit_registries();
        self.audit_refusals();
        self.server.crash();
        self.audit_book();
    }

    /// Every granted tap is one recorded trip; whatever else is recorded was decided but not answered.
    fn audit_trips(&self) {
        let book = self.server.node.clerk().book().read().unwrap();
        let mut recorded = BTreeSet::new();
        for slot in book.slots() {
            let trip = slot.recorded().unwrap().trip;
            assert!(recorded.insert(trip.tariff.0), "tap {} is there twice", trip.tariff.0);
            let tap = &self.taps[&trip.tariff.0];
            let denied = tap.outcome.as_ref().is_some_and(|known| known.verdict != Verdict::Grant);
            assert!(!denied, "tap {} was refused and is recorded", trip.tariff.0);
            self.audit_standing(tap, (&trip, slot.standing));
        }
        for (price, tap) in &self.taps {
            let Some(entry) = tap.outcome.as_ref().and_then(|known| known.entry.as_ref()) else {
                continue;
            };
            assert!(recorded.contains(price), "tap {price} was granted and is lost");
            let terminal = TerminalId(self.units[tap.unit].terminal);
            let name = TripName { terminal, seq: TripSeq(entry.trip.seq) };
            let slot = book.slot(name).unwrap();
            let expected =
                trip_of(entry.trip.clone(), self.organization(tap), Some(terminal)).content();
            assert_eq!(slot.content, expected, "{name:?} is another trip");
        }
    }

    /// What a device granted by the rules is held against nobody.
    fn audit_standing(&self, tap: &Tap, (trip, standing): (&engine::trips::trip::Trip, Standing)) {
        let reason = match standing {
            Standing::Accepted | Standing::Disputed(TripReason::Blocked) => return,
            Standing::Disputed(reason) | Standing::Rejected(reason) => reason,
        };
        // A transaction that died with the server is judged by what the device had.
        let is_lost = trip.mode == TripMode::Online
            && trip.transaction.is_some_and(|id| !self.server.confirmed.contains(&id.0));
        let excused = is_lost || (reason == TripReason::Future && !tap.heard_clock);
        assert!(excused, "tap {} stands as {standing:?}: {trip:?}", trip.tariff.0);
    }

    /// Everything that is owed is claimed once.
    fn audit_claims(&mut self) {
        for organization in (1..=3).map(OrganizationId) {
            let today = day_of(self.now_ms);
            let (first, last) = (i32::MIN + 1, today + 4_000);
            let (first, last) = (engine::calendar::Day(first), engine::calendar::Day(last));
            let order = ClaimOrder::Draft(organization, Period { first, last });
            self.server.order(order).unwrap();
        }
        self.audit_book();
        let book = self.server.node.clerk().book().read().unwrap();
        for slot in book.slots().filter(|slot| slot.counts()) {
            let amount = slot.recorded().unwrap().trip.reimbursement();
            assert!(slot.claim().is_some() || amount.0 == 0, "{:?} is forgotten", slot.name);
        }
    }

    /// What was granted online is confirmed, once, as far as the server has it.
    fn audit_transactions(&self) {
        let ttl = self.server.settings.checked_ttl_seconds;
        let log = Book::of_log(&self.server.disk.journal.events(), ttl);
        let fate = |tx: &u64| log.lines.get(&engine::ids::TransactionId(*tx)).map(|line| line.fate);
        for tx in &self.server.confirmed {
            assert!(matches!(fate(tx), Some(Fate::Confirmed(_))), "the confirm of {tx} is lost");
        }
        for tx in &self.server.cancelled {
            assert_eq!(fate(tx), Some(Fate::Cancelled), "the cancel of {tx} is lost");
        }
        for (price, tap) in &self.taps {
            let entry = tap.outcome.as_ref().and_then(|known| known.entry.as_ref());
            let Some(confirm) = entry.and_then(|entry| entry.confirm.as_ref()) else { continue };
            let cancelled = self.server.cancelled.contains(&confirm.tx);
            assert!(!cancelled, "tap {price} was granted and cancelled");
        }
    }

    /// Every device has the newest registry.
    fn audit_registries(&self) {
        for unit in &self.units {
            let organization = OrganizationId(u32::try_from(unit.terminal / 10).unwrap());
            let newest = self.server.registries.newest(organization);
            let has = unit.agent.registry(unit.now(self.now_ms));
            assert_eq!(has.map(|(life, _)| life.version), newest, "{}", unit.terminal);
        }
    }

    /// No device refuses a card as blocked that is not, or grants one that is.
    fn audit_refusals(&mut self) {
        let codes = 0..crate::simulation::town::IDENTIFIER_COUNT;
        let mut taps = Vec::new();
        for offline in [false, true] {
            for unit in 0..self.units.len() {
                if offline {
                    self.happen(unit, validator::agent::event::Event::Disconnected);
                    self.units[unit].is_open = false;
                }
                for code in codes.clone() {
                    let stop = format!("last {offline}");
                    taps.push(self.tap(unit, code, (wire::TripEvent::Boarding, stop)));
                }
            }
            self.pass(1_000);
        }
        let blocks = self.server.node.registrar().blocks();
        for price in taps {
            let tap = &self.taps[&price];
            let blocked = blocks.is_blocked_now(&Identifier::Code(tap.code).digest());
            let Outcome { verdict, mode, .. } = tap.outcome.as_ref().unwrap();
            let (verdict, alone) = (*verdict, *mode == wire::TripMode::Offline);
            let refused = alone && verdict == Verdict::DenyBlocked;
            assert!(!refused || blocked, "tap {price} is not blocked");
            assert!(verdict != Verdict::Grant || !blocked, "tap {price} is blocked");
        }
    }

    fn organization(&self, tap: &Tap) -> OrganizationId {
        OrganizationId(u32::try_from(self.units[tap.unit].terminal / 10).unwrap())
    }
}
