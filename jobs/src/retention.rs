//! Which backups stay and which go: a pure function of what is there and of the rules.
//!
//! A backup is the unit. Good ones (the database is whole, or was not asked for) are kept while they are both among
//! the newest [`Rules::max_backups`] and younger than [`Rules::days`]; besides, the newest good one of each of the last
//! [`Rules::daily`] days, weeks, months and years that have one. Failed backups do not count; they go when they are old,
//! or when as many good ones as are kept are newer.
//!
//! Whatever the rules say, some are protected: see [`Why::protects`].

use crate::component::Component;
use chrono::{DateTime, Datelike, Duration, Utc};
use chrono_tz::Tz;
use std::{collections::BTreeSet, fmt};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Good backups kept, at least 1 (setting `backup_max_backups`).
    pub max_backups: u32,
    /// Age in days of 24 hours after which a backup goes, at least 1 (setting `backup_retention_days`).
    pub days: u32,
    /// Days of which the newest good backup is kept besides (`BACKUP_KEEP_DAILY`).
    pub daily: u32,
    /// Weeks, Monday to Sunday (`BACKUP_KEEP_WEEKLY`).
    pub weekly: u32,
    /// Calendar months (`BACKUP_KEEP_MONTHLY`).
    pub monthly: u32,
    /// Calendar years (`BACKUP_KEEP_YEARLY`).
    pub yearly: u32,
    /// Whose days those are.
    pub timezone: Tz,
    /// Whether archives are copied off-site: then what has no copy yet stays.
    pub offsite: bool,
}

/// How an archive has been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verification {
    /// It was found damaged, or did not restore.
    Failed,
    /// Its bytes are those that were written.
    HashVerified,
    /// It was restored, and what came of it equals the manifest.
    RestoreProven,
}

impl Verification {
    /// The word in `archives.verification`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::HashVerified => "hash_verified",
            Self::RestoreProven => "restore_proven",
        }
    }

    /// Reads that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Failed, Self::HashVerified, Self::RestoreProven].into_iter().find(|v| v.as_str() == word)
    }
}

/// An archive of a backup; its file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What it holds.
    pub component: Component,
    /// How it was last verified; none: never.
    pub verification: Option<Verification>,
    /// Whether a copy of it is off-site.
    pub replicated: bool,
}

/// A backup of which files are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: u64,
    /// When it was taken, UTC.
    pub at: DateTime<Utc>,
    /// Whether its job ended well; the database is in it, if it was asked for.
    pub completed: bool,
    /// Its archives, at least one.
    pub pieces: Vec<Piece>,
    /// What else cannot do without it, in words: "the binary logs up to ...".
    pub needed_by: Option<String>,
}

impl Candidate {
    fn piece(&self, component: Component) -> Option<&Piece> {
        self.pieces.iter().find(|p| p.component == component && p.verification != Some(Verification::Failed))
    }

    /// Whether it counts: all of it can be restored, as far as is known.
    fn good(&self) -> bool {
        self.completed && self.pieces.iter().all(|p| p.verification != Some(Verification::Failed))
    }
}

/// Why a backup is kept or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Kept: something else cannot do without it.
    Needed(String),
    /// Kept: its database archive is the newest that was verified.
    NewestVerified,
    /// Kept: no newer good backup has this component.
    NewestOf(Component),
    /// Kept: it has no copy off-site yet.
    NotReplicated,
    /// Kept: one of the newest, and young.
    Newest(u32),
    /// Kept: the newest of its `day`, `week`, `month` or `year`.
    Period(&'static str),
    /// Kept: failed or damaged, but young.
    FailedAndYoung,
    /// Goes: so many good backups are newer, as many as are kept.
    TooMany(u32),
    /// Goes: older than so many days.
    TooOld(u32),
}

impl Why {
    /// Whether a backup stays for this reason.
    pub fn keeps(&self) -> bool {
        !matches!(self, Self::TooMany(_) | Self::TooOld(_))
    }

    /// Whether it also may not be deleted by hand, but with force. With a component: its archive alone may not.
    pub fn protects(&self) -> Option<Option<Component>> {
        match self {
            Self::Needed(_) | Self::NewestVerified => Some(Some(Component::Database)),
            Self::NewestOf(component) => Some(Some(*component)),
            Self::NotReplicated => Some(None),
            _ => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needed(what) => write!(f, "needed by {what}"),
            Self::NewestVerified => f.write_str("the newest verified backup of the database"),
            Self::NewestOf(component) => write!(f, "the newest good backup of {component}"),
            Self::NotReplicated => f.write_str("not yet copied off-site"),
            Self::Newest(n) => write!(f, "one of the newest {n}, and young enough"),
            Self::Period(period) => write!(f, "the newest of its {period}"),
            Self::FailedAndYoung => f.write_str("failed or damaged, but young"),
            Self::TooMany(n) => write!(f, "{n} good backups are newer (backup_max_backups)"),
            Self::TooOld(days) => write!(f, "older than {days} days (backup_retention_days)"),
        }
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its number.
    pub id: u64,
    /// The first rule that applies.
    pub why: Why,
}

/// Decides over every backup, the newest first.
pub fn decide(now: DateTime<Utc>, rules: &Rules, candidates: &[Candidate]) -> Vec<Decision> {
    let sorted = newest_first(candidates);
    let protected = protections(rules.offsite, candidates);
    let periods = periods(rules, &sorted);
    let mut good = 0;
    sorted
        .iter()
        .map(|c| {
            let newer = good;
            good += u32::from(c.good());
            let old = now.signed_duration_since(c.at) > Duration::days(rules.days.into());
            let protection = protected.iter().find(|d| d.id == c.id).map(|d| d.why.clone());
            let period = periods.iter().find(|(id, _)| *id == c.id).map(|(_, period)| Why::Period(period));
            let why = protection.or(period).unwrap_or(match (newer < rules.max_backups, old) {
                (_, true) => Why::TooOld(rules.days),
                (false, _) => Why::TooMany(rules.max_backups),
                _ if c.good() => Why::Newest(rules.max_backups),
                _ => Why::FailedAndYoung,
            });
            Decision { id: c.id, why }
        })
        .collect()
}

/// Every reason for which a backup, or one archive of it, may not go, whatever the other rules say; `offsite` as in [`Rules`].
pub fn protections(offsite: bool, candidates: &[Candidate]) -> Vec<Decision> {
    let sorted = newest_first(candidates);
    let mut found = Vec::new();
    for c in &sorted {
        if let Some(what) = &c.needed_by {
            found.push(Decision { id: c.id, why: Why::Needed(what.clone()) });
        }
    }
    // Verified is verified, even if the job ended with a failure of something else.
    let verified = sorted.iter().find(|c| c.piece(Component::Database).is_some_and(|p| p.verification.is_some()));
    found.extend(verified.map(|c| Decision { id: c.id, why: Why::NewestVerified }));
    for component in Component::ALL {
        let newest = sorted.iter().find(|c| c.completed && c.piece(component).is_some());
        // Better one whose job failed than none.
        let newest = newest.or_else(|| sorted.iter().find(|c| c.piece(component).is_some()));
        found.extend(newest.map(|c| Decision { id: c.id, why: Why::NewestOf(component) }));
    }
    if offsite {
        let alone = sorted.iter().filter(|c| c.pieces.iter().any(|p| !p.replicated));
        found.extend(alone.map(|c| Decision { id: c.id, why: Why::NotReplicated }));
    }
    found
}

fn newest_first(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|c| std::cmp::Reverse((c.at, c.id)));
    sorted
}

/// The good backups that are the newest of one of the last periods that have one.
fn periods(rules: &Rules, sorted: &[&Candidate]) -> Vec<(u64, &'static str)> {
    let mut found = Vec::new();
    type Number = fn(chrono::NaiveDate) -> (i32, u32);
    let kinds: [(&'static str, u32, Number); 4] = [
        ("day", rules.daily, |d| (d.year(), d.ordinal())),
        ("week", rules.weekly, |d| (d.iso_week().year(), d.iso_week().week())),
        ("month", rules.monthly, |d| (d.year(), d.month())),
        ("year", rules.yearly, |d| (d.year(), 0)),
    ];
    for (period, count, of) in kinds {
        let mut seen = BTreeSet::new();
        for c in sorted.iter().filter(|c| c.good()) {
            if seen.len() == count as usize {
                break;
            }
            if seen.insert(of(c.at.with_timezone(&rules.timezone).date_naive())) {
                found.push((c.id, period));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
