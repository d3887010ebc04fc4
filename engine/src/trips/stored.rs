//! The stored forms of trips, claims and blocks, for the journal and for snapshots.
//!
//! A body is a MessagePack array; fields are only ever added at the end, where an old body lacks
//! them. Money is kopecks, instants are microseconds since 1970-01-01T00:00:00Z.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::calendar::{Day, Timestamp};
use crate::identifier::Digest;
use crate::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId};
use crate::trips::block::BlockChange;
use crate::trips::claim::{ClaimEvent, ClaimId, ClaimLine, ClaimTotals, Period, Refusal};
use crate::trips::ruling::{Ruling, RulingEvent, RulingVerdict};
use crate::trips::trip::{
    RecordedTrip, RegistryVersion, Standing, Trip, TripEvent, TripKey, TripMode, TripName,
    TripReason, TripSeq, TripTexts, TripVerdict,
};

/// Bytes of a block change.
pub const BLOCK_BYTES: usize = 25;

/// Name, carrier, clock, offset, arrival and fate of a trip.
type StoredHead = (u64, u64, u32, i64, i64, i64, u8, u8);
/// What happened: event, mode, verdict, companion.
type StoredKinds = (u8, u8, u8, bool);
/// By which right: service, category, digest, registry, transaction.
type StoredRight = (u32, Option<u32>, ByteArray<16>, u64, Option<u64>);
type StoredMoney = (u64, u8, u64);
type StoredTexts<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);
type StoredTrip<'a> =
    (StoredHead, StoredKinds, StoredRight, StoredMoney, StoredTexts<'a>, Option<ByteArray<16>>);

/// Appends the stored form of a recorded trip.
pub fn write_trip(recorded: &RecordedTrip, out: &mut Vec<u8>) {
    let RecordedTrip { trip, standing, received_at } = recorded;
    let (fate, reason) = stored_standing(*standing);
    let [route, vehicle, from_stop, to_stop, ticket] = trip.texts.all();
    let stored: StoredTrip<'_> = (
        (
            trip.name.terminal.0,
            trip.name.seq.0,
            trip.organization.0,
            trip.device_at.0,
            trip.clock_offset_ms,
            received_at.0,
            fate,
            reason,
        ),
        (trip.event.number(), trip.mode.number(), trip.verdict.number(), trip.companion),
        (
            trip.service.0,
            trip.category.map(|category| category.0),
            ByteArray::new(trip.identifier.0),
            trip.registry.0,
            trip.transaction.map(|transaction| transaction.0),
        ),
        (trip.tariff.0, trip.discount_percent, trip.benefit.0),
        (route, vehicle, from_stop, to_stop, ticket),
        trip.key.map(|key| ByteArray::new(key.0)),
    );
    pack(out, &stored);
}

/// Reads the stored form of a recorded trip.
pub fn read_trip(bytes: &[u8]) -> Result<RecordedTrip, StoredTripError> {
    let (head, kinds, right, money, texts, key) = unpack::<StoredTrip<'_>>(bytes)?;
    let (terminal, seq, organization, device_at, clock_offset_ms, received_at, fate, reason) = head;
    let (event, mode, verdict, companion) = kinds;
    let (service, category, identifier, registry, transaction) = right;
    let (tariff, discount_percent, benefit) = money;
    let (route, vehicle, from_stop, to_stop, ticket) = texts;
    let trip = Trip {
        name: trip_name(terminal, seq),
        key: key.map(|key| TripKey(key.into_array())),
        organization: OrganizationId(organization),
        event: TripEvent::from_number(event).ok_or(StoredTripError::Value)?,
        mode: TripMode::from_number(mode).ok_or(StoredTripError::Value)?,
        device_at: Timestamp(device_at),
        clock_offset_ms,
        service: ServiceId(service),
        texts: TripTexts {
            route: route.to_owned(),
            vehicle: vehicle.to_owned(),
            from_stop: from_stop.to_owned(),
            to_stop: to_stop.to_owned(),
            ticket: ticket.to_owned(),
        },
        identifier: Digest(identifier.into_array()),
        registry: RegistryVersion(registry),
        verdict: TripVerdict::from_number(verdict).ok_or(StoredTripError::Value)?,
        category: category.map(CategoryId),
        companion,
        tariff: Kopecks(tariff),
        discount_percent,
        benefit: Kopecks(benefit),
        transaction: transaction.map(TransactionId),
    };
    let standing = read_standing(fate, reason)?;
    Ok(RecordedTrip { trip, standing, received_at: Timestamp(received_at) })
}

fn stored_standing(standing: Standing) -> (u8, u8) {
    match standing {
        Standing::Accepted => (0, 0),
        Standing::Disputed(reason) => (1, reason.number()),
        Standing::Rejected(reason) => (2, reason.number()),
    }
}

fn read_standing(fate: u8, reason: u8) -> Result<Standing, StoredTripError> {
    let reason = TripReason::from_number(reason).ok_or(StoredTripError::Value)?;
    match fate {
        0 => Ok(Standing::Accepted),
        1 => Ok(Standing::Disputed(reason)),
        2 => Ok(Standing::Rejected(reason)),
        _ => Err(StoredTripError::Value),
    }
}

/// Which event of a claim follows.
const CREATED: u8 = 1;
const EXTENDED: u8 = 2;
const SUBMITTED: u8 = 3;
const PROCESSED: u8 = 4;
const DECIDED: u8 = 5;
const PAID: u8 = 6;
const ARCHIVED: u8 = 7;

type StoredLine = (u64, u64, u64);
type StoredMark = (u64, u64, u8);

/// The totals of a claim whose lines have left memory.
#[derive(Deserialize, Serialize)]
struct StoredArchive {
    line_count: u64,
    total: u64,
    refused_count: u64,
    refused_total: u64,
}

/// Appends the stored form of an event of a claim.
pub fn write_claim_event(event: &ClaimEvent, out: &mut Vec<u8>) {
    match event {
        ClaimEvent::Created { id, organization, period, at } => {
            out.push(CREATED);
            pack(out, &(id.0, organization.0, period.first.0, period.last.0, at.0));
        }
        ClaimEvent::Extended { id, lines, marks } => {
            let line = |line: &ClaimLine| -> StoredLine {
                (line.name.terminal.0, line.name.seq.0, line.amount.0)
            };
            let mark = |(name, reason): &(TripName, TripReason)| -> StoredMark {
                (name.terminal.0, name.seq.0, reason.number())
            };
            let lines: Vec<StoredLine> = lines.iter().map(line).collect();
            let marks: Vec<StoredMark> = marks.iter().map(mark).collect();
            out.push(EXTENDED);
            pack(out, &(id.0, lines, marks));
        }
        ClaimEvent::Submitted { id, at } => {
            out.push(SUBMITTED);
            pack(out, &(id.0, at.0));
        }
        ClaimEvent::Processed { id, at, refusals } => {
            let refusal = |refusal: &Refusal| {
                (refusal.name.terminal.0, refusal.name.seq.0, refusal.reason.clone())
            };
            let refusals: Vec<(u64, u64, String)> = refusals.iter().map(refusal).collect();
            out.push(PROCESSED);
            pack(out, &(id.0, at.0, refusals));
        }
        ClaimEvent::Decided { id, at } => {
            out.push(DECIDED);
            pack(out, &(id.0, at.0));
        }
        ClaimEvent::Paid { id, at } => {
            out.push(PAID);
            pack(out, &(id.0, at.0));
        }
        ClaimEvent::Archived { id, totals } => {
            out.push(ARCHIVED);
            let stored = StoredArchive {
                line_count: totals.line_count,
                total: totals.total.0,
                refused_count: totals.refused_count,
                refused_total: totals.refused_total.0,
            };
            pack(out, &(id.0, stored));
        }
    }
}

/// Reads the stored form of an event of a claim.
pub fn read_claim_event(bytes: &[u8]) -> Result<ClaimEvent, StoredTripError> {
    let (tag, body) = bytes.split_first().ok_or(StoredTripError::Value)?;
    Ok(match *tag {
        CREATED => {
            let (id, organization, first, last, at) = unpack(body)?;
            ClaimEvent::Created {
                id: ClaimId(id),
                organization: OrganizationId(organization),
                period: Period { first: Day(first), last: Day(last) },
                at: Timestamp(at),
            }
        }
        EXTENDED => {
            let (id, lines, marks) = unpack::<(u64, Vec<StoredLine>, Vec<StoredMark>)>(body)?;
            let line = |(terminal, seq, amount): StoredLine| ClaimLine {
                name: trip_name(terminal, seq),
                amount: Kopecks(amount),
            };
            let mark = |(terminal, seq, reason): StoredMark| {
                let reason = TripReason::from_number(reason).ok_or(StoredTripError::Value)?;
                Ok::<_, StoredTripError>((trip_name(terminal, seq), reason))
            };
            let lines = lines.into_iter().map(line).collect();
            let marks = marks.into_iter().map(mark).collect::<Result<_, _>>()?;
            ClaimEvent::Extended { id: ClaimId(id), lines, marks }
        }
        SUBMITTED => {
            let (id, at) = unpack(body)?;
            ClaimEvent::Submitted { id: ClaimId(id), at: Timestamp(at) }
        }
        PROCESSED => {
            let (id, at, refusals) = unpack::<(u64, i64, Vec<(u64, u64, String)>)>(body)?;
            let refusal =
                |(terminal, seq, reason)| Refusal { name: trip_name(terminal, seq), reason };
            let refusals = refusals.into_iter().map(refusal).collect();
            ClaimEvent::Processed { id: ClaimId(id), at: Timestamp(at), refusals }
        }
        DECIDED => {
            let (id, at) = unpack(body)?;
            ClaimEvent::Decided { id: ClaimId(id), at: Timestamp(at) }
        }
        PAID => {
            let (id, at) = unpack(body)?;
            ClaimEvent::Paid { id: ClaimId(id), at: Timestamp(at) }
        }
        ARCHIVED => {
            let (id, stored) = unpack::<(u64, StoredArchive)>(body)?;
            let totals = ClaimTotals {
                line_count: stored.line_count,
                total: Kopecks(stored.total),
                refused_count: stored.refused_count,
                refused_total: Kopecks(stored.refused_total),
            };
            ClaimEvent::Archived { id: ClaimId(id), totals }
        }
        _ => return Err(StoredTripError::Value),
    })
}

/// Name, whether it is accepted, reason.
type StoredRuling = (u64, u64, bool, String);

/// Appends the stored form of rulings.
pub fn write_rulings(event: &RulingEvent, out: &mut Vec<u8>) {
    let ruling = |ruling: &Ruling| -> StoredRuling {
        let is_accepted = ruling.verdict == RulingVerdict::Accepted;
        (ruling.name.terminal.0, ruling.name.seq.0, is_accepted, ruling.reason.clone())
    };
    let rulings: Vec<StoredRuling> = event.rulings.iter().map(ruling).collect();
    let revoked = event.revoked.iter().map(|name| (name.terminal.0, name.seq.0));
    pack(out, &(event.at.0, rulings, revoked.collect::<Vec<_>>()));
}

/// Reads the stored form of rulings.
pub fn read_rulings(bytes: &[u8]) -> Result<RulingEvent, StoredTripError> {
    let (at, rulings, revoked) = unpack::<(i64, Vec<StoredRuling>, Vec<(u64, u64)>)>(bytes)?;
    let ruling = |(terminal, seq, is_accepted, reason): StoredRuling| {
        let verdict = if is_accepted { RulingVerdict::Accepted } else { RulingVerdict::Rejected };
        Ruling { name: trip_name(terminal, seq), verdict, reason }
    };
    Ok(RulingEvent {
        at: Timestamp(at),
        rulings: rulings.into_iter().map(ruling).collect(),
        revoked: revoked.into_iter().map(|(terminal, seq)| trip_name(terminal, seq)).collect(),
    })
}

/// Appends changes of blocks: identifier, blocked or not, instant.
pub fn write_blocks(changes: &[BlockChange], out: &mut Vec<u8>) {
    for change in changes {
        out.extend_from_slice(&change.identifier.0);
        out.push(u8::from(change.blocked));
        out.extend_from_slice(&change.at.0.to_le_bytes());
    }
}

/// Reads changes of blocks.
pub fn read_blocks(bytes: &[u8]) -> Result<Vec<BlockChange>, StoredTripError> {
    let (changes, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    if !rest.is_empty() {
        return Err(StoredTripError::Value);
    }
    let change = |bytes: &[u8; BLOCK_BYTES]| {
        let (identifier, rest) = bytes.split_first_chunk::<16>()?;
        let (blocked, at) = rest.split_first()?;
        let at = Timestamp(i64::from_le_bytes(*at.first_chunk::<8>()?));
        Some(BlockChange { identifier: Digest(*identifier), blocked: *blocked != 0, at })
    };
    changes.iter().map(change).collect::<Option<_>>().ok_or(StoredTripError::Value)
}

/// Appends a span of forgotten trips of a terminal.
pub fn write_forgotten(terminal: TerminalId, first: TripSeq, last: TripSeq, out: &mut Vec<u8>) {
    pack(out, &(terminal.0, first.0, last.0));
}

/// Reads a span of forgotten trips of a terminal.
pub fn read_forgotten(bytes: &[u8]) -> Result<(TerminalId, TripSeq, TripSeq), StoredTripError> {
    let (terminal, first, last) = unpack(bytes)?;
    Ok((TerminalId(terminal), TripSeq(first), TripSeq(last)))
}

fn trip_name(terminal: u64, seq: u64) -> TripName {
    TripName { terminal: TerminalId(terminal), seq: TripSeq(seq) }
}

/// Why bytes are none of these.
#[derive(Debug, thiserror::Error)]
pub enum StoredTripError {
    /// The body does not have the shape that it should have.
    #[error("a stored trip or claim that cannot be read")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// A number stands for nothing.
    #[error("a stored trip or claim with an unknown value")]
    Value,
}

fn pack<T: Serialize>(out: &mut Vec<u8>, body: &T) {
    let written = rmp_serde::encode::write(out, body);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn unpack<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, StoredTripError> {
    Ok(rmp_serde::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_come_back_as_they_went() {
        let trip = Trip {
            name: trip_name(u64::MAX, 7),
            key: Some(TripKey([9; 16])),
            organization: OrganizationId(3),
            event: TripEvent::TicketIssued,
            mode: TripMode::Online,
            device_at: Timestamp(-5),
            clock_offset_ms: -700,
            service: ServiceId(2),
            texts: TripTexts { route: "45 э".to_owned(), ..TripTexts::default() },
            identifier: Digest([1; 16]),
            registry: RegistryVersion(7),
            verdict: TripVerdict::DenyStale,
            category: Some(CategoryId(30)),
            companion: true,
            tariff: Kopecks(25_000),
            discount_percent: 50,
            benefit: Kopecks(12_500),
            transaction: Some(TransactionId(4)),
        };
        for standing in [
            Standing::Accepted,
            Standing::Disputed(TripReason::Blocked),
            Standing::Rejected(TripReason::Future),
        ] {
            let received_at = Timestamp(11);
            let recorded = RecordedTrip { trip: trip.clone(), standing, received_at };
            let mut bytes = Vec::new();
            write_trip(&recorded, &mut bytes);
            assert_eq!(read_trip(&bytes).unwrap(), recorded);
            assert!((0..bytes.len()).all(|cut| read_trip(&bytes[..cut]).is_err()));
        }
    }

    #[test]
    fn events_of_claims_come_back_as_they_went() {
        let (id, at) = (ClaimId(5), Timestamp(8));
        let name = trip_name(1, 2);
        let reason = "нет «остановки»".to_owned();
        let totals = ClaimTotals {
            line_count: 3,
            total: Kopecks(54_500),
            refused_count: 1,
            refused_total: Kopecks(25_000),
        };
        for event in [
            ClaimEvent::Created {
                id,
                organization: OrganizationId(1),
                period: Period { first: Day(1), last: Day(30) },
                at,
            },
            ClaimEvent::Extended {
                id,
                lines: vec![ClaimLine { name, amount: Kopecks(4_500) }],
                marks: vec![(name, TripReason::Repeat)],
            },
            ClaimEvent::Submitted { id, at },
            ClaimEvent::Processed { id, at, refusals: vec![Refusal { name, reason }] },
            ClaimEvent::Decided { id, at },
            ClaimEvent::Paid { id, at },
            ClaimEvent::Archived { id, totals },
        ] {
            let mut bytes = Vec::new();
            write_claim_event(&event, &mut bytes);
            assert_eq!(read_claim_event(&bytes).unwrap(), event);
            assert!((0..bytes.len()).all(|cut| read_claim_event(&bytes[..cut]).is_err()));
        }
    }

    #[test]
    fn rulings_come_back_as_they_went() {
        let ruling = |seq, verdict| Ruling {
            name: trip_name(1, seq),
            verdict,
            reason: "акт № 7".to_owned(),
        };
        let event = RulingEvent {
            at: Timestamp(-3),
            rulings: vec![ruling(1, RulingVerdict::Accepted), ruling(2, RulingVerdict::Rejected)],
            revoked: vec![trip_name(1, 2)],
        };
        let mut bytes = Vec::new();
        write_rulings(&event, &mut bytes);
        assert_eq!(read_rulings(&bytes).unwrap(), event);
        assert!((0..bytes.len()).all(|cut| read_rulings(&bytes[..cut]).is_err()));
    }

    #[test]
    fn blocks_come_back_as_they_went() {
        let change = BlockChange { identifier: Digest([3; 16]), blocked: true, at: Timestamp(-1) };
        let changes = [change, BlockChange { blocked: false, ..change }];
        let mut bytes = Vec::new();
        write_blocks(&changes, &mut bytes);
        assert_eq!(read_blocks(&bytes).unwrap(), changes);
        assert!(read_blocks(&bytes[1..]).is_err());
    }
}
