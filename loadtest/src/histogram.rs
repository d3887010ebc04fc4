//! Distributions of times: nanoseconds, three digits, up to ten minutes; in JSON as the base64 of
//! HdrHistogram's compressed V2 form, which the usual tools read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2DeflateSerializer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// The longest time that is told from longer ones.
pub const LONGEST_NS: u64 = 600_000_000_000;
const DIGITS: u8 = 3;
/// Values that must lie beyond a percentile for it to mean anything.
pub const BEYOND_MIN: u64 = 10;

/// An empty one.
pub fn new() -> Histogram<u64> {
    match Histogram::new_with_max(LONGEST_NS, DIGITS) {
        Ok(histogram) => histogram,
        Err(_) => unreachable!("the bounds are constants that the crate accepts"),
    }
}

/// The value at a percentile, 0 to 100, if at least [`BEYOND_MIN`] values lie beyond it.
pub fn percentile(histogram: &Histogram<u64>, percentile: f64) -> Option<u64> {
    let beyond = histogram.len() as f64 * (100.0 - percentile) / 100.0;
    (beyond >= BEYOND_MIN as f64).then(|| histogram.value_at_percentile(percentile))
}

/// The value at a percentile of `histogram` and of `missing` more that never came, if at least
/// [`BEYOND_MIN`] of them all lie beyond it; `u64::MAX` where it falls among the missing.
pub fn percentile_of_all(histogram: &Histogram<u64>, missing: u64, percentile: f64) -> Option<u64> {
    let all = histogram.len().saturating_add(missing) as f64;
    if all * (100.0 - percentile) / 100.0 < BEYOND_MIN as f64 {
        return None;
    }
    let rank = (all * percentile / 100.0).ceil();
    let came = histogram.len() as f64;
    Some(if rank > came { u64::MAX } else { histogram.value_at_quantile(rank / came) })
}

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(
    histogram: &Histogram<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).map_err(S::Error::custom)?;
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Histogram<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    Reader::new().deserialize(&mut bytes.as_slice()).map_err(D::Error::custom)
}
