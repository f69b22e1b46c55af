//! `enqueue schedule`.

use crate::{
    App, follow,
    output::{self, Refused, requester},
};
use jobs::{
    backup::Backup,
    queue::NewJob,
    schedule::{self, NewSchedule, ScheduleError, ScheduleRow},
};
use serde_json::json;
use std::process::ExitCode;

/// What to do about schedules.
#[derive(clap::Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show all schedules: next and last run, last job and its state.
    List,
    /// Make a schedule, switched on.
    Add(AddArgs),
    /// Remove a schedule; its jobs stay. (A ready-made one comes back, switched off, with the next `worker migrate`.)
    Remove {
        /// The schedule.
        name: String,
    },
    /// Switch a schedule on, from its next slot on.
    Enable {
        /// The schedule.
        name: String,
    },
    /// Switch a schedule off. A job of it that waits or runs goes on.
    Disable {
        /// The schedule.
        name: String,
    },
    /// Enqueue what a schedule does, once and now, be it on or off. Its slots stay as they are.
    Run {
        /// The schedule.
        name: String,
        /// Follow the job to its end: progress, then what came of it; the exit status tells how it ended.
        #[arg(long, short)]
        wait: bool,
    },
}

/// A new schedule.
#[derive(clap::Args)]
struct AddArgs {
    /// Its name: up to 64 letters, digits, dots, dashes or underscores.
    name: String,
    /// Minute, hour, day of month, month and day of week: '0 2 * * *' is every night at two.
    #[arg(long, value_name = "EXPRESSION")]
    cron: String,
    /// Zone in which the expression is read (default: BACKUP_TIMEZONE, else UTC).
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Run its jobs on this node (the host whose files and disk are meant).
    #[arg(long, value_name = "NAME", value_parser = jobs::config::node_name)]
    node: Option<String>,
    #[command(subcommand)]
    job: Scheduled,
}

/// Kinds that can be scheduled: the repeatable ones.
#[derive(clap::Subcommand)]
enum Scheduled {
    /// Back up the database and files.
    Backup(Backup),
}

impl Scheduled {
    fn job(&self, by: String, from: String) -> Result<NewJob, String> {
        match self {
            Self::Backup(job) => NewJob::new(job, by, from),
        }
    }
}

impl ScheduleArgs {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (by, from) = requester()?;
        match self.command {
            Command::List => list(app, &schedule::list(&mut app.connect().await?).await?)?,
            Command::Add(args) => {
                let mut job = args.job.job(by, from).map_err(Refused)?;
                job.node = args.node;
                let timezone = args.timezone.unwrap_or_else(|| app.output.zone.name().to_owned());
                let new = NewSchedule { name: args.name, description: args.description, cron: args.cron, timezone, job };
                let next = schedule::add(&mut app.connect().await?, &new).await.map_err(refused)?;
                say_next(app, &new.name, next)?;
            }
            Command::Enable { name } => {
                let next = schedule::enable(&mut app.connect().await?, &name).await.map_err(refused)?;
                say_next(app, &name, next)?;
            }
            Command::Disable { name } => {
                schedule::disable(&mut app.connect().await?, &name).await.map_err(refused)?;
                say(app, &name, "off", format_args!("schedule {name} is off"))?;
            }
            Command::Remove { name } => {
                schedule::remove(&mut app.connect().await?, &name).await.map_err(refused)?;
                say(app, &name, "removed", format_args!("schedule {name} is removed"))?;
            }
            Command::Run { name, wait } => {
                let mut connection = app.connect().await?;
                let id = schedule::run_now(&mut connection, &name, &by, &from).await.map_err(refused)?;
                if wait {
                    return follow::follow(app, connection, id).await;
                }
                if app.output.json {
                    app.output.document(&json!({ "job": id, "schedule": name }))?;
                } else {
                    app.output.line(id)?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// MySQL's trouble is not the user's.
fn refused(error: ScheduleError) -> anyhow::Error {
    match error {
        ScheduleError::Database(_) => error.into(),
        other => Refused(other.to_string()).into(),
    }
}

fn say(app: &App, name: &str, state: &str, text: impl std::fmt::Display) -> anyhow::Result<()> {
    if app.output.json {
        return app.output.document(&json!({ "schedule": name, "state": state }));
    }
    Ok(app.output.line(text)?)
}

fn say_next(app: &App, name: &str, next: chrono::DateTime<chrono::Utc>) -> anyhow::Result<()> {
    if app.output.json {
        return app.output.document(&json!({ "schedule": name, "state": "on", "next_run": next }));
    }
    Ok(app.output.line(format_args!("schedule {name} is on; next run {}, if a worker runs with --scheduler", app.output.time(next)))?)
}

fn list(app: &App, schedules: &[ScheduleRow]) -> anyhow::Result<()> {
    if app.output.json {
        return app.output.document(&schedules);
    }
    if schedules.is_empty() {
        return Ok(app.output.line("no schedules; make one with `enqueue schedule add NAME --cron '0 2 * * *' backup`")?);
    }
    let time = |t: Option<_>| t.map_or_else(|| "-".to_owned(), |t| app.output.time(t));
    let mut rows = Vec::new();
    for s in schedules {
        let overdue = (s.overdue_seconds > 60).then(|| {
            let late = output::span(s.overdue_seconds as f64);
            format!("overdue by {late}: start a worker with `worker run --scheduler`")
        });
        let notes: Vec<String> = s.note.iter().cloned().chain(overdue).collect();
        rows.push(vec![
            s.name.clone(),
            format!("{} {}", s.cron, s.timezone),
            s.kind.clone(),
            if s.enabled { time(s.next_run) } else { "off".into() },
            time(s.last_run),
            s.last_job.map_or_else(|| "-".into(), |id| id.to_string()),
            s.last_job_state.clone().unwrap_or_default(),
            notes.join("; "),
        ]);
    }
    app.output.table(&["SCHEDULE", "CRON", "KIND", "NEXT RUN", "LAST RUN", "LAST JOB", "STATE", ""], &rows)
}
