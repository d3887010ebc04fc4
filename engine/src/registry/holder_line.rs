//! A holder's line: cards, rights, and identifiers turned into digests on the spot.

use crate::calendar::Day;
use crate::holder::{BlockedBy, Card, CardKind, CardStatus, Holder, HolderIdentifier, Right};
use crate::identifier::{Digest, DigestKey, IdentifierError, IdentifierKind};
use crate::ids::{CategoryId, HolderId};
use crate::limits::{CARDS_PER_HOLDER_MAX, IDENTIFIERS_PER_HOLDER_MAX, RIGHTS_PER_HOLDER_MAX};
use crate::registry::change::RegistryChange;
use crate::registry::fault::LineFault;
use crate::registry::field;
use crate::registry::line::{CardLine, HolderLine, Object, Text};

const CARD_KINDS: &[(&str, CardKind)] = &[
    ("ecs", CardKind::Ecs),
    ("social", CardKind::Social),
    ("resident", CardKind::Resident),
    ("esk_bank", CardKind::EskBank),
    ("esk_nonfin", CardKind::EskNonfin),
    ("virtual", CardKind::Virtual),
];
const BLOCKERS: &[(&str, BlockedBy)] = &[
    ("bank", BlockedBy::Bank),
    ("holder", BlockedBy::Holder),
    ("department", BlockedBy::Department),
    ("system", BlockedBy::System),
];
/// `None` where `blocked_by` completes the status.
const CARD_STATUSES: &[(&str, Option<CardStatus>)] = &[
    ("active", Some(CardStatus::Active)),
    ("blocked", None),
    ("replaced", Some(CardStatus::Replaced)),
    ("closed", Some(CardStatus::Closed)),
];
/// Whether a holder with this status is out of the programme.
const HOLDER_STATUSES: &[(&str, bool)] = &[("active", false), ("closed", true)];

/// The change that a holder's line asks for.
pub fn change(line: HolderLine<'_>, key: &DigestKey) -> Result<RegistryChange, LineFault> {
    let id = HolderId(field::large_id("id", line.id)?);
    if line.deleted == Some(true) {
        return Ok(RegistryChange::Holder(id, None));
    }
    let closed = match line.status {
        Some(status) => field::word("status", status.as_str(), HOLDER_STATUSES)?,
        None => false,
    };
    let region = field::region("region", line.region)?;
    let lines = line.cards.unwrap_or_default();
    if lines.len() > CARDS_PER_HOLDER_MAX {
        return Err(too_many("cards", CARDS_PER_HOLDER_MAX));
    }
    let mut identifiers =
        Identifiers { found: Vec::with_capacity(1 + 2 * lines.len()), card: None };
    if let Some(snils) = line.snils {
        identifiers.push("snils", IdentifierKind::Snils, key.snils_written(snils.as_str()))?;
    }
    let mut cards = Vec::with_capacity(lines.len());
    for (position, Object(line)) in (0..).zip(lines) {
        identifiers.card = Some(position);
        card_identifiers(&line, key, &mut identifiers)?;
        cards.push(card(line)?);
    }
    let active_residents = cards
        .iter()
        .filter(|card| card.kind == CardKind::Resident && card.status == CardStatus::Active);
    if active_residents.count() > 1 {
        return Err(LineFault::of_field("cards", "a second active `resident` card"));
    }
    let lines = line.categories.unwrap_or_default();
    if lines.len() > RIGHTS_PER_HOLDER_MAX {
        return Err(too_many("categories", RIGHTS_PER_HOLDER_MAX));
    }
    let mut rights = Vec::with_capacity(lines.len());
    for Object(line) in lines {
        let category = CategoryId(field::small_id("category", line.category)?);
        rights.push(Right { category, validity: field::validity(line.valid_from, line.valid_to)? });
    }
    let identifiers = identifiers.found;
    Ok(RegistryChange::Holder(id, Some(Holder { id, region, closed, cards, rights, identifiers })))
}

fn card(line: CardLine<'_>) -> Result<Card, LineFault> {
    let kind = field::required("type", line.card_type)?;
    let kind = field::word("type", kind.as_str(), CARD_KINDS)?;
    let status = status(line.status, line.blocked_by)?;
    let issued = field::day("issued", line.issued, Day::BEGINNING)?;
    let expires = field::day("expires", line.expires, Day::FOREVER)?;
    if issued > expires {
        return Err(LineFault::of_field("issued", "after `expires`"));
    }
    Ok(Card { kind, status, issued, expires })
}

/// `blocked_by` is there exactly when the card is blocked.
fn status(status: Option<Text<'_>>, blocked_by: Option<Text<'_>>) -> Result<CardStatus, LineFault> {
    let status = match status {
        Some(status) => field::word("status", status.as_str(), CARD_STATUSES)?,
        None => Some(CardStatus::Active),
    };
    match (status, blocked_by) {
        (None, Some(by)) => {
            Ok(CardStatus::Blocked(field::word("blocked_by", by.as_str(), BLOCKERS)?))
        }
        (None, None) => Err(LineFault::of_field("blocked_by", "missing")),
        (Some(_), Some(_)) => {
            Err(LineFault::of_field("blocked_by", "given for a card that is not blocked"))
        }
        (Some(status), None) => Ok(status),
    }
}

fn card_identifiers(
    line: &CardLine<'_>,
    key: &DigestKey,
    identifiers: &mut Identifiers,
) -> Result<(), LineFault> {
    if let Some(code) = &line.client_code {
        let digest = key.client_code(code.as_str());
        identifiers.push("client_code", IdentifierKind::ClientCode, digest)?;
    }
    match (&line.number, &line.series) {
        (Some(number), Some(series)) => {
            let digest = key.social_card(number.as_str(), series.as_str());
            identifiers.push("number", IdentifierKind::SocialCard, digest)?;
        }
        (Some(_), None) => return Err(LineFault::of_field("series", "missing beside `number`")),
        (None, Some(_)) => return Err(LineFault::of_field("number", "missing beside `series`")),
        (None, None) => {}
    }
    if let Some(num_sid) = &line.num_sid {
        let digest = key.num_sid(num_sid.as_str());
        identifiers.push("num_sid", IdentifierKind::NumSid, digest)?;
    }
    if let Some(hash) = &line.card_hash {
        let digest = key.card_hash(hash.as_str());
        identifiers.push("card_hash", IdentifierKind::CardHash, digest)?;
    }
    for Object(pair) in line.hashes.iter().flatten() {
        let key_id = field::required("key_id", pair.key_id.as_ref())?;
        let hash = field::required("hash", pair.hash.as_ref())?;
        let digest = key.hash_pan(key_id.as_str(), hash.as_str());
        identifiers.push("hashes", IdentifierKind::HashPan, digest)?;
    }
    if let Some(uid) = &line.mifare_uid {
        let digest = key.mifare_uid(uid.as_str());
        identifiers.push("mifare_uid", IdentifierKind::MifareUid, digest)?;
    }
    if let Some(par) = &line.par {
        identifiers.push("par", IdentifierKind::Par, key.par(par.as_str()))?;
    }
    Ok(())
}

/// The identifiers of one holder under collection.
struct Identifiers {
    found: Vec<HolderIdentifier>,
    /// The card that the next ones stand on.
    card: Option<u8>,
}

impl Identifiers {
    fn push(
        &mut self,
        field: &'static str,
        kind: IdentifierKind,
        digest: Result<Digest, IdentifierError>,
    ) -> Result<(), LineFault> {
        let digest = field::identifier(field, digest)?;
        if self.found.iter().any(|earlier| earlier.digest == digest) {
            return Err(LineFault::of_field(field, "the same identifier twice"));
        }
        if self.found.len() == IDENTIFIERS_PER_HOLDER_MAX {
            let reason =
                format!("more than {IDENTIFIERS_PER_HOLDER_MAX} identifiers of one holder");
            return Err(LineFault::of_field(field, reason));
        }
        self.found.push(HolderIdentifier { digest, kind, card: self.card });
        Ok(())
    }
}

fn too_many(field: &'static str, most: usize) -> LineFault {
    LineFault::of_field(field, format!("more than {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::calendar::Validity;
    use crate::ids::RegionCode;
    use crate::keys::{Keys, SecretKey};
    use crate::registry::file::parse_line;

    fn key() -> DigestKey {
        DigestKey::new([7; 16])
    }

    fn parse(line: &str) -> Result<RegistryChange, LineFault> {
        let keys = Keys { identifiers: key(), secrets: SecretKey::new([9; 32]) };
        parse_line(line.as_bytes(), &keys)
    }

    /// A holder with these fields besides the required ones.
    fn holder(fields: &str) -> Result<Holder, String> {
        let fields = if fields.is_empty() { String::new() } else { format!(",{fields}") };
        match parse(&format!(r#"{{"kind":"holder","id":1,"region":"14"{fields}}}"#)) {
            Ok(RegistryChange::Holder(HolderId(1), Some(holder))) => Ok(holder),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn check(fields: &str, expected: &str) {
        assert_eq!(holder(fields), Err(expected.to_owned()), "{fields}");
    }

    fn check_card(fields: &str, expected: &str) {
        check(&format!(r#""cards":[{{"type":"ecs",{fields}}}]"#), expected);
    }

    fn accepts_card(fields: &str) -> Holder {
        holder(&format!(r#""cards":[{{"type":"ecs",{fields}}}]"#)).unwrap()
    }

    #[test]
    fn the_example_of_the_format_is_read() {
        let line = r#"{"kind":"holder","id":1,"snils":"59492311630","region":"14","cards":[{"type":"ecs","client_code":"AAABBBCCC"},{"type":"ecs","client_code":"AAABBBCC0","status":"replaced"},{"type":"social","number":"9643901401015000019","series":"14010125","expires":"2027-12-31"}],"categories":[{"category":10,"valid_to":"2025-05-31"},{"category":20,"valid_from":"2024-01-01","valid_to":"2026-12-31"},{"category":30}]}"#;
        let day = |text| Day::parse(text).unwrap();
        let card = |kind, status, expires| Card { kind, status, issued: Day::BEGINNING, expires };
        let right = |category, from, to| Right {
            category: CategoryId(category),
            validity: Validity { from, to },
        };
        let identifier = |kind, card, digest: Result<Digest, IdentifierError>| HolderIdentifier {
            digest: digest.unwrap(),
            kind,
            card,
        };
        let expected = Holder {
            id: HolderId(1),
            region: RegionCode(14),
            closed: false,
            cards: vec![
                card(CardKind::Ecs, CardStatus::Active, Day::FOREVER),
                card(CardKind::Ecs, CardStatus::Replaced, Day::FOREVER),
                card(CardKind::Social, CardStatus::Active, day("2027-12-31")),
            ],
            rights: vec![
                right(10, Day::BEGINNING, day("2025-05-31")),
                right(20, day("2024-01-01"), day("2026-12-31")),
                right(30, Day::BEGINNING, Day::FOREVER),
            ],
            identifiers: vec![
                identifier(IdentifierKind::Snils, None, key().snils("59492311630")),
                identifier(IdentifierKind::ClientCode, Some(0), key().client_code("AAABBBCCC")),
                identifier(IdentifierKind::ClientCode, Some(1), key().client_code("AAABBBCC0")),
                identifier(
                    IdentifierKind::SocialCard,
                    Some(2),
                    key().social_card("9643901401015000019", "14010125"),
                ),
            ],
        };
        assert_eq!(parse(line), Ok(RegistryChange::Holder(HolderId(1), Some(expected))));
    }

    #[test]
    fn holders_have_few_required_fields() {
        let bare = holder("").unwrap();
        assert!(!bare.closed && bare.cards.is_empty() && bare.identifiers.is_empty());
        assert!(holder(r#""status":"closed""#).unwrap().closed);
        check(r#""status":"dead""#, "`status`: none of `active`, `closed`");
        let fault = |line| parse(line).unwrap_err().to_string();
        assert_eq!(fault(r#"{"kind":"holder","id":1}"#), "`region`: missing");
        assert_eq!(fault(r#"{"kind":"holder","region":"14"}"#), "`id`: missing");
        assert_eq!(fault(r#"{"kind":"holder","id":0,"region":"14"}"#), "`id`: not positive");
        let deleted = parse(r#"{"kind":"holder","id":1,"deleted":true,"snils":"1"}"#);
        assert_eq!(deleted, Ok(RegistryChange::Holder(HolderId(1), None)));
    }

    #[test]
    fn every_identifier_leads_to_its_card() {
        let holder = accepts_card(
            r#""client_code":"A1","number":"9643901401015000019","series":"14010125",
               "num_sid":"9645010000000019","card_hash":"AB","hashes":[{"key_id":"K1","hash":"0f"},
               {"key_id":"K2","hash":"0f"}],"mifare_uid":"04:BC:D4:C2:E0:5C:80","par":"abc""#,
        );
        let expected = [
            (IdentifierKind::ClientCode, key().client_code("a1")),
            (IdentifierKind::SocialCard, key().social_card("9643901401015000019", "14010125")),
            (IdentifierKind::NumSid, key().num_sid("9645010000000019")),
            (IdentifierKind::CardHash, key().card_hash("ab")),
            (IdentifierKind::HashPan, key().hash_pan("K1", "0F")),
            (IdentifierKind::HashPan, key().hash_pan("K2", "0F")),
            (IdentifierKind::MifareUid, key().mifare_uid("04BCD4C2E05C80")),
            (IdentifierKind::Par, key().par("ABC")),
        ];
        let expected = expected.map(|(kind, digest)| HolderIdentifier {
            digest: digest.unwrap(),
            kind,
            card: Some(0),
        });
        assert_eq!(holder.identifiers, expected);
    }

    #[test]
    fn identifiers_are_checked_and_never_quoted() {
        check(r#""snils":"11223344594""#, "`snils`: wrong control number");
        check(r#""snils":"000-000-000 00""#, "`snils`: all digits are zero");
        check(r#""snils":"1122334459""#, "`snils`: wrong length");
        check(r#""snils":59492311630"#, "`snils`: not a string");
        assert_eq!(holder(r#""snils":"594-923-116 30""#), holder(r#""snils":"59492311630""#));
        check_card(r#""client_code":"A B""#, "`client_code`: wrong characters");
        check_card(r#""client_code":"1234567890123456""#, "`client_code`: wrong length");
        check_card(r#""number":"9643901401015000019""#, "`series`: missing beside `number`");
        check_card(r#""series":"14010125""#, "`number`: missing beside `series`");
        check_card(r#""number":"1","series":"14010125""#, "`number`: wrong length");
        check_card(r#""num_sid":"1234567890123""#, "`num_sid`: wrong length");
        check_card(r#""card_hash":"xy""#, "`card_hash`: wrong characters");
        check_card(r#""hashes":[{"hash":"ab"}]"#, "`key_id`: missing");
        check_card(r#""hashes":[{"key_id":"K"}]"#, "`hash`: missing");
        check_card(r#""hashes":[{"key_id":"","hash":"ab"}]"#, "`hashes`: wrong length");
        check_card(r#""hashes":["ab"]"#, "`hashes`: not an object");
        let random = "`mifare_uid`: a random UID identifies nobody";
        check_card(r#""mifare_uid":"08A1B2C3""#, random);
        check_card(r#""par":"a-b""#, "`par`: wrong characters");
    }

    #[test]
    fn an_identifier_stands_once_in_a_holder() {
        let two = |one: &str, other: &str| {
            format!(r#""cards":[{{"type":"ecs",{one}}},{{"type":"social",{other}}}]"#)
        };
        let twice = "`client_code`: the same identifier twice";
        check(&two(r#""client_code":"aa""#, r#""client_code":"AA""#), twice);
        let hash = r#""hashes":[{"key_id":"K","hash":"ab"}]"#;
        check(&two(hash, hash), "`hashes`: the same identifier twice");
        let other_key = r#""hashes":[{"key_id":"L","hash":"ab"}]"#;
        assert!(holder(&two(hash, other_key)).is_ok());
    }

    #[test]
    fn cards_have_kinds_statuses_and_dates() {
        for (word, kind) in CARD_KINDS {
            let holder = holder(&format!(r#""cards":[{{"type":"{word}"}}]"#)).unwrap();
            assert_eq!(holder.cards.first().unwrap().kind, *kind);
        }
        check(r#""cards":[{}]"#, "`type`: missing");
        check(r#""cards":[["ecs"]]"#, "`cards`: not an object");
        let kinds = "`type`: none of `ecs`, `social`, `resident`, `esk_bank`, `esk_nonfin`, \
                     `virtual`";
        check(r#""cards":[{"type":"mir"}]"#, kinds);
        let status = |fields: &str| accepts_card(fields).cards.first().unwrap().status;
        assert_eq!(status(r#""status":"active""#), CardStatus::Active);
        assert_eq!(status(r#""status":"replaced""#), CardStatus::Replaced);
        assert_eq!(status(r#""status":"closed""#), CardStatus::Closed);
        for (word, by) in BLOCKERS {
            let fields = format!(r#""status":"blocked","blocked_by":"{word}""#);
            assert_eq!(status(&fields), CardStatus::Blocked(*by));
        }
        let statuses = "`status`: none of `active`, `blocked`, `replaced`, `closed`";
        check_card(r#""status":"expired""#, statuses);
        check_card(r#""status":"blocked""#, "`blocked_by`: missing");
        let extra = "`blocked_by`: given for a card that is not blocked";
        check_card(r#""blocked_by":"bank""#, extra);
        let blockers = "`blocked_by`: none of `bank`, `holder`, `department`, `system`";
        check_card(r#""status":"blocked","blocked_by":"police""#, blockers);
        check_card(r#""issued":"2025""#, "`issued`: not a date like `2025-12-31`");
        let reversed = r#""issued":"2025-01-02","expires":"2025-01-01""#;
        check_card(reversed, "`issued`: after `expires`");
    }

    #[test]
    fn one_resident_card_is_active() {
        let cards = |one: &str, other: &str| {
            format!(r#""cards":[{{"type":"resident"{one}}},{{"type":"resident"{other}}}]"#)
        };
        check(&cards("", ""), "`cards`: a second active `resident` card");
        assert!(holder(&cards("", r#","status":"replaced""#)).is_ok());
        let blocked = r#","status":"blocked","blocked_by":"bank""#;
        assert!(holder(&cards(blocked, "")).is_ok());
    }

    #[test]
    fn rights_are_checked() {
        check(r#""categories":[{}]"#, "`category`: missing");
        check(r#""categories":[10]"#, "`categories`: not an object");
        let reversed = r#"{"category":1,"valid_from":"2025-02-01","valid_to":"2025-01-31"}"#;
        check(&format!(r#""categories":[{reversed}]"#), "`valid_from`: after `valid_to`");
        check(r#""categories":[{"category":1,"vaild_to":null}]"#, "unknown field `vaild_to`");
    }

    #[test]
    fn lists_have_limits() {
        let list =
            |field, item: &str, count| format!(r#""{field}":[{}]"#, vec![item; count].join(","));
        let card = r#"{"type":"ecs"}"#;
        assert!(holder(&list("cards", card, CARDS_PER_HOLDER_MAX)).is_ok());
        check(&list("cards", card, CARDS_PER_HOLDER_MAX + 1), "`cards`: more than 64");
        let right = r#"{"category":1}"#;
        assert!(holder(&list("categories", right, RIGHTS_PER_HOLDER_MAX)).is_ok());
        let expected = "`categories`: more than 64";
        check(&list("categories", right, RIGHTS_PER_HOLDER_MAX + 1), expected);
        let hashes = |count| {
            let hashes: Vec<String> =
                (0..count).map(|hash| format!(r#"{{"key_id":"K","hash":"{hash:04x}"}}"#)).collect();
            format!(r#""cards":[{{"type":"ecs","hashes":[{}]}}]"#, hashes.join(","))
        };
        assert!(holder(&hashes(IDENTIFIERS_PER_HOLDER_MAX)).is_ok());
        let expected = "`hashes`: more than 256 identifiers of one holder";
        check(&hashes(IDENTIFIERS_PER_HOLDER_MAX + 1), expected);
    }
}
