//! The computed identifiers of the catalogue against the digest key.

use serde_json::Value;

use engine::identifier::{Digest, DigestKey, IdentifierError, luhn, snils_control};

fn key() -> DigestKey {
    DigestKey::new(*b"0123456789abcdef")
}

/// The table at `pointer`; a missing one fails the test, for a renamed table would pass it empty.
fn table(pointer: &str) -> Vec<(String, Value)> {
    let file: Value =
        serde_json::from_str(include_str!("../testdata/identifiers.json")).unwrap_or_default();
    let table = file.pointer(pointer).and_then(Value::as_object);
    let table: Vec<_> = table.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    assert!(!table.is_empty(), "{pointer}");
    table
}

fn list(pointer: &str) -> Vec<String> {
    let file: Value =
        serde_json::from_str(include_str!("../testdata/identifiers.json")).unwrap_or_default();
    let list = file.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(!list.is_empty(), "{pointer}");
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The words of the test data for what became of an identifier.
fn outcome(digest: Result<Digest, IdentifierError>) -> &'static str {
    match digest {
        Ok(_) => "ok",
        Err(IdentifierError::Checksum) => "checksum",
        Err(IdentifierError::Format | IdentifierError::Length) => "format",
        Err(IdentifierError::Random) => "random",
        Err(IdentifierError::Zero) => "zero",
    }
}

#[test]
fn snils_as_people_write_it() {
    for (written, expected) in table("/snils/cases") {
        // A number too small to have a control number is accepted without one.
        let expected = expected.as_str().unwrap().trim_end_matches("-unchecked");
        assert_eq!(outcome(key().snils_written(&written)), expected, "{written}");
        let digits: String = written.chars().filter(|letter| !" -".contains(*letter)).collect();
        assert_eq!(key().snils_written(&written), key().snils(&digits), "{written}");
    }
}

#[test]
fn snils_at_the_edges_of_the_control_number() {
    for (sum, edge) in table("/snils/edge") {
        let snils = edge.get("snils").and_then(Value::as_str).unwrap();
        assert_eq!(outcome(key().snils(snils)), "ok", "sum {sum}");
        let nine: u32 = edge.get("n9").and_then(Value::as_str).unwrap().parse().unwrap();
        assert_eq!(format!("{nine:09}{:02}", snils_control(nine)), snils, "sum {sum}");
    }
}

#[test]
fn mifare_uids_become_canonical() {
    for (written, expected) in table("/uid") {
        let digest = key().mifare_uid(&written);
        match expected.pointer("/0").and_then(Value::as_str).unwrap() {
            // The example of D2 §4.4 fits no UID; it is kept as it is (C-27).
            "length" => assert_eq!(outcome(digest), "ok", "{written}"),
            expected => assert_eq!(outcome(digest), expected, "{written}"),
        }
        if let Some(canonical) = expected.pointer("/1").and_then(Value::as_str) {
            assert_eq!(key().mifare_uid(&written), key().mifare_uid(canonical), "{written}");
        }
    }
}

#[test]
fn luhn_digits() {
    for pointer in ["/luhn/social_cards19", "/luhn/mir_test_pans16", "/luhn/numSID16"] {
        for digits in list(pointer) {
            assert!(luhn(&digits), "{digits}");
        }
    }
    for (digits, expected) in table("/luhn/known") {
        // All zeros pass the algorithm and are refused all the same.
        let expected = expected.as_bool().unwrap() && digits.bytes().any(|digit| digit != b'0');
        assert_eq!(luhn(&digits), expected, "{digits}");
    }
}

#[test]
fn numbers_of_cards_need_no_luhn_digit() {
    // The examples of D2 have 14, 15 and 16 digits and none has a right last digit (C-25).
    for (digits, _) in table("/luhn/doc_numSID") {
        assert!(!luhn(&digits), "{digits}");
        assert_eq!(outcome(key().num_sid(&digits)), "ok", "{digits}");
    }
    for number in list("/luhn/social_cards19") {
        assert_eq!(outcome(key().social_card(&number, "14010125")), "ok", "{number}");
    }
}

#[test]
fn the_barcode_is_number_and_series() {
    let barcode: std::collections::BTreeMap<_, _> = table("/barcode").into_iter().collect();
    let text = |field: &str| barcode.get(field).and_then(Value::as_str).unwrap();
    let (number, series) = text("payload").split_at_checked(19).unwrap();
    assert_eq!((number, series), (text("number"), text("series")));
    assert_eq!(outcome(key().social_card(number, series)), "ok");
}
