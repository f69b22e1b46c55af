//! Why a waiting job does not start.

use crate::queue::{claim, history::JobRow, workers};
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, MySqlConnection};

/// The first thing in a waiting job's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// It is not to start before this time, UTC.
    Until(DateTime<Utc>),
    /// Another job holds what it needs, or stands before it in the line for it.
    Job(u64),
    /// What this job replaced was interrupted, and is ended before anything else is done to it.
    CutOver(u64),
    /// No running worker serves its queue.
    NoWorker {
        /// When a worker that serves it was last heard of, UTC; none: never.
        last_seen: Option<DateTime<Utc>>,
        /// Nodes with running workers.
        nodes: Vec<String>,
    },
    /// Every worker that serves its queue has all its slots in use: so many.
    Busy(u64),
    /// Nothing: a worker takes it at its next look.
    Nothing,
}

/// What `job`, which is `available`, waits for.
pub async fn why(connection: &mut MySqlConnection, job: &JobRow) -> sqlx::Result<Waiting> {
    let due: bool = sqlx::query_scalar("SELECT ? <= UTC_TIMESTAMP(6)").bind(job.run_at).fetch_one(&mut *connection).await?;
    if !due {
        return Ok(Waiting::Until(job.run_at));
    }
    let live = workers::live(&mut *connection).await?;
    let serving: Vec<_> = live.iter().filter(|w| w.queues.split(',').any(|q| q == job.queue)).collect();
    if serving.is_empty() {
        let last_seen: Option<DateTime<Utc>> = sqlx::query_scalar("SELECT MAX(heartbeat_at) FROM workers WHERE FIND_IN_SET(?, queues)")
            .bind(&job.queue)
            .fetch_one(connection)
            .await?;
        let mut nodes: Vec<String> = live.into_iter().map(|w| w.node).collect();
        nodes.sort();
        nodes.dedup();
        return Ok(Waiting::NoWorker { last_seen, nodes });
    }
    let interrupted =
        format!("{} AND EXISTS (SELECT 1 FROM job_resources r WHERE r.job_id = ? AND r.resource = 'database')", claim::OPEN_CUT_OVER);
    let interrupted: Option<u64> = sqlx::query_scalar(AssertSqlSafe(interrupted)).bind(job.id).fetch_optional(&mut *connection).await?;
    if let Some(other) = interrupted {
        return Ok(Waiting::CutOver(other));
    }
    // Where every worker that may take it has such a one on its node.
    let mut swap = None;
    for worker in &serving {
        let open = format!("{} AND r.job_id = ? LIMIT 1", claim::OPEN_SWAP);
        swap = sqlx::query_scalar(AssertSqlSafe(open)).bind(&worker.node).bind(job.id).fetch_optional(&mut *connection).await?;
        if swap.is_none() {
            break;
        }
    }
    if let Some(other) = swap {
        return Ok(Waiting::CutOver(other));
    }
    if let Some(other) = job.waits_for {
        return Ok(Waiting::Job(other));
    }
    let slots: u64 = serving.iter().map(|w| u64::from(w.concurrency)).sum();
    let mut running = sqlx::QueryBuilder::new("SELECT COUNT(*) FROM jobs WHERE state = 'running' AND worker_id IN (");
    let mut ids = running.separated(", ");
    for worker in &serving {
        ids.push_bind(worker.id);
    }
    running.push(")");
    let running: i64 = running.build_query_scalar().fetch_one(connection).await?;
    Ok(if running as u64 >= slots { Waiting::Busy(slots) } else { Waiting::Nothing })
}
