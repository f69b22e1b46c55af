//! By table: rules, backups, and what becomes of each, newest first.
//!
//! A backup is `NUMBER@AGE` (`3@1d`, `3@36h`) or `NUMBER@TIME`, then flags: `f` its job failed; `v` verified by hash, `p`
//! proven by restore, `x` found damaged (the database's archive, or the first); `n` no copy off-site; `c` needed by a
//! chain; and `/` with its components' first letters (default: `d`). Packages are `k`.

use super::*;
use chrono::TimeZone;

const NOW: &str = "2026-11-24T12:00:00Z";

fn rules(text: &str) -> (DateTime<Utc>, Rules) {
    let mut now = NOW;
    let mut rules =
        Rules { max_backups: 10, days: 30, daily: 0, weekly: 0, monthly: 0, yearly: 0, timezone: chrono_tz::UTC, offsite: false };
    for word in text.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("max", n) => rules.max_backups = n.parse().unwrap(),
            ("days", n) => rules.days = n.parse().unwrap(),
            ("daily", n) => rules.daily = n.parse().unwrap(),
            ("weekly", n) => rules.weekly = n.parse().unwrap(),
            ("monthly", n) => rules.monthly = n.parse().unwrap(),
            ("yearly", n) => rules.yearly = n.parse().unwrap(),
            ("tz", zone) => rules.timezone = zone.parse().unwrap(),
            ("now", time) => now = time,
            ("offsite", _) => rules.offsite = true,
            other => panic!("{other:?}"),
        }
    }
    (now.parse().unwrap(), rules)
}

fn candidate(now: DateTime<Utc>, word: &str) -> Candidate {
    let (word, components) = word.split_once('/').unwrap_or((word, "d"));
    let (id, rest) = word.split_once('@').unwrap();
    let (at, flags) = if let Some((time, flags)) = rest.split_once('Z') {
        (format!("{time}Z").parse().unwrap(), flags)
    } else {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
        let n: i64 = rest[..end].parse().unwrap();
        let unit = if rest[end..].starts_with('h') { Duration::hours(n) } else { Duration::days(n) };
        (now - unit, &rest[end + 1..])
    };
    let has = |flag: char| flags.contains(flag);
    let pieces = components.chars().enumerate().map(|(i, c)| Piece {
        component: match c {
            'd' => Component::Database,
            'u' => Component::Uploads,
            'k' => Component::Packages,
            'f' => Component::Framework,
            other => panic!("{other}"),
        },
        verification: match i {
            0 if has('x') => Some(Verification::Failed),
            0 if has('p') => Some(Verification::RestoreProven),
            0 if has('v') => Some(Verification::HashVerified),
            _ => None,
        },
        replicated: !has('n'),
    });
    Candidate {
        id: id.parse().unwrap(),
        at,
        completed: !has('f'),
        pieces: pieces.collect(),
        needed_by: has('c').then(|| "a chain".to_owned()),
    }
}

fn outcome(rule: &str, backups: &str) -> String {
    let (now, rules) = rules(rule);
    let candidates: Vec<Candidate> = backups.split_whitespace().map(|word| candidate(now, word)).collect();
    let words = decide(now, &rules, &candidates).into_iter().map(|d| {
        let why = match &d.why {
            Why::Needed(_) => "chain",
            Why::NewestVerified => "verified",
            Why::NewestOf(component) => component.as_str(),
            Why::NotReplicated => "alone",
            Why::Newest(_) => "newest",
            Why::Period(period) => period,
            Why::FailedAndYoung => "failed",
            Why::TooMany(_) => "many",
            Why::TooOld(_) => "old",
        };
        format!("{}{}{why}", d.id, if d.why.keeps() { '+' } else { '-' })
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn what_stays_and_what_goes() {
    let cases = [
        // Nothing, one, few.
        ("", "", ""),
        ("", "1@1h", "1+database"),
        ("", "1@1d 2@1h", "2+database 1+newest"),
        // The count.
        ("max=2", "1@3d 2@2d 3@1d", "3+database 2+newest 1-many"),
        ("max=1", "1@3d 2@2d 3@1d", "3+database 2-many 1-many"),
        ("max=3", "1@3d 2@2d 3@1d", "3+database 2+newest 1+newest"),
        ("max=999", "1@29d 2@28d 3@1d", "3+database 2+newest 1+newest"),
        // Age: at the limit it stays, an hour later it goes.
        ("days=30", "1@30d 2@1d", "2+database 1+newest"),
        ("days=30", "1@721h 2@1d", "2+database 1-old"),
        ("days=1", "1@3d 2@2d 3@1d", "3+database 2-old 1-old"),
        // All are too old: the newest stays all the same.
        ("days=30", "1@50d 2@40d", "2+database 1-old"),
        // Age and count at once.
        ("max=2 days=5", "1@9d 2@3d 3@2d 4@1d", "4+database 3+newest 2-many 1-old"),
        // Order is by time, then by number, not by the order in which they are given.
        ("max=1", "3@1d 1@3d 2@2d", "3+database 2-many 1-many"),
        ("max=1", "1@1d 2@1d 3@1d", "3+database 2-many 1-many"),
        ("max=2", "3@1d 2@1d 1@1d", "3+database 2+newest 1-many"),
        // A clock that was wrong: from the future.
        ("max=1", "1@2026-12-24T00:00:00Z 2@1d", "1+database 2-many"),
        // Failed ones between good ones do not count, and never push a good one out.
        ("max=2", "1@4d 2@3df 3@2df 4@1d", "4+database 3+failed 2+failed 1+newest"),
        ("max=2", "1@5d 2@4d 3@3df 4@2d 5@1d", "5+database 4+newest 3-many 2-many 1-many"),
        ("max=1", "1@3d 2@2df 3@1df", "3+failed 2+failed 1+database"),
        ("days=30", "1@40df 2@1d", "2+database 1-old"),
        // Only failed ones: better the files of one than none.
        ("max=1", "1@2df/u 2@1df/u", "2+uploads 1+failed"),
        ("days=30", "1@60df/u 2@50df/u", "2+uploads 1-old"),
        // The failed one has the newest uploads, but a good one's count first.
        ("days=30", "1@2d/du 2@1df/u", "2+failed 1+database"),
        // Components apart: hourly databases do not push the last uploads out.
        ("max=2", "1@9d/du 2@3d 3@2d 4@1d", "4+database 3+newest 2-many 1+uploads"),
        ("max=1", "1@9d/dukf 2@3d/u 3@2d/k 4@1d", "4+database 3+packages 2+uploads 1+framework"),
        ("days=5", "1@90d/f 2@80d/f 3@1d", "3+database 2+framework 1-old"),
        // The newest verified database stays, also when newer ones are not verified.
        ("max=1", "1@3dv 2@2d 3@1d", "3+database 2-many 1+verified"),
        ("max=1", "1@3dp 2@2dv 3@1d", "3+database 2+verified 1-many"),
        ("max=1 days=2", "1@90dp 2@1h", "2+database 1+verified"),
        ("max=1", "1@2dv 2@1dv", "2+verified 1-many"),
        // Verified uploads are no verified database.
        ("max=1", "1@3dv/u 2@2d/du 3@1d", "3+database 2+uploads 1-many"),
        // Its job failed, but its database was verified.
        ("max=1 days=2", "1@9dvf 2@1d", "2+database 1+verified"),
        // A damaged one does not count, and is not the newest.
        ("max=1", "1@2d 2@1dx", "2+failed 1+database"),
        ("max=2", "1@4d 2@3d 3@2dx 4@1d", "4+database 3+failed 2+newest 1-many"),
        ("days=30", "1@40d 2@35dx", "2-old 1+database"),
        ("max=1", "1@3dv 2@2dx 3@1dx", "3+failed 2+failed 1+verified"),
        // Off-site: what has no copy stays; off, nobody asks.
        ("max=1 offsite", "1@3dn 2@2d 3@1d", "3+database 2-many 1+alone"),
        ("max=1 days=2 offsite", "1@90dn 2@1dn", "2+database 1+alone"),
        ("max=1", "1@3dn 2@2dn", "2+database 1-many"),
        ("max=1 offsite", "1@3dfn 2@2d", "2+database 1+alone"),
        // Chains.
        ("max=1", "1@3dc 2@2d 3@1d", "3+database 2-many 1+chain"),
        ("max=1 days=1", "1@90dc 2@80dc 3@70d", "3+database 2+chain 1+chain"),
        // Daily, weekly, monthly, yearly: the newest of each, beyond count and age.
        (
            "max=1 daily=2",
            "1@2026-11-22T01:00:00Z 2@2026-11-23T01:00:00Z 3@2026-11-23T02:00:00Z 4@2026-11-24T01:00:00Z",
            "4+database 3+day 2-many 1-many",
        ),
        // Days without one do not use up the number.
        ("max=1 days=2 daily=3", "1@2026-11-01T01:00:00Z 2@2026-11-10T01:00:00Z 3@2026-11-24T01:00:00Z", "3+database 2+day 1+day"),
        (
            "max=1 weekly=2",
            "1@2026-11-15T23:00:00Z 2@2026-11-16T01:00:00Z 3@2026-11-22T23:00:00Z 4@2026-11-23T01:00:00Z",
            "4+database 3+week 2-many 1-many",
        ),
        // ISO weeks: 2026-12-31 and 2027-01-01 are one week.
        (
            "now=2027-01-05T00:00:00Z max=1 weekly=2",
            "1@2026-12-27T00:00:00Z 2@2026-12-31T00:00:00Z 3@2027-01-01T00:00:00Z 4@2027-01-04T00:00:00Z",
            "4+database 3+week 2-many 1-many",
        ),
        (
            "max=1 days=1 monthly=3",
            "1@2026-08-31T00:00:00Z 2@2026-09-01T00:00:00Z 3@2026-10-31T00:00:00Z 4@2026-11-24T00:00:00Z",
            "4+database 3+month 2+month 1-old",
        ),
        (
            "max=1 days=1 yearly=2",
            "1@2024-12-31T00:00:00Z 2@2025-06-01T00:00:00Z 3@2025-12-31T00:00:00Z 4@2026-11-24T00:00:00Z",
            "4+database 3+year 2-old 1-old",
        ),
        (
            "max=1 days=1 daily=1 monthly=2 yearly=3",
            "1@2023-01-01T00:00:00Z 2@2025-10-01T00:00:00Z 3@2026-10-01T00:00:00Z 4@2026-11-24T00:00:00Z",
            "4+database 3+month 2+year 1+year",
        ),
        // A failed one is nobody's newest of its day.
        ("max=1 days=1 daily=2", "1@2026-11-23T01:00:00Z 2@2026-11-23T02:00:00Zf 3@2026-11-24T11:00:00Z", "3+database 2-old 1+day"),
        // Clock changes: Paris leaves summer time on 2026-10-25 at 01:00 UTC. 22:30 UTC is half past midnight of that day,
        // 23:30 UTC, 25 hours later, half past midnight of the next: two days.
        (
            "max=1 days=1 daily=2 tz=Europe/Paris now=2026-10-27T00:00:00Z",
            "1@2026-10-24T21:30:00Z 2@2026-10-24T22:30:00Z 3@2026-10-25T22:30:00Z 4@2026-10-25T23:30:00Z",
            "4+database 3+day 2-old 1-old",
        ),
        // The hour that comes twice is one day's.
        (
            "max=1 daily=2 tz=Europe/Paris now=2026-10-25T03:00:00Z",
            "1@2026-10-23T12:00:00Z 2@2026-10-25T00:30:00Z 3@2026-10-25T01:30:00Z",
            "3+database 2-many 1+day",
        ),
        // The hour that does not exist: 2026-03-29 has 23 hours in Paris.
        (
            "max=1 daily=3 tz=Europe/Paris now=2026-03-30T12:00:00Z",
            "1@2026-03-28T22:59:00Z 2@2026-03-28T23:01:00Z 3@2026-03-29T21:59:00Z 4@2026-03-29T22:01:00Z",
            "4+database 3+day 2-many 1+day",
        ),
        // The same moments are other days elsewhere.
        (
            "max=1 days=1 daily=2 tz=Pacific/Auckland",
            "1@2026-11-22T10:59:00Z 2@2026-11-22T11:01:00Z 3@2026-11-23T11:01:00Z",
            "3+database 2+day 1-old",
        ),
    ];
    assert!(cases.len() >= 40);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(rules, backups, expected)| {
            let found = outcome(rules, backups);
            (found != *expected).then(|| format!("{rules} | {backups}\n  expected {expected}\n  found    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever is thrown at it: the promises hold.
#[test]
fn protected_backups_never_go() {
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let now = Utc.with_ymd_and_hms(2026, 11, 24, 12, 0, 0).unwrap();
    for _ in 0..5000 {
        let (_, mut rules) = rules("");
        rules.max_backups = 1 + next(5) as u32;
        rules.days = 1 + next(40) as u32;
        rules.daily = next(3) as u32;
        rules.offsite = next(2) == 0;
        let candidates: Vec<Candidate> = (0..next(12))
            .map(|id| Candidate {
                id,
                at: now - Duration::hours(next(2000) as i64),
                completed: next(4) != 0,
                pieces: (0..=next(3))
                    .map(|c| Piece {
                        component: Component::ALL[c as usize],
                        verification: [None, None, Some(Verification::Failed), Some(Verification::HashVerified)][next(4) as usize],
                        replicated: next(2) == 0,
                    })
                    .collect(),
                needed_by: (next(10) == 0).then(|| "a chain".to_owned()),
            })
            .collect();
        let decisions = decide(now, &rules, &candidates);
        assert_eq!(decisions.len(), candidates.len());
        let kept = |id: u64| decisions.iter().any(|d| d.id == id && d.why.keeps());
        let database = |c: &&Candidate| {
            c.pieces.iter().any(|p| p.component == Component::Database && matches!(p.verification, Some(Verification::HashVerified)))
        };
        let verified = candidates.iter().filter(database).max_by_key(|c| (c.at, c.id));
        assert!(verified.is_none_or(|c| kept(c.id)), "{candidates:?}");
        for c in &candidates {
            assert!(c.needed_by.is_none() || kept(c.id), "{c:?}");
            assert!(!rules.offsite || c.pieces.iter().all(|p| p.replicated) || kept(c.id), "{c:?}");
        }
        // And it is not that nothing ever goes: a good, old, replicated one with a newer twin does.
        assert!(decisions.iter().all(|d| d.why.keeps() || protections(rules.offsite, &candidates).iter().all(|p| p.id != d.id)));
    }
}
