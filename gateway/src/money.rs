//! Money on the wire: a JSON number of rubles with at most two decimals (catalogue §10.5).
//!
//! It is read from the text of the number and printed from integer kopecks; no floating point value
//! comes near it.

use std::fmt;

use engine::ids::Kopecks;

/// The most digits that are read: the largest amount is below 10¹⁶ rubles.
const RUBLE_DIGITS_MAX: usize = 16;

/// Reads the text of a JSON number; negative amounts, exponents and a third decimal are refused.
pub fn parse(number: &str) -> Option<Kopecks> {
    let (rubles, decimals) = number.split_once('.').unwrap_or((number, "00"));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if rubles.is_empty() || rubles.len() > RUBLE_DIGITS_MAX || !digits(rubles) || !digits(decimals)
    {
        return None;
    }
    let rubles: u64 = rubles.parse().ok()?;
    let decimals: u64 = match decimals.len() {
        1 => decimals.parse::<u64>().ok()?.checked_mul(10)?,
        2 => decimals.parse().ok()?,
        _ => return None,
    };
    let kopecks = rubles.checked_mul(100)?.checked_add(decimals)?;
    i64::try_from(kopecks).is_ok().then_some(Kopecks(kopecks))
}

/// Prints an amount as a JSON number: `100.0`, `150.5`, `0.05`.
pub struct Rubles(pub Kopecks);

impl fmt::Display for Rubles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kopecks(kopecks) = self.0;
        let (rubles, rest) = (kopecks / 100, kopecks % 100);
        match rest % 10 {
            0 => write!(formatter, "{rubles}.{}", rest / 10),
            _ => write!(formatter, "{rubles}.{rest:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(parse(text), expected.map(Kopecks), "{text}");
        };
        check("300", Some(30_000));
        check("150.5", Some(15_050));
        check("0.05", Some(5));
        check("0", Some(0));
        check("0.00", Some(0));
        check("92233720368547758.07", None);
        check("9223372036854775.99", Some(922_337_203_685_477_599));
        check("1.005", None);
        check("1.", None);
        check(".5", None);
        check("-1", None);
        check("-0", None);
        check("+1", None);
        check("1e2", None);
        check("1.5e0", None);
        check("99999999999999999999", None);
        check("\"300\"", None);
        check("", None);
        check("true", None);
    }

    #[test]
    fn amounts_are_printed_as_the_documents_do() {
        let check = |kopecks, expected: &str| {
            assert_eq!(Rubles(Kopecks(kopecks)).to_string(), expected);
        };
        check(10_000, "100.0");
        check(15_050, "150.5");
        check(5, "0.05");
        check(10, "0.1");
        check(0, "0.0");
        check(12_345, "123.45");
    }
}
