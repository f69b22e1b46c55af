//! Taking a job from a worker that no longer renews its lease.

use crate::{
    config::Config,
    exclusive::end_sessions,
    health::{self, Alert, Trouble},
    job::explain,
    notify,
    queue::{
        finish::{end_attempt, release},
        text, timely, workers,
    },
    register,
    state::State,
};
use sqlx::{Connection, MySqlConnection, MySqlPool, Row};
use std::time::Duration;

/// What was done to a lost job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The job.
    pub job_id: u64,
    /// Whether it is failed (at most once, or out of attempts), or waits for its next attempt.
    pub failed: bool,
}

/// Takes over every job whose lease ran out, by the server's clock.
///
/// Does nothing until the server has been up for a lease: after its restart, workers that could not renew
/// get the time to do so. Any number of workers may call it at once; the row lock lets one act.
///
/// Before a job changes hands, the sessions that it recorded on the application server are ended (see
/// [`crate::exclusive`]), and the worker of a destructive one is killed if it still lives on this node; while the first cannot be proved, for one because that server is away, the job stays where it is.
pub async fn reap(pool: &MySqlPool, config: &Config) -> sqlx::Result<Vec<Reaped>> {
    let lease = config.timing.lease;
    // Detached: a call that is cut off by its time limit leaves the session unusable.
    let mut connection = timely(pool.acquire()).await?.detach();
    let uptime: (String, String) = timely(sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Uptime'").fetch_one(&mut connection)).await?;
    if uptime.1.parse().is_ok_and(|s| Duration::from_secs(s) < lease) {
        return Ok(Vec::new());
    }
    let lost: Vec<(u64, u64, String)> = timely(
        sqlx::query_as("SELECT id, fence, kind FROM jobs WHERE state = 'running' AND lease_until < UTC_TIMESTAMP(6) ORDER BY id LIMIT 100")
            .fetch_all(&mut connection),
    )
    .await?;
    let mut reaped = Vec::new();
    for (id, fence, kind) in lost {
        if at_most_once(&kind) {
            timely(kill_worker(&mut connection, id, &config.node)).await?;
        }
        if let Err(error) = end_sessions(pool, config, id, fence).await {
            let why = explain(&error);
            tracing::warn!(job.id = id, "cannot take over the job of a lost worker yet: {why}");
            let why = format!("its worker is lost, and its session on the application server cannot be ended yet: {why}");
            timely(
                sqlx::query("UPDATE jobs SET error = ? WHERE id = ? AND fence = ?")
                    .bind(text(&why))
                    .bind(id)
                    .bind(fence)
                    .execute(&mut connection),
            )
            .await?;
            continue;
        }
        if let Some(job) = timely(take_over(&mut connection, id)).await? {
            reaped.push(job);
        }
    }
    Ok(reaped)
}

/// Kills the worker of a lost job if it still lives on this node.
async fn kill_worker(connection: &mut MySqlConnection, id: u64, node: &str) -> sqlx::Result<()> {
    let process: Option<(u32, u64)> =
        sqlx::query_as("SELECT w.pid, w.pid_started FROM jobs j JOIN workers w ON w.id = j.worker_id WHERE j.id = ? AND w.node = ?")
            .bind(id)
            .bind(node)
            .fetch_optional(connection)
            .await?;
    if let Some((pid, started)) = process
        && workers::kill(pid, started)
    {
        tracing::warn!(job.id = id, pid, "killed the worker that lost its lease, since its job is destructive");
    }
    Ok(())
}

async fn take_over(connection: &mut MySqlConnection, id: u64) -> sqlx::Result<Option<Reaped>> {
    let mut tx = connection.begin().await?;
    let row = sqlx::query(
        "SELECT j.kind, j.fence, j.attempt, j.max_attempts, j.node, w.pid, j.cancel_requested_at IS NOT NULL AS cancel
           FROM jobs j LEFT JOIN workers w ON w.id = j.worker_id
          WHERE j.id = ? AND j.state = 'running' AND j.lease_until < UTC_TIMESTAMP(6) FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        tx.rollback().await?;
        return Ok(None);
    };
    let (kind, node): (String, String) = (row.try_get("kind")?, row.try_get("node")?);
    let (fence, attempt, max_attempts): (u64, u32, u32) = (row.try_get("fence")?, row.try_get("attempt")?, row.try_get("max_attempts")?);
    let pid = row.try_get::<Option<u32>, _>("pid")?.map_or_else(|| "unknown".into(), |pid| pid.to_string());
    let lost = format!("its worker (process {pid} on node {node}) stopped renewing its lease: killed, cut off, or stopped");
    let at_most_once = at_most_once(&kind);
    let cancel = row.try_get::<bool, _>("cancel")?;
    let (state, error) = if cancel && !at_most_once {
        ("cancelled", format!("cancelled; besides, {lost}"))
    } else if at_most_once {
        ("failed", format!("{lost}. It is not started again by itself: see how far it got with `enqueue show {id}`"))
    } else if attempt >= max_attempts {
        (
            "failed",
            format!(
                "{lost}, and this was attempt {attempt} of {max_attempts}. Look at that host's memory and logs, then `enqueue retry {id}`"
            ),
        )
    } else {
        ("available", format!("{lost}. It is tried again"))
    };
    sqlx::query(
        "UPDATE jobs SET state = ?, error = ?, lease_until = NULL, run_at = UTC_TIMESTAMP(6),
                finished_at = CASE WHEN ? THEN UTC_TIMESTAMP(6) END WHERE id = ?",
    )
    .bind(state)
    .bind(&error)
    .bind(state != "available")
    .bind(id)
    .execute(&mut *tx)
    .await?;
    // The end of a job that people are told of says that its worker was lost; otherwise an alert does.
    let told = state == "failed" && notify::tell(&mut tx, &kind, id, State::Failed).await?;
    if !told {
        health::raise(&mut tx, worker_lost(id, &kind, &node, &lost, state)).await?;
    }
    end_attempt(&mut tx, id, fence, "lost", Some(&lost)).await?;
    release(&mut tx, id, fence, state != "available").await?;
    tx.commit().await?;
    tracing::warn!(job.id = id, kind, state, "took a job from a lost worker");
    Ok(Some(Reaped { job_id: id, failed: state == "failed" }))
}

/// A kind that this worker does not know may be destructive: never guess that it is not.
fn at_most_once(kind: &str) -> bool {
    register::find(kind).is_none_or(|k| k.policy.at_most_once)
}

fn worker_lost(id: u64, kind: &str, node: &str, lost: &str, state: &str) -> Alert {
    let then = if state == "available" { "it is tried again" } else { state };
    Alert {
        alert: Trouble::WorkerLost,
        node: Some(node.to_owned()),
        message: format!("Job {id} ({kind}) lost its worker, and {then}: {lost}."),
        next: format!("Look at that host's memory and at its worker's log. `enqueue show {id}` shows the job."),
    }
}
