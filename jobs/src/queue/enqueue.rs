//! Making a job: it exists once the caller's transaction commits.

use crate::{
    component::Component,
    job::Job,
    register::{self, Kind},
};
use chrono::{DateTime, Utc};
use engine::sql::server_error;
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
    /// `shared`, or `node:NAME`.
    pub queue: String,
    /// Not before this time; none: at once.
    pub run_at: Option<DateTime<Utc>>,
    /// While a job with this key waits untouched, another is the same job.
    pub unique_key: Option<String>,
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
        let queue = "shared".into();
        Self { kind, payload, resources, queue, run_at: None, unique_key: None, slot: None, requested_by, requested_from }
    }

    /// Sends it to one node.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.queue = format!("node:{node}");
        self
    }
}

/// Inserts a job. Call it inside a transaction to make it appear together with other rows; outside one it makes its own.
pub async fn enqueue(connection: &mut MySqlConnection, job: &NewJob) -> sqlx::Result<Enqueued> {
    loop {
        let mut tx = connection.begin().await?;
        match insert(&mut tx, job).await {
            Ok(id) => {
                tx.commit().await?;
                return Ok(Enqueued { id, existing: false });
            }
            Err(error) if server_error(&error) == Some(1062) && job.unique_key.is_some() => {
                tx.rollback().await?;
                let waiting: Option<u64> = sqlx::query_scalar("SELECT id FROM jobs WHERE waiting_key = ?")
                    .bind(&job.unique_key)
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

async fn insert(connection: &mut MySqlConnection, job: &NewJob) -> sqlx::Result<u64> {
    let policy = register::find(job.kind)
        .map(|k| k.policy)
        .ok_or_else(|| sqlx::Error::Protocol(format!("kind `{}` is not in the register", job.kind)))?;
    let id = sqlx::query(
        "INSERT INTO jobs (kind, payload, queue, priority, max_attempts, unique_key, slot_key, slot_at, slots_missed, requested_by, requested_from, run_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, COALESCE(?, UTC_TIMESTAMP(6)))",
    )
    .bind(job.kind)
    .bind(job.payload.to_string())
    .bind(&job.queue)
    .bind(policy.priority)
    .bind(policy.max_attempts)
    .bind(&job.unique_key)
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
