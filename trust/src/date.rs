//! Days, as people name them: `YYYY-MM-DD`, in UTC.

use std::fmt;

/// A day of the Gregorian calendar, from 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u64);

impl Day {
    /// Reads `YYYY-MM-DD`; `None` if it is anything else, or no such day.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let digits = |at: &[usize]| at.iter().all(|n| bytes[*n].is_ascii_digit());
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' || !digits(&[0, 1, 2, 3, 5, 6, 8, 9]) {
            return None;
        }
        let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().ok();
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let month = usize::try_from(month).ok()?.checked_sub(1)?;
        if year < 1970 || day < 1 || day > *lengths.get(month)? {
            return None;
        }
        let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
        Some(Self(years + lengths[..month].iter().sum::<u64>() + day - 1))
    }

    /// The day of a time, in seconds since 1970.
    pub fn of(time: u64) -> Self {
        Self(time / 86_400)
    }

    /// The first second behind it, since 1970.
    pub fn end(self) -> u64 {
        (self.0 + 1) * 86_400
    }

    /// Whether the day is over at `now`, in seconds since 1970.
    pub fn is_over(self, now: u64) -> bool {
        now / 86_400 > self.0
    }
}

impl fmt::Display for Day {
    /// As `YYYY-MM-DD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days since 0000-03-01, in eras of 400 years: leap days are then at the end of a year.
        let days = self.0 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("1970-12-31", 364),
            ("1972-02-29", 789),
            ("1972-03-01", 790),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2026-11-22", 20_779),
            ("2100-03-01", 47_541),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(Day::parse(text), Some(Day(expected)), "{text}");
        }
        for bad in [
            "",
            "2026-1-1",
            "2026-11-31",
            "2025-02-29",
            "2100-02-29",
            "1969-12-31",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026/01/01",
            "2026-01/01",
            "+026-01-01",
            "2026-+1-01",
            "2026-01-+1",
            "2026-01-011",
        ] {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_day_lasts_until_midnight() {
        let day = Day::parse("1970-01-02").unwrap();
        assert!(!day.is_over(0) && !day.is_over(86_400) && !day.is_over(2 * 86_400 - 1));
        assert!(day.is_over(2 * 86_400));
    }

    #[test]
    fn every_day_is_written_as_it_is_read() {
        for n in 0..60_000 {
            let day = Day(n);
            assert_eq!(Day::parse(&day.to_string()), Some(day));
            assert_eq!((Day::of(day.end() - 1), Day::of(day.end())), (day, Day(n + 1)));
        }
    }
}
