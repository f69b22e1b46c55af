//! Brings the control schema to this version: numbered SQL files, each applied once.
//!
//! Our own forty lines instead of sqlx's migrator, which refuses to go on after a migration that died half way
//! ("dirty"): MySQL commits DDL at once, so every statement of ours may run again instead.

use crate::{config::Config, register, schedule};
use anyhow::{Context as _, bail};
use engine::{
    identity::ensure_identity,
    server::{Server, ServerConfig},
};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

/// Number, name, text.
pub const MIGRATIONS: &[(u32, &str, &str)] = &[
    (1, "queue", include_str!("../../migrations/0001_queue.sql")),
    (2, "catalog", include_str!("../../migrations/0002_catalog.sql")),
    (3, "schedules", include_str!("../../migrations/0003_schedules.sql")),
    (4, "procedures", include_str!("../../migrations/0004_procedures.sql")),
    (5, "notify", include_str!("../../migrations/0005_notify.sql")),
    (8, "policies", include_str!("../../migrations/0008_policies.sql")),
    (9, "checksums", include_str!("../../migrations/0009_checksums.sql")),
    (10, "cut_overs", include_str!("../../migrations/0010_cut_overs.sql")),
    (11, "retention", include_str!("../../migrations/0011_retention.sql")),
    (12, "tree_swaps", include_str!("../../migrations/0012_tree_swaps.sql")),
];

/// Views and procedures, which are replaced as a whole.
const DEFINITIONS: &str = include_str!("../../migrations/definitions.sql");

/// What [`migrate`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the migrations applied now.
    pub applied: Vec<String>,
    /// How many there are in all.
    pub total: usize,
}

/// Creates the control schema where it is missing, and applies what it lacks. May be called at any time, by any number of processes.
///
/// Refuses a control schema that is the application database.
pub async fn migrate(config: &Config) -> anyhow::Result<Migrated> {
    let control = &config.control;
    let mut application = config.application.connect().await.context("application database")?;
    let mut connection = match control.connect().await {
        Ok(connection) => connection,
        Err(engine::server::ServerError::UnknownSchema { .. }) => create_schema(control).await?,
        Err(error) => return Err(error).context("control schema"),
    };
    refuse_same_schema(config, &mut connection, &mut application).await?;
    let locked: Option<i64> =
        sqlx::query_scalar("SELECT GET_LOCK(CONCAT('heratio_backup_migrate ', DATABASE()), 60)").fetch_one(&mut connection).await?;
    if locked != Some(1) {
        bail!(
            "another `worker migrate` holds the lock on schema `{}` for over 60 s; wait for it, or find it in SHOW PROCESSLIST",
            control.schema
        );
    }
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (
               version INT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL,
               sha256 CHAR(64) NOT NULL COMMENT 'of the file that was applied', applied_at DATETIME(6) NOT NULL COMMENT 'UTC'
             ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci COMMENT='Migrations applied by worker migrate'",
        )
        .await
        .with_context(|| {
            format!("schema `{}`: the account `{}` needs all privileges on it (`worker grants` prints them)", control.schema, control.user)
        })?;
    let newest: Option<u32> = sqlx::query_scalar("SELECT MAX(version) FROM schema_migrations").fetch_one(&mut connection).await?;
    let known = MIGRATIONS.last().map_or(0, |m| m.0);
    if let Some(newest) = newest.filter(|n| *n > known) {
        bail!("schema `{}` was migrated by a newer version of this program (to {newest}; this one knows {known})", control.schema);
    }
    let mut migrated = Migrated { applied: Vec::new(), total: MIGRATIONS.len() };
    for (version, name, sql) in MIGRATIONS {
        let known: Option<u32> = sqlx::query_scalar("SELECT version FROM schema_migrations WHERE version = ?")
            .bind(version)
            .fetch_optional(&mut connection)
            .await?;
        if known.is_some() {
            continue;
        }
        // Dies in the middle: the row is missing, and the next run repeats the whole file.
        sqlx::raw_sql(*sql).execute(&mut connection).await.with_context(|| format!("migration {version} ({name})"))?;
        sqlx::query("INSERT INTO schema_migrations (version, name, sha256, applied_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))")
            .bind(version)
            .bind(name)
            .bind(hex::encode(Sha256::digest(sql)))
            .execute(&mut connection)
            .await?;
        migrated.applied.push(format!("{version:04}_{name}"));
    }
    define(&mut connection).await?;
    register_kinds(&mut connection).await?;
    schedule::ensure_ready_made(&mut connection).await?;
    let server = Server::detect(&mut application).await.context("application database")?;
    ensure_identity(&mut application, &server, &config.meta_schema())
        .await
        .context("the server's identity, which tells its binary logs from another server's")?;
    // All is committed. A server that hangs up first, as MySQL does over TLS (EPIPE), is no failure.
    drop(connection.close().await);
    Ok(migrated)
}

/// Brings views and procedures to this version. Dies in the middle: the row is not this version's, and the next run repeats it.
async fn define(connection: &mut MySqlConnection) -> anyhow::Result<()> {
    let sha256 = hex::encode(Sha256::digest(DEFINITIONS));
    let applied: Option<String> =
        sqlx::query_scalar("SELECT sha256 FROM schema_migrations WHERE version = 0").fetch_optional(&mut *connection).await?;
    if applied.as_ref() == Some(&sha256) {
        return Ok(());
    }
    sqlx::raw_sql(DEFINITIONS).execute(&mut *connection).await.context("views and procedures (definitions.sql)")?;
    sqlx::query("REPLACE INTO schema_migrations (version, name, sha256, applied_at) VALUES (0, 'definitions', ?, UTC_TIMESTAMP(6))")
        .bind(sha256)
        .execute(connection)
        .await?;
    Ok(())
}

/// How many migrations the schema lacks; an error when it has none at all.
pub async fn pending(connection: &mut MySqlConnection) -> sqlx::Result<usize> {
    let applied: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM schema_migrations WHERE version > 0").fetch_one(connection).await?;
    Ok(MIGRATIONS.len().saturating_sub(applied as usize))
}

async fn create_schema(control: &ServerConfig) -> anyhow::Result<MySqlConnection> {
    let mut server = control.connect_without_schema().await.context("control schema")?;
    let name = control.schema.replace('`', "``");
    server
        .execute(AssertSqlSafe(format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")))
        .await
        .with_context(|| {
            format!(
                "schema `{}` does not exist and the account `{}` may not create it: run the script that `worker grants` prints",
                control.schema, control.user
            )
        })?;
    control.connect().await.context("control schema")
}

/// The queue must not live in what a restore replaces (heratio.md, defect 20).
async fn refuse_same_schema(config: &Config, control: &mut MySqlConnection, application: &mut MySqlConnection) -> anyhow::Result<()> {
    const WHO: &str = "SELECT CONCAT_WS('/', @@hostname, @@port, @@socket, @@datadir, @@server_id), DATABASE()";
    let ours: (String, String) = sqlx::query_as(WHO).fetch_one(control).await?;
    let theirs: (String, String) = sqlx::query_as(WHO).fetch_one(application).await?;
    if ours.0 == theirs.0 && ours.1.eq_ignore_ascii_case(&theirs.1) {
        bail!(
            "BACKUP_DATABASE_URL and the application database are the same schema, `{}` at {}: a restore would overwrite the queue that runs it. Give the control schema a name of its own, such as `heratio_backup`",
            theirs.1,
            config.application.target()
        );
    }
    Ok(())
}

/// Writes the register into `kinds`, `kind_fields` and `kind_resources`, so that the SQL procedures never see half of
/// it. Kinds that this version does not know stay: old jobs refer to them.
async fn register_kinds(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    let mut tx = connection.begin().await?;
    for kind in register::KINDS {
        sqlx::query(
            "INSERT INTO kinds (kind, description, at_most_once, max_attempts, priority, unique_jobs) VALUES (?, ?, ?, ?, ?, ?)
             ON DUPLICATE KEY UPDATE description = VALUES(description), at_most_once = VALUES(at_most_once),
               max_attempts = VALUES(max_attempts), priority = VALUES(priority), unique_jobs = VALUES(unique_jobs)",
        )
        .bind(kind.name)
        .bind(kind.description)
        .bind(kind.policy.at_most_once)
        .bind(kind.policy.max_attempts)
        .bind(kind.policy.priority)
        .bind(kind.policy.unique)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM kind_fields WHERE kind = ?").bind(kind.name).execute(&mut *tx).await?;
        for field in kind.fields {
            sqlx::query("INSERT INTO kind_fields (kind, field, shape, required, lowers_safety) VALUES (?, ?, ?, ?, ?)")
                .bind(kind.name)
                .bind(field.name)
                .bind(field.shape.as_str())
                .bind(field.required)
                .bind(field.lowers_safety)
                .execute(&mut *tx)
                .await?;
        }
        sqlx::query("DELETE FROM kind_resources WHERE kind = ?").bind(kind.name).execute(&mut *tx).await?;
        for resource in kind.resources {
            sqlx::query("INSERT INTO kind_resources (kind, resource) VALUES (?, ?)")
                .bind(kind.name)
                .bind(resource.as_str())
                .execute(&mut *tx)
                .await?;
        }
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_and_numbered() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let numbered = MIGRATIONS.iter().map(|(n, name, _)| format!("{n:04}_{name}.sql"));
        let listed: Vec<String> = numbered.chain(["definitions.sql".to_owned()]).collect();
        assert_eq!(files, listed);
        assert!(MIGRATIONS.windows(2).all(|m| m[0].0 < m[1].0));
    }
}
