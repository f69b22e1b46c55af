//! All SQL on the metadata tables: backups, their archives, the dumps' coordinates.
//!
//! A row that an attempt writes while it runs carries the attempt's fence and is refused when the fence no
//! longer holds. What a dead attempt leaves on disk is found through its rows in state `writing` and swept.

pub mod removal;

use crate::component::Component;
use chrono::{DateTime, Duration, NaiveDateTime, Utc};
use engine::sql::server_error;
use engine::{archive::ArchiveFile, manifest::Manifest};
use sqlx::{Connection, MySqlConnection, MySqlPool, Row};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The attempt's fence no longer holds: another attempt has the job, or nobody.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The job is another's by now.
    #[error("the job's lease was lost; nothing more is written for it")]
    Fenced,
    /// MySQL's word.
    #[error("control schema: {0}")]
    Sql(#[from] sqlx::Error),
}

/// Job and fence: who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The job's number.
    pub job_id: u64,
    /// The claim's number.
    pub fence: u64,
}

impl Attempt {
    /// What the attempt's temporary files carry in their names.
    pub fn tag(self) -> String {
        format!("{}.{}", self.job_id, self.fence)
    }
}

/// A backup that is being made.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its number.
    pub id: u64,
    /// `YYYY-MM-DD_HHMMSS`, UTC, in its archives' names; no other backup has it.
    pub stamp: String,
}

/// Makes the job's backup row, or takes it up again for another attempt with a new stamp.
pub async fn begin_backup(pool: &MySqlPool, attempt: Attempt, node: &str, label: Option<&str>) -> Result<Backup, CatalogError> {
    let mut connection = pool.acquire().await?;
    let now: NaiveDateTime = sqlx::query_scalar("SELECT UTC_TIMESTAMP()").fetch_one(&mut *connection).await?;
    // Backups of one second get the following ones: a stamp names one backup.
    for second in 0..600 {
        let stamp = (now + Duration::seconds(second)).format("%Y-%m-%d_%H%M%S").to_string();
        // An attempt that gave this second up may have left rows and files of that name.
        let used: Option<u64> = sqlx::query_scalar("SELECT id FROM archives WHERE file_name LIKE CONCAT('%', ?, '%') LIMIT 1")
            .bind(&stamp)
            .fetch_optional(&mut *connection)
            .await?;
        if used.is_some() {
            continue;
        }
        match stamp_backup(&mut connection, attempt, node, label, &stamp).await {
            Ok(Some(id)) => return Ok(Backup { id, stamp }),
            Ok(None) => return Err(CatalogError::Fenced),
            Err(error) if server_error(&error) == Some(1062) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CatalogError::Sql(sqlx::Error::Protocol("no free second for the backup's name within ten minutes".into())))
}

/// Gives the job's backup this stamp, unless the fence is lost (`None`) or another backup has it (error 1062).
async fn stamp_backup(
    connection: &mut MySqlConnection,
    attempt: Attempt,
    node: &str,
    label: Option<&str>,
    stamp: &str,
) -> sqlx::Result<Option<u64>> {
    let again = sqlx::query(
        "UPDATE backups b JOIN jobs j ON j.id = b.job_id SET b.stamp = ?, b.node = ?, b.started_at = UTC_TIMESTAMP(6)
          WHERE j.id = ? AND j.fence = ? AND j.state = 'running' AND b.stamp < ?",
    )
    .bind(stamp)
    .bind(node)
    .bind(attempt.job_id)
    .bind(attempt.fence)
    .bind(stamp)
    .execute(&mut *connection)
    .await?;
    // An attempt whose second is not after the last one's comes here too, and is refused by the unique key on the job.
    if again.rows_affected() == 0 {
        let made = sqlx::query(
            "INSERT INTO backups (job_id, label, state, node, stamp, started_at)
             SELECT id, ?, 'running', ?, ?, UTC_TIMESTAMP(6) FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
        )
        .bind(label)
        .bind(node)
        .bind(stamp)
        .bind(attempt.job_id)
        .bind(attempt.fence)
        .execute(&mut *connection)
        .await?;
        return Ok((made.rows_affected() == 1).then(|| made.last_insert_id()));
    }
    sqlx::query_scalar("SELECT id FROM backups WHERE job_id = ?").bind(attempt.job_id).fetch_optional(connection).await
}

/// Announces an archive before its first byte is on disk, so that a crash at any later line leaves a row that names the file.
pub async fn begin_archive(
    pool: &MySqlPool,
    attempt: Attempt,
    backup: &Backup,
    component: Component,
    node: &str,
    directory: &Path,
    file_name: &str,
) -> Result<u64, CatalogError> {
    let inserted = sqlx::query(
        "INSERT INTO archives (backup_id, job_id, fence, component, state, node, directory, file_name)
         SELECT ?, id, fence, ?, 'writing', ?, ?, ? FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
    )
    .bind(backup.id)
    .bind(component.as_str())
    .bind(node)
    .bind(directory.to_string_lossy().into_owned())
    .bind(file_name)
    .bind(attempt.job_id)
    .bind(attempt.fence)
    .execute(pool)
    .await?;
    if inserted.rows_affected() == 0 { Err(CatalogError::Fenced) } else { Ok(inserted.last_insert_id()) }
}

/// Lists an archive: its file has its final name and is on disk. Part of the final transaction.
pub async fn complete_archive(connection: &mut MySqlConnection, id: u64, archive: &ArchiveFile, seconds: f64) -> sqlx::Result<()> {
    let manifest = &archive.manifest;
    sqlx::query(
        "UPDATE archives SET state = 'complete', size = ?, sha256 = ?, raw_size = ?, raw_sha256 = ?, taken_at = ?, seconds = ?, facts = ? WHERE id = ?",
    )
    .bind(archive.size)
    .bind(&archive.sha256)
    .bind(manifest.raw_size)
    .bind(&manifest.raw_sha256)
    .bind(manifest.taken_at)
    .bind(seconds)
    .bind(facts(manifest).to_string())
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let tables: Vec<(&str, u64, Option<&str>)> =
        manifest.sections.iter().filter_map(|s| (s.kind == "table").then_some((s.name.as_str(), s.rows?, s.checksum.as_deref()))).collect();
    for chunk in tables.chunks(500) {
        let mut insert = sqlx::QueryBuilder::new("INSERT INTO archive_tables (archive_id, table_name, row_count, checksum) ");
        insert.push_values(chunk, |mut row, (table, rows, checksum)| {
            row.push_bind(id).push_bind(*table).push_bind(*rows).push_bind(*checksum);
        });
        insert.build().execute(&mut *connection).await?;
    }
    let Some(database) = &manifest.database else { return Ok(()) };
    let at = database.coordinates.as_ref();
    sqlx::query(
        "INSERT INTO ahg_backup_run (backup_path, backup_filename, dumped_at, db_name, binlog_file, binlog_pos, gtid_executed, binlog_format,
                                     log_bin_enabled, notes, archive_id, flavour, server_version, server_uuid, server_id)
         VALUES (?, ?, COALESCE(?, UTC_TIMESTAMP()), ?, ?, ?, ?, ?, ?, 'heratio-backup', ?, ?, ?, ?, ?)",
    )
    .bind(archive.path.to_string_lossy().into_owned())
    .bind(file_name(&archive.path))
    .bind(manifest.taken_at)
    .bind(&database.schema)
    .bind(at.map(|c| c.binlog_file.as_str()))
    .bind(at.map(|c| c.binlog_pos))
    .bind(at.map(|c| c.gtid_set.as_str()))
    .bind(at.map(|c| c.binlog_format.as_str()))
    .bind(at.is_some())
    .bind(id)
    .bind(&database.flavour)
    .bind(&database.server_version)
    .bind(at.map(|c| c.server_uuid.as_str()))
    .bind(at.map(|c| c.server_id))
    .execute(connection)
    .await?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// The manifest's facts without its index, which may be megabytes.
fn facts(manifest: &Manifest) -> serde_json::Value {
    serde_json::json!({
        "format": manifest.format,
        "database": manifest.database,
        "files": manifest.files,
        "members": manifest.members.len(),
        "warnings": manifest.warnings,
    })
}

/// Records that a component failed: its file is gone.
pub async fn fail_archive(connection: &mut MySqlConnection, id: u64, error: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE archives SET state = 'failed', error = ? WHERE id = ?")
        .bind(crate::queue::text(error))
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends a backup. Part of the final transaction.
pub async fn finish_backup(connection: &mut MySqlConnection, id: u64, state: &str, warnings: &[String]) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE backups SET state = ?, finished_at = UTC_TIMESTAMP(6), warnings = ?,
                size = (SELECT COALESCE(SUM(size), 0) FROM archives WHERE backup_id = backups.id AND state = 'complete')
          WHERE id = ?",
    )
    .bind(state)
    .bind(serde_json::json!(warnings).to_string())
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends backups whose job is over without having said so: its worker was lost for the last time, or it was cancelled.
pub async fn settle(pool: &MySqlPool) -> sqlx::Result<u64> {
    let settled = sqlx::query(
        "UPDATE backups b LEFT JOIN jobs j ON j.id = b.job_id
            SET b.state = 'failed', b.finished_at = COALESCE(j.finished_at, UTC_TIMESTAMP(6))
          WHERE b.state = 'running' AND (j.id IS NULL OR j.finished_at IS NOT NULL)",
    )
    .execute(pool)
    .await?;
    Ok(settled.rows_affected())
}

/// Removes from this node's disk what attempts left that are over: their partial files, and complete ones that
/// were never listed. Returns the paths removed.
///
/// Files go first, then the row says `swept`; dying between leaves a row that is looked at again. A late worker
/// may still rename a file after that: rows swept in the last two days are looked at again too.
pub async fn sweep(pool: &MySqlPool, node: &str) -> anyhow::Result<Vec<PathBuf>> {
    let rows = sqlx::query(
        "SELECT a.id, a.job_id, a.fence, a.directory, a.file_name FROM archives a LEFT JOIN jobs j ON j.id = a.job_id
          WHERE a.node = ? AND (a.state = 'writing' OR (a.state = 'swept' AND a.created_at > UTC_TIMESTAMP() - INTERVAL 2 DAY))
            AND NOT (j.id IS NOT NULL AND j.state = 'running' AND j.fence = a.fence)",
    )
    .bind(node)
    .fetch_all(pool)
    .await?;
    let mut removed = Vec::new();
    for row in rows {
        let (id, directory, name): (u64, String, String) = (row.try_get("id")?, row.try_get("directory")?, row.try_get("file_name")?);
        let attempt = Attempt { job_id: row.try_get("job_id")?, fence: row.try_get("fence")? };
        let directory = Path::new(&directory);
        for path in [directory.join(format!(".{name}.{}.partial", attempt.tag())), directory.join(&name)] {
            match std::fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => anyhow::bail!("cannot remove {}, left by attempt {}: {error}", path.display(), attempt.tag()),
            }
        }
        sqlx::query("UPDATE archives SET state = 'swept' WHERE id = ? AND state = 'writing'").bind(id).execute(pool).await?;
    }
    Ok(removed)
}

/// The three names that are most like a mistyped one: fewest characters changed, added or taken away (Levenshtein).
pub fn nearest<'n>(mistyped: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<(usize, &str)> = names.map(|name| (strsim::levenshtein(mistyped, name), name)).collect();
    names.sort_unstable();
    names.into_iter().take(3).map(|(_, name)| name).collect()
}

/// A backup as `enqueue backups` lists it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackupRow {
    /// Its number.
    pub id: u64,
    /// The job that made it.
    pub job_id: u64,
    /// What the requester called it.
    pub label: Option<String>,
    /// `running`, `completed`, `completed_with_warnings`, `failed`.
    pub state: String,
    /// Whose disk holds it.
    pub node: String,
    /// UTC.
    pub started_at: DateTime<Utc>,
    /// UTC.
    pub finished_at: Option<DateTime<Utc>>,
    /// Bytes of its archives.
    pub size: u64,
    /// Its archives, complete ones only.
    pub archives: Vec<ArchiveRow>,
}

/// An archive as `enqueue backups` lists it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ArchiveRow {
    /// What it holds.
    pub component: String,
    /// Its name.
    pub file_name: String,
    /// Where it lies on its node.
    pub directory: String,
    /// Bytes.
    pub size: u64,
    /// Of the file, hex.
    pub sha256: String,
}

/// The newest `limit` backups, newest first; not those whose archives have all been removed.
pub async fn backups(connection: &mut MySqlConnection, limit: u32) -> sqlx::Result<Vec<BackupRow>> {
    let mut tx = connection.begin().await?;
    let rows = sqlx::query(
        "SELECT id, job_id, label, state, node, started_at, finished_at, size FROM backups b
          WHERE NOT EXISTS (SELECT 1 FROM archives a WHERE a.backup_id = b.id AND a.state IN ('deleting', 'deleted'))
             OR EXISTS (SELECT 1 FROM archives a WHERE a.backup_id = b.id AND a.state = 'complete')
          ORDER BY id DESC LIMIT ?",
    )
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let mut backups = Vec::with_capacity(rows.len());
    for row in rows {
        let id: u64 = row.try_get("id")?;
        let archives = sqlx::query(
            "SELECT component, file_name, directory, size, sha256 FROM archives WHERE backup_id = ? AND state = 'complete' ORDER BY id",
        )
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        backups.push(BackupRow {
            id,
            job_id: row.try_get("job_id")?,
            label: row.try_get("label")?,
            state: row.try_get("state")?,
            node: row.try_get("node")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            size: row.try_get("size")?,
            archives: archives
                .iter()
                .map(|a| {
                    Ok(ArchiveRow {
                        component: a.try_get("component")?,
                        file_name: a.try_get("file_name")?,
                        directory: a.try_get("directory")?,
                        size: a.try_get("size")?,
                        sha256: a.try_get("sha256")?,
                    })
                })
                .collect::<sqlx::Result<_>>()?,
        });
    }
    tx.commit().await?;
    Ok(backups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strsim::levenshtein as distance;

    #[test]
    fn near_names() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(
            nearest("uplaods_1", ["packages_1", "uploads_2", "uploads_1", "framework_1"].into_iter()),
            ["uploads_1", "uploads_2", "packages_1"]
        );
    }
}
