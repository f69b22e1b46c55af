//! Submitting a job: the same options for every kind.

use crate::{
    App,
    follow::{self, why_text},
    output::{Refused, requester},
};
use jobs::{
    job::Job,
    queue::{
        NewJob, enqueue, history,
        waiting::{self, Waiting},
    },
};
use serde_json::json;
use std::process::ExitCode;

/// A job's own options, and those of every submitting command.
#[derive(clap::Args)]
pub(crate) struct Submit<J: Job + clap::Args> {
    #[command(flatten)]
    job: J,
    /// Follow the job to its end: progress, then what came of it; the exit status tells how it ended.
    #[arg(long, short)]
    wait: bool,
    /// Start no earlier: `2026-11-25 02:00` (in BACKUP_TIMEZONE) or RFC 3339.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Run on this node (the host whose files and disk are meant).
    #[arg(long, value_name = "NAME", value_parser = jobs::config::node_name)]
    node: Option<String>,
}

impl<J: Job + clap::Args> Submit<J> {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (by, from) = requester()?;
        let mut job = NewJob::new(&self.job, by, from).map_err(Refused)?;
        job.run_at = self.at.as_deref().map(|t| app.output.parse_time(t)).transpose()?;
        job.node = self.node;
        made(app, &job, self.wait).await
    }
}

/// Enqueues the job, then prints its number or follows it to its end.
pub(crate) async fn made(app: &App, job: &NewJob, wait: bool) -> anyhow::Result<ExitCode> {
    let mut connection = app.connect().await?;
    let made = enqueue(&mut connection, job).await?;
    if wait {
        return follow::follow(app, connection, made.id).await;
    }
    if app.output.json {
        app.output.document(&json!({ "job": made.id, "existing": made.existing }))?;
    } else {
        app.output.line(made.id)?;
        if let Some(job) = history::show(&mut connection, made.id).await?
            && let why @ Waiting::NoWorker { .. } = waiting::why(&mut connection, &job).await?
        {
            follow::say(format_args!("job {}: {}", made.id, why_text(app, &job, &why)));
        }
    }
    Ok(ExitCode::SUCCESS)
}
