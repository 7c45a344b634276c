//! Times for people.

/// Seconds since 1970 as the calendar has them in UTC.
pub(super) fn utc(seconds: i64) -> String {
    const DAY: i64 = 24 * 3600;
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// As [`utc`], without the fraction.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float that no integer holds becomes the nearest that one does"
)]
pub(super) fn of_float(seconds: f64) -> String {
    utc(seconds.floor() as i64)
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that
/// the day that not every year has is the last.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_the_calendar_has_them() {
        // As `date --utc --date=@N +%FT%TZ` has them.
        for (seconds, told) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_341_413, "2026-11-22T09:56:53Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), told);
        }
        // Whatever stands in a record, telling it does not panic.
        for odd in [i64::MIN, i64::MAX] {
            assert!(utc(odd).ends_with('Z'));
        }
    }
}
