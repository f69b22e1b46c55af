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
    /// Which components of a backup (default: all that it has).
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    components: Vec<Component>,
    /// Restore this one file, such as uploads/r/x/y.tif, and nothing else.
    #[arg(long, value_name = "FILE")]
    path: Option<String>,
    /// Restore beside the live database, into this schema, which must be empty or not exist.
    #[arg(long, value_name = "SCHEMA")]
    into: Option<String>,
    /// Load into the live database itself, after a verified safety backup: for servers without room for two. Not atomic.
    #[arg(long)]
    in_place: bool,
    /// Of the framework, restore .env too; without it, the live one stays.
    #[arg(long)]
    with_env: bool,
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
        let request = RestorePlan {
            archive,
            components: self.chosen()?,
            path: self.path.clone(),
            into: self.into.clone(),
            in_place: self.in_place,
            with_env: self.with_env,
            clear_transient: self.clear_transient,
            relink: self.relink,
        };
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
        confirm(app, result["confirm"].as_str().unwrap_or_default(), self.yes)?;
        let components = serde_json::from_value(result["components"].clone())?;
        let request = RestorePlan { components, ..request };
        let apply = Restore::of(id, result["evidence"].as_str().unwrap_or_default(), request);
        let mut job = NewJob::new(&apply, by, from).map_err(Refused)?;
        job.node = self.node;
        job.preempt = self.preempt;
        submit::made(app, &job, self.wait).await
    }

    /// The components asked for; that of a single file, where its path says it.
    fn chosen(&self) -> Result<Vec<Component>, Refused> {
        let of_path = self.path.as_deref().and_then(|p| p.trim_start_matches('/').split('/').next()?.parse().ok());
        match (&self.path, &self.components[..], of_path) {
            (Some(_), [], Some(component)) if self.what.parse::<u64>().is_ok() => Ok(vec![component]),
            (Some(path), [], None) if self.what.parse::<u64>().is_ok() => {
                Err(Refused(format!("`{path}` does not begin with uploads/, packages/ or framework/; say which with --components")))
            }
            (_, components, _) => Ok(components.to_vec()),
        }
    }

    /// The archive's name or path, or the backup's number.
    async fn archive(&self, app: &App, connection: &mut MySqlConnection) -> anyhow::Result<String> {
        if let Ok(backup) = self.what.parse::<u64>() {
            let archives: Vec<String> =
                sqlx::query_scalar("SELECT component FROM archives WHERE backup_id = ? AND state = 'complete' ORDER BY id")
                    .bind(backup)
                    .fetch_all(connection)
                    .await?;
            if archives.is_empty() {
                return Err(Refused(format!("there is no backup {backup} with archives; `enqueue backups` lists them")).into());
            }
            let has: Vec<Component> = archives.iter().filter_map(|component| component.parse().ok()).collect();
            if let Some(missing) = self.chosen()?.iter().find(|c| !has.contains(c)) {
                let list = has.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(Refused(format!("backup {backup} has no {missing}; it has {list}")).into());
            }
            return Ok(self.what.clone());
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
        if let Some((name, component)) = names.iter().find(|(name, _)| *name == self.what) {
            if let Some(other) = self.components.iter().find(|c| c.as_str() != component) {
                return Err(Refused(format!("{name} is an archive of {component}, not of {other}")).into());
            }
            return Ok(self.what.clone());
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

/// What a plan, a restore or an undo says, as text.
pub(crate) fn describe(app: &App, job: &JobRow, result: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let list = |value: &Value| {
        let words: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        words.join(", ")
    };
    let mut lines: Vec<String> = Vec::new();
    let has_database = !result["target"].is_null() || !result["schema"].is_null();
    if job.kind == "restore_plan" && has_database {
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
        match (result["into"].as_str(), result["atomic"].as_str()) {
            (Some(into), _) => lines.push(format!("makes    schema `{into}`, beside the live database, which stays as it is")),
            (None, Some(how)) => {
                lines.push(format!(
                    "replaces schema `{}`: {} tables ({}) and {} views, triggers, routines and events; nothing is kept but the safety backup",
                    text(&result["target"]),
                    number(&replaces["tables"]),
                    size(number(&replaces["bytes"])),
                    number(&replaces["code"]),
                ));
                lines.push(how.to_owned());
            }
            (None, None) => lines.push(format!(
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
    } else if has_database && result["in_place"] == true {
        lines.push(format!("`{}`: {} tables, loaded in place", text(&result["schema"]), number(&result["tables"])));
        lines.push(format!(
            "safety backup {}: `enqueue restore {}` puts back what was there",
            result["safety"]["backup"],
            text(&result["safety"]["archive"])
        ));
    } else if has_database {
        lines.push(format!(
            "`{}`: {} tables; the cut-over took {}",
            text(&result["schema"]),
            number(&result["tables"]),
            span(result["cut_over_seconds"].as_f64().unwrap_or(0.0))
        ));
        if result["moved_aside"].as_array().is_some_and(|a| !a.is_empty()) {
            lines.push(format!("moved aside, since the backup does not have them: {}", list(&result["moved_aside"])));
        }
    }
    let undoing = job.kind == "undo";
    for tree in result["trees"].as_array().into_iter().flatten() {
        if job.kind == "restore_plan" { plan_of_tree(tree, &mut lines) } else { result_of_tree(tree, undoing, &mut lines) }
    }
    lines.extend(result["kept"].as_str().map(str::to_owned));
    if let Some(undo) = result.get("undo").filter(|u| !u.is_null()) {
        lines.push(format!("undo: `enqueue undo {}` until {}", undo["job"], text(&undo["until"])));
    }
    lines.extend(result["next"].as_str().map(str::to_owned));
    lines.extend(result["refusals"].as_array().into_iter().flatten().map(|r| format!("refused: {}", text(r))));
    for line in lines {
        app.output.line(format_args!("  {line}"))?;
    }
    Ok(())
}

/// What a plan says of one component's files.
fn plan_of_tree(tree: &Value, lines: &mut Vec<String>) {
    let text = |key: &str| tree[key].as_str().unwrap_or_default();
    let number = |key: &str| tree[key].as_u64().unwrap_or(0);
    let foreign = if tree["foreign"] == true { "foreign  " } else { "archive  " };
    let sum = if text("sha256").is_empty() { String::new() } else { format!(", SHA-256 {}", text("sha256")) };
    lines.push(format!("{foreign}{} ({}{sum})", text("path"), size(number("size"))));
    let taken = tree["taken_at"].as_str().map_or_else(String::new, |t| format!(", taken {t}"));
    match tree["file"].as_str() {
        Some(file) => lines.push(format!("holds    {file} ({}){taken}", size(number("bytes")))),
        None => lines.push(format!(
            "holds    {}: {} files ({}), {} directories, {} links{taken}",
            text("component"),
            number("files"),
            size(number("bytes")),
            number("directories"),
            number("links")
        )),
    }
    let how = match text("how") {
        _ if tree["exists"] == false => "makes    {}, which is not there",
        "whole" => "replaces {}, by one exchange",
        "inside" => "replaces what is in {}, entry by entry",
        _ => "replaces that file in {}",
    };
    lines.push(format!("{}; what is replaced is kept for {} hours", how.replace("{}", text("directory")), number("undo_hours")));
    let stays: Vec<&str> = tree["stays"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !stays.is_empty() {
        lines.push(format!("stays    {}", stays.join(", ")));
    }
    lines.push(format!(
        "space    about {} needed in {}, {} free",
        size(number("needed")),
        text("works_in"),
        tree["free"].as_u64().map_or_else(|| "unknown".into(), size)
    ));
}

/// What came of one component's files.
fn result_of_tree(tree: &Value, undoing: bool, lines: &mut Vec<String>) {
    let text = |key: &str| tree[key].as_str().unwrap_or_default();
    if let Some(error) = tree["error"].as_str() {
        lines.push(format!("{} in {}: as it was before, since {error}", text("component"), text("directory")));
        return;
    }
    let what = if undoing { "put back".to_owned() } else { format!("{} files restored", tree["files"].as_u64().unwrap_or(0)) };
    lines.push(format!(
        "{} in {}: {what}; changing places took {}",
        text("component"),
        text("directory"),
        span(tree["swap_seconds"].as_f64().unwrap_or(0.0))
    ));
    let left_out: Vec<&str> = tree["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !left_out.is_empty() {
        lines.push(format!("not taken from the archive, since it stays as it is: {}", left_out.join(", ")));
    }
}
