//! Instants, local dates and the periods over which uses are counted: the load tester's own
//! arithmetic, so that it cannot share a mistake with the server's.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::time::Nanos;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// An instant on the wall: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Wall(pub i64);

impl Wall {
    /// Reads an RFC 3339 instant.
    pub fn parse(text: &str) -> Option<Wall> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(instant.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Wall)
    }

    /// The machine's clock.
    pub fn now() -> Wall {
        let micros = OffsetDateTime::now_utc().unix_timestamp_nanos().div_euclid(1_000);
        Wall(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// This instant, later by so much.
    pub fn plus(self, later: Nanos) -> Wall {
        Wall(self.0.saturating_add(i64::try_from(later.0 / 1_000).unwrap_or(i64::MAX)))
    }

    /// This instant moved by whole seconds.
    pub fn plus_seconds(self, seconds: i64) -> Wall {
        Wall(self.0.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND)))
    }

    /// The date on the wall of a place.
    pub fn day(self, offset: Offset) -> Day {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND).saturating_add(i64::from(offset.0));
        Day(i32::try_from(seconds.div_euclid(SECONDS_PER_DAY)).unwrap_or_default())
    }
}

impl fmt::Display for Wall {
    /// As RFC 3339, in UTC.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000);
        let text = instant.ok().and_then(|instant| instant.format(&Rfc3339).ok());
        formatter.write_str(text.as_deref().unwrap_or("?"))
    }
}

/// Seconds that a region's clock is ahead of UTC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offset(pub i32);

impl Offset {
    /// Reads `+09:00`.
    pub fn parse(text: &str) -> Option<Offset> {
        let sign = match text.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, minutes) = text.get(1..)?.split_once(':')?;
        let number = |digits: &str| digits.parse::<u8>().ok().map(i32::from);
        let minutes = number(hours)? * 60 + number(minutes)?;
        (minutes <= 14 * 60).then_some(Offset(sign * minutes * 60))
    }
}

/// A local date: days since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Day(pub i32);

impl Day {
    /// Before every date.
    pub const BEGINNING: Day = Day(i32::MIN);
    /// After every date.
    pub const FOREVER: Day = Day(i32::MAX);

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Day> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i32> {
            let digits = text.get(from..to)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let found = Day::of(year, month, day);
        (found.civil() == (year, month, day)).then_some(found)
    }

    /// The date with these numbers of the Gregorian calendar.
    fn of(year: i32, month: i32, day: i32) -> Day {
        // Years begin in March here, so that the leap day is the last one.
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Day(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    /// Year, month and day of the Gregorian calendar.
    pub fn civil(self) -> (i32, i32, i32) {
        let shifted = i64::from(self.0) + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let narrow = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        (narrow(year), narrow(month), narrow(day))
    }

    /// So many days later.
    pub fn plus(self, days: i32) -> Day {
        Day(self.0.saturating_add(days))
    }

    /// Which day, week, month or year since the beginning of counting this is.
    pub fn ordinal(self, period: Period) -> i32 {
        let (year, month, _) = self.civil();
        match period {
            Period::Day => self.0,
            // 1970-01-01 was a Thursday; weeks begin on Monday.
            Period::Week => (self.0 + 3).div_euclid(7),
            Period::Month => year * 12 + month - 1,
            Period::Year => year,
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

/// The span over which uses are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// The first date.
    pub from: Day,
    /// The last date.
    pub to: Day,
}

impl Validity {
    /// Every date.
    pub const UNLIMITED: Validity = Validity { from: Day::BEGINNING, to: Day::FOREVER };

    /// Whether a date lies inside.
    pub fn covers(&self, day: Day) -> bool {
        self.from <= day && day <= self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_printed() {
        for text in ["1970-01-01", "2025-06-02", "2024-02-29", "2000-12-31", "1899-03-01"] {
            assert_eq!(Day::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Day::parse("1970-01-01"), Some(Day(0)));
        assert_eq!(Day::parse("2025-06-02"), Some(Day(20_241)));
        for text in ["2025-02-29", "2025-6-2", "2025-13-01", "2025-00-10", "+025-01-01", ""] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_date_of_four_centuries_is_its_own() {
        let mut last = Day::parse("1799-12-31").unwrap();
        for number in last.0 + 1..last.0 + 1 + 146_097 {
            let day = Day(number);
            let (year, month, of_month) = day.civil();
            assert_eq!(Day::of(year, month, of_month), day);
            assert!(last.civil() < (year, month, of_month));
            last = day;
        }
    }

    #[test]
    fn midnight_is_local() {
        // Row Y4b of the acceptance table.
        let offset = Offset::parse("+09:00").unwrap();
        let day = |text| Wall::parse(text).unwrap().day(offset).to_string();
        assert_eq!(day("2025-05-31T14:59:59Z"), "2025-05-31");
        assert_eq!(day("2025-05-31T15:00:00Z"), "2025-06-01");
        assert_eq!(Offset::parse("-03:30"), Some(Offset(-12_600)));
        assert_eq!(Offset::parse("09:00"), None);
    }

    #[test]
    fn periods_change_where_people_expect() {
        let check = |period, before: &str, after: &str| {
            let (before, after) = (Day::parse(before).unwrap(), Day::parse(after).unwrap());
            assert_eq!(before.plus(1), after);
            assert_eq!(before.ordinal(period) + 1, after.ordinal(period));
            assert_eq!(
                after.ordinal(period),
                after.plus(i32::from(period != Period::Day)).ordinal(period)
            );
        };
        check(Period::Day, "2024-02-28", "2024-02-29");
        check(Period::Week, "2024-03-03", "2024-03-04");
        check(Period::Month, "2024-02-29", "2024-03-01");
        check(Period::Year, "2024-12-31", "2025-01-01");
    }
}
