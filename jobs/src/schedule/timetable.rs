//! When a schedule's slots are: a cron expression, read in a time zone. Pure; knows neither clock nor database.
//!
//! Five fields as cron has them (minute, hour, day of month, month, day of week), names (`MON`, `JAN`), `L`, `#`,
//! `W`, and `@daily` and the like. When a day of month and a day of week are both given, either will do.
//!
//! Where clocks change, the rules are those of Vixie cron and of the Open Cron Pattern Specification:
//!
//! | the expression | a time that does not exist (clocks go forward) | a time that comes twice (clocks go back) |
//! |---|---|---|
//! | names one time of day: `30 2 * * *` | runs once, at the first moment after the gap | runs once, the first time |
//! | has lists, ranges, steps or `*` in minute or hour: `*/30 * * * *`, `0 2,14 * * *` | that slot is left out | runs both times |

use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// Missed slots are counted up to this many.
pub const MOST_MISSED: u32 = 1000;

/// A cron expression that happens, in a zone that exists.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// Why there is no such timetable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TimetableError {
    /// The expression.
    #[error("`{cron}` is not a cron expression: {reason}; write minute, hour, day of month, month and day of week, such as '0 2 * * *'")]
    Cron {
        /// As given.
        cron: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is well-formed, and no date fits it.
    #[error("`{cron}` never happens: no date fits it")]
    Never {
        /// As given.
        cron: String,
    },
    /// The zone.
    #[error("`{zone}` is not a time zone; write an IANA name such as UTC, Africa/Johannesburg or Europe/Paris")]
    Zone {
        /// As given.
        zone: String,
    },
}

/// What is to be done at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing until the next slot, which is known.
    Wait,
    /// The next slot is not the one that was noted: nothing was noted yet, the expression was edited, or the clock went back.
    Note(DateTime<Utc>),
    /// A slot has come.
    Due(Due),
}

/// A slot that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The newest one that has come.
    pub slot: DateTime<Utc>,
    /// Slots since the one that was noted as next and before this one, at most [`MOST_MISSED`].
    pub missed: u32,
    /// The slot after now.
    pub next: DateTime<Utc>,
}

impl Timetable {
    /// Reads both; refuses what never happens.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, TimetableError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let parsed = parser.parse(cron).map_err(|e| TimetableError::Cron { cron: cron.into(), reason: reason(&e) })?;
        let zone = zone.parse().map_err(|_| TimetableError::Zone { zone: zone.into() })?;
        let timetable = Self { cron: parsed, zone };
        match timetable.find(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(timetable),
            None => Err(TimetableError::Never { cron: cron.into() }),
        }
    }

    fn find(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false).ok().map(|t| t.to_utc())
    }

    /// The first slot after this moment.
    pub fn next(&self, after: DateTime<Utc>) -> DateTime<Utc> {
        // What happened since 1970 happens again; croner looks as far as the year 5000.
        self.find(after).unwrap_or(after + Duration::days(36_500))
    }

    /// What is to be done at `now`, when `noted` was computed before as the next slot.
    ///
    /// However far `now` is past `noted`, there is one slot to run; a clock that went back makes no slot due.
    pub fn plan(&self, noted: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Plan {
        let next = self.next(now);
        match noted {
            Some(due) if due <= now => self.due(due, now, next).map_or(Plan::Note(next), Plan::Due),
            Some(noted) if noted == next => Plan::Wait,
            _ => Plan::Note(next),
        }
    }

    /// The newest slot from `due` to `now`; none when the expression was edited since `due` was noted.
    fn due(&self, due: DateTime<Utc>, now: DateTime<Utc>, next: DateTime<Utc>) -> Option<Due> {
        let slot = self.cron.find_previous_occurrence(&now.with_timezone(&self.zone), true).ok()?.to_utc();
        let mut missed = 0;
        // `due` itself, unless somebody wrote a time there that is no slot.
        let mut earlier = self.next(due - Duration::nanoseconds(1));
        while earlier < slot && missed < MOST_MISSED {
            missed += 1;
            earlier = self.next(earlier);
        }
        (slot >= due).then_some(Due { slot, missed, next })
    }
}

/// croner's word, as part of a sentence.
fn reason(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError::{ComponentError, EmptyPattern, IllegalCharacters, InvalidPattern};
    let text = match error {
        EmptyPattern => "it is empty".into(),
        InvalidPattern(text) | IllegalCharacters(text) | ComponentError(text) => text.clone(),
        other => other.to_string(),
    };
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn table(cron: &str, zone: &str) -> Timetable {
        Timetable::parse(cron, zone).unwrap()
    }

    /// The slots of a span, as local times with offset.
    fn slots(cron: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let table = table(cron, zone);
        let mut found = Vec::new();
        let mut at = table.next(utc(from));
        while at <= utc(to) {
            found.push(at.with_timezone(&table.zone).format("%d %H:%M%:z").to_string());
            at = table.next(at);
        }
        found
    }

    #[test]
    fn where_clocks_go_forward() {
        // Europe/Paris, 2026-03-29: 01:59:59+01:00 is followed by 03:00:00+02:00.
        let day = |cron| slots(cron, "Europe/Paris", "2026-03-28T02:00:00Z", "2026-03-30T01:00:00Z");
        assert_eq!(day("30 2 * * *"), ["29 03:00+02:00", "30 02:30+02:00"]);
        assert_eq!(day("0 1 * * *"), ["29 01:00+01:00", "30 01:00+02:00"]);
        assert_eq!(day("0 3 * * *"), ["29 03:00+02:00", "30 03:00+02:00"]);
        assert_eq!(day("0 2,14 * * *"), ["28 14:00+01:00", "29 14:00+02:00", "30 02:00+02:00"]);
        assert_eq!(
            slots("*/30 * * * *", "Europe/Paris", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"),
            ["29 01:30+01:00", "29 03:00+02:00", "29 03:30+02:00", "29 04:00+02:00"]
        );
    }

    #[test]
    fn where_clocks_go_back() {
        // Europe/Paris, 2026-10-25: 02:59:59+02:00 is followed by 02:00:00+01:00.
        let night = |cron| slots(cron, "Europe/Paris", "2026-10-24T22:30:00Z", "2026-10-25T03:00:00Z");
        assert_eq!(night("30 2 * * *"), ["25 02:30+02:00"]);
        assert_eq!(night("0 3 * * *"), ["25 03:00+01:00"]);
        assert_eq!(night("0 * * * *"), ["25 01:00+02:00", "25 02:00+02:00", "25 02:00+01:00", "25 03:00+01:00", "25 04:00+01:00"]);
        assert_eq!(slots("0 2 * * *", "Africa/Johannesburg", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"), ["25 02:00+02:00"]);
        // Midnight itself is missing: Beirut, 2026-03-29.
        assert_eq!(slots("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), ["29 01:00+03:00"]);
    }

    #[test]
    fn looking_back_finds_what_looking_ahead_found() {
        let zones = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Cairo"];
        let crons = ["30 2 * * *", "0 0 * * *", "*/20 * * * *", "0 2,14 * * *", "15 1 * * 0", "59 23 L * *"];
        for (zone, cron) in zones.iter().flat_map(|z| crons.map(|c| (*z, c))) {
            let table = table(cron, zone);
            let mut slot = table.next(utc("2026-02-27T00:00:00Z"));
            while slot < utc("2026-05-03T00:00:00Z") || (utc("2026-09-25T00:00:00Z")..utc("2026-11-08T00:00:00Z")).contains(&slot) {
                let next = table.next(slot);
                for now in [slot, slot + Duration::milliseconds(300), next - Duration::milliseconds(1)] {
                    assert_eq!(table.plan(Some(slot), now), Plan::Due(Due { slot, missed: 0, next }), "{cron} {zone} at {now}");
                }
                assert_eq!(table.plan(Some(slot), slot - Duration::milliseconds(1)), Plan::Wait, "{cron} {zone} before {slot}");
                slot = if next > utc("2026-05-03T00:00:00Z") && next < utc("2026-09-25T00:00:00Z") {
                    table.next(utc("2026-09-25T00:00:00Z"))
                } else {
                    next
                };
            }
        }
    }

    #[test]
    fn missed_slots_are_counted_and_one_is_due() {
        let nightly = table("0 2 * * *", "UTC");
        let plan = |noted: &str, now: &str| nightly.plan(Some(utc(noted)), utc(now));
        let due = |slot, missed, next| Plan::Due(Due { slot: utc(slot), missed, next: utc(next) });
        assert_eq!(plan("2026-11-24T02:00:00Z", "2026-11-24T05:00:00Z"), due("2026-11-24T02:00:00Z", 0, "2026-11-25T02:00:00Z"));
        assert_eq!(plan("2026-11-22T02:00:00Z", "2026-11-24T05:00:00Z"), due("2026-11-24T02:00:00Z", 2, "2026-11-25T02:00:00Z"));
        assert_eq!(plan("2026-11-23T01:00:00Z", "2026-11-24T05:00:00Z"), due("2026-11-24T02:00:00Z", 1, "2026-11-25T02:00:00Z"));
        let minutely = table("* * * * *", "UTC");
        let jump = minutely.plan(Some(utc("2026-11-24T02:00:00Z")), utc("2031-01-01T00:00:30Z"));
        assert_eq!(jump, due("2031-01-01T00:00:00Z", MOST_MISSED, "2031-01-01T00:01:00Z"));
    }

    #[test]
    fn what_was_noted_is_corrected() {
        let nightly = table("0 2 * * *", "UTC");
        let now = utc("2026-11-24T05:00:00Z");
        let next = utc("2026-11-25T02:00:00Z");
        assert_eq!(nightly.plan(None, now), Plan::Note(next));
        assert_eq!(nightly.plan(Some(next), now), Plan::Wait);
        // The clock went far ahead and came back: the schedule is not dead until then.
        assert_eq!(nightly.plan(Some(utc("2099-01-01T02:00:00Z")), now), Plan::Note(next));
        // Edited by SQL from 03:30 to 02:00: neither slot is run because of the edit.
        assert_eq!(nightly.plan(Some(utc("2026-11-25T03:30:00Z")), now), Plan::Note(next));
        assert_eq!(nightly.plan(Some(utc("2026-11-24T03:30:00Z")), now), Plan::Note(next));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |cron, zone| Timetable::parse(cron, zone).unwrap_err().to_string();
        for (cron, word) in [
            ("", "empty"),
            ("0 2 * *", "5 fields"),
            ("0 0 2 * * *", "5 fields"),
            ("60 2 * * *", "60"),
            ("0 25 * * *", "25"),
            ("0 2 * * FUNDAY", "cron expression"),
            ("x y z a b", "cron expression"),
            ("0 0 30 2 *", "never happens"),
        ] {
            let text = error(cron, "UTC");
            assert!(text.contains(word) && text.contains(&format!("`{cron}`")), "{cron}: {text}");
        }
        assert!(error("0 2 * * *", "Mars/Base").contains("`Mars/Base`"));
        for good in ["@daily", "0 2 * * SUN", "0 3 L * *", "*/15 8-18 * * 1-5", "0 0 29 2 *", "0 4 * * 5#L"] {
            table(good, "Europe/Paris");
        }
    }
}
