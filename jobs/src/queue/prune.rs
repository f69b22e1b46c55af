//! Pruning of old history: jobs that ended long ago, with their attempts, logs and deliveries, and workers long gone.
//!
//! A job stays, however old, while it waits or runs, while something that is no history refers to it ([`REFERRING`]),
//! while it is the newest of its kind, while a notification of its end waits, and while it is the job of the newest
//! slot of a schedule, since a slot has one job ever.
//!
//! Any number of workers may try at once: one prunes, by a named lock of the server, and the others leave it to that one.
//! Two at a time would deadlock where one deletes a job's lines and the other the job.

use crate::queue::{timely, within};
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, QueryBuilder};
use std::time::Duration;

/// Columns that refer to a job without being a part of its history: whoever reads the row may want to see the job.
///
/// What has a foreign key that cascades (attempts, log, deliveries) goes with the job.
pub const REFERRING: &[(&str, &str)] = &[
    ("alerts", "job_id"),
    ("archives", "deleted_job_id"),
    ("archives", "job_id"),
    ("archives", "verified_job_id"),
    ("backups", "job_id"),
    ("cut_overs", "job_id"),
    ("made_schemas", "job_id"),
    ("resources", "job_id"),
    ("schedules", "last_job_id"),
    ("tree_swaps", "job_id"),
    ("undo_points", "job_id"),
];

/// Jobs or workers that one look finds.
const FOUND: u32 = 1000;
/// Jobs that one statement deletes.
const JOBS: usize = 100;
/// Lines of log that one statement deletes.
const LINES: u64 = 1000;
/// Longest wait for one statement.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs.
    pub jobs: u64,
    /// Workers.
    pub workers: u64,
}

/// Deletes what ended more than `days` days ago and is not needed any more; 0 days, or another worker that is doing it: nothing.
pub async fn prune(pool: &MySqlPool, days: u32) -> sqlx::Result<Pruned> {
    let mut pruned = Pruned::default();
    if days == 0 {
        return Ok(pruned);
    }
    // Detached: the lock ends with the session, and so does whatever a time limit cut off.
    let mut connection = timely(pool.acquire()).await?.detach();
    let lock = "SELECT GET_LOCK(CONCAT('heratio_backup_prune ', LEFT(SHA2(DATABASE(), 256), 40)), 0)";
    if timely(sqlx::query_scalar::<_, Option<i64>>(lock).fetch_one(&mut connection)).await? != Some(1) {
        return Ok(pruned);
    }
    loop {
        let found = within(TIMEOUT, old_jobs(&mut connection, days)).await?;
        let mut deleted = 0;
        for ids in found.chunks(JOBS) {
            while within(TIMEOUT, delete_log(&mut connection, ids)).await? == LINES {}
            deleted += within(TIMEOUT, delete(&mut connection, "DELETE FROM jobs WHERE finished_at IS NOT NULL AND id IN (", ids)).await?;
        }
        pruned.jobs += deleted;
        if deleted == 0 {
            break;
        }
    }
    let found = within(TIMEOUT, old_workers(&mut connection, days)).await?;
    if !found.is_empty() {
        pruned.workers = within(TIMEOUT, delete(&mut connection, "DELETE FROM workers WHERE id IN (", &found)).await?;
    }
    Ok(pruned)
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
    let mut query = with_ids("DELETE FROM job_log WHERE job_id IN (", jobs);
    query.push(" LIMIT ").push_bind(LINES);
    Ok(query.build().execute(connection).await?.rows_affected())
}

async fn delete(connection: &mut MySqlConnection, sql: &str, ids: &[u64]) -> sqlx::Result<u64> {
    Ok(with_ids(sql, ids).build().execute(connection).await?.rows_affected())
}

/// The statement up to its list of numbers, and the list.
fn with_ids(sql: &str, ids: &[u64]) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new(sql);
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    query.push(")");
    query
}

/// Workers of which nothing was heard for so long, unless an attempt that is kept names them, or they are their node's
/// newest: it says when that node was last heard of.
async fn old_workers(connection: &mut MySqlConnection, days: u32) -> sqlx::Result<Vec<u64>> {
    sqlx::query_scalar(
        "SELECT w.id FROM workers w
          WHERE w.heartbeat_at < UTC_TIMESTAMP(6) - INTERVAL ? DAY
            AND w.id NOT IN (SELECT MAX(newest.id) FROM workers newest GROUP BY newest.node)
            AND w.id NOT IN (SELECT a.worker_id FROM job_attempts a)
          ORDER BY w.id LIMIT ?",
    )
    .bind(days)
    .bind(FOUND)
    .fetch_all(connection)
    .await
}
