//! How things are said: sizes, times, tables, errors; JSON for scripts.

use anyhow::Context as _;
use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
pub(crate) use jobs::units::{size, span};
use jobs::{config::Env, state::State};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

/// Refused before anything was enqueued: exit status 2.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Where and how results go.
pub(crate) struct Output {
    /// One JSON document instead of text.
    pub(crate) json: bool,
    /// In which times are shown and read.
    pub(crate) zone: Tz,
}

impl Output {
    pub(crate) fn new(json: bool, env: &Env) -> anyhow::Result<Self> {
        let zone = env.get("BACKUP_TIMEZONE").unwrap_or("UTC");
        let zone = zone
            .parse()
            .map_err(|_| Refused(format!("BACKUP_TIMEZONE: `{zone}` is not a time zone such as UTC or Africa/Johannesburg")))?;
        Ok(Self { json, zone })
    }

    /// A line of the result. A reader that went away (`| head`) is no error worth a message.
    pub(crate) fn line(&self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// The one JSON document.
    pub(crate) fn document(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(self.line(serde_json::to_string_pretty(value)?)?)
    }

    /// A moment in the configured zone, to the second, with its offset.
    pub(crate) fn time(&self, time: DateTime<Utc>) -> String {
        time.with_timezone(&self.zone).format("%Y-%m-%d %H:%M:%S%:z").to_string()
    }

    /// Reads RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` in the configured zone.
    pub(crate) fn parse_time(&self, text: &str) -> anyhow::Result<DateTime<Utc>> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(time.to_utc());
        }
        let local = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .ok_or_else(|| {
                Refused(format!("`{text}` is not a time: write 2026-11-25 02:00 (in {}) or 2026-11-25T02:00:00+02:00", self.zone))
            })?;
        match self.zone.from_local_datetime(&local) {
            chrono::LocalResult::Single(time) => Ok(time.to_utc()),
            chrono::LocalResult::Ambiguous(a, b) => Err(Refused(format!(
                "`{text}` happens twice in {} (clocks go back): write {} or {}",
                self.zone,
                a.to_rfc3339(),
                b.to_rfc3339()
            ))
            .into()),
            chrono::LocalResult::None => Err(Refused(format!("`{text}` does not exist in {} (clocks go forward)", self.zone)).into()),
        }
    }

    /// Columns, aligned; the header is dim on a terminal.
    pub(crate) fn table(&self, header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
        let width =
            |column: usize| rows.iter().map(|r| r[column].chars().count()).chain([header[column].chars().count()]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let row = |cells: &mut dyn Iterator<Item = &str>| {
            let cells: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        };
        let head = row(&mut header.iter().copied());
        self.line(if colour() { format!("\x1b[2m{head}\x1b[0m") } else { head })?;
        for cells in rows {
            self.line(row(&mut cells.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}

/// Whether standard output takes colours.
pub(crate) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A state, coloured by what it means.
pub(crate) fn state(state: State) -> String {
    if !colour() {
        return state.to_string();
    }
    let code = match state {
        State::Available => 36,
        State::Running => 34,
        State::Completed => 32,
        State::CompletedWithWarnings => 33,
        State::Failed => 31,
        State::Cancelled => 35,
    };
    format!("\x1b[{code}m{state}\x1b[0m")
}

/// An error on standard error, and as JSON on standard output when scripts listen.
#[expect(clippy::print_stderr, reason = "this is where errors go")]
pub(crate) fn report(error: &anyhow::Error, json: bool) {
    let text = jobs::job::explain(error);
    eprintln!("enqueue: {text}");
    if json {
        // The reader may be gone; the exit status says it all the same.
        _ = writeln!(io::stdout().lock(), "{}", serde_json::json!({ "error": text }));
    }
}

/// The user who runs this, for the job's record.
pub(crate) fn requester() -> anyhow::Result<(String, String)> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd
        .lines()
        .filter_map(|l| {
            let mut fields = l.split(':');
            Some((fields.next()?, fields.nth(1)?))
        })
        .find(|(_, id)| *id == uid.to_string())
        .map_or_else(|| format!("uid {uid}"), |(name, _)| name.to_owned());
    let by = match std::env::var("SUDO_USER") {
        Ok(user) if user != name => format!("{user} (sudo to {name})"),
        _ => name,
    };
    let host = hostname::get().context("this host's name")?.to_string_lossy().into_owned();
    Ok((by, format!("enqueue on {host}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(zone: &str) -> Output {
        Output { json: false, zone: zone.parse().unwrap() }
    }

    #[test]
    fn times_are_read_in_the_zone_and_shown_with_an_offset() {
        let paris = output("Europe/Paris");
        let time = paris.parse_time("2026-07-01 02:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-07-01T00:00:00+00:00");
        assert_eq!(paris.time(time), "2026-07-01 02:00:00+02:00");
        assert_eq!(paris.parse_time("2026-07-01T02:00:00Z").unwrap().to_rfc3339(), "2026-07-01T02:00:00+00:00");
        assert!(paris.parse_time("2026-10-25 02:30").unwrap_err().to_string().contains("twice"));
        assert!(paris.parse_time("2026-03-29 02:30").unwrap_err().to_string().contains("does not exist"));
        assert!(paris.parse_time("2026-99-99 99:99:99").unwrap_err().to_string().contains("not a time"));
    }
}
