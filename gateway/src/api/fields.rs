//! Reading of request bodies and queries: what a field holds, and which error it is when it does not.
//!
//! A body is parsed once into the texts of its known fields, borrowed from it. Only then each field
//! is read as what the method needs, so that the errors come in their documented order and not in
//! the order in which a client wrote its fields. `null` counts as absent, unknown fields are skipped;
//! a field that is given twice has no defined meaning, so such a body counts as broken JSON.

use std::borrow::Cow;

use actix_web::web::Query;
use engine::calendar::Day;
use engine::ids::{CategoryId, HolderId, Kopecks, ServiceId, TerminalId, TransactionId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::errors::ApiError;
use crate::money;

/// The text of a field, where it is present and not `null`.
pub type Field<'a> = Option<&'a RawValue>;

/// The largest page (C-18).
pub const PAGE_SIZE_MAX: u32 = 1_000;
/// The page that is given where none was asked for (C-18).
pub const PAGE_SIZE: u32 = 50;

/// Parses a body, which must be a JSON object in UTF-8.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    parse_text(std::str::from_utf8(body).map_err(|_| ApiError::BadJson)?)
}

/// The same for text that is known to be UTF-8.
pub fn parse_text<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    // The derived parsers would also take an array as the fields in order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(ApiError::BadJson);
    }
    serde_json::from_str(text).map_err(|_| ApiError::BadJson)
}

/// A field that must be there.
pub fn required<T>(value: Option<T>) -> Result<T, ApiError> {
    value.ok_or(ApiError::MissingField)
}

/// An integer of at most 64 bits.
pub fn integer(field: &RawValue) -> Result<i64, ApiError> {
    // The text is a JSON value already, so this accepts whole numbers and nothing else.
    field.get().parse().map_err(|_| ApiError::BadFormat)
}

/// A string.
pub fn text(field: &RawValue) -> Result<Cow<'_, str>, ApiError> {
    let quoted = field.get();
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.ok_or(ApiError::BadFormat)?;
    if inner.contains('\\') {
        return serde_json::from_str(quoted).map(Cow::Owned).map_err(|_| ApiError::BadFormat);
    }
    Ok(Cow::Borrowed(inner))
}

/// A date, `YYYY-MM-DD`.
pub fn date(field: &RawValue) -> Result<Day, ApiError> {
    Day::parse(&text(field)?).ok_or(ApiError::BadFormat)
}

/// An amount, where one is given.
pub fn amount(field: Field<'_>) -> Result<Option<Kopecks>, ApiError> {
    let Some(field) = field else { return Ok(None) };
    money::parse(field.get()).map(Some).ok_or(ApiError::BadFormat)
}

/// A parameter of a query, empty where there is none.
pub fn parameter(query: &str, name: &str) -> Result<String, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::from_query(query);
    let pairs = pairs.map_err(|_| ApiError::BadFormat)?.into_inner();
    let mut values = pairs.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value.unwrap_or_default()),
        _ => Err(ApiError::BadFormat),
    }
}

/// `pageIndex` and `pageSize` with their defaults.
pub fn page(index: Field<'_>, size: Field<'_>) -> Result<engine::history::Page, ApiError> {
    let index = index.map(integer).transpose()?.unwrap_or(0);
    let size = size.map(integer).transpose()?.unwrap_or(PAGE_SIZE.into());
    let index = u64::try_from(index).map_err(|_| ApiError::BadFormat)?;
    let size = u32::try_from(size).ok().filter(|size| (1..=PAGE_SIZE_MAX).contains(size));
    Ok(engine::history::Page { index, size: size.ok_or(ApiError::BadFormat)? })
}

// Ids are positive, so an integer that fits no id names nothing, like 0: it is unknown, not wrong.

/// A terminal by its number on the wire.
pub fn terminal(number: i64) -> TerminalId {
    TerminalId(u64::try_from(number).unwrap_or(0))
}

/// A service by its number on the wire.
pub fn service(number: i64) -> ServiceId {
    ServiceId(u32::try_from(number).unwrap_or(0))
}

/// A category by its number on the wire.
pub fn category(number: i64) -> CategoryId {
    CategoryId(u32::try_from(number).unwrap_or(0))
}

/// A holder by its number on the wire.
pub fn holder(number: i64) -> HolderId {
    HolderId(u64::try_from(number).unwrap_or(0))
}

/// A transaction by its number on the wire.
pub fn transaction(number: i64) -> TransactionId {
    TransactionId(u64::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_string()).unwrap()
    }

    #[test]
    fn integers_are_whole_and_fit_64_bits() {
        let check = |text, expected| assert_eq!(integer(&raw(text)), expected, "{text}");
        check("7", Ok(7));
        check("-7", Ok(-7));
        check("9223372036854775807", Ok(i64::MAX));
        for wrong in ["9223372036854775808", "1.0", "1e0", "\"1\"", "true", "[]", "{}"] {
            check(wrong, Err(ApiError::BadFormat));
        }
    }

    #[test]
    fn numbers_that_fit_no_id_are_unknown() {
        assert_eq!(terminal(-1), TerminalId(0));
        assert_eq!(service(i64::MAX), ServiceId(0));
        assert_eq!(holder(5), HolderId(5));
    }

    #[test]
    fn strings_may_be_escaped() {
        let check = |text_given: &str, expected: Result<&str, ApiError>| {
            let raw = raw(text_given);
            assert_eq!(text(&raw).as_deref(), expected.as_ref().map(|text| *text), "{text_given}");
        };
        check("\"AAA\"", Ok("AAA"));
        check("\"\\u0041AA\"", Ok("AAA"));
        check("\"\"", Ok(""));
        check("5", Err(ApiError::BadFormat));
        check("[\"a\"]", Err(ApiError::BadFormat));
        check("\"\\ud800\"", Err(ApiError::BadFormat));
    }

    #[test]
    fn pages_have_bounds() {
        let check = |index: &str, size: &str, expected: Option<(u64, u32)>| {
            let page = page(Some(&raw(index)), Some(&raw(size)));
            assert_eq!(page.ok().map(|page| (page.index, page.size)), expected, "{index} {size}");
        };
        check("0", "1", Some((0, 1)));
        check("5", "1000", Some((5, 1_000)));
        check("0", "0", None);
        check("0", "-1", None);
        check("0", "1001", None);
        check("-1", "10", None);
        assert_eq!(page(None, None), Ok(engine::history::Page { index: 0, size: 50 }));
    }
}
