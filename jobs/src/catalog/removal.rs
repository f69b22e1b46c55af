//! Removing archives, in two phases: the row says `deleting`, then the file goes, then the row says `deleted`.
//!
//! Dies after the first: the archive is listed no more, and the next [`remove_files`] of its node goes on. Dies after
//! the second: the next one finds no file, and writes the row. Nobody decides while another does: the rows are locked.

use super::{Attempt, CatalogError};
use crate::{
    delete::Delete,
    failpoint,
    job::{Job, Shape},
    register::KINDS,
    retention::{Candidate, Piece, Verification},
};
use chrono::{DateTime, Utc};
use engine::archive::read_manifest;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, MySqlPool, Row, mysql::MySqlRow};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// An archive whose file is there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// Its row.
    pub id: u64,
    /// Of which backup.
    pub backup_id: u64,
    /// Its name.
    pub file_name: String,
    /// Where it lies.
    pub directory: String,
    /// On whose disk.
    pub node: String,
    /// `database`, `uploads`, ...
    pub component: String,
    /// Bytes.
    pub size: u64,
}

/// What retention decides over, and its archives.
pub struct Kept {
    /// Backups of which at least one archive is complete.
    pub candidates: Vec<Candidate>,
    /// Their archives.
    pub archives: Vec<Listed>,
}

impl Kept {
    /// Reads all backups that are over.
    pub async fn read(connection: &mut MySqlConnection) -> sqlx::Result<Self> {
        Self::read_with(connection, "").await
    }

    /// The same, and nobody else may decide until the transaction's end.
    pub async fn lock(connection: &mut MySqlConnection) -> sqlx::Result<Self> {
        Self::read_with(connection, " FOR UPDATE").await
    }

    async fn read_with(connection: &mut MySqlConnection, lock: &str) -> sqlx::Result<Self> {
        let sql = format!(
            "SELECT b.id AS backup_id, b.started_at, b.state AS backup_state,
                    a.id, a.file_name, a.directory, a.node, a.component, a.size, a.verification
               FROM backups b JOIN archives a ON a.backup_id = b.id
              WHERE b.state <> 'running' AND a.state = 'complete' ORDER BY b.id, a.id{lock}"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
        let mut candidates: BTreeMap<u64, Candidate> = BTreeMap::new();
        let mut archives = Vec::with_capacity(rows.len());
        for row in rows {
            let listed = listed(&row)?;
            let state: String = row.try_get("backup_state")?;
            let verification: Option<String> = row.try_get("verification")?;
            let component = listed.component.parse().map_err(|e: String| sqlx::Error::Decode(e.into()))?;
            let candidate = candidates.entry(listed.backup_id).or_insert(Candidate {
                id: listed.backup_id,
                at: row.try_get::<DateTime<Utc>, _>("started_at")?,
                completed: state.starts_with("completed"),
                pieces: Vec::new(),
                needed_by: None,
            });
            // No copy is off-site: nothing copies yet.
            let verification = verification.as_deref().and_then(Verification::of);
            candidate.pieces.push(Piece { component, verification, replicated: false });
            archives.push(listed);
        }
        Ok(Self { candidates: candidates.into_values().collect(), archives })
    }

    /// The archives of a backup.
    pub fn of(&self, backup_id: u64) -> impl Iterator<Item = &Listed> {
        self.archives.iter().filter(move |a| a.backup_id == backup_id)
    }
}

fn listed(row: &MySqlRow) -> sqlx::Result<Listed> {
    Ok(Listed {
        id: row.try_get("id")?,
        backup_id: row.try_get("backup_id")?,
        file_name: row.try_get("file_name")?,
        directory: row.try_get("directory")?,
        node: row.try_get("node")?,
        component: row.try_get("component")?,
        size: row.try_get("size")?,
    })
}

/// Marks archives, each with the reason, in a transaction that holds the job's row and that the caller commits.
pub async fn mark(connection: &mut MySqlConnection, attempt: Attempt, archives: &[(u64, String)]) -> sqlx::Result<()> {
    for (id, why) in archives {
        sqlx::query("UPDATE archives SET state = 'deleting', deleted_job_id = ?, deleted_why = ? WHERE id = ? AND state = 'complete'")
            .bind(attempt.job_id)
            .bind(why)
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Locks the job's row, and tells whether the attempt still has it. First of all locks (ARCHITECTURE.md, invariant 6).
pub async fn hold(connection: &mut MySqlConnection, attempt: Attempt) -> Result<(), CatalogError> {
    let held: Option<u64> = sqlx::query_scalar("SELECT id FROM jobs WHERE id = ? AND fence = ? AND state = 'running' FOR UPDATE")
        .bind(attempt.job_id)
        .bind(attempt.fence)
        .fetch_optional(connection)
        .await?;
    held.map(drop).ok_or(CatalogError::Fenced)
}

/// A job that reads the archive, or will: the first one whose payload names it or its backup.
///
/// A job's payload says which archive it reads in a field of the shape `archive`, as a file name, a path or a backup's number.
/// Such a job looks for `complete` archives once it runs, so one that comes after the row says `deleting` reads nothing. Another
/// job that would delete it reads nothing either.
pub async fn reader(connection: &mut MySqlConnection, archive: &Listed, but_not: u64) -> sqlx::Result<Option<u64>> {
    for kind in KINDS.iter().filter(|k| k.name != Delete::KIND) {
        for field in kind.fields.iter().filter(|f| f.shape == Shape::Archive) {
            let reader: Option<u64> = sqlx::query_scalar(
                "SELECT id FROM jobs
                  WHERE kind = ? AND state IN ('available', 'running') AND id <> ?
                    AND SUBSTRING_INDEX(JSON_UNQUOTE(JSON_EXTRACT(payload, CONCAT('$.', ?))), '/', -1) IN (?, ?)
                  ORDER BY id LIMIT 1",
            )
            .bind(kind.name)
            .bind(but_not)
            .bind(field.name)
            .bind(&archive.file_name)
            .bind(archive.backup_id.to_string())
            .fetch_optional(&mut *connection)
            .await?;
            if reader.is_some() {
                return Ok(reader);
            }
        }
    }
    Ok(None)
}

/// What became of an archive that is being deleted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Removed {
    /// The file is gone.
    Gone,
    /// It was gone already.
    Missing,
    /// Another file bears its name, which is left alone; why it is another.
    Foreign {
        /// In words.
        why: String,
    },
    /// A job reads it: it goes later.
    Read {
        /// That job.
        job: u64,
    },
}

/// Removes the files of this node whose rows say `deleting`; what `job_id` itself reads does not count.
///
/// An error names the file; the rest is left for the next call.
pub async fn remove_files(pool: &MySqlPool, node: &str, job_id: u64) -> anyhow::Result<Vec<(Listed, Removed)>> {
    failpoint::hit(failpoint::REMOVAL_MARKED).await;
    let mut connection = pool.acquire().await?;
    let rows = sqlx::query(
        "SELECT id, backup_id, file_name, directory, node, component, size, raw_sha256 FROM archives WHERE state = 'deleting' AND node = ? ORDER BY id",
    )
    .bind(node)
    .fetch_all(&mut *connection)
    .await?;
    let mut removed = Vec::with_capacity(rows.len());
    for row in rows {
        let archive = listed(&row)?;
        let raw_sha256: String = row.try_get("raw_sha256")?;
        if let Some(job) = reader(&mut connection, &archive, job_id).await? {
            removed.push((archive, Removed::Read { job }));
            continue;
        }
        let path = Path::new(&archive.directory).join(&archive.file_name);
        let size = archive.size;
        let outcome = tokio::task::spawn_blocking(move || remove(&path, size, &raw_sha256)).await??;
        failpoint::hit(failpoint::REMOVAL_UNLINKED).await;
        let error = match &outcome {
            Removed::Foreign { why } => Some(why.clone()),
            _ => None,
        };
        let mut tx = connection.begin().await?;
        sqlx::query("UPDATE archives SET state = 'deleted', deleted_at = UTC_TIMESTAMP(6), error = ? WHERE id = ? AND state = 'deleting'")
            .bind(error)
            .bind(archive.id)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE backups SET size = (SELECT COALESCE(SUM(size), 0) FROM archives WHERE backup_id = backups.id AND state = 'complete') WHERE id = ?",
        )
        .bind(archive.backup_id)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        removed.push((archive, outcome));
    }
    Ok(removed)
}

/// Removes the file, if it is the one that we wrote, and sees to it that it is off the disk.
fn remove(path: &Path, size: u64, raw_sha256: &str) -> anyhow::Result<Removed> {
    let failed = |error: io::Error| anyhow::anyhow!("cannot remove {}: {error}", path.display());
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The directory itself may be a file system that is not mounted now: then nothing is known of the file.
            let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
            anyhow::ensure!(directory.is_dir(), "{} is not there: is its file system mounted?", directory.display());
            return Ok(Removed::Missing);
        }
        Err(error) => return Err(failed(error)),
    };
    let foreign = |why: String| Ok(Removed::Foreign { why: format!("{} was left alone: {why}", path.display()) });
    if !found.is_file() {
        return foreign("it is not a file".into());
    }
    if found.len() != size {
        return foreign(format!("it has {} bytes, and the archive had {size}", found.len()));
    }
    // A damaged archive of ours has no manifest to read; name and size have to do.
    if let Ok(Some(manifest)) = read_manifest(path)
        && manifest.raw_sha256 != raw_sha256
    {
        return foreign("it is another archive, put in its place".into());
    }
    std::fs::remove_file(path).map_err(failed)?;
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|d| d.sync_all()).map_err(failed)?;
    }
    Ok(Removed::Gone)
}

/// Other nodes on whose disks archives are to be deleted.
pub async fn nodes_with_work(pool: &MySqlPool, but_not: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("SELECT DISTINCT node FROM archives WHERE state = 'deleting' AND node <> ? ORDER BY node")
        .bind(but_not)
        .fetch_all(pool)
        .await
}
