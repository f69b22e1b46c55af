//! `enqueue backups`.

use crate::{App, output};
use jobs::{catalog, undo};
use sqlx::MySqlConnection;
use std::process::ExitCode;

/// Which backups to list.
#[derive(clap::Args)]
pub(crate) struct BackupsArgs {
    /// How many at most.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl BackupsArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let backups = catalog::backups(&mut connection, self.limit).await?;
        if app.output.json {
            app.output.document(&backups)?;
        } else if backups.is_empty() {
            app.output.line("no backups yet; make one with `enqueue backup --wait`")?;
        } else {
            let mut rows = Vec::new();
            for b in &backups {
                let label = b.label.as_deref().unwrap_or_default();
                rows.push(vec![
                    b.id.to_string(),
                    b.state.clone(),
                    app.output.time(b.started_at),
                    output::size(b.size),
                    b.node.clone(),
                    label.to_owned(),
                ]);
                for a in &b.archives {
                    rows.push(vec![
                        String::new(),
                        format!("  {}", a.component),
                        String::new(),
                        output::size(a.size),
                        String::new(),
                        format!("{}/{}", a.directory, a.file_name),
                    ]);
                }
            }
            app.output.table(&["BACKUP", "STATE", "STARTED", "SIZE", "NODE", "LABEL / ARCHIVE"], &rows)?;
        }
        if !app.output.json {
            let kept = undo::kept(&mut connection).await?;
            if !kept.is_empty() {
                app.output.line("\nundo points (what restores replaced, kept for BACKUP_UNDO_HOURS):")?;
            }
            for point in kept {
                app.output.line(format_args!(
                    "  {}  until {}: `enqueue undo {}`",
                    point.what,
                    app.output.time(point.until),
                    point.job_id
                ))?;
            }
            let foreign = foreign(app, &mut connection).await?;
            if !foreign.is_empty() {
                app.output.line("\nforeign files (unverified; `enqueue restore NAME` takes dumps and tars):")?;
                for (name, bytes) in foreign {
                    app.output.line(format_args!("  {:>9}  {name}", output::size(bytes)))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Dumps and archives in this host's backup directory that the catalog does not know.
async fn foreign(app: &App, connection: &mut MySqlConnection) -> anyhow::Result<Vec<(String, u64)>> {
    // Another host's directory, or none: nothing to see from here.
    let Some(files) = app.env.get("HERATIO_BACKUPS_PATH").and_then(|d| std::fs::read_dir(d).ok()) else { return Ok(Vec::new()) };
    let known: Vec<String> = sqlx::query_scalar("SELECT file_name FROM archives").fetch_all(connection).await?;
    let mut found = Vec::new();
    for file in files {
        let file = file?;
        let Ok(name) = file.file_name().into_string() else { continue };
        let is_one = [".sql", ".sql.gz", ".tar.gz"].iter().any(|end| name.ends_with(end)) && !name.starts_with('.');
        if is_one && !known.contains(&name) {
            found.push((name, file.metadata()?.len()));
        }
    }
    found.sort();
    Ok(found)
}
