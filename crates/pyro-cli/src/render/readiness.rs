//! How ready an environment is, for people.

use std::fmt::Write;

use pyro::prepare::PreparedRecord;
use pyro::{PrepareReport, Readiness};

use super::printable;

/// The block of `prepare`.
pub(crate) fn prepared(report: &PrepareReport) -> String {
    let readiness = &report.readiness;
    let title = if report.reused {
        "Prepared already"
    } else {
        "Prepared"
    };
    let mut text = format!("{title}: {}\n", readiness.environment);
    let _ = writeln!(text, "Status: {}", readiness.status.as_str());
    reasons(&mut text, readiness);
    if let Some(record) = &readiness.prepared {
        let _ = writeln!(text, "Prepared at: {}", utc(record.prepared_at));
        let engine = &record.engine;
        let version = engine.version.as_deref().unwrap_or("version unknown");
        let _ = writeln!(text, "Engine: {}, {version}", engine.name.as_str());
        let network = if record.network_prepared { "yes" } else { "no" };
        let _ = writeln!(text, "Network: {network}");
        for template in templates(record) {
            let _ = writeln!(text, "Template: {template}");
        }
        let _ = writeln!(text, "Timings: {}", timings(record));
    }
    text
}

/// The lines that `doctor` has about one environment.
pub(super) fn lines(readiness: &Readiness) -> String {
    let status = readiness.status.as_str();
    let mut text = format!("Readiness of {}: {status}", readiness.environment);
    if let Some(record) = &readiness.prepared {
        let network = if record.network_prepared {
            "with a network"
        } else {
            "without a network"
        };
        let _ = write!(
            text,
            " (prepared {} {network}: {})",
            utc(record.prepared_at),
            timings(record)
        );
    }
    text.push('\n');
    if let Some(record) = &readiness.prepared {
        for template in templates(record) {
            let _ = writeln!(text, "  template: {template}");
        }
    }
    reasons(&mut text, readiness);
    if let Some(hint) = &readiness.hint {
        let _ = writeln!(text, "  hint: {}", printable(hint));
    }
    text
}

fn reasons(text: &mut String, readiness: &Readiness) {
    for reason in &readiness.reasons {
        let message = printable(&reason.message);
        let _ = writeln!(text, "- {message} ({})", reason.code.as_str());
    }
}

/// What the proofs left for machines to begin from, and why the last one left nothing.
fn templates(record: &PreparedRecord) -> impl Iterator<Item = String> {
    let why = record.not_warm.as_deref().unwrap_or("not made");
    let none = record.template.is_none();
    let none = none.then(|| format!("none: {}", printable(why)));
    none.into_iter().chain(record.templates.iter().map(|one| {
        let network = if one.network { ", network" } else { "" };
        format!(
            "{} ({}, {} vcpu, {} MiB{network})",
            one.key,
            one.engine.name.as_str(),
            one.vcpu_count,
            one.mem_mib
        )
    }))
}

fn timings(record: &PreparedRecord) -> String {
    let took = record.timings_ms;
    format!(
        "pull {} ms, create {} ms, boot {} ms, exec {} ms, delete {} ms",
        took.pull, took.create, took.boot, took.exec, took.delete
    )
}

/// A time of the record, seconds since the epoch, as the calendar has it in UTC.
fn utc(seconds: i64) -> String {
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
