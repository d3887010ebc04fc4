//! The raw shape of a line: JSON with the known fields of its kind, nothing checked beyond types.
//!
//! Text is borrowed from the line where it has no escapes, so that a holder costs a few lists and no
//! strings. Every field is optional here: what is required depends on `deleted` and is decided by
//! [`crate::registry::file`]. Numbers are `i64`, so that a negative or large one reaches the check
//! of its range and gets a better answer than "wrong type".

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::registry::fault::LineFault;

/// A region.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(borrow)]
    pub code: Option<Text<'a>>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub utc_offset: Option<Text<'a>>,
    #[serde(borrow)]
    pub prg_code: Option<Text<'a>>,
}

/// An area.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AreaLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub region: Option<Text<'a>>,
}

/// A category.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    pub priority: Option<i64>,
    pub with_companion: Option<bool>,
    #[serde(borrow)]
    pub valid_from: Option<Text<'a>>,
    #[serde(borrow)]
    pub valid_to: Option<Text<'a>>,
}

/// A service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    pub service_kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub categories: Option<Vec<Object<ServiceCategoryLine<'a>>>>,
}

/// A category of a service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceCategoryLine<'a> {
    pub category: Option<i64>,
    pub priority: Option<i64>,
    pub discount_percent: Option<i64>,
    #[serde(borrow)]
    pub limit: Option<Object<LimitLine<'a>>>,
}

/// A limit of use.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitLine<'a> {
    pub count: Option<i64>,
    #[serde(borrow)]
    pub period: Option<Text<'a>>,
}

/// An organization.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub client_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub client_secret: Option<Text<'a>>,
    #[serde(borrow)]
    pub short_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub connection: Option<Text<'a>>,
    #[serde(borrow)]
    pub state: Option<Text<'a>>,
    pub area: Option<i64>,
    #[serde(borrow)]
    pub ip_allow: Option<Vec<Text<'a>>>,
    pub categories: Option<Vec<i64>>,
    pub history: Option<bool>,
    #[serde(borrow)]
    pub role: Option<Text<'a>>,
}

/// An offer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub organization: Option<i64>,
    pub service: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub valid_from: Option<Text<'a>>,
    #[serde(borrow)]
    pub valid_to: Option<Text<'a>>,
    #[serde(borrow)]
    pub base_price: Option<&'a RawValue>,
    pub linked: Option<bool>,
    #[serde(borrow)]
    pub working_hours: Option<Text<'a>>,
}

/// A terminal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    pub organization: Option<i64>,
    #[serde(borrow)]
    pub state: Option<Text<'a>>,
}

/// A holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderLine<'a> {
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub id: Option<i64>,
    pub deleted: Option<bool>,
    #[serde(borrow)]
    pub snils: Option<Text<'a>>,
    #[serde(borrow)]
    pub status: Option<Text<'a>>,
    #[serde(borrow)]
    pub region: Option<Text<'a>>,
    #[serde(borrow)]
    pub cards: Option<Vec<Object<CardLine<'a>>>>,
    #[serde(borrow)]
    pub categories: Option<Vec<Object<RightLine<'a>>>>,
}

/// A card of a holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardLine<'a> {
    #[serde(borrow, rename = "type")]
    pub card_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub status: Option<Text<'a>>,
    #[serde(borrow)]
    pub blocked_by: Option<Text<'a>>,
    #[serde(borrow)]
    pub issued: Option<Text<'a>>,
    #[serde(borrow)]
    pub expires: Option<Text<'a>>,
    #[serde(borrow)]
    pub client_code: Option<Text<'a>>,
    #[serde(borrow)]
    pub number: Option<Text<'a>>,
    #[serde(borrow)]
    pub series: Option<Text<'a>>,
    #[serde(borrow)]
    pub num_sid: Option<Text<'a>>,
    #[serde(borrow)]
    pub card_hash: Option<Text<'a>>,
    #[serde(borrow)]
    pub hashes: Option<Vec<Object<HashLine<'a>>>>,
    #[serde(borrow)]
    pub mifare_uid: Option<Text<'a>>,
    #[serde(borrow)]
    pub par: Option<Text<'a>>,
}

/// A hash of a card number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashLine<'a> {
    #[serde(borrow)]
    pub key_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub hash: Option<Text<'a>>,
}

/// A category of a holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RightLine<'a> {
    pub category: Option<i64>,
    #[serde(borrow)]
    pub valid_from: Option<Text<'a>>,
    #[serde(borrow)]
    pub valid_to: Option<Text<'a>>,
}

/// What a line of any kind speaks of, whatever else stands in it.
#[derive(Deserialize)]
pub struct NamedLine<'a> {
    pub id: Option<i64>,
    #[serde(borrow)]
    pub code: Option<Text<'a>>,
}

/// The names of all fields above, so that a fault can name one.
const FIELDS: &[&str] = &[
    "area",
    "base_price",
    "blocked_by",
    "card_hash",
    "cards",
    "categories",
    "category",
    "client_code",
    "client_id",
    "client_secret",
    "code",
    "connection",
    "count",
    "deleted",
    "discount_percent",
    "expires",
    "hash",
    "hashes",
    "history",
    "id",
    "ip_allow",
    "issued",
    "key_id",
    "kind",
    "limit",
    "linked",
    "mifare_uid",
    "name",
    "num_sid",
    "number",
    "organization",
    "par",
    "period",
    "prg_code",
    "priority",
    "region",
    "role",
    "series",
    "service",
    "service_kind",
    "short_name",
    "snils",
    "state",
    "status",
    "type",
    "utc_offset",
    "valid_from",
    "valid_to",
    "with_companion",
    "working_hours",
];

/// The value of `"kind"`, which must be the first field.
pub fn kind(text: &str) -> Option<&str> {
    let rest = skip_whitespace(text).strip_prefix('{')?;
    let rest = skip_whitespace(rest).strip_prefix("\"kind\"")?;
    let rest = skip_whitespace(rest).strip_prefix(':')?;
    let rest = skip_whitespace(rest).strip_prefix('"')?;
    rest.split_once('"').map(|(kind, _)| kind)
}

/// Reads a line whose kind is known.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, LineFault> {
    serde_json::from_str(text).map_err(|error| fault(&error, text))
}

/// Text, borrowed if it has no escapes. A type of its own because serde borrows a `Cow` only where
/// it is the field itself, not inside an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A nested JSON object; serde alone would also take an array of the fields in their order.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

fn skip_whitespace(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

/// Says what serde found in words of the format. Its own message is not passed on: it quotes values.
fn fault(error: &serde_json::Error, text: &str) -> LineFault {
    if error.classify() != Category::Data {
        return LineFault::of_line(format!("not valid JSON at column {}", error.column()));
    }
    let message = error.to_string();
    if let Some(name) = quoted_name(&message, "unknown field `") {
        // Without a colon it is a value that lost its field, not a field.
        let rest = text.as_bytes().get(error.column()..).unwrap_or_default();
        let has_colon = rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        return LineFault::of_line(match name {
            Some(name) if has_colon => format!("unknown field `{name}`"),
            _ => format!("unknown field at column {}", error.column()),
        });
    }
    let duplicate = quoted_name(&message, "duplicate field `");
    if let Some(field) = duplicate.flatten().and_then(known_field) {
        return LineFault::of_field(field, "given twice");
    }
    // What serde expected is the last part of its message and comes from our types alone.
    let expected = message.rsplit_once(", expected ").map_or("", |(_, expected)| expected);
    let reason = match expected.split_whitespace().take(2).collect::<Vec<_>>().as_slice() {
        ["i64", ..] => "not a whole number",
        ["a", "boolean"] => "neither `true` nor `false`",
        ["a", "string"] => "not a string",
        ["a", "sequence"] => "not a list",
        ["an", "object"] => "not an object",
        _ => "not of the right type",
    };
    let field = text.as_bytes().get(..error.column()).and_then(last_key).and_then(known_field);
    LineFault { field, reason: reason.to_owned() }
}

/// The name after `start`, if the message begins so; inside, nothing unless it looks like a field
/// name, because a value in the place of a name must not be quoted.
fn quoted_name<'m>(message: &'m str, start: &str) -> Option<Option<&'m str>> {
    let (name, _) = message.strip_prefix(start)?.split_once('`')?;
    let plain = name.len() <= 32 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'));
    Some(plain.then_some(name))
}

fn known_field(name: &str) -> Option<&'static str> {
    FIELDS.iter().copied().find(|field| *field == name)
}

/// The last string followed by a colon in the beginning of a line: the field that was being read.
fn last_key(beginning: &[u8]) -> Option<&str> {
    let mut key = None;
    let mut last_string = None;
    let mut opened_at = None;
    let mut escaped = false;
    for (at, byte) in beginning.iter().enumerate() {
        match (opened_at, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(start), b'"') => {
                last_string = beginning.get(start..at);
                opened_at = None;
            }
            (Some(_), _) => {}
            (None, b'"') => opened_at = Some(at + 1),
            (None, b':') => key = last_string,
            (None, _) => {}
        }
    }
    key.and_then(|key| std::str::from_utf8(key).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_comes_first() {
        let check = |text, expected| assert_eq!(kind(text), expected, "{text}");
        check(r#"{"kind":"area"}"#, Some("area"));
        check(" {\t\"kind\" : \r\n \"area\" }", Some("area"));
        check(r#"{"id":1,"kind":"area"}"#, None);
        check(r#"{"kind":5}"#, None);
        check(r#"["kind","area"]"#, None);
        check(r#"{"kind":"area"#, None);
        check("", None);
    }

    #[test]
    fn the_last_key_is_found_behind_strings() {
        let check =
            |text: &str, expected| assert_eq!(last_key(text.as_bytes()), expected, "{text}");
        check(r#"{"a":1,"b":"x\":y","#, Some("b"));
        check(r#"{"a":{"c":["d","e""#, Some("c"));
        check(r#"{"a"#, None);
    }
}
