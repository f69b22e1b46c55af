//! Destructive work on the application database: one session outside any pool, never reopened, that holds a named
//! lock of the application server for the work's whole life.
//!
//! The lease says who may work; this makes it true on the other server. Whoever takes a job over ends the recorded
//! sessions and must then get the lock itself, so nothing of the old attempt can still be running.

use crate::{
    config::Config,
    job::{Context, give_up},
};
use anyhow::{Context as _, anyhow, bail};
use engine::server::ServerConfig;
use engine::sql::server_error;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, MySqlPool};
use std::time::{Duration, Instant};

/// How long the lock is waited for, in seconds.
const LOCK_WAIT: u32 = 10;

/// The session and its lock; both are gone when it is dropped.
pub struct Exclusive {
    connection: MySqlConnection,
}

impl Exclusive {
    /// Opens the session, records it, and takes the lock, in this order: what is not recorded holds nothing.
    pub async fn acquire(context: &Context) -> anyhow::Result<Self> {
        let application = &context.config.application;
        let mut connection = recorded(context, application).await?;
        take_lock(&mut connection, application, LOCK_WAIT).await?;
        Ok(Self { connection })
    }

    /// For ending what a lost job began: no job, no record, but the same lock, so that nobody else does it at once.
    /// `None` when another session has the lock.
    pub async fn for_recovery(config: &Config) -> anyhow::Result<Option<Self>> {
        let application = &config.application;
        let mut connection = application.connect().await.context("application database")?;
        let got: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, 0)").bind(lock_name(application)).fetch_one(&mut connection).await?;
        Ok((got == Some(1)).then_some(Self { connection }))
    }

    /// The session. A statement on it after the worker was told to stop is a defect: check `control.cancel` before each.
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }
}

/// Opens a session on the application server and records it, so that whoever takes the job over can end it.
pub async fn recorded(context: &Context, server: &ServerConfig) -> anyhow::Result<MySqlConnection> {
    let mut connection = server.connect().await.context("application database")?;
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut connection).await?;
    let recorded = sqlx::query(
        "INSERT INTO job_sessions (job_id, fence, connection_id, server_started)
         SELECT id, fence, ?, ? FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
    )
    .bind(id)
    .bind(server_started(&mut connection).await?)
    .bind(context.job_id)
    .bind(context.fence)
    .execute(&context.pool)
    .await?;
    if recorded.rows_affected() == 0 {
        return Err(give_up(anyhow!("the job's lease was lost before its work began")));
    }
    Ok(connection)
}

fn lock_name(application: &ServerConfig) -> String {
    // At most 64 characters (MySQL 5.7 and later); a schema's name alone may have so many.
    format!("heratio_backup {}", &hex::encode(Sha256::digest(&application.schema))[..40])
}

async fn take_lock(connection: &mut MySqlConnection, application: &ServerConfig, wait: u32) -> anyhow::Result<()> {
    let name = lock_name(application);
    let got: Option<i64> = sqlx::query_scalar("SELECT GET_LOCK(?, ?)").bind(&name).bind(wait).fetch_one(&mut *connection).await?;
    if got == Some(1) {
        return Ok(());
    }
    let holder: Option<u64> = sqlx::query_scalar("SELECT IS_USED_LOCK(?)").bind(&name).fetch_one(connection).await?;
    let holder = holder.map_or_else(|| "a session that has just ended".into(), |id| format!("session {id}"));
    bail!(
        "{holder} at {} holds the lock for work on schema `{}`; another restore is running, or that session must be ended",
        application.target(),
        application.schema
    )
}

/// When the server started, in seconds after 1970-01-01 UTC, by its own clock.
async fn server_started(connection: &mut MySqlConnection) -> sqlx::Result<u64> {
    let now: i64 = sqlx::query_scalar("SELECT UNIX_TIMESTAMP()").fetch_one(&mut *connection).await?;
    let (_, uptime): (String, String) = sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Uptime'").fetch_one(connection).await?;
    Ok((now - uptime.parse::<i64>().unwrap_or(0)).max(0) as u64)
}

/// Ends what a lost attempt may still have running on the application server, and proves it by getting the lock.
///
/// Does nothing for an attempt that recorded no session. An error means that it is not proved; the job must not be
/// given to anybody until it is.
pub async fn end_sessions(pool: &MySqlPool, config: &Config, job_id: u64, fence: u64) -> anyhow::Result<()> {
    let sessions: Vec<(u64, u64)> = sqlx::query_as("SELECT connection_id, server_started FROM job_sessions WHERE job_id = ? AND fence = ?")
        .bind(job_id)
        .bind(fence)
        .fetch_all(pool)
        .await?;
    if sessions.is_empty() {
        return Ok(());
    }
    let mut connection = config.application.connect().await.context("application database")?;
    let started = server_started(&mut connection).await?;
    for (id, at) in sessions {
        // Both are differences of two readings; a restart takes longer than their error.
        if started.abs_diff(at) <= 2 {
            end_session(&mut connection, id).await?;
        }
    }
    take_lock(&mut connection, &config.application, LOCK_WAIT).await?;
    connection.close().await?;
    Ok(())
}

async fn end_session(connection: &mut MySqlConnection, id: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        // Its own sessions are visible to an account without PROCESS.
        let alive: Option<i32> = sqlx::query_scalar("SELECT 1 FROM information_schema.processlist WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
        if alive.is_none() {
            return Ok(());
        }
        match connection.execute(AssertSqlSafe(format!("KILL {id}"))).await {
            // It went between the two statements.
            Err(error) if server_error(&error) == Some(1094) => return Ok(()),
            other => _ = other?,
        }
        if start.elapsed() > Duration::from_secs(10) {
            bail!("session {id} of a lost worker does not end after KILL; it may be rolling back");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
