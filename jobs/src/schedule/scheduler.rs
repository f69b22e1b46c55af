//! The scheduler: slots that have come become jobs.

use super::{
    ScheduleLine, select,
    timetable::{Due, MOST_MISSED, Plan},
    unfinished,
};
use crate::{
    queue::{Enqueued, NewJob, enqueue, enqueue::Slot, timely},
    register,
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sqlx::{Connection, MySqlConnection, MySqlPool};

/// What [`tick`] did about a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The schedule.
    pub schedule: String,
    /// The job that its slot became.
    pub job: Option<u64>,
    /// Late, skipped or refused, and why.
    pub note: Option<String>,
}

/// Looks once for slots that have come, and enqueues their jobs; `node` is the caller's, for the record.
///
/// A schedule that another scheduler is serving at the moment is left to it.
pub async fn tick(pool: &MySqlPool, node: &str) -> sqlx::Result<Vec<Served>> {
    let mut connection = timely(pool.acquire()).await?;
    let mut served = Vec::new();
    for row in timely(rows(&mut connection)).await? {
        // Without a lock, and so without disturbing anybody, nearly every look ends here.
        if matches!(row.plan(), Ok(Plan::Wait)) {
            continue;
        }
        match timely(serve(&mut connection, &row.name, node)).await {
            Ok(done) => served.extend(done),
            // A dropped future leaves the session in the middle of an exchange: never reuse it.
            Err(error) => {
                connection.detach();
                return Err(error);
            }
        }
    }
    Ok(served)
}

/// Does what there is to do about one schedule, in one transaction.
async fn serve(connection: &mut MySqlConnection, name: &str, node: &str) -> sqlx::Result<Option<Served>> {
    let mut tx = connection.begin().await?;
    let locked = select(Some(name), " AND enabled FOR UPDATE SKIP LOCKED").build().fetch_optional(&mut *tx).await?;
    let Some(row) = locked.as_ref().map(ScheduleLine::read).transpose()? else { return Ok(None) };
    let served = |job, note: Option<String>| Some(Served { schedule: name.to_owned(), job, note });
    let done = match row.plan() {
        Ok(Plan::Wait) => None,
        Ok(Plan::Note(next)) => {
            // What was wrong with a schedule that had no next slot is right now.
            let kept = row.next_run.and(row.note.as_deref());
            note(&mut tx, &row, Some(next), kept).await?;
            None
        }
        Ok(Plan::Due(due)) => match slot_job(&mut tx, &row, &due, node).await? {
            Verdict::Enqueue(job) => {
                let Enqueued { id, .. } = enqueue(&mut tx, &job).await?;
                let mark = mark(&due, row.now);
                let note = (!mark.is_empty()).then(|| format!("slot {}{mark}", rfc3339(due.slot)));
                sqlx::query(
                    "UPDATE schedules SET next_run = ?, last_slot = ?, last_missed = ?, last_job_id = ?, last_run = UTC_TIMESTAMP(6), note = ?
                      WHERE name = ?",
                )
                .bind(due.next)
                .bind(due.slot)
                .bind(due.missed)
                .bind(id)
                .bind(&note)
                .bind(name)
                .execute(&mut *tx)
                .await?;
                served(Some(id), note)
            }
            Verdict::Skip(why) => {
                note(&mut tx, &row, Some(due.next), why.as_deref()).await?;
                why.and_then(|why| served(None, Some(why)))
            }
            // Said once, not at every look.
            Verdict::Leave(why) if row.note.as_ref() == Some(&why) => None,
            Verdict::Leave(why) => {
                note(&mut tx, &row, row.next_run, Some(&why)).await?;
                served(None, Some(why))
            }
        },
        Err(error) => {
            let why = format!("it runs no more: {error}");
            if row.next_run.is_none() && row.note.as_ref() == Some(&why) {
                None
            } else {
                note(&mut tx, &row, None, Some(&why)).await?;
                served(None, Some(why))
            }
        }
    };
    tx.commit().await?;
    Ok(done)
}

/// What becomes of a slot that has come.
enum Verdict {
    /// A job.
    Enqueue(NewJob),
    /// Nothing, for good; there is nothing to say if it has its job already.
    Skip(Option<String>),
    /// Nothing yet: another worker can do better.
    Leave(String),
}

async fn slot_job(connection: &mut MySqlConnection, row: &ScheduleLine, due: &Due, node: &str) -> sqlx::Result<Verdict> {
    let slot = rfc3339(due.slot);
    let key = format!("{} {slot}", row.name);
    let known: Option<u64> =
        sqlx::query_scalar("SELECT id FROM jobs WHERE slot_key = ?").bind(&key).fetch_optional(&mut *connection).await?;
    if known.is_some() {
        return Ok(Verdict::Skip(None));
    }
    if register::find(&row.kind).is_none() {
        return Ok(Verdict::Leave(format!("slot {slot} waits: the worker on node {node} knows no kind `{}`; upgrade it", row.kind)));
    }
    if let Some((job, state)) = unfinished(connection, row.last_job_id).await? {
        return Ok(Verdict::Skip(Some(format!("slot {slot} left out: job {job} was still {state}"))));
    }
    let by = format!("schedule {} (slot {slot}{})", row.name, mark(due, row.now));
    Ok(match row.job(&by, &format!("scheduler on {node}")) {
        Ok(mut job) => {
            job.slot = Some(Slot { key, at: due.slot, missed: due.missed });
            Verdict::Enqueue(job)
        }
        Err(error) => Verdict::Skip(Some(format!("slot {slot} refused: {error}"))),
    })
}

/// How a slot is marked that did not run on time: `, 3 h late, 2 more missed`; empty for one that did.
fn mark(due: &Due, now: DateTime<Utc>) -> String {
    let late = now - due.slot;
    if late < TimeDelta::minutes(1) && due.missed == 0 {
        return String::new();
    }
    let late = match (late.num_days(), late.num_hours(), late.num_minutes()) {
        (2.., ..) => format!("{} days", late.num_days()),
        (_, 1.., _) => format!("{} h", late.num_hours()),
        (_, _, 1..) => format!("{} min", late.num_minutes()),
        _ => format!("{} s", late.num_seconds()),
    };
    match due.missed {
        0 => format!(", {late} late"),
        MOST_MISSED.. => format!(", {late} late, {MOST_MISSED} or more missed"),
        missed => format!(", {late} late, {missed} more missed"),
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

async fn rows(connection: &mut MySqlConnection) -> sqlx::Result<Vec<ScheduleLine>> {
    select(None, " WHERE enabled ORDER BY name").build().fetch_all(connection).await?.iter().map(ScheduleLine::read).collect()
}

async fn note(connection: &mut MySqlConnection, row: &ScheduleLine, next: Option<DateTime<Utc>>, note: Option<&str>) -> sqlx::Result<()> {
    sqlx::query("UPDATE schedules SET next_run = ?, note = ? WHERE name = ?")
        .bind(next)
        .bind(note)
        .bind(&row.name)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_slots_are_marked() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let slot = at("2026-11-24T02:00:00Z");
        let marked = |now: &str, missed| mark(&Due { slot, missed, next: at("2026-11-25T02:00:00Z") }, at(now));
        assert_eq!(marked("2026-11-24T02:00:03Z", 0), "");
        assert_eq!(marked("2026-11-24T02:07:03Z", 0), ", 7 min late");
        assert_eq!(marked("2026-11-24T05:10:00Z", 2), ", 3 h late, 2 more missed");
        assert_eq!(marked("2026-11-24T02:00:03Z", 1), ", 3 s late, 1 more missed");
        assert_eq!(marked("2026-11-27T05:10:00Z", 5000), ", 3 days late, 1000 or more missed");
    }
}
