//! What people read of jobs, and the few things that they may do to them.

use crate::{
    queue::{NewJob, node_queue},
    register,
    state::State,
};
use chrono::{DateTime, Utc};
use sqlx::{Connection, MySqlConnection, QueryBuilder, Row, mysql::MySqlRow};

/// A job as `enqueue jobs` and `enqueue show` give it; times are UTC.
#[derive(Debug, Clone, serde::Serialize)]
pub struct JobRow {
    /// The job's number.
    pub id: u64,
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// Who asked.
    pub requested_by: String,
    /// From where.
    pub requested_from: String,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// Not started before.
    pub run_at: DateTime<Utc>,
    /// Start of the last attempt.
    pub started_at: Option<DateTime<Utc>>,
    /// When it reached a final state.
    pub finished_at: Option<DateTime<Utc>>,
    /// Attempts so far.
    pub attempt: u32,
    /// Attempts before it is failed.
    pub max_attempts: u32,
    /// Node of its last attempt.
    pub node: Option<String>,
    /// `shared` or `node:NAME`.
    pub queue: String,
    /// What it is doing.
    pub phase: Option<String>,
    /// Bytes done in this phase.
    pub progress_done: u64,
    /// Bytes expected in this phase; 0 when unknown.
    pub progress_total: u64,
    /// The job that it waits for.
    pub waits_for: Option<u64>,
    /// Why it failed, or is tried again.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<serde_json::Value>,
    /// What to do.
    pub payload: serde_json::Value,
}

/// One try at a job; times are UTC.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AttemptRow {
    /// Its number, from 1.
    pub attempt: u32,
    /// Where it ran.
    pub node: String,
    /// The worker's process id there.
    pub pid: Option<u32>,
    /// Start.
    pub started_at: DateTime<Utc>,
    /// End; none while running.
    pub ended_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why.
    pub error: Option<String>,
}

/// A line that a job said; the time is UTC.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LogRow {
    /// For asking for later lines only.
    pub id: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// `info`, `warn`.
    pub level: String,
    /// The line.
    pub message: String,
}

const COLUMNS: &str = "SELECT h.id, h.kind, h.state, h.requested_by, h.requested_from, h.created_at, h.run_at, h.started_at, h.finished_at,
    h.attempt, h.max_attempts, h.node, j.queue, h.phase, h.progress_done, h.progress_total, h.waits_for, h.error, h.result, h.payload
    FROM job_history h JOIN jobs j ON j.id = h.id";

fn job(row: &MySqlRow) -> sqlx::Result<JobRow> {
    let json = |text: &str| serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(e.into()));
    let state: String = row.try_get("state")?;
    Ok(JobRow {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        state: State::parse(&state).ok_or_else(|| sqlx::Error::Decode(format!("unknown state `{state}`").into()))?,
        requested_by: row.try_get("requested_by")?,
        requested_from: row.try_get("requested_from")?,
        created_at: row.try_get("created_at")?,
        run_at: row.try_get("run_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        attempt: row.try_get("attempt")?,
        max_attempts: row.try_get("max_attempts")?,
        node: row.try_get("node")?,
        queue: row.try_get("queue")?,
        phase: row.try_get("phase")?,
        progress_done: row.try_get("progress_done")?,
        progress_total: row.try_get("progress_total")?,
        waits_for: row.try_get("waits_for")?,
        error: row.try_get("error")?,
        result: row.try_get::<Option<String>, _>("result")?.as_deref().map(json).transpose()?,
        payload: json(&row.try_get::<String, _>("payload")?)?,
    })
}

/// The job of this number.
pub async fn show(connection: &mut MySqlConnection, id: u64) -> sqlx::Result<Option<JobRow>> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE h.id = ").push_bind(id);
    query.build().fetch_optional(connection).await?.as_ref().map(job).transpose()
}

/// The newest `limit` jobs, newest first, of one state and kind if given.
pub async fn list(connection: &mut MySqlConnection, state: Option<State>, kind: Option<&str>, limit: u32) -> sqlx::Result<Vec<JobRow>> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" WHERE TRUE");
    if let Some(state) = state {
        query.push(" AND h.state = ").push_bind(state.as_str());
    }
    if let Some(kind) = kind {
        query.push(" AND h.kind = ").push_bind(kind.to_owned());
    }
    query.push(" ORDER BY h.id DESC LIMIT ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(job).collect()
}

/// The job's attempts, first one first.
pub async fn attempts(connection: &mut MySqlConnection, id: u64) -> sqlx::Result<Vec<AttemptRow>> {
    let rows = sqlx::query(
        "SELECT a.attempt, a.node, w.pid, a.started_at, a.ended_at, a.outcome, a.error
           FROM job_attempts a LEFT JOIN workers w ON w.id = a.worker_id WHERE a.job_id = ? ORDER BY a.fence",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(AttemptRow {
                attempt: row.try_get("attempt")?,
                node: row.try_get("node")?,
                pid: row.try_get("pid")?,
                started_at: row.try_get("started_at")?,
                ended_at: row.try_get("ended_at")?,
                outcome: row.try_get("outcome")?,
                error: row.try_get("error")?,
            })
        })
        .collect()
}

/// The job's lines after line `after` (0: all), oldest first, at most a thousand.
pub async fn log(connection: &mut MySqlConnection, id: u64, after: u64) -> sqlx::Result<Vec<LogRow>> {
    let rows = sqlx::query("SELECT id, at, level, message FROM job_log WHERE job_id = ? AND id > ? ORDER BY id LIMIT 1000")
        .bind(id)
        .bind(after)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(LogRow { id: row.try_get("id")?, at: row.try_get("at")?, level: row.try_get("level")?, message: row.try_get("message")? })
        })
        .collect()
}

/// What [`retry`] would make, or why not.
#[derive(Debug)]
pub enum Retry {
    /// A new job with the same payload.
    New(Box<NewJob>),
    /// It is not over, or was done, in this state.
    NotNow(State),
    /// Its kind is destructive: a person looks at a new plan first.
    Destructive(String),
    /// What it was asked to do is not possible with this version.
    Invalid(String),
    /// There is no such job.
    Unknown,
}

/// A job like this one, which failed, was cancelled, or was done with warnings. Two retries of a job while the first one
/// waits are one.
pub async fn retry(connection: &mut MySqlConnection, id: u64, by: &str, from: &str) -> sqlx::Result<Retry> {
    let Some(job) = show(connection, id).await? else { return Ok(Retry::Unknown) };
    if !matches!(job.state, State::Failed | State::Cancelled | State::CompletedWithWarnings) {
        return Ok(Retry::NotNow(job.state));
    }
    let Some(kind) = register::find(&job.kind) else {
        return Ok(Retry::Invalid(format!("this version knows no kind `{}`", job.kind)));
    };
    if kind.policy.at_most_once {
        return Ok(Retry::Destructive(job.kind));
    }
    Ok(match NewJob::of_kind(kind, job.payload, by, format!("{from}, again after job {id}")) {
        Ok(new) => Retry::New(Box::new(NewJob {
            node: job.queue.strip_prefix("node:").map(str::to_owned),
            unique_key: Some(format!("retry:{id}")),
            ..new
        })),
        Err(why) => Retry::Invalid(why),
    })
}

/// What [`move_to`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It waits for that node now.
    Yes,
    /// It runs, or is over.
    NotWaiting(State),
    /// There is no such job.
    Unknown,
}

/// Sends a waiting job to another node.
pub async fn move_to(connection: &mut MySqlConnection, id: u64, node: &str) -> sqlx::Result<Moved> {
    let mut tx = connection.begin().await?;
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM jobs WHERE id = ? FOR UPDATE").bind(id).fetch_optional(&mut *tx).await?;
    let moved = match state.as_deref().map(State::parse) {
        None => Moved::Unknown,
        Some(Some(State::Available)) => {
            sqlx::query("UPDATE jobs SET queue = ? WHERE id = ?").bind(node_queue(node)).bind(id).execute(&mut *tx).await?;
            Moved::Yes
        }
        Some(Some(state)) => Moved::NotWaiting(state),
        Some(None) => return Err(sqlx::Error::Decode("unknown state".into())),
    };
    tx.commit().await?;
    Ok(moved)
}

/// What [`cancel`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting, and is cancelled.
    Now,
    /// It runs, and its worker stops it within seconds.
    Requested,
    /// It was over already, in this state.
    Over(State),
    /// There is no such job.
    Unknown,
}

/// Cancels a waiting job at once, and asks the worker of a running one to stop it.
pub async fn cancel(connection: &mut MySqlConnection, id: u64, by: &str) -> sqlx::Result<Cancelled> {
    let mut tx = connection.begin().await?;
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM jobs WHERE id = ? FOR UPDATE").bind(id).fetch_optional(&mut *tx).await?;
    let Some(state) = state else { return Ok(Cancelled::Unknown) };
    let done = match State::parse(&state) {
        Some(State::Available) => {
            sqlx::query(
                "UPDATE jobs SET state = 'cancelled', finished_at = UTC_TIMESTAMP(6), cancel_requested_at = UTC_TIMESTAMP(6),
                        error = ? WHERE id = ?",
            )
            .bind(format!("cancelled by {by} while it waited"))
            .bind(id)
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM job_resources WHERE job_id = ?").bind(id).execute(&mut *tx).await?;
            Cancelled::Now
        }
        Some(State::Running) => {
            sqlx::query("UPDATE jobs SET cancel_requested_at = COALESCE(cancel_requested_at, UTC_TIMESTAMP(6)) WHERE id = ?")
                .bind(id)
                .execute(&mut *tx)
                .await?;
            Cancelled::Requested
        }
        Some(over) => Cancelled::Over(over),
        None => return Err(sqlx::Error::Decode(format!("unknown state `{state}`").into())),
    };
    tx.commit().await?;
    Ok(done)
}
