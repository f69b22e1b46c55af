//! Schemas that we make on the application server: announced before they are made, swept when nobody needs them.

use crate::{config::Config, verify::server_of};
use anyhow::{Context as _, ensure};
use engine::cut_over::{drop_schema, tables};
use sqlx::{MySqlConnection, MySqlPool};

/// What a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A backup being loaded.
    Stage,
    /// What a restore replaced.
    Undo,
    /// For a drill.
    Scratch,
}

impl Purpose {
    /// The word in `made_schemas`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Undo => "undo",
            Self::Scratch => "scratch",
        }
    }

    /// The schema of this purpose for a job.
    pub fn schema(self, config: &Config, job_id: u64) -> String {
        format!("{}{}_{job_id}", config.schema_prefix, self.as_str())
    }
}

/// Announces a schema: call it before CREATE DATABASE. Refused when the job's fence no longer holds.
pub async fn announce(pool: &MySqlPool, job_id: u64, fence: u64, schema: &str, purpose: Purpose) -> anyhow::Result<()> {
    let made = sqlx::query(
        "INSERT INTO made_schemas (schema_name, job_id, purpose) SELECT ?, id, ? FROM jobs WHERE id = ? AND fence = ? AND state = 'running'",
    )
    .bind(schema)
    .bind(purpose.as_str())
    .bind(job_id)
    .bind(fence)
    .execute(pool)
    .await?;
    ensure!(made.rows_affected() == 1, "the job's lease was lost");
    Ok(())
}

/// Drops a schema and forgets it. Dies between: the row is left, and the next sweep does both again.
pub async fn remove(pool: &MySqlPool, application: &mut MySqlConnection, schema: &str) -> anyhow::Result<()> {
    drop_schema(application, schema).await?;
    sqlx::query("DELETE FROM made_schemas WHERE schema_name = ?").bind(schema).execute(pool).await?;
    Ok(())
}

/// Drops the staging and scratch schemas of jobs that are over, and undo schemas into which nothing was moved. Returns their names.
///
/// One that an open cut-over names stays, and so does one that an undo point names: see [`crate::undo::drop_expired`]. An undo
/// schema that holds tables is never dropped here.
pub async fn sweep(pool: &MySqlPool, config: &Config) -> anyhow::Result<Vec<String>> {
    let left: Vec<(String, String)> = sqlx::query_as(
        "SELECT m.schema_name, m.purpose FROM made_schemas m LEFT JOIN jobs j ON j.id = m.job_id
          WHERE (j.id IS NULL OR j.finished_at IS NOT NULL OR j.state = 'available')
            AND NOT EXISTS (SELECT 1 FROM cut_overs c WHERE c.state = 'open' AND m.schema_name IN (c.stage_schema, c.undo_schema))
            AND NOT EXISTS (SELECT 1 FROM undo_points u WHERE u.state = 'kept' AND u.undo_schema = m.schema_name)",
    )
    .fetch_all(pool)
    .await?;
    let mut dropped = Vec::new();
    if left.is_empty() {
        return Ok(dropped);
    }
    for (schema, purpose) in left {
        let server = server_of(config, &purpose);
        let mut connection = server.connect_without_schema().await.with_context(|| format!("server of schema `{schema}`"))?;
        ensure!(schema.starts_with(&config.schema_prefix), "`{schema}` does not begin with `{}`: not dropped", config.schema_prefix);
        let expired: Option<i32> = sqlx::query_scalar("SELECT 1 FROM undo_points WHERE undo_schema = ? AND state = 'expired'")
            .bind(&schema)
            .fetch_optional(pool)
            .await?;
        if purpose == Purpose::Undo.as_str() && expired.is_none() && !tables(&mut connection, &schema).await?.is_empty() {
            tracing::error!(
                schema,
                "this schema holds tables that a restore replaced, and no undo point names it: look at it and drop it by hand"
            );
            continue;
        }
        remove(pool, &mut connection, &schema).await?;
        dropped.push(schema);
    }
    Ok(dropped)
}
