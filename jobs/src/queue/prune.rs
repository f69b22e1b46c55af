//! Pruning of old history: jobs that ended long ago, with their attempts, logs and deliveries, and workers long gone.
//!
//! A job stays, however old, while it waits or runs, while something that is no history refers to it ([`REFERRING`]),
//! while it is the newest of its kind, while a notification of its end waits, and while it is the job of the newest
//! slot of a schedule, since a slot has one job ever.
//!
//! Any number of workers may prune at once: rows that another one is deleting are skipped, not waited for. A session
//! never locks anything but ended jobs, in the order of their numbers, and what belongs to them.

use crate::queue::timely;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, MySqlPool, QueryBuilder};
use std::{io, time::Duration};

/// Columns that refer to a job without being a part of its history: whoever reads the row may want to see the job.
///
/// What has a foreign key that cascades (attempts, log, deliveries) goes with the job.
pub const REFERRING: &[(&str, &str)] =
    &[("alerts", "job_id"), ("archives", "job_id"), ("backups", "job_id"), ("resources", "job_id"), ("schedules", "last_job_id")];

/// Jobs or workers that one look finds.
const FOUND: u32 = 1000;
/// Jobs that one transaction deletes.
const JOBS: usize = 100;
/// Lines of log that one statement deletes.
const LINES: u64 = 1000;
/// Longest wait for one look or one transaction.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs.
    pub jobs: u64,
    /// Workers.
    pub workers: u64,
}

/// Deletes what ended more than `days` days ago and is not needed any more; 0: nothing.
pub async fn prune(pool: &MySqlPool, days: u32) -> sqlx::Result<Pruned> {
    let mut pruned = Pruned::default();
    if days == 0 {
        return Ok(pruned);
    }
    // Detached: a call that is cut off by its time limit leaves the session unusable.
    let mut connection = timely(pool.acquire()).await?.detach();
    loop {
        let found = in_time(old_jobs(&mut connection, days)).await?;
        let mut deleted = 0;
        for ids in found.chunks(JOBS) {
            while in_time(delete_log(&mut connection, ids)).await? == LINES {}
            deleted += in_time(delete_jobs(&mut connection, ids)).await?;
        }
        pruned.jobs += deleted;
        // None found, or all of them are being deleted by others.
        if deleted == 0 {
            break;
        }
    }
    pruned.workers = in_time(delete_workers(&mut connection, days)).await?;
    Ok(pruned)
}

async fn in_time<T>(call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "it took over 60 s; the next look goes on"))))
}

/// The oldest jobs that may go. Reads without locks: what refers to a job appears while it runs, so none is missed.
async fn old_jobs(connection: &mut MySqlConnection, days: u32) -> sqlx::Result<Vec<u64>> {
    let referring: String = REFERRING
        .iter()
        .map(|(table, column)| format!(" AND j.id NOT IN (SELECT r.{column} FROM {table} r WHERE r.{column} IS NOT NULL)"))
        .collect();
    let sql = format!(
        "SELECT j.id FROM jobs j
          WHERE j.finished_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY
            AND j.id NOT IN (SELECT MAX(newest.id) FROM jobs newest GROUP BY newest.kind)
            {referring}
            AND NOT EXISTS (SELECT 1 FROM schedules s
                             WHERE s.last_slot = j.slot_at AND LEFT(j.slot_key, CHAR_LENGTH(s.name) + 1) = CONCAT(s.name, ' '))
            AND NOT EXISTS (SELECT 1 FROM jobs n WHERE n.state IN ('available', 'running') AND n.unique_key = CONCAT('notify:', j.id))
          ORDER BY j.finished_at, j.id LIMIT ?"
    );
    sqlx::query_scalar(AssertSqlSafe(sql)).bind(days).bind(FOUND).fetch_all(connection).await
}

/// Deletes some of the jobs' lines, and says how many: one job may have said thousands.
async fn delete_log(connection: &mut MySqlConnection, jobs: &[u64]) -> sqlx::Result<u64> {
    let mut query = QueryBuilder::new("DELETE FROM job_log WHERE job_id IN");
    query.push_tuples(jobs, |mut row, id| {
        row.push_bind(*id);
    });
    query.push(" LIMIT ").push_bind(LINES);
    Ok(query.build().execute(connection).await?.rows_affected())
}

async fn delete_jobs(connection: &mut MySqlConnection, ids: &[u64]) -> sqlx::Result<u64> {
    let mut tx = connection.begin().await?;
    let mut query = QueryBuilder::new("SELECT id FROM jobs WHERE finished_at IS NOT NULL AND id IN");
    query.push_tuples(ids, |mut row, id| {
        row.push_bind(*id);
    });
    query.push(" ORDER BY id FOR UPDATE SKIP LOCKED");
    let locked: Vec<u64> = query.build_query_scalar().fetch_all(&mut *tx).await?;
    if !locked.is_empty() {
        let mut query = QueryBuilder::new("DELETE FROM jobs WHERE id IN");
        query.push_tuples(&locked, |mut row, id| {
            row.push_bind(*id);
        });
        query.build().execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(locked.len() as u64)
}

/// Workers of which nothing was heard for so long, unless an attempt that is kept names them, or they are their node's
/// newest: it says when that node was last heard of.
async fn delete_workers(connection: &mut MySqlConnection, days: u32) -> sqlx::Result<u64> {
    let old: Vec<u64> = sqlx::query_scalar(
        "SELECT w.id FROM workers w
          WHERE w.heartbeat_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY
            AND w.id NOT IN (SELECT MAX(newest.id) FROM workers newest GROUP BY newest.node)
            AND w.id NOT IN (SELECT a.worker_id FROM job_attempts a)
          ORDER BY w.id LIMIT ?",
    )
    .bind(days)
    .bind(FOUND)
    .fetch_all(&mut *connection)
    .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let mut query = QueryBuilder::new("DELETE FROM workers WHERE id IN");
    query.push_tuples(&old, |mut row, id| {
        row.push_bind(*id);
    });
    Ok(query.build().execute(connection).await?.rows_affected())
}
