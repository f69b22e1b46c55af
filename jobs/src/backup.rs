//! The kind `backup`: one archive per component, listed together or not at all.

use crate::{
    catalog::{self, Attempt},
    component::Component,
    config::Config,
    health,
    job::{CatalogWrites, Context, Done, Field, GiveUp, Job, Policy, Shape, Tell, explain, give_up},
    prune::Prune,
    queue::NewJob,
    settings::Settings,
    state::State,
};
use anyhow::anyhow;
use engine::{
    archive::{ArchiveFile, ArchiveWriter, PartialArchive},
    dump::{self, DumpConfig},
    files::{self, Exclude, FileSource, WORK_PREFIX},
    manifest::{FORMAT, Manifest},
    paths, verify,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Dumps the database and archives the chosen directories into one backup.
///
/// The backup exists from the moment its catalog row says `completed`; files of an attempt that did not get so
/// far are swept.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// What to include: database, uploads, packages (Heratio's older word: plugins), framework.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = Component::ALL)]
    #[serde(default = "all")]
    pub components: Vec<Component>,
    /// A note for people, shown wherever the backup is listed.
    #[arg(long, value_name = "TEXT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

fn all() -> Vec<Component> {
    Component::ALL.to_vec()
}

impl Job for Backup {
    const KIND: &'static str = "backup";
    const DESCRIPTION: &'static str = "Dumps the database and archives the chosen directories into one backup";
    const POLICY: Policy = Policy { notify: Tell::Always, ..Policy::repeatable() };
    const FIELDS: &'static [Field] = &[Field::optional("components", Shape::Components), Field::optional("label", Shape::Text)];
    const RESOURCES: &'static [Component] = &Component::ALL;

    fn resources(&self) -> Vec<Component> {
        self.in_order()
    }

    fn validate(&self) -> Result<(), String> {
        if self.components.is_empty() {
            return Err("components: choose at least one of database, uploads, packages, framework".into());
        }
        if self.label.as_ref().is_some_and(|l| l.chars().count() > 255 || l.chars().any(char::is_control)) {
            return Err("label: at most 255 characters on one line".into());
        }
        Ok(())
    }

    async fn run(&self, context: &Context) -> anyhow::Result<Done> {
        let settings = read_settings(context).await?;
        let directory = checked_directory(&context.config, &settings).map_err(give_up)?;
        let directory = paths::ensure_backup_dir(&directory)?;
        let attempt = Attempt { job_id: context.job_id, fence: context.fence };
        let node = &context.config.node;
        // The archives are 0600 all the same, so this does not make every backup one with warnings; `worker check` says it too.
        if let Some(warning) = directory.warning {
            context.log.warn(warning);
        }
        // What earlier attempts of this job left may be what fills the disk now.
        catalog::sweep(&context.pool, node).await?;
        let backup = catalog::begin_backup(&context.pool, attempt, node, self.label.as_deref()).await?;

        let mut made = Vec::new();
        let mut failed = Vec::new();
        let mut all_hopeless = true;
        for component in self.in_order() {
            let name = component.file_name(&context.config.application.schema, &backup.stamp);
            let id = catalog::begin_archive(&context.pool, attempt, &backup, component, node, &directory.path, &name).await?;
            let start = Instant::now();
            match archive(context, component, &directory.path, &name, attempt).await {
                Ok(partial) => made.push(Made { id, component, partial, seconds: start.elapsed().as_secs_f64() }),
                Err(error) if context.control.cancel.is_cancelled() => return Err(error),
                // Another attempt may well have the database; without it, the files alone would not be worth the wait.
                Err(error) if component == Component::Database && !context.is_last_attempt && !error.is::<GiveUp>() => {
                    return Err(error.context("database"));
                }
                Err(error) => {
                    all_hopeless &= error.is::<GiveUp>();
                    let text = format!("{component}: {}", explain(&error));
                    context.log.warn(text.clone());
                    failed.push((id, component, text));
                }
            }
        }
        health::after_backup(context, &directory.path).await;
        if made.is_empty() {
            let texts: Vec<&str> = failed.iter().map(|(_, _, text)| text.as_str()).collect();
            let error = anyhow!("{}", texts.join("; "));
            return Err(if all_hopeless { give_up(error) } else { error });
        }
        publish(context, backup.id, made, failed)
    }
}

/// A backup that another job takes before it does what cannot be undone.
pub(crate) struct Safety {
    /// Its number.
    pub(crate) backup: u64,
    /// Its one archive.
    pub(crate) file_name: String,
}

/// Backs the database up and verifies the archive, within another job. In the catalog when it returns.
///
/// Dies before that: as a backup's own job.
pub(crate) async fn safety(context: &Context, label: &str) -> anyhow::Result<Safety> {
    let settings = read_settings(context).await?;
    let directory = paths::ensure_backup_dir(&checked_directory(&context.config, &settings).map_err(give_up)?)?;
    let attempt = Attempt { job_id: context.job_id, fence: context.fence };
    let node = &context.config.node;
    let backup = catalog::begin_backup(&context.pool, attempt, node, Some(label)).await?;
    let component = Component::Database;
    let name = component.file_name(&context.config.application.schema, &backup.stamp);
    let id = catalog::begin_archive(&context.pool, attempt, &backup, component, node, &directory.path, &name).await?;
    let start = Instant::now();
    let made = archive(context, component, &directory.path, &name, attempt).await?.publish()?;
    let seconds = start.elapsed().as_secs_f64();
    {
        let (path, control) = (made.path.clone(), context.control.clone());
        let expected = verify::Expected { size: made.size, sha256: made.sha256.clone() };
        let effort = context.config.effort;
        effort.run(move || verify::database(&path, Some(&expected), &effort, &control)).await??;
    }
    let mut connection = context.pool.acquire().await?;
    let mut tx = sqlx::Connection::begin(&mut *connection).await?;
    catalog::removal::hold(&mut tx, attempt).await?;
    catalog::complete_archive(&mut tx, id, &made, seconds).await?;
    sqlx::query("UPDATE archives SET verification = 'hash_verified', verified_at = UTC_TIMESTAMP(6), verified_job_id = ? WHERE id = ?")
        .bind(context.job_id)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    catalog::finish_backup(&mut tx, backup.id, State::Completed.as_str(), &made.manifest.warnings).await?;
    tx.commit().await?;
    Ok(Safety { backup: backup.id, file_name: name })
}

/// An archive that is complete on disk under its temporary name.
struct Made {
    id: u64,
    component: Component,
    partial: PartialArchive,
    seconds: f64,
}

/// Gives the archives their names and hands their rows to the final transaction.
///
/// Dies between two renames, or before the transaction: complete files whose rows say `writing`; the next sweep
/// removes them, and the next attempt makes the backup anew.
fn publish(context: &Context, backup_id: u64, made: Vec<Made>, failed: Vec<(u64, Component, String)>) -> anyhow::Result<Done> {
    let mut archives: Vec<(u64, Component, ArchiveFile, f64)> = Vec::new();
    for m in made {
        archives.push((m.id, m.component, m.partial.publish()?, m.seconds));
    }
    let mut warnings: Vec<String> = Vec::new();
    for (_, component, archive, _) in &archives {
        warnings.extend(archive.manifest.warnings.iter().map(|w| format!("{component}: {w}")));
    }
    let errors: Vec<&String> = failed.iter().map(|(_, _, text)| text).collect();
    let state = if failed.iter().any(|(_, component, _)| *component == Component::Database) {
        State::Failed
    } else if failed.is_empty() && warnings.is_empty() {
        State::Completed
    } else {
        State::CompletedWithWarnings
    };
    let files: Vec<serde_json::Value> =
        archives.iter().map(|(_, component, archive, seconds)| describe(*component, archive, *seconds)).collect();
    let result = json!({ "backup": backup_id, "node": context.config.node, "files": files, "errors": errors, "warnings": warnings });
    let error = match state {
        State::Completed => None,
        _ if errors.is_empty() => None,
        _ => Some(errors.iter().map(|e| e.as_str()).collect::<Vec<_>>().join("; ")),
    };
    let all_warnings: Vec<String> = errors.into_iter().cloned().chain(warnings).collect();
    // After a backup that failed, nothing is removed.
    let mut follow_ups = Vec::new();
    if state != State::Failed {
        let from = format!("job {}", context.job_id);
        follow_ups.push(NewJob::new(&Prune::default(), &context.requested_by, from).map_err(anyhow::Error::msg)?);
    }
    Ok(Done { state, result, error, writes: Some(writes(backup_id, archives, failed, state, all_warnings)), follow_ups })
}

fn describe(component: Component, archive: &ArchiveFile, seconds: f64) -> serde_json::Value {
    let manifest = &archive.manifest;
    json!({
        "component": component,
        "file_name": archive.path.file_name().map(|n| n.to_string_lossy()),
        "directory": archive.path.parent().map(|p| p.to_string_lossy()),
        "size": archive.size,
        "sha256": archive.sha256,
        "raw_size": manifest.raw_size,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "database": manifest.database,
        "files": manifest.files,
        "rows": manifest.database.as_ref().map(|_| manifest.sections.iter().filter_map(|s| s.rows).sum::<u64>()),
    })
}

fn writes(
    backup_id: u64,
    archives: Vec<(u64, Component, ArchiveFile, f64)>,
    failed: Vec<(u64, Component, String)>,
    state: State,
    warnings: Vec<String>,
) -> CatalogWrites {
    let rows = Arc::new((archives, failed, warnings));
    Box::new(move |connection| {
        let rows = rows.clone();
        Box::pin(async move {
            for (id, _, archive, seconds) in &rows.0 {
                catalog::complete_archive(connection, *id, archive, *seconds).await?;
            }
            for (id, _, text) in &rows.1 {
                catalog::fail_archive(connection, *id, text).await?;
            }
            catalog::finish_backup(connection, backup_id, state.as_str(), &rows.2).await
        })
    })
}

impl Backup {
    /// The chosen components, each once, the database first.
    fn in_order(&self) -> Vec<Component> {
        Component::ALL.into_iter().filter(|c| self.components.contains(c)).collect()
    }
}

/// The settings say where backups go, so without the application database there is no backup, not even of files.
async fn read_settings(context: &Context) -> anyhow::Result<Settings> {
    let connected = context.config.application.connect().await;
    let mut application = connected.map_err(|e| {
        let transient = e.is_transient();
        let error = anyhow::Error::from(e).context("application database");
        if transient { error } else { give_up(error) }
    })?;
    let mut control = context.pool.acquire().await?;
    Ok(Settings::read(&mut application, &mut control).await?)
}

/// The backup directory, resolved and checked against what is served and what is backed up; it need not exist yet.
pub fn checked_directory(config: &Config, settings: &Settings) -> anyhow::Result<PathBuf> {
    let directory = settings
        .backup_path()
        .or_else(|| config.backups.clone())
        .ok_or_else(|| anyhow!("no backup directory: set HERATIO_BACKUPS_PATH, or the setting backup_path"))?;
    anyhow::ensure!(directory.is_absolute(), "the setting backup_path, `{}`, is not an absolute path", directory.display());
    let known: Vec<(Component, PathBuf)> = directories(config).into_iter().filter_map(|(c, d)| Some((c, d.ok()?))).collect();
    let components: Vec<(&str, &Path)> = known.iter().map(|(component, path)| (component.as_str(), path.as_path())).collect();
    Ok(paths::check_backup_dir(&directory, &components, config.root.as_deref(), &[])?)
}

/// Each file component's directory, or which variable would name it.
pub fn directories(config: &Config) -> Vec<(Component, anyhow::Result<PathBuf>)> {
    let root = || config.root.clone().ok_or_else(|| anyhow!("HERATIO_ROOT is not set: it names Heratio's own directory"));
    let uploads = config.uploads.clone().ok_or_else(|| anyhow!("HERATIO_UPLOADS_PATH is not set: it names the uploads directory"));
    vec![(Component::Uploads, uploads), (Component::Packages, root().map(|r| r.join("packages"))), (Component::Framework, root())]
}

async fn archive(
    context: &Context,
    component: Component,
    directory: &Path,
    name: &str,
    attempt: Attempt,
) -> anyhow::Result<PartialArchive> {
    let writer = ArchiveWriter::create(directory, name, &attempt.tag(), &context.config.effort, &context.control)?;
    match component {
        Component::Database => database(context, writer).await,
        other => directory_archive(context, other, writer, directory).await,
    }
}

/// Sessions that read the database at once, at most: more would be the application's loss.
const MAX_SESSIONS: usize = 4;

async fn database(context: &Context, writer: ArchiveWriter) -> anyhow::Result<PartialArchive> {
    let config = &context.config;
    let previous: Option<u64> =
        sqlx::query_scalar("SELECT raw_size FROM archives WHERE component = 'database' AND state = 'complete' ORDER BY id DESC LIMIT 1")
            .fetch_optional(&context.pool)
            .await?
            .flatten();
    let dump_config = DumpConfig {
        dumper: config.dumper,
        connections: config.effort.threads.min(MAX_SESSIONS),
        server: config.application.clone(),
        tools_dir: config.tools_dir.clone(),
        schema_prefix: config.schema_prefix.clone(),
        lock_wait: config.lock_wait,
        expected_bytes: previous,
        effort: config.effort,
        block_ddl: context.is_last_attempt && context.attempt > 1,
    };
    let (writer, dump) =
        dump::dump(&dump_config, writer, &context.control).await.map_err(|e| if e.is_retryable() { e.into() } else { give_up(e) })?;
    let manifest = Manifest {
        format: FORMAT,
        component: "database".into(),
        taken_at: Some(dump.taken_at),
        sections: dump.sections,
        database: Some(dump.facts),
        warnings: dump.warnings,
        ..Manifest::default()
    };
    Ok(tokio::task::spawn_blocking(move || writer.finish(manifest)).await??)
}

async fn directory_archive(
    context: &Context,
    component: Component,
    mut writer: ArchiveWriter,
    directory: &Path,
) -> anyhow::Result<PartialArchive> {
    let source = source(&context.config, component, directory)?;
    let control = context.control.clone();
    let taken_at = chrono::Utc::now();
    // A thread of its own: one of tokio's would stay nice for whatever it does next.
    let work = move || {
        let archive = files::archive(&source, &mut writer, &control)?;
        let manifest = Manifest {
            format: FORMAT,
            component: component.to_string(),
            taken_at: Some(taken_at),
            sections: archive.sections,
            files: Some(archive.facts),
            warnings: archive.warnings,
            ..Manifest::default()
        };
        Ok(writer.finish(manifest)?)
    };
    context.config.effort.run(work).await?
}

/// Where a file component lies, and what stays out of it: always the backup directory, and of the framework also
/// what can be rebuilt and the other components.
pub(crate) fn source(config: &Config, component: Component, backups: &Path) -> anyhow::Result<FileSource> {
    let path = directories(config)
        .into_iter()
        .find_map(|(c, directory)| (c == component).then_some(directory))
        .unwrap_or_else(|| Err(anyhow!("{component} is not a directory")))?;
    let mut source = FileSource::new(component.as_str(), &path);
    source.excludes.push(Exclude::Directory(backups.to_owned()));
    // What restores keep to undo them.
    source.excludes.push(Exclude::Named(WORK_PREFIX.to_owned()));
    if component == Component::Framework {
        source.excludes.extend(files::framework_excludes());
        source.excludes.extend(config.uploads.iter().cloned().map(Exclude::Directory));
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_once_and_the_database_first() {
        let backup = Backup { components: vec![Component::Framework, Component::Database, Component::Framework], label: None };
        assert_eq!(backup.in_order(), [Component::Database, Component::Framework]);
    }

    #[test]
    fn bad_payloads_name_the_field() {
        let check = |text: &str| (crate::register::find("backup").unwrap().check)(&serde_json::from_str(text).unwrap());
        assert_eq!(check("{}").unwrap(), Component::ALL);
        assert_eq!(check(r#"{"components":["plugins"]}"#).unwrap(), [Component::Packages]);
        for (payload, word) in [
            (r#"{"components":[]}"#, "components"),
            (r#"{"components":["everything"]}"#, "everything"),
            (r#"{"component":["database"]}"#, "component"),
            (r#"{"label":"two\nlines"}"#, "label"),
        ] {
            let error = check(payload).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
