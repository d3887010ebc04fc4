//! Identifiers of holders and cards: canonical form, validation, keyed digest (catalogue §2).
//!
//! An identifier is made canonical, then hashed with the deployment's key, and only the digest goes
//! any further: neither the index nor the journal nor a log ever holds a SNILS or a card number.
//!
//! # Why
//! A SNILS has about 30 bits, so a plain hash of it is no protection. SipHash-2-4 with 128 bits of
//! output is a keyed pseudo-random function that costs about 20 ns, which a check pays each time;
//! HMAC-SHA-256 costs ten times that and protects no better as long as the key is secret.

use std::fmt;
use std::hash::Hasher;
use std::ops::Deref;

use siphasher::sip128::{Hasher128, SipHasher24};

/// The longest canonical form: a key id, a separator and 128 hexadecimal digits.
const CANONICAL_BYTES_MAX: usize = 192;
/// SNILS numbers up to this one have no control number (catalogue §2).
const SNILS_UNCHECKED_MAX: u32 = 1_001_998;

/// What an identifier identifies, and in which number space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum IdentifierKind {
    /// Holder code and order number of the plastic (D0 A2 `clientCode`).
    ClientCode = 1,
    /// Number and series of a social card (D0 A2).
    SocialCard = 2,
    /// Insurance number; leads to the holder, not to a card.
    Snils = 3,
    /// "Social card number", also inside QR codes (D2).
    NumSid = 4,
    /// The card hash of D2 §4.3.
    CardHash = 5,
    /// A hash of the card number together with the id of its key (D2 §4.3 `hashNums`).
    HashPan = 6,
    /// UID of a Mifare chip (D2 §4.4).
    MifareUid = 7,
    /// Payment account reference.
    Par = 8,
}

impl IdentifierKind {
    /// The kind from its stored number.
    pub fn from_stored(stored: u8) -> Option<IdentifierKind> {
        Some(match stored {
            1 => IdentifierKind::ClientCode,
            2 => IdentifierKind::SocialCard,
            3 => IdentifierKind::Snils,
            4 => IdentifierKind::NumSid,
            5 => IdentifierKind::CardHash,
            6 => IdentifierKind::HashPan,
            7 => IdentifierKind::MifareUid,
            8 => IdentifierKind::Par,
            _ => return None,
        })
    }
}

/// The keyed digest of a canonical identifier; equal digests mean equal identifiers.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Eight of its bytes as a number, for spreading over tables.
    pub fn spread(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for Digest {
    /// Three bytes only: enough to tell two apart in a test, useless for anything else.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.0;
        write!(formatter, "{a:02x}{b:02x}{c:02x}…")
    }
}

/// The secret that card identifiers are hashed with. Validators have it too: they read cards on
/// their own, and what they know of a card is worth no more than the card itself.
#[derive(Clone)]
pub struct CardKey([u8; 16]);

impl CardKey {
    /// A key from 16 random bytes.
    pub fn new(bytes: [u8; 16]) -> CardKey {
        CardKey(bytes)
    }

    /// The secret itself, for handing it to a validator.
    pub fn secret(&self) -> [u8; 16] {
        self.0
    }

    /// `clientCode`: 1 to 15 letters or digits, upper-cased (C-11).
    pub fn client_code(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        if raw.is_ascii() {
            canonical.push_ascii_upper(raw, 1..=15)?;
            return Ok(self.digest(IdentifierKind::ClientCode, &canonical));
        }
        if !(1..=15).contains(&raw.chars().count()) {
            return Err(IdentifierError::Length);
        }
        for letter in raw.chars() {
            if !letter.is_alphanumeric() {
                return Err(IdentifierError::Format);
            }
            letter.to_uppercase().try_for_each(|upper| canonical.push_char(upper))?;
        }
        Ok(self.digest(IdentifierKind::ClientCode, &canonical))
    }

    /// `cardNumber` (19 digits) and `cardSeries` (8 digits), which always go together.
    pub fn social_card(&self, number: &str, series: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        canonical.push_digits(number, 19..=19)?;
        if number.bytes().all(|digit| digit == b'0') {
            return Err(IdentifierError::Zero);
        }
        canonical.push_digits(series, 8..=8)?;
        Ok(self.digest(IdentifierKind::SocialCard, &canonical))
    }

    /// `numSID`: 14 to 19 digits.
    pub fn num_sid(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        canonical.push_digits(raw, 14..=19)?;
        Ok(self.digest(IdentifierKind::NumSid, &canonical))
    }

    /// `cardHash`: 1 to 128 hexadecimal digits, compared without case.
    pub fn card_hash(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        canonical.push_hex(raw)?;
        Ok(self.digest(IdentifierKind::CardHash, &canonical))
    }

    /// A pair of `hashNums`: key id (1 to 20 characters) and 1 to 128 hexadecimal digits.
    pub fn hash_pan(&self, key_id: &str, hash: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        if !(1..=20).contains(&key_id.len()) {
            return Err(IdentifierError::Length);
        }
        key_id.chars().try_for_each(|letter| canonical.push_char(letter))?;
        canonical.push_char('\0')?;
        canonical.push_hex(hash)?;
        Ok(self.digest(IdentifierKind::HashPan, &canonical))
    }

    /// Mifare UID: 4, 7 or 10 bytes in hexadecimal, separators dropped. A 4-byte UID that begins
    /// with 08 is random at every tap and identifies nobody.
    pub fn mifare_uid(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        for letter in raw.chars().filter(|letter| !matches!(letter, ' ' | ':' | '-')) {
            if !letter.is_ascii_hexdigit() {
                return Err(IdentifierError::Format);
            }
            canonical.push_char(letter.to_ascii_uppercase())?;
        }
        let digits = canonical.bytes();
        match digits.len() {
            8 | 14 | 20 if digits.iter().all(|digit| *digit == b'0') => Err(IdentifierError::Zero),
            8 if digits.starts_with(b"08") => Err(IdentifierError::Random),
            8 | 14 | 20 => Ok(self.digest(IdentifierKind::MifareUid, &canonical)),
            length if length % 2 == 1 => Err(IdentifierError::Format),
            // The 16-character example of D2 §4.4 fits no UID; Kurgan's dialect keeps it (C-27).
            16 => Ok(self.digest(IdentifierKind::MifareUid, &canonical)),
            _ => Err(IdentifierError::Length),
        }
    }

    /// Payment account reference: 1 to 64 letters or digits, upper-cased.
    pub fn par(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        canonical.push_ascii_upper(raw, 1..=64)?;
        Ok(self.digest(IdentifierKind::Par, &canonical))
    }

    fn digest(&self, kind: IdentifierKind, canonical: &Canonical) -> Digest {
        digest(&self.0, kind, canonical)
    }
}

impl fmt::Debug for CardKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CardKey(secret)")
    }
}

/// The secrets that identifiers are hashed with; one for the life of a deployment. The one for
/// persons never leaves the server; the one for cards stands behind it as its [`Deref`] target.
#[derive(Clone)]
pub struct DigestKey {
    persons: [u8; 16],
    cards: CardKey,
}

impl DigestKey {
    /// A key from 16 random bytes, for persons and cards alike.
    pub fn new(bytes: [u8; 16]) -> DigestKey {
        DigestKey { persons: bytes, cards: CardKey(bytes) }
    }

    /// This key with another one for cards.
    pub fn with_cards(self, cards: CardKey) -> DigestKey {
        DigestKey { cards, ..self }
    }

    /// The key for cards.
    pub fn cards(&self) -> &CardKey {
        &self.cards
    }

    /// SNILS as on the wire: exactly 11 digits with a right control number.
    pub fn snils(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        canonical.push_digits(raw, 11..=11)?;
        check_snils(canonical.bytes())?;
        Ok(digest(&self.persons, IdentifierKind::Snils, &canonical))
    }

    /// SNILS as people write it: spaces and hyphens are dropped first.
    pub fn snils_written(&self, raw: &str) -> Result<Digest, IdentifierError> {
        let mut canonical = Canonical::new();
        for letter in raw.chars().filter(|letter| !matches!(letter, ' ' | '-')) {
            canonical.push_char(letter)?;
        }
        let text = std::str::from_utf8(canonical.bytes()).map_err(|_| IdentifierError::Format)?;
        self.snils(text)
    }
}

impl Deref for DigestKey {
    type Target = CardKey;

    fn deref(&self) -> &CardKey {
        &self.cards
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DigestKey(secret)")
    }
}

fn digest(key: &[u8; 16], kind: IdentifierKind, canonical: &Canonical) -> Digest {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write_u8(kind as u8);
    hasher.write(canonical.bytes());
    Digest(hasher.finish128().as_bytes())
}

/// Why text is not an identifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentifierError {
    /// The control number does not match.
    #[error("wrong control number")]
    Checksum,
    /// A character that does not belong there.
    #[error("wrong characters")]
    Format,
    /// Too short or too long.
    #[error("wrong length")]
    Length,
    /// A UID that changes at every tap.
    #[error("a random UID identifies nobody")]
    Random,
    /// All digits are zero.
    #[error("all digits are zero")]
    Zero,
}

/// Whether the last digit of `digits` is right by the algorithm of Luhn; all zeros are wrong.
pub fn luhn(digits: &str) -> bool {
    let mut sum = 0;
    let mut nonzero = false;
    for (from_right, digit) in digits.bytes().rev().enumerate() {
        if !digit.is_ascii_digit() {
            return false;
        }
        let value = u32::from(digit - b'0');
        nonzero |= value != 0;
        let doubled = if from_right % 2 == 1 { value * 2 } else { value };
        sum += doubled / 10 + doubled % 10;
    }
    nonzero && sum % 10 == 0
}

/// The control number of a SNILS from its nine digits.
pub fn snils_control(nine: u32) -> u32 {
    let mut sum = 0;
    let mut rest = nine;
    for weight in 1..=9 {
        sum += rest % 10 * weight;
        rest /= 10;
    }
    match sum % 101 {
        100 => 0,
        control => control,
    }
}

fn check_snils(digits: &[u8]) -> Result<(), IdentifierError> {
    let number = |part: &[u8]| part.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let (nine, control) = digits.split_at_checked(9).ok_or(IdentifierError::Length)?;
    let (nine, control) = (number(nine), number(control));
    if nine == 0 && control == 0 {
        return Err(IdentifierError::Zero);
    }
    if nine > SNILS_UNCHECKED_MAX && control != snils_control(nine) {
        return Err(IdentifierError::Checksum);
    }
    Ok(())
}

/// A canonical form under construction, on the stack.
struct Canonical {
    bytes: [u8; CANONICAL_BYTES_MAX],
    length: usize,
}

impl Canonical {
    fn new() -> Canonical {
        Canonical { bytes: [0; CANONICAL_BYTES_MAX], length: 0 }
    }

    fn push_char(&mut self, letter: char) -> Result<(), IdentifierError> {
        let mut utf8 = [0; 4];
        let utf8 = letter.encode_utf8(&mut utf8).as_bytes();
        let end = self.length + utf8.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(IdentifierError::Length)?;
        place.copy_from_slice(utf8);
        self.length = end;
        Ok(())
    }

    fn push_digits(
        &mut self,
        raw: &str,
        lengths: std::ops::RangeInclusive<usize>,
    ) -> Result<(), IdentifierError> {
        if !raw.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IdentifierError::Format);
        }
        if !lengths.contains(&raw.len()) {
            return Err(IdentifierError::Length);
        }
        let end = self.length + raw.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(IdentifierError::Length)?;
        place.copy_from_slice(raw.as_bytes());
        self.length = end;
        Ok(())
    }

    fn push_ascii_upper(
        &mut self,
        raw: &str,
        lengths: std::ops::RangeInclusive<usize>,
    ) -> Result<(), IdentifierError> {
        if !lengths.contains(&raw.len()) {
            return Err(IdentifierError::Length);
        }
        let end = self.length + raw.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(IdentifierError::Length)?;
        for (place, byte) in place.iter_mut().zip(raw.bytes()) {
            if !byte.is_ascii_alphanumeric() {
                return Err(IdentifierError::Format);
            }
            *place = byte.to_ascii_uppercase();
        }
        self.length = end;
        Ok(())
    }

    fn push_hex(&mut self, raw: &str) -> Result<(), IdentifierError> {
        if !(1..=128).contains(&raw.len()) {
            return Err(IdentifierError::Length);
        }
        for letter in raw.chars() {
            if !letter.is_ascii_hexdigit() {
                return Err(IdentifierError::Format);
            }
            self.push_char(letter.to_ascii_lowercase())?;
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DigestKey {
        DigestKey::new(*b"0123456789abcdef")
    }

    #[test]
    fn snils_control_numbers() {
        // Edges of the catalogue: sums 99, 100, 101, 102, 201, 202, 302.
        for good in [
            "11223344595",
            "08765430300",
            "59492311630",
            "92000001099",
            "92000010000",
            "92000100000",
            "92001000001",
            "99610000000",
            "99700000000",
            "99996001000",
            "00100199800",
            "00100199864",
            "00100199965",
        ] {
            assert!(key().snils(good).is_ok(), "{good}");
        }
        let check = |raw, expected| assert_eq!(key().snils(raw), Err(expected), "{raw}");
        check("11223344594", IdentifierError::Checksum);
        check("11134534511", IdentifierError::Checksum);
        check("00100199900", IdentifierError::Checksum);
        check("00000000000", IdentifierError::Zero);
        check("1122334459", IdentifierError::Length);
        check("1122334459x", IdentifierError::Format);
        check("112-233-445 95", IdentifierError::Format);
        assert_eq!(key().snils_written("112-233-445 95"), key().snils("11223344595"));
    }

    #[test]
    fn mifare_uids() {
        let check = |raw, expected| assert_eq!(key().mifare_uid(raw), expected, "{raw}");
        check("1a:2b:3c:4d", key().mifare_uid("1A2B3C4D"));
        check("04 BC D4 C2 E0 5C 80", key().mifare_uid("04BCD4C2E05C80"));
        check("08A1B2C3", Err(IdentifierError::Random));
        check("00000000", Err(IdentifierError::Zero));
        check("1A2B3C4", Err(IdentifierError::Format));
        check("1A2B3C4G", Err(IdentifierError::Format));
        assert!(key().mifare_uid("1234567891010032").is_ok());
    }

    #[test]
    fn client_codes_compare_without_case() {
        assert_eq!(key().client_code("aaabbbccc"), key().client_code("AAABBBCCC"));
        assert!(key().client_code("ААААБББ01").is_ok());
        assert_eq!(key().client_code(""), Err(IdentifierError::Length));
        assert_eq!(key().client_code("1234567890123456"), Err(IdentifierError::Length));
        assert_eq!(key().client_code("AAA BBB"), Err(IdentifierError::Format));
    }

    #[test]
    fn social_cards_are_number_and_series() {
        assert!(key().social_card("9643901401015000019", "14010125").is_ok());
        let check = |number, series, expected| {
            assert_eq!(key().social_card(number, series), Err(expected));
        };
        check("964390140101500001X", "14010125", IdentifierError::Format);
        check("964390140101500001", "14010125", IdentifierError::Length);
        check("9643901401015000019", "1401012", IdentifierError::Length);
        check("0000000000000000000", "14010125", IdentifierError::Zero);
    }

    #[test]
    fn persons_and_cards_have_keys_of_their_own() {
        let split = key().with_cards(CardKey::new([9; 16]));
        assert_eq!(split.snils("11223344595"), key().snils("11223344595"));
        assert_ne!(split.client_code("A1"), key().client_code("A1"));
        assert_eq!(split.client_code("A1"), CardKey::new([9; 16]).client_code("A1"));
        assert_eq!(split.cards().secret(), [9; 16]);
    }

    #[test]
    fn kinds_do_not_meet() {
        assert_ne!(key().client_code("12345678901234"), key().num_sid("12345678901234"));
        assert_ne!(key().hash_pan("a", "bb"), key().hash_pan("ab", "b"));
    }

    #[test]
    fn luhn_digits() {
        for good in ["9643901401015000019", "2200000000000012", "9645010000000019"] {
            assert!(luhn(good), "{good}");
        }
        assert!(!luhn("4111111111111112"));
        assert!(!luhn("0000000000000000"));
    }
}
