//! All SQL on schedules, and the scheduler that turns their slots into jobs.
//!
//! Any number of processes may call [`scheduler::tick`]: a slot's job and its schedule's row are written in one transaction
//! under the row's lock, and the job's unique `slot_key` lets a slot happen once ever. The only clock is MySQL's.
//!
//! The rules, each of them tested:
//!
//! - Slots that passed while no scheduler ran become **one** job, for the newest of them, late and marked so.
//! - While the schedule's newest job waits or runs, its slots are left out and noted: they do not pile up, and are
//!   not made up for.
//! - A kind that runs at most once is refused, since nobody would confirm it.
//! - Enabling starts with the next slot; it makes up for nothing.
//!
//! Locks are taken in the order schedule, then job, as nothing else locks a schedule.

pub mod scheduler;
pub mod timetable;

use crate::{
    queue::{Enqueued, NewJob, enqueue, node_queue},
    register::{self, Kind},
    state::State,
};
use chrono::{DateTime, Utc};
use engine::sql::server_error;
use sqlx::{Connection, MySql, MySqlConnection, QueryBuilder, Row, mysql::MySqlRow};
use timetable::{Plan, Timetable, TimetableError};

/// Why a schedule is not made, changed or run; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// No such schedule.
    #[error("schedule `{0}` does not exist; `enqueue schedule list` shows them")]
    Unknown(String),
    /// The name is taken.
    #[error("schedule `{0}` exists already: remove it first, or choose another name")]
    Exists(String),
    /// The name.
    #[error("`{0}` is not a schedule's name: use up to 64 letters, digits, dots, dashes or underscores")]
    Name(String),
    /// The cron expression or the zone.
    #[error(transparent)]
    Timetable(#[from] TimetableError),
    /// The kind's own word on the payload, or that there is no such kind.
    #[error("{0}")]
    Payload(String),
    /// At most once.
    #[error("a job of kind `{0}` is never started without a person who confirms it, so it cannot be scheduled")]
    NeedsPerson(&'static str),
    /// It would pile up.
    #[error(
        "schedule `{schedule}`: its job {job} is still {state}; follow it with `enqueue show {job} --wait`, or stop it with `enqueue cancel {job}`"
    )]
    Unfinished {
        /// The schedule.
        schedule: String,
        /// Its newest job.
        job: u64,
        /// That job's state.
        state: State,
    },
    /// MySQL's word.
    #[error("control schema: {0}")]
    Database(#[from] sqlx::Error),
}

/// A schedule that does not exist yet.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// The cron expression.
    pub cron: String,
    /// The zone in which it is read.
    pub timezone: String,
    /// What each slot enqueues; who asked for it is who makes the schedule.
    pub job: NewJob,
}

/// Schedules that `worker migrate` makes where they are missing; off until somebody enables them.
///
/// Name, cron expression, kind, payload, what it is for.
const READY_MADE: &[(&str, &str, &str, &str, &str)] = &[
    ("nightly-backup", "0 2 * * *", "backup", "{}", "Every component, every night"),
    (
        "weekly-drill",
        "0 5 * * 0",
        "verify",
        r#"{"drill": true}"#,
        "The newest database archive restored into a scratch schema, every Sunday",
    ),
];

/// Makes the ready-made schedules that are missing, switched off; leaves existing ones as they are.
pub async fn ensure_ready_made(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    for (name, cron, kind, payload, description) in READY_MADE {
        sqlx::query(
            "INSERT INTO schedules (name, description, cron, kind, payload, created_by) VALUES (?, ?, ?, ?, ?, 'worker migrate')
             ON DUPLICATE KEY UPDATE name = schedules.name",
        )
        .bind(name)
        .bind(description)
        .bind(cron)
        .bind(kind)
        .bind(payload)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Makes a schedule, switched on, and returns its first slot.
pub async fn add(connection: &mut MySqlConnection, new: &NewSchedule) -> Result<DateTime<Utc>, ScheduleError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if new.name.is_empty() || new.name.len() > 64 || !new.name.chars().all(legal) {
        return Err(ScheduleError::Name(new.name.clone()));
    }
    let timetable = Timetable::parse(&new.cron, &new.timezone)?;
    safe_kind(new.job.kind)?;
    let next = timetable.next(now(connection).await?);
    let made = sqlx::query(
        "INSERT INTO schedules (name, description, cron, timezone, kind, payload, queue, enabled, created_by, next_run)
         VALUES (?, ?, ?, ?, ?, ?, ?, TRUE, ?, ?)",
    )
    .bind(&new.name)
    .bind(&new.description)
    .bind(&new.cron)
    .bind(&new.timezone)
    .bind(new.job.kind)
    .bind(new.job.payload.to_string())
    .bind(new.job.node.as_deref().map_or_else(|| "shared".into(), node_queue))
    .bind(&new.job.requested_by)
    .bind(next)
    .execute(connection)
    .await;
    match made {
        Ok(_) => Ok(next),
        Err(error) if server_error(&error) == Some(1062) => Err(ScheduleError::Exists(new.name.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Removes a schedule; its jobs stay.
pub async fn remove(connection: &mut MySqlConnection, name: &str) -> Result<(), ScheduleError> {
    let removed = sqlx::query("DELETE FROM schedules WHERE name = ?").bind(name).execute(connection).await?;
    if removed.rows_affected() == 0 { Err(ScheduleError::Unknown(name.into())) } else { Ok(()) }
}

/// Switches a schedule on, and returns the slot that it starts with.
pub async fn enable(connection: &mut MySqlConnection, name: &str) -> Result<DateTime<Utc>, ScheduleError> {
    let mut tx = connection.begin().await?;
    let row = lock(&mut tx, name).await?;
    row.job("", "")?;
    let timetable = Timetable::parse(&row.cron, &row.timezone)?;
    // Enabling it twice must not lose a slot that has come since.
    let next = if row.enabled { row.next_run } else { None }.unwrap_or_else(|| timetable.next(row.now));
    sqlx::query(
        "UPDATE schedules SET note = IF(enabled, note, NULL), enabled = TRUE, next_run = ?, updated_at = UTC_TIMESTAMP(6) WHERE name = ?",
    )
    .bind(next)
    .bind(name)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(next)
}

/// Switches a schedule off; a job of it that waits or runs goes on.
pub async fn disable(connection: &mut MySqlConnection, name: &str) -> Result<(), ScheduleError> {
    let mut tx = connection.begin().await?;
    lock(&mut tx, name).await?;
    sqlx::query("UPDATE schedules SET enabled = FALSE, next_run = NULL, updated_at = UTC_TIMESTAMP(6) WHERE name = ?")
        .bind(name)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Enqueues what the schedule does, once and now, whether it is on or off; its slots stay as they are.
pub async fn run_now(connection: &mut MySqlConnection, name: &str, by: &str, from: &str) -> Result<u64, ScheduleError> {
    let mut tx = connection.begin().await?;
    let row = lock(&mut tx, name).await?;
    let job = row.job(&format!("{by} (schedule {name})"), from)?;
    if let Some((job, state)) = unfinished(&mut tx, row.last_job_id).await? {
        return Err(ScheduleError::Unfinished { schedule: name.into(), job, state });
    }
    let Enqueued { id, .. } = enqueue(&mut tx, &job).await?;
    sqlx::query("UPDATE schedules SET last_job_id = ?, last_run = UTC_TIMESTAMP(6) WHERE name = ?")
        .bind(id)
        .bind(name)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(id)
}

/// A schedule as `enqueue schedule list` gives it; times are UTC.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The cron expression.
    pub cron: String,
    /// The zone in which it is read.
    pub timezone: String,
    /// Kind of its jobs.
    pub kind: String,
    /// What each of them is to do.
    pub payload: serde_json::Value,
    /// `shared` or `node:NAME`.
    pub queue: String,
    /// Whether its slots become jobs.
    pub enabled: bool,
    /// Who made it.
    pub created_by: String,
    /// The next slot.
    pub next_run: Option<DateTime<Utc>>,
    /// Seconds since that slot; more than some means that no scheduler runs.
    pub overdue_seconds: i64,
    /// The newest slot that became a job.
    pub last_slot: Option<DateTime<Utc>>,
    /// Slots before it that passed without a job.
    pub last_missed: u32,
    /// When its newest job was enqueued.
    pub last_run: Option<DateTime<Utc>>,
    /// Its newest job.
    pub last_job: Option<u64>,
    /// That job's state; none when its history was pruned.
    pub last_job_state: Option<String>,
    /// What a person should know of its newest slot.
    pub note: Option<String>,
}

/// All schedules, by name.
pub async fn list(connection: &mut MySqlConnection) -> sqlx::Result<Vec<ScheduleRow>> {
    let rows = sqlx::query(
        "SELECT s.*, j.state AS job_state,
                CAST(GREATEST(COALESCE(TIMESTAMPDIFF(SECOND, s.next_run, UTC_TIMESTAMP(6)), 0), 0) AS SIGNED) AS overdue_seconds
           FROM schedules s LEFT JOIN jobs j ON j.id = s.last_job_id ORDER BY s.name",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| {
            let payload: String = r.try_get("payload")?;
            Ok(ScheduleRow {
                name: r.try_get("name")?,
                description: r.try_get("description")?,
                cron: r.try_get("cron")?,
                timezone: r.try_get("timezone")?,
                kind: r.try_get("kind")?,
                payload: serde_json::from_str(&payload).map_err(|e| sqlx::Error::Decode(e.into()))?,
                queue: r.try_get("queue")?,
                enabled: r.try_get("enabled")?,
                created_by: r.try_get("created_by")?,
                next_run: r.try_get("next_run")?,
                overdue_seconds: r.try_get("overdue_seconds")?,
                last_slot: r.try_get("last_slot")?,
                last_missed: r.try_get("last_missed")?,
                last_run: r.try_get("last_run")?,
                last_job: r.try_get("last_job_id")?,
                last_job_state: r.try_get("job_state")?,
                note: r.try_get("note")?,
            })
        })
        .collect()
}

/// A row of `schedules`, as far as deciding needs it.
struct ScheduleLine {
    name: String,
    cron: String,
    timezone: String,
    kind: String,
    payload: String,
    queue: String,
    enabled: bool,
    next_run: Option<DateTime<Utc>>,
    last_job_id: Option<u64>,
    note: Option<String>,
    now: DateTime<Utc>,
}

impl ScheduleLine {
    fn read(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            cron: row.try_get("cron")?,
            timezone: row.try_get("timezone")?,
            kind: row.try_get("kind")?,
            payload: row.try_get("payload")?,
            queue: row.try_get("queue")?,
            enabled: row.try_get("enabled")?,
            next_run: row.try_get("next_run")?,
            last_job_id: row.try_get("last_job_id")?,
            note: row.try_get("note")?,
            now: row.try_get("now")?,
        })
    }

    fn plan(&self) -> Result<Plan, TimetableError> {
        Ok(Timetable::parse(&self.cron, &self.timezone)?.plan(self.next_run, self.now))
    }

    fn job(&self, by: &str, from: &str) -> Result<NewJob, ScheduleError> {
        let kind = safe_kind(&self.kind)?;
        let payload = serde_json::from_str(&self.payload).unwrap_or_default();
        let mut job = NewJob::of_kind(kind, payload, by, from).map_err(ScheduleError::Payload)?;
        job.node = self.queue.strip_prefix("node:").map(str::to_owned);
        Ok(job)
    }
}

/// The schedule of this name, or all of them, as the rest of the statement says.
fn select(name: Option<&str>, rest: &str) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new(
        "SELECT name, cron, timezone, kind, payload, queue, enabled, next_run, last_job_id, note, UTC_TIMESTAMP(6) AS now FROM schedules",
    );
    if let Some(name) = name {
        query.push(" WHERE name = ").push_bind(name.to_owned());
    }
    query.push(rest);
    query
}

async fn lock(connection: &mut MySqlConnection, name: &str) -> Result<ScheduleLine, ScheduleError> {
    let row = select(Some(name), " FOR UPDATE").build().fetch_optional(connection).await?;
    Ok(ScheduleLine::read(&row.ok_or_else(|| ScheduleError::Unknown(name.into()))?)?)
}

/// The schedule's newest job, if it waits or runs.
async fn unfinished(connection: &mut MySqlConnection, job: Option<u64>) -> sqlx::Result<Option<(u64, State)>> {
    let Some(id) = job else { return Ok(None) };
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM jobs WHERE id = ?").bind(id).fetch_optional(connection).await?;
    Ok(state.as_deref().and_then(State::parse).filter(|s| !s.is_final()).map(|state| (id, state)))
}

async fn now(connection: &mut MySqlConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)").fetch_one(connection).await
}

/// A kind that may be scheduled.
fn safe_kind(name: &str) -> Result<&'static Kind, ScheduleError> {
    let kind = register::find(name).ok_or_else(|| ScheduleError::Payload(format!("kind `{name}` is not known to this version")))?;
    if kind.policy.at_most_once { Err(ScheduleError::NeedsPerson(kind.name)) } else { Ok(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_is_refused() {
        for kind in register::KINDS {
            let refused = matches!(safe_kind(kind.name), Err(ScheduleError::NeedsPerson(name)) if name == kind.name);
            assert_eq!(refused, kind.policy.at_most_once, "{}", kind.name);
        }
    }

    #[test]
    fn ready_made_schedules_are_good() {
        for (name, cron, kind, payload, _) in READY_MADE {
            Timetable::parse(cron, "UTC").unwrap();
            (safe_kind(kind).unwrap().check)(&serde_json::from_str(payload).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}
