//! Taking a job: one short transaction, then the work runs outside any.

use crate::queue::timely;
use engine::sql::server_error;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool, Row};
use std::time::Duration;

/// A worker process as its row in `workers` names it.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    /// Row id.
    pub id: u64,
    /// Node whose files it sees.
    pub node: String,
    /// Queues it serves.
    pub queues: Vec<String>,
}

/// A claimed job: what the worker needs to run it, and the fence that proves the claim.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job's number.
    pub id: u64,
    /// Its kind, as the row says; the register may not know it.
    pub kind: String,
    /// JSON text.
    pub payload: String,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts before it is failed.
    pub max_attempts: u32,
    /// The claim's number.
    pub fence: u64,
    /// Who asked for it.
    pub requested_by: String,
}

/// What keeps every job on the database waiting: a cut-over whose job is over, which a worker ends first
/// (see [`crate::cut_over::recover`]).
pub(super) const OPEN_CUT_OVER: &str = "SELECT c.job_id FROM cut_overs c
    WHERE c.state = 'open' AND NOT EXISTS (SELECT 1 FROM jobs its WHERE its.id = c.job_id AND its.state = 'running')";

/// The same of directories on a node (`?`): see [`crate::trees::recover`]. `r` is the waiting job's resource.
pub(super) const OPEN_SWAP: &str = "SELECT s.job_id FROM tree_swaps s JOIN job_resources r ON r.resource = s.component
    WHERE s.state = 'open' AND s.node = ? AND NOT EXISTS (SELECT 1 FROM jobs its WHERE its.id = s.job_id AND its.state = 'running')";

/// Claims the first job in the line that `worker` may start now.
///
/// A job that needs a resource which another job holds, or for which another stands before it, is passed
/// over and keeps waiting without a worker slot; one whose node is gone stands before nobody. Other workers' half-made
/// claims are skipped, not waited for.
pub async fn claim(pool: &MySqlPool, worker: &WorkerRow, lease: Duration) -> sqlx::Result<Option<Claim>> {
    let mut connection = timely(pool.acquire()).await?;
    for id in timely(candidates(&mut connection, worker)).await? {
        match timely(take(&mut connection, id, worker, lease)).await {
            Ok(Some(claim)) => return Ok(Some(claim)),
            Ok(None) => {}
            // A dropped future leaves the session in the middle of an exchange: never reuse it.
            Err(error) => {
                connection.detach();
                return if matches!(server_error(&error), Some(1205 | 1213)) { Ok(None) } else { Err(error) };
            }
        }
    }
    Ok(None)
}

/// Up to ten jobs that could start now, first in the line first. Reads without locks; [`take`] looks again under them.
async fn candidates(connection: &mut MySqlConnection, worker: &WorkerRow) -> sqlx::Result<Vec<u64>> {
    // One SELECT per queue: each reads the index `claim` in its order and stops at the tenth, however many wait.
    let line = format!(
        "(SELECT j.id, j.priority FROM jobs j
          WHERE j.state = 'available' AND j.queue = ? AND j.run_at <= UTC_TIMESTAMP(6)
            AND NOT EXISTS (
              SELECT 1 FROM job_resources mine
                JOIN job_resources theirs ON theirs.resource = mine.resource AND theirs.job_id <> mine.job_id
                JOIN jobs o ON o.id = theirs.job_id
               WHERE mine.job_id = j.id
                 AND (o.state = 'running'
                      OR (o.state = 'available' AND o.run_at <= UTC_TIMESTAMP(6)
                          AND (o.priority < j.priority OR (o.priority = j.priority AND o.id < j.id))
                          AND EXISTS (SELECT 1 FROM workers w WHERE w.heartbeat_at > UTC_TIMESTAMP(6) - INTERVAL 30 SECOND
                                         AND w.stopped_at IS NULL AND FIND_IN_SET(o.queue, w.queues)))))
            AND NOT (EXISTS ({OPEN_CUT_OVER}) AND EXISTS (SELECT 1 FROM job_resources r WHERE r.job_id = j.id AND r.resource = 'database'))
            AND NOT EXISTS ({OPEN_SWAP} AND r.job_id = j.id)
          ORDER BY j.priority, j.id LIMIT 10)"
    );
    let lines = vec![line; worker.queues.len()].join(" UNION ALL ");
    let sql = format!("SELECT id FROM ({lines}) AS waiting ORDER BY priority, id LIMIT 10");
    let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
    for queue in &worker.queues {
        query = query.bind(queue).bind(&worker.node);
    }
    query.fetch_all(connection).await
}

async fn take(connection: &mut MySqlConnection, id: u64, worker: &WorkerRow, lease: Duration) -> sqlx::Result<Option<Claim>> {
    let mut tx = sqlx::Connection::begin(connection).await?;
    let row = sqlx::query(
        "SELECT kind, payload, attempt, max_attempts, fence, requested_by FROM jobs
          WHERE id = ? AND state = 'available' AND run_at <= UTC_TIMESTAMP(6) FOR UPDATE SKIP LOCKED",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        tx.rollback().await?;
        return Ok(None);
    };
    let claim = Claim {
        id,
        kind: row.try_get("kind")?,
        payload: row.try_get("payload")?,
        attempt: row.try_get::<u32, _>("attempt")? + 1,
        max_attempts: row.try_get("max_attempts")?,
        fence: row.try_get::<u64, _>("fence")? + 1,
        requested_by: row.try_get("requested_by")?,
    };
    let held: Vec<Option<u64>> = sqlx::query_scalar(
        "SELECT r.job_id FROM resources r JOIN job_resources mine ON mine.resource = r.resource
          WHERE mine.job_id = ? ORDER BY r.resource FOR UPDATE",
    )
    .bind(id)
    .fetch_all(&mut *tx)
    .await?;
    if held.iter().any(Option::is_some) {
        tx.rollback().await?;
        return Ok(None);
    }
    if !held.is_empty() {
        sqlx::query("UPDATE resources SET job_id = ?, fence = ? WHERE resource IN (SELECT resource FROM job_resources WHERE job_id = ?)")
            .bind(id)
            .bind(claim.fence)
            .bind(id)
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query(
        "UPDATE jobs SET state = 'running', attempt = ?, fence = ?, worker_id = ?, node = ?, started_at = UTC_TIMESTAMP(6),
                lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND,
                phase = NULL, progress_done = 0, progress_total = 0, progress_at = NULL
          WHERE id = ?",
    )
    .bind(claim.attempt)
    .bind(claim.fence)
    .bind(worker.id)
    .bind(&worker.node)
    .bind(lease.as_micros() as u64)
    .bind(id)
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO job_attempts (job_id, fence, attempt, worker_id, node, started_at) VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6))")
        .bind(id)
        .bind(claim.fence)
        .bind(claim.attempt)
        .bind(worker.id)
        .bind(&worker.node)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Some(claim))
}
