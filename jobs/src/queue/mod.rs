//! All SQL on jobs. The only place that knows how a job is claimed, kept, finished and taken over.
//!
//! - [`mod@enqueue`]: a row, in the caller's transaction.
//! - [`mod@claim`]: a short READ COMMITTED transaction takes a job, its resources and a new fence.
//! - [`lease`]: while it runs, its lease is renewed, its progress written and a cancel noticed.
//! - [`finish`]: outcome, catalog rows, follow-ups and release of resources in one fenced transaction.
//! - [`reap`]: a job whose lease ran out is taken from its worker, by its kind's policy.
//! - [`backend`]: the glue that makes apalis run it.
//! - [`history`]: what people read, and what they may do: cancel, retry, move.
//! - [`mod@prune`]: history that is too old goes.
//! - [`waiting`]: what a waiting job waits for.
//!
//! Locks are always taken in the order jobs row, then `resources` rows by name, so no two of these
//! transactions can wait for each other in a circle. Every time is MySQL's `UTC_TIMESTAMP(6)`.

pub mod backend;
pub mod claim;
pub mod enqueue;
pub mod finish;
pub mod history;
pub mod lease;
pub mod prune;
pub mod reap;
pub mod waiting;
pub mod workers;

pub use claim::{Claim, WorkerRow};
pub use enqueue::{Enqueued, NewJob, enqueue, node_queue};

use engine::server::ServerConfig;
use sqlx::{AssertSqlSafe, Executor, MySqlPool, mysql::MySqlPoolOptions};
use std::time::Duration;

/// Longest wait for a connection or an answer of the control schema; far below any lease in production.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a pool on the control schema. Nothing is connected before the first use.
///
/// Its sessions are READ COMMITTED, since gap locks between claiming workers only deadlock. The server ends a session
/// that says nothing for as long as a lease: a worker that is stopped in the middle of a transaction must not keep
/// its job's row locked for ever.
pub fn pool(control: &ServerConfig, connections: u32, lease: Duration) -> MySqlPool {
    let wait_timeout = format!("SET SESSION wait_timeout = {}", lease.as_secs().max(1));
    MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(DATABASE_TIMEOUT)
        .idle_timeout(lease / 2)
        .after_connect(move |connection, _| {
            let wait_timeout = wait_timeout.clone();
            Box::pin(async move {
                connection.execute(AssertSqlSafe(wait_timeout)).await?;
                connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                connection.execute("SET SESSION innodb_lock_wait_timeout = 5").await?;
                Ok(())
            })
        })
        .connect_lazy_with(control.connect_options().database(&control.schema))
}

/// Bounds a database call: a connection whose packets vanish must not hold its caller for ever.
pub(crate) async fn timely<T>(call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    within(DATABASE_TIMEOUT, call).await
}

/// As [`timely`], with a limit of the caller's.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let text = format!("the control schema did not answer within {} s", limit.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    })
}

/// Shortens an error text for a TEXT column of 65,535 bytes.
pub(crate) fn text(s: &str) -> &str {
    let mut end = s.len().min(16_000);
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s[..end]
}
