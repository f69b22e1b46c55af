//! Making a job: it exists once the caller's transaction commits.

use crate::{
    component::Component,
    job::{Job, Shape},
    register::{self, Kind},
};
use chrono::{DateTime, Utc};
use engine::sql::server_error;
use sha2::{Digest, Sha256};
use sqlx::{Connection, MySqlConnection};

/// A job that does not exist yet.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its kind.
    pub kind: &'static str,
    /// Its payload, checked.
    pub payload: serde_json::Value,
    /// What it needs for itself.
    pub resources: Vec<Component>,
    /// The node that it must run on; none: the one that holds the archive, or the backup, which the payload names, else any.
    pub node: Option<String>,
    /// Not before this time; none: at once.
    pub run_at: Option<DateTime<Utc>>,
    /// While a job with this key waits untouched, another is the same job. None: the kind's policy says.
    pub unique_key: Option<String>,
    /// Running repeatable jobs that hold what it needs are cancelled for it.
    pub preempt: bool,
    /// The slot of a schedule that it is made for.
    pub slot: Option<Slot>,
    /// Who asks.
    pub requested_by: String,
    /// From where.
    pub requested_from: String,
}

/// A schedule's slot; there is one job for it ever.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Schedule and time.
    pub key: String,
    /// When it was due.
    pub at: DateTime<Utc>,
    /// Slots before it that passed without a job.
    pub missed: u32,
}

/// What [`enqueue`] made, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job's number.
    pub id: u64,
    /// Whether a waiting job with the same unique key was there already.
    pub existing: bool,
}

impl NewJob {
    /// Checks the payload. The error says which field is wrong and what is right.
    pub fn new<J: Job>(job: &J, requested_by: impl Into<String>, requested_from: impl Into<String>) -> Result<Self, String> {
        job.validate()?;
        let payload = serde_json::to_value(job).map_err(|e| e.to_string())?;
        Ok(Self::checked(J::KIND, payload, job.resources(), requested_by.into(), requested_from.into()))
    }

    /// The same of a payload in JSON.
    pub fn of_kind(
        kind: &Kind,
        payload: serde_json::Value,
        requested_by: impl Into<String>,
        requested_from: impl Into<String>,
    ) -> Result<Self, String> {
        let resources = (kind.check)(&payload)?;
        Ok(Self::checked(kind.name, payload, resources, requested_by.into(), requested_from.into()))
    }

    fn checked(
        kind: &'static str,
        payload: serde_json::Value,
        resources: Vec<Component>,
        requested_by: String,
        requested_from: String,
    ) -> Self {
        Self {
            kind,
            payload,
            resources,
            node: None,
            run_at: None,
            unique_key: None,
            preempt: false,
            slot: None,
            requested_by,
            requested_from,
        }
    }
}

/// The queue of a node's own jobs.
pub fn node_queue(node: &str) -> String {
    format!("node:{node}")
}

/// Inserts a job. Call it inside a transaction to make it appear together with other rows; outside one it makes its own.
pub async fn enqueue(connection: &mut MySqlConnection, job: &NewJob) -> sqlx::Result<Enqueued> {
    let kind = register::find(job.kind).ok_or_else(|| sqlx::Error::Protocol(format!("kind `{}` is not in the register", job.kind)))?;
    let queue = queue_of(connection, kind, job).await?;
    let unique_key = match &job.unique_key {
        // A slot is unique by itself, and a job for a later time is not the same as one for now.
        None if kind.policy.unique && job.slot.is_none() && job.run_at.is_none() => Some(unique_key(kind, &queue, &job.payload)),
        key => key.clone(),
    };
    let alone = !connection.is_in_transaction();
    loop {
        let mut tx = connection.begin().await?;
        match insert(&mut tx, kind, job, &queue, unique_key.as_deref()).await {
            Ok(id) => {
                tx.commit().await?;
                return Ok(Enqueued { id, existing: false });
            }
            // Within the caller's transaction it has taken everything back, and only the caller can do that again.
            Err(error) if server_error(&error) == Some(1213) && alone => tx.rollback().await?,
            Err(error) if server_error(&error) == Some(1062) && unique_key.is_some() => {
                tx.rollback().await?;
                let waiting: Option<u64> = sqlx::query_scalar("SELECT id FROM jobs WHERE waiting_key = ?")
                    .bind(&unique_key)
                    .fetch_optional(&mut *connection)
                    .await?;
                // It may have been claimed between the two statements; then this one is a job of its own.
                if let Some(id) = waiting {
                    return Ok(Enqueued { id, existing: true });
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// `node:NAME` where the job must run there, else `shared`.
async fn queue_of(connection: &mut MySqlConnection, kind: &Kind, job: &NewJob) -> sqlx::Result<String> {
    if let Some(node) = &job.node {
        return Ok(node_queue(node));
    }
    let archive = kind.fields.iter().find(|f| f.shape == Shape::Archive).and_then(|f| job.payload[f.name].as_str());
    let Some(archive) = archive else { return Ok("shared".into()) };
    // A bare number is always a backup's.
    let backup: Option<u64> = archive.parse().ok();
    let node: Option<String> =
        sqlx::query_scalar("SELECT node FROM archives WHERE (file_name = ? OR backup_id = ?) AND state = 'complete' ORDER BY id LIMIT 1")
            .bind(archive)
            .bind(backup)
            .fetch_optional(connection)
            .await?;
    Ok(node.map_or_else(|| "shared".into(), |node| node_queue(&node)))
}

/// What two equal jobs have in common: their fields by name, but for those that say nothing. `check_job_payload` in
/// definitions.sql does the same.
fn unique_key(kind: &Kind, queue: &str, payload: &serde_json::Value) -> String {
    let mut fields: Vec<_> = kind.fields.iter().map(|f| f.name).collect();
    fields.sort_unstable();
    let mut canonical = String::new();
    for field in fields {
        let text = match &payload[field] {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(words) => {
                let mut words: Vec<&str> = words.iter().filter_map(|w| w.as_str()).collect();
                words.sort_unstable();
                words.join(",")
            }
            other => other.to_string(),
        };
        if !["", "0", "false"].contains(&&*text) {
            canonical.push_str(&format!("{field}={text}\n"));
        }
    }
    format!("{} {queue} {}", kind.name, hex::encode(Sha256::digest(canonical)))
}

async fn insert(connection: &mut MySqlConnection, kind: &Kind, job: &NewJob, queue: &str, unique_key: Option<&str>) -> sqlx::Result<u64> {
    let id = sqlx::query(
        "INSERT INTO jobs (kind, payload, queue, priority, preempt, max_attempts, unique_key, slot_key, slot_at, slots_missed, requested_by, requested_from, run_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, COALESCE(?, UTC_TIMESTAMP(6)))",
    )
    .bind(job.kind)
    .bind(job.payload.to_string())
    .bind(queue)
    .bind(kind.policy.priority)
    .bind(job.preempt)
    .bind(kind.policy.max_attempts)
    .bind(unique_key)
    .bind(job.slot.as_ref().map(|s| &s.key))
    .bind(job.slot.as_ref().map(|s| s.at))
    .bind(job.slot.as_ref().map_or(0, |s| s.missed))
    .bind(&job.requested_by)
    .bind(&job.requested_from)
    .bind(job.run_at)
    .execute(&mut *connection)
    .await?
    .last_insert_id();
    // Each row locks its resource (the foreign key), so in the order in which a claim locks them.
    let mut resources = job.resources.clone();
    resources.sort_by_key(|r| r.as_str());
    for resource in resources {
        sqlx::query("INSERT INTO job_resources (job_id, resource) VALUES (?, ?)")
            .bind(id)
            .bind(resource.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(id)
}
