//! Rows of worker processes: who is alive.

use crate::queue::WorkerRow;
use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{MySqlConnection, MySqlPool, Row};

/// Announces this process.
pub async fn register(pool: &MySqlPool, node: &str, queues: &[String], concurrency: u32) -> sqlx::Result<WorkerRow> {
    let id = sqlx::query(
        "INSERT INTO workers (node, pid, pid_started, version, queues, concurrency, started_at, heartbeat_at)
         VALUES (?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
    )
    .bind(node)
    .bind(std::process::id())
    .bind(start_time(std::process::id()))
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(queues.join(","))
    .bind(concurrency)
    .execute(pool)
    .await?
    .last_insert_id();
    Ok(WorkerRow { id, node: node.to_owned(), queues: queues.to_vec() })
}

/// Says that it still lives.
pub async fn heartbeat(pool: &MySqlPool, id: u64) -> sqlx::Result<()> {
    sqlx::query("UPDATE workers SET heartbeat_at = UTC_TIMESTAMP(6) WHERE id = ?").bind(id).execute(pool).await?;
    Ok(())
}

/// Says that it stopped in good order.
pub async fn stopped(pool: &MySqlPool, id: u64) -> sqlx::Result<()> {
    sqlx::query("UPDATE workers SET heartbeat_at = UTC_TIMESTAMP(6), stopped_at = UTC_TIMESTAMP(6) WHERE id = ?")
        .bind(id)
        .execute(pool)
        .await?;
    Ok(())
}

/// A worker that has been heard of lately.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LiveWorker {
    /// Row id.
    pub id: u64,
    /// Its node.
    pub node: String,
    /// Its process there.
    pub pid: u32,
    /// Queues it serves, comma separated.
    pub queues: String,
    /// Jobs it runs at a time.
    pub concurrency: u32,
    /// UTC.
    pub heartbeat_at: DateTime<Utc>,
}

/// Workers that were heard of in the last 30 seconds and have not stopped.
pub async fn live(connection: &mut MySqlConnection) -> sqlx::Result<Vec<LiveWorker>> {
    let rows = sqlx::query(
        "SELECT id, node, pid, queues, concurrency, heartbeat_at FROM workers
          WHERE heartbeat_at > UTC_TIMESTAMP(6) - INTERVAL 30 SECOND AND stopped_at IS NULL ORDER BY id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|r| {
            Ok(LiveWorker {
                id: r.try_get("id")?,
                node: r.try_get("node")?,
                pid: r.try_get("pid")?,
                queues: r.try_get("queues")?,
                concurrency: r.try_get("concurrency")?,
                heartbeat_at: r.try_get("heartbeat_at")?,
            })
        })
        .collect()
}

/// Kills the process of this host with this number and start time, if it is not our own; tells whether there was one.
pub(super) fn kill(pid: u32, started: u64) -> bool {
    if pid == std::process::id() || started == 0 || start_time(pid) != started {
        return false;
    }
    // Its sessions have to end and its lock has to be got all the same, so a kill that fails loses nothing.
    Pid::from_raw(pid as i32).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// When the process started, in clock ticks after boot (proc(5), field 22 of `/proc/PID/stat`); 0 when there is none.
fn start_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, the program's name in parentheses, may hold anything.
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok()).unwrap_or(0)
}
