//! The rules of single fields, shared by all kinds of lines.

use crate::calendar::{Day, Validity};
use crate::identifier::{Digest, IdentifierError};
use crate::ids::{Kopecks, RegionCode};
use crate::registry::fault::LineFault;
use crate::registry::line::Text;

/// The value of a field that must be there.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, LineFault> {
    value.ok_or_else(|| LineFault::of_field(field, "missing"))
}

/// An id of the directory: `1..=u32::MAX`.
pub fn small_id(field: &'static str, value: Option<i64>) -> Result<u32, LineFault> {
    match u32::try_from(required(field, value)?) {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(LineFault::of_field(field, "not between 1 and 4294967295")),
    }
}

/// An id of a holder or a terminal: `1..=i64::MAX`.
pub fn large_id(field: &'static str, value: Option<i64>) -> Result<u64, LineFault> {
    match u64::try_from(required(field, value)?) {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(LineFault::of_field(field, "not positive")),
    }
}

/// Required text of 1 to `characters_max` characters.
pub fn name(
    field: &'static str,
    value: Option<Text<'_>>,
    characters_max: usize,
) -> Result<String, LineFault> {
    let value = required(field, value)?;
    let name = value.as_str();
    if name.trim().is_empty() {
        return Err(LineFault::of_field(field, "empty"));
    }
    // Characters are counted only where the bytes leave a doubt.
    if name.len() > characters_max && name.chars().count() > characters_max {
        let reason = format!("longer than {characters_max} characters");
        return Err(LineFault::of_field(field, reason));
    }
    Ok(name.to_owned())
}

/// A region code of two digits.
pub fn region(field: &'static str, value: Option<Text<'_>>) -> Result<RegionCode, LineFault> {
    let code = required(field, value)?;
    let code = code.as_str();
    let shaped = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_digit());
    let code = shaped.then(|| code.parse().ok()).flatten();
    code.map(RegionCode).ok_or_else(|| LineFault::of_field(field, "not a code of two digits"))
}

/// A date, or `absent` where there is none.
pub fn day(field: &'static str, value: Option<Text<'_>>, absent: Day) -> Result<Day, LineFault> {
    let Some(text) = value else { return Ok(absent) };
    Day::parse(text.as_str())
        .ok_or_else(|| LineFault::of_field(field, "not a date like `2025-12-31`"))
}

/// `valid_from` and `valid_to`, both included, each unlimited where absent.
pub fn validity(from: Option<Text<'_>>, to: Option<Text<'_>>) -> Result<Validity, LineFault> {
    let from = day("valid_from", from, Day::BEGINNING)?;
    let to = day("valid_to", to, Day::FOREVER)?;
    if from > to {
        return Err(LineFault::of_field("valid_from", "after `valid_to`"));
    }
    Ok(Validity { from, to })
}

/// One of the words that the format knows.
pub fn word<T: Copy>(
    field: &'static str,
    value: &str,
    words: &[(&str, T)],
) -> Result<T, LineFault> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(*meaning);
    }
    let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    Err(LineFault::of_field(field, format!("none of {}", known.join(", "))))
}

/// Rubles as a JSON number, kept as kopecks; never seen as a floating-point number.
pub fn rubles(field: &'static str, number: &str) -> Result<Kopecks, LineFault> {
    let fault = |reason| LineFault::of_field(field, reason);
    let (rubles, decimals) = number.split_once('.').unwrap_or((number, ""));
    if !rubles.bytes().chain(decimals.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(fault("not a number of rubles like `300.50`"));
    }
    let mut decimals = decimals.bytes().map(|digit| u64::from(digit - b'0'));
    let kopecks = 10 * decimals.next().unwrap_or(0) + decimals.next().unwrap_or(0);
    if decimals.next().is_some() {
        return Err(fault("more than two decimals"));
    }
    let rubles = rubles.parse::<u64>().ok();
    let total = rubles.and_then(|rubles| rubles.checked_mul(100)?.checked_add(kopecks));
    let total = total.filter(|total| i64::try_from(*total).is_ok());
    total.map(Kopecks).ok_or_else(|| fault("too large"))
}

/// The digest of an identifier, or its fault in words.
pub fn identifier(
    field: &'static str,
    digest: Result<Digest, IdentifierError>,
) -> Result<Digest, LineFault> {
    digest.map_err(|error| LineFault::of_field(field, error.to_string()))
}
