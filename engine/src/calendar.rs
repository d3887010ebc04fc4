//! Instants, local dates and the offset between them.
//!
//! Inside the engine time is UTC microseconds; "today" exists only together with a region's offset.

use std::fmt;

use time::{Date, Month, OffsetDateTime, format_description::well_known::Rfc3339};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// The Julian day number of 1970-01-01.
const JULIAN_DAY_OF_EPOCH: i32 = 2_440_588;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads an RFC 3339 instant; fractions finer than a microsecond are cut off.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let micros = instant.unix_timestamp_nanos().div_euclid(1_000);
        i64::try_from(micros).ok().map(Timestamp)
    }

    /// This instant moved by whole seconds, saturating at the ends of time.
    pub fn plus_seconds(self, seconds: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// The date on the wall of a place that is `offset` ahead of UTC.
    pub fn local_day(self, offset: UtcOffset) -> Day {
        let seconds = self.unix_seconds().saturating_add(i64::from(offset.0));
        let day = seconds.div_euclid(SECONDS_PER_DAY);
        Day(i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX }))
    }
}

impl fmt::Display for Timestamp {
    /// `2025-06-02T10:00:00.000000Z`: UTC with microseconds, as D0 A9 prints `confirmationDate`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let Ok(instant) = OffsetDateTime::from_unix_timestamp(self.unix_seconds()) else {
            return formatter.write_str("out-of-range");
        };
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            instant.year(),
            u8::from(instant.month()),
            instant.day(),
            instant.hour(),
            instant.minute(),
            instant.second(),
        )
    }
}

/// Seconds that a region's clock is ahead of UTC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UtcOffset(pub i32);

impl UtcOffset {
    /// Reads `+09:00`; at most 14 hours in either direction.
    pub fn parse(text: &str) -> Option<UtcOffset> {
        let (sign, digits) = match text.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            _ => return None,
        };
        let (hours, minutes) = digits.split_once(':')?;
        let two_digits = |part: &str| -> Option<i32> {
            let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten()
        };
        let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
        let in_range = minutes < 60 && hours * 60 + minutes <= 14 * 60;
        in_range.then_some(UtcOffset(sign * (hours * 3_600 + minutes * 60)))
    }
}

/// A local calendar date: days since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Day(pub i32);

impl Day {
    /// Before every date: an absent `valid_from`.
    pub const BEGINNING: Day = Day(i32::MIN);
    /// After every date: an absent `valid_to` or `expires`.
    pub const FOREVER: Day = Day(i32::MAX);

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Day> {
        let bytes = text.as_bytes();
        let shaped = bytes.len() == 10
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !shaped {
            return None;
        }
        let year = text.get(0..4)?.parse().ok()?;
        let month = Month::try_from(text.get(5..7)?.parse::<u8>().ok()?).ok()?;
        let date = Date::from_calendar_date(year, month, text.get(8..10)?.parse().ok()?).ok()?;
        Some(Day::from_date(date))
    }

    fn from_date(date: Date) -> Day {
        Day(date.to_julian_day() - JULIAN_DAY_OF_EPOCH)
    }

    /// The instant at which this date begins in a place that is `offset` ahead of UTC.
    pub fn begins(self, offset: UtcOffset) -> Timestamp {
        let seconds = i64::from(self.0) * SECONDS_PER_DAY - i64::from(offset.0);
        Timestamp(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// The date after this one.
    pub fn next(self) -> Day {
        Day(self.0.saturating_add(1))
    }

    /// The first and the last date of the period that this date lies in; weeks begin on Monday.
    pub fn period(self, period: Period) -> (Day, Day) {
        let Some(date) = self.0.checked_add(JULIAN_DAY_OF_EPOCH) else { return (self, self) };
        let Ok(date) = Date::from_julian_day(date) else { return (self, self) };
        let (back, length) = match period {
            Period::Day => (0, 1),
            Period::Week => (date.weekday().number_days_from_monday().into(), 7),
            Period::Month => (i32::from(date.day()) - 1, date.month().length(date.year()).into()),
            Period::Year => {
                (i32::from(date.ordinal()) - 1, time::util::days_in_year(date.year()).into())
            }
        };
        let first = self.0 - back;
        (Day(first), Day(first + length - 1))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.0.checked_add(JULIAN_DAY_OF_EPOCH).map(Date::from_julian_day);
        let Some(Ok(date)) = date else { return formatter.write_str("unlimited") };
        write!(formatter, "{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
    }
}

/// The span over which a usage limit counts, in the region's local dates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Period {
    /// One local date.
    Day,
    /// Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

/// A range of dates, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// First valid date.
    pub from: Day,
    /// Last valid date.
    pub to: Day,
}

impl Validity {
    /// Valid on every date.
    pub const UNLIMITED: Validity = Validity { from: Day::BEGINNING, to: Day::FOREVER };

    /// Whether `day` lies inside, ends included.
    pub fn covers(&self, day: Day) -> bool {
        self.from <= day && day <= self.to
    }
}

/// Where the engine learns what time it is; the only source of "now".
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_printed() {
        for text in ["1970-01-01", "2025-06-02", "2024-02-29", "2099-12-31", "1899-12-31"] {
            assert_eq!(Day::parse(text).unwrap().to_string(), text);
        }
        for text in ["2025-02-29", "2025-6-2", "2025-13-01", "+025-01-01", "2025/01/01", ""] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn midnight_is_local() {
        // Row Y4b of the acceptance table.
        let yakutsk = UtcOffset::parse("+09:00").unwrap();
        let before = Timestamp::parse("2025-05-31T14:59:59Z").unwrap();
        let after = Timestamp::parse("2025-05-31T15:00:00Z").unwrap();
        assert_eq!(before.local_day(yakutsk).to_string(), "2025-05-31");
        assert_eq!(after.local_day(yakutsk).to_string(), "2025-06-01");
        assert_eq!(Day::parse("2025-06-01").unwrap().begins(yakutsk), after);
    }

    #[test]
    fn periods_begin_where_people_expect() {
        let check = |period, expected: &str| {
            let (first, last) = Day::parse("2024-02-29").unwrap().period(period);
            assert_eq!(format!("{first} {last}"), expected);
        };
        check(Period::Day, "2024-02-29 2024-02-29");
        check(Period::Week, "2024-02-26 2024-03-03");
        check(Period::Month, "2024-02-01 2024-02-29");
        check(Period::Year, "2024-01-01 2024-12-31");
    }

    #[test]
    fn offsets_outside_the_world_are_refused() {
        assert_eq!(UtcOffset::parse("-03:30"), Some(UtcOffset(-12_600)));
        for text in ["09:00", "+9:00", "+15:00", "+09:60", "+0x:00", "+", "é9:00"] {
            assert_eq!(UtcOffset::parse(text), None, "{text}");
        }
    }

    #[test]
    fn instants_print_microseconds() {
        let instant = Timestamp::parse("2021-04-21T12:31:30.842619Z").unwrap();
        assert_eq!(instant.to_string(), "2021-04-21T12:31:30.842619Z");
    }
}
