//! The stored form of everything that the journal, the archive and the snapshots hold.
//!
//! A record is one tag byte and a MessagePack array. Tags are never reused; a field is only ever
//! added at the end, a changed meaning gets a new tag, and old tags stay readable.

use serde::{Deserialize, Serialize};

use crate::calendar::{Day, Timestamp};
use crate::entries::push_entry;
use crate::ids::{
    CategoryId, HolderId, Kopecks, OrganizationId, RevisionId, ServiceId, TerminalId, TransactionId,
};
use crate::transaction::{Amounts, Cancellation, Confirmation, Event, LimitPeriod, Transaction};
use crate::trips::claim::ClaimEvent;
use crate::trips::ruling::RulingEvent;
use crate::trips::stored::{
    StoredTripError, read_claim_event, read_rulings, write_claim_event, write_rulings,
};

/// One entry of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// Blocks that begin or end with an import; they take effect with its [`ImportCommitted`].
    Blocks(BlockPart),
    /// A claim changed.
    Claim(ClaimEvent),
    /// A transaction changed.
    Event(Event),
    /// Transaction ids up to and including this one may be given out.
    IdsReserved(TransactionId),
    /// All parts of an import are in the log: it takes effect here.
    ImportCommitted(ImportCommitted),
    /// A part of an import that takes effect only with its [`ImportCommitted`].
    ImportPart(ImportPart),
    /// Disputed trips were decided on.
    Rulings(RulingEvent),
    /// Trips were recorded.
    Trips(TripList),
    /// Trips and claims that were settled for long at this instant left memory.
    TripsSwept(Timestamp),
}

/// Blocks that begin or end with an import.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BlockPart {
    /// Which import.
    pub import: u64,
    /// The changes, see [`crate::trips::stored::read_blocks`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Recorded trips.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TripList {
    /// The trips, each behind its length, see [`crate::trips::stored::read_trip`].
    pub bytes: Vec<u8>,
}

/// A piece of an import, in the stored form of the registry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ImportPart {
    /// Which import.
    pub import: u64,
    /// Which part of it, from 0.
    pub index: u32,
    /// The piece.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The end of an import.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ImportCommitted {
    /// Which import.
    pub import: u64,
    /// How many parts it has.
    pub part_count: u32,
    /// The revision of the registry that it makes.
    pub revision: RevisionId,
}

const TAG_OPENED: u8 = 1;
const TAG_CONFIRMED: u8 = 2;
const TAG_CANCELLED: u8 = 3;
const TAG_IDS_RESERVED: u8 = 4;
const TAG_IMPORT_PART: u8 = 5;
const TAG_IMPORT_COMMITTED: u8 = 6;
const TAG_TRIPS: u8 = 7;
const TAG_CLAIM: u8 = 8;
const TAG_BLOCKS: u8 = 9;
const TAG_TRIPS_SWEPT: u8 = 10;
const TAG_RULINGS: u8 = 11;

/// A transaction; an array, whose last field older programs did not write.
#[derive(Deserialize, Serialize)]
struct StoredTransaction {
    id: u64,
    organization: u32,
    terminal: u64,
    service: u32,
    category: u32,
    holder: u64,
    checked_at: i64,
    limit_period: Option<(i32, i32)>,
    #[serde(default)]
    discount_percent: Option<u8>,
}

type StoredConfirmation = (StoredTransaction, i64, Option<u64>, Option<u64>);

impl Record {
    /// Appends the record, with its length, to the records of a frame.
    pub fn push(&self, records: &mut Vec<u8>) {
        push_entry(records, |out| self.write(out));
    }

    /// Appends a record of trips, each of which is an entry of `list`, with its length.
    pub fn push_trips(list: &[u8], records: &mut Vec<u8>) {
        push_entry(records, |out| write_trips(list, out));
    }

    /// Appends the stored form without a length.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Record::Blocks(part) => pack(out, TAG_BLOCKS, part),
            Record::Claim(event) => {
                out.push(TAG_CLAIM);
                write_claim_event(event, out);
            }
            Record::Rulings(event) => {
                out.push(TAG_RULINGS);
                write_rulings(event, out);
            }
            Record::Trips(list) => write_trips(&list.bytes, out),
            Record::TripsSwept(at) => pack(out, TAG_TRIPS_SWEPT, &(at.0,)),
            Record::Event(Event::Opened(transaction)) => {
                pack(out, TAG_OPENED, &stored_transaction(transaction));
            }
            Record::Event(Event::Confirmed(confirmation)) => {
                let stored: StoredConfirmation = (
                    stored_transaction(&confirmation.transaction),
                    confirmation.confirmed_at.0,
                    confirmation.amounts.price.map(|kopecks| kopecks.0),
                    confirmation.amounts.discounted_price.map(|kopecks| kopecks.0),
                );
                pack(out, TAG_CONFIRMED, &stored);
            }
            Record::Event(Event::Cancelled(cancellation)) => {
                let stored = (
                    cancellation.transaction.0,
                    cancellation.organization.0,
                    cancellation.cancelled_at.0,
                );
                pack(out, TAG_CANCELLED, &stored);
            }
            Record::IdsReserved(through) => pack(out, TAG_IDS_RESERVED, &(through.0,)),
            Record::ImportPart(part) => pack(out, TAG_IMPORT_PART, part),
            Record::ImportCommitted(commit) => {
                let stored = (commit.import, commit.part_count, commit.revision.0);
                pack(out, TAG_IMPORT_COMMITTED, &stored);
            }
        }
    }

    /// Whether these bytes say how a transaction was settled; looks at nothing but the tag.
    pub fn is_settlement(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(TAG_CANCELLED | TAG_CONFIRMED)))
    }

    /// Reads the stored form.
    pub fn read(bytes: &[u8]) -> Result<Record, RecordError> {
        let (tag, body) = bytes.split_first().ok_or(RecordError::Empty)?;
        match *tag {
            TAG_OPENED => {
                let stored = unpack::<StoredTransaction>(body)?;
                Ok(Record::Event(Event::Opened(transaction(stored))))
            }
            TAG_CONFIRMED => {
                let (stored, confirmed_at, price, discounted_price) =
                    unpack::<StoredConfirmation>(body)?;
                Ok(Record::Event(Event::Confirmed(Confirmation {
                    transaction: transaction(stored),
                    confirmed_at: Timestamp(confirmed_at),
                    amounts: Amounts {
                        price: price.map(Kopecks),
                        discounted_price: discounted_price.map(Kopecks),
                    },
                })))
            }
            TAG_CANCELLED => {
                let (transaction, organization, cancelled_at) = unpack(body)?;
                Ok(Record::Event(Event::Cancelled(Cancellation {
                    transaction: TransactionId(transaction),
                    organization: OrganizationId(organization),
                    cancelled_at: Timestamp(cancelled_at),
                })))
            }
            TAG_IDS_RESERVED => {
                let (through,) = unpack(body)?;
                Ok(Record::IdsReserved(TransactionId(through)))
            }
            TAG_IMPORT_PART => Ok(Record::ImportPart(unpack(body)?)),
            TAG_IMPORT_COMMITTED => {
                let (import, part_count, revision) = unpack(body)?;
                let revision = RevisionId(revision);
                Ok(Record::ImportCommitted(ImportCommitted { import, part_count, revision }))
            }
            TAG_TRIPS => Ok(Record::Trips(TripList { bytes: body.to_vec() })),
            TAG_CLAIM => Ok(Record::Claim(read_claim_event(body)?)),
            TAG_RULINGS => Ok(Record::Rulings(read_rulings(body)?)),
            TAG_BLOCKS => Ok(Record::Blocks(unpack(body)?)),
            TAG_TRIPS_SWEPT => {
                let (at,) = unpack(body)?;
                Ok(Record::TripsSwept(Timestamp(at)))
            }
            tag => Err(RecordError::UnknownTag(tag)),
        }
    }
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No byte at all.
    #[error("an empty record")]
    Empty,
    /// The body does not have the shape that the tag promises.
    #[error("a record that cannot be read")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// The body is not of a trip or claim.
    #[error(transparent)]
    Trip(#[from] StoredTripError),
    /// Written by a newer program.
    #[error("a record with the unknown tag {0}")]
    UnknownTag(u8),
}

/// The tag and the list as it is: the entries of a list need no wrapping.
fn write_trips(list: &[u8], out: &mut Vec<u8>) {
    out.push(TAG_TRIPS);
    out.extend_from_slice(list);
}

fn pack<T: Serialize>(out: &mut Vec<u8>, tag: u8, body: &T) {
    out.push(tag);
    let written = rmp_serde::encode::write(out, body);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
}

fn unpack<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RecordError> {
    Ok(rmp_serde::from_slice(body)?)
}

fn stored_transaction(transaction: &Transaction) -> StoredTransaction {
    StoredTransaction {
        id: transaction.id.0,
        organization: transaction.organization.0,
        terminal: transaction.terminal.0,
        service: transaction.service.0,
        category: transaction.category.0,
        holder: transaction.holder.0,
        checked_at: transaction.checked_at.0,
        limit_period: transaction.limit_period.map(|period| (period.first.0, period.last.0)),
        discount_percent: transaction.discount_percent,
    }
}

fn transaction(stored: StoredTransaction) -> Transaction {
    Transaction {
        id: TransactionId(stored.id),
        organization: OrganizationId(stored.organization),
        terminal: TerminalId(stored.terminal),
        service: ServiceId(stored.service),
        category: CategoryId(stored.category),
        holder: HolderId(stored.holder),
        checked_at: Timestamp(stored.checked_at),
        discount_percent: stored.discount_percent,
        limit_period: stored
            .limit_period
            .map(|(first, last)| LimitPeriod { first: Day(first), last: Day(last) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trips::claim::ClaimId;

    #[test]
    fn every_record_comes_back_as_it_went() {
        let transaction = Transaction {
            id: TransactionId(u64::MAX),
            organization: OrganizationId(1),
            terminal: TerminalId(63_183_659),
            service: ServiceId(3),
            category: CategoryId(20),
            holder: HolderId(77),
            checked_at: Timestamp(-5),
            discount_percent: Some(100),
            limit_period: Some(LimitPeriod { first: Day(20_000), last: Day(20_006) }),
        };
        let amounts = Amounts { price: Some(Kopecks(30_000)), discounted_price: None };
        let confirmation = Confirmation { transaction, confirmed_at: Timestamp(9), amounts };
        let cancellation = Cancellation {
            transaction: TransactionId(4),
            organization: OrganizationId(2),
            cancelled_at: Timestamp(1),
        };
        let revision = RevisionId(2);
        for record in [
            Record::Event(Event::Opened(transaction)),
            Record::Event(Event::Confirmed(confirmation)),
            Record::Event(Event::Cancelled(cancellation)),
            Record::IdsReserved(TransactionId(1 << 20)),
            Record::ImportPart(ImportPart { import: 1, index: 2, bytes: vec![0, 255] }),
            Record::ImportCommitted(ImportCommitted { import: 1, part_count: 3, revision }),
            Record::Claim(ClaimEvent::Paid { id: ClaimId(1), at: Timestamp(2) }),
            Record::Blocks(BlockPart { import: 1, bytes: vec![7; 25] }),
            Record::TripsSwept(Timestamp(7)),
            Record::Rulings(RulingEvent { at: Timestamp(5), rulings: vec![], revoked: vec![] }),
        ] {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            assert_eq!(Record::read(&bytes).unwrap(), record);
            for cut in 0..bytes.len() {
                assert!(Record::read(&bytes[..cut]).is_err());
            }
        }
        assert!(matches!(Record::read(&[99]), Err(RecordError::UnknownTag(99))));
    }

    #[test]
    fn a_transaction_of_an_older_program_has_no_discount() {
        let older = (1u64, 2u32, 3u64, 4u32, 5u32, 6u64, 7i64, None::<(i32, i32)>);
        let mut opened = Vec::new();
        pack(&mut opened, TAG_OPENED, &older);
        let mut confirmed = Vec::new();
        pack(&mut confirmed, TAG_CONFIRMED, &(older, 9i64, None::<u64>, Some(50u64)));
        let Record::Event(Event::Opened(transaction)) = Record::read(&opened).unwrap() else {
            panic!("not an opening");
        };
        assert_eq!((transaction.checked_at, transaction.discount_percent), (Timestamp(7), None));
        let amounts = Amounts { price: None, discounted_price: Some(Kopecks(50)) };
        let confirmation = Confirmation { transaction, confirmed_at: Timestamp(9), amounts };
        let expected = Record::Event(Event::Confirmed(confirmation));
        assert_eq!(Record::read(&confirmed).unwrap(), expected);
    }
}
