//! What a reader has read of a card, and its keyed digest, which is all that leaves the device.

use engine::identifier::{CardKey, Digest, IdentifierError};
use serde::Deserialize;

/// Digits of the number within a barcode.
const BARCODE_NUMBER: usize = 19;

/// What a reader has read.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Card {
    /// A Code 128 barcode: number and series of a social card.
    Barcode(String),
    /// The card hash of D2.
    CardHash(String),
    /// The holder's code.
    ClientCode(String),
    /// A hash of the card number, and which key it was made with.
    HashPan {
        /// Which key.
        key_id: String,
        /// The hash, hexadecimal.
        hash: String,
    },
    /// UID of a chip, hexadecimal.
    MifareUid(String),
    /// Number of a social card as D2 has it.
    NumSid(String),
    /// Payment account reference.
    Par(String),
    /// A QR code with the number of a social card.
    Qr(String),
    /// Number and series of a social card.
    SocialCard {
        /// 19 digits.
        number: String,
        /// 8 digits.
        series: String,
    },
}

impl Card {
    /// The keyed digest.
    pub fn digest(&self, key: &CardKey) -> Result<Digest, IdentifierError> {
        match self {
            Card::Barcode(raw) => {
                let digits: String = raw.chars().filter(char::is_ascii_alphanumeric).collect();
                let parts = digits.split_at_checked(BARCODE_NUMBER);
                let (number, series) = parts.ok_or(IdentifierError::Length)?;
                key.social_card(number, series)
            }
            Card::CardHash(raw) => key.card_hash(raw),
            Card::ClientCode(raw) => key.client_code(raw),
            Card::HashPan { key_id, hash } => key.hash_pan(key_id, hash),
            Card::MifareUid(raw) => key.mifare_uid(raw),
            Card::NumSid(raw) | Card::Qr(raw) => key.num_sid(raw),
            Card::Par(raw) => key.par(raw),
            Card::SocialCard { number, series } => key.social_card(number, series),
        }
    }
}

impl std::fmt::Debug for Card {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Card(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the page for device makers.
    #[test]
    fn a_digest_is_as_the_page_says() {
        let page = include_str!("../../README.md");
        let key = CardKey::new(std::array::from_fn(|at| at as u8));
        let Digest(digest) = key.mifare_uid("04:bc:d4:c2:e0:5c:80").unwrap();
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "6b6e322b1a796cf1516a43ae265ed2fd");
        assert!(page.contains(&format!("its digest is `{text}`")));
        assert!(page.contains("the key `000102030405060708090a0b0c0d0e0f`"));
    }

    #[test]
    fn a_barcode_is_number_and_series() {
        let key = CardKey::new([1; 16]);
        let barcode = Card::Barcode("9643901401015 000019-14010125".to_owned());
        let number = "9643901401015000019".to_owned();
        let card = Card::SocialCard { number, series: "14010125".to_owned() };
        assert_eq!(barcode.digest(&key), card.digest(&key));
        let short = Card::Barcode("96439014010150000191401012".to_owned());
        assert_eq!(short.digest(&key), Err(IdentifierError::Length));
        assert_eq!(format!("{card:?}"), "Card(secret)");
    }
}
