//! A job's last word: outcome, catalog rows, follow-ups, notification and release of its resources, all or nothing,
//! and only while the fence holds.

use crate::{
    failpoint,
    job::{CatalogWrites, JobLog},
    notify,
    queue::{Claim, NewJob, enqueue, lease::write_log, text, timely},
    state::State,
};
use engine::sql::server_error;
use sqlx::{MySqlConnection, MySqlPool};
use std::time::Duration;

/// What becomes of an attempt.
pub enum Verdict {
    /// A final state.
    Final {
        /// Which.
        state: State,
        /// Kept as JSON.
        result: Option<serde_json::Value>,
        /// Kept as text.
        error: Option<String>,
        /// Catalog rows.
        writes: Option<CatalogWrites>,
        /// Jobs to make.
        follow_ups: Vec<NewJob>,
    },
    /// Tried again after a delay; the attempt counts.
    Retry {
        /// Why.
        error: String,
        /// From now.
        delay: Duration,
    },
    /// Put back; the attempt does not count.
    Release {
        /// Why.
        why: String,
        /// From now.
        delay: Duration,
    },
}

/// Whether the last word was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is in MySQL.
    Yes,
    /// The job is another's by now; nothing was written.
    Fenced,
}

/// Writes the verdict, trying again until MySQL takes or refuses it.
pub async fn finish(pool: &MySqlPool, claim: &Claim, verdict: &Verdict, log: &JobLog) -> Written {
    let mut pause = Duration::from_millis(100);
    loop {
        if let Err(error) = write_log(pool, claim, log).await {
            tracing::warn!(job.id = claim.id, %error, "cannot write the job's log yet");
        }
        match write_in_time(pool, claim, verdict).await {
            Ok(written) => return written,
            Err(error) => tracing::warn!(job.id = claim.id, %error, "cannot write the job's outcome yet; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn write_in_time(pool: &MySqlPool, claim: &Claim, verdict: &Verdict) -> sqlx::Result<Written> {
    let mut connection = timely(pool.acquire()).await?;
    // Longer than one statement's bound: catalog rows may be thousands.
    let written = tokio::time::timeout(Duration::from_secs(60), write(&mut connection, claim, verdict)).await;
    if !matches!(written, Ok(Ok(_))) {
        // What was cut off leaves the session in the middle of an exchange: never reuse it.
        connection.detach();
    }
    written.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "it took over 60 s"))))
}

async fn write(connection: &mut MySqlConnection, claim: &Claim, verdict: &Verdict) -> sqlx::Result<Written> {
    let mut tx = sqlx::Connection::begin(&mut *connection).await?;
    let updated = match verdict {
        Verdict::Final { state, result, error, .. } => {
            sqlx::query(
                "UPDATE jobs SET state = ?, result = ?, error = ?, finished_at = UTC_TIMESTAMP(6), lease_until = NULL
                  WHERE id = ? AND fence = ? AND state = 'running'",
            )
            .bind(state.as_str())
            .bind(result.as_ref().map(ToString::to_string))
            .bind(error.as_deref().map(text))
            .bind(claim.id)
            .bind(claim.fence)
            .execute(&mut *tx)
            .await?
        }
        Verdict::Retry { error: why, delay } | Verdict::Release { why, delay } => {
            let uncounted = matches!(verdict, Verdict::Release { .. });
            sqlx::query(
                "UPDATE jobs SET state = 'available', error = ?, attempt = attempt - ?, lease_until = NULL,
                        run_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
                  WHERE id = ? AND fence = ? AND state = 'running'",
            )
            .bind(text(why))
            .bind(u32::from(uncounted))
            .bind(delay.as_micros() as u64)
            .bind(claim.id)
            .bind(claim.fence)
            .execute(&mut *tx)
            .await?
        }
    };
    if updated.rows_affected() == 0 {
        tx.rollback().await?;
        return already_written(connection, claim, verdict).await;
    }
    if let Verdict::Final { state, writes, follow_ups, .. } = verdict {
        if let Some(writes) = writes {
            writes(&mut tx).await?;
        }
        for job in follow_ups {
            match enqueue(&mut tx, job).await {
                // The schema is an older one and has no row for that kind: no reason not to let this one end.
                Err(error) if server_error(&error) == Some(1452) => {
                    tracing::error!(
                        job.id = claim.id,
                        kind = job.kind,
                        "a following job is left out, its kind is unknown. Next: run `worker migrate`"
                    );
                }
                other => _ = other?,
            }
        }
        notify::tell(&mut tx, &claim.kind, claim.id, *state).await?;
    }
    end_attempt(&mut tx, claim.id, claim.fence, outcome(verdict), error(verdict)).await?;
    release(&mut tx, claim.id, claim.fence, matches!(verdict, Verdict::Final { .. })).await?;
    failpoint::hit(failpoint::IN_FINAL_TRANSACTION).await;
    tx.commit().await?;
    failpoint::hit(failpoint::AFTER_FINAL_TRANSACTION).await;
    Ok(Written::Yes)
}

/// A COMMIT whose answer was lost may have been done: then the attempt has ended, with this outcome.
async fn already_written(connection: &mut MySqlConnection, claim: &Claim, verdict: &Verdict) -> sqlx::Result<Written> {
    let ended: Option<String> = sqlx::query_scalar("SELECT outcome FROM job_attempts WHERE job_id = ? AND fence = ?")
        .bind(claim.id)
        .bind(claim.fence)
        .fetch_optional(connection)
        .await?
        .flatten();
    Ok(if ended.as_deref() == Some(outcome(verdict)) { Written::Yes } else { Written::Fenced })
}

fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Final { state, .. } => state.as_str(),
        Verdict::Retry { .. } => State::Failed.as_str(),
        Verdict::Release { .. } => "released",
    }
}

fn error(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Final { error, .. } => error.as_deref(),
        Verdict::Retry { error: why, .. } | Verdict::Release { why, .. } => Some(why),
    }
}

/// Closes the attempt's row.
pub(super) async fn end_attempt(
    connection: &mut MySqlConnection,
    job_id: u64,
    fence: u64,
    outcome: &str,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE job_attempts SET ended_at = UTC_TIMESTAMP(6), outcome = ?, error = ? WHERE job_id = ? AND fence = ?")
        .bind(outcome)
        .bind(error.map(text))
        .bind(job_id)
        .bind(fence)
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives back what the job held; when it is over, it needs nothing any more.
pub(super) async fn release(connection: &mut MySqlConnection, job_id: u64, fence: u64, over: bool) -> sqlx::Result<()> {
    sqlx::query("UPDATE resources SET job_id = NULL, fence = NULL WHERE job_id = ? AND fence = ?")
        .bind(job_id)
        .bind(fence)
        .execute(&mut *connection)
        .await?;
    if over {
        sqlx::query("DELETE FROM job_resources WHERE job_id = ?").bind(job_id).execute(connection).await?;
    }
    Ok(())
}
