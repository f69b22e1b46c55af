//! Keeping a job: renew its lease, write its progress and log, notice a cancel, and stop the work in time
//! when MySQL is away or the fence is lost.

use crate::{
    job::JobLog,
    queue::{Claim, text, timely},
    register,
};
use engine::control::{Progress, Snapshot};
use sqlx::MySqlPool;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Why a running job was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A person asked for it.
    Cancelled,
    /// This job waits for what it holds, and goes first.
    Preempted(u64),
    /// The lease is another's, or could not be renewed in time; nothing may be written any more.
    LeaseLost,
    /// The worker is being shut down and its grace time is over.
    Shutdown,
    /// The kind's time limit is over.
    TimeLimit,
}

/// Renews `claim` until `ended`, and says through `stop` why the work must stop, if it must. Only a repeatable
/// job stops for one that preempts.
///
/// The work must stop while the lease still holds: when the last renewal that succeeded was *sent* more than
/// two thirds of a lease ago by this host's monotonic clock, this says [`Stop::LeaseLost`] and returns, and a
/// third of the lease is left to end the work. After a cancel it goes on, since cleaning up takes time.
pub async fn keep(
    pool: MySqlPool,
    claim: Claim,
    lease: Duration,
    progress: Arc<Progress>,
    log: JobLog,
    stop: mpsc::Sender<Stop>,
    ended: CancellationToken,
) {
    let preemptible = register::find(&claim.kind).is_some_and(|k| !k.policy.at_most_once);
    // Nobody listens any more once the work has ended by itself.
    let say = |why| _ = stop.try_send(why);
    let tick = (lease / 12).clamp(Duration::from_millis(50), Duration::from_secs(1));
    // The claim itself set the lease, not long before.
    let mut renewed = Instant::now();
    let mut shown = None;
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(tick) => {}
        }
        let now = progress.read();
        let due = renewed.elapsed() >= lease / 3;
        let news = shown.as_ref() != Some(&now);
        let sent = Instant::now();
        match one_beat(&pool, &claim, (due || news).then_some((lease, &now))).await {
            Ok(Beat::Held { cancel, preempted_by }) => {
                if due || news {
                    renewed = sent;
                    shown = Some(now);
                }
                match preempted_by {
                    _ if cancel => say(Stop::Cancelled),
                    Some(job) if preemptible => say(Stop::Preempted(job)),
                    _ => {}
                }
                if let Err(error) = write_log(&pool, &claim, &log).await {
                    tracing::warn!(job.id = claim.id, %error, "cannot write the job's log yet");
                }
            }
            Ok(Beat::Lost) => {
                tracing::error!(job.id = claim.id, claim.fence, "the lease is another's: the work stops here");
                return say(Stop::LeaseLost);
            }
            Err(error) => tracing::warn!(job.id = claim.id, %error, "cannot renew the lease yet"),
        }
        if renewed.elapsed() >= lease * 2 / 3 {
            tracing::error!(job.id = claim.id, "the lease could not be renewed in time: the work stops here");
            return say(Stop::LeaseLost);
        }
    }
}

enum Beat {
    Held { cancel: bool, preempted_by: Option<u64> },
    Lost,
}

/// One renewal (or, between them, one look), bounded to two seconds: a packet that vanished must leave time for more tries.
async fn one_beat(pool: &MySqlPool, claim: &Claim, renewal: Option<(Duration, &Snapshot)>) -> sqlx::Result<Beat> {
    let call = async {
        let mut connection = pool.acquire().await?;
        if let Some((lease, progress)) = renewal {
            let updated = sqlx::query(
                "UPDATE jobs SET lease_until = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND,
                        phase = ?, progress_done = ?, progress_total = ?, progress_at = UTC_TIMESTAMP(6)
                  WHERE id = ? AND fence = ? AND state = 'running'",
            )
            .bind(lease.as_micros() as u64)
            .bind(phase(&progress.phase))
            .bind(progress.done)
            .bind(progress.total)
            .bind(claim.id)
            .bind(claim.fence)
            .execute(&mut *connection)
            .await?;
            if updated.rows_affected() == 0 {
                return Ok(Beat::Lost);
            }
        }
        let held: Option<(bool, Option<u64>)> = sqlx::query_as(
            "SELECT j.cancel_requested_at IS NOT NULL,
                    (SELECT MIN(p.id) FROM resources r JOIN job_resources wanted ON wanted.resource = r.resource JOIN jobs p ON p.id = wanted.job_id
                      WHERE r.job_id = j.id AND p.state = 'available' AND p.preempt AND p.run_at <= UTC_TIMESTAMP(6))
               FROM jobs j WHERE j.id = ? AND j.fence = ? AND j.state = 'running'",
        )
        .bind(claim.id)
        .bind(claim.fence)
        .fetch_optional(&mut *connection)
        .await?;
        Ok(held.map_or(Beat::Lost, |(cancel, preempted_by)| Beat::Held { cancel, preempted_by }))
    };
    tokio::time::timeout(Duration::from_secs(2), call).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// The phase as its column takes it.
fn phase(phase: &str) -> Option<String> {
    (!phase.is_empty()).then(|| phase.chars().take(255).collect())
}

/// Writes the lines said since the last call; keeps them when MySQL is away.
pub(super) async fn write_log(pool: &MySqlPool, claim: &Claim, log: &JobLog) -> sqlx::Result<()> {
    let mut lines = log.take().into_iter();
    while let Some((level, message)) = lines.next() {
        let written = timely(
            sqlx::query("INSERT INTO job_log (job_id, attempt, level, message) VALUES (?, ?, ?, ?)")
                .bind(claim.id)
                .bind(claim.attempt)
                .bind(level)
                .bind(text(&message))
                .execute(pool),
        )
        .await;
        if let Err(error) = written {
            log.put_back(std::iter::once((level, message)).chain(lines).collect());
            return Err(error);
        }
    }
    Ok(())
}
