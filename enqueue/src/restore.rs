//! `enqueue restore`: a plan, a confirmation, and the job that applies it.

use crate::{
    App,
    confirm::confirm,
    follow,
    output::{Refused, requester, size, span},
    submit,
};
use jobs::{
    catalog::nearest,
    component::Component,
    queue::{NewJob, enqueue, history::JobRow},
    restore::Restore,
    restore_plan::RestorePlan,
    state::State,
};
use serde_json::Value;
use sqlx::MySqlConnection;
use std::{path::Path, process::ExitCode};

/// What to restore, and how.
#[derive(clap::Args)]
pub(crate) struct RestoreArgs {
    /// An archive's file name, an absolute path on the worker's node, or a backup's number.
    #[arg(value_name = "ARCHIVE|BACKUP")]
    what: String,
    /// Which components of a backup (default: all that it has). This version restores the database.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    components: Vec<Component>,
    /// Restore beside the live database, into this schema, which must be empty or not exist.
    #[arg(long, value_name = "SCHEMA")]
    into: Option<String>,
    /// Show the plan and stop: nothing is changed.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for the name to be typed; for scripts.
    #[arg(long)]
    yes: bool,
    /// Empty the tables whose rows would act again: Laravel's jobs, sessions and cache.
    #[arg(long)]
    clear_transient: bool,
    /// Make foreign keys of other schemas again on the restored tables; without it, they are a reason to refuse.
    #[arg(long)]
    relink: bool,
    /// Cancel running backups that hold the database, instead of waiting for them.
    #[arg(long)]
    preempt: bool,
    /// Follow the job to its end.
    #[arg(long, short)]
    wait: bool,
    /// Run on this node.
    #[arg(long, value_name = "NAME", value_parser = jobs::config::node_name)]
    node: Option<String>,
}

impl RestoreArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let mut connection = app.connect().await?;
        let archive = self.archive(app, &mut connection).await?;
        let request = RestorePlan { archive, into: self.into.clone(), clear_transient: self.clear_transient, relink: self.relink };
        let (by, from) = requester()?;
        let mut job = NewJob::new(&request, &by, &from).map_err(Refused)?;
        job.node = self.node.clone();
        let id = enqueue(&mut connection, &job).await?.id;
        let plan = follow::wait(app, connection, id).await?;
        let result = plan.result.clone().unwrap_or_default();
        if plan.state != State::Completed || self.dry_run {
            if app.output.json {
                app.output.document(&plan)?;
            } else {
                follow::result(app, &plan)?;
            }
            return Ok(match plan.state {
                State::Completed => ExitCode::SUCCESS,
                _ if result["refused"] == true => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            });
        }
        if !app.output.json {
            follow::result(app, &plan)?;
        }
        confirm(app, &name_of(&result, &request), self.yes)?;
        let apply = Restore::of(id, result["evidence"].as_str().unwrap_or_default(), request);
        let mut job = NewJob::new(&apply, by, from).map_err(Refused)?;
        job.node = self.node;
        job.preempt = self.preempt;
        submit::made(app, &job, self.wait).await
    }

    /// The archive's name or path.
    async fn archive(&self, app: &App, connection: &mut MySqlConnection) -> anyhow::Result<String> {
        let chosen = |component: &Component| self.components.is_empty() || self.components.contains(component);
        if let Ok(backup) = self.what.parse::<u64>() {
            let archives: Vec<(String, String)> =
                sqlx::query_as("SELECT component, file_name FROM archives WHERE backup_id = ? AND state = 'complete' ORDER BY id")
                    .bind(backup)
                    .fetch_all(connection)
                    .await?;
            if archives.is_empty() {
                return Err(Refused(format!("there is no backup {backup} with archives; `enqueue backups` lists them")).into());
            }
            let has: Vec<Component> = archives.iter().filter_map(|(component, _)| component.parse().ok()).collect();
            if let Some(missing) = self.components.iter().find(|c| !has.contains(c)) {
                let list = has.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Refused(format!("backup {backup} has no {missing}; it has {list}")).into());
            }
            if let Some(other) = has.iter().find(|c| chosen(c) && **c != Component::Database) {
                return Err(Refused(format!(
                    "backup {backup} has {other}, which this version does not restore (tar does: see README.md); add --components database"
                ))
                .into());
            }
            let database = archives.into_iter().find(|(component, _)| component == "database");
            return database.map(|(_, name)| name).ok_or_else(|| Refused(format!("backup {backup} has no database")).into());
        }
        if self.components.iter().any(|c| *c != Component::Database) {
            return Err(Refused("--components is for backups by number; an archive is one component".into()).into());
        }
        if self.what.contains('/') {
            if !Path::new(&self.what).is_absolute() {
                return Err(Refused(format!("{}: write an absolute path; it is the worker that reads it", self.what)).into());
            }
            return Ok(self.what.clone());
        }
        let names: Vec<(String, String)> =
            sqlx::query_as("SELECT file_name, component FROM archives WHERE state = 'complete' ORDER BY id DESC")
                .fetch_all(connection)
                .await?;
        match names.iter().find(|(name, _)| *name == self.what) {
            Some((_, component)) if component == "database" => return Ok(self.what.clone()),
            Some((_, component)) => {
                return Err(Refused(format!(
                    "{} is an archive of {component}, which this version does not restore (tar does: see README.md)",
                    self.what
                ))
                .into());
            }
            None => {}
        }
        // A file that somebody put there.
        let directory = app.env.get("HERATIO_BACKUPS_PATH").map(Path::new);
        if directory.is_some_and(|d| d.join(&self.what).is_file()) {
            return Ok(self.what.clone());
        }
        let near = nearest(&self.what, names.iter().map(|(name, _)| name.as_str()));
        let hint = if near.is_empty() { "there are none yet".into() } else { format!("nearest: {}", near.join(", ")) };
        Err(Refused(format!("there is no archive `{}`; {hint}. `enqueue backups` lists them", self.what)).into())
    }
}

/// What is to be typed: the schema that is replaced, or else the archive.
fn name_of(result: &Value, request: &RestorePlan) -> String {
    match &request.into {
        None => result["target"].as_str().unwrap_or_default().to_owned(),
        Some(into) => into.clone(),
    }
}

/// What a plan, a restore or an undo says, as text.
pub(crate) fn describe(app: &App, job: &JobRow, result: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let list = |value: &Value| {
        let words: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        words.join(", ")
    };
    let mut lines: Vec<String> = Vec::new();
    if job.kind == "restore_plan" {
        let (backup, replaces) = (&result["backup"], &result["replaces"]);
        let foreign = if result["foreign"] == true { "foreign  " } else { "archive  " };
        lines.push(format!("{foreign}{} ({}, SHA-256 {})", text(&result["path"]), size(number(&result["size"])), text(&result["sha256"])));
        lines.push(format!(
            "holds    schema `{}` of {} {}, taken {}: {} tables with {} rows, {} views, {} triggers, {} routines, {} events",
            text(&result["from"]["schema"]),
            text(&result["from"]["flavour"]),
            text(&result["from"]["version"]),
            text(&result["taken_at"]),
            number(&backup["tables"]),
            number(&backup["rows"]),
            number(&backup["views"]),
            number(&backup["triggers"]),
            number(&backup["routines"]),
            number(&backup["events"]),
        ));
        match result["into"].as_str() {
            Some(into) => lines.push(format!("makes    schema `{into}`, beside the live database, which stays as it is")),
            None => lines.push(format!(
                "replaces schema `{}`: {} tables ({}) and {} views, triggers, routines and events; kept for {} hours",
                text(&result["target"]),
                number(&replaces["tables"]),
                size(number(&replaces["bytes"])),
                number(&replaces["code"]),
                number(&result["undo_hours"]),
            )),
        }
        for (key, words) in
            [("moves_aside", "tables that the backup does not have move aside"), ("foreign_keys", "foreign keys of other schemas")]
        {
            if result[key].as_array().is_some_and(|a| !a.is_empty()) {
                lines.push(format!("{words}: {}", list(&result[key])));
            }
        }
        for key in ["keeps", "window"] {
            lines.extend(result[key].as_str().map(str::to_owned));
        }
        lines.extend(result["refusals"].as_array().into_iter().flatten().map(|r| format!("refused: {}", text(r))));
    } else {
        lines.push(format!(
            "`{}`: {} tables; the cut-over took {}",
            text(&result["schema"]),
            number(&result["tables"]),
            span(result["cut_over_seconds"].as_f64().unwrap_or(0.0))
        ));
        if result["moved_aside"].as_array().is_some_and(|a| !a.is_empty()) {
            lines.push(format!("moved aside, since the backup does not have them: {}", list(&result["moved_aside"])));
        }
        lines.extend(result["kept"].as_str().map(str::to_owned));
        if let Some(undo) = result.get("undo").filter(|u| !u.is_null()) {
            lines.push(format!("undo: `enqueue undo {}` until {}", undo["job"], text(&undo["until"])));
        }
        lines.extend(result["next"].as_str().map(str::to_owned));
    }
    for line in lines {
        app.output.line(format_args!("  {line}"))?;
    }
    Ok(())
}
