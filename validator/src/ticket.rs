//! Signed tickets: what a screen or a paper shows as a QR code, and a device believes without a link.
//!
//! Nothing in a ticket is personal: a number, what it is good for and when, and where wanted the
//! first 56 bits of the keyed digest of the card that it belongs to.
//!
//! # Bytes
//! `ELT1:`, then in Base45 (RFC 9285), whose letters a QR code packs into five and a half bits each:
//!
//! | bytes | what, numbers little-endian |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | number of the signer |
//! | 8 | number of the ticket |
//! | 4, 4 | organization, service |
//! | 4, 4 | from when and until when it is valid (not any more), seconds since 1970-01-01T00:00:00Z |
//! | 4, 1 | category, size of the benefit in percent |
//! | 7 | the card: the beginning of its keyed digest, or zeros for whoever shows the ticket |
//! | 64 | Ed25519 signature of `eligo ticket 1`, a zero byte and everything before |
//!
//! A ticket has one text only: another spelling is refused.

use engine::calendar::Timestamp;
use engine::ids::{CategoryId, OrganizationId, ServiceId};

use crate::link::message::Signer;
use crate::registry::ShortDigest;
use crate::signing::{self, Purpose, SIGNATURE_BYTES, SignatureError, SigningKey};

/// What every ticket begins with.
pub const PREFIX: &str = "ELT1:";
/// Bytes of a ticket's text.
pub const TEXT_BYTES: usize = PREFIX.len() + TICKET_BYTES / 2 * 3 + TICKET_BYTES % 2 * 2;

const VERSION: u8 = 1;
const FIELDS_BYTES: usize = 41;
const TICKET_BYTES: usize = FIELDS_BYTES + SIGNATURE_BYTES;

/// A permission to use a service once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// Names it; given by the server, never twice.
    pub number: u64,
    /// Whose service it is.
    pub organization: OrganizationId,
    /// Which one.
    pub service: ServiceId,
    /// From when it is valid, whole seconds since 1970-01-01T00:00:00Z.
    pub valid_from: u32,
    /// Until when, no longer valid at this second.
    pub valid_to: u32,
    /// Through which category.
    pub category: CategoryId,
    /// Size of the benefit, 0 to 100.
    pub discount_percent: u8,
    /// The card that must be shown with it.
    pub card: Option<ShortDigest>,
}

impl Ticket {
    /// Reads a ticket that one of `signers` signed.
    pub fn read(text: &str, signers: &[Signer]) -> Result<Ticket, TicketError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(TicketError::Foreign)?;
        if text.len() != TEXT_BYTES {
            return Err(TicketError::Malformed);
        }
        let bytes = from_base45(encoded).ok_or(TicketError::Malformed)?;
        let (fields, signature) =
            bytes.split_first_chunk::<FIELDS_BYTES>().ok_or(TicketError::Malformed)?;
        let (ticket, signer) = Ticket::from_fields(fields)?;
        match signing::verify(signers, signer, (Purpose::Ticket, fields), signature) {
            Ok(()) => Ok(ticket),
            Err(SignatureError::Mismatch) => Err(TicketError::Signature),
            Err(SignatureError::Signer(id)) => Err(TicketError::Signer(id)),
        }
    }

    /// The text, signed by `key`; none where the library fails.
    pub fn to_text(&self, key: &SigningKey) -> Option<String> {
        let fields = self.to_fields(key.signer().id);
        let signature = key.sign(Purpose::Ticket, &fields)?;
        let mut text = String::with_capacity(TEXT_BYTES);
        text.push_str(PREFIX);
        push_base45(&[fields.as_slice(), &signature].concat(), &mut text);
        Some(text)
    }

    /// Whether it is good for what its owner wants now.
    pub fn admit(&self, use_: &TicketUse) -> Result<(), TicketError> {
        let now = use_.now.unix_seconds();
        if use_.organization != self.organization {
            return Err(TicketError::OtherOrganization);
        }
        if use_.service != self.service {
            return Err(TicketError::OtherService);
        }
        if now < i64::from(self.valid_from) {
            return Err(TicketError::NotYet);
        }
        if now >= i64::from(self.valid_to) {
            return Err(TicketError::Expired);
        }
        match self.card {
            Some(card) if use_.card != Some(card) => Err(TicketError::OtherCard),
            _ => Ok(()),
        }
    }

    fn to_fields(self, signer: u32) -> [u8; FIELDS_BYTES] {
        let card = self.card.map_or(0, ShortDigest::number).to_le_bytes();
        let parts: [&[u8]; 10] = [
            &[VERSION],
            &signer.to_le_bytes(),
            &self.number.to_le_bytes(),
            &self.organization.0.to_le_bytes(),
            &self.service.0.to_le_bytes(),
            &self.valid_from.to_le_bytes(),
            &self.valid_to.to_le_bytes(),
            &self.category.0.to_le_bytes(),
            &[self.discount_percent],
            &card,
        ];
        let mut fields = [0; FIELDS_BYTES];
        fields.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
        fields
    }

    fn from_fields(fields: &[u8; FIELDS_BYTES]) -> Result<(Ticket, u32), TicketError> {
        let mut rest = fields.as_slice();
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(TicketError::Version(version));
        }
        let signer = u32::from_le_bytes(take(&mut rest)?);
        let ticket = Ticket {
            number: u64::from_le_bytes(take(&mut rest)?),
            organization: OrganizationId(u32::from_le_bytes(take(&mut rest)?)),
            service: ServiceId(u32::from_le_bytes(take(&mut rest)?)),
            valid_from: u32::from_le_bytes(take(&mut rest)?),
            valid_to: u32::from_le_bytes(take(&mut rest)?),
            category: CategoryId(u32::from_le_bytes(take(&mut rest)?)),
            discount_percent: u8::from_le_bytes(take(&mut rest)?),
            card: None,
        };
        let [a, b, c, d, e, f, g] = take(&mut rest)?;
        let card = u64::from_le_bytes([a, b, c, d, e, f, g, 0]);
        let card = ShortDigest::from_number(card).filter(|card| card.number() != 0);
        Ok((Ticket { card, ..ticket }, signer))
    }
}

/// What the owner of a ticket wants.
#[derive(Clone, Copy, Debug)]
pub struct TicketUse {
    /// Of whom.
    pub organization: OrganizationId,
    /// Which service.
    pub service: ServiceId,
    /// When, by the device's corrected clock.
    pub now: Timestamp,
    /// The card that was shown with it.
    pub card: Option<ShortDigest>,
}

/// Why a ticket is not good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TicketError {
    /// It was valid before.
    #[error("the ticket has expired")]
    Expired,
    /// The code is something else.
    #[error("not a ticket")]
    Foreign,
    /// It is not as it was written.
    #[error("the ticket is damaged")]
    Malformed,
    /// It will be valid later.
    #[error("the ticket is not valid yet")]
    NotYet,
    /// It belongs to a card that was not shown.
    #[error("the ticket belongs to another card")]
    OtherCard,
    /// Another organization gave it.
    #[error("the ticket is of another organization")]
    OtherOrganization,
    /// It is good for something else.
    #[error("the ticket is for another service")]
    OtherService,
    /// It was not signed by whom it says.
    #[error("the signature of the ticket does not match")]
    Signature,
    /// Nobody with this number is trusted.
    #[error("signer {0} of the ticket is not known")]
    Signer(u32),
    /// A form that this program does not know.
    #[error("version {0} of the ticket is not known")]
    Version(u8),
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TicketError> {
    let (field, behind) = rest.split_first_chunk().ok_or(TicketError::Malformed)?;
    *rest = behind;
    Ok(*field)
}

const LETTERS: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

fn push_base45(bytes: &[u8], text: &mut String) {
    for pair in bytes.chunks(2) {
        let (mut value, digits) = match pair {
            [high, low] => (u32::from(*high) * 256 + u32::from(*low), 3),
            rest => (rest.iter().map(|byte| u32::from(*byte)).sum(), 2),
        };
        for _ in 0..digits {
            let letter = usize::try_from(value % 45).ok().and_then(|at| LETTERS.get(at));
            text.push(char::from(letter.copied().unwrap_or_default()));
            value /= 45;
        }
    }
}

fn from_base45(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 3 * 2 + 1);
    for group in text.as_bytes().chunks(3) {
        let mut value = 0;
        for letter in group.iter().rev() {
            let digit = LETTERS.iter().position(|known| known == letter)?;
            value = value * 45 + digit;
        }
        match group.len() {
            3 => bytes.extend_from_slice(&u16::try_from(value).ok()?.to_be_bytes()),
            2 => bytes.push(u8::try_from(value).ok()?),
            _ => return None,
        }
    }
    Some(bytes)
}

/// More does not fit what devices read quickly from a worn screen.
const _: () = assert!(TEXT_BYTES <= 200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[5; 32]).unwrap()
    }

    fn ticket() -> Ticket {
        Ticket {
            number: 77,
            organization: OrganizationId(3),
            service: ServiceId(12),
            valid_from: 1_748_858_400,
            valid_to: 1_748_858_460,
            category: CategoryId(20),
            discount_percent: 50,
            card: ShortDigest::from_number(0x12_3456_789a),
        }
    }

    fn wish() -> TicketUse {
        TicketUse {
            organization: OrganizationId(3),
            service: ServiceId(12),
            now: Timestamp::parse("2025-06-02T10:00:00Z").unwrap(),
            card: ticket().card,
        }
    }

    #[test]
    fn base45_is_that_of_the_rfc() {
        let check = |plain: &str, encoded: &str| {
            let mut text = String::new();
            push_base45(plain.as_bytes(), &mut text);
            assert_eq!(text, encoded);
            assert_eq!(from_base45(encoded).as_deref(), Some(plain.as_bytes()));
        };
        check("AB", "BB8");
        check("Hello!!", "%69 VD92EX0");
        check("base-45", "UJCLQE7W581");
        for wrong in ["GGW", "::", "A", "ab8"] {
            assert_eq!(from_base45(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_ticket_comes_back_and_says_why_it_is_not_good() {
        let text = ticket().to_text(&key()).unwrap();
        assert_eq!(text.len(), TEXT_BYTES);
        let signers = [key().signer().clone()];
        assert_eq!(Ticket::read(&text, &signers), Ok(ticket()));
        let check = |use_: TicketUse, expected| assert_eq!(ticket().admit(&use_), expected);
        let later = |seconds| TicketUse { now: wish().now.plus_seconds(seconds), ..wish() };
        check(wish(), Ok(()));
        check(later(59), Ok(()));
        check(later(60), Err(TicketError::Expired));
        check(later(-1), Err(TicketError::NotYet));
        check(TicketUse { service: ServiceId(1), ..wish() }, Err(TicketError::OtherService));
        let other = TicketUse { organization: OrganizationId(1), ..wish() };
        check(other, Err(TicketError::OtherOrganization));
        check(TicketUse { card: None, ..wish() }, Err(TicketError::OtherCard));
        let card = ShortDigest::from_number(1);
        check(TicketUse { card, ..wish() }, Err(TicketError::OtherCard));
        let anyone = Ticket { card: None, ..ticket() };
        assert_eq!(anyone.admit(&TicketUse { card, ..wish() }), Ok(()));
    }

    #[test]
    fn what_is_no_ticket_is_refused_with_its_cause() {
        let text = ticket().to_text(&key()).unwrap();
        let signers = [key().signer().clone()];
        let check = |text: &str, expected| {
            assert_eq!(Ticket::read(text, &signers), Err(expected), "{text}");
        };
        check("https://example.org", TicketError::Foreign);
        check(&text[..TEXT_BYTES - 1], TicketError::Malformed);
        check(&text.to_lowercase(), TicketError::Foreign);
        let mut fields = ticket().to_fields(key().signer().id);
        fields[0] = 2;
        let mut later = PREFIX.to_string();
        push_base45(&[fields.as_slice(), &[0; SIGNATURE_BYTES]].concat(), &mut later);
        check(&later, TicketError::Version(2));
        let stranger = SigningKey::from_seed(&[6; 32]).unwrap();
        let id = stranger.signer().id;
        check(&ticket().to_text(&stranger).unwrap(), TicketError::Signer(id));
        let mut forged = PREFIX.to_string();
        let fields = ticket().to_fields(key().signer().id);
        push_base45(&[fields.as_slice(), &[0; SIGNATURE_BYTES]].concat(), &mut forged);
        check(&forged, TicketError::Signature);
    }

    /// `ELIGO_MUTATIONS` sets how many mutated tickets are tried.
    #[test]
    fn mutated_tickets_neither_pass_nor_panic() {
        let text = ticket().to_text(&key()).unwrap();
        let signers = [key().signer().clone()];
        let set = std::env::var("ELIGO_MUTATIONS").ok();
        let rounds: u64 = set.map_or(20_000, |count| count.parse().expect("a number"));
        let mut random = Random::new(7);
        let mut below = |end: usize| usize::try_from(random.below(end as u64)).unwrap();
        for _ in 0..rounds {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..below(3) + 1 {
                let at = below(bytes.len());
                bytes[at] = match below(5) {
                    0 => u8::try_from(below(256)).unwrap(),
                    _ => LETTERS[below(45)],
                };
            }
            if below(17) == 0 {
                bytes.truncate(below(TEXT_BYTES));
            }
            let mutated = String::from_utf8_lossy(&bytes);
            if mutated != text {
                assert!(Ticket::read(&mutated, &signers).is_err(), "{mutated}");
            }
        }
    }
}
