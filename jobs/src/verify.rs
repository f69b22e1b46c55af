//! The kind `verify`: reads an archive to its end; with a drill, also restores it into a scratch schema, compares what
//! came of it with the manifest, and drops it.
//!
//! A drill touches neither the application database nor its binary log: it goes to the scratch server
//! (`BACKUP_SCRATCH_DATABASE_URL`), which may be another, or to a schema of ours beside the application's, unlogged where
//! the account may do that. Dies in the middle: the scratch schema, announced before it was made, is swept.

use crate::{
    archive_source::{component_of_tar, unlisted_path},
    component::Component,
    config::Config,
    failpoint,
    job::{CatalogWrites, Context, Done, Field, Job, Policy, Shape, Tell, explain, give_up},
    made_schemas::{self, Purpose},
    restore::{check, load_events},
    restore_plan::import,
    retention::Verification,
    state::State,
};
use anyhow::{Context as _, anyhow};
use engine::{
    cut_over::make_schema,
    files::extract::{self, is_tar},
    foreign::Imported,
    load::{Code, load, load_sessions},
    manifest::Manifest,
    server::{Server, ServerConfig},
    sql::server_error,
    verify::{self, Expected, VerifyError},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Executor, MySqlConnection};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Reads an archive to its end; with a drill, restores it into a scratch schema, and drops that.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// An archive's file name (default: this node's newest database archive), or that of a foreign file in the backup directory;
    /// `enqueue backups` lists them.
    #[arg(value_name = "ARCHIVE")]
    pub archive: Option<String>,
    /// Restore it into a scratch schema, compare with the manifest, drop it: the proof that it can be restored.
    #[arg(long)]
    pub drill: bool,
}

/// An archive of this node.
struct Archive {
    /// Its row; none: the catalog does not know the file.
    id: Option<u64>,
    path: PathBuf,
    file_name: String,
    component: String,
    expected: Option<Expected>,
    /// Keeps it at `path`, if another program wrote the dump.
    _imported: Option<Imported>,
}

/// What a drill found.
struct Drilled {
    tables: u64,
    rows: u64,
    seconds: f64,
    unlogged: bool,
}

impl Job for Verify {
    const KIND: &'static str = "verify";
    const DESCRIPTION: &'static str = "Reads an archive to its end; as a drill, restores it into a scratch schema";
    const POLICY: Policy = Policy { notify: Tell::Trouble, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[Field::optional("archive", Shape::Archive), Field::optional("drill", Shape::Boolean)];

    fn validate(&self) -> Result<(), String> {
        match &self.archive {
            Some(name) if name.is_empty() || name.contains('/') || name.parse::<u64>().is_ok() => {
                Err("archive: an archive's file name, without directory; `enqueue backups` lists them".into())
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let mut archive = locate(context, self.archive.as_deref()).await?;
        if self.drill && archive.component != "database" {
            return Err(give_up(anyhow!(
                "{} holds {}: a drill restores a database. Next: leave --drill out, or name a database archive",
                archive.file_name,
                archive.component
            )));
        }
        let verified = {
            let (path, expected, control) = (archive.path.clone(), archive.expected.clone(), context.control.clone());
            let effort = context.config.effort;
            effort.run(move || verify::archive(&path, expected.as_ref(), &effort, &control)).await?
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(VerifyError::Foreign { .. }) if archive.id.is_none() => {
                if archive.component != Component::Database.as_str() {
                    return read_tar(context, &archive).await;
                }
                let imported = import(context, &archive.path).await?;
                archive.path = imported.path();
                let verified = imported.verified.clone();
                archive._imported = Some(imported);
                verified
            }
            Err(error) if error.is_damage() => return Ok(damaged(context, &archive, &anyhow::Error::from(error))),
            // The disk may be back at the next attempt, and a cancelled job has none.
            Err(error) => return Err(error.into()),
        };
        if !self.drill {
            let result = json!({ "archive": archive.file_name, "foreign": archive.id.is_none(), "verification": Verification::HashVerified.as_str(), "size": verified.size });
            return Ok(Done { writes: writes(context, &archive, Verification::HashVerified, None), ..Done::completed(result) });
        }
        let server = context.config.scratch.as_ref().unwrap_or(&context.config.application);
        let drilled = match drill(context, server, &archive, &verified.manifest).await {
            Ok(drilled) => drilled,
            Err(error) if context.control.cancel.is_cancelled() => return Err(error),
            Err(error) if error.is::<NotTheArchives>() => return Err(error),
            Err(error) => return Ok(damaged(context, &archive, &error.context("the drill failed"))),
        };
        let speed = (verified.manifest.raw_size as f64 / drilled.seconds.max(0.001)) as u64;
        let mut warnings = Vec::new();
        if !drilled.unlogged && context.config.scratch.is_none() {
            warnings.push(format!(
                "the drill wrote {} to the server's binary log, since the account may not switch that off. Next: `worker grants`, or BACKUP_SCRATCH_DATABASE_URL",
                crate::units::size(verified.manifest.raw_size)
            ));
        }
        warnings.iter().for_each(|w| context.log.warn(w.clone()));
        let result = json!({
            "archive": archive.file_name,
            "foreign": archive.id.is_none(),
            "verification": Verification::RestoreProven.as_str(),
            "tables": drilled.tables,
            "rows": drilled.rows,
            "drill_seconds": (drilled.seconds * 1000.0).round() / 1000.0,
            "bytes_per_second": speed,
            "server": server.target(),
            "notes": warnings,
        });
        let writes = writes(context, &archive, Verification::RestoreProven, Some((drilled.seconds, speed)));
        Ok(Done { writes, ..Done::completed(result) })
    }
}

/// The archive of that name on this node, else its newest one of the database.
async fn locate(context: &Context, name: Option<&str>) -> anyhow::Result<Archive> {
    let node = &context.config.node;
    let row: Option<(u64, String, String, String, String, u64, String)> = sqlx::query_as(
        "SELECT id, node, directory, file_name, component, size, sha256 FROM archives
          WHERE state = 'complete' AND ((? IS NULL AND component = 'database' AND node = ?) OR file_name = ?) ORDER BY id DESC LIMIT 1",
    )
    .bind(name)
    .bind(node)
    .bind(name)
    .fetch_optional(&context.pool)
    .await?;
    let Some((id, on, directory, file_name, component, size, sha256)) = row else {
        let none = || anyhow!("node {node} has no database archive. Next: name one of another node; `enqueue backups` lists them");
        let name = name.ok_or_else(none).map_err(give_up)?;
        let path = unlisted_path(context, name).await?;
        let tar = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || is_tar(&path)).await?.map_err(give_up)?
        };
        let component =
            if tar { component_of_tar(name, &[]).map_or_else(|_| "files".into(), |c| c.to_string()) } else { "database".into() };
        return Ok(Archive { id: None, path, file_name: name.to_owned(), component, expected: None, _imported: None });
    };
    if on != *node {
        return Err(give_up(anyhow!("{file_name} lies on node {on}, and this is {node}. Next: leave --node out, or name that node")));
    }
    let path = Path::new(&directory).join(&file_name);
    Ok(Archive { id: Some(id), path, file_name, component, expected: Some(Expected { size, sha256 }), _imported: None })
}

/// Reads every member of another program's tar.
async fn read_tar(context: &Context, archive: &Archive) -> anyhow::Result<Done> {
    let (path, effort, control) = (archive.path.clone(), context.config.effort, context.control.clone());
    context.control.progress.phase(format!("reading {}", path.display()), 0);
    let contents = context.config.effort.run(move || extract::inspect(&path, Path::new("/"), &effort, &control)).await?.map_err(give_up)?;
    Ok(Done::completed(json!({
        "archive": archive.file_name,
        "foreign": true,
        "verification": Verification::HashVerified.as_str(),
        "files": contents.files,
        "bytes": contents.bytes,
    })))
}

/// A failure that says nothing against the archive: the server cannot be reached, or refuses the account.
#[derive(Debug)]
struct NotTheArchives;

impl std::fmt::Display for NotTheArchives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the drill could not be made")
    }
}

async fn drill(context: &Context, server: &ServerConfig, archive: &Archive, manifest: &Manifest) -> anyhow::Result<Drilled> {
    let blameless = |error: anyhow::Error| error.context(NotTheArchives);
    let start = Instant::now();
    // A late attempt of this job has a schema of its own.
    let schema = format!("{}_{}", Purpose::Scratch.schema(&context.config, context.job_id), context.fence);
    let mut first = server.connect_without_schema().await.context("scratch server").map_err(blameless)?;
    let flavour = Server::detect(&mut first).await?.flavour.to_string();
    let made_by = manifest.database.as_ref().map(|d| d.flavour.clone()).unwrap_or_default();
    if !made_by.is_empty() && made_by != flavour {
        return Err(give_up(blameless(anyhow!(
            "the archive comes from {made_by}, and the scratch server is {flavour}. Next: let BACKUP_SCRATCH_DATABASE_URL name a {made_by} server"
        ))));
    }
    let unlogged = unlogged(&mut first).await?;
    made_schemas::announce(&context.pool, context.job_id, context.fence, &schema, Purpose::Scratch).await?;
    make_schema(&mut first, &schema, "utf8mb4_unicode_ci").await.map_err(|e| give_up(blameless(e.into())))?;
    let found = in_scratch(context, &ServerConfig { schema: schema.clone(), ..server.clone() }, archive, manifest).await;
    let seconds = start.elapsed().as_secs_f64();
    made_schemas::remove(&context.pool, &mut first, &schema).await.map_err(blameless)?;
    let (tables, rows) = found?;
    Ok(Drilled { tables, rows, seconds, unlogged })
}

/// Loads and checks; returns tables and rows.
async fn in_scratch(context: &Context, scratch: &ServerConfig, archive: &Archive, manifest: &Manifest) -> anyhow::Result<(u64, u64)> {
    let blameless = |error: anyhow::Error| error.context(NotTheArchives);
    let session = async || {
        let mut session = scratch.connect().await.context("scratch server").map_err(blameless)?;
        unlogged(&mut session).await?;
        anyhow::Ok(session)
    };
    let mut loading = Vec::new();
    // Statements of the archive change what a session shows, so what checks has run none.
    let mut checking = Vec::new();
    for sessions in [&mut loading, &mut checking] {
        for _ in 0..load_sessions(context.config.effort.threads) {
            sessions.push(session().await?);
        }
    }
    let loaded = load(&archive.path, manifest, &scratch.schema, Code::WithoutEvents, loading, &context.control).await;
    let loaded = loaded.map_err(|error| {
        let blame = error.condemns_the_archive();
        let error = anyhow::Error::from(error);
        if blame { error } else { blameless(error) }
    })?;
    failpoint::hit("drill_loaded").await;
    load_events(&mut session().await?, &archive.path, manifest).await?;
    let rows = check(&context.control, checking, &scratch.schema, manifest).await?;
    Ok((loaded.tables, rows))
}

/// Keeps a session's statements out of the binary log, where the account may do that.
async fn unlogged(session: &mut MySqlConnection) -> anyhow::Result<bool> {
    match session.execute("SET SESSION sql_log_bin = 0").await {
        Ok(_) => Ok(true),
        Err(error) if server_error(&error) == Some(1227) => Ok(false),
        Err(error) => Err(anyhow::Error::from(error).context(NotTheArchives)),
    }
}

/// The job has failed, and its archive with it.
fn damaged(context: &Context, archive: &Archive, error: &anyhow::Error) -> Done {
    let text = explain(error);
    Done {
        state: State::Failed,
        error: Some(text.clone()),
        writes: writes(context, archive, Verification::Failed, None),
        ..Done::completed(json!({ "archive": archive.file_name, "verification": Verification::Failed.as_str(), "errors": [text] }))
    }
}

/// Notes the outcome. Reading alone does not take a proof away.
fn writes(context: &Context, archive: &Archive, outcome: Verification, drill: Option<(f64, u64)>) -> Option<CatalogWrites> {
    let (id, job) = (archive.id?, context.job_id);
    Some(Box::new(move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE archives SET verification = IF(? = 'hash_verified' AND verification = 'restore_proven', verification, ?),
                        verified_at = UTC_TIMESTAMP(6), verified_job_id = ?,
                        drill_seconds = COALESCE(?, drill_seconds), drill_bytes_per_second = COALESCE(?, drill_bytes_per_second)
                  WHERE id = ?",
            )
            .bind(outcome.as_str())
            .bind(outcome.as_str())
            .bind(job)
            .bind(drill.map(|(seconds, _)| seconds))
            .bind(drill.map(|(_, speed)| speed))
            .bind(id)
            .execute(connection)
            .await?;
            Ok(())
        })
    }))
}

/// The server on which schemas of this purpose are made.
pub(crate) fn server_of<'a>(config: &'a Config, purpose: &str) -> &'a ServerConfig {
    match &config.scratch {
        Some(scratch) if purpose == Purpose::Scratch.as_str() => scratch,
        _ => &config.application,
    }
}
