//! How checks are read and answered, and that no mutation of a request is read as anything else.

use engine::command::Granted;
use engine::ids::{CategoryId, HolderId, TransactionId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::api::settle::{CancelFields, ConfirmFields};
use crate::api::transactions::TransactionsFields;
use crate::fixture;
use crate::settings::AreaFields;

fn read(
    api_type: ApiType,
    field_for_type: FieldForType,
    body: &[u8],
) -> Result<CheckRequest, ApiError> {
    let key = &fixture::keys().engine.identifiers;
    CheckReader { api_type, field_for_type, key }.read(&fields::parse(body)?)
}

fn check(api_type: ApiType, given: &str, expected: Option<ApiError>) {
    let body = format!("{{\"serviceId\":1,\"organizationTerminalId\":2{given}}}");
    let read = read(api_type, FieldForType::Strict, body.as_bytes());
    assert_eq!(read.err(), expected, "{given}");
}

#[test]
fn identifiers_follow_the_acceptance_table() {
    // Row Y6.
    let one = |given, expected| check(ApiType::One, given, expected);
    one(",\"clientCode\":\"AAABBBCCC\"", None);
    one("", Some(ApiError::MissingField));
    one(",\"clientCode\":null", Some(ApiError::MissingField));
    one(
        ",\"clientCode\":\"AAABBBCCC\",\"clientSnils\":\"59492311630\"",
        Some(ApiError::ConflictingIds),
    );
    one(",\"cardNumber\":\"9643901401015000019\"", Some(ApiError::MissingField));
    one(",\"cardSeries\":\"14010125\"", Some(ApiError::MissingField));
    one(",\"cardNumber\":\"9643901401015000019\",\"cardSeries\":\"14010125\"", None);
    one(",\"clientCode\":\"AAAABBBBCCCCDDDD\"", Some(ApiError::BadFormat));
    one(
        ",\"cardNumber\":\"964390140101500001X\",\"cardSeries\":\"14010125\"",
        Some(ApiError::BadFormat),
    );
    one(",\"clientCode\":5", Some(ApiError::BadFormat));
    one(",\"cardSeries\":\"1\",\"clientCode\":\"A\"", Some(ApiError::ConflictingIds));
}

#[test]
fn fields_follow_the_connection_type() {
    // Row Y7.
    let snils = ",\"clientSnils\":\"59492311630\"";
    let code = ",\"clientCode\":\"AAABBBCCC\"";
    let foreign = Some(ApiError::FieldNotForType);
    check(ApiType::One, snils, foreign);
    check(ApiType::Two, snils, None);
    check(ApiType::Three, snils, foreign);
    check(ApiType::Two, code, foreign);
    check(ApiType::Two, ",\"cardNumber\":\"1\"", foreign);
    check(ApiType::Three, &format!("{code},\"price\":150.5"), None);
    check(ApiType::Three, &format!("{code},\"price\":1.005"), Some(ApiError::BadFormat));
    check(ApiType::One, &format!("{code},\"price\":150.5"), foreign);
    check(ApiType::One, &format!("{code},\"price\":null"), None);
    check(ApiType::Two, ",\"clientSnils\":\"59492311631\"", Some(ApiError::BadFormat));
    check(ApiType::Two, ",\"clientSnils\":\"594-923-116 30\"", Some(ApiError::BadFormat));
}

#[test]
fn a_check_tells_what_carries_its_identifier() {
    let check = |api_type, given: &str, expected| {
        let body = format!("{{\"serviceId\":1,\"organizationTerminalId\":2{given}}}");
        let read = read(api_type, FieldForType::Lenient, body.as_bytes());
        assert_eq!(read.map(|request| request.carrier), Ok(expected), "{given}");
    };
    let card = ",\"cardNumber\":\"9643901401015000019\",\"cardSeries\":\"14010125\"";
    check(ApiType::One, card, Carrier::Social);
    check(ApiType::One, ",\"clientCode\":\"AAABBBCCC\"", Carrier::Ecs);
    check(ApiType::Two, ",\"clientSnils\":\"59492311630\"", Carrier::Snils);
}

#[test]
fn leniency_ignores_and_tells() {
    let check = |given: &str, expected: Result<bool, ApiError>| {
        let body = format!("{{\"serviceId\":1,\"organizationTerminalId\":2{given}}}");
        let read = read(ApiType::One, FieldForType::Lenient, body.as_bytes());
        assert_eq!(read.map(|request| request.lenient), expected, "{given}");
    };
    check(",\"clientCode\":\"A\"", Ok(false));
    check(",\"clientCode\":\"A\",\"price\":\"any\"", Ok(true));
    check(",\"clientSnils\":\"59492311630\"", Err(ApiError::MissingField));
}

#[test]
fn numbers_and_bodies_have_their_errors() {
    let check = |body: &[u8], expected: Option<ApiError>| {
        let read = read(ApiType::One, FieldForType::Strict, body);
        assert_eq!(read.err(), expected, "{}", String::from_utf8_lossy(body));
    };
    let with = |service: &str, terminal: &str| {
        format!(
            "{{\"serviceId\":{service},\"organizationTerminalId\":{terminal},\
             \"clientCode\":\"A\",\"unknown\":[1,{{}}]}}"
        )
    };
    check(with("-1", "99999999999").as_bytes(), None);
    check(with("1.0", "2").as_bytes(), Some(ApiError::BadFormat));
    check(with("\"1\"", "2").as_bytes(), Some(ApiError::BadFormat));
    check(with("1", "9223372036854775808").as_bytes(), Some(ApiError::BadFormat));
    check(with("null", "2").as_bytes(), Some(ApiError::MissingField));
    check(b"{\"clientCode\":\"\xff\"}", Some(ApiError::BadJson));
    check(b"", Some(ApiError::BadJson));
    check(b"[1,2,\"A\"]", Some(ApiError::BadJson));
    check("[".repeat(60_000).as_bytes(), Some(ApiError::BadJson));
    check(format!("{{\"x\":{}", "[".repeat(60_000)).as_bytes(), Some(ApiError::BadJson));
}

#[test]
fn answers_are_printed_as_in_the_acceptance_table() {
    let directory = fixture::directory(|_| ());
    let check = |success_result_code, answer: CheckAnswer, expected: &str| {
        let dialect = Dialect {
            success_result_code,
            field_for_type: FieldForType::Strict,
            area_fields: AreaFields::Both,
            benefits: Benefits::All,
            type3_confirm: Type3Confirm::Deny,
        };
        let mut out = String::new();
        write_open(&mut out, &directory, &dialect, &answer, &[]);
        out.push('}');
        assert_eq!(out, expected);
    };
    let granted = CheckAnswer::Granted(Granted {
        transaction: TransactionId(1),
        holder: HolderId(1),
        category: CategoryId(20),
    });
    check(
        0,
        granted,
        "{\"resultCode\":0,\"transactionId\":1,\"clientId\":1,\
         \"benefits\":[{\"benefitCategory\":{\"id\":20,\"name\":\"Ветеран труда\"}}]}",
    );
    check(
        1,
        granted,
        "{\"resultCode\":1,\"transactionId\":1,\"clientId\":1,\
         \"benefits\":[{\"benefitCategory\":{\"id\":20,\"name\":\"Ветеран труда\"}}]}",
    );
    check(
        0,
        CheckAnswer::Refused(Refusal::NoBenefit),
        "{\"resultCode\":1,\
         \"resultMessage\":\"У владельца карты ЕЦС отсутствует льгота у данного Акцептанта\",\
         \"transactionId\":0,\"clientId\":0,\"benefits\":[]}",
    );
    let refused = |refusal, code: u8, text: &str| {
        let answer = match refusal {
            Some(refusal) => CheckAnswer::Refused(refusal),
            None => CheckAnswer::Unavailable,
        };
        let expected = format!(
            "{{\"resultCode\":{code},\"resultMessage\":\"{text}\",\
             \"transactionId\":0,\"clientId\":0,\"benefits\":[]}}"
        );
        check(0, answer, &expected);
    };
    let unknown = "Ошибка ввода кода держателя КЖЯ - клиент не найден";
    refused(Some(Refusal::HolderNotFound), 2, unknown);
    refused(Some(Refusal::CardInactive), 5, "Карта ЕЦС имеет неактивный статус");
    refused(None, 6, "Отсутствует связь с процессинговым центром");
    refused(Some(Refusal::OrganizationUnknown), 7, "ID участника отсутствует в системе");
    refused(Some(Refusal::ServiceUnknown), 8, "Код типа услуги не найден");
}

/// Requests that are good, for mutation.
const REQUESTS: [&str; 4] = [
    "{\"serviceId\":1,\"organizationTerminalId\":2,\"clientCode\":\"AAABBBCCC\",\"price\":150.5}",
    "{\"serviceId\":1,\"organizationTerminalId\":2,\"cardNumber\":\"9643901401015000019\",\
     \"cardSeries\":\"14010125\",\"clientSnils\":null}",
    "{\"clientId\":1,\"benefitCategoryId\":20,\"transactionId\":1,\"price\":300,\
     \"discountedPrice\":100.05}",
    "{\"clientCode\":\"AAABBBCCC\",\"dateFrom\":\"2025-06-01\",\"creationDateTo\":\"2025-06-30\",\
     \"pageIndex\":0,\"pageSize\":50}",
];

/// Pieces that broken clients and attackers like.
const PIECES: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\u0000",
    "\\",
    "null",
    "-1",
    "1e9",
    "1.005",
    "\u{feff}",
    "99999999999999999999",
    "true",
];

fn mutate(random: &mut SmallRng, request: &str) -> Vec<u8> {
    let mut bytes = request.as_bytes().to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            3 if at < bytes.len() => {
                bytes.remove(at);
            }
            4 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
            _ => {
                let from = random.random_range(0..=at);
                let copy = bytes[from..at].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

#[test]
fn mutated_requests_have_documented_errors_only() {
    let key = &fixture::keys().engine.identifiers;
    let seed: u64 = 0x0e11_60c4_ec75;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut accepted = 0;
    for round in 0..100_000 {
        let body = mutate(&mut random, REQUESTS[round % REQUESTS.len()]);
        let api_type = [ApiType::One, ApiType::Two, ApiType::Three][round % 3];
        let confirm = fields::parse::<ConfirmFields>(&body);
        let cancel = fields::parse::<CancelFields>(&body);
        let history = fields::parse::<TransactionsFields>(&body);
        let results = [
            read(api_type, FieldForType::Strict, &body).err(),
            confirm.and_then(|given| given.read(OrganizationId(1))).err(),
            cancel.and_then(|given| given.read(OrganizationId(1))).err(),
            history.and_then(|given| given.read(key)).err(),
        ];
        for error in results {
            let code = error.map(|error| error.wire().status.as_u16());
            let text = String::from_utf8_lossy(&body);
            assert!(matches!(code, None | Some(400)), "seed {seed} round {round}: {text}");
            accepted += usize::from(error.is_none());
        }
    }
    assert!(accepted > 1_000, "the mutations leave nothing readable");
}
