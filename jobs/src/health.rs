//! Health alerts: what nobody would learn from a job's end. Each is told at most once a day; MySQL keeps count.
//!
//! - A worker was lost with a job in its hands: raised by the transaction that takes the job from it.
//! - The backup directory's disk is nearly full: looked at after each backup, and hourly by every worker.
//! - No database backup for too long: looked at hourly by every worker.

use crate::{
    backup::checked_directory,
    config::Config,
    job::Context,
    notify::{Notify, new_job, unless_not_migrated},
    queue::enqueue,
    settings::Settings,
    units::{size, span},
};
use chrono::{DateTime, Utc};
use engine::sql::server_error;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, MySqlConnection, MySqlPool};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long a look may take; a disk or a server that hangs must not pile up looks.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What needs a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Which kind of trouble.
    pub alert: Trouble,
    /// The node it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What is the matter, as a sentence.
    pub message: String,
    /// What to do, as a sentence.
    pub next: String,
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A worker stopped renewing its lease.
    WorkerLost,
    /// The backup directory's disk.
    DiskNearlyFull,
    /// The newest database backup is too old.
    NoGoodBackup,
}

impl Trouble {
    /// The word in payloads and keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker_lost",
            Self::DiskNearlyFull => "disk_nearly_full",
            Self::NoGoodBackup => "no_good_backup",
        }
    }

    /// The words in a subject.
    pub const fn title(self) -> &'static str {
        match self {
            Self::WorkerLost => "a worker was lost",
            Self::DiskNearlyFull => "the disk is nearly full",
            Self::NoGoodBackup => "no recent database backup",
        }
    }
}

/// Enqueues the alert's notification, unless the same was raised within the last day.
///
/// A transaction of its own, or a part of the caller's. The alert's row is locked before anything is inserted, so
/// any number of workers may raise it at once.
pub async fn raise(connection: &mut MySqlConnection, alert: Alert) -> sqlx::Result<()> {
    unless_not_migrated(raise_once(connection, alert).await)
}

async fn raise_once(connection: &mut MySqlConnection, alert: Alert) -> sqlx::Result<()> {
    let key = match &alert.node {
        Some(node) => format!("{}:{node}", alert.alert.as_str()),
        None => alert.alert.as_str().to_owned(),
    };
    let mut tx = connection.begin().await?;
    sqlx::query("INSERT IGNORE INTO alerts (alert_key, raised_at) VALUES (?, '2000-01-01')").bind(&key).execute(&mut *tx).await?;
    let due =
        sqlx::query("UPDATE alerts SET raised_at = UTC_TIMESTAMP(6) WHERE alert_key = ? AND raised_at < UTC_TIMESTAMP(6) - INTERVAL 1 DAY")
            .bind(&key)
            .execute(&mut *tx)
            .await?;
    if due.rows_affected() == 0 {
        return tx.rollback().await;
    }
    tracing::warn!(alert = alert.alert.as_str(), "{}", alert.message);
    let job = new_job(&Notify::Alert(alert), "health".into(), Some(format!("alert:{key}")))?;
    let made = enqueue(&mut tx, &job).await?;
    sqlx::query("UPDATE alerts SET job_id = ? WHERE alert_key = ?").bind(made.id).bind(&key).execute(&mut *tx).await?;
    tx.commit().await
}

/// What every worker looks at once an hour. Trouble with looking is said in the worker's log, and looked at again.
pub async fn look(pool: MySqlPool, config: Arc<Config>) {
    match tokio::time::timeout(TIMEOUT, backup_age(&pool, &config)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot look at the age of the newest database backup"),
        Err(_) => tracing::warn!("looking at the age of the newest database backup took over {} s", TIMEOUT.as_secs()),
    }
    match tokio::time::timeout(TIMEOUT, async { disk(&pool, &config, &backup_directory(&pool, &config).await?).await }).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("cannot look at the backup directory's disk: {error:#}"),
        Err(_) => tracing::warn!("looking at the backup directory's disk took over {} s", TIMEOUT.as_secs()),
    }
}

/// What a backup looks at when it has written its archives. Never fails it.
pub async fn after_backup(context: &Context, directory: &Path) {
    match tokio::time::timeout(TIMEOUT, disk(&context.pool, &context.config, directory)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => context.log.warn(format!("cannot look at how full the disk is: {error:#}")),
        Err(_) => context.log.warn(format!("looking at how full the disk is took over {} s", TIMEOUT.as_secs())),
    }
}

/// Where backups go on this node, as the next one would see it.
async fn backup_directory(pool: &MySqlPool, config: &Config) -> anyhow::Result<PathBuf> {
    let mut application = config.application.connect().await?;
    let settings = Settings::read(&mut application, &mut *pool.acquire().await?).await?;
    checked_directory(config, &settings)
}

async fn disk(pool: &MySqlPool, config: &Config, directory: &Path) -> anyhow::Result<()> {
    if config.disk_alert_percent == 0 {
        return Ok(());
    }
    let path = directory.to_owned();
    // A dead network disk blocks this thread, and only it.
    let disk = match tokio::task::spawn_blocking(move || Disk::of(&path)).await? {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        disk => disk?,
    };
    if disk.percent() < config.disk_alert_percent {
        return Ok(());
    }
    let message = format!(
        "The disk of the backup directory {} on node {} is {} % full: {} of {} are free.",
        directory.display(),
        config.node,
        disk.percent(),
        size(disk.available),
        size(disk.used + disk.available),
    );
    let next = format!(
        "Make room before a backup fails: keep fewer backups (the settings backup_max_backups and backup_retention_days) or give it a larger disk. \
         BACKUP_DISK_ALERT_PERCENT is {}.",
        config.disk_alert_percent
    );
    let alert = Alert { alert: Trouble::DiskNearlyFull, node: Some(config.node.clone()), message, next };
    Ok(raise(&mut *pool.acquire().await?, alert).await?)
}

/// Bytes of a file system, as `df` counts them.
struct Disk {
    used: u64,
    available: u64,
}

impl Disk {
    fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self { used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    /// Rounded up; what only root may use counts as used up.
    fn percent(&self) -> u8 {
        let total = u128::from(self.used) + u128::from(self.available);
        if total == 0 { 0 } else { (u128::from(self.used) * 100).div_ceil(total) as u8 }
    }
}

/// Told only once there has been a backup, or a schedule asks for one: a fresh installation is no trouble.
async fn backup_age(pool: &MySqlPool, config: &Config) -> sqlx::Result<()> {
    if config.max_age_hours == 0 {
        return Ok(());
    }
    let mut connection = pool.acquire().await?;
    let good: Option<DateTime<Utc>> =
        sqlx::query_scalar("SELECT MAX(COALESCE(taken_at, created_at)) FROM archives WHERE component = 'database' AND state = 'complete'")
            .fetch_one(&mut *connection)
            .await?;
    let since = match good {
        Some(good) => Some(good),
        None => wanted_since(&mut connection).await?,
    };
    let Some(since) = since else { return Ok(()) };
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)").fetch_one(&mut *connection).await?;
    let age = now - since;
    if age < chrono::Duration::hours(config.max_age_hours.into()) {
        return Ok(());
    }
    let when = since.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S%:z");
    let message = match good {
        Some(_) => format!("The newest good database backup is {} old: it was taken at {when}.", span(age.num_seconds() as f64)),
        None => format!("There is no good database backup, although backups have been made or scheduled since {when}."),
    };
    let next = format!(
        "See what came of the last ones with `enqueue jobs --kind backup`, and make one now with `enqueue backup --components database --wait`. \
         BACKUP_MAX_AGE_HOURS is {}.",
        config.max_age_hours
    );
    raise(&mut connection, Alert { alert: Trouble::NoGoodBackup, node: None, message, next }).await
}

/// When the first backup was made, or else the first schedule that is on was turned on.
async fn wanted_since(connection: &mut MySqlConnection) -> sqlx::Result<Option<DateTime<Utc>>> {
    let made: Option<DateTime<Utc>> = sqlx::query_scalar("SELECT MIN(started_at) FROM backups").fetch_one(&mut *connection).await?;
    if made.is_some() {
        return Ok(made);
    }
    let scheduled =
        sqlx::query_scalar("SELECT MIN(updated_at) FROM schedules WHERE kind = 'backup' AND enabled").fetch_one(connection).await;
    match scheduled {
        Err(error) if server_error(&error) == Some(1146) => Ok(None),
        scheduled => scheduled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_that_of_df() {
        let percent = |used, available| Disk { used, available }.percent();
        assert_eq!(
            [percent(0, 0), percent(0, 10), percent(899, 101), percent(901, 99), percent(10, 0), percent(u64::MAX, u64::MAX)],
            [0, 0, 90, 91, 100, 50]
        );
    }
}
